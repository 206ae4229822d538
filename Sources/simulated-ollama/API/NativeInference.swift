import EventLoop

/// `/api/generate` and `/api/chat`.
extension Box {
    func generate(_ call: Call) throws -> Plan {
        let fields = try call.fields("GenerateRequest")
        var inference = try inference(fields)
        let prompt = try fields.string("prompt")
        let system = try fields.string("system")
        let template = try fields.string("template")
        let suffix = try fields.string("suffix")
        inference.raw = try fields.bool("raw") ?? false
        if inference.raw, !system.isEmpty || !template.isEmpty {
            throw Failure.bad("raw mode does not support template, system, or context")
        }
        inference.isEmpty = prompt.isEmpty
        inference.context = fields["context"]?.array ?? []
        for token in inference.context { inference.seed.mix(json: token) }
        if !system.isEmpty { inference.add(role: "system", content: system) }
        if !template.isEmpty { inference.add(role: "template", content: template) }
        if !suffix.isEmpty {
            inference.hasSuffix = true
            inference.add(role: "suffix", content: suffix)
        }
        for image in fields["images"]?.array ?? [] { inference.add(attachment: image) }
        if inference.raw { inference.seed.mix("raw") }
        inference.add(role: "user", content: prompt)
        return try plan(inference, .generate, for: call) { [clock] inference, seed in
            NativeFormat(
                model: inference.model, isChat: false,
                context: inference.raw ? nil : (inference.context, seed), clock: clock)
        }
    }

    func chat(_ call: Call) throws -> Plan {
        let fields = try call.fields("ChatRequest")
        var inference = try inference(fields)
        let messages = try fields.objects("messages", of: "api.Message")
        inference.isEmpty = messages.isEmpty
        for message in messages {
            for image in message["images"]?.array ?? [] { inference.add(attachment: image) }
            for call in message["tool_calls"]?.array ?? [] { inference.seed.mix(json: call) }
            inference.add(role: try message.string("role"), content: try message.string("content"))
        }
        inference.take(tools: try tools(in: fields))
        return try plan(inference, .chat, for: call) { [clock] inference, _ in
            NativeFormat(model: inference.model, isChat: true, context: nil, clock: clock)
        }
    }

    /// What both have in common.
    private func inference(_ fields: Fields) throws -> Inference {
        var inference = Inference(model: try fields.string("model"), stream: try fields.bool("stream") ?? true)
        inference.keepAlive = try fields["keep_alive"].map { try KeepAlive($0) }
        inference.shift = try fields.bool("shift")
        inference.truncate = try fields.bool("truncate")
        inference.take(options: try fields.object("options")?.object ?? JSONObject())
        inference.take(think: try think(fields))
        inference.take(format: fields["format"])
        let alternatives = try fields.int("top_logprobs") ?? 0
        guard (0...20).contains(alternatives) else {
            throw Failure.bad("top_logprobs must be between 0 and 20")
        }
        if try fields.bool("logprobs") == true { inference.logprobs = alternatives }
        return inference
    }

    private static let thinkValues = #""high", "medium", "low", "max", true, or false"#

    private func think(_ fields: Fields) throws(JSONProblem) -> Inference.Think? {
        switch fields["think"] {
        case nil: return nil
        case .bool(let wanted)?: return wanted ? .yes(level: nil) : .no
        case .string(let level)? where ["high", "medium", "low", "max"].contains(level): return .yes(level: level)
        case .string(let level)?:
            throw JSONProblem("invalid think value: \"\(level)\" (must be \(Box.thinkValues))")
        default:
            throw JSONProblem("think must be a boolean or string (\(Box.thinkValues))")
        }
    }

    /// Tools as `/api/chat` and `/v1/chat/completions` have them.
    func tools(in fields: Fields) throws(JSONProblem) -> [Tool] {
        var tools: [Tool] = []
        for tool in try fields.objects("tools", of: "api.Tool") {
            guard let function = try tool.object("function") else { continue }
            tools.append(
                Tool(name: try function.string("name"), schema: function["parameters"]?.object ?? JSONObject()))
        }
        return tools
    }
}
