import EventLoop

/// A body on its way from one producer to one consumer, with back-pressure: an upload going to a box, an answer
/// coming from one.
///
/// Chunks are handed on inside ``push(_:)``, by pointer and without a copy, while a consumer is attached; what
/// comes before that is kept, up to ``highWater`` bytes before the producer is told to pause.
@Loop
public final class ByteStream {
    public static let highWater = 64 * 1024

    /// Called when the consumer wants more after a `.pause`, and when it wants no more at all. Set by the producer.
    public var onResume: (@Loop () -> Void)?
    public var onCancel: (@Loop () -> Void)?

    private enum State {
        case open
        case ended(Result<Void, any Error>)
        case cancelled(any Error)
    }

    private var state = State.open
    private var kept = ByteBuffer()
    /// Let go of at the end: it may refer to whoever holds the stream.
    private var sink: (@Loop (UnsafeRawBufferPointer) -> Flow)?
    private var isTaken = false
    private var waiter: CheckedContinuation<Void, any Error>?
    private var paused = false

    public init() {}

    /// Whether all has come, and well.
    public var isComplete: Bool { if case .ended(.success) = state { true } else { false } }

    // MARK: The producer's side

    /// Takes one chunk. After `.pause` the producer waits for ``onResume``.
    public func push(_ chunk: UnsafeRawBufferPointer) -> Flow {
        guard case .open = state else { return .stop }
        if let sink, kept.isEmpty {
            let flow = sink(chunk)
            if flow == .stop { cancel() }
            paused = flow == .pause
            return flow
        }
        kept.append(chunk)
        paused = paused || kept.count >= ByteStream.highWater
        return paused ? .pause : .more
    }

    /// Says that nothing more comes, and why if that is not as it should be.
    public func finish(_ error: (any Error)? = nil) {
        guard case .open = state else { return }
        state = .ended(error.map { .failure($0) } ?? .success(()))
        settle()
    }

    // MARK: The consumer's side

    /// Passes every chunk to `sink` as it comes, and returns at the end. Called once.
    ///
    /// Throws what the producer ended with, ``ClientLeft`` if the sink said `.stop`, and `CancellationError` when
    /// the task is cancelled; in both latter cases the producer is told to stop.
    public func forward(to sink: @escaping @Loop (UnsafeRawBufferPointer) -> Flow) async throws {
        precondition(!isTaken, "a byte stream has one consumer")
        isTaken = true
        self.sink = sink
        defer { self.sink = nil }
        // Paused already: so much was kept that the producer was told to wait, and it is now that it may go on.
        if paused { resume() } else { flush() }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                waiter = continuation
                if Task.isCancelled { cancel(because: CancellationError()) }
                settle()
            }
        } onCancel: {
            Loop.onLoop { self.cancel(because: CancellationError()) }
        }
    }

    /// All of it, if all has come before anybody took any; the stream is empty then.
    public func takeComplete() -> Bytes? {
        guard case .ended(.success) = state, !isTaken else { return nil }
        isTaken = true
        var taken = ByteBuffer()
        swap(&taken, &kept)
        return taken.finish()
    }

    /// Waits for all of it. Throws ``BodyTooLarge`` beyond `limit` bytes, else as ``forward(to:)`` does.
    public func collect(limit: Int = .max, expecting length: Int? = nil) async throws -> Bytes {
        let collected = Collected()
        collected.buffer.reserve(min(length ?? 0, limit, 1 << 20))
        do {
            try await forward { chunk in
                guard collected.buffer.count + chunk.count <= limit else {
                    collected.isTooLarge = true
                    return .stop
                }
                collected.buffer.append(chunk)
                return .more
            }
        } catch is ClientLeft where collected.isTooLarge {
            throw BodyTooLarge(limit: limit)
        }
        return collected.take()
    }

    /// Asks for more after the sink said `.pause`.
    public func resume() {
        guard paused else { return }
        paused = false
        flush()
        if !paused, case .open = state { onResume?() }
        settle()
    }

    /// Wants no more: the producer is told, the consumer's call throws.
    public func cancel() { cancel(because: ClientLeft()) }

    private func cancel(because reason: any Error) {
        // All has come and nobody waits for it: there is nothing left to cancel.
        if case .ended = state, waiter == nil { return }
        abandon(because: reason)
        settle()
    }

    // MARK: Within

    private func flush() {
        guard let sink, !kept.isEmpty, !paused else { return }
        let flow = sink(kept.unread)
        kept.consume(kept.count)
        switch flow {
        case .more:
            break
        case .pause:
            paused = true
        case .stop:
            abandon(because: ClientLeft())
        }
    }

    private func abandon(because reason: any Error) {
        switch state {
        case .cancelled:
            break
        case .ended:
            state = .cancelled(reason)
        case .open:
            state = .cancelled(reason)
            onCancel?()
        }
    }

    private func settle() {
        guard let waiter else { return }
        switch state {
        case .open:
            return
        case .cancelled(let reason):
            self.waiter = nil
            waiter.resume(throwing: reason)
        case .ended(let result):
            guard kept.isEmpty else { return }
            self.waiter = nil
            waiter.resume(with: result)
        }
    }

    @Loop
    private final class Collected {
        var buffer = ByteBuffer()
        var isTooLarge = false

        func take() -> Bytes {
            var taken = ByteBuffer()
            swap(&taken, &buffer)
            return taken.finish()
        }
    }
}

/// A body was larger than its taker allows.
public struct BodyTooLarge: Error {
    /// In bytes.
    public let limit: Int
}
