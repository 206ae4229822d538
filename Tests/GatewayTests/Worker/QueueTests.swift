import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// More requests than the boxes may run.
@Suite(.timeLimit(.minutes(1))) struct QueueTests {
    init() { LoopThread.start() }

    @Loop private func rig(
        _ backends: Int = 1, concurrency: Int = 1, limit: Int = 100, timeout: Duration = .seconds(300)
    )
        throws -> WorkerRig
    {
        try WorkerRig(backends: ["http://a", "http://b", "http://c"].prefix(backends).map { $0 }) {
            $0.queue.concurrency = concurrency
            $0.queue.limit = limit
            $0.queue.timeout = timeout
        }
    }

    @Loop private func ask(_ rig: WorkerRig, _ numbers: Range<Int>) async -> [Asked] {
        var all: [Asked] = []
        for number in numbers { all.append(await rig.ask(Said.ask("", "\(number)"))) }
        return all
    }

    /// Which questions have reached a box, in order.
    @Loop private func order(_ rig: WorkerRig) -> [Int] {
        rig.calls.all.compactMap { call in
            call.request.body.text?.split(separator: "\"").reversed().lazy.compactMap { Int($0) }.first
        }
    }

    @Loop private func finish(_ call: BoxCall) async {
        call.answer(200, Said.lines)
        call.body.stream.finish()
        await quiet()
    }

    @Test @Loop func `a box runs as many as it may, the others come in order`() async throws {
        let rig = try rig(concurrency: 2)
        let all = await ask(rig, 0..<6)
        #expect(order(rig) == [0, 1])
        await finish(rig.calls[1])
        #expect(order(rig) == [0, 1, 2])
        await finish(rig.calls[0])
        await finish(rig.calls[2])
        await finish(rig.calls[3])
        #expect(order(rig) == [0, 1, 2, 3, 4, 5])
        for number in 4..<6 { await finish(rig.calls[number]) }
        for asked in all {
            await asked.end()
            #expect(asked.body == Said.lines)
        }
    }

    @Test @Loop func `boxes take turns, and one that is full is passed over`() async throws {
        let rig = try rig(3, concurrency: 2)
        let all = await ask(rig, 0..<8)
        #expect(rig.calls.boxes == "abcabc")
        await finish(rig.calls[1])
        #expect(rig.calls.boxes == "abcabcb")
        await finish(rig.calls[6])
        #expect(rig.calls.boxes == "abcabcbb")
        for number in [0, 2, 3, 4, 5, 7] { await finish(rig.calls[number]) }
        for asked in all { await asked.end() }
        let more = await ask(rig, 8..<10)
        #expect(rig.calls.boxes == "abcabcbbac")
        for asked in more { asked.leave() }
        for asked in more { await asked.end() }
    }

    @Test @Loop func `a failed call gives its place to the next`() async throws {
        let rig = try rig()
        let all = await ask(rig, 0..<3)
        rig.calls[0].fail(HitDirectiveTests.unreachable)
        await quiet()
        #expect(order(rig) == [0, 1])
        rig.calls[1].answer(200, Said.line("x"))
        await quiet()
        all[1].leave()
        await quiet()
        #expect(order(rig) == [0, 1, 2])
        await finish(rig.calls[2])
        for asked in all { await asked.end() }
        #expect(all[0].status == 502)
        #expect(all[2].body == Said.lines)
    }

    @Test @Loop func `when the queue is full one is told so, and when to come back`() async throws {
        let rig = try rig(limit: 2)
        let all = await ask(rig, 0..<3)
        let refused = await rig.ask(Said.ask(), at: "/v1/chat/completions")
        #expect(refused.client.events == ["send 503"])
        #expect(refused.client.headers["retry-after"] == "1")
        #expect(refused.cache == "MISS")
        #expect(
            try decode(OpenAIError.self, refused.body).error.message
                == "every backend is busy, and 2 requests wait already (--queue-limit)")
        // The one that runs has taken long by now: two wait, and each will take as long.
        rig.pass(seconds: 10)
        let later = await rig.ask(Said.ask("", "later"))
        #expect(later.client.headers["retry-after"] == "30")
        // Who asks what is being asked does not need a place.
        let joining = await rig.ask(Said.ask("", "2"))
        #expect(joining.client.events == [])
        for number in 0..<3 { await finish(rig.calls[number]) }
        for asked in all { await asked.end() }
        await joining.end()
        #expect(joining.cache == "COALESCED")
        #expect(rig.metric("ollama_cache_misses_total") == "3")
        #expect(await rig.ask(Said.ask("", "0")).cache == "HIT")
    }

    @Test @Loop func `with no queue whoever finds no box free is refused`() async throws {
        let rig = try rig(limit: 0)
        let all = await ask(rig, 0..<2)
        #expect(all[1].status == 503)
        await finish(rig.calls[0])
        await all[0].end()
        let next = await ask(rig, 2..<3)
        #expect(order(rig) == [0, 2])
        next[0].leave()
        await next[0].end()
    }

    @Test @Loop func `whoever waits too long is told so, and its place is free at once`() async throws {
        let rig = try rig(limit: 1, timeout: .milliseconds(20))
        let first = await rig.ask(Said.ask("", "0"))
        let stream = await rig.ask(Said.ask("", "1"))
        let whole = await rig.ask(Said.ask(#","stream":false"#, "1"))
        #expect(await eventually { stream.client.response != nil })
        await stream.end()
        await whole.end()
        for asked in [stream, whole] {
            #expect(asked.client.events == ["send 503"])
            #expect(asked.client.headers["retry-after"] == "1")
            #expect(try decode(NativeError.self, asked.body).error.contains("became free within 0.02 seconds"))
        }
        let next = await rig.ask(Said.ask("", "2"))
        #expect(next.client.events == [])
        await finish(rig.calls[0])
        #expect(order(rig) == [0, 2])
        await finish(rig.calls[1])
        await first.end()
        await next.end()
        #expect(next.body == Said.lines)
    }

    @Test @Loop func `a client that leaves the queue is never sent, and its place is free at once`() async throws {
        let rig = try rig(limit: 2)
        let all = await ask(rig, 0..<3)
        all[1].leave()
        await all[1].end()
        await quiet()
        let next = await rig.ask(Said.ask("", "3"))
        #expect(next.client.events == [])
        for number in 0..<3 { await finish(rig.calls[number]) }
        #expect(order(rig) == [0, 2, 3])
        for asked in all + [next] { await asked.end() }
        #expect(all[1].client.events == [])
        #expect(rig.metric("ollama_cache_misses_total") == "3")
    }

    @Test @Loop func `one that leaves in the moment its turn comes passes it on`() async throws {
        let rig = try rig()
        let all = await ask(rig, 0..<3)
        rig.calls[0].answer(200, Said.lines)
        rig.calls[0].body.stream.finish()
        all[1].leave()
        for asked in all.prefix(2) { await asked.end() }
        await quiet()
        #expect(order(rig).last == 2)
        await finish(rig.calls[rig.calls.count - 1])
        await all[2].end()
        #expect(all[2].body == Said.lines)
    }

    @Test @Loop func `a hit waits for nobody`() async throws {
        let rig = try rig(limit: 0)
        await rig.fill(Said.chat, with: Said.lines)
        let slow = await rig.ask(Said.ask("", "slow"))
        for text in [Said.chat, Said.chatWhole] { #expect(await rig.ask(text).cache == "HIT") }
        slow.leave()
        await slow.end()
    }

    @Test @Loop func `what was queued is joined and sent once`() async throws {
        let rig = try rig()
        let first = await rig.ask(Said.ask("", "0"))
        let all = [
            await rig.ask(Said.chat), await rig.ask(Said.chatWhole),
            await rig.ask(Said.ask(#","stream":false"#, model: "M")),
        ]
        all[0].leave()
        await all[0].end()
        await finish(rig.calls[0])
        await finish(rig.calls[1])
        await first.end()
        for asked in all { await asked.end() }
        #expect(try Reading.text(all[1].body) == "Hello")
        #expect(try Reading.text(all[2].body) == "Hello")
        #expect(rig.calls.count == 2)
    }
}
