/// A request to be sent to a server.
public struct ClientRequest: Sendable {
    public var method: String
    /// Scheme, host, port and perhaps a path in front of every target: `http://box:11434`, `https://host/prefix`.
    public var origin: String
    /// Sent as it is, behind the origin's path.
    public var target: String
    /// Without `Host`, `Content-Length` and `Transfer-Encoding`, which follow from the rest. Nothing is added.
    public var headers: Headers
    public var body: RequestBody
    /// False for what must not reach the server twice. Else it may, when a kept connection breaks before the first
    /// byte of an answer.
    public var mayBeRepeated = true

    public init(
        method: String, origin: String, target: String, headers: Headers = [:], body: RequestBody = .none
    ) {
        self.method = method
        self.origin = origin
        self.target = target
        self.headers = headers
        self.body = body
    }
}

/// An answer whose header has come and whose body is coming.
public struct ClientResponse: Sendable {
    public let status: Int
    public let headers: Headers
    /// What `Content-Length` says; for an answer to HEAD it is not the length of ``body``.
    public let length: Int?
    /// Must be consumed or cancelled; until then the transfer waits.
    public let body: ByteStream

    public init(status: Int, headers: Headers, length: Int?, body: ByteStream) {
        self.status = status
        self.headers = headers
        self.length = length
        self.body = body
    }
}

/// Why a request to a server failed.
public struct TransportError: Error, Sendable {
    public enum Kind: String, Sendable, CaseIterable {
        case resolve, connect, connectTimeout, tls
        /// The connection broke, or was closed amid the answer.
        case connectionLost
        /// Connected, but no byte of an answer within the time for it.
        case firstByteTimeout
        /// The answer began and then stood still.
        case idleTimeout
        /// What came is not HTTP.
        case badAnswer
        /// Our own doing: no memory, a request that cannot be sent.
        case local
    }

    public let kind: Kind
    /// Whether the header of the answer had come.
    public let answerBegan: Bool
    /// Whether nothing of the request was sent and nothing of its body taken: it can be sent again, and will not be
    /// done twice.
    public let isRetrySafe: Bool
    /// In a few words, for people.
    public let message: String

    public init(kind: Kind, answerBegan: Bool, isRetrySafe: Bool, message: String) {
        self.kind = kind
        self.answerBegan = answerBegan
        self.isRetrySafe = isRetrySafe
        self.message = message
    }
}
