import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// The fleet as clients see it, with boxes that the test plays.
@Suite(.timeLimit(.minutes(1))) struct FleetTests {
    init() { LoopThread.start() }

    private static let unreachable = TransportError(
        kind: .connect, answerBegan: false, isRetrySafe: true, message: "")
    private static let hung = TransportError(
        kind: .firstByteTimeout, answerBegan: false, isRetrySafe: false, message: "")

    @Loop private func fleet(
        _ count: Int = 2, _ change: (inout Gateway.Settings) -> Void = { _ in }
    ) throws -> WorkerRig {
        try WorkerRig(backends: Array(["http://a", "http://b", "http://c", "http://d"].prefix(count)), change)
    }

    @Loop private func state(_ rig: WorkerRig, _ backend: Int) -> Breaker.State {
        rig.gateway.fleet.queue.balancer.backends[backend].breaker.state
    }

    // MARK: Failover

    @Test(arguments: [429, 502, 503, 504])
    @Loop func `a box that cannot is passed over, and its client does not notice`(status: Int) async throws {
        let rig = try fleet()
        let asked = await rig.ask(Said.chat)
        rig.calls[0].answer(status, #"{"error":"busy"}"#)
        await quiet()
        #expect(rig.calls.boxes == "ab")
        #expect(rig.calls[0].isCancelled)
        rig.calls[1].answer(200, Said.lines)
        rig.calls[1].body.stream.finish()
        await asked.end()
        #expect(asked.body == Said.lines)
        #expect(asked.status == 200)
        let record = try #require(rig.rig.log.records.last)
        #expect((record.backend, record.tries) == ("b", 2))
        #expect(rig.metric(#"ollama_gateway_backend_retries_total{backend="b"}"#) == "1")
        #expect(rig.metric("ollama_cache_misses_total") == "1")
        #expect(state(rig, 0) == (status == 429 ? .healthy : .unhealthy))
    }

    @Test(arguments: [400, 404, 413, 499, 500, 501])
    @Loop func `an answer that is about the request is passed on, and says nothing of the box`(
        status: Int
    ) async throws {
        let rig = try fleet()
        let asked = await rig.ask(Said.chat)
        rig.calls[0].answer(status, #"{"error":"no"}"#)
        rig.calls[0].body.stream.finish()
        await asked.end()
        #expect((asked.status, asked.body) == (status, #"{"error":"no"}"#))
        #expect(rig.calls.count == 1)
        #expect(state(rig, 0) == .healthy)
    }

    @Test @Loop func `never the same box twice, and never more than may be`() async throws {
        let rig = try fleet(4)
        let asked = await rig.ask(Said.chat)
        for call in 0..<3 {
            rig.calls[call].fail(Self.unreachable)
            await quiet()
        }
        await asked.end()
        #expect(rig.calls.boxes == "abc")
        #expect(asked.status == 502)
        #expect(asked.body.contains("c"))
    }

    @Test @Loop func `the answer of the last that could be asked is the client's`() async throws {
        let rig = try fleet()
        let asked = await rig.ask(Said.chat)
        rig.calls[0].fail(Self.unreachable)
        await quiet()
        rig.calls[1].answer(503, "busy", headers: ["Retry-After": "7"])
        rig.calls[1].body.stream.finish()
        await asked.end()
        #expect((asked.status, asked.body) == (503, "busy"))
        #expect(asked.client.headers["retry-after"] == "7")
    }

    @Test @Loop func `an answer that has begun is not begun again`() async throws {
        let rig = try fleet()
        let asked = await rig.ask(Said.chat)
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        rig.calls[0].body.stream.finish(
            TransportError(kind: .connectionLost, answerBegan: true, isRetrySafe: false, message: ""))
        await asked.end()
        #expect(rig.calls.count == 1)
        #expect(!asked.isWhole)
        #expect(state(rig, 0) == .healthy)
    }

    @Test @Loop func `who waits for a box that is found dead moves on at once`() async throws {
        let rig = try fleet()
        let waits = await rig.ask(Said.chat)
        let reads = await rig.ask(Said.ask("", "other"))
        #expect(rig.calls.boxes == "ab")
        rig.calls[1].answer(200, Said.line("Hel"))
        await quiet()
        for backend in 0...1 {
            rig.gateway.fleet.probed(
                backend, since: rig.gateway.fleet.queue.balancer.backends[backend].breaker.epoch,
                backend == 0 ? "no answer" : nil)
        }
        await quiet()
        #expect(rig.calls[0].isCancelled)
        #expect(!rig.calls[1].isCancelled)
        #expect(rig.calls.boxes == "abb")
        rig.calls[2].answer(200, Said.lines)
        rig.calls[2].body.stream.finish()
        await waits.end()
        #expect(waits.body == Said.lines)
        reads.leave()
        await reads.end()
    }

    @Test @Loop func `it stays where it is if there is nobody else`() async throws {
        let rig = try fleet(1)
        let asked = await rig.ask(Said.chat)
        rig.gateway.fleet.probed(0, since: rig.gateway.fleet.queue.balancer.backends[0].breaker.epoch, "no answer")
        await quiet()
        #expect(!rig.calls[0].isCancelled)
        rig.calls[0].answer(200, Said.lines)
        rig.calls[0].body.stream.finish()
        await asked.end()
        #expect(asked.body == Said.lines)
    }

    // MARK: Models

    @Test @Loop func `a model that no box has is not asked for`() async throws {
        let rig = try fleet()
        let asked = await rig.ask(Said.ask(model: "nope"))
        await asked.end()
        #expect((asked.status, asked.body) == (404, #"{"error":"model 'nope' not found"}"#))
        #expect(rig.calls.count == 0)
    }

    @Test(arguments: ["nope:cloud", "gpt-oss:120b-cloud", "a/b/c/d", "-x", ""])
    @Loop func `what is no name, or runs elsewhere, any box can answer`(model: String) async throws {
        let rig = try fleet()
        let asked = await rig.ask(Said.ask(model: model))
        #expect(rig.calls.count == 1)
        asked.leave()
        await asked.end()
    }

    @Test @Loop func `of a model that runs elsewhere, no answer is the box's fault`() async throws {
        let rig = try fleet()
        let asked = await rig.ask(Said.ask(model: "nope:cloud"))
        rig.calls[0].answer(502, "x")
        rig.calls[0].body.stream.finish()
        await asked.end()
        #expect(asked.status == 502)
        #expect(rig.calls.count == 1)
        #expect(state(rig, 0) == .healthy)
    }

    @Test @Loop func `a model goes where it is, and where all are down, nowhere`() async throws {
        let rig = try fleet(3)
        rig.gateway.fleet.isWell(1, with: ["only"])
        rig.rig.box.probes = [:]
        for _ in 0..<3 {
            let asked = await rig.ask(Said.ask(model: "ONLY:latest"))
            asked.leave()
            await asked.end()
        }
        #expect(rig.calls.boxes == "bbb")
        rig.gateway.fleet.probed(1, since: rig.gateway.fleet.queue.balancer.backends[1].breaker.epoch, "gone")
        let asked = await rig.ask(Said.ask(model: "only"))
        await asked.end()
        #expect(asked.status == 503)
        #expect(asked.body.contains("b: /api/tags answers 404"))
        #expect(asked.client.headers["retry-after"] != nil)
    }

    @Test @Loop func `answers of a model that is another now are gone`() async throws {
        let rig = try fleet(1)
        await rig.fill(Said.chat, with: Said.lines)
        #expect(await rig.ask(Said.chat).cache == "HIT")
        let listing = Listing(name: "m:latest", shown: "m", digest: "another", modified: 1, json: "{}")
        rig.gateway.fleet.queue.balancer.list([listing], at: 0)
        rig.gateway.fleet.settle()
        let again = await rig.ask(Said.chat)
        #expect(rig.calls.count == 2)
        again.leave()
        await again.end()
    }

    @Test @Loop func `a model leaves the memory of every box that has it there`() async throws {
        let rig = try fleet(3)
        for backend in [0, 2] { rig.gateway.fleet.queue.balancer.loaded(["digest-of-m:latest"], at: backend) }
        let asked = await rig.ask(#"{"model":"m","messages":[],"keep_alive":0}"#)
        #expect(Set(rig.calls.all.map(\.request.origin)) == ["http://a", "http://c"])
        for call in rig.calls.all { call.answerWhole(#"{"done":true,"done_reason":"unload"}"#) }
        await asked.end()
        #expect(asked.body == #"{"done":true,"done_reason":"unload"}"#)
        #expect(asked.cache == "BYPASS")
    }

    // MARK: What asks no model

    @Test @Loop func `lists are asked of the next box, too`() async throws {
        let rig = try fleet(3)
        let asked = Asked(request("GET", "/api/me"), rig.gateway)
        await quiet()
        rig.calls[0].fail(Self.unreachable)
        await quiet()
        rig.calls[1].answer(503, "busy")
        await quiet()
        rig.calls[2].answerWhole("{}")
        await asked.end()
        #expect(rig.calls.boxes == "abc")
        #expect((asked.status, asked.body) == (200, "{}"))
    }

    @Test(arguments: [
        ("POST", "/api/pull"), ("POST", "/api/create"), ("POST", "/api/copy"), ("DELETE", "/api/delete"),
        ("POST", "/api/push"), ("POST", "/api/blobs/sha256:0"),
    ])
    @Loop func `what changes something is never done again`(method: String, path: String) async throws {
        let rig = try fleet(2) { $0.fleet.manage = .first }
        let body = #"{"model":"m","source":"m","destination":"n"}"#
        let asked = Asked(request(method, path, body: .bytes(Bytes(body))), rig.gateway)
        await quiet()
        rig.calls[0].fail(Self.hung)
        await asked.end()
        #expect(rig.calls.count == 1)
        #expect(asked.status == 504)
    }

    @Test(arguments: ["/api/tags", "/api/ps", "/v1/models", "/api/version", "/v1/models/m"])
    @Loop func `lists come from what is known, and no box is asked for them`(path: String) async throws {
        let rig = try fleet()
        let asked = Asked(request("GET", path), rig.gateway)
        await asked.end()
        #expect(asked.status == 200)
        #expect(rig.calls.count == 0)
    }

    // MARK: Probes

    @Test @Loop func `at the start requests wait for the first probe`() async throws {
        let calls = BoxCalls()
        var settings = Gateway.Settings()
        settings.rateLimit = 0
        let box = Box { try await calls.send($0) }
        box.probes["/api/tags"] = #"{"models":[{"name":"m:latest","digest":"d","modified_at":"2026-01-01T00:00:00Z"}]}"#
        box.probes["/api/version"] = #"{"version":"0.33.1"}"#
        let gateway = Gateway(
            backends: [try Backend("http://a")], transport: box, settings: settings, hash: testHash, clock: { 0 })
        let asked = Asked(request("POST", "/api/chat", body: .bytes(Bytes(Said.chat))), gateway)
        await quiet()
        #expect(calls.count == 0)
        #expect(!gateway.fleet.isReady)
        gateway.start()
        await quiet()
        #expect(gateway.fleet.isReady)
        #expect(calls.count == 1)
        #expect(gateway.fleet.version == "0.33.1")
        asked.leave()
        await asked.end()
    }

    @Test(arguments: ["", "[]", "{", #"{"models":3}"#, #"{"ok":true}"#, "<html>"])
    @Loop func `an answer that is no list of models is no sign of health`(answer: String) async throws {
        let box = Box { _ in throw CancellationError() }
        box.probes["/api/tags"] = answer
        let gateway = Gateway(backends: [try Backend("http://a")], transport: box, hash: testHash, clock: { 0 })
        gateway.start()
        await quiet()
        #expect(gateway.fleet.queue.balancer.backends[0].breaker.state == .unhealthy)
        #expect(gateway.answer(request("GET", "/ready"))?.status == 503)
    }
}
