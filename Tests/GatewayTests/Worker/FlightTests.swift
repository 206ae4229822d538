import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Several clients, one call.
@Suite(.timeLimit(.minutes(1))) struct FlightTests {
    init() { LoopThread.start() }

    @Test @Loop func `who asks the same at the same time shares one call, in whichever form`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        let other = await rig.ask(Said.ask(#","keep_alive":"5m""#))
        #expect(rig.calls.count == 1)
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        #expect(first.body == Said.line("Hel"))
        #expect(other.body == Said.line("Hel"))
        #expect(whole.client.events == [])
        rig.calls[0].body.push(Said.line("lo") + Said.last())
        rig.calls[0].body.stream.finish()
        for asked in [first, whole, other] { await asked.end() }
        #expect(first.body == Said.lines)
        #expect(other.body == Said.lines)
        #expect(first.client.events.last == "finish")
        #expect(whole.client.events == ["send 200"])
        #expect(try Reading.text(whole.body) == "Hello")
        #expect(whole.client.headers["content-type"] == "application/json; charset=utf-8")
        #expect([first, whole, other].map(\.cache) == ["MISS", "COALESCED", "COALESCED"])
        #expect(whole.cacheStatus == "ollama-gateway; fwd=miss; collapsed")
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `a call for one object serves who wants a stream`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chatWhole)
        let stream = await rig.ask(Said.chat)
        rig.calls[0].answerWhole(Said.whole)
        await first.end()
        await stream.end()
        #expect(first.body == Said.whole)
        #expect(try Reading.text(stream.body) == "Hello")
        #expect(stream.client.headers["content-type"] == "application/x-ndjson")
        #expect(stream.cache == "COALESCED")
    }

    @Test @Loop func `another question, another path, no cache to share: each its own call`() async throws {
        let rig = try WorkerRig()
        var all = [await rig.ask(Said.chat)]
        all.append(await rig.ask(Said.ask("", "other")))
        all.append(await rig.ask(Said.ask("", model: "n")))
        all.append(await rig.ask(#"{"model":"m","prompt":"hi"}"#, at: "/api/generate"))
        #expect(rig.calls.count == 4)
        for _ in 0..<2 { all.append(await rig.ask(Said.chat, at: "/v1/messages")) }
        for _ in 0..<2 { all.append(await rig.ask(Said.chat, headers: ["Cache-Control": "no-store"])) }
        await quiet()
        // Four run at a time.
        #expect(rig.calls.count == 4)
        for asked in all { asked.leave() }
        for asked in all { await asked.end() }
        await quiet()
    }

    @Test @Loop func `the box is asked for what a cache needs`() async throws {
        let rig = try WorkerRig()
        let asked = await rig.ask(
            Said.ask(#","stream":true"#), at: "/v1/chat/completions", headers: ["Accept-Encoding": "gzip", "X-A": "1"])
        let sent = rig.calls[0].request
        #expect(sent.headers["accept-encoding"] == nil)
        #expect(sent.headers["x-a"] == "1")
        let body = try #require(sent.body.text)
        #expect(body == Said.ask(#","stream":true,"stream_options":{"include_usage":true}"#))
        let bypass = await rig.ask(
            Said.ask(#","stream":true"#), at: "/v1/chat/completions",
            headers: ["Accept-Encoding": "gzip", "Cache-Control": "no-store"])
        #expect(rig.calls[1].request.headers["accept-encoding"] == "gzip")
        #expect(rig.calls[1].request.body.text == Said.ask(#","stream":true"#))
        for asked in [asked, bypass] {
            asked.leave()
            await asked.end()
        }
    }

    @Test @Loop func `each client gets its own header fields`() async throws {
        let rig = try WorkerRig { $0.rateLimit = 9 }
        let first = await rig.ask(Said.chat, headers: ["X-Request-Id": "one"])
        let second = await rig.ask(Said.chat, headers: ["X-Request-Id": "two"])
        rig.calls[0].answer(200, Said.lines, headers: ["X-Box": "b", "X-Cache": "HIT", "X-Request-Id": "one"])
        rig.calls[0].body.stream.finish()
        await first.end()
        await second.end()
        #expect(first.client.headers["x-box"] == "b")
        // Who joins is not told what was said to the first.
        #expect(second.client.headers["x-box"] == nil)
        #expect(second.client.headers["content-type"] == "application/x-ndjson")
        #expect(first.client.headers.values("x-request-id") == ["one"])
        #expect(second.client.headers.values("x-request-id") == ["two"])
        #expect(first.client.headers.values("x-cache") == ["MISS"])
        #expect(second.client.headers.values("x-cache") == ["COALESCED"])
        #expect(first.client.headers["ratelimit-remaining"] == "8")
        #expect(second.client.headers["ratelimit-remaining"] == "7")
    }

    // MARK: Failures

    @Test @Loop func `a call that fails is told to everyone who waits`() async throws {
        let rig = try WorkerRig()
        for path in ["/api/chat", "/v1/chat/completions"] {
            var all: [Asked] = []
            for more in ["", #","stream":true"#, #","stream":false"#] {
                all.append(await rig.ask(Said.ask(more), at: path))
            }
            rig.calls.all.last?.fail(HitDirectiveTests.unreachable)
            for asked in all {
                await asked.end()
                #expect(asked.client.events == ["send 502"])
                if path == "/api/chat" {
                    #expect(try decode(NativeError.self, asked.body).error == "backend a: cannot connect")
                } else {
                    #expect(try decode(OpenAIError.self, asked.body).error.message == "backend a: cannot connect")
                }
            }
            #expect(all.map(\.cache) == ["MISS", "COALESCED", "COALESCED"])
        }
        #expect(rig.calls.count == 2)
        #expect(rig.metric("ollama_cache_hits_total") == "0")
    }

    @Test @Loop func `an error of the box is everyone's, as it is`() async throws {
        let rig = try WorkerRig()
        let all = [
            await rig.ask(Said.chat), await rig.ask(Said.chatWhole),
            await rig.ask(Said.ask(#","stream":false"#, model: "M")),
        ]
        rig.calls[0].answerWhole(#"{"error":"model 'm' not found"}"#, 404)
        for asked in all {
            await asked.end()
            #expect(asked.client.events == ["send 404"])
            #expect(asked.body == #"{"error":"model 'm' not found"}"#)
        }
        #expect(rig.calls.count == 1)
    }

    @Test(arguments: [401, 403])
    @Loop func `a client whom the box does not know does not speak for the others`(status: Int) async throws {
        let rig = try WorkerRig()
        let stranger = await rig.ask(Said.chat)
        let known = [await rig.ask(Said.chat), await rig.ask(Said.chatWhole)]
        rig.calls[0].answerWhole(#"{"error":"unauthorized"}"#, status)
        await stranger.end()
        await quiet()
        #expect(stranger.client.events == ["send \(status)"])
        #expect(rig.calls.count == 2)
        rig.calls[1].answer(200, Said.lines)
        rig.calls[1].body.stream.finish()
        for asked in known {
            await asked.end()
            #expect(try Reading.text(asked.body) == "Hello")
        }
    }

    @Test @Loop func `an error that takes its time to come holds nobody back`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        rig.calls[0].answer(500, #"{"error":"#, type: "application/json")
        await quiet()
        let second = await rig.ask(Said.chat)
        let third = await rig.ask(Said.chat)
        #expect(rig.calls.count == 2)
        rig.calls[1].answer(200, Said.lines)
        rig.calls[1].body.stream.finish()
        await second.end()
        await third.end()
        #expect(third.body == Said.lines)
        rig.calls[0].body.push(#""x"}"#)
        rig.calls[0].body.stream.finish()
        await first.end()
        #expect(first.body == #"{"error":"x"}"#)
        #expect(first.client.events.last == "finish")
    }

    @Test @Loop func `a stream that breaks off is an error to everyone, and never a proper end`() async throws {
        let rig = try WorkerRig()
        let stream = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        rig.calls[0].answer(200, Said.line("Hel") + #"{"model":"m","#)
        await quiet()
        let late = await rig.ask(Said.chat)
        rig.calls[0].body.stream.finish(
            TransportError(kind: .connectionLost, answerBegan: true, isRetrySafe: false, message: ""))
        for asked in [stream, whole, late] { await asked.end() }
        let error = #"{"error":"backend a: connection lost amid the answer"}"#
        #expect(stream.body == Said.line("Hel") + #"{"model":"m","# + "\n" + error + "\n")
        #expect(late.body == stream.body)
        #expect(stream.client.events.last == "abort")
        #expect(late.client.events.last == "abort")
        #expect(whole.client.events == ["send 502"])
        #expect(whole.body == error)
    }

    @Test @Loop func `no error is put into a body whose length was told`() async throws {
        let rig = try WorkerRig()
        let asked = await rig.ask(Said.chat)
        rig.calls[0].answer(200, Said.line("Hel"), length: 1000)
        rig.calls[0].body.stream.finish(
            TransportError(kind: .connectionLost, answerBegan: true, isRetrySafe: false, message: ""))
        await asked.end()
        #expect(asked.client.length == 1000)
        #expect(asked.body == Said.line("Hel"))
        #expect(asked.client.events.last == "abort")
    }

    @Test @Loop func `an error in the stream is the answer of who wanted no stream`() async throws {
        let rig = try WorkerRig()
        let stream = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        let text = Said.line("Hel") + #"{"error":"out of memory"}"# + "\n"
        rig.calls[0].answer(200, text)
        rig.calls[0].body.stream.finish()
        await stream.end()
        await whole.end()
        #expect(stream.body == text)
        #expect(stream.client.events.last == "finish")
        #expect(whole.client.events == ["send 500"])
        #expect(whole.body == #"{"error":"out of memory"}"#)
        #expect(whole.client.headers["content-type"] == "application/json; charset=utf-8")
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `an answer without an end is asked for again by who needs all of it`() async throws {
        let rig = try WorkerRig()
        let stream = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        rig.calls[0].answer(200, Said.line("Hel"))
        rig.calls[0].body.stream.finish()
        await stream.end()
        await quiet()
        #expect(rig.calls.count == 2)
        rig.calls[1].answerWhole(Said.whole)
        await whole.end()
        #expect(whole.body == Said.whole)
        #expect(whole.cache == "MISS")
        #expect(rig.metric("ollama_cache_size") == "1")
    }

    @Test @Loop func `who waits is never told that a client has left`() async throws {
        let rig = try WorkerRig()
        let asked = await rig.ask(Said.chat)
        rig.calls[0].fail(CancellationError())
        await asked.end()
        #expect(asked.client.events == ["send 503"])
    }

    @Test @Loop func `a box that has nothing to say is heard`() async throws {
        let rig = try WorkerRig()
        let stream = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        rig.calls[0].answer(204)
        await stream.end()
        await whole.end()
        #expect(stream.client.events == ["send 204"])
        #expect(whole.client.events == ["send 204"])
        #expect(rig.calls[0].body.cancels == 1)
    }
}
