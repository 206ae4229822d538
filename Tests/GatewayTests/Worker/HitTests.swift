import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Questions that were answered before.
@Suite(.timeLimit(.minutes(1))) struct HitTests {
    init() { LoopThread.start() }

    @Test @Loop func `what was asked before is answered at once, and the box is not asked`() async throws {
        let rig = try WorkerRig()
        let first = await rig.fill(Said.chat, with: Said.lines)
        #expect(first.client.text == Said.lines)
        #expect(first.cache == "MISS")
        #expect(first.cacheStatus == "ollama-gateway; fwd=miss")
        let again = await rig.ask(Said.chat)
        #expect(again.wasAnsweredAtOnce)
        #expect(again.client.events == ["send 200"])
        #expect(again.body == Said.lines)
        #expect(
            again.client.headers.lines == [
                "Content-Type: application/x-ndjson", "X-Cache: HIT", "Cache-Status: ollama-gateway; hit; ttl=30",
                "Age: 0",
            ])
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `an answer grows old, and is asked for anew when it is too old`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        for seconds in [0, 7, 7, 29] {
            rig.clock.now = 1_770_050_836_414_524 + Int64(seconds) * 1_000_000
            let hit = await rig.ask(Said.chat)
            #expect(hit.client.headers["age"] == "\(seconds)")
            #expect(hit.cacheStatus == "ollama-gateway; hit; ttl=\(30 - seconds)")
        }
        rig.pass(seconds: 1)
        let late = await rig.ask(Said.chat)
        #expect(!late.wasAnsweredAtOnce)
        #expect(rig.calls.count == 2)
        rig.calls[1].answer(200, Said.lines)
        rig.calls[1].body.stream.finish()
        await late.end()
        #expect(late.cache == "MISS")
    }

    @Test @Loop func `an answer that came as a stream serves who wants it whole`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        for round in 0..<3 {
            let whole = await rig.ask(Said.chatWhole)
            #expect(whole.wasAnsweredAtOnce == (round > 0))
            #expect(whole.cache == "HIT")
            #expect(whole.client.headers["content-type"] == "application/json; charset=utf-8")
            let read = try decode(Reading.self, whole.body)
            #expect(read.message.content == "Hello")
            #expect(read.done)
        }
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `an answer that came whole serves who wants a stream`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chatWhole, with: Said.whole)
        for _ in 0..<2 {
            let stream = await rig.ask(Said.chat)
            #expect(stream.cache == "HIT")
            #expect(stream.client.headers["content-type"] == "application/x-ndjson")
            #expect(try Reading.text(stream.body) == "Hello")
        }
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `a stream of v1 is kept with its usage and served with and without`() async throws {
        let rig = try WorkerRig()
        let path = "/v1/chat/completions"
        let first = await rig.fill(Said.ask(#","stream":true"#), at: path, with: Said.eventsWithUsage)
        #expect(first.body == Said.events)
        let without = await rig.ask(Said.ask(#","stream":true"#), at: path)
        #expect(without.wasAnsweredAtOnce)
        #expect(without.body == Said.events)
        #expect(without.client.headers["content-type"] == "text/event-stream")
        let asking = Said.ask(#","stream":true,"stream_options":{"include_usage":true}"#)
        let with = await rig.ask(asking, at: path)
        #expect(with.cache == "HIT")
        #expect(with.body == Said.eventsWithUsage)
        let whole = await rig.ask(Said.ask(), at: path)
        #expect(whole.cache == "HIT")
        #expect(whole.body.contains(#""content":"Hello""#))
        #expect(whole.body.contains(#""total_tokens":3"#))
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `the same question in other bytes is a hit, and at once from the second time on`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        let other = #"{ "messages" : [ {"content":"hi", "role":"user"} ], "model":"m", "keep_alive": 5 }"#
        for round in 0..<3 {
            let hit = await rig.ask(other)
            #expect(hit.cache == "HIT")
            #expect(hit.wasAnsweredAtOnce == (round > 0))
            #expect(hit.body == Said.lines)
        }
    }

    @Test(arguments: ["M", "m:latest", "library/m", "registry.ollama.ai/library/m:latest"])
    @Loop func `who spells the model differently reads its own spelling`(spelling: String) async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        for _ in 0..<2 {
            let stream = await rig.ask(Said.ask(model: spelling))
            #expect(stream.cache == "HIT")
            #expect(stream.body == Said.lines.replacing(#""model":"m""#, with: #""model":"\#(spelling)""#))
            let whole = await rig.ask(Said.ask(#","stream":false"#, model: spelling))
            let read = try decode(Reading.self, whole.body)
            #expect(read.model == spelling)
            #expect(read.message.content == "Hello")
        }
        let first = await rig.ask(Said.chat)
        #expect(first.body == Said.lines)
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `who asked before reads its own spelling when the answer was renewed for another's`() async throws
    {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        #expect(await rig.ask(Said.chat).wasAnsweredAtOnce)
        let renewed = Said.line("new", model: "M") + Said.last("M")
        await rig.fill(Said.ask(model: "M"), headers: ["Cache-Control": "no-cache"], with: renewed)
        for _ in 0..<2 {
            #expect(await rig.ask(Said.chat).body == Said.line("new") + Said.last())
            #expect(await rig.ask(Said.ask(model: "M")).body == renewed)
        }
        #expect(rig.calls.count == 2)
    }

    @Test @Loop func `the same bytes at another path are another question`() async throws {
        let rig = try WorkerRig()
        let both = Said.ask(#","stream":true"#)
        await rig.fill(both, with: Said.lines)
        await rig.fill(both, at: "/v1/chat/completions", with: Said.eventsWithUsage)
        #expect(rig.calls.count == 2)
        for _ in 0..<2 {
            #expect(await rig.ask(both).body == Said.lines)
            #expect(await rig.ask(both, at: "/v1/chat/completions").body == Said.events)
        }
        #expect(rig.calls.count == 2)
    }

    @Test @Loop func `an id of its own comes back to a client with a hit, and no other`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, headers: ["X-Request-Id": "first"], with: Said.lines)
        let mine = await rig.ask(Said.chat, headers: ["X-Request-Id": "mine"])
        #expect(mine.client.headers.values("x-request-id") == ["mine"])
        let none = await rig.ask(Said.chat)
        #expect(none.client.headers["x-request-id"] == nil)
        let odd = await rig.ask(Said.chat, headers: ["X-Request-Id": "in sane"])
        #expect(odd.client.headers["x-request-id"] == nil)
        let slow = await rig.ask(Said.chatWhole, headers: ["X-Request-Id": "slow"])
        #expect(slow.client.headers.values("x-request-id") == ["slow"])
        #expect(rig.calls.count == 1)
    }

    // MARK: What is not kept

    @Test(arguments: [
        Said.line("Hel"), Said.lines + Said.line("more"), Said.line("Hel") + #"{"error":"broken"}"# + "\n",
        #"{"error":"x"}"# + "\n", "", "\n", "nonsense\n",
        #"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}"# + "\n",
    ])
    @Loop func `an answer that is not whole is passed on and not kept`(answer: String) async throws {
        let rig = try WorkerRig()
        let first = await rig.fill(Said.chat, with: answer)
        #expect(first.client.text == answer)
        #expect(first.isWhole)
        let second = await rig.ask(Said.chat)
        #expect(!second.wasAnsweredAtOnce)
        #expect(rig.calls.count == 2)
        #expect(rig.metric("ollama_cache_size") == "0")
        second.leave()
        await second.end()
    }

    @Test(arguments: [
        Said.delta("a") + Said.finish, Said.delta("a") + Said.done, Said.delta("a") + Said.usage + Said.done,
    ])
    @Loop func `a stream of v1 without its end is not kept`(answer: String) async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.ask(#","stream":true"#), at: "/v1/chat/completions", with: answer)
        #expect(rig.metric("ollama_cache_size") == "0")
    }

    @Test(arguments: [201, 400, 404, 500, 503])
    @Loop func `an answer of another status than 200 is not kept`(status: Int) async throws {
        let rig = try WorkerRig()
        let asked = await rig.ask(Said.chatWhole)
        rig.calls[0].answerWhole(Said.whole, status)
        await asked.end()
        #expect(asked.client.events == ["send \(status)"])
        #expect(rig.metric("ollama_cache_size") == "0")
    }

    @Test(arguments: [
        (#","tools":[{"type":"function","function":{"name":"f"}}]"#, "/api/chat", "tools"),
        (#","keep_alive":0"#, "/api/chat", "unload"), ("", "/v1/responses", "endpoint"),
        ("", "/v1/messages", "endpoint"), (#","MODEL":"x""#, "/api/chat", "case"), ("}", "/api/chat", "malformed"),
    ])
    @Loop func `what the cache has no business with is forwarded each time`(
        more: String, target: String, reason: String
    ) async throws {
        let rig = try WorkerRig()
        for number in 0..<2 {
            let asked = await rig.fill(Said.ask(more), at: target, with: Said.lines)
            #expect(asked.cache == "BYPASS")
            #expect(asked.cacheStatus == "ollama-gateway; fwd=bypass; detail=\(reason)")
            #expect(rig.calls.count == number + 1)
        }
        #expect(rig.metric("ollama_cache_size") == "0")
    }

    @Test @Loop func `with no time to live nothing is kept`() async throws {
        let rig = try WorkerRig { $0.cache.ttl = .zero }
        for _ in 0..<2 {
            let asked = await rig.fill(Said.chat, with: Said.lines)
            #expect(asked.cacheStatus == "ollama-gateway; fwd=bypass; detail=off")
            #expect(asked.body == Said.lines)
        }
        #expect(rig.calls.count == 2)
    }

    @Test @Loop func `what would come out differently may be left out`() async throws {
        let rig = try WorkerRig { $0.cache.onlyDeterministic = true }
        let random = await rig.fill(Said.chat, with: Said.lines)
        #expect(random.cacheStatus == "ollama-gateway; fwd=bypass; detail=random")
        let fixed = Said.ask(#","options":{"seed":1}"#)
        await rig.fill(fixed, with: Said.lines)
        #expect(await rig.ask(fixed).cache == "HIT")
    }

    // MARK: Memory

    @Test @Loop func `a request that is over is let go of`() async throws {
        let rig = try WorkerRig { $0.rateLimit = 3 }
        weak var handled: Request?
        weak var refused: Request?
        do {
            let asked = request("POST", "/api/chat", body: .bytes(Bytes(Said.chat)))
            handled = asked
            let task = Asked(asked, rig.gateway)
            rig.calls[0].answer(200, Said.lines)
            rig.calls[0].body.stream.finish()
            await task.end()
        }
        await quiet()
        #expect(handled == nil)
        for _ in 0..<3 {
            let asked = request("POST", "/api/chat", body: .bytes(Bytes(Said.chat)))
            refused = asked
            _ = rig.gateway.answer(asked)
        }
        #expect(refused == nil)
    }
}
