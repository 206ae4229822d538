import TestSupport
import Testing

@testable import EventLoop

/// How long the turns of a loop take.
@Suite(.timeLimit(.minutes(1))) struct TurnsTests {
    @Test func `each turn is in the first bucket that is large enough`() {
        var turns = EventLoop.Turns()
        #expect(turns.counts == [Int](repeating: 0, count: 14))
        for bound in EventLoop.Turns.bounds { turns.note(bound * 1000) }
        #expect(turns.counts == [Int](repeating: 1, count: 13) + [0])
        for bound in EventLoop.Turns.bounds { turns.note(bound * 1000 + 1) }
        #expect(turns.counts == [1] + [Int](repeating: 2, count: 12) + [1])
        turns.note(0)
        turns.note(.max)
        #expect(turns.counts == [2] + [Int](repeating: 2, count: 12) + [2])
    }

    @Test func `all are counted once, as one counts them who looks at each bucket anew`() {
        var random = SeededGenerator(seed: 5)
        var turns = EventLoop.Turns()
        var lengths: [UInt64] = []
        for _ in 0..<5000 {
            let length = UInt64.random(in: 0...(1 << UInt64.random(in: 1...32, using: &random)), using: &random)
            turns.note(length)
            lengths.append(length)
        }
        #expect(turns.nanoseconds == lengths.reduce(0, +))
        #expect(turns.counts.reduce(0, +) == lengths.count)
        for (place, bound) in EventLoop.Turns.bounds.enumerated() {
            #expect(turns.counts[...place].reduce(0, +) == lengths.count { $0 <= bound * 1000 })
        }
    }

    @Test func `the bounds rise`() {
        #expect(zip(EventLoop.Turns.bounds, EventLoop.Turns.bounds.dropFirst()).allSatisfy { $0 < $1 })
        #expect(EventLoop.Turns.bounds.count == 13)
    }

    /// Works for a while, and counts nothing.
    private static func work(nanoseconds: UInt64) {
        let start = EventLoop.monotonicNanoseconds()
        while EventLoop.monotonicNanoseconds() &- start <= nanoseconds {}
    }

    @Test func `a handler that takes long makes a turn that is as long`() {
        let loop = EventLoop()
        loop.schedule(after: .zero) { Self.work(nanoseconds: 2_500_000) }
        loop.schedule(after: .milliseconds(1)) {
            Self.work(nanoseconds: 5_000_000)
            loop.stop()
        }
        let start = EventLoop.monotonicNanoseconds()
        loop.runLimited()
        loop.schedule(after: .zero) { loop.stop() }
        // The turn that stopped a loop is counted when it has gone on.
        loop.runLimited()
        let counts = loop.turns.counts
        #expect(counts.reduce(0, +) > 2)
        // More than 2.5 ms.
        #expect(counts[5...].reduce(0, +) >= 1)
        #expect(loop.turns.nanoseconds > 2_500_000)
        #expect(loop.turns.nanoseconds <= EventLoop.monotonicNanoseconds() &- start)
    }

    @Test func `jobs and what they beget are of the turn`() {
        let loop = EventLoop()
        Task(executorPreference: loop) {
            Self.work(nanoseconds: 1_000_000)
            loop.atEndOfTurn {
                Self.work(nanoseconds: 1_000_000)
                loop.schedule(after: .zero) { loop.stop() }
            }
        }
        loop.runLimited()
        #expect(loop.turns.nanoseconds > 2_000_000)
        #expect(loop.turns.counts[4...].reduce(0, +) >= 1)
    }

    @Test func `a loop that waits is not busy`() {
        let loop = EventLoop()
        let start = EventLoop.monotonicNanoseconds()
        // It looks again until it has waited for long enough, however often it was held up meanwhile.
        func goOn() {
            let elapsed = EventLoop.monotonicNanoseconds() &- start
            if elapsed > loop.turns.nanoseconds &+ 20_000_000 { return loop.stop() }
            loop.schedule(after: .milliseconds(5)) { goOn() }
        }
        goOn()
        loop.runLimited()
        let elapsed = EventLoop.monotonicNanoseconds() &- start
        #expect(elapsed > loop.turns.nanoseconds &+ 20_000_000)
    }
}
