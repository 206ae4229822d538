import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// When spans leave, and in which company.
@Suite(.timeLimit(.minutes(1))) struct SpanExporterTests {
    init() { LoopThread.start() }

    @Test @Loop func `nothing is sent when nothing is taken`() async {
        let rig = ExporterRig()
        #expect(rig.time.next == nil)
        rig.time.pass(.seconds(3600))
        await quiet()
        await rig.exporter.stop()
        #expect(rig.collector.requests.isEmpty)
        #expect(rig.notices.lines.isEmpty)
    }

    @Test @Loop func `a span leaves a second after it came, with those that came meanwhile`() async throws {
        let rig = ExporterRig()
        rig.take(1...1)
        #expect(rig.time.next == 1)
        rig.time.pass(.milliseconds(999))
        rig.take(2...3)
        await quiet()
        #expect(rig.collector.requests.isEmpty)
        rig.time.pass(.milliseconds(1))
        await rig.requests(1)
        #expect(try rig.collector.told == [["1", "2", "3"]])
        #expect(rig.exporter.exported == 3)
        #expect(rig.time.next == nil)
        rig.take(4...4)
        #expect(rig.time.next == 1)
        rig.time.pass(.seconds(1))
        await rig.requests(2)
        #expect(try rig.collector.told.last == ["4"])
    }

    @Test @Loop func `it is sent as OTLP over HTTP wants it`() async throws {
        let rig = ExporterRig()
        rig.take(1...1)
        rig.time.pass(.seconds(1))
        await rig.requests(1)
        let request = try #require(rig.collector.requests.first)
        #expect(request.method == "POST")
        #expect(request.origin + request.target == "http://collector:4318/v1/traces")
        #expect(
            request.headers.lines == [
                "Content-Type: application/json", "Accept: application/json", "User-Agent: ollama-gateway/1.2.3",
            ])
    }

    @Test(arguments: [
        ("http://host:4318", "http://host:4318/v1/traces"), ("http://host:4318/", "http://host:4318/v1/traces"),
        ("https://host/otlp", "https://host/otlp/v1/traces"), ("https://host/a/b//", "https://host/a/b/v1/traces"),
    ])
    @Loop func `the endpoint is a base, perhaps with a path`(endpoint: String, address: String) async {
        let rig = ExporterRig(endpoint: endpoint)
        rig.take(1...1)
        rig.time.pass(.seconds(1))
        await rig.requests(1)
        #expect(rig.collector.requests.map { $0.origin + $0.target } == [address])
    }

    @Test @Loop func `a full batch leaves in the loop's next round`() async throws {
        let rig = ExporterRig()
        rig.take(1...511)
        #expect(rig.time.next == 1)
        rig.time.pass(.milliseconds(400))
        rig.take(512...513)
        #expect(rig.time.next == 0)
        await quiet()
        #expect(rig.collector.requests.isEmpty, "not while the request is served that the span is of")
        rig.time.pass(.zero)
        await rig.requests(1)
        #expect(try rig.collector.told.map(\.count) == [512])
        #expect(rig.time.next == 1, "the one that is left waits for others")
        rig.time.pass(.seconds(1))
        await rig.requests(2)
        #expect(try rig.collector.told.last == ["513"])
        #expect(rig.exporter.exported == 513)
    }

    @Test @Loop func `one request is under way at a time, and the order is kept`() async throws {
        let gate = Gate()
        let rig = ExporterRig { number in
            if number == 1 { try await gate.wait() }
            return Body("{}").answer()
        }
        rig.take(1...512)
        rig.time.pass(.zero)
        await rig.requests(1)
        rig.take(513...1600)
        rig.time.pass(.seconds(5))
        await rig.requests(1)
        gate.open()
        await rig.requests(3)
        await rig.settles(exported: 1536, dropped: 0)
        // They have waited for long enough.
        rig.time.pass(.seconds(1))
        await rig.requests(4)
        #expect(try rig.collector.told.flatMap { $0 } == (1...1600).map { "\($0)" })
        #expect(try rig.collector.told.map(\.count) == [512, 512, 512, 64])
    }

    @Test @Loop func `what has waited behind a slow request does not wait another second`() async throws {
        let gate = Gate()
        let rig = ExporterRig { number in
            if number == 1 { try await gate.wait() }
            return Body("{}").answer()
        }
        rig.take(1...1)
        rig.time.pass(.seconds(1))
        await rig.requests(1)
        rig.take(2...2)
        rig.time.pass(.milliseconds(700))
        gate.open()
        await rig.settles(exported: 1, dropped: 0)
        await quiet()
        #expect(abs((rig.time.next ?? 0) - 0.3) < 0.001)
    }

    @Test @Loop func `spans that find the row full are dropped and counted`() async throws {
        let gate = Gate()
        let rig = ExporterRig { _ in
            try await gate.wait()
            return Body("{}").answer()
        }
        rig.take(1...512)
        rig.time.pass(.zero)
        await rig.requests(1)
        rig.take(513...(512 + 2048))
        #expect(rig.exporter.dropped == 0)
        rig.take(9001...9007)
        #expect(rig.exporter.dropped == 7)
        gate.open()
        await rig.settles(exported: 2560, dropped: 7)
        #expect(try rig.collector.told.flatMap { $0 } == (1...2560).map { "\($0)" })
        rig.take(1...1)
        #expect(rig.exporter.dropped == 7)
    }

    @Test @Loop func `what a collector rejects of a batch is dropped, and told once`() async throws {
        let rig = ExporterRig { number in
            Body(#"{"partialSuccess":{"rejectedSpans":"\#(number * 2)","errorMessage":"too old"}}"#).answer()
        }
        for number in 1...3 {
            rig.take(1...5)
            rig.time.pass(.seconds(1))
            await rig.requests(number)
        }
        // No more than there were.
        await rig.settles(exported: 3 + 1 + 0, dropped: 2 + 4 + 5)
        #expect(
            rig.notices.lines == [
                "warning: http://collector:4318 did not take 2 of 5 spans: too old; this is not told again"
            ])
    }

    @Test @Loop func `of an answer no more is read than an answer has`() async throws {
        let body = Body()
        let rig = ExporterRig { _ in body.answer() }
        rig.take(1...1)
        rig.time.pass(.seconds(1))
        await rig.requests(1)
        let piece = String(repeating: " ", count: 16 << 10)
        for _ in 0..<4 { #expect(body.push(piece) == .more) }
        #expect(body.push(piece) == .stop)
        await rig.settles(exported: 1, dropped: 0)
        #expect(body.cancels == 1)
    }
}
