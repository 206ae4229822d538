import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// When the backends are probed, by a clock and an alarm that the test moves.
@Suite(.timeLimit(.minutes(1))) struct ProbeTests {
    init() { LoopThread.start() }

    /// Rings when the test says so.
    @Loop private final class HandAlarm: Alarm {
        private(set) var delay: Duration?
        private var action: (@Loop () -> Void)?

        func ring(after delay: Duration, _ action: @escaping @Loop () -> Void) {
            self.delay = delay
            self.action = action
        }

        /// Moves the clock to the time that the alarm was set for.
        func ring(_ clock: Clock) async {
            guard let action, let delay else { return }
            clock.now += Int64(delay.clampedNanoseconds / 1000) + 1
            (self.action, self.delay) = (nil, nil)
            action()
            await quiet()
        }
    }

    @Loop private struct Watched {
        let clock = Clock()
        let alarm = HandAlarm()
        let box: Box
        let gateway: Gateway

        init(_ count: Int = 1, _ script: @escaping Box.Script = { _ in throw CancellationError() }) throws {
            let clock = clock
            box = Box(script)
            var settings = Gateway.Settings()
            settings.rateLimit = 0
            gateway = Gateway(
                backends: try (0..<count).map { try Backend("http://box\($0)") }, transport: box, settings: settings,
                hash: testHash, clock: { clock.now }, monotonic: { UInt64(clock.now) * 1000 }, alarm: alarm)
        }

        var tags: Int { box.probed.count { $0 == "/api/tags" } }
        var breaker: Breaker { gateway.fleet.queue.balancer.backends[0].breaker }
    }

    @Test @Loop func `all are probed at the start, and again within the interval`() async throws {
        let watched = try Watched(3)
        watched.gateway.start()
        await quiet()
        #expect(watched.tags == 3)
        let start = watched.clock.now
        while watched.tags < 6 { await watched.alarm.ring(watched.clock) }
        let seconds = Double(watched.clock.now - start) / 1_000_000
        #expect((24...30.1).contains(seconds), "\(seconds) s")
    }

    @Test @Loop func `what is loaded is asked every five seconds, of those that are well`() async throws {
        let watched = try Watched()
        watched.gateway.start()
        await quiet()
        let asked = watched.box.probed.count { $0 == "/api/ps" }
        await watched.alarm.ring(watched.clock)
        #expect(watched.box.probed.count { $0 == "/api/ps" } == asked + 1)
        #expect(watched.tags == 1)
    }

    @Test @Loop func `one that is not well is probed after a second, then ever later, up to the interval`() async throws
    {
        let watched = try Watched()
        watched.box.probes = [:]
        watched.gateway.start()
        await quiet()
        #expect(watched.breaker.state == .unhealthy)
        for expected in [1.0, 2, 4, 8, 16, 30, 30] {
            let (before, start) = (watched.tags, watched.clock.now)
            while watched.tags == before { await watched.alarm.ring(watched.clock) }
            let pause = Double(watched.clock.now - start) / 1_000_000
            #expect((expected * 0.79...expected * 1.01).contains(pause), "\(pause) s")
        }
        watched.box.probes = ["/api/tags": Fleet.testTags]
        while watched.breaker.state != .healthy { await watched.alarm.ring(watched.clock) }
        #expect(watched.breaker.failures == 0)
    }

    @Test @Loop func `however many calls fail, the next probe comes within the interval`() async throws {
        let unreachable = TransportError(kind: .connect, answerBegan: false, isRetrySafe: true, message: "")
        let watched = try Watched { _ in throw unreachable }
        watched.gateway.start()
        await quiet()
        for _ in 0..<5 {
            let asked = Asked(request("POST", "/api/chat", body: .bytes(Bytes(Said.chat))), watched.gateway)
            await asked.end()
            watched.clock.now += 100_000
        }
        #expect(watched.breaker.state == .unhealthy)
        let (before, start) = (watched.tags, watched.clock.now)
        while watched.tags == before { await watched.alarm.ring(watched.clock) }
        #expect(watched.clock.now - start <= 30_100_000)
    }

    @Test @Loop func `the alarm does not ring for a probe that is under way`() async throws {
        let gate = Gate()
        let watched = try Watched()
        watched.gateway.start()
        await quiet()
        watched.box.probeGate = gate
        watched.gateway.fleet.probe(0)
        let lease = watched.gateway.fleet.queue.balancer.visit(0, at: 0)
        watched.gateway.fleet.failed(
            lease,
            Fault(
                TransportError(
                    kind: .connect, answerBegan: false, isRetrySafe: true, message: ""))!)
        for _ in 0..<3 { await watched.alarm.ring(watched.clock) }
        let delay = try #require(watched.alarm.delay)
        #expect(delay > .seconds(1))
        gate.open()
        await quiet()
    }

    @Test @Loop func `nothing is asked after the end`() async throws {
        let watched = try Watched()
        watched.gateway.start()
        await quiet()
        await watched.gateway.stop()
        let before = watched.box.probed.count
        for _ in 0..<3 { await watched.alarm.ring(watched.clock) }
        #expect(watched.box.probed.count == before)
        #expect(watched.alarm.delay == nil)
    }
}
