import EventLoop
import HTTPCore
import TestSupport
import Testing

/// A body on its way: with its consumer attached, kept from before, paused and resumed.
@Suite(.timeLimit(.minutes(1))) struct ByteStreamTests {
    init() { LoopThread.start() }

    // MARK: With a consumer

    @Test @Loop func `a chunk reaches the consumer inside push`() async {
        let flow = Passage()
        flow.consume()
        #expect(flow.push("a") == .more)
        #expect(flow.taken == ["a"])
        #expect(flow.push("b") == .more)
        flow.stream.finish()
        #expect(await flow.outcome() == "end")
        #expect(flow.taken == ["a", "b"])
    }

    @Test @Loop func `the consumer gets the producer's own memory`() async {
        let flow = Passage()
        flow.consume()
        let chunk: [UInt8] = [1, 2, 3]
        chunk.withUnsafeBytes {
            _ = flow.stream.push($0)
            #expect(flow.lastPlace == $0.baseAddress)
        }
        flow.stream.finish()
        _ = await flow.outcome()
    }

    @Test @Loop func `an empty body ends at once`() async {
        let flow = Passage()
        flow.stream.finish()
        #expect(flow.stream.isComplete)
        flow.consume()
        #expect(await flow.outcome() == "end")
        #expect(flow.taken == [])
    }

    // MARK: Before there is one

    @Test @Loop func `what comes before the consumer is kept, then handed over in one piece`() async {
        let flow = Passage()
        #expect(flow.push("a") == .more)
        #expect(flow.push("b") == .more)
        #expect(!flow.stream.isComplete)
        flow.consume()
        #expect(flow.taken == ["ab"])
        _ = flow.push("c")
        flow.stream.finish()
        #expect(await flow.outcome() == "end")
        #expect(flow.taken == ["ab", "c"])
        #expect(flow.resumes == 0)
    }

    @Test @Loop func `a body that ended before its consumer came is handed over whole`() async {
        let flow = Passage()
        _ = flow.push("all of it")
        flow.stream.finish()
        #expect(flow.stream.isComplete)
        flow.consume()
        #expect(flow.taken == ["all of it"])
        #expect(await flow.outcome() == "end")
    }

    @Test @Loop func `a body that has all come can be taken in one piece, once`() {
        let flow = Passage()
        #expect(flow.stream.takeComplete() == nil)
        _ = flow.push("all ")
        _ = flow.push("of it")
        #expect(flow.stream.takeComplete() == nil)
        flow.stream.finish()
        #expect(flow.stream.takeComplete()?.text == "all of it")
        #expect(flow.stream.takeComplete() == nil)
    }

    @Test @Loop func `what ended badly, or has a consumer, is not taken in one piece`() async {
        let failed = Passage()
        _ = failed.push("a")
        failed.stream.finish(Failure())
        #expect(failed.stream.takeComplete() == nil)
        let consumed = Passage()
        consumed.consume()
        _ = consumed.push("a")
        consumed.stream.finish()
        #expect(consumed.stream.takeComplete() == nil)
        #expect(await consumed.outcome() == "end")
    }

    @Test @Loop func `with no consumer the producer is paused at the high-water mark, and goes on when one comes`()
        async
    {
        let flow = Passage()
        let block = String(repeating: "x", count: 1_024)
        for number in 1...64 {
            #expect(flow.push(block) == (number < 64 ? .more : .pause))
        }
        #expect(flow.resumes == 0)
        flow.consume()
        #expect(flow.taken.map(\.utf8.count) == [ByteStream.highWater])
        #expect(flow.resumes == 1)
        #expect(flow.push("more") == .more)
        flow.stream.finish()
        #expect(await flow.outcome() == "end")
    }

    @Test @Loop func `a producer paused at the high-water mark is not told to go on to a consumer that pauses`() async {
        let flow = Passage()
        _ = flow.push(String(repeating: "x", count: ByteStream.highWater))
        flow.answer = .pause
        flow.consume()
        #expect(flow.taken.count == 1)
        #expect(flow.resumes == 0)
        flow.answer = .more
        flow.stream.resume()
        #expect(flow.resumes == 1)
        flow.stream.finish()
        #expect(await flow.outcome() == "end")
    }

    @Test @Loop func `a producer that pushes and ends inside onResume is heard`() async {
        let flow = Passage()
        _ = flow.push(String(repeating: "x", count: ByteStream.highWater))
        flow.whenResumed = { flow in
            #expect(flow.push("last") == .more)
            flow.stream.finish()
        }
        flow.consume()
        #expect(await flow.outcome() == "end")
        #expect(flow.taken.last == "last")
        #expect(flow.taken.count == 2)
    }

    // MARK: Back-pressure

    @Test @Loop func `a consumer that pauses is the producer's answer, and its resume the producer's`() async {
        let flow = Passage()
        flow.consume()
        flow.answer = .pause
        #expect(flow.push("a") == .pause)
        #expect(flow.resumes == 0)
        flow.stream.resume()
        #expect(flow.resumes == 1)
        flow.stream.resume()
        #expect(flow.resumes == 1, "not paused: nothing to resume")
        flow.answer = .more
        #expect(flow.push("b") == .more)
        flow.stream.finish()
        #expect(await flow.outcome() == "end")
        #expect(flow.taken == ["a", "b"])
    }

    @Test @Loop func `a producer may push inside onResume, and be paused again there`() async {
        let flow = Passage()
        flow.answer = .pause
        flow.consume()
        _ = flow.push("a")
        flow.whenResumed = { #expect($0.push("b") == .pause) }
        flow.stream.resume()
        flow.stream.resume()
        #expect(flow.taken == ["a", "b", "b"])
        #expect(flow.resumes == 2)
        flow.stream.finish()
        #expect(await flow.outcome() == "end")
    }

    @Test @Loop func `the end is heard though the consumer has paused, for it has taken everything`() async {
        let flow = Passage()
        flow.answer = .pause
        flow.consume()
        _ = flow.push("a")
        flow.stream.finish()
        #expect(await flow.outcome() == "end")
        flow.stream.resume()
        #expect(flow.resumes == 0, "the producer has ended: it is not asked for more")
    }
}
