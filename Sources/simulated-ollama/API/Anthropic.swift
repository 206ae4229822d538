import EventLoop

/// Anthropic's `/v1/messages`, turned into what `/api/chat` is asked.
extension Box {
    func messages(_ call: Call) throws -> Plan {
        let fields = try call.fields("MessagesRequest")
        let model = try fields.string("model")
        guard !model.isEmpty else { throw early("model is required") }
        guard let limit = try fields.int("max_tokens"), limit > 0 else {
            throw early("max_tokens is required and must be positive")
        }
        let messages = try fields.objects("messages", of: "anthropic.MessageParam")
        guard !messages.isEmpty else { throw early("messages is required") }

        var inference = Inference(model: model, stream: try fields.bool("stream") ?? false)
        if let system = fields["system"] {
            let text = system.string ?? texts(of: system).joined()
            if !text.isEmpty { inference.add(role: "system", content: text) }
        }
        for message in messages { try add(message, to: &inference) }
        inference.take(options: try options(fields, limit: limit))
        var tools: [Tool] = []
        for tool in try fields.objects("tools", of: "anthropic.Tool") {
            tools.append(Tool(name: try tool.string("name"), schema: tool["input_schema"]?.object ?? JSONObject()))
        }
        inference.take(tools: tools)
        if try fields.object("thinking")?.string("type") == "enabled" { inference.take(think: .yes(level: nil)) }
        return try plan(inference, .messages, for: call) { inference, seed in
            MessagesFormat(model: inference.model, promptTokens: inference.promptTokens, seed: seed)
        }
    }

    private func add(_ message: Fields, to inference: inout Inference) throws {
        let role = try message.string("role")
        guard let content = message["content"] else { throw early("invalid message content type: <nil>") }
        if let text = content.string { return inference.add(role: role, content: text) }
        guard let blocks = content.array else { throw early("invalid message content type: \(content.kind)") }
        var said: [String] = []
        var results: [String] = []
        for block in blocks {
            guard let object = block.object else { throw early("invalid content block format") }
            switch object["type"]?.string {
            case "text": said.append(object["text"]?.string ?? "")
            case "image": inference.add(attachment: block)
            case "tool_result": results.append(object["content"].map { $0.string ?? texts(of: $0).joined() } ?? "")
            default: inference.seed.mix(json: block)
            }
        }
        if !said.isEmpty || results.isEmpty { inference.add(role: role, content: said.joined()) }
        for result in results { inference.add(role: "tool", content: result) }
    }

    private func texts(of blocks: JSONValue) -> [String] {
        (blocks.array ?? []).compactMap { $0.object?["text"]?.string }
    }

    private func options(_ fields: Fields, limit: Int) throws -> JSONObject {
        var options = JSONObject()
        options.append("num_predict", .integer(limit))
        for name in ["temperature", "top_p", "top_k"] {
            if try fields.number(name) != nil, let value = fields[name] { options.append(name, value) }
        }
        if let stops = fields["stop_sequences"] { options.append("stop", stops) }
        return options
    }
}
