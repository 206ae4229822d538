import EventLoop

/// What an endpoint says where endpoints differ.
struct Manners {
    /// To a request without a model.
    var nameless: Failure
    /// For models that cannot do it: `"x" does not support chat`.
    var verb: String
    /// Wanting a model that cannot think to think is no error (Anthropic's clients do it always).
    var relaxesThinking = false

    static let generate = Manners(nameless: .missing(""), verb: "generate")
    static let chat = Manners(nameless: .bad("model is required"), verb: "chat")
    static let messages = Manners(nameless: .bad("model is required"), verb: "chat", relaxesThinking: true)
}

extension Box {
    /// The model of this name. Throws a ``Failure``: 404 with `missing`, 400 for what is no name, 401 for a cloud
    /// model.
    func find(_ text: String, nameless: Failure, missing: Failure) throws(Failure) -> Model {
        guard !text.isEmpty else { throw nameless }
        guard let name = ModelName(text) else { throw .bad("invalid model name") }
        guard !name.isCloud else { throw .cloud }
        guard let model = catalogue[name] else { throw missing }
        return model
    }

    /// Checks a request for words and makes it ready to run. The checks come in Ollama's order.
    func plan(
        _ inference: Inference, _ manners: Manners, for call: Call, format: (Inference, Seed) -> any AnswerFormat
    ) throws -> Plan {
        if let count = inference.logprobs, !(0...20).contains(count) {
            throw Failure.bad("top_logprobs must be between 0 and 20")
        }
        let model = try find(inference.model, nameless: manners.nameless, missing: .missing(inference.model))
        let seed = inference.seed(for: model)
        let isChat = manners.verb == "chat"
        if inference.isEmpty, inference.keepAlive == .nanoseconds(0) {
            scheduler.unload(model)
            return loadAnswer(inference, call, isChat: isChat, reason: "unload", format(inference, seed))
        }
        let thinks = try check(inference, model, manners)
        if inference.raw, !inference.context.isEmpty {
            throw Failure.bad("raw mode does not support template, system, or context")
        }
        let options = RunnerOptions(inference.options, over: model.recipe.parameters, shift: inference.shift)
        if inference.truncate == false, inference.promptTokens > options.contextLength {
            throw Failure.bad("the input length exceeds the context length")
        }
        var demand = Scheduler.Demand(model: model, options: options, keepAlive: inference.keepAlive)
        demand.needsSlot = !inference.isEmpty
        let script = Script(
            inference, thinks: thinks, seed: seed, tokens: settings.tokens, stamps: settings.stamps)
        let format = format(inference, seed)
        var work = Work(call: call, inference: inference, demand: demand, script: script, format: format)
        if inference.isEmpty { work.loaded = loadAnswer(inference, call, isChat: isChat, reason: "load", format) }
        return plan(work)
    }

    /// Whether the model can do all that is wanted, and whether it will think.
    private func check(_ inference: Inference, _ model: Model, _ manners: Manners) throws(Failure) -> Bool {
        let abilities = model.family.abilities
        let wantsThinking = inference.think?.isWanted ?? abilities.contains(.thinking)
        if wantsThinking, !abilities.contains(.thinking), !manners.relaxesThinking {
            throw .bad("\"\(inference.model)\" does not support thinking")
        }
        guard abilities.contains(.completion) else {
            throw .bad("\"\(inference.model)\" does not support \(manners.verb)")
        }
        if !inference.tools.isEmpty, !abilities.contains(.tools) {
            throw .bad("\(model.name.full) does not support tools")
        }
        if inference.hasSuffix, !abilities.contains(.insert) {
            throw .bad("\(model.name.full) does not support insert")
        }
        if let problem = ModelOptions.problem(in: inference.options) { throw Failure(status: 500, message: problem) }
        if let format = inference.format, format.object == nil, format.string != "json" {
            let message = "invalid format: \(format.text); expected \"json\" or a valid JSON Schema object"
            throw Failure(status: 500, message: message)
        }
        return wantsThinking && abilities.contains(.thinking)
    }

    /// One JSON object, whether or not a stream was asked for.
    private func loadAnswer(
        _ inference: Inference, _ call: Call, isChat: Bool, reason: String, _ format: any AnswerFormat
    ) -> Plan {
        guard call.dialect == .native else {
            var answer = Answer()
            answer.reason = reason
            return call.answer(200, format.wholeContentType, format.whole(answer))
        }
        let format = NativeFormat(model: inference.model, isChat: isChat, context: nil, clock: clock)
        return call.answer(200, format.wholeContentType, format.nothing(reason: reason))
    }
}
