import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What the page is told.
@Suite(.timeLimit(.minutes(2))) struct LiveTests {
    init() { LoopThread.start() }

    /// One that watches, and the events that have come to it.
    @Loop private final class Watching {
        let asked: Asked
        init(_ rig: WorkerRig) async {
            asked = Asked(request("GET", "/gateway/events"), rig.gateway)
            await quiet()
        }

        var events: [LiveEvent] { get throws { try LiveEvent.all(asked.client.text) } }
        func events(_ name: String) throws -> [LiveEvent] { try events.filter { $0.name == name } }

        /// What has been told of requests after the hello, by id.
        func told() throws -> [String] {
            try events("requests").flatMap { $0.value["requests"].elements.map { $0.text("id") } }
        }

        /// How many others there were.
        func more() throws -> Int { try events("requests").reduce(0) { $0 + ($1.value["more"].whole) } }
    }

    private static let sampleMembers = [
        "t", "requests", "hits", "errors", "refused", "tokens", "p50", "p95", "p99", "first50", "first95", "waiting",
        "running",
    ]
    private static let requestMembers = [
        "t", "id", "client", "method", "path", "model", "status", "cache", "backend", "tries", "queue", "first",
        "duration", "bytes", "tokens", "error",
    ]
    private static let backendMembers = [
        "name", "state", "since", "reason", "running", "limit", "waiting", "models", "loaded", "latency", "version",
        "weight", "tier", "picks", "failures", "retries",
    ]

    private func check(state: Value) {
        #expect(state.names == ["ready", "uptime", "queue", "cache", "connections", "totals", "backends"])
        #expect(state["queue"].names == ["waiting", "limit"])
        #expect(state["cache"].names == ["entries", "bytes", "max_bytes"])
        #expect(
            state["totals"].names == ["requests", "hits", "errors", "refused", "tokens", "saved_tokens"])
        for backend in state["backends"].elements { #expect(backend.names == Self.backendMembers) }
    }

    // MARK: Events

    @Test @Loop func `events have the members that the page reads`() async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"])
        rig.gateway.start()
        await rig.fill(Said.chat, with: Said.lines)
        rig.gateway.fleet.probed(1, since: rig.gateway.fleet.queue.balancer.backends[1].breaker.epoch, "\"gone\"\n")
        let watching = await Watching(rig)
        #expect(watching.asked.client.headers["content-type"] == "text/event-stream")
        _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "a\"b"])
        let odd = await rig.ask(Said.ask(model: #"no\"pe\u0001<b>"#))
        rig.calls[1].answerWhole(#"{"error":"invalid \"name\""}"#, 400)
        await odd.end()
        #expect(await eventually { (try? watching.events("tick").count) ?? 0 > 0 })
        rig.gateway.drain()
        await watching.asked.end()
        let events = try watching.events
        #expect(events.first?.name == "hello" && events.last?.name == "bye")
        #expect(Set(events.map(\.name)) == ["hello", "tick", "requests", "bye"])
        for event in events {
            switch event.name {
            case "hello":
                #expect(
                    event.value.names == [
                        "version", "now", "started", "balance", "interval", "samples", "requests", "state",
                    ])
                #expect(event.value["balance"] == .text("round-robin"))
                #expect(event.value["requests"].elements.count == 1)
                check(state: event.value["state"])
            case "tick":
                #expect(event.value.names == ["sample", "state"])
                #expect(event.value["sample"].names == Self.sampleMembers)
                check(state: event.value["state"])
            case "requests": #expect(event.value.names == ["requests", "more"])
            default: #expect(event.value.names == [])
            }
            for request in event.value["requests"].elements { #expect(request.names == Self.requestMembers) }
        }
        #expect(watching.asked.client.events.last == "finish")
    }

    @Test @Loop func `a request is shown as it was, and without what was asked`() async throws {
        let rig = try WorkerRig()
        let watching = await Watching(rig)
        let secret = "not-to-be-told"
        let headers: Headers = ["X-Request-Id": "r1", "Authorization": "Bearer \(secret)"]
        let asked = await rig.ask(Said.ask("", secret), at: "/api/chat?key=\(secret)", headers: headers)
        rig.pass(seconds: 2)
        rig.calls[0].answer(200, Said.line(secret))
        await quiet()
        rig.pass(seconds: 1)
        rig.calls[0].body.push(Said.last())
        rig.calls[0].body.stream.finish()
        await asked.end()
        #expect(await eventually { (try? watching.told()) == ["r1"] })
        let shown = try #require(try watching.events("requests").first?.value["requests"].elements.first)
        let now = Double(rig.clock.now / 1000)
        let bytes = Double((Said.line(secret) + Said.last()).utf8.count)
        let expected: [(String, Value)] = [
            ("t", .number(now)), ("client", .text("192.0.2.1")), ("method", .text("POST")),
            ("path", .text("/api/chat")),
            ("model", .text("m:latest")), ("status", .number(200)), ("cache", .text("MISS")), ("backend", .text("a")),
            ("tries", .number(1)), ("queue", .number(0)), ("first", .number(2)), ("duration", .number(3)),
            ("bytes", .number(bytes)), ("tokens", .number(2)), ("error", .null),
        ]
        for (name, value) in expected { #expect(shown[name] == value, "\(name)") }
        let late = await Watching(rig)
        for watching in [watching, late] { #expect(!watching.asked.client.text.contains(secret)) }
        rig.gateway.drain()
        for watching in [watching, late] { await watching.asked.end() }
    }

    @Test @Loop func `requests to the gateway itself do not appear`() async throws {
        let rig = try WorkerRig()
        for path in ["/health", "/ready", "/metrics", "/gateway", "/gateway/", "/gateway/status", "/gateway/x"] {
            await Asked(request("GET", path), rig.gateway).end()
        }
        let gone = await Watching(rig)
        gone.asked.leave()
        await gone.asked.end()
        await Asked(request("GET", "/api/tags"), rig.gateway).end()
        let watching = await Watching(rig)
        let shown = try watching.events("hello").flatMap { $0.value["requests"].elements.map { $0["path"] } }
        #expect(shown == [.text("/api/tags")])
        rig.gateway.drain()
        await watching.asked.end()
    }

    @Test @Loop func `of one second so many are shown, and the others are a number`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, headers: ["X-Request-Id": "first"], with: Said.lines)
        let watching = await Watching(rig)
        rig.rig.log.wants = .failures
        for number in 0..<60 { _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "\(number)"]) }
        rig.gateway.live.start()
        #expect(await eventually { (try? watching.more()) ?? 0 > 0 })
        #expect(try watching.told() == (0..<24).map { "\($0)" })
        #expect(try watching.more() == 36)
        #expect(await eventually { (try? watching.events("tick").count) == 1 })
        for number in 60..<70 { _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "\(number)"]) }
        #expect(await eventually { (try? watching.told().count) == 34 })
        #expect(try watching.more() == 36)
        rig.gateway.drain()
        await watching.asked.end()
    }

    @Test @Loop func `who comes is told each request once, and the newest fifty`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, headers: ["X-Request-Id": "first"], with: Said.lines)
        let early = await Watching(rig)
        for number in 0..<3 { _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "\(number)"]) }
        let late = await Watching(rig)
        _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "last"])
        #expect(await eventually { (try? late.told().contains("last")) == true })
        #expect(try early.told() == ["0", "1", "2", "last"])
        #expect(try late.told() == ["last"])
        for round in 0..<3 {
            // A second goes by, and with it the number that may be shown.
            let ticks = try early.events("tick").count
            if round == 0 { rig.gateway.live.start() }
            #expect(await eventually { (try? early.events("tick").count) ?? 0 > ticks })
            for number in 0..<25 { _ = await rig.ask(Said.chat, headers: ["X-Request-Id": "\(round)-\(number)"]) }
        }
        let latest = await Watching(rig)
        let shown = try latest.events("hello").flatMap { $0.value["requests"].elements.map { $0.text("id") } }
        #expect(shown == (1...2).flatMap { round in (0..<25).map { "\(round)-\($0)" } })
        rig.gateway.drain()
        for watching in [early, late, latest] { await watching.asked.end() }
    }
}
