import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Why requests were refused, calls failed and answers went.
@Suite(.timeLimit(.minutes(2))) struct CountedReasonsTests {
    init() { LoopThread.start() }

    @Loop private func finish(_ call: BoxCall) {
        call.answer(200, Said.lines)
        call.body.stream.finish()
    }

    // MARK: Refusals

    @Loop private func refuse(_ reason: Refusal, _ rig: WorkerRig) async throws {
        let gateway = rig.gateway
        let chat = request("POST", "/api/chat", body: .bytes(Bytes(Said.chat)))
        switch reason {
        case .rateLimit: for _ in 0..<3 { _ = await rig.ask(Said.chat) }
        case .queueFull: for text in ["x", "y", "z"] { _ = await rig.ask(Said.ask("", text)) }
        case .queueTimeout:
            _ = await rig.ask(Said.ask("", "x"))
            await (await rig.ask(Said.ask("", "y"))).end()
        case .noBackend:
            rig.rig.box.probes = [:]
            let epoch = gateway.fleet.queue.balancer.backends[0].breaker.epoch
            gateway.fleet.probed(0, since: epoch, "gone")
            await (await rig.ask(Said.chat)).end()
        case .unknownModel: await (await rig.ask(Said.ask(model: "nope"))).end()
        case .tooLarge: _ = gateway.refusal(of: chat, for: .bodyTooLarge(limit: 1))
        case .malformed:
            _ = gateway.refusal(of: chat, for: .unsupportedTransferCoding("x"))
            _ = gateway.refusal(of: nil, for: .malformed("no colon"))
        case .tooSlow: _ = gateway.refusal(of: chat, for: .tooSlow)
        case .notCached: await (await rig.ask(Said.chat, headers: ["Cache-Control": "only-if-cached"])).end()
        case .forbidden: await Asked(request("POST", "/api/pull", body: .bytes(Bytes("{}"))), gateway).end()
        case .stopping:
            let asked = await rig.ask(Said.chat)
            gateway.isEnding = true
            asked.task?.cancel()
            await asked.end()
        }
    }

    @Test(arguments: Refusal.allCases)
    @Loop func `each refusal is counted once, with its reason`(reason: Refusal) async throws {
        let rig = try WorkerRig {
            if reason == .rateLimit { $0.rateLimit = 2 }
            $0.fleet.manage = .off
            $0.queue.concurrency = reason == .queueFull || reason == .queueTimeout ? 1 : 4
            $0.queue.limit = 1
            if reason == .queueTimeout { $0.queue.timeout = .milliseconds(1) }
        }
        let before = try rig.counts()
        try await refuse(reason, rig)
        let changes = try rig.counts(since: before)
        let expected = reason == .malformed ? 2 : 1
        #expect(changes["refused_total \(reason.rawValue)"] == expected)
        #expect(changes.filter { $0.key.hasPrefix("refused_total") }.count == 1)
        let isAboutModels = reason != .forbidden
        let refused = changes.filter { $0.key.hasPrefix("model_requests_total") && !$0.key.hasSuffix("answered") }
        #expect(refused.values.reduce(0, +) == (isAboutModels ? 1 : 0), "\(refused)")
        let answered = changes.filter { $0.key.hasPrefix("requests_total") }
        let timed = changes["all_request_latency_seconds_count", default: 0]
        // What is refused beforehand says nothing of how long requests take.
        let others = reason == .malformed ? 2 : reason.isBeforehand || !isAboutModels ? 1 : 0
        #expect(answered.values.reduce(0, +) == timed + others, "\(changes)")
        #expect(changes["cancelled_total waiting"] == nil)
        for call in rig.calls.all { finish(call) }
        await quiet()
    }

    @Test @Loop func `all who wait for the same are refused, each`() async throws {
        let rig = try WorkerRig {
            $0.queue.concurrency = 1
            $0.queue.timeout = .milliseconds(1)
        }
        _ = await rig.ask(Said.ask("", "x"))
        let all = [await rig.ask(Said.ask("", "y")), await rig.ask(Said.ask("", "y"))]
        for asked in all { await asked.end() }
        let counts = try rig.counts()
        #expect(counts["refused_total queue_timeout"] == 2)
        #expect(counts["backend_picks_total a"] == 1)
        #expect(counts["queue_wait_seconds_count"] == 1)
        finish(rig.calls[0])
        await quiet()
    }

    // MARK: Failures of backends

    private static let kinds: [(TransportError.Kind, Fault.Kind?)] = [
        (.resolve, .resolve), (.connect, .connect), (.connectTimeout, .timeout), (.tls, .tls), (.connectionLost, .lost),
        (.firstByteTimeout, .timeout), (.idleTimeout, .timeout), (.badAnswer, .invalid), (.local, nil),
    ]

    private func failures(_ counts: [String: Int]) -> [String: Int] {
        counts.filter { $0.key.hasPrefix("backend_") && $0.value > 0 && !$0.key.hasPrefix("backend_state") }
    }

    @Test(arguments: kinds) @Loop func `a call that fails is picked, and failed, once`(
        kind: TransportError.Kind, reason: Fault.Kind?
    ) async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"])
        let asked = await rig.ask(Said.chat)
        rig.calls[0].fail(TransportError(kind: kind, answerBegan: false, isRetrySafe: false, message: ""))
        await quiet()
        let isRetried = rig.calls.count == 2
        if isRetried { finish(rig.calls[1]) }
        await asked.end()
        #expect(isRetried == (kind != .local))
        var expected = ["backend_picks_total a": 1]
        if let reason { expected["backend_failures_total a \(reason.rawValue)"] = 1 }
        if isRetried {
            expected.merge(
                ["backend_picks_total b", "backend_retries_total b", "backend_loads_total b"].map { ($0, 1) }
            ) {
                $1
            }
        }
        let counts = try rig.counts()
        #expect(failures(counts) == expected)
        #expect(counts["all_cache_misses_total"] == 1)
        #expect(counts["queue_wait_seconds_count"] == (isRetried ? 2 : 1))
        #expect(counts["model_requests_total m:latest \(isRetried ? "answered" : "failed")"] == 1)
    }

    @Test(arguments: [
        (429, "busy"), (503, "busy"), (502, "status"), (504, "status"), (507, "status"), (500, nil), (501, nil),
    ])
    @Loop func `a status that says so is a failure`(status: Int, reason: String?) async throws {
        let rig = try WorkerRig()
        let asked = await rig.ask(Said.chat)
        rig.calls[0].answerWhole("{}", status)
        await asked.end()
        var expected = ["backend_picks_total a": 1]
        if let reason { expected["backend_failures_total a \(reason)"] = 1 }
        #expect(failures(try rig.counts()) == expected)
    }

    @Test @Loop func `an answer that breaks off is a failure, of calls of all kinds`() async throws {
        let lost = TransportError(kind: .connectionLost, answerBegan: true, isRetrySafe: false, message: "")
        let rig = try WorkerRig()
        let chat = await rig.ask(Said.chat)
        let other = Asked(request("GET", "/api/me"), rig.gateway)
        await quiet()
        for call in rig.calls.all {
            call.answer(200, Said.line("Hel"))
            await quiet()
            call.body.stream.finish(lost)
        }
        for asked in [chat, other] { await asked.end() }
        let counts = try rig.counts()
        #expect(
            failures(counts) == [
                "backend_picks_total a": 2, "backend_failures_total a lost": 2, "backend_loads_total a": 1,
            ])
        #expect(counts["model_requests_total m:latest failed"] == 1)
        #expect(counts["time_to_first_byte_seconds_count m:latest"] == 1)
    }

    @Test @Loop func `probes that fail, and states`() async throws {
        let rig = try WorkerRig()
        let before = try rig.counts()
        func probed(_ failure: String?) {
            rig.gateway.fleet.probed(0, since: rig.gateway.fleet.queue.balancer.backends[0].breaker.epoch, failure)
        }
        for failure in ["gone", "gone", nil] { probed(failure) }
        rig.gateway.fleet.drain(0, true)
        rig.gateway.fleet.drain(0, true)
        rig.gateway.fleet.drain(0, false)
        let state = rig.gateway.fleet.queue.balancer.backends[0].breaker.state.rawValue
        let name = "backend_state_changes_total a "
        var expected = ["backend_failures_total a probe": 2, name + "unhealthy": 1, name + "drained": 1]
        // Well again after the probe, and back in use.
        expected[name + state, default: 0] += 2
        try rig.expect(expected, since: before)
    }

    @Test @Loop func `what is sent to several is picked at each`() async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"])
        let before = try rig.counts()
        let body = #"{"model":"m"}"#
        let asked = Asked(request("DELETE", "/api/delete", body: .bytes(Bytes(body))), rig.gateway)
        await quiet()
        rig.calls[0].answerWhole("{}")
        rig.calls[1].fail(HitDirectiveTests.unreachable)
        await asked.end()
        let changes = failures(try rig.counts(since: before))
        #expect(
            changes == ["backend_picks_total a": 1, "backend_picks_total b": 1, "backend_failures_total b connect": 1])
    }

    @Test @Loop func `a model is loaded once for a backend`() async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"])
        func loads() throws -> [Int?] { ["a", "b"].map { try? rig.counts()["backend_loads_total \($0)"] } }
        for text in ["1", "2", "3", "4"] { await rig.fill(Said.ask("", text), with: Said.lines) }
        #expect(try loads() == [1, 1])
        for backend in 0...1 { rig.gateway.fleet.queue.balancer.loaded([], at: backend) }
        for text in ["5", "6", "7", "8"] { await rig.fill(Said.ask("", text), with: Said.lines) }
        #expect(try loads() == [2, 2])
    }

    // MARK: The cache

    @Test @Loop func `answers go for four reasons`() async throws {
        let rig = try WorkerRig { $0.cache.maxBytes = 3 << 20 }
        func evictions() throws -> [Int?] {
            let counts = try rig.counts()
            return ["size", "expired", "purged", "replaced"].map { counts["cache_evictions_total \($0)"] }
        }
        let large = Said.line(String(repeating: "x", count: 1 << 20)) + Said.last()
        for text in ["1", "2", "3"] { await rig.fill(Said.ask("", text), with: large) }
        let stored = try rig.counts()["cache_stores_total"]
        let entries = rig.metric("ollama_cache_size").flatMap { Int($0) } ?? 0
        #expect(stored == 3)
        #expect(try evictions() == [3 - entries, 0, 0, 0])
        #expect(entries < 3 && entries > 0)
        await rig.fill(Said.ask("", "3"), headers: ["Cache-Control": "no-cache"], with: Said.lines)
        #expect(try evictions().last == 1)
        let here = PeerAddress.ipv4(0x7f00_0001)
        #expect(rig.gateway.answer(request("DELETE", "/gateway/cache", peer: here))?.status == 200)
        #expect(try evictions()[2] == entries)
        await rig.fill(Said.chat, with: Said.lines)
        rig.pass(seconds: 31)
        await rig.fill(Said.chat, with: Said.lines)
        #expect(try evictions()[1] == 1)
        #expect(try evictions() == [3 - entries, 1, entries, 1])
        #expect(rig.metric("ollama_gateway_cache_entries") == "1")
    }
}
