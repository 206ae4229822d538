@testable import Gateway

/// What a request says, apart from how it is spelled: the second opinion on what Ollama answers alike.
///
/// It is written down the other way round than ``CanonicalForm``: not by taking spellings apart, but by listing,
/// for each thing that can be meant, the spellings of it. Two meanings are equal exactly if Ollama cannot tell
/// them apart.
indirect enum Meaning: Hashable {
    case text(String)
    /// Text that means the same in upper and lower case.
    case anyCase(String)
    /// A scalar with all spellings that are the same to Ollama.
    case literal([String])
    case list([Meaning])
    /// One text, written alone or as a list.
    case oneOrList(String)
    /// An object whose order does not count.
    case sorted([String: Meaning])
    /// An object whose order counts.
    case ordered([Named])
    /// An object of which the fields are known, with those that say something.
    case fields(Shape, [String: Meaning])

    struct Named: Hashable {
        let name: String
        let value: Meaning
    }
}

/// One field of an object: what it can mean, and what is as good as leaving it out.
struct FieldModel {
    let name: String
    let meanings: [Meaning]
    var absences: [String] = []
    var isRequired = false
}

enum Shape: Hashable {
    case request(Endpoint)
    case nativeMessage, message, options, responseFormat

    var fields: [FieldModel] {
        switch self {
        case .request(let endpoint): endpoint.fields
        case .nativeMessage: Shape.nativeMessageFields
        case .message: Shape.messageFields
        case .options: Shape.optionFields
        case .responseFormat: Shape.responseFormatFields
        }
    }

    private static let toolCalls: [Meaning] = Meaning.schemas.map { arguments in
        .list([
            .sorted(["id": .text("1"), "function": .sorted(["name": .text("f"), "arguments": arguments])])
        ])
    }

