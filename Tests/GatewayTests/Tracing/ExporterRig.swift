import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Time that stands still until the test moves it.
@Loop final class HandTime {
    private(set) var now: UInt64 = 5_000_000_000
    private var alarms: [(due: UInt64, number: Int, action: @Loop () -> Void)] = []
    private var count = 0

    /// Microseconds since 1970.
    var wall: Int64 { 1_770_050_836_000_000 + Int64(now / 1000) }

    func later(_ delay: Duration, _ action: @escaping @Loop () -> Void) -> @Loop () -> Void {
        count += 1
        let number = count
        alarms.append((now + delay.clampedNanoseconds, number, action))
        return { self.alarms.removeAll { $0.number == number } }
    }

    /// Until the next thing is due, in seconds.
    var next: Double? { alarms.map(\.due).min().map { Double($0 - now) / 1_000_000_000 } }

    /// Lets time go by, and everything happen that is due by then.
    func pass(_ delay: Duration) {
        let end = now + delay.clampedNanoseconds
        while let first = alarms.min(by: { ($0.due, $0.number) < ($1.due, $1.number) }), first.due <= end {
            alarms.removeAll { $0.number == first.number }
            now = max(now, first.due)
            first.action()
        }
        now = end
    }
}

/// A collector that answers as the test says.
@Loop final class Collector: Transport {
    /// Given the number of the request, from 1.
    typealias Script = @Loop (Int) async throws -> ClientResponse

    private(set) var requests: [ClientRequest] = []
    /// Those that are not answered yet.
    private(set) var running = 0
    private(set) var cancelled = 0
    var script: Script

    init(_ script: @escaping Script) { self.script = script }

    func send(_ request: ClientRequest) async throws -> ClientResponse {
        requests.append(request)
        running += 1
        defer { running -= 1 }
        do { return try await script(requests.count) } catch is CancellationError {
            cancelled += 1
            throw CancellationError()
        }
    }

    /// The names of the spans in each request.
    var told: [[String]] {
        get throws {
            try requests.map { request in
                guard case .bytes(let body) = request.body else { throw Told.Malformed(what: "body") }
                return try Told(body).spans.map(\.name)
            }
        }
    }
}

/// An exporter with everything around it played by the test.
@Loop struct ExporterRig {
    @Loop final class Noted: Notices {
        private(set) var lines: [String] = []

        func note(_ level: NoticeLevel, _ message: String) { lines.append("\(level): \(message)") }
    }

    let time = HandTime()
    let notices = Noted()
    let collector: Collector
    let exporter: SpanExporter

    init(
        endpoint: String = "http://collector:4318", _ script: @escaping Collector.Script = { _ in Body("{}").answer() }
    ) {
        let time = time
        collector = Collector(script)
        exporter = SpanExporter(
            endpoint: endpoint, transport: collector, now: { time.now }, clock: { time.wall }, notices: notices,
            version: "1.2.3", later: { time.later($0, $1) })
    }

    static let refused = TransportError(kind: .connect, answerBegan: false, isRetrySafe: true, message: "refused")

    /// Spans by the names of `1`, `2`, …
    func take(_ numbers: ClosedRange<Int>) {
        for number in numbers {
            exporter.take(Span(.server, "\(number)", .make(sampled: true), parent: nil, start: 0, duration: 0))
        }
    }

    /// Waits until so many requests have come, and what follows from the last answer has followed.
    func requests(_ count: Int) async {
        #expect(
            await eventually { collector.requests.count >= count }, "\(collector.requests.count) of \(count) requests")
        await quiet()
        #expect(collector.requests.count == count)
    }

    func settles(exported: Int, dropped: Int) async {
        #expect(
            await eventually { exporter.exported == exported && exporter.dropped == dropped },
            "exported \(exporter.exported), dropped \(exporter.dropped)")
    }
}
