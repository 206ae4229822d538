/// A SHA-256: of a request in canonical form, or of the very bytes of one. Equally likely in every bit, so any part of
/// it serves as its own hash.
public struct Key: Hashable, Sendable {
    /// The 32 bytes, eight to a word, in the machine's byte order.
    let words: (UInt64, UInt64, UInt64, UInt64)

    /// Traps unless there are 32 bytes.
    public init(bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count == 32, "a key is the 32 bytes of a SHA-256")
        words = (
            bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self),
            bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
            bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self),
            bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
        )
    }

    public static func == (left: Key, right: Key) -> Bool { left.words == right.words }

    public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }

    /// The key of the same bytes sent to this endpoint: to each its own.
    func salted(with endpoint: Endpoint) -> Key {
        Key(words: (words.0, words.1 ^ endpoint.salt, words.2, words.3))
    }

    /// The key of a slot that holds nothing.
    static let none = Key(words: (0, 0, 0, 0))

    private init(words: (UInt64, UInt64, UInt64, UInt64)) { self.words = words }
}

extension Endpoint {
    /// Another for each.
    fileprivate var salt: UInt64 {
        switch self {
        case .generate: 1
        case .chat: 2
        case .embed: 3
        case .embeddings: 4
        case .chatCompletions: 5
        case .completions: 6
        case .openAIEmbeddings: 7
        case .responses: 8
        case .messages: 9
        case .transcriptions: 10
        }
    }
}
