import HTTPCore

/// A stream of `/v1/chat/completions` or `/v1/completions` made one object: the event that tells why it ended, with
/// the text, the reasoning, the tool calls and the log-probabilities of all events in it, and the usage.
struct OpenAIJoin: ~Copyable {
    private let endpoint: Endpoint
    private let model: String?
    private var role: UnsafeRawBufferPointer?
    private var text = ByteBuffer()
    private var thinking = ByteBuffer()
    private var calls = ByteBuffer()
    private var logprobs = ByteBuffer()
    private var choiceExtras = ExtraMembers()
    private var messageExtras = ExtraMembers()
    private var usage: UnsafeRawBufferPointer?
    /// The event with the reason.
    private var ending: UnsafeRawBufferPointer?

    private init(_ endpoint: Endpoint, model: String?) {
        self.endpoint = endpoint
        self.model = model
    }

    static func whole(of bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint, model: String?) throws -> Bytes {
        var join = OpenAIJoin(endpoint, model: model)
        try OpenAIPart.each(bytes, endpoint) { part, json in join.take(part, json) }
        guard let ending = join.ending, let usage = join.usage else { throw NotAnAnswer() }
        return try JSONDocument.read(ending) { join.write($0, usage: usage) }
    }

    private mutating func take(_ part: OpenAIPart, _ json: UnsafeRawBufferPointer) {
        guard let choice = part.choice else {
            if let usage = part.usage { self.usage = usage.raw }
            return
        }
        if part.finishReason != nil { ending = json }
        if let text = part.text { self.text.append(text.escaped) }
        if let thinking = part.thinking { self.thinking.append(thinking.escaped) }
        if let calls = part.calls { self.calls.gather(calls.inside) }
        if let logprobs = part.logprobs { self.logprobs.gather(logprobs.inside) }
        for member in choice.members where !OpenAIMember.isOfChoice(member.name, endpoint) {
            choiceExtras.take(member)
        }
        guard let message = part.message else { return }
        if role == nil, let role = message["role"], role.kind == .string { self.role = role.raw }
        for member in message.members where !OpenAIMember.isOfMessage(member.name) { messageExtras.take(member) }
    }

    private func write(_ ending: JSONNode, usage: UnsafeRawBufferPointer) -> Bytes {
        var output = ByteBuffer()
        output.reserve(text.count + thinking.count + calls.count + logprobs.count + ending.raw.count + 512)
        output.append("{")
        for member in ending.members {
            switch OpenAIMember(member.name) {
            case .choices, .usage: continue
            case .head where endpoint == .chatCompletions && member.name.equals("object"):
                output.append("object", escaped: "chat.completion")
            default: output.append(member, model: model)
            }
        }
        output.begin("choices")
        output.append("[{")
        var choices = (ending["choices"] ?? ending).elements
        appendChoice(choices.next() ?? ending, to: &output)
        output.append("}]")
        output.append("usage", usage)
        output.append("}\n")
        return output.finish()
    }

    private func appendChoice(_ choice: JSONNode, to output: inout ByteBuffer) {
        if endpoint == .completions { output.append("text", escaped: text.unread) }
        output.appendIndex(of: choice)
        if endpoint == .chatCompletions { appendMessage(to: &output) }
        if let reason = choice["finish_reason"] { output.append("finish_reason", reason.raw) }
        if !logprobs.isEmpty {
            output.begin("logprobs")
            output.append("{")
            output.append("content", elements: logprobs.unread)
            output.append("}")
        }
        choiceExtras.write(to: &output)
    }

    private func appendMessage(to output: inout ByteBuffer) {
        output.begin("message")
        output.append("{")
        output.begin("role")
        if let role { output.append(role) } else { output.append("\"assistant\"") }
        output.append("content", escaped: text.unread)
        if !thinking.isEmpty { output.append("reasoning", escaped: thinking.unread) }
        output.append("tool_calls", elements: calls.unread)
        messageExtras.write(to: &output)
        output.append("}")
    }
}

extension ByteBuffer {
    /// The index of a choice, which is the first if it does not say.
    mutating func appendIndex(of choice: JSONNode) {
        begin("index")
        if let index = choice["index"], index.kind == .number { append(index.raw) } else { append("0") }
    }

    /// A member whose value is a string that needs no escapes.
    mutating func append(_ name: StaticString, escaped: StaticString) {
        append(name, escaped: UnsafeRawBufferPointer(start: escaped.utf8Start, count: escaped.utf8CodeUnitCount))
    }
}
