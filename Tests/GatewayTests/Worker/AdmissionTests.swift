import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// So many requests a client and window.
@Suite(.timeLimit(.minutes(1))) struct AdmissionTests {
    init() { LoopThread.start() }

    @Test @Loop func `of a thousand requests exactly the limit pass, and a window later again`() async throws {
        let rig = try WorkerRig { $0.rateLimit = 100 }
        await rig.fill(Said.chat, with: Said.lines)
        for window in 0..<3 {
            if window > 0 { rig.pass(seconds: 60) }
            // The answer is too old by then.
            var passed = window == 0 ? 1 : 0
            if window > 0 {
                await rig.fill(Said.chat, with: Said.lines)
                passed += 1
            }
            var refused = 0
            while passed + refused < 1000 {
                let asked = await rig.ask(Said.chat)
                #expect(asked.wasAnsweredAtOnce)
                if asked.status == 200 { passed += 1 } else { refused += 1 }
                if asked.status != 200 { #expect(asked.client.events == ["send 429"]) }
            }
            #expect(passed == 100)
            #expect(refused == 900)
        }
        #expect(rig.metric("ollama_requests_total") == "3000")
        #expect(rig.metric("ollama_cache_hits_total") == "297")
        #expect(rig.metric("ollama_cache_misses_total") == "3")
    }

    @Test @Loop func `a window is over to the second, and not before`() async throws {
        let rig = try WorkerRig {
            $0.rateLimit = 1
            $0.rateWindow = .seconds(10)
        }
        let first = await rig.fill(Said.chat, with: Said.lines)
        #expect(first.client.headers["ratelimit-reset"] == "10")
        for (seconds, wait) in [(0.0, "10"), (0.5, "10"), (0.5, "9"), (8.999, "1")] {
            rig.pass(seconds: seconds)
            let refused = await rig.ask(Said.chat)
            #expect(refused.status == 429)
            #expect(refused.client.headers["retry-after"] == wait)
        }
        rig.pass(seconds: 0.001)
        #expect(await rig.ask(Said.chat).cache == "HIT")
    }

    private static let fields = [
        "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-limit", "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ]

    @Loop private func told(_ asked: Asked) -> [String?] {
        Self.fields.map { asked.client.headers.values($0) }.map { $0.count == 1 ? $0[0] : nil }
    }

    @Test @Loop func `every answer of a model tells what is left, whatever it is`() async throws {
        let rig = try WorkerRig {
            $0.rateLimit = 9
            $0.queue.concurrency = 1
            $0.queue.limit = 0
        }
        let expected = { (left: Int) in ["9", "\(left)", "60", "9", "\(left)", "60"] }
        #expect(told(await rig.fill(Said.chat, with: Said.lines)) == expected(8))
        #expect(told(await rig.ask(Said.chat)) == expected(7))
        #expect(told(await rig.ask(Said.chatWhole)) == expected(6))
        #expect(told(await rig.ask(Said.chat, headers: ["Cache-Control": "max-age=9"])) == expected(5))
        let running = await rig.ask(Said.ask("", "running"))
        let joined = await rig.ask(Said.ask(#","stream":false"#, "running"))
        let full = await rig.ask(Said.ask("", "full"))
        #expect(full.status == 503)
        #expect(told(full) == expected(2))
        let only = await rig.ask(Said.ask("", "only"), headers: ["Cache-Control": "only-if-cached"])
        #expect(only.status == 504)
        #expect(told(only) == expected(1))
        rig.calls[1].answer(200, Said.lines)
        rig.calls[1].body.stream.finish()
        await running.end()
        await joined.end()
        #expect(told(running) == expected(4))
        #expect(told(joined) == expected(3))
        let failing = await rig.ask(Said.ask("", "failing"))
        rig.calls[2].fail(HitDirectiveTests.unreachable)
        await failing.end()
        #expect(told(failing) == expected(0))
        #expect(told(await rig.ask(Said.chat)) == expected(0))
    }

    @Test @Loop func `who is refused reads why in the words of its API, and the box hears nothing`() async throws {
        let rig = try WorkerRig { $0.rateLimit = 1 }
        await rig.fill(Said.chat, headers: ["X-Request-Id": "one"], with: Said.lines)
        let native = await rig.ask(Said.ask("", "x"), headers: ["X-Request-Id": "two"])
        #expect(try decode(NativeError.self, native.body).error == "Rate limit exceeded. Try again later.")
        #expect(native.client.headers["x-request-id"] == "two")
        #expect(native.client.headers["retry-after"] == "60")
        let openAI = try decode(
            OpenAIError.self, (await rig.ask(Said.ask(), at: "/v1/chat/completions")).body
        ).error
        #expect(openAI.type == "rate_limit_error")
        #expect(openAI.code == "rate_limit_exceeded")
        let anthropic = try decode(AnthropicError.self, (await rig.ask(Said.ask(), at: "/v1/messages")).body).error
        #expect(anthropic.type == "rate_limit_error")
        #expect(rig.calls.count == 1)
        let record = try #require(rig.rig.log.records.dropFirst().first)
        #expect(record.status == 429)
        #expect(record.id == "two")
        #expect(record.cache == nil)
        #expect(record.bytes == native.body.utf8.count)
        #expect(record.error == "Rate limit exceeded. Try again later.")
    }

    @Test @Loop func `each client has its own, and other paths are free`() async throws {
        let rig = try WorkerRig { $0.rateLimit = 1 }
        await rig.fill(Said.chat, with: Said.lines)
        for number in 0..<5 as Range<UInt32> {
            let peer = PeerAddress.ipv4(0x0a00_0000 + number)
            #expect(await rig.ask(Said.chat, peer: peer).status == 200)
            #expect(await rig.ask(Said.chat, peer: peer).status == 429)
            for path in ["/gateway/status", "/health", "/"] {
                let response = try #require(rig.gateway.answer(request("GET", path, peer: peer)))
                #expect(response.status == 200)
                #expect(response.headers["ratelimit-limit"] == nil)
            }
            #expect(rig.gateway.answer(request("GET", "/api/chat", peer: peer)) == nil)
        }
    }

    @Test @Loop func `without a limit nothing is said of one`() async throws {
        let rig = try WorkerRig()
        let asked = await rig.fill(Said.chat, with: Said.lines)
        #expect(told(asked) == [nil, nil, nil, nil, nil, nil])
    }
}
