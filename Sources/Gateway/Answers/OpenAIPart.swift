/// What one event of an answer of `/v1/chat/completions` or `/v1/completions` says, or its only object. Source:
/// Ollama, `openai/openai.go`.
struct OpenAIPart {
    /// Nil for the event that tells the usage.
    let choice: JSONNode?
    /// `/v1/chat/completions` only: the choice's message, or what the event adds to it.
    let message: JSONNode?
    let text: JSONNode?
    let thinking: JSONNode?
    let calls: JSONNode?
    /// `/v1/chat/completions` only: one entry for each token.
    let logprobs: JSONNode?
    let finishReason: JSONNode?
    let usage: JSONNode?

    /// - Parameter isEvent: whether it is part of a stream.
    init(_ root: JSONNode, _ endpoint: Endpoint, isEvent: Bool) throws {
        try root.refuseError()
        guard let choices = try root.member("choices", .array) else { throw NotAnAnswer() }
        var list = choices.elements
        choice = list.next()
        // Ollama never gives more than one.
        guard choice?.kind ?? .object == .object, list.next() == nil else { throw NotAnAnswer() }
        usage = try root.member("usage", .object)
        finishReason = try choice?.member("finish_reason", .string)
        if endpoint == .chatCompletions {
            message = try choice?.member(isEvent ? "delta" : "message", .object)
            text = try message?.member("content", .string)
            thinking = try message?.member("reasoning", .string)
            calls = try message?.member("tool_calls", .array)
            logprobs = try choice?.member("logprobs", .object)?.member("content", .array)
        } else {
            (message, thinking, calls, logprobs) = (nil, nil, nil, nil)
            text = try choice?.member("text", .string)
        }
    }

    static func checkWhole(_ bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint) throws {
        try JSONDocument.read(bytes) { root in
            let part = try OpenAIPart(root, endpoint, isEvent: false)
            guard let reason = part.finishReason, !reason.isNoAnswer else { throw NotAnAnswer() }
        }
    }

    static func checkStream(_ bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint, wantsUsage: Bool) throws {
        var hasUsage = false
        try each(bytes, endpoint) { part, _ in
            if part.choice == nil, part.usage != nil { hasUsage = true }
        }
        if wantsUsage, !hasUsage { throw NotAnAnswer() }
    }

    /// Lends each event of a complete stream, and the text that it was read from.
    static func each(
        _ bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint, _ body: (OpenAIPart, UnsafeRawBufferPointer) -> Void
    ) throws {
        var isFinished = false
        var isOver = false
        for event in AnswerEvents(bytes) {
            if event.isError || event.isStrange { throw NotAnAnswer() }
            guard let data = event.data else { continue }
            guard !isOver, event.isComplete else { throw NotAnAnswer() }
            isOver = event.isLast(in: bytes)
            if isOver { continue }
            let json = bytes.part(data)
            try JSONDocument.read(json) { root in
                let part = try OpenAIPart(root, endpoint, isEvent: true)
                if let reason = part.finishReason {
                    if reason.isNoAnswer { throw NotAnAnswer() }
                    isFinished = true
                }
                body(part, json)
            }
        }
        guard isFinished, isOver else { throw NotAnAnswer() }
    }
}

/// Where a member of an OpenAI answer's object has its place.
enum OpenAIMember {
    /// First in every form.
    case head
    /// Which in the events of `/v1/completions` come behind the choices.
    case naming
    case choices, usage
    case other

    init(_ name: JSONNode) {
        if name.equals("id") || name.equals("object") || name.equals("created") {
            self = .head
        } else if name.equals("model") || name.equals("system_fingerprint") {
            self = .naming
        } else if name.equals("choices") {
            self = .choices
        } else {
            self = name.equals("usage") ? .usage : .other
        }
    }

    /// Whether a choice's member of this name is written by us, not copied.
    static func isOfChoice(_ name: JSONNode, _ endpoint: Endpoint) -> Bool {
        if name.equals("index") || name.equals("finish_reason") { return true }
        guard endpoint == .chatCompletions else { return name.equals("text") }
        return name.equals("delta") || name.equals("message") || name.equals("logprobs")
    }

    static func isOfMessage(_ name: JSONNode) -> Bool {
        name.equals("role") || name.equals("content") || name.equals("reasoning") || name.equals("tool_calls")
    }
}
