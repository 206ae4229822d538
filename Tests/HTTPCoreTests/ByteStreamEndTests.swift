import EventLoop
import HTTPCore
import TestSupport
import Testing

/// How a body ends when it does not just end: by an error, by its consumer, by being cancelled.
@Suite(.timeLimit(.minutes(1))) struct ByteStreamEndTests {
    init() { LoopThread.start() }

    @Test @Loop func `the producer's error is what the consumer's call throws`() async {
        let flow = Passage()
        flow.consume()
        _ = flow.push("a")
        flow.stream.finish(Failure())
        #expect(!flow.stream.isComplete)
        #expect(await flow.outcome() == "Failure()")
        #expect(flow.taken == ["a"])
        #expect(flow.cancels == 0)
    }

    @Test @Loop func `an error before the consumer came is thrown after what was kept`() async {
        let flow = Passage()
        _ = flow.push("a")
        flow.stream.finish(Failure())
        flow.consume()
        #expect(flow.taken == ["a"])
        #expect(await flow.outcome() == "Failure()")
    }

    @Test @Loop func `a consumer that stops ends both sides`() async {
        let flow = Passage()
        flow.consume()
        flow.answer = .stop
        #expect(flow.push("a") == .stop)
        #expect(flow.cancels == 1)
        #expect(flow.push("b") == .stop)
        #expect(flow.cancels == 1)
        flow.stream.finish()
        #expect(!flow.stream.isComplete)
        #expect(await flow.outcome() == "ClientLeft()")
        #expect(flow.taken == ["a"])
    }

    @Test @Loop func `a consumer that stops at what was kept ends both sides`() async {
        let flow = Passage()
        _ = flow.push("a")
        flow.answer = .stop
        flow.consume()
        #expect(flow.cancels == 1)
        #expect(flow.push("b") == .stop)
        #expect(await flow.outcome() == "ClientLeft()")
    }

    @Test @Loop func `a consumer that stops at a body that has ended is answered, and nobody is cancelled`() async {
        let flow = Passage()
        _ = flow.push("a")
        flow.stream.finish()
        flow.answer = .stop
        flow.consume()
        #expect(await flow.outcome() == "ClientLeft()")
        #expect(flow.cancels == 0)
    }

    // MARK: Cancelling

    @Test @Loop func `cancelling the stream tells the producer and throws to the consumer`() async {
        let flow = Passage()
        flow.consume()
        _ = flow.push("a")
        flow.stream.cancel()
        flow.stream.cancel()
        #expect(flow.cancels == 1)
        #expect(flow.push("b") == .stop)
        #expect(await flow.outcome() == "ClientLeft()")
    }

    @Test @Loop func `a stream cancelled before its consumer came stops both`() async {
        let flow = Passage()
        flow.stream.cancel()
        #expect(flow.cancels == 1)
        #expect(flow.push("a") == .stop)
        flow.consume()
        #expect(await flow.outcome() == "ClientLeft()")
        #expect(flow.taken == [])
    }

    @Test @Loop func `cancelling the consumer's task on the loop stops the producer at once`() async {
        let flow = Passage()
        flow.consume()
        _ = flow.push("a")
        flow.cancelTask()
        #expect(flow.cancels == 1)
        #expect(flow.push("b") == .stop)
        #expect(await flow.outcome() == "CancellationError()")
    }

    @Test func `cancelling the consumer's task from another thread stops the producer`() async {
        let flow = await Passage()
        let task = await flow.consume()
        joinThread { task.cancel() }
        #expect(await flow.outcome() == "CancellationError()")
        #expect(await flow.cancels == 1)
    }

    @Test @Loop func `a task cancelled before it consumes stops the producer`() async {
        let flow = Passage()
        let task = Task { @Loop in await flow.forward() }
        task.cancel()
        #expect(await task.value == "CancellationError()")
        #expect(flow.cancels == 1)
        #expect(flow.push("a") == .stop)
    }

    @Test @Loop func `cancelling the task of a paused consumer wakes it`() async {
        let flow = Passage()
        flow.answer = .pause
        flow.consume()
        _ = flow.push("a")
        flow.cancelTask()
        #expect(await flow.outcome() == "CancellationError()")
        flow.stream.resume()
        #expect(flow.resumes == 0, "cancelled: the producer is not asked for more")
    }

    // MARK: Once

    /// A continuation resumed twice traps; one that is never resumed runs into the time limit.
    @Test(arguments: 0..<200)
    @Loop func `whatever happens in whatever order, the consumer's call returns exactly once`(seed: UInt64) async {
        var random = SeededGenerator(seed: seed)
        let flow = Passage()
        var isConsumed = false
        for _ in 0..<Int.random(in: 1...12, using: &random) {
            switch Int.random(in: 0..<9, using: &random) {
            case 0, 1: _ = flow.push("x")
            case 2: flow.answer = [.more, .pause, .stop].randomElement(using: &random) ?? .more
            case 3: flow.stream.resume()
            case 4: flow.stream.finish()
            case 5: flow.stream.finish(Failure())
            case 6: flow.stream.cancel()
            case 7: if isConsumed { flow.cancelTask() }
            default:
                if !isConsumed { flow.consume() }
                isConsumed = true
            }
        }
        if !isConsumed { flow.consume() }
        flow.stream.finish()
        flow.stream.resume()
        #expect(["end", "Failure()", "ClientLeft()", "CancellationError()"].contains(await flow.outcome()))
        #expect(flow.cancels <= 1)
        flow.stream.cancel()
        flow.stream.finish()
        #expect(flow.push("after") == .stop)
    }

    @Test @Loop func `a stream lets go of its consumer at the end, however it ends`() async {
        final class Witness: Sendable {}
        for end in 0..<4 {
            let stream = ByteStream()
            weak var witness: Witness?
            let task: Task<Void, Never>
            do {
                let held = Witness()
                witness = held
                task = Loop.task { [held] in
                    try? await stream.forward { _ in withExtendedLifetime(held) { .more } }
                }
            }
            #expect(witness != nil)
            switch end {
            case 0: stream.finish()
            case 1: stream.finish(Failure())
            case 2: stream.cancel()
            default: task.cancel()
            }
            await task.value
            #expect(witness == nil)
        }
    }
}
