import TestSupport
import Testing

@testable import EventLoop

@Suite struct TimerHeapTests {
    private let made = Made()

    @Test func `an empty heap has nothing due and nothing to wait for`() {
        var heap = TimerHeap()
        #expect(heap.count == 0)
        #expect(heap.popDue(at: .max) == nil)
        #expect(heap.millisecondsToNext(after: 0) == -1)
    }

    @Test func `the wait is rounded up to whole milliseconds`() {
        var heap = TimerHeap()
        heap.insert(timer(at: 5_000_001))
        #expect(heap.millisecondsToNext(after: 5_000_001) == 0)
        #expect(heap.millisecondsToNext(after: 9_000_000) == 0)
        #expect(heap.millisecondsToNext(after: 5_000_000) == 1)
        #expect(heap.millisecondsToNext(after: 4_000_001) == 1)
        #expect(heap.millisecondsToNext(after: 4_000_000) == 2)
        #expect(heap.millisecondsToNext(after: 0) == 6)
    }

    @Test func `a wait too long for epoll is as long as epoll can wait`() {
        var heap = TimerHeap()
        heap.insert(timer(at: .max - 1_000_000))
        #expect(heap.millisecondsToNext(after: 0) == Int32.max)
    }

    @Test func `a timer that was never inserted, or is out already, is removed without harm`() {
        var heap = TimerHeap()
        let (inside, outside) = (timer(at: 1), timer(at: 2))
        heap.insert(inside)
        heap.remove(outside)
        #expect(heap.count == 1)
        #expect(pop(&heap, at: 1) === inside)
        heap.remove(inside)
        #expect(heap.count == 0)
    }

    @Test(arguments: [UInt64.max, 1_000_000, 20])
    func `10,000 timers come and go as in a sorted list`(range: UInt64) {
        var random = SeededGenerator(seed: range)
        var heap = TimerHeap()
        var model = SortedTimers()
        var gone: [Timer] = []
        var inserted = 0
        while inserted < 10_000 || model.count > 0 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5 where inserted < 10_000:
                let timer = timer(at: .random(in: 0..<range, using: &random))
                inserted += 1
                heap.insert(timer)
                model.insert(timer)
            case 5, 6:
                guard let timer = model.random(using: &random) else { continue }
                heap.remove(timer)
                model.remove(timer)
                gone.append(timer)
            case 7:
                // Out already: nothing may change.
                if let timer = gone.randomElement(using: &random) { heap.remove(timer) }
            default:
                let now = UInt64.random(in: 0..<range, using: &random)
                guard let popped = pop(&heap, at: now) else {
                    #expect((model.earliest ?? .max) > now)
                    continue
                }
                #expect(popped.deadline <= now)
                #expect(popped.deadline == model.earliest)
                let isKnown = model.remove(popped)
                #expect(isKnown)
                gone.append(popped)
            }
            #expect(heap.count == model.count)
        }
        #expect(inserted == 10_000)
    }

    @Test func `10,000 timers pop in order`() {
        var random = SeededGenerator(seed: 7)
        var heap = TimerHeap()
        let deadlines = (0..<10_000).map { _ in UInt64.random(in: 0..<5_000, using: &random) }
        for deadline in deadlines { heap.insert(timer(at: deadline)) }
        var popped: [UInt64] = []
        while let timer = pop(&heap, at: .max) { popped.append(timer.deadline) }
        #expect(popped == deadlines.sorted())
    }

    @Test func `a timer lets go of its action once it is out of the heap`() {
        final class Witness: Sendable {}
        for isCancelled in [true, false] {
            var heap = TimerHeap()
            weak var witness: Witness?
            let timer: Timer
            do {
                let held = Witness()
                witness = held
                timer = Timer(deadline: 1) { withExtendedLifetime(held) {} }
            }
            heap.insert(timer)
            #expect(witness != nil)
            if isCancelled { heap.remove(timer) } else { _ = heap.popDue(at: 1) }
            #expect(witness == nil)
        }
    }

    private func timer(at deadline: UInt64) -> Timer {
        let number = made.timers.count
        let timer = Timer(deadline: deadline) { [made] in made.lastCalled = number }
        made.timers.append(timer)
        return timer
    }

    /// The timer whose action the heap gives out.
    private func pop(_ heap: inout TimerHeap, at now: UInt64) -> Timer? {
        guard let action = heap.popDue(at: now) else { return nil }
        Loop.unchecked(action)
        return made.lastCalled.map { made.timers[$0] }
    }

    /// All timers of a test, and which one's action was called last.
    private final class Made: @unchecked Sendable {
        // Why @unchecked Sendable is safe: each test makes its own, and stays on its thread.
        var timers: [Timer] = []
        var lastCalled: Int?
    }
}

/// The plain thing that the heap must behave like.
private struct SortedTimers {
    private var timers: [Timer] = []

    var count: Int { timers.count }
    var earliest: UInt64? { timers.first?.deadline }

    func random(using generator: inout SeededGenerator) -> Timer? { timers.randomElement(using: &generator) }

    mutating func insert(_ timer: Timer) { timers.insert(timer, at: firstIndex(notBefore: timer.deadline + 1)) }

    @discardableResult
    mutating func remove(_ timer: Timer) -> Bool {
        let start = firstIndex(notBefore: timer.deadline)
        guard let index = timers[start...].firstIndex(where: { $0 === timer }) else { return false }
        timers.remove(at: index)
        return true
    }

    private func firstIndex(notBefore deadline: UInt64) -> Int {
        var (low, high) = (0, timers.count)
        while low < high {
            let middle = (low + high) / 2
            if timers[middle].deadline < deadline { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
