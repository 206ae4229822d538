import EventLoop

/// A complete answer. It can be sent any number of times, and from the second time on it is queued, not built:
/// the server keeps what it made of it in ``rendering``.
public final class Response: Sendable {
    public let status: Int
    /// Without `Content-Length`, `Transfer-Encoding` and `Connection`, which are the server's.
    public let headers: Headers
    public let body: Bytes
    /// The `Content-Length` to declare when there is no body to count, as in an answer to HEAD.
    public let declaredLength: Int?
    /// What its maker likes to remember of it; 0 if nothing.
    public let note: UInt64

    @Loop package var rendering: AnyObject?

    public init(
        status: Int, headers: Headers = [:], body: Bytes = .empty, declaredLength: Int? = nil, note: UInt64 = 0
    ) {
        self.status = status
        self.headers = headers
        self.body = body
        self.declaredLength = declaredLength
        self.note = note
    }

    public convenience init(status: Int, contentType: String, _ text: String) {
        self.init(status: status, headers: ["Content-Type": contentType], body: Bytes(text))
    }
}

/// The right to answer one request, once. Letting it go unanswered sends a 500 in its place.
@Loop
public struct Reply: ~Copyable {
    private let port: any ReplyPort

    package init(port: any ReplyPort) { self.port = port }

    deinit {
        let port = port
        Loop.assumeIsolated { port.released() }
    }

    /// Sends a complete answer.
    public consuming func send(_ response: Response) {
        port.send(response)
    }

    /// Sends a header and leaves the body to be written bit by bit.
    /// - Parameter length: the body's length in bytes if it is known; else it is sent chunked (HTTP/1.1) or ended
    ///   by closing the connection (HTTP/1.0).
    public consuming func stream(status: Int, headers: Headers, length: Int? = nil) -> any ResponseWriter {
        port.stream(status: status, headers: headers, length: length)
    }
}

/// What stands behind a ``Reply``: the server, or a test.
@Loop
public protocol ReplyPort: AnyObject {
    func send(_ response: Response)
    func stream(status: Int, headers: Headers, length: Int?) -> any ResponseWriter
    /// The ``Reply`` is gone; if nothing was sent, nothing will be.
    func released()
}

/// What the taker of a chunk says.
public enum Flow: Sendable {
    /// Taken; the next may come.
    case more
    /// Taken; the next only after a call to resume.
    case pause
    /// Not taken, and none will be.
    case stop
}

/// The body of an answer being written. Each chunk leaves as soon as the connection takes it.
@Loop
public protocol ResponseWriter: AnyObject {
    /// Writes one chunk. `.pause` means that the connection is full: write again once ``onDrain`` was called;
    /// `.stop` that the client has left.
    func write(_ chunk: UnsafeRawBufferPointer) -> Flow
    /// Ends the body properly.
    func finish()
    /// Ends the connection so that the client sees the body was cut short; what was written before is delivered.
    func abort()
    /// The same at once: what the client has not taken yet is lost.
    func cut()
    /// Called each time the connection has room again after a `.pause`.
    var onDrain: (@Loop () -> Void)? { get set }
}

/// The client has left.
public struct ClientLeft: Error {
    public init() {}
}

extension ResponseWriter {
    public func cut() { abort() }

    /// Writes all of `bytes` as one chunk.
    public func write(_ bytes: Bytes) -> Flow {
        withExtendedLifetime(bytes) { write(bytes.buffer) }
    }

    /// Writes text and waits until there is room for more. Throws ``ClientLeft``, or `CancellationError`.
    public func send(_ text: String) async throws {
        var text = text
        switch text.withUTF8({ write(UnsafeRawBufferPointer($0)) }) {
        case .more: return
        case .stop: throw ClientLeft()
        case .pause: try await Signal.wait { signal in self.onDrain = { signal.fire() } }
        }
    }
}

/// Decides what happens to requests. All calls come on the loop.
@Loop
public protocol RequestHandler: AnyObject {
    /// The header has come: say what to do about the body.
    func receive(_ request: Request) -> Intake
    /// Answers at once, without waiting for anything; nil leads to ``handle(_:_:)``. Not asked for streamed bodies.
    func answer(_ request: Request) -> Response?
    /// Answers in a task of its own, which is cancelled when the client leaves.
    func handle(_ request: Request, _ reply: consuming Reply) async
    /// The words for a request that the server itself turns away. `request` is nil if not even its header was
    /// understood.
    func refusal(of request: Request?, for problem: RequestProblem) -> Response
}
