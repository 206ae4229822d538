import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What happens when the collector does not take spans, and at the end.
@Suite(.timeLimit(.minutes(1))) struct SpanRetryTests {
    init() { LoopThread.start() }

    /// Takes a span and sends it.
    @Loop private func sent(_ rig: ExporterRig) async {
        rig.take(1...1)
        rig.time.pass(.seconds(1))
        await rig.requests(1)
    }

    @Test(arguments: [429, 502, 503, 504, 0])
    @Loop func `a collector that is busy or away is asked five times, ever later`(status: Int) async throws {
        let rig = ExporterRig { _ in
            if status == 0 { throw ExporterRig.refused }
            return Body("").answer(status)
        }
        await sent(rig)
        for (number, usual) in [(1, 1.0), (2, 2), (3, 4), (4, 8)] {
            #expect(await eventually { rig.time.next != nil })
            let pause = try #require(rig.time.next)
            #expect((usual * 0.79...usual).contains(pause), "\(pause) s")
            rig.time.pass(.seconds(pause - 0.001))
            await rig.requests(number)
            #expect(rig.exporter.dropped == 0)
            rig.time.pass(.milliseconds(2))
            await rig.requests(number + 1)
        }
        await rig.settles(exported: 0, dropped: 1)
        #expect(try rig.collector.told == Array(repeating: ["1"], count: 5))
        #expect(rig.time.next == nil)
    }

    @Test @Loop func `the same batch is sent again, and those behind it wait`() async throws {
        let rig = ExporterRig { number in Body("").answer(number < 3 ? 503 : 200) }
        await sent(rig)
        rig.take(2...3)
        rig.time.pass(.seconds(1))
        await rig.requests(2)
        rig.time.pass(.seconds(2))
        await rig.requests(3)
        await rig.settles(exported: 1, dropped: 0)
        rig.time.pass(.seconds(1))
        await rig.requests(4)
        #expect(try rig.collector.told == [["1"], ["1"], ["1"], ["2", "3"]])
    }

    @Test(
        arguments: [
            ("20", 20.0...20), ("0", 0.79...1), ("Mon, 02 Feb 2026 16:47:27 GMT", 4.9...5.1), ("86400", 60...60),
            ("soon", 0.79...1),
        ] as [(String, ClosedRange<Double>)])
    @Loop func `a collector may say when it is to be asked again`(
        text: String, expected: ClosedRange<Double>
    ) async throws {
        let rig = ExporterRig { number in Body("").answer(number == 1 ? 429 : 200, ["Retry-After": text]) }
        await sent(rig)
        #expect(await eventually { rig.time.next != nil })
        let pause = try #require(rig.time.next)
        #expect(expected.contains(pause), "\(pause) s")
        rig.time.pass(.seconds(pause))
        await rig.settles(exported: 1, dropped: 0)
    }

    @Test(arguments: [400, 401, 404, 413, 500, 301])
    @Loop func `what would be refused again is dropped at once`(status: Int) async {
        let rig = ExporterRig { number in Body(#"{"message":"why"}"#).answer(number == 1 ? status : 200) }
        await sent(rig)
        await rig.settles(exported: 0, dropped: 1)
        #expect(rig.time.next == nil)
        #expect(rig.notices.lines == ["warning: spans do not reach http://collector:4318: it answers \(status) (why)"])
        rig.take(2...2)
        rig.time.pass(.seconds(1))
        await rig.settles(exported: 1, dropped: 1)
    }

    @Test @Loop func `trouble is told once, and once that it is over`() async throws {
        let rig = ExporterRig { _ in throw ExporterRig.refused }
        await sent(rig)
        for number in 2...12 {
            rig.take(number...number)
            let before = rig.collector.requests.count
            rig.time.pass(.seconds(16))
            #expect(await eventually { rig.collector.requests.count > before })
            await quiet()
        }
        #expect(rig.exporter.dropped > 0)
        #expect(rig.notices.lines.count == 1)
        rig.collector.script = { _ in Body("{}").answer() }
        rig.time.pass(.seconds(16))
        #expect(await eventually { rig.notices.lines.count == 2 })
        #expect(
            rig.notices.lines == [
                "warning: spans do not reach http://collector:4318: cannot connect (refused)",
                "notice: spans reach http://collector:4318 again; \(rig.exporter.dropped) were lost",
            ])
    }

    @Test @Loop func `trouble that comes and goes is told once a minute`() async throws {
        let rig = ExporterRig { number in Body("").answer(number % 2 == 1 ? 400 : 200) }
        for number in 1...118 {
            rig.take(1...1)
            rig.time.pass(.seconds(1))
            await rig.requests(number)
        }
        await rig.settles(exported: 59, dropped: 59)
        #expect(rig.notices.lines.map { $0.prefix(7) } == ["warning", "notice:", "warning", "notice:"])
    }

    @Test @Loop func `a collector that does not answer is given up after ten seconds, and asked again`() async throws {
        let rig = ExporterRig { number in
            if number == 1 { try await Gate().wait() }
            return Body("{}").answer()
        }
        await sent(rig)
        rig.time.pass(.milliseconds(9999))
        await quiet()
        #expect(rig.collector.running == 1)
        rig.time.pass(.milliseconds(1))
        #expect(await eventually { rig.collector.cancelled == 1 })
        #expect(await eventually { !rig.notices.lines.isEmpty })
        #expect(
            rig.notices.lines == [
                "warning: spans do not reach http://collector:4318: no answer in time"
            ])
        await quiet()
        rig.time.pass(.seconds(1))
        await rig.settles(exported: 1, dropped: 0)
    }

    @Test @Loop func `an answer that does not end is believed by its status`() async throws {
        let body = Body()
        let rig = ExporterRig { _ in body.answer() }
        await sent(rig)
        body.push("{")
        rig.time.pass(.seconds(10))
        await rig.settles(exported: 1, dropped: 0)
        #expect(body.cancels == 1)
        #expect(rig.notices.lines.isEmpty)
    }

    // MARK: The end

    @Test @Loop func `the end sends what there is`() async throws {
        let rig = ExporterRig()
        rig.take(1...1300)
        await rig.exporter.stop()
        #expect(try rig.collector.told.map(\.count) == [512, 512, 276])
        #expect(rig.exporter.exported == 1300)
        #expect(rig.exporter.dropped == 0)
        rig.take(1...3)
        #expect(rig.exporter.dropped == 3)
        #expect(rig.time.next == nil)
        await rig.exporter.stop()
        #expect(rig.collector.requests.count == 3)
    }

    @Test @Loop func `the end waits for the request under way, and for what came behind it`() async throws {
        let gate = Gate()
        let rig = ExporterRig { number in
            if number == 1 { try await gate.wait() }
            return Body("{}").answer()
        }
        await sent(rig)
        rig.take(2...2)
        let stop = Loop.task { await rig.exporter.stop() }
        await quiet()
        #expect(rig.collector.requests.count == 1)
        gate.open()
        await stop.value
        #expect(try rig.collector.told == [["1"], ["2"]])
        #expect(rig.exporter.exported == 2)
    }

    @Test @Loop func `the end does not wait for a collector that hangs for longer than two seconds`() async throws {
        let rig = ExporterRig { _ in
            try await Gate().wait()
            return Body("{}").answer()
        }
        rig.take(1...600)
        let ended = Recorder<Bool>()
        let stop = Loop.task {
            await rig.exporter.stop()
            ended.note(true)
        }
        await rig.requests(1)
        rig.time.pass(.milliseconds(1999))
        await quiet()
        #expect(ended.count == 0)
        rig.time.pass(.milliseconds(1))
        await stop.value
        #expect(rig.collector.cancelled == 1)
        #expect(rig.exporter.exported == 0)
        #expect(rig.exporter.dropped == 600)
        #expect(rig.collector.requests.count == 1)
        #expect(rig.time.next == nil)
    }

    @Test @Loop func `the end does not wait at all for a collector that is away`() async {
        let rig = ExporterRig { _ in throw ExporterRig.refused }
        rig.take(1...600)
        await rig.exporter.stop()
        #expect(rig.collector.requests.count == 1)
        #expect(rig.exporter.dropped == 600)
        #expect(rig.time.next == nil)
    }

    @Test(arguments: [true, false])
    @Loop func `the end cuts a pause short and asks once more`(isBack: Bool) async throws {
        let rig = ExporterRig { number in Body("").answer(number > 1 && isBack ? 200 : 503, ["Retry-After": "30"]) }
        await sent(rig)
        rig.take(2...2)
        #expect(await eventually { rig.time.next == 30 })
        await rig.exporter.stop()
        #expect(try rig.collector.told == (isBack ? [["1"], ["1"], ["2"]] : [["1"], ["1"]]))
        #expect(rig.exporter.exported == (isBack ? 2 : 0))
        #expect(rig.exporter.dropped == (isBack ? 0 : 2))
        #expect(rig.time.next == nil)
    }
}
