import HTTPCore

/// One object of `/api/chat` or `/api/generate` made a stream: a line for each piece, and a last one with all that is
/// not said piece by piece.
struct NativeSplit: ~Copyable {
    private let endpoint: Endpoint
    /// How each line begins: up to and with the quotation mark that opens the text.
    private let head: Bytes
    private var output = ByteBuffer()

    private init(_ endpoint: Endpoint, head: Bytes) {
        self.endpoint = endpoint
        self.head = head
    }

    static func stream(of bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint, model: String?) throws -> Bytes {
        try JSONDocument.read(bytes) { root in
            let part = try NativePart(root, endpoint)
            guard part.isDone, !part.isNoAnswer else { throw NotAnAnswer() }
            let head = head(of: root, part, endpoint, model: model)
            var split = NativeSplit(endpoint, head: head)
            split.output.reserve(bytes.count * 4)
            let pieces = AnswerPieces(
                text: part.text, thinking: part.thinking, calls: part.calls, logprobs: part.logprobs,
                frame: head.count)
            pieces.each { split.write($0) }
            split.writeLast(root, part)
            return split.output.finish()
        }
    }

    private static func head(of root: JSONNode, _ part: NativePart, _ endpoint: Endpoint, model: String?) -> Bytes {
        var head = ByteBuffer()
        head.append("{")
        for member in root.members where NativeMember(member.name, endpoint) == .head {
            head.append(member, model: model)
        }
        if endpoint == .chat {
            head.begin("message")
            head.append("{")
            head.appendRole(of: part.message)
            head.begin("content")
        } else {
            head.begin("response")
        }
        head.append("\"")
        return head.finish()
    }

    private mutating func write(_ piece: AnswerPieces.Piece) {
        output.append(head.buffer)
        if piece.kind == .text { output.append(piece.content) }
        output.append("\"")
        switch piece.kind {
        case .text: break
        case .thinking: output.append("thinking", escaped: piece.content)
        case .calls: output.append("tool_calls", elements: piece.content)
        }
        output.append(endpoint == .chat ? #"},"done":false"# : #","done":false"#)
        if let logprobs = piece.logprobs { output.append("logprobs", elements: logprobs) }
        output.append("}\n")
    }

    private mutating func writeLast(_ root: JSONNode, _ part: NativePart) {
        output.append(head.buffer)
        output.append("\"")
        if let message = part.message {
            for member in message.members where !member.name.isOfMessage { output.append(member, model: nil) }
        }
        if endpoint == .chat { output.append("}") }
        for kind in [NativeMember.ending, .other] {
            for member in root.members where NativeMember(member.name, endpoint) == kind {
                output.append(member, model: nil)
            }
        }
        output.append("}\n")
    }
}
