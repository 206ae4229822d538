import HTTPCore

/// One object of `/v1/chat/completions` or `/v1/completions` made a stream: an event for each piece, one that tells
/// why it ended with all that is not said piece by piece, the usage if it is asked for, and `[DONE]`.
struct OpenAISplit: ~Copyable {
    /// Ollama puts this on every event of `/v1/completions` but the last, if usage is asked for.
    private static let noUsage = #"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#

    private let endpoint: Endpoint
    private let part: OpenAIPart
    /// How each event begins: up to and with `"choices":[`.
    private let head: Bytes
    /// How each event ends, from behind the choices: nothing, or members and the commas before them.
    private let tail: Bytes
    private let usage: JSONNode?
    private var output = ByteBuffer()
    private var hasRole = false

    static func stream(
        of bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint, withUsage: Bool, model: String?
    ) throws -> Bytes {
        try JSONDocument.read(bytes) { root in
            let part = try OpenAIPart(root, endpoint, isEvent: false)
            guard let reason = part.finishReason, !reason.isNoAnswer, let choice = part.choice,
                !withUsage || part.usage != nil
            else { throw NotAnAnswer() }
            var split = OpenAISplit(root, part, endpoint, usage: withUsage ? part.usage : nil, model: model)
            split.output.reserve(bytes.count * 4)
            split.writePieces()
            split.writeEnding(root, choice, reason)
            return split.finish()
        }
    }

    private init(_ root: JSONNode, _ part: OpenAIPart, _ endpoint: Endpoint, usage: JSONNode?, model: String?) {
        self.endpoint = endpoint
        self.part = part
        self.usage = usage
        var head = ByteBuffer()
        var naming = ByteBuffer()
        head.append("data: {")
        for member in root.members {
            switch OpenAIMember(member.name) {
            case .head where endpoint == .chatCompletions && member.name.equals("object"):
                head.append("object", escaped: "chat.completion.chunk")
            case .head: head.append(member, model: nil)
            case .naming where endpoint == .chatCompletions: head.append(member, model: model)
            case .naming: naming.append(member, model: model)
            default: break
            }
        }
        head.begin("choices")
        head.append("[")
        self.head = head.finish()
        var tail = ByteBuffer()
        if !naming.isEmpty { tail.append(byte: UInt8(ascii: ",")) }
        tail.append(naming.unread)
        self.tail = tail.finish()
    }

    private mutating func writePieces() {
        let pieces = AnswerPieces(
            text: part.text, thinking: part.thinking, calls: part.calls, logprobs: part.logprobs,
            frame: head.count + tail.count)
        pieces.each { write($0) }
        if endpoint == .chatCompletions, !hasRole {
            // Even who says nothing has a role.
            write(AnswerPieces.Piece(kind: .text, content: UnsafeRawBufferPointer(start: nil, count: 0)))
        }
    }

    private mutating func write(_ piece: AnswerPieces.Piece) {
        output.append(head.buffer)
        output.append("{")
        if endpoint == .chatCompletions {
            output.append(#""index":0,"delta":{"#)
            writeDelta(piece)
            output.append("}")
        } else {
            output.append("text", escaped: piece.content)
            output.append(#","index":0"#)
        }
        output.append(#","finish_reason":null"#)
        if let logprobs = piece.logprobs {
            output.append(#","logprobs":{"content":["#)
            output.append(onOneLine: logprobs)
            output.append("]}")
        }
        output.append("}]")
        endEvent()
    }

    private mutating func writeDelta(_ piece: AnswerPieces.Piece) {
        if !hasRole {
            output.appendRole(of: part.message)
            if piece.kind != .text { output.append(#","content":"""#) }
            hasRole = true
        }
        switch piece.kind {
        case .text: output.append("content", escaped: piece.content)
        case .thinking: output.append("reasoning", escaped: piece.content)
        case .calls: writeCalls()
        }
    }

    /// The arguments of a call come in one piece, but still a stream's reader wants its place in the list.
    private mutating func writeCalls() {
        output.begin("tool_calls")
        output.append("[")
        guard let calls = part.calls else { return output.append("]") }
        for (index, call) in calls.elements.enumerated() {
            output.separate()
            guard call.kind == .object, call["index"] == nil else {
                output.append(onOneLine: call.raw)
                continue
            }
            output.append("{")
            output.begin("index")
            output.append(String(index))
            for member in call.members { output.append(member, model: nil) }
            output.append("}")
        }
        output.append("]")
    }

    private mutating func writeEnding(_ root: JSONNode, _ choice: JSONNode, _ reason: JSONNode) {
        output.append(head.buffer)
        output.append("{")
        if endpoint == .chatCompletions {
            output.appendIndex(of: choice)
            output.begin("delta")
            output.append("{")
            if let message = part.message {
                for member in message.members where !OpenAIMember.isOfMessage(member.name) {
                    output.append(member, model: nil)
                }
            }
            output.append("}")
        } else {
            output.append(#""text":"""#)
            output.appendIndex(of: choice)
        }
        output.append("finish_reason", reason.raw)
        for member in choice.members where !OpenAIMember.isOfChoice(member.name, endpoint) {
            output.append(member, model: nil)
        }
        output.append("}]")
        for member in root.members where OpenAIMember(member.name) == .other { output.append(member, model: nil) }
        endEvent()
    }

    private mutating func endEvent() {
        output.append(tail.buffer)
        if usage != nil, endpoint == .completions {
            output.append(",\"usage\":")
            output.append(OpenAISplit.noUsage)
        }
        output.append("}\n\n")
    }

    private consuming func finish() -> Bytes {
        if let usage {
            output.append(head.buffer)
            output.append("]")
            output.append(tail.buffer)
            output.append(",\"usage\":")
            output.append(onOneLine: usage.raw)
            output.append("}\n\n")
        }
        output.append("data: [DONE]\n\n")
        return output.finish()
    }
}
