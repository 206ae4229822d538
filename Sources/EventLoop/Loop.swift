/// The global actor of the program's one event loop: `@Loop` reads as `@MainActor` does elsewhere.
///
/// What is marked so is touched on the loop's thread only, and needs neither locks nor `Sendable`. Callbacks that
/// C makes on that thread enter with ``assumeIsolated(_:)``.
@globalActor
public actor Loop {
    public static let shared = Loop()

    /// The loop behind the actor. Somebody must call its `run()`.
    public static let events = EventLoop()

    nonisolated public var unownedExecutor: UnownedSerialExecutor { Loop.events.asUnownedSerialExecutor() }

    /// Runs `body` as code of the loop; traps if this is another thread.
    public static func assumeIsolated<T>(_ body: @Loop () throws -> T) rethrows -> T {
        events.checkIsolated()
        return try unchecked(body)
    }

    /// The cast behind ``assumeIsolated(_:)``, for callers that have just been called by the loop itself.
    ///
    /// Why the cast is safe: a synchronous isolated function and a plain one have the same calling convention;
    /// isolation is a compile-time property of the type.
    static func unchecked<T>(_ body: @Loop () throws -> T) rethrows -> T {
        try withoutActuallyEscaping(body) { body in
            try unsafeBitCast(body, to: (() throws -> T).self)()
        }
    }

    /// Starts a task on the loop that runs at once, inside this call, until it first waits.
    @Loop @discardableResult
    public static func task(_ body: @escaping @Loop () async -> Void) -> Task<Void, Never> {
        // Not `Task.immediate`: with an executor preference it waits its turn like any other task, and without one
        // each resumption would come through the global pool, from another thread (measured with Swift 6.3).
        events.startsNextJob = true
        return Task(executorPreference: events, operation: body)
    }

    /// Waits on a timer of the loop; throws `CancellationError` as soon as the task is cancelled.
    @Loop
    public static func sleep(for delay: Duration) async throws {
        var timer: Timer?
        defer { if let timer { events.cancel(timer) } }
        try await Signal.wait { signal in timer = events.schedule(after: delay) { signal.fire() } }
    }

    /// Runs `body` on another thread, and waits for what it returns without holding up the loop.
    ///
    /// Not by `@concurrent`: a task that prefers the loop's executor runs even that on the loop.
    public static func elsewhere<T: Sendable>(_ body: @escaping @Sendable () -> T) async -> T {
        await Task.detached(executorPreference: globalConcurrentExecutor) { body() }.value
    }

    /// Runs `body` on the loop: now if this is its thread, else as soon as it can.
    public static func onLoop(_ body: @escaping @Loop () -> Void) {
        if events.isCurrent { unchecked(body) } else { Task { @Loop in body() } }
    }
}
