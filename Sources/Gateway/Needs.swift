import EventLoop
import HTTPCore

// What the gateway needs of the world around it: time, hashes, and a way to the boxes.

/// SHA-256 over bytes in memory.
public typealias Hash = @Sendable (UnsafeRawBufferPointer) -> Key

/// Microseconds since 1970, UTC.
public typealias WallClock = @Loop () -> Int64

/// How the gateway reaches a backend. See ``ClientRequest`` and ``ClientResponse`` for what is promised.
@Loop
public protocol Transport: AnyObject, Sendable {
    /// Sends a request and returns when the header of the answer has come. Throws ``TransportError``, or
    /// `CancellationError` when the task is cancelled.
    func send(_ request: ClientRequest) async throws -> ClientResponse
}

/// Rings once, after a while; setting it again takes the place of what was set.
@Loop
public protocol Alarm: AnyObject {
    func ring(after delay: Duration, _ action: @escaping @Loop () -> Void)
}

/// Takes what people should know of the gateway's running, a sentence at a time.
@Loop
public protocol Notices: AnyObject {
    func note(_ level: NoticeLevel, _ message: String)
}

public enum NoticeLevel: Sendable { case notice, warning }

/// What the system knows of the process, in Prometheus' terms.
public struct ProcessFacts: Sendable {
    /// Of user and system together.
    public var cpuMicroseconds = 0
    public var residentBytes = 0
    public var virtualBytes = 0
    public var openDescriptors = 0
    public var maxDescriptors = 0
    /// Since 1970.
    public var startMicroseconds = 0

    public init() {}
}

/// What the gateway shows of the program around it.
@Loop
public protocol Surroundings: AnyObject, Sendable {
    var version: String { get }
    /// Of clients.
    var connections: (open: Int, most: Int) { get }
    /// Read off the loop: it may take a while.
    func processFacts() async -> ProcessFacts?
}
