import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Those who watch, and the numbers they are shown.
@Suite(.timeLimit(.minutes(2))) struct WatcherTests {
    init() { LoopThread.start() }

    @Loop private func watch(_ rig: WorkerRig, from peer: UInt32 = 0xc000_0201) async -> Asked {
        let asked = Asked(request("GET", "/gateway/events", peer: .ipv4(peer)), rig.gateway)
        await quiet()
        return asked
    }

    @Test @Loop func `thirty-two may watch, and another one who leaves makes room`() async throws {
        let rig = try WorkerRig()
        var all: [Asked] = []
        for peer in 0..<32 as Range<UInt32> { all.append(await watch(rig, from: peer / 8)) }
        #expect(all.allSatisfy { $0.status == 200 })
        let refused = await watch(rig)
        await refused.end()
        #expect(refused.status == 503)
        #expect(refused.client.headers["retry-after"] != nil)
        all[7].leave()
        await all[7].end()
        let next = await watch(rig)
        #expect(next.status == 200)
        rig.gateway.drain()
        for asked in all + [next] { await asked.end() }
        #expect(next.client.text.hasSuffix("event: bye\ndata: {}\n\n"))
        #expect(next.client.events.last == "finish")
        #expect(next.client.isReleased)
        #expect(!all[7].client.text.contains("bye"))
        let late = await watch(rig)
        await late.end()
        #expect(late.status == 503)
    }

    @Test @Loop func `one address has no more than eight of them`() async throws {
        let rig = try WorkerRig()
        var all: [Asked] = []
        for _ in 0..<8 { all.append(await watch(rig)) }
        let refused = await watch(rig)
        await refused.end()
        #expect(refused.status == 503)
        let other = await watch(rig, from: 1)
        #expect(other.status == 200)
        rig.gateway.drain()
        for asked in all + [other] { await asked.end() }
    }

    @Test @Loop func `who cannot keep up misses what happens, and goes on from there`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        let watches = await watch(rig), slow = await watch(rig)
        slow.client.flow = .pause
        _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "1"])
        #expect(await eventually { slow.client.text.contains(#""id":"1""#) })
        _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "2"])
        #expect(await eventually { watches.client.text.contains(#""id":"2""#) })
        #expect(!slow.client.text.contains(#""id":"2""#))
        slow.client.flow = .more
        slow.client.onDrain?()
        _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "3"])
        #expect(await eventually { slow.client.text.contains(#""id":"3""#) })
        #expect(!slow.client.text.contains(#""id":"2""#))
        for asked in [watches, slow] { _ = try LiveEvent.all(asked.client.text) }
        rig.gateway.drain()
        for asked in [watches, slow] { await asked.end() }
    }

    @Test @Loop func `only those who read are served`() async throws {
        let rig = try WorkerRig()
        let head = Asked(request("HEAD", "/gateway/events"), rig.gateway)
        await head.end()
        #expect(head.status == 200)
        #expect(rig.gateway.answer(request("POST", "/gateway/events"))?.status == 405)
    }

    @Test @Loop func `five minutes are remembered`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        // Many clocks instead of one: each second brings a hundred samples.
        for _ in 0..<100 { rig.gateway.live.start() }
        #expect(await eventually { rig.samples.count == 300 })
        let start = rig.clock.now
        rig.pass(seconds: 1)
        let then = Value.number(Double((start + 1_000_000) / 1000))
        #expect(await eventually { rig.samples.last?["t"] == then })
        let all = rig.samples
        #expect(all.count == 300)
        // The first sample, which had the request, is gone.
        #expect(all.allSatisfy { $0["requests"] == .number(0) })
        rig.gateway.drain()
    }

    @Test @Loop func `a sample says what was done since the one before`() async throws {
        let rig = try WorkerRig { $0.queue.concurrency = 1 }
        await rig.fill(Said.chat, with: Said.lines)
        _ = await rig.ask(Said.chat)
        await (await rig.ask(Said.ask(model: "nope"))).end()
        let fails = await rig.ask(Said.ask("", "x"))
        rig.calls[1].answerWhole("{}", 500)
        await fails.end()
        let runs = await rig.ask(Said.ask("", "y")), waits = await rig.ask(Said.ask("", "z"))
        rig.gateway.live.start()
        #expect(await eventually { rig.samples.count == 1 })
        let sample = try #require(rig.samples.first)
        let expected = [
            "requests": 4, "hits": 1, "errors": 1, "refused": 1, "tokens": 2, "waiting": 1, "running": 1,
        ]
        for (name, value) in expected { #expect(sample[name] == .number(Double(value)), "\(name)") }
        #expect(await eventually { rig.samples.count == 2 })
        #expect(rig.samples.last?["requests"] == .number(0) && rig.samples.last?["tokens"] == .number(0))
        rig.gateway.drain()
        for asked in [runs, waits] {
            asked.leave()
            await asked.end()
        }
    }

    // MARK: Percentiles

    /// The smallest of the values that so many percent are no larger than.
    private func percentile(_ percent: Int, _ values: [Int64]) -> Value {
        let found = values.sorted().first { value in
            values.count { $0 <= value } * 100 >= percent * values.count
        }
        return found.map { .number(Double($0) / 1e6) } ?? .null
    }

    @Test func `percentiles are those of the sorted list`() throws {
        var random = SeededGenerator(seed: 6)
        for count in Array(0...25) + [99, 100, 101, 1000] {
            let durations = (0..<count).map { _ in Int64.random(in: 0...9_000_000, using: &random) }
            let firstBytes = (0..<count).map { _ in Int64.random(in: 0...20, using: &random) }
            let sample = LiveSample(
                time: 5, Metrics.Totals(requests: 3), durations: durations.sorted(), firstBytes: firstBytes.sorted(),
                waiting: 1, running: 2)
            let value = try Value(sample.json)
            for percent in [50, 95, 99] { #expect(value["p\(percent)"] == percentile(percent, durations)) }
            for percent in [50, 95] { #expect(value["first\(percent)"] == percentile(percent, firstBytes)) }
            #expect(value["t"] == .number(5) && value["requests"] == .number(3))
        }
    }

    @Test func `the latest thousand of the last minute are remembered`() {
        var random = SeededGenerator(seed: 7)
        for _ in 0..<20 {
            var latencies = RecentLatencies()
            var naive: [(time: UInt64, firstByte: Int64, duration: Int64)] = []
            var time: UInt64 = 1
            for _ in 0..<3000 {
                time += UInt64.random(in: 0...3, using: &random)
                if Int.random(in: 0..<400, using: &random) == 0 {
                    let limit = time - min(time, UInt64.random(in: 0...3000, using: &random))
                    latencies.forget(before: limit)
                    naive.removeAll { $0.time < limit }
                } else {
                    let (first, duration) = (Int64.random(in: 0...99, using: &random), Int64(time))
                    latencies.note(firstByte: first, duration: duration, at: time)
                    naive.append((time, first, duration))
                    if naive.count > 1024 { naive.removeFirst() }
                }
                guard Int.random(in: 0..<200, using: &random) == 0 else { continue }
                #expect(latencies.durations == naive.map(\.duration).sorted())
                #expect(latencies.firstBytes == naive.map(\.firstByte).sorted())
            }
        }
    }
}

extension WorkerRig {
    /// What one who came now would be told first.
    func hello() -> String {
        let asked = Asked(request("GET", "/gateway/events"), gateway)
        asked.leave()
        return asked.client.text
    }

    var samples: [Value] { (try? LiveEvent.all(hello()).first?.value["samples"].elements) ?? [] }
}
