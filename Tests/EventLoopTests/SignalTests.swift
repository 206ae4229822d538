import EventLoop
import TestSupport
import Testing

/// `Signal`, and `Loop.sleep`, which is made of it.
@Suite(.timeLimit(.minutes(1))) struct SignalTests {
    let seen = Recorder<String>()

    init() { LoopThread.start() }

    @Test @Loop func `a signal fired before the wait is not lost`() async throws {
        try await Signal.wait { $0.fire() }
    }

    @Test @Loop func `an error fired before the wait is not lost`() async {
        await #expect(throws: Failure.self) { try await Signal.wait { $0.fire(Failure()) } }
    }

    @Test @Loop func `a signal wakes who waits`() async throws {
        let held = Held()
        let task = waiter(held)
        #expect(seen.values == ["waiting"])
        held.signal?.fire()
        #expect(seen.values == ["waiting"], "woken as a job, not inside fire")
        await task.value
        #expect(seen.values == ["waiting", "woken"])
    }

    @Test @Loop func `an error wakes who waits, and is thrown`() async {
        let held = Held()
        let task = waiter(held)
        held.signal?.fire(Failure())
        await task.value
        #expect(seen.values == ["waiting", "Failure()"])
    }

    @Test @Loop func `the first to fire is heard, others are not`() async {
        let held = Held()
        let task = waiter(held)
        held.signal?.fire()
        held.signal?.fire(Failure())
        held.signal?.fire()
        await task.value
        held.signal?.fire()
        #expect(seen.values == ["waiting", "woken"])
    }

    @Test @Loop func `a signal fired from a timer wakes who waits`() async throws {
        try await Signal.wait { signal in
            Loop.events.schedule(after: .milliseconds(1)) { signal.fire() }
        }
    }

    @Test @Loop func `cancelling the task on the loop ends the wait`() async {
        let held = Held()
        let task = waiter(held)
        task.cancel()
        await task.value
        #expect(seen.values == ["waiting", "CancellationError()"])
        held.signal?.fire()
    }

    @Test func `cancelling the task from another thread ends the wait`() async {
        let held = Held()
        let task = await waiter(held)
        joinThread { task.cancel() }
        await task.value
        #expect(seen.values == ["waiting", "CancellationError()"])
    }

    @Test @Loop func `a task cancelled before does not wait`() async {
        let task = Task { @Loop in
            _ = await #expect(throws: CancellationError.self) { try await Signal.wait { _ in } }
        }
        task.cancel()
        await task.value
    }

    @Test @Loop func `firing and cancelling in the same turn wake once`() async {
        for order in 0..<2 {
            let held = Held()
            let task = waiter(held)
            if order == 0 { held.signal?.fire() }
            task.cancel()
            if order == 1 { held.signal?.fire() }
            await task.value
        }
        #expect(seen.values == ["waiting", "woken", "waiting", "CancellationError()"])
    }

    @Test @Loop func `sleep lasts as long as it was asked to`() async throws {
        let start = EventLoop.monotonicNanoseconds()
        try await Loop.sleep(for: .milliseconds(5))
        #expect(EventLoop.monotonicNanoseconds() - start >= 5_000_000)
    }

    @Test @Loop func `sleepers wake in the order of their time`() async {
        let order = Recorder<Int>()
        let tasks = [9, 1, 5].map { delay in
            Loop.task {
                try? await Loop.sleep(for: .milliseconds(delay))
                order.note(delay)
            }
        }
        for task in tasks { await task.value }
        #expect(order.values == [1, 5, 9])
    }

    @Test @Loop func `a cancelled sleep ends promptly`() async {
        let start = EventLoop.monotonicNanoseconds()
        let task = Loop.task {
            await #expect(throws: CancellationError.self) { try await Loop.sleep(for: .seconds(3_600)) }
        }
        task.cancel()
        await task.value
        #expect(EventLoop.monotonicNanoseconds() - start < 5_000_000_000)
    }

    @Loop private func waiter(_ held: Held) -> Task<Void, Never> {
        Loop.task { [seen] in
            seen.note("waiting")
            do {
                try await Signal.wait { held.signal = $0 }
                seen.note("woken")
            } catch {
                seen.note("\(error)")
            }
        }
    }

    @Loop private final class Held {
        var signal: Signal?
    }

    private struct Failure: Error {}
}
