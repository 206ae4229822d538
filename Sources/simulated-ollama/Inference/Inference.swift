/// What a request asks of a model, whichever endpoint it came by.
struct Inference {
    /// The model's name as the request has it: the answer repeats it.
    var model: String
    var stream: Bool
    var options = JSONObject()
    var keepAlive: KeepAlive?
    var shift: Bool?
    var truncate: Bool?
    /// Nothing to answer: loads the model, or with `keep_alive` 0 unloads it.
    var isEmpty = false
    var think: Think?
    var format: JSONValue?
    var tools: [Tool] = []
    /// Alternatives to show for each token, 0 for none; nil if no log-probabilities are wanted.
    var logprobs: Int?
    var raw = false
    var hasSuffix = false
    /// Earlier tokens that `/api/generate` was given to go on from.
    var context: [JSONValue] = []

    /// Of what was said so far.
    var seed = Seed()
    /// Of how it is to be answered: a sum, so that it does not matter in what order an endpoint reads its fields.
    private var influences: UInt64 = 0
    /// Of all that the model has to read.
    var promptBytes = 0
    /// What the user said last; empty if the last message is not the user's.
    var question = ""

    init(model: String, stream: Bool) {
        self.model = model
        self.stream = stream
    }

    enum Think: Equatable {
        case no
        case yes(level: String?)

        var isWanted: Bool { self != .no }
    }

    /// About four bytes to a token, and the template around it.
    var promptTokens: Int { context.count + 11 + promptBytes / 4 }

    /// Of all that decides the words.
    func seed(for model: Model) -> Seed {
        var seed = seed
        seed.mix(influences)
        seed.mix(model.digest)
        return seed
    }

    private mutating func influence(_ name: String, _ value: JSONValue) {
        var one = Seed()
        one.mix(name)
        one.mix(json: value)
        influences = influences &+ one.value
    }

    mutating func add(role: String, content: String) {
        seed.mix(role.lowercased())
        seed.mix(content)
        promptBytes += content.utf8.count
        question = role.lowercased() == "user" ? content : ""
    }

    /// An image or whatever else is neither shown nor said.
    mutating func add(attachment: JSONValue) {
        seed.mix(json: attachment)
        promptBytes += 1024
    }

    mutating func take(options: JSONObject) {
        self.options = options
        for member in options.members where !ModelOptions.withoutInfluence.contains(member.name) {
            if case .null = member.value { continue }
            influence(member.name, member.value)
        }
    }

    mutating func take(tools: [Tool]) {
        self.tools = tools
        for tool in tools { influence("tool " + tool.name, .object(tool.schema)) }
    }

    mutating func take(think: Think?) {
        self.think = think
        switch think {
        case nil: break
        case .no: influence("think", false)
        case .yes(let level): influence("think", level.map { .string($0) } ?? true)
        }
    }

    mutating func take(format: JSONValue?) {
        guard let format, format.string != "" else { return }
        self.format = format
        influence("format", format)
    }

    /// How many tokens the request allows; nil for any number.
    var tokenLimit: Int? {
        guard let limit = options["num_predict"]?.double, limit > 0 else { return nil }
        return Int(min(limit, 1e15))
    }

    var stops: [String] {
        switch options["stop"] {
        case .string(let stop)? where !stop.isEmpty: [stop]
        case .array(let stops)?: stops.compactMap(\.string).filter { !$0.isEmpty }
        default: []
        }
    }
}

/// A function that a model may call.
struct Tool {
    let name: String
    /// JSON Schema of its parameters.
    let schema: JSONObject
}

/// The options that Ollama knows, and of what type they are.
enum ModelOptions {
    static let withoutInfluence: Set<String> = [
        "num_predict", "stop", "num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "num_keep",
        "draft_num_predict",
    ]

    private static let integers: Set<String> = [
        "num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu", "main_gpu",
        "num_thread", "draft_num_predict",
    ]
    private static let floats: Set<String> = [
        "top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty",
    ]

    /// What is wrong with the options, in Ollama's words; unknown ones are ignored.
    static func problem(in options: JSONObject) -> String? {
        for (name, value) in options.members {
            switch value {
            case .null: continue
            case .number where integers.contains(name) || floats.contains(name): continue
            case .bool where name == "use_mmap": continue
            case .array where name == "stop": continue
            default: break
            }
            if integers.contains(name) { return "option \"\(name)\" must be of type integer" }
            if floats.contains(name) { return "option \"\(name)\" must be of type float32" }
            if name == "use_mmap" { return "option \"\(name)\" must be of type boolean" }
            if name == "stop" { return "option \"\(name)\" must be of type array" }
        }
        return nil
    }
}
