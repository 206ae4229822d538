import Glibc

/// Runs `body` on a new thread and waits, without blocking the caller's own, for what it returns.
public func onNewThread<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
    await withCheckedContinuation { continuation in
        detachThread { continuation.resume(returning: body()) }
    }
}

/// Runs `body` on a new thread, of which nobody hears again.
public func detachThread(_ body: @escaping @Sendable () -> Void) {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    start(body, &attributes)
}

/// Runs `body` on a new thread and blocks until it has ended.
public func joinThread(_ body: @escaping @Sendable () -> Void) {
    pthread_join(start(body, nil), nil)
}

/// The calling thread, as a number to compare.
public func currentThread() -> UInt { UInt(pthread_self()) }

@discardableResult
private func start(_ body: @escaping @Sendable () -> Void, _ attributes: UnsafePointer<pthread_attr_t>?) -> pthread_t {
    // Released by the first thing that the thread does.
    let retained = Unmanaged.passRetained(ThreadBody(run: body))
    var thread = pthread_t()
    let failure = pthread_create(
        &thread, attributes,
        { pointer in
            guard let pointer else { return nil }
            Unmanaged<ThreadBody>.fromOpaque(pointer).takeRetainedValue().run()
            return nil
        }, retained.toOpaque())
    precondition(failure == 0, "no thread to be had (error \(failure))")
    return thread
}

private final class ThreadBody: Sendable {
    let run: @Sendable () -> Void

    init(run: @escaping @Sendable () -> Void) { self.run = run }
}
