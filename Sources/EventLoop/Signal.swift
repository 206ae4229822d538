/// Wakes one waiter, once; whichever comes first, the wait or the wake.
@Loop
public final class Signal {
    private var outcome: Result<Void, any Error>?
    private var waiter: CheckedContinuation<Void, any Error>?

    public func fire(_ error: (any Error)? = nil) {
        guard outcome == nil else { return }
        let outcome: Result<Void, any Error> = if let error { .failure(error) } else { .success(()) }
        self.outcome = outcome
        waiter?.resume(with: outcome)
        waiter = nil
    }

    /// Waits until the signal that `arm` was given fires. Throws `CancellationError` when the task is cancelled.
    public static func wait(_ arm: @Loop (Signal) -> Void) async throws {
        let signal = Signal()
        arm(signal)
        if let outcome = signal.outcome { return try outcome.get() }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                if Task.isCancelled { return continuation.resume(throwing: CancellationError()) }
                signal.waiter = continuation
            }
        } onCancel: {
            Loop.onLoop { signal.fire(CancellationError()) }
        }
    }
}
