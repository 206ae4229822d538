import EventLoop
import TestSupport
import Testing

/// Starting and stopping the loop, and what it does in which order.
@Suite struct RunTests {
    let loop = EventLoop()
    let seen = Recorder<String>()

    @Test func `the loop runs on the thread that called run`() async {
        #expect(!loop.isCurrent)
        loop.schedule(after: .zero) { [loop, seen] in
            #expect(loop.isCurrent)
            #expect(loop.isIsolatingCurrentContext() == true)
            joinThread { #expect(!loop.isCurrent) }
            seen.note("ran")
            loop.stop()
        }
        let thread = await onNewThread { [loop] in
            loop.schedule(after: .zero) { #expect(currentThread() != 0) }
            loop.runLimited()
            return currentThread()
        }
        #expect(thread != 0)
        #expect(!loop.isCurrent)
        #expect(loop.isIsolatingCurrentContext() == false)
        #expect(seen.values == ["ran"])
    }

    @Test func `stop from another thread ends a loop that sleeps`() {
        loop.schedule(after: .zero) { [loop] in detachThread { loop.stop() } }
        loop.runLimited()
    }

    @Test func `stop before run lets what waits run, and no more`() {
        Task(executorPreference: loop) { [seen] in seen.note("job") }
        loop.schedule(after: .zero) { [seen] in seen.note("timer") }
        loop.stop()
        loop.run()
        #expect(seen.values == ["job"])
    }

    @Test func `jobs enqueued before the stop have run when run returns`() {
        loop.schedule(after: .zero) { [loop, seen] in
            Task(executorPreference: loop) {
                seen.note("job")
                Task(executorPreference: loop) { seen.note("its child") }
                loop.atEndOfTurn { seen.note("its hook") }
            }
            loop.stop()
        }
        loop.runLimited()
        #expect(seen.values == ["job", "its child", "its hook"])
    }

    @Test func `a job from another thread runs though the stop comes in the very turn it was enqueued in`() {
        loop.schedule(after: .zero) { [loop, seen] in
            // The loop has looked for events already: it will not hear of this job before it stops.
            joinThread { Task(executorPreference: loop) { seen.note("job") } }
            loop.stop()
        }
        loop.runLimited()
        #expect(seen.values == ["job"])
    }

    @Test func `a stopped loop can run again`() {
        for round in 1...3 {
            loop.schedule(after: .milliseconds(1)) { [loop, seen] in
                seen.note("round \(round)")
                loop.stop()
            }
            loop.runLimited()
        }
        #expect(seen.values == ["round 1", "round 2", "round 3"])
    }

    @Test func `a loop can run again on another thread`() async {
        let threads = Recorder<UInt>()
        for _ in 0..<2 {
            await onNewThread { [loop] in
                Task(executorPreference: loop) {
                    #expect(loop.isCurrent)
                    threads.note(currentThread())
                    loop.stop()
                }
                loop.runLimited()
            }
        }
        #expect(threads.count == 2)
    }

    @Test func `jobs enqueued while the loop was down run when it is up again`() {
        loop.stop()
        loop.run()
        joinThread { [loop, seen] in Task(executorPreference: loop) { seen.note("job") } }
        loop.schedule(after: .milliseconds(1)) { [loop] in loop.stop() }
        loop.runLimited()
        #expect(seen.values == ["job"])
    }

    @Test func `a hook runs once, at the end of the turn, for all the events of that turn`() throws {
        let pipes = [Descriptors.pipe(), Descriptors.pipe(), Descriptors.pipe()]
        for (index, pipe) in pipes.enumerated() {
            pipe.send("x")
            try loop.mustWatch(pipe.near, for: .read) { [loop, seen] _ in
                pipe.receive()
                seen.note("event")
                Task(executorPreference: loop) { seen.note("job") }
                guard index == 0 else { return }
                loop.atEndOfTurn { seen.note("hook") }
            }
        }
        loop.schedule(after: .milliseconds(3)) { [loop] in loop.stop() }
        loop.runLimited()
        #expect(seen.values == ["event", "event", "event", "job", "job", "job", "hook"])
    }

    @Test func `a hook's jobs and hooks run before the loop looks for events`() throws {
        let pipe = Descriptors.pipe()
        pipe.send("x")
        try loop.mustWatch(pipe.near, for: .read) { [loop, seen] _ in
            seen.note("event")
            loop.stop()
        }
        loop.atEndOfTurn { [loop, seen] in
            seen.note("hook")
            Task(executorPreference: loop) { seen.note("job") }
            loop.atEndOfTurn { seen.note("hook of the hook") }
        }
        loop.runLimited()
        #expect(seen.values == ["hook", "job", "hook of the hook", "event"])
    }

    @Test func `a loop gives its descriptors back`() throws {
        // The descriptor that was free before is free again after.
        let before = Descriptors.pipe().near
        do {
            let loop = EventLoop()
            loop.schedule(after: .zero) { loop.stop() }
            loop.runLimited()
        }
        _ = before
    }
}
