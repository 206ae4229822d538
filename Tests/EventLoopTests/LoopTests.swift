import EventLoop
import TestSupport
import Testing

/// The global actor of the program's one loop.
@Suite(.timeLimit(.minutes(1))) struct LoopTests {
    let seen = Recorder<String>()

    init() { LoopThread.start() }

    @Test @Loop func `work elsewhere is off the loop's thread, and what follows is on it`() async {
        // From a task that prefers the loop, as all of the program's do.
        await Loop.task {
            #expect(await Loop.elsewhere { Loop.events.isCurrent } == false)
            #expect(Loop.events.isCurrent)
        }.value
    }

    @Test @Loop func `code marked @Loop runs on the loop's thread and stays there`() async {
        let thread = currentThread()
        #expect(Loop.events.isCurrent)
        await Task.yield()
        #expect(currentThread() == thread)
        _ = await onNewThread { 1 }
        #expect(currentThread() == thread)
        await Task { @Loop in #expect(currentThread() == thread) }.value
        #expect(currentThread() == thread)
    }

    @Test @Loop func `a task started on the loop runs at once until it first waits`() async {
        let task = Loop.task { [seen] in
            seen.note("started")
            await Task.yield()
            seen.note("resumed")
        }
        #expect(seen.values == ["started"])
        await task.value
        #expect(seen.values == ["started", "resumed"])
    }

    @Test @Loop func `tasks started from a task start at once as well`() async {
        await Loop.task { [seen] in
            seen.note("outer")
            Loop.task { seen.note("inner") }
            seen.note("outer again")
        }.value
        #expect(seen.values == ["outer", "inner", "outer again"])
    }

    @Test @Loop func `a task started on the loop does not leave it, whatever it awaits`() async {
        let thread = currentThread()
        let threads = Recorder<UInt>()
        await Loop.task {
            threads.note(currentThread())
            await concurrently { threads.note(currentThread()) }
            threads.note(currentThread())
            _ = await onNewThread { 1 }
            threads.note(currentThread())
        }.value
        #expect(threads.values == [thread, thread, thread, thread])
    }

    @Test @Loop func `plain code on the loop's thread may say that it is on the loop`() {
        let plain: () -> Int = { Loop.assumeIsolated { Loop.events.isCurrent ? 7 : 0 } }
        #expect(plain() == 7)
    }

    @Test @Loop func `what is thrown inside comes out`() {
        struct Failure: Error {}
        #expect(throws: Failure.self) { try Loop.assumeIsolated { throw Failure() } }
    }

    @Test func `saying so on another thread traps`() async {
        await #expect(processExitsWith: .failure) { Loop.assumeIsolated {} }
    }

    @Test @Loop func `on the loop, onLoop is a plain call`() {
        Loop.onLoop { [seen] in seen.note("inside") }
        #expect(seen.values == ["inside"])
    }

    @Test func `off the loop, onLoop comes to it`() async {
        let thread = await withCheckedContinuation { continuation in
            Loop.onLoop { continuation.resume(returning: currentThread()) }
        }
        #expect(await thread == loopThread())
        #expect(thread != currentThread())
    }
}

@Loop private func loopThread() -> UInt { currentThread() }

@concurrent private func concurrently(_ body: @Sendable () -> Void) async { body() }
