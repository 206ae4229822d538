/// What one line of an answer of `/api/chat` or `/api/generate` says, or its only object. Source: Ollama,
/// `api/types.go`, `ChatResponse` and `GenerateResponse`.
struct NativePart {
    /// `/api/chat` only.
    let message: JSONNode?
    let text: JSONNode?
    let thinking: JSONNode?
    let calls: JSONNode?
    let logprobs: JSONNode?
    let isDone: Bool
    /// Whether all that was done is to load or unload the model.
    let isNoAnswer: Bool

    init(_ root: JSONNode, _ endpoint: Endpoint) throws {
        try root.refuseError()
        let isChat = endpoint == .chat
        message = isChat ? try root.member("message", .object) : nil
        let holder = isChat ? message : root
        text = try holder?.member(isChat ? "content" : "response", .string)
        thinking = try holder?.member("thinking", .string)
        calls = try holder?.member("tool_calls", .array)
        logprobs = try root.member("logprobs", .array)
        isDone = root["done"]?.bool ?? false
        isNoAnswer = root["done_reason"]?.isNoAnswer ?? false
    }

    static func checkWhole(_ bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint) throws {
        try JSONDocument.read(bytes) { root in
            let part = try NativePart(root, endpoint)
            guard part.isDone, !part.isNoAnswer else { throw NotAnAnswer() }
        }
    }

    static func checkStream(_ bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint) throws {
        _ = try each(bytes, endpoint) { _ in }
    }

    /// Lends each line of a complete stream, and returns its last.
    static func each(
        _ bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint, _ body: (NativePart) -> Void
    ) throws -> UnsafeRawBufferPointer {
        var last: UnsafeRawBufferPointer?
        var isDone = false
        for range in AnswerLines(bytes) {
            let line = bytes.part(range)
            if line.isBlank { continue }
            // Nothing comes behind the line that says that all is done.
            if isDone { throw NotAnAnswer() }
            last = line
            try JSONDocument.read(line) { root in
                let part = try NativePart(root, endpoint)
                if part.isNoAnswer { throw NotAnAnswer() }
                isDone = part.isDone
                body(part)
            }
        }
        guard isDone, let last else { throw NotAnAnswer() }
        return last
    }
}

/// Where a member of a native answer's object has its place, in the order of Ollama's structs.
enum NativeMember {
    /// On every line.
    case head
    /// What the model says: pieces of it on each line.
    case saying
    /// On the last line, before the numbers.
    case ending
    case logprobs
    /// `/api/generate` only: in `/api/chat` they are part of the message.
    case calls
    /// Numbers, and what we do not know.
    case other

    init(_ name: JSONNode, _ endpoint: Endpoint) {
        if name.equals("model") || name.equals("created_at") || name.equals("remote_model")
            || name.equals("remote_host")
        {
            self = .head
        } else if name.equals("done") || name.equals("done_reason") || name.equals("context") {
            self = .ending
        } else if name.equals("logprobs") {
            self = .logprobs
        } else if endpoint == .chat {
            self = name.equals("message") ? .saying : .other
        } else if name.equals("response") || name.equals("thinking") {
            self = .saying
        } else {
            self = name.equals("tool_calls") ? .calls : .other
        }
    }
}
