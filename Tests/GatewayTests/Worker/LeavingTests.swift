import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Clients that do not wait for the end, and a gateway that ends.
@Suite(.timeLimit(.minutes(1))) struct LeavingTests {
    init() { LoopThread.start() }

    @Loop private func leave(_ asked: Asked) async {
        asked.leave()
        await asked.end()
        await quiet()
    }

    @Test @Loop func `whoever asked first may leave, the others go on`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        let second = await rig.ask(Said.chat)
        await leave(first)
        #expect(!rig.calls[0].isCancelled)
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        let third = await rig.ask(Said.chatWhole)
        await leave(second)
        #expect(second.client.events == ["stream 200", "write " + Said.line("Hel"), "abort"])
        #expect(!rig.calls[0].isCancelled)
        rig.calls[0].body.push(Said.line("lo") + Said.last())
        rig.calls[0].body.stream.finish()
        await third.end()
        #expect(try Reading.text(third.body) == "Hello")
        #expect(await rig.ask(Said.chat).cache == "HIT")
        #expect(first.client.events == [])
        #expect(first.client.isReleased)
        #expect(rig.rig.log.records.map(\.status) == [499, 499, 200, 200])
    }

    @Test(arguments: [1, 3])
    @Loop func `when the last one leaves the call is cancelled`(clients: Int) async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.ask("", "before"), with: Said.lines)
        for began in [false, true] {
            var all: [Asked] = []
            for _ in 0..<clients { all.append(await rig.ask(Said.chat)) }
            let call = try #require(rig.calls.all.last)
            if began {
                call.answer(200, Said.line("Hel"))
                await quiet()
            }
            for asked in all {
                #expect(!call.isCancelled)
                await leave(asked)
            }
            #expect(call.isCancelled)
        }
        // Nobody finds what was cancelled.
        let count = rig.calls.count
        let next = await rig.ask(Said.chat)
        #expect(rig.calls.count == count + 1)
        await leave(next)
        #expect(rig.metric("ollama_cache_size") == "1")
    }

    @Test(arguments: [(Said.lines, "1"), (Said.line("Hel") + Said.line("lo"), "0")])
    @Loop func `who leaves with the last word leaves the answer to the others`(said: String, kept: String) async throws
    {
        let rig = try WorkerRig()
        let asked = await rig.ask(Said.chat)
        // The end of the body is still to come.
        rig.calls[0].answer(200, said)
        await quiet()
        await leave(asked)
        #expect(rig.calls[0].isCancelled)
        #expect(rig.metric("ollama_cache_size") == kept)
    }

    // MARK: Loading

    @Test @Loop func `a call that may be loading what others wait for goes on until it has`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        let other = await rig.ask(Said.ask("", "other"))
        await leave(first)
        #expect(!rig.calls[0].isCancelled)
        // The box has loaded: it answers, and there nobody wants it.
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        #expect(rig.calls[0].isCancelled)
        #expect(!rig.calls[1].isCancelled)
        await leave(other)
        #expect(rig.calls[1].isCancelled)
    }

    @Test @Loop func `it can be joined again meanwhile`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        let other = await rig.ask(Said.ask("", "other"))
        await leave(first)
        let again = await rig.ask(Said.chat)
        #expect(rig.calls.count == 2)
        #expect(again.task != nil)
        rig.calls[0].answer(200, Said.lines)
        rig.calls[0].body.stream.finish()
        await again.end()
        #expect(again.body == Said.lines)
        await leave(other)
    }

    @Test @Loop func `it ends when the others have left, or have their answer from another box`() async throws {
        for answers in [false, true] {
            let rig = try WorkerRig(backends: ["http://a", "http://b"])
            let first = await rig.ask(Said.chat)
            let other = await rig.ask(Said.ask("", "other"))
            #expect(rig.calls.boxes == "ab")
            await leave(first)
            #expect(!rig.calls[0].isCancelled)
            if answers { rig.calls[1].answer(200, Said.line("Hel")) } else { other.leave() }
            await quiet()
            #expect(rig.calls[0].isCancelled)
            await leave(other)
        }
    }

    @Test @Loop func `it ends then even if somebody has looked for it meanwhile who would not wait`() async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"])
        let first = await rig.ask(Said.chat)
        let other = await rig.ask(Said.ask("", "other"))
        await leave(first)
        #expect(await rig.ask(Said.chat, headers: ["Cache-Control": "only-if-cached"]).status == 504)
        await leave(other)
        #expect(rig.calls[0].isCancelled && rig.calls[1].isCancelled)
    }

    @Test @Loop func `it ends when what the others wait for fails`() async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"])
        let first = await rig.ask(Said.chat)
        let other = await rig.ask(Said.ask("", "other"))
        await leave(first)
        rig.calls[1].fail(HitDirectiveTests.unreachable)
        await quiet()
        // The other box is to answer it, which is the one that is loading.
        #expect(rig.calls.boxes == "aba")
        #expect(!rig.calls[0].isCancelled)
        rig.calls[2].fail(HitDirectiveTests.unreachable)
        await other.end()
        await quiet()
        #expect(rig.calls[0].isCancelled)
    }

    @Test(arguments: [("n", 0.0, true), ("m", 0.0, false), ("m", 299.0, false)])
    @Loop func `a model that was heard of lately is loaded`(model: String, seconds: Double, mayLoad: Bool) async throws
    {
        let rig = try WorkerRig()
        await rig.fill(Said.ask("", "before"), with: Said.lines)
        rig.pass(seconds: seconds)
        let first = await rig.ask(Said.ask(model: model))
        let other = await rig.ask(Said.ask(model: model, "other"))
        await leave(first)
        #expect(rig.calls[1].isCancelled == !mayLoad)
        await leave(other)
    }

    @Test @Loop func `those who wait for another model do not count`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        let other = await rig.ask(Said.ask(model: "n"))
        await leave(first)
        #expect(rig.calls[0].isCancelled)
        await leave(other)
    }

    @Test(arguments: [("/v1/messages", 30), ("/v1/responses", 30), ("/api/chat", 0)])
    @Loop func `models are told apart where nothing is kept, too`(target: String, ttl: Int) async throws {
        let rig = try WorkerRig { $0.cache.ttl = .seconds(ttl) }
        let first = await rig.ask(Said.ask(model: "a"), at: target)
        let second = await rig.ask(Said.ask(model: "b"), at: target)
        let third = await rig.ask(Said.ask(model: "B:latest"), at: target)
        await leave(first)
        #expect(rig.calls[0].isCancelled)
        await leave(second)
        #expect(!rig.calls[1].isCancelled)
        await leave(third)
        #expect(rig.calls[1].isCancelled && rig.calls[2].isCancelled)
    }

    @Test @Loop func `an error says nothing of a model being loaded`() async throws {
        let rig = try WorkerRig()
        let failed = await rig.ask(Said.chat)
        rig.calls[0].answerWhole(#"{"error":"loading failed"}"#, 500)
        await failed.end()
        let first = await rig.ask(Said.chat)
        let other = await rig.ask(Said.ask("", "other"))
        await leave(first)
        #expect(!rig.calls[1].isCancelled)
        await leave(other)
        #expect(rig.calls[1].isCancelled)
    }

    // MARK: The end

    @Test @Loop func `when the gateway ends, who waits is told, and who reads sees no proper end`() async throws {
        let rig = try WorkerRig { $0.queue.concurrency = 2 }
        let reading = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        rig.calls[0].answer(200, Said.line("Hel"))
        let waiting = await rig.ask(Said.ask("", "waiting"))
        let queued = await rig.ask(Said.ask(), at: "/v1/chat/completions")
        #expect(rig.calls.count == 2)
        rig.gateway.isEnding = true
        for asked in [reading, whole, waiting, queued] { asked.task?.cancel() }
        for asked in [reading, whole, waiting, queued] { await asked.end() }
        await quiet()
        #expect(reading.body == Said.line("Hel") + #"{"error":"the gateway is shutting down"}"# + "\n")
        #expect(reading.client.events.last == "abort")
        #expect(whole.client.events == ["send 503"])
        #expect(waiting.client.events == ["send 503"])
        #expect(queued.client.events == ["send 503"])
        #expect(try decode(OpenAIError.self, queued.body).error.message == "the gateway is shutting down")
        #expect(rig.calls.count == 2)
        #expect(rig.calls[0].isCancelled && rig.calls[1].isCancelled)
        #expect(rig.rig.log.records.map(\.status) == [200, 503, 503, 503])
    }

    @Test @Loop func `who lags behind when the gateway ends reads the error on a line of its own`() async throws {
        let rig = try WorkerRig()
        let fast = await rig.ask(Said.chat)
        let slow = await rig.ask(Said.chat, flow: .pause)
        let cut = Said.line("Hel").index(Said.line("Hel").startIndex, offsetBy: 9)
        rig.calls[0].answer(200, String(Said.line("Hel")[..<cut]))
        await quiet()
        rig.calls[0].body.push(String(Said.line("Hel")[cut...]))
        rig.gateway.isEnding = true
        for asked in [slow, fast] { asked.task?.cancel() }
        for asked in [slow, fast] { await asked.end() }
        #expect(fast.body == Said.line("Hel") + #"{"error":"the gateway is shutting down"}"# + "\n")
        #expect(slow.body == Said.line("Hel")[..<cut] + "\n" + #"{"error":"the gateway is shutting down"}"# + "\n")
        #expect(slow.client.events.last == "abort")
    }

    @Test @Loop func `a client that has left is not asked for at a box`() async throws {
        let rig = try WorkerRig()
        let stream = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        // It would have to be asked for again, and in the same moment its client leaves.
        rig.calls[0].body.stream.finish()
        whole.leave()
        await stream.end()
        await whole.end()
        await quiet()
        #expect(rig.calls.count == 1)

        // It left while its question was being read.
        let (gateway, client) = (rig.gateway, Client())
        let late = request("POST", "/api/chat", body: .bytes(Bytes(Said.ask("", "late"))))
        #expect(gateway.answer(late) == nil)
        await Loop.task {
            withUnsafeCurrentTask { $0?.cancel() }
            await gateway.handle(late, Reply(port: client))
        }.value
        await quiet()
        #expect(client.events == [])
        #expect(client.isReleased)
        #expect(rig.calls.count == 1)
        #expect(rig.metric("ollama_cache_misses_total") == "1")
        #expect(rig.rig.log.records.prefix(3).map(\.status) == [499, 200, 499])
    }
}
