import EventLoop

/// Who runs when, and where: the shell around ``RequestQueue``.
extension Worker {
    enum QueueRefusal: Error { case full, tooLong }

    /// Waits for a backend to be free. Whoever gets one gives it back with ``pass(_:)``.
    func turn(of flight: Flight) async throws -> Int {
        let backend: Int
        switch queue.enter() {
        case .run(let free): backend = free
        case .full: throw QueueRefusal.full
        case .wait(let ticket): backend = try await wait(with: ticket)
        }
        let time = time
        Loop.assumeIsolated {
            flight.backend = backend
            flight.sentAt = time
            metrics.misses += 1
        }
        return backend
    }

    func wait(with ticket: RequestQueue.Ticket) async throws -> Int {
        let turn = Turn()
        waiting[ticket] = turn
        do {
            try await turn.wait(for: settings.queue.timeout, orThrow: QueueRefusal.tooLong)
        } catch {
            waiting[ticket] = nil
            queue.leave(ticket)
            // Its turn came in the moment in which it gave up.
            if let backend = Loop.assumeIsolated({ turn.backend }) { pass(backend) }
            throw error
        }
        waiting[ticket] = nil
        guard let backend = Loop.assumeIsolated({ turn.backend }) else { throw CancellationError() }
        return backend
    }

    /// A call has ended: the next one's turn.
    func pass(_ backend: Int) {
        guard let next = queue.release(backend: backend) else { return }
        guard let turn = waiting[next.ticket] else { return pass(next.backend) }
        Loop.assumeIsolated { turn.comes(at: next.backend) }
    }

    func note(_ nanoseconds: UInt64) {
        let latest = Double(nanoseconds)
        usualTime = usualTime.map { $0 * 0.8 + latest * 0.2 } ?? latest
    }

    /// Seconds until one who comes now would have its turn, by how long calls take and how many wait.
    func retryAfter() -> Int {
        let time = time
        // Calls that have taken longer than usual are what is usual now.
        let sinceSent = runningCount > 0 ? Double(time) - sumOfSentAt / Double(runningCount) : 0
        let expected = max(usualTime ?? 0, sinceSent)
        let seconds = expected / 1e9 * Double(queue.waiting + 1) / Double(queue.slots)
        return min(max(1, Int(seconds.rounded(.up))), 3600)
    }
}

/// Somebody in the queue, waiting for a backend.
@Loop
final class Turn {
    var signal: Signal?
    var backend: Int?

    nonisolated init() {}

    func comes(at backend: Int) {
        self.backend = backend
        signal?.fire()
    }

    func wait(for patience: Duration, orThrow error: any Error) async throws {
        var timer: Timer?
        defer { if let timer { Loop.events.cancel(timer) } }
        try await Signal.wait { signal in
            self.signal = signal
            if backend != nil { signal.fire() }
            timer = Loop.events.schedule(after: patience) { signal.fire(error) }
        }
    }
}
