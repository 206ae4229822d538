import EventLoop
import TestSupport
import Testing

/// The loop as a Swift executor: of tasks that prefer it, and of actors.
@Suite struct ExecutorTests {
    let loop = EventLoop()

    @Test func `jobs run in the order they were enqueued in`() {
        let seen = Recorder<Int>()
        for number in 0..<1_000 {
            Task(executorPreference: loop) { [loop] in
                seen.note(number)
                if number == 999 { loop.stop() }
            }
        }
        loop.runLimited()
        #expect(seen.values == Array(0..<1_000))
    }

    @Test func `jobs from other threads run on the loop's thread, each thread's in order`() async {
        let seen = Recorder<[Int]>()
        let threads = Recorder<UInt>()
        for thread in 0..<4 {
            detachThread { [loop] in
                for number in 0..<1_000 {
                    Task(executorPreference: loop) {
                        threads.note(currentThread())
                        seen.note([thread, number])
                        if seen.count == 4_000 { loop.stop() }
                    }
                }
            }
        }
        let thread = await onNewThread { [loop] in
            loop.runLimited()
            return currentThread()
        }
        #expect(Set(threads.values) == [thread])
        for thread in 0..<4 {
            #expect(seen.values.filter { $0[0] == thread }.map { $0[1] } == Array(0..<1_000))
        }
    }

    @Test func `a task that prefers the loop stays on its thread, whatever it awaits`() async {
        let threads = Recorder<UInt>()
        let actor = OnLoop(loop)
        Task(executorPreference: loop) { [loop] in
            threads.note(currentThread())
            await noteThread(threads)
            await noteThreadConcurrently(threads)
            await actor.note(threads)
            threads.note(currentThread())
            await Task.yield()
            threads.note(currentThread())
            async let child: Void = noteThread(threads)
            await child
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<3 { group.addTask { await noteThreadConcurrently(threads) } }
            }
            threads.note(currentThread())
            loop.stop()
        }
        let thread = await onNewThread { [loop] in
            loop.runLimited()
            return currentThread()
        }
        #expect(threads.count == 11)
        #expect(Set(threads.values) == [thread])
    }

    @Test func `an actor on the loop runs on its thread, whoever calls`() async {
        let threads = Recorder<UInt>()
        let actor = OnLoop(loop)
        async let loopThread = onNewThread { [loop] in
            loop.runLimited()
            return currentThread()
        }
        // This caller is on the global pool: the actor is called across, and the caller comes back.
        await actor.note(threads)
        await actor.noteAcrossAwaits(threads)
        loop.stop()
        let thread = await loopThread
        #expect(threads.count == 6)
        #expect(Set(threads.values) == [thread])
    }

    @Test func `a continuation resumed on another thread comes back to the loop's`() async {
        let threads = Recorder<UInt>()
        let others = Recorder<UInt>()
        Task(executorPreference: loop) { [loop] in
            for _ in 0..<100 {
                others.note(await onNewThread { currentThread() })
                threads.note(currentThread())
            }
            loop.stop()
        }
        let thread = await onNewThread { [loop] in
            loop.runLimited()
            return currentThread()
        }
        #expect(Set(threads.values) == [thread])
        #expect(!others.values.contains(thread))
    }

    @Test func `an actor on the loop is entered without a hop from a plain callback`() {
        let actor = OnLoop(loop)
        let seen = Recorder<UInt>()
        loop.schedule(after: .zero) { [loop] in
            actor.assumeIsolated { $0.record(currentThread(), in: seen) }
            #expect(seen.values == [currentThread()])
            loop.stop()
        }
        loop.runLimited()
    }

    @Test func `entering an actor on the loop from another thread traps`() async {
        await #expect(processExitsWith: .failure) {
            enter(OnLoop(EventLoop()))
        }
    }
}

private func enter(_ actor: OnLoop) {
    actor.assumeIsolated { $0.record(currentThread(), in: Recorder<UInt>()) }
}

private func noteThread(_ threads: Recorder<UInt>) async { threads.note(currentThread()) }

@concurrent private func noteThreadConcurrently(_ threads: Recorder<UInt>) async { threads.note(currentThread()) }

private actor OnLoop {
    let loop: EventLoop
    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(_ loop: EventLoop) { self.loop = loop }

    func note(_ threads: Recorder<UInt>) { threads.note(currentThread()) }

    func noteAcrossAwaits(_ threads: Recorder<UInt>) async {
        threads.note(currentThread())
        await noteThread(threads)
        threads.note(currentThread())
        _ = await onNewThread { 1 }
        threads.note(currentThread())
        await Task.yield()
        threads.note(currentThread())
    }

    func record(_ thread: UInt, in seen: Recorder<UInt>) { seen.note(thread) }
}
