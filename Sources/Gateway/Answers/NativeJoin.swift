import HTTPCore

/// A stream of `/api/chat` or `/api/generate` made one object, as Ollama does it (`server/routes.go`): the last line,
/// with the text, the thinking, the tool calls and the log-probabilities of all lines in it.
struct NativeJoin: ~Copyable {
    private let endpoint: Endpoint
    private let model: String?
    private var text = ByteBuffer()
    private var thinking = ByteBuffer()
    private var calls = ByteBuffer()
    private var logprobs = ByteBuffer()
    /// Of the message.
    private var extras = ExtraMembers()

    private init(_ endpoint: Endpoint, model: String?) {
        self.endpoint = endpoint
        self.model = model
    }

    static func whole(of bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint, model: String?) throws -> Bytes {
        var join = NativeJoin(endpoint, model: model)
        let last = try NativePart.each(bytes, endpoint) { join.take($0) }
        return try JSONDocument.read(last) { join.write($0) }
    }

    private mutating func take(_ part: NativePart) {
        if let text = part.text { self.text.append(text.escaped) }
        if let thinking = part.thinking { self.thinking.append(thinking.escaped) }
        if let calls = part.calls { self.calls.gather(calls.inside) }
        if let logprobs = part.logprobs { self.logprobs.gather(logprobs.inside) }
        guard let message = part.message else { return }
        for member in message.members where !member.name.isOfMessage { extras.take(member) }
    }

    private func write(_ last: JSONNode) -> Bytes {
        var output = ByteBuffer()
        output.reserve(text.count + thinking.count + calls.count + logprobs.count + last.raw.count + 256)
        output.append("{")
        append(.head, of: last, to: &output)
        if endpoint == .chat {
            appendMessage(last["message"], to: &output)
        } else {
            appendSaying("response", to: &output)
        }
        append(.ending, of: last, to: &output)
        if endpoint == .chat { output.append("logprobs", elements: logprobs.unread) }
        append(.other, of: last, to: &output)
        if endpoint == .generate {
            output.append("tool_calls", elements: calls.unread)
            output.append("logprobs", elements: logprobs.unread)
        }
        output.append("}")
        return output.finish()
    }

    private func append(_ kind: NativeMember, of last: JSONNode, to output: inout ByteBuffer) {
        for member in last.members where NativeMember(member.name, endpoint) == kind {
            output.append(member, model: model)
        }
    }

    private func appendMessage(_ message: JSONNode?, to output: inout ByteBuffer) {
        output.begin("message")
        output.append("{")
        output.appendRole(of: message)
        appendSaying("content", to: &output)
        output.append("tool_calls", elements: calls.unread)
        extras.write(to: &output)
        output.append("}")
    }

    private func appendSaying(_ name: StaticString, to output: inout ByteBuffer) {
        output.append(name, escaped: text.unread)
        if !thinking.isEmpty { output.append("thinking", escaped: thinking.unread) }
    }
}

extension JSONNode {
    /// Whether this is the name of a member that every message of `/api/chat` may have.
    var isOfMessage: Bool { equals("role") || equals("content") || equals("thinking") || equals("tool_calls") }
}

extension ByteBuffer {
    /// The role of a message, which is the assistant's if it does not say.
    mutating func appendRole(of message: JSONNode?) {
        begin("role")
        if let role = message?["role"], role.kind == .string {
            append(role.raw)
        } else {
            append("\"assistant\"")
        }
    }
}
