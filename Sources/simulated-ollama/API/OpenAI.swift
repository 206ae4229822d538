import EventLoop

/// OpenAI's endpoints for words, turned into what the native ones are asked.
extension Box {
    func chatCompletions(_ call: Call) throws -> Plan {
        let fields = try call.fields("ChatCompletionRequest")
        var inference = Inference(model: try fields.string("model"), stream: try fields.bool("stream") ?? false)
        let messages = try fields.objects("messages", of: "openai.Message")
        guard !messages.isEmpty else { throw early("[] is too short - 'messages'") }
        for message in messages { try add(message, to: &inference) }
        inference.take(options: try options(fields, limit: "max_tokens"))
        inference.take(tools: try tools(in: fields))
        inference.take(think: try effort(fields))
        inference.take(format: format(fields["response_format"]?.object))
        if try fields.bool("logprobs") == true { inference.logprobs = try fields.int("top_logprobs") ?? 0 }
        let includesUsage = try fields.object("stream_options")?.bool("include_usage") ?? false
        return try plan(inference, .chat, for: call) { [clock] inference, seed in
            ChatCompletionFormat(
                model: inference.model, includesUsage: includesUsage, seed: seed, clock: clock)
        }
    }

    func completions(_ call: Call) throws -> Plan {
        let fields = try call.fields("CompletionRequest")
        var inference = Inference(model: try fields.string("model"), stream: try fields.bool("stream") ?? false)
        let prompt = try fields.string("prompt")
        let suffix = try fields.string("suffix")
        inference.isEmpty = prompt.isEmpty
        if !suffix.isEmpty {
            inference.hasSuffix = true
            inference.add(role: "suffix", content: suffix)
        }
        inference.add(role: "user", content: prompt)
        inference.take(options: try options(fields, limit: "max_tokens"))
        let includesUsage = try fields.object("stream_options")?.bool("include_usage") ?? false
        return try plan(inference, .generate, for: call) { [clock] inference, seed in
            CompletionFormat(model: inference.model, includesUsage: includesUsage, seed: seed, clock: clock)
        }
    }

    func responses(_ call: Call) throws -> Plan {
        let fields = try call.fields("ResponsesRequest")
        var inference = Inference(model: try fields.string("model"), stream: try fields.bool("stream") ?? false)
        let instructions = try fields.string("instructions")
        if !instructions.isEmpty { inference.add(role: "system", content: instructions) }
        switch fields["input"] {
        case .string(let text)?: inference.add(role: "user", content: text)
        case .array(let items)?: for (index, item) in items.enumerated() { try add(item, index, to: &inference) }
        case nil: inference.isEmpty = true
        case let other?:
            let why = "json: cannot unmarshal \(other.kind) into Go value of type []json.RawMessage"
            throw early("input must be a string or array: \(why)")
        }
        inference.take(options: try options(fields, limit: "max_output_tokens"))
        var tools: [Tool] = []
        for tool in try fields.objects("tools", of: "openai.ResponsesTool") {
            tools.append(Tool(name: try tool.string("name"), schema: tool["parameters"]?.object ?? JSONObject()))
        }
        inference.take(tools: tools)
        inference.take(format: fields["text"]?.object?["format"]?.object?["schema"])
        return try plan(inference, .chat, for: call) { [clock] inference, seed in
            ResponsesFormat(model: inference.model, request: fields.object, seed: seed, clock: clock)
        }
    }

    // MARK: Messages

    private func add(_ message: Fields, to inference: inout Inference) throws {
        let role = try message.string("role")
        for call in message["tool_calls"]?.array ?? [] { inference.seed.mix(json: call) }
        switch message["content"] {
        case .string(let text)?:
            inference.add(role: role, content: text)
        case .array(let parts)?:
            for part in parts { try add(part.object, role: role, to: &inference) }
        case nil where message["tool_calls"] != nil:
            inference.add(role: role, content: "")
        case let other:
            throw early("invalid message content type: \(goType(other))")
        }
    }

    private func add(_ part: JSONObject?, role: String, to inference: inout Inference) throws {
        switch part?["type"]?.string {
        case "text":
            guard let text = part?["text"]?.string else { throw early("invalid message format") }
            inference.add(role: role, content: text)
        case "image_url":
            guard let image = part?["image_url"], let url = image.string ?? image.object?["url"]?.string else {
                throw early("invalid message format")
            }
            guard !url.hasPrefix("http://"), !url.hasPrefix("https://") else {
                throw early("image URLs are not currently supported, please use base64 encoded data instead")
            }
            guard url.hasPrefix("data:") else { throw early("invalid image input") }
            inference.add(attachment: .string(url))
        default:
            throw early("invalid message format")
        }
    }

    /// An item of `/v1/responses`.
    private func add(_ item: JSONValue, _ index: Int, to inference: inout Inference) throws {
        let object = item.object ?? JSONObject()
        let role = object["role"]?.string ?? ""
        let type = object["type"]?.string ?? (role.isEmpty ? "" : "message")
        switch type {
        case "message":
            switch object["content"] {
            case .string(let text)?:
                inference.add(role: role, content: text)
            case .array(let parts)?:
                let texts = parts.compactMap { $0.object?["text"]?.string }
                for part in parts where part.object?["type"]?.string == "input_image" {
                    inference.add(attachment: part)
                }
                inference.add(role: role, content: texts.joined())
            default: break
            }
        case "function_call", "reasoning":
            inference.seed.mix(json: item)
        case "function_call_output":
            inference.add(role: "tool", content: object["output"]?.string ?? "")
        default:
            throw early("input[\(index)]: unknown input item type: \(type)")
        }
    }

    // MARK: Options

    /// OpenAI's parameters under Ollama's names. Only what the request has: the defaults are the same for all.
    private func options(_ fields: Fields, limit: String) throws -> JSONObject {
        var options = JSONObject()
        if let stop = fields["stop"] { options.append("stop", stop.string.map { [.string($0)] } ?? stop) }
        if let tokens = try fields.int(limit) { options.append("num_predict", .integer(tokens)) }
        for name in ["temperature", "frequency_penalty", "presence_penalty", "top_p"] {
            if try fields.number(name) != nil, let value = fields[name] { options.append(name, value) }
        }
        if let seed = try fields.int("seed") { options.append("seed", .integer(seed)) }
        return options
    }

    private func effort(_ fields: Fields) throws -> Inference.Think? {
        let effort = try fields.object("reasoning")?.string("effort") ?? fields.string("reasoning_effort")
        switch effort {
        case "": return nil
        case "none": return .no
        case "low", "minimal": return .yes(level: "low")
        case "medium", "high": return .yes(level: effort)
        case "max", "xhigh", "ultra": return .yes(level: "max")
        default:
            throw early(
                "invalid reasoning value: '\(effort)' (must be \"high\", \"medium\", \"low\", \"max\", or \"none\")")
        }
    }

    private func format(_ wanted: JSONObject?) -> JSONValue? {
        switch wanted?["type"]?.string?.lowercased() {
        case "json_object": "json"
        case "json_schema": wanted?["json_schema"]?.object?["schema"]
        default: nil
        }
    }

    func early(_ message: String) -> Failure { Failure(status: 400, message: message, isEarly: true) }

    private func goType(_ value: JSONValue?) -> String {
        switch value {
        case nil, .null?: "<nil>"
        case .bool?: "bool"
        case .number?: "float64"
        case .string?: "string"
        case .array?: "[]interface {}"
        case .object?: "map[string]interface {}"
        }
    }
}
