import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What is counted of what happens: each thing once, and nothing else.
@Suite(.timeLimit(.minutes(2))) struct CountingTests {
    init() { LoopThread.start() }

    /// What each inference request is counted as, but for those that the rate limit turns away.
    private func one(_ cache: String, _ result: String, _ code: Int = 200, model: String = "m:latest") -> [String: Int]
    {
        [
            "all_requests_total": 1, "all_request_latency_seconds_count": 1,
            "request_duration_seconds_count \(cache) /api/chat": 1, "requests_total \(cache) \(code) /api/chat": 1,
            "model_requests_total \(model) \(result)": 1,
        ]
    }

    /// A call to a backend that has begun.
    private static let call = ["all_cache_misses_total": 1, "queue_wait_seconds_count": 1, "backend_picks_total a": 1]
    private static let answered = ["time_to_first_byte_seconds_count m:latest": 1]
    private static let tokens = 2

    private func sum(_ all: [String: Int]...) -> [String: Int] {
        all.reduce(into: [:]) { $0.merge($1, uniquingKeysWith: +) }
    }

    @Loop private func finish(_ call: BoxCall) {
        call.answer(200, Said.lines)
        call.body.stream.finish()
    }

    // MARK: Misses, hits, joins

    @Test @Loop func `a miss, hits of both kinds, and what is not cached`() async throws {
        let rig = try WorkerRig()
        var before = try rig.counts()
        await rig.fill(Said.chat, with: Said.lines)
        let written = ["completion_tokens_total m:latest": Self.tokens]
        let miss = sum(one("miss", "answered"), Self.call, Self.answered, written)
        let loads = ["backend_loads_total a": 1], stores = ["cache_stores_total": 1]
        try rig.expect(sum(miss, loads, stores), since: before)

        before = try rig.counts()
        _ = await rig.ask(Said.chat)
        let hit = sum(one("hit", "hit"), ["all_cache_hits_total": 1, "saved_tokens_total m:latest": Self.tokens])
        try rig.expect(hit, since: before)
        for headers in [["X-Request-Id": "a"], ["Cache-Control": "max-age=9"]] as [Headers] {
            before = try rig.counts()
            _ = await rig.ask(Said.chat, headers: headers)
            try rig.expect(hit, since: before)
        }
        before = try rig.counts()
        _ = await rig.ask(Said.chatWhole)
        try rig.expect(hit, since: before)

        // The model is loaded now.
        before = try rig.counts()
        await rig.fill(Said.chat, headers: ["Cache-Control": "no-store"], with: Said.lines)
        try rig.expect(sum(one("bypass", "answered"), Self.call, Self.answered, written), since: before)
        before = try rig.counts()
        await rig.fill(Said.chat, headers: ["Cache-Control": "no-cache"], with: Said.lines)
        try rig.expect(sum(miss, stores, ["cache_evictions_total replaced": 1]), since: before)
    }

    @Test(arguments: ["", #","stream":false"#])
    @Loop func `those who join are counted each, and the call once`(more: String) async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        let before = try rig.counts()
        let first = await rig.ask(Said.ask("", "x"))
        let others = [await rig.ask(Said.ask(more, "x")), await rig.ask(Said.ask(more, "x"))]
        finish(rig.calls[1])
        for asked in [first] + others { await asked.end() }
        let joined = sum(
            one("coalesced", "coalesced"), Self.answered,
            ["all_cache_hits_total": 1, "single_flight_joins_total": 1, "saved_tokens_total m:latest": Self.tokens])
        let written = ["completion_tokens_total m:latest": Self.tokens, "cache_stores_total": 1]
        try rig.expect(sum(one("miss", "answered"), Self.call, Self.answered, written, joined, joined), since: before)
    }

    @Test @Loop func `a request joins once, however often it is handed on`() async throws {
        let rig = try WorkerRig { $0.cache.maxEntryBytes = 600 }
        let all = [
            await rig.ask(Said.chat), await rig.ask(Said.chatWhole), await rig.ask(Said.chatWhole),
            await rig.ask(Said.chatWhole),
        ]
        // It grows too large to be kept: those who want it whole ask for themselves.
        var call = 0
        while call < rig.calls.count, call < 20 {
            rig.calls[call].answer(200, String(repeating: Said.line("Hello"), count: 10))
            await quiet()
            rig.calls[call].body.push(Said.last())
            rig.calls[call].body.stream.finish()
            await quiet()
            call += 1
        }
        for asked in all { await asked.end() }
        #expect(rig.metric("ollama_gateway_single_flight_joins_total") == "3")
        #expect(rig.metric("ollama_requests_total") == "4")
        #expect(rig.metric("ollama_request_latency_seconds_count") == "4")
    }

    @Test @Loop func `an old answer that serves is stale, and the call has failed`() async throws {
        let rig = try WorkerRig { $0.cache.staleIfError = .seconds(60) }
        await rig.fill(Said.chat, with: Said.lines)
        rig.pass(seconds: 40)
        let before = try rig.counts()
        let asked = await rig.ask(Said.chat)
        rig.calls[1].fail(HitDirectiveTests.unreachable)
        await asked.end()
        #expect(asked.cache == "HIT")
        try rig.expect(
            sum(
                one("stale", "hit"), Self.call, ["all_cache_hits_total": 1, "backend_failures_total a connect": 1],
                ["saved_tokens_total m:latest": Self.tokens, "backend_state_changes_total a unhealthy": 1]),
            since: before)
    }

    // MARK: Other requests

    @Test @Loop func `what asks no model is counted by route, and as nothing else`() async throws {
        let rig = try WorkerRig()
        let before = try rig.counts()
        for (method, path) in [("GET", "/health"), ("HEAD", "/ready"), ("GET", "/gateway/x"), ("GET", "/")] {
            _ = rig.gateway.answer(request(method, path))
        }
        await Asked(request("GET", "/api/tags"), rig.gateway).end()
        for (method, path) in [("GET", "/api/chat"), ("PUT", "/v1/messages"), ("POST", "/x"), ("GET", "/x?y")] {
            let asked = Asked(request(method, path), rig.gateway)
            await quiet()
            rig.calls.all.last?.answerWhole("{}", 405)
            await asked.end()
        }
        try rig.expect(
            [
                "requests_total none 200 /health": 1, "requests_total none 200 /ready": 1,
                "requests_total none 404 /gateway": 1, "requests_total none 200 /": 1,
                "requests_total none 200 /api/tags": 1, "requests_total none 405 /api/chat": 1,
                "requests_total none 405 /v1/messages": 1, "requests_total none 405 other": 2,
                "backend_picks_total a": 4,
            ], since: before)
    }

    // MARK: Clients that leave

    @Test @Loop func `who leaves is counted by how far it had come`() async throws {
        let rig = try WorkerRig { $0.queue.concurrency = 1 }
        await rig.fill(Said.chat, with: Said.lines)
        let before = try rig.counts()
        let began = await rig.ask(Said.ask("", "x"))
        let queued = await rig.ask(Said.ask("", "y"))
        rig.calls[1].answer(200, Said.line("Hel"))
        await quiet()
        let wantsAll = await rig.ask(Said.ask(#","stream":false"#, "x"))
        for asked in [queued, wantsAll, began] {
            asked.leave()
            await asked.end()
        }
        let waits = await rig.ask(Said.ask("", "z"))
        waits.leave()
        await waits.end()
        let listing = Asked(request("GET", "/api/me"), rig.gateway)
        await quiet()
        listing.leave()
        await listing.end()
        let left = one("miss", "cancelled", 499)
        try rig.expect(
            sum(
                left, left, left, one("coalesced", "cancelled", 499), Self.call, Self.call, Self.answered,
                Self.answered, ["backend_picks_total a": 1, "requests_total none 499 other": 1],
                ["cancelled_total waiting": 4, "cancelled_total answering": 1, "single_flight_joins_total": 1]),
            since: before)
    }

    @Test @Loop func `a backend's own 499 is nobody who left`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        let before = try rig.counts()
        await rig.fill(Said.ask("", "x"), with: Said.lines)
        let asked = await rig.ask(Said.ask("", "y"))
        rig.calls[2].answerWhole(#"{"error":"request canceled"}"#, 499)
        await asked.end()
        let changes = try rig.counts(since: before)
        #expect(changes["cancelled_total waiting"] == nil && changes["cancelled_total answering"] == nil)
        #expect(changes["model_requests_total m:latest refused"] == 1)
    }

    // MARK: Turned off

    @Test @Loop func `with nothing to be counted nothing is that costs anything, and nothing is shown`() async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"]) { $0.metrics = false }
        await rig.fill(Said.chat, with: Said.lines)
        _ = await rig.ask(Said.chat)
        let all = [await rig.ask(Said.ask("", "x")), await rig.ask(Said.ask("", "x"))]
        rig.calls[1].fail(HitDirectiveTests.unreachable)
        await quiet()
        finish(rig.calls[2])
        for asked in all { await asked.end() }
        _ = await rig.ask(Said.ask(model: "nope"))
        let costly = ["requests_total", "model_requests_total", "request_duration", "refused", "cancelled", "tokens"]
        let counted = try rig.counts().filter { count in
            count.value > 0 && costly.contains { count.key.hasPrefix($0) }
        }
        #expect(counted == [:])
        for path in ["/metrics", "/gateway/", "/gateway/events"] {
            #expect(rig.gateway.answer(request("GET", path))?.status == 404)
        }
    }
}

extension WorkerRig {
    /// All counts as they are, by what they are called; those of time pass by themselves.
    func counts() throws -> [String: Int] {
        let scraped = try Scraped(gateway.exposition(.text).text)
        var counts: [String: Int] = [:]
        for sample in scraped.samples where sample.name.hasSuffix("_total") || sample.name.hasSuffix("_count") {
            let name = sample.name.replacing("ollama_gateway_", with: "").replacing("ollama_", with: "all_")
            let values = sample.labels.filter { $0.key != "key" }.sorted { $0.key < $1.key }.map(\.value)
            // Each answer of a backend counts; MeasuringTests look at that.
            let isByTheWay = name.hasPrefix("event_loop") || name.hasPrefix("backend_first_byte")
            if !isByTheWay { counts[([name] + values).joined(separator: " ")] = Int(sample.value) }
        }
        return counts
    }

    /// What has been counted since.
    func counts(since before: [String: Int]) throws -> [String: Int] {
        try counts().merging(before) { $0 - $1 }.filter { $0.value != 0 }
    }

    /// That this has been counted since, and nothing else.
    func expect(
        _ changes: [String: Int], since before: [String: Int], sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let counted = try counts(since: before)
        #expect(counted == changes, sourceLocation: sourceLocation)
    }
}
