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