    private static let nativeMessageFields = [
        FieldModel(name: "role", meanings: [.anyCase("user"), .anyCase("tool")], absences: ["null", #""""#]),
        FieldModel(name: "content", meanings: Meaning.texts, absences: ["null", #""""#]),
        FieldModel(name: "images", meanings: [.list([.text("QQ==")])], absences: ["null", "[]"]),
        FieldModel(name: "tool_calls", meanings: toolCalls, absences: ["null", "[]"]),
        FieldModel(name: "tool_name", meanings: [.text("f")], absences: ["null", #""""#]),
        FieldModel(name: "x", meanings: Meaning.anything),
    ]

    private static let messageFields = [
        FieldModel(name: "role", meanings: [.text("user"), .text("User")], absences: ["null", #""""#]),
        FieldModel(
            name: "content",
            meanings: Meaning.texts + [.text(""), .list([.sorted(["type": .text("text"), "text": .text("hi")])])],
            absences: ["null"]),
        FieldModel(name: "tool_calls", meanings: toolCalls + [.list([])], absences: ["null"]),
        FieldModel(name: "name", meanings: [.text("f")], absences: ["null", #""""#]),
    ]

    private static let optionFields = [
        FieldModel(
            name: "temperature", meanings: [.literal(["0", "-0", "0.0", "0e5"]), .literal(["0.8", "8e-1", "0.80"])],
            absences: ["null"]),
        FieldModel(
            name: "num_ctx", meanings: [.literal(["4096", "4096.7", "4.096e3"]), .literal(["4097"])],
            absences: ["null"]),
        FieldModel(name: "seed", meanings: [.literal(["1", "1.5", "1E0"]), .literal(["-1.9", "-1"])]),
        FieldModel(name: "stop", meanings: [.list([]), .list([.text("a")])], absences: ["null"]),
        FieldModel(name: "y", meanings: [.literal(["5", "5.0"]), .literal(["5.5", "55e-1"]), .text("5")]),
        FieldModel(name: "SEED", meanings: [.literal(["1", "1.0"]), .literal(["1.5"])]),
    ]

    private static let responseFormatFields = [
        FieldModel(name: "type", meanings: [.text("json_schema"), .text("json_object")], isRequired: true),
        FieldModel(name: "json_schema", meanings: Meaning.schemas, absences: ["null"]),
    ]
}

extension Meaning {
    static let texts: [Meaning] = [
        .text("hi"), .text("Hi"), .text("h\u{e9}\n\"\\/ \u{1f600}"), .text("he\u{301}\u{0}"),
    ]

    /// Objects that differ in nothing but their order, or a number's spelling.
    static let schemas: [Meaning] = [
        .ordered([Named(name: "a", value: .literal(["1"])), Named(name: "b", value: .sorted([:]))]),
        .ordered([Named(name: "b", value: .sorted([:])), Named(name: "a", value: .literal(["1"]))]),
        .ordered([Named(name: "b", value: .list([])), Named(name: "a", value: .literal(["1"]))]),
        .ordered([Named(name: "b", value: .list([])), Named(name: "a", value: .literal(["1.0"]))]),
    ]

    static let anything: [Meaning] = [
        .literal(["null"]), .literal(["1"]), .literal(["1.0"]), .literal(["true"]), .text(""), .list([]),
        .sorted(["a": .literal(["1"]), "b": .list([.literal(["2"])]), "\u{e9}": .sorted([:])]),
        .sorted(["a": .literal(["1"]), "b": .list([.literal(["2"])]), "e": .sorted([:])]),
        .list([.sorted([:]), .text("a")]), .list([.list([.sorted([:])]), .text("a")]),
    ]
}

extension Endpoint {
    /// The models of the fields of a request.
    fileprivate var fields: [FieldModel] {
        switch self {
        case .generate: Endpoint.native + Endpoint.generateFields
        case .chat: Endpoint.native + [Endpoint.messages(.nativeMessage)]
        case .embed: [Endpoint.input, Endpoint.options, Endpoint.truncate, Endpoint.dimensions]
        case .embeddings: [Endpoint.prompt, Endpoint.options]
        case .chatCompletions: Endpoint.v1 + Endpoint.chatFields
        case .completions: Endpoint.v1 + Endpoint.completionFields
        default: [Endpoint.input, Endpoint.dimensions, Endpoint.encoding]
        }
    }

    private static let prompt = FieldModel(name: "prompt", meanings: Meaning.texts, isRequired: true)
    private static let input = FieldModel(
        name: "input", meanings: [.oneOrList("hi"), .oneOrList("a"), .list([.text("hi"), .text("a")])],
        isRequired: true)
    private static let options = FieldModel(
        name: "options", meanings: [.fields(.options, [:])], absences: ["null", "{}", #"{"top_p":null}"#])
    private static let truncate = FieldModel(
        name: "truncate", meanings: [.literal(["false"])], absences: ["null", "true"])
    private static let dimensions = FieldModel(
        name: "dimensions", meanings: [.literal(["8"]), .literal(["8.0"])], absences: ["null", "0"])
    private static let encoding = FieldModel(
        name: "encoding_format", meanings: [.text("base64")], absences: ["null", #""""#, #""float""#])

    private static func messages(_ shape: Shape) -> FieldModel {
        FieldModel(
            name: "messages",
            meanings: [.list([.fields(shape, [:])]), .list([.fields(shape, [:]), .fields(shape, [:])])],
            isRequired: true)
    }

    private static let tools = FieldModel(
        name: "tools", meanings: Meaning.schemas.map { .list([$0]) }, absences: ["null", "[]"])

    private static let native = [
        options, truncate, tools,
        FieldModel(name: "format", meanings: [.text("json")] + Meaning.schemas, absences: ["null", #""""#]),
        FieldModel(
            name: "think", meanings: [.literal(["true"]), .literal(["false"]), .text("high")], absences: ["null"]),
        FieldModel(name: "shift", meanings: [.literal(["true"]), .literal(["false"])], absences: ["null"]),
        FieldModel(name: "logprobs", meanings: [.literal(["true"])], absences: ["null", "false"]),
        FieldModel(name: "top_logprobs", meanings: [.literal(["2"])], absences: ["null", "0"]),
        FieldModel(name: "temperature", meanings: [.literal(["1"]), .literal(["1.0"])]),
    ]

    private static let generateFields = [
        prompt,
        FieldModel(name: "system", meanings: [.text("a")], absences: ["null", #""""#]),
        FieldModel(name: "template", meanings: [.text("a")], absences: ["null", #""""#]),
        FieldModel(name: "raw", meanings: [.literal(["true"])], absences: ["null", "false"]),
        FieldModel(
            name: "context", meanings: [.list([.literal(["1"]), .literal(["2"])])], absences: ["null", "[]"]),
    ]

    private static let v1 = [
        tools,
        FieldModel(
            name: "temperature", meanings: [.literal(["0", "-0.0"]), .literal(["0.5", "5e-1"])],
            absences: ["null", "1", "1.0", "10e-1"]),
        FieldModel(name: "seed", meanings: [.literal(["0"]), .literal(["0.0"])], absences: ["null"]),
        FieldModel(name: "max_tokens", meanings: [.literal(["9"]), .literal(["9.0"])], absences: ["null"]),
        FieldModel(
            name: "stop", meanings: [.list([]), .oneOrList("a"), .list([.text("a"), .text("b")])],
            absences: ["null"]),
        FieldModel(name: "n", meanings: [.literal(["1"]), .literal(["2"])]),
    ]

    private static let chatFields = [
        messages(.message),
        FieldModel(
            name: "top_p", meanings: [.literal(["0", "0.0"]), .literal(["0.5", "5e-1"])], absences: ["null", "1.0"]),
        FieldModel(name: "presence_penalty", meanings: [.literal(["0", "0.0"])], absences: ["null"]),
        FieldModel(
            name: "response_format", meanings: [.fields(.responseFormat, [:])],
            absences: ["null", #"{"type":"text"}"#, #"{"json_schema":null,"type":"text"}"#]),
        FieldModel(name: "reasoning_effort", meanings: [.text("low"), .text("")], absences: ["null"]),
    ]

    private static let completionFields = [
        prompt,
        FieldModel(
            name: "top_p", meanings: [.literal(["0.5", "5e-1"])], absences: ["null", "1.0", "0", "-0.0"]),
        FieldModel(
            name: "presence_penalty", meanings: [.literal(["0.5", "5e-1"])], absences: ["null", "0", "-0.0"]),
        FieldModel(name: "suffix", meanings: [.text("a")], absences: ["null", #""""#]),
    ]
}
