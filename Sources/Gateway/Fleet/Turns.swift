import EventLoop

/// Waiting for a backend.
extension Fleet {
    enum QueueRefusal: Error { case full, tooLong }

    /// Waits until a backend is free for this. Whoever gets a lease gives it back with ``end(_:)``.
    ///
    /// Throws ``QueueRefusal``, ``Balancer/Refusal``, or `CancellationError`.
    /// - Parameter ticket: the request's place in the order in which requests came.
    func turn(for want: Balancer.Want, _ ticket: RequestQueue.Ticket) async throws -> Balancer.Lease {
        do {
            return try await place(for: want, ticket)
        } catch let refusal as Balancer.Refusal {
            let asked = looksAgain(for: want, refusal)
            guard !asked.isEmpty else { throw refusal }
            do {
                return try await place(for: want, ticket)
            } catch QueueRefusal.full {
                // Who waits for a word, and not for a place, needs no room in the line.
                await probesEnd(asked)
                return try await place(for: want, ticket)
            }
        }
    }

    private func place(for want: Balancer.Want, _ ticket: RequestQueue.Ticket) async throws -> Balancer.Lease {
        let lease: Balancer.Lease
        switch queue.enter(want, ticket, at: now()) {
        case .run(let free):
            lease = free
            // Tried in need: another may be well again.
            if queue.balancer.backends[free.backend].breaker.state == .unhealthy { looksAgain(for: want, .unavailable) }
        case .full: throw QueueRefusal.full
        case .refuse(let refusal): throw refusal
        case .wait: lease = try await wait(with: ticket)
        }
        began(lease)
        return lease
    }

    private func wait(with ticket: RequestQueue.Ticket) async throws -> Balancer.Lease {
        let turn = Turn()
        waiting[ticket] = turn
        defer { waiting[ticket] = nil }
        do {
            try await turn.wait(for: patience, orThrow: QueueRefusal.tooLong)
        } catch {
            queue.leave(ticket)
            // Its turn came in the moment in which it gave up.
            if case .success(let lease)? = turn.outcome {
                queue.balancer.end(lease)
                settle()
            }
            throw error
        }
        guard let outcome = turn.outcome else { throw CancellationError() }
        return try outcome.get()
    }
}

/// Somebody in the queue, waiting for a backend.
@Loop
final class Turn {
    private var signal: Signal?
    private(set) var outcome: Result<Balancer.Lease, Balancer.Refusal>?

    func comes(_ outcome: Result<Balancer.Lease, Balancer.Refusal>) {
        self.outcome = outcome
        signal?.fire()
    }

    func wait(for patience: Duration, orThrow error: any Error) async throws {
        var timer: Timer?
        defer { if let timer { Loop.events.cancel(timer) } }
        try await Signal.wait { signal in
            self.signal = signal
            if outcome != nil { signal.fire() }
            timer = Loop.events.schedule(after: patience) { signal.fire(error) }
        }
    }
}
