import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What Prometheus is told.
@Suite(.timeLimit(.minutes(1))) struct MetricsTests {
    init() { LoopThread.start() }

    @Loop private func counts(_ rig: WorkerRig) -> [Int?] {
        [
            "ollama_requests_total", "ollama_cache_hits_total", "ollama_cache_misses_total", "ollama_cache_size",
            "ollama_request_latency_seconds_count",
        ].map { rig.metric($0).flatMap { Int($0) } }
    }

    @Test @Loop func `requests, hits and misses are counted once each`() async throws {
        let rig = try WorkerRig {
            $0.queue.concurrency = 1
            $0.queue.limit = 0
        }
        #expect(counts(rig) == [0, 0, 0, 0, 0])
        // A miss, a hit at once, a hit in another form, one with a directive.
        await rig.fill(Said.chat, with: Said.lines)
        #expect(counts(rig) == [1, 0, 1, 1, 1])
        _ = await rig.ask(Said.chat)
        _ = await rig.ask(Said.chatWhole)
        _ = await rig.ask(Said.chat, headers: ["Cache-Control": "max-age=9"])
        #expect(counts(rig) == [4, 3, 1, 1, 4])
        // One call, three clients, and a refusal meanwhile.
        let all = [
            await rig.ask(Said.ask("", "x")), await rig.ask(Said.ask("", "x")),
            await rig.ask(Said.ask(#","stream":false"#, "x")),
        ]
        let full = await rig.ask(Said.ask("", "full"))
        #expect(counts(rig) == [8, 3, 2, 1, 5])
        rig.calls[1].answer(200, Said.lines)
        rig.calls[1].body.stream.finish()
        for asked in all + [full] { await asked.end() }
        #expect(counts(rig) == [8, 5, 2, 2, 8])
        // A call that fails is forwarded, and nobody's hit.
        let failing = [await rig.ask(Said.ask("", "y")), await rig.ask(Said.ask("", "y"))]
        rig.calls[2].fail(HitDirectiveTests.unreachable)
        for asked in failing { await asked.end() }
        #expect(counts(rig) == [10, 5, 3, 2, 10])
        // What is not cached.
        await rig.fill(Said.chat, at: "/v1/messages", with: Said.lines)
        #expect(counts(rig) == [11, 5, 4, 2, 11])
        _ = await rig.ask(Said.ask("", "z"), headers: ["Cache-Control": "only-if-cached"])
        #expect(counts(rig) == [12, 5, 4, 2, 12])
        // Others are not counted.
        _ = rig.gateway.answer(request("GET", "/api/chat"))
        _ = rig.gateway.answer(request("GET", "/health"))
        _ = rig.gateway.answer(request("POST", "/api/show", body: .bytes(Bytes("{}"))))
        #expect(counts(rig) == [12, 5, 4, 2, 12])
    }

    @Test @Loop func `an old answer that serves is a hit, and the call that failed a miss`() async throws {
        let rig = try WorkerRig { $0.cache.staleIfError = .seconds(60) }
        await rig.fill(Said.chat, with: Said.lines)
        rig.pass(seconds: 40)
        let asked = await rig.ask(Said.chat)
        rig.calls[1].fail(HitDirectiveTests.unreachable)
        await asked.end()
        #expect(counts(rig) == [2, 1, 2, 1, 2])
    }

    @Test @Loop func `the log says of each request how the cache was used`() async throws {
        let rig = try WorkerRig(backends: ["http://box:1"])
        let first = await rig.ask(Said.chat, headers: ["X-Request-Id": "a"])
        let second = await rig.ask(Said.chat, headers: ["X-Request-Id": "b"])
        rig.pass(seconds: 2)
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        rig.pass(seconds: 1)
        rig.calls[0].body.push(Said.line("lo") + Said.last())
        rig.calls[0].body.stream.finish()
        await first.end()
        await second.end()
        _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "c"])
        await rig.fill(Said.chat, at: "/v1/messages", headers: ["X-Request-Id": "d"], with: Said.lines)
        let records = rig.rig.log.records.sorted { $0.id < $1.id }
        #expect(records.map(\.id) == ["a", "b", "c", "d"])
        #expect(records.map(\.cache) == ["MISS", "COALESCED", "HIT", "BYPASS"])
        #expect(records.map(\.status) == [200, 200, 200, 200])
        #expect(records.map(\.bytes) == [Int](repeating: Said.lines.utf8.count, count: 4))
        #expect(records.prefix(2).map(\.firstByte) == [2_000_000, 2_000_000])
        #expect(records.map(\.duration) == [3_000_000, 3_000_000, 0, 0])
    }

    @Test @Loop func `durations fall into their buckets`() throws {
        var histogram = Histogram()
        for microseconds in [0, 1000, 1001, 9999, 300_000_000, 300_000_001, -5] { histogram.observe(microseconds) }
        var out = Exposition(.text)
        out.family("seconds", .histogram, "How long.")
        out.sample("a=\"b\"", histogram)
        let lines = out.finish().text.split(separator: "\n")
        let bucket = { (label: String) in
            lines.first { $0.hasPrefix("seconds_bucket{a=\"b\",le=\"\(label)\"}") }?.split(separator: " ").last
        }
        #expect(bucket("0.001") == "3")
        #expect(bucket("0.0025") == "4")
        #expect(bucket("0.01") == "5")
        #expect(bucket("120.0") == "5")
        #expect(bucket("300.0") == "6")
        #expect(bucket("+Inf") == "7")
        #expect(lines.contains("seconds_count{a=\"b\"} 7"))
        #expect(lines.contains("seconds_sum{a=\"b\"} 600.012001"))
    }

    @Test(arguments: [Exposition.Format.text, .openMetrics])
    @Loop func `each metric has its help and its type before its samples`(format: Exposition.Format) async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        let text = rig.gateway.exposition(format).text
        #expect(text.hasSuffix("\n"))
        #expect(text.hasSuffix("# EOF\n") == (format == .openMetrics))
        var name: Substring = ""
        for line in text.split(separator: "\n") where line != "# EOF" {
            let words = line.split(separator: " ")
            if line.hasPrefix("# HELP") {
                name = words[2]
            } else if line.hasPrefix("# TYPE") {
                #expect(words[2] == name)
                #expect(["counter", "gauge", "histogram"].contains(words[3]))
                #expect((words[3] == "counter" && format == .text) == name.hasSuffix("_total"))
            } else {
                #expect(words.count == 2)
                #expect(words[0].hasPrefix(name))
                #expect(Double(words[1]) != nil)
            }
        }
    }

    @Test @Loop func `who asks in another way is told which is allowed`() throws {
        let rig = try WorkerRig()
        #expect(rig.gateway.answer(request("POST", "/metrics"))?.status == 405)
    }
}
