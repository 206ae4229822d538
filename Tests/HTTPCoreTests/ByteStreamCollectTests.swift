import EventLoop
import HTTPCore
import TestSupport
import Testing

/// `ByteStream.collect`: all of it, or nothing.
@Suite(.timeLimit(.minutes(1))) struct ByteStreamCollectTests {
    init() { LoopThread.start() }

    @Test @Loop func `what comes before and after is collected`() async throws {
        let flow = Passage()
        _ = flow.push("a")
        flow.collect()
        _ = flow.push("b")
        _ = flow.push("c")
        flow.stream.finish()
        #expect(await flow.outcome() == "abc")
    }

    @Test @Loop func `the limit itself is allowed`() async {
        let flow = Passage()
        _ = flow.push("ab")
        flow.collect(limit: 4)
        #expect(flow.push("cd") == .more)
        flow.stream.finish()
        #expect(await flow.outcome() == "abcd")
    }

    @Test @Loop func `one byte beyond the limit stops the producer`() async {
        let flow = Passage()
        flow.collect(limit: 4)
        #expect(flow.push("abcd") == .more)
        #expect(flow.push("e") == .stop)
        #expect(flow.cancels == 1)
        #expect(await flow.outcome() == "BodyTooLarge(limit: 4)")
    }

    @Test @Loop func `too much that was kept is refused as well`() async {
        let flow = Passage()
        _ = flow.push("abcde")
        flow.stream.finish()
        flow.collect(limit: 4)
        #expect(await flow.outcome() == "BodyTooLarge(limit: 4)")
    }

    @Test @Loop func `a declared length is a hint, not a promise`() async {
        for declared in [0, 2, 1_000_000, Int.max] {
            let flow = Passage()
            flow.collect(expecting: declared)
            _ = flow.push("abc")
            flow.stream.finish()
            #expect(await flow.outcome() == "abc")
        }
    }

    @Test @Loop func `a body that is cut is not taken for one that is too large`() async {
        let flow = Passage()
        flow.collect(limit: 4)
        _ = flow.push("abc")
        flow.stream.finish(ClientLeft())
        #expect(await flow.outcome() == "ClientLeft()")
    }

    @Test @Loop func `cancelling the task is not taken for a body that is too large`() async {
        let flow = Passage()
        flow.collect(limit: 4)
        _ = flow.push("abc")
        flow.cancelTask()
        #expect(flow.cancels == 1)
        #expect(await flow.outcome() == "CancellationError()")
    }
}
