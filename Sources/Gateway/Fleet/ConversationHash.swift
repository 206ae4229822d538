import HTTPCore

/// Tells conversations apart by how they begin, which stays the same while they go on: the model, what stands before
/// the first word of the user, and that word.
///
/// FNV-1a, not a hash that is seeded anew in each process: every gateway is to find the same.
struct ConversationHash {
    private var state: UInt64 = 0xcbf2_9ce4_8422_2325

    /// Bytes of one message or prompt that count.
    private static let bytesAtMost = 1024

    mutating func add(_ bytes: some Sequence<UInt8>) {
        for byte in bytes.prefix(ConversationHash.bytesAtMost) { state = (state ^ UInt64(byte)) &* 0x100_0000_01b3 }
        // Nothing in UTF-8 looks like this: what follows is another text.
        state = (state ^ 0xff) &* 0x100_0000_01b3
    }

    static func of(_ text: String) -> UInt64 {
        var hash = ConversationHash()
        hash.add(text.utf8)
        return hash.state
    }

    /// Of the body of a request.
    /// - Returns: 0 for what is no conversation.
    static func of(_ body: UnsafeRawBufferPointer, model: String, at endpoint: Endpoint) -> UInt64 {
        guard !endpoint.isEmbedding else { return 0 }
        return (try? JSONDocument.read(body, maxValues: Question.maxValues) { of($0, model: model) }) ?? 0
    }

    private static func of(_ root: JSONNode, model: String) -> UInt64 {
        var hash = ConversationHash()
        hash.add(model.utf8)
        var isAny = false
        for (name, value) in root.members {
            guard (["messages", "input", "prompt", "system"] as [StaticString]).contains(where: { name.equals($0) })
            else { continue }
            isAny = true
            hash.addHead(of: value)
        }
        return isAny ? max(hash.state, 1) : 0
    }

    /// A text, or of several messages those up to the first that is the user's.
    private mutating func addHead(of value: JSONNode) {
        guard value.kind == .array else { return add(value.raw) }
        for message in value.elements {
            add(message.raw)
            if message.kind != .object || message["role"]?.equals("user") == true { return }
        }
    }
}
