import EventLoop
import TestSupport
import Testing

@Suite struct TimerTests {
    let loop = EventLoop()
    let fired = Recorder<Int>()

    @Test func `timers fire in the order of their time, whatever the order they were set in`() {
        for delay in [7, 3, 9, 1, 5] {
            loop.schedule(after: .milliseconds(delay)) { [loop, fired] in
                fired.note(delay)
                if delay == 9 { loop.stop() }
            }
        }
        loop.runLimited()
        #expect(fired.values == [1, 3, 5, 7, 9])
    }

    @Test(arguments: [0, 1, 250, 1_000, 1_500, 2_999, 10_001])
    func `no timer is early`(microseconds: Int) {
        let start = EventLoop.monotonicNanoseconds()
        loop.schedule(after: .microseconds(microseconds)) { [loop, fired] in
            fired.note(Int(EventLoop.monotonicNanoseconds() - start))
            loop.stop()
        }
        loop.runLimited()
        #expect(fired.count == 1)
        #expect(fired.values[0] >= microseconds * 1_000)
    }

    @Test func `a timer set late in a long turn is not early`() {
        let start = Recorder<UInt64>()
        loop.schedule(after: .zero) { [loop, fired] in
            busy(for: .milliseconds(30))
            start.note(EventLoop.monotonicNanoseconds())
            loop.schedule(after: .milliseconds(20)) {
                fired.note(Int(EventLoop.monotonicNanoseconds() - start.values[0]))
                loop.stop()
            }
            // Something else wakes the loop before the timer is due, and makes it look.
            loop.schedule(after: .milliseconds(1)) {}
        }
        loop.runLimited()
        #expect(fired.values[0] >= 20_000_000)
    }

    @Test func `what a turn takes is not added to a timer's delay`() {
        let start = EventLoop.monotonicNanoseconds()
        loop.schedule(after: .milliseconds(401)) { [loop, fired] in
            fired.note(Int(EventLoop.monotonicNanoseconds() - start))
            loop.stop()
        }
        loop.atEndOfTurn { busy(for: .milliseconds(400)) }
        loop.runLimited()
        #expect(fired.values[0] < 700_000_000)
    }

    @Test func `a cancelled timer does not fire, and others do`() {
        let timers = [2, 4, 6].map { delay in
            loop.schedule(after: .milliseconds(delay)) { [loop, fired] in
                fired.note(delay)
                if delay == 6 { loop.stop() }
            }
        }
        loop.cancel(timers[1])
        loop.cancel(timers[1])
        loop.runLimited()
        #expect(fired.values == [2, 6])
        loop.cancel(timers[0])
    }

    @Test func `a timer can cancel another one that is due in the same turn`() {
        // Both are due by the time the loop looks.
        let second = loop.schedule(after: .milliseconds(2)) { [fired] in fired.note(2) }
        nonisolated(unsafe) let victim = second  // the loop runs on this thread
        loop.schedule(after: .milliseconds(1)) { [loop, fired] in
            fired.note(1)
            loop.cancel(victim)
        }
        loop.schedule(after: .milliseconds(5)) { [loop] in loop.stop() }
        loop.atEndOfTurn { busy(for: .milliseconds(3)) }
        loop.runLimited()
        #expect(fired.values == [1])
    }

    @Test func `a timer can set itself again`() {
        let ticks = Ticks(loop, every: .milliseconds(1), times: 5, fired)
        ticks.start()
        loop.runLimited()
        #expect(fired.values == [1, 2, 3, 4, 5])
    }

    @Test func `a timer that sets itself again with no delay leaves room for everything else`() throws {
        let pipe = Descriptors.pipe()
        let ticks = Ticks(loop, every: .zero, times: .max, fired)
        ticks.start()
        pipe.send("x")
        try loop.mustWatch(pipe.near, for: .read) { [loop] _ in loop.stop() }
        loop.runLimited()
        #expect(fired.count < 100)
    }

    @Test func `no delay, and a negative one, mean the next turn`() {
        loop.schedule(after: .zero) { [fired] in fired.note(0) }
        loop.schedule(after: .seconds(-5)) { [loop, fired] in
            fired.note(-5)
            loop.stop()
        }
        loop.runLimited()
        #expect(fired.values.sorted() == [-5, 0])
    }

    @Test func `durations are clamped to what the clock can hold`() {
        #expect(Duration.zero.clampedNanoseconds == 0)
        #expect(Duration.nanoseconds(-1).clampedNanoseconds == 0)
        #expect(Duration.seconds(-3).clampedNanoseconds == 0)
        #expect(Duration.nanoseconds(1).clampedNanoseconds == 1)
        #expect(Duration.milliseconds(1_500).clampedNanoseconds == 1_500_000_000)
        let century: UInt64 = 100 * 366 * 86_400 * 1_000_000_000
        #expect(Duration.seconds(Int64.max).clampedNanoseconds == century)
        // A timer that far away must not overflow, nor fire.
        loop.schedule(after: .seconds(Int64.max)) { [fired] in fired.note(1) }
        loop.schedule(after: .milliseconds(1)) { [loop] in loop.stop() }
        loop.runLimited()
        #expect(fired.values == [])
    }

    @Test func `the loop's time moves from turn to turn and never beyond the clock`() {
        let before = loop.now
        loop.schedule(after: .milliseconds(2)) { [loop, fired] in
            #expect(loop.now >= before + 2_000_000)
            #expect(loop.now <= EventLoop.monotonicNanoseconds())
            fired.note(1)
            loop.stop()
        }
        loop.runLimited()
        #expect(fired.count == 1)
    }
}

/// Keeps the thread busy, as a long turn does.
private func busy(for duration: Duration) {
    let end = EventLoop.monotonicNanoseconds() + duration.clampedNanoseconds
    while EventLoop.monotonicNanoseconds() < end {}
}

/// A timer that sets itself again, and stops the loop after so many times.
private final class Ticks: Sendable {
    let loop: EventLoop
    let interval: Duration
    let times: Int
    let fired: Recorder<Int>

    init(_ loop: EventLoop, every interval: Duration, times: Int, _ fired: Recorder<Int>) {
        self.loop = loop
        self.interval = interval
        self.times = times
        self.fired = fired
    }

    func start() {
        loop.schedule(after: interval) {
            self.fired.note(self.fired.count + 1)
            if self.fired.count == self.times { self.loop.stop() } else { self.start() }
        }
    }
}
