/// Something to do once, later; made by ``EventLoop/schedule(after:_:)``.
public final class Timer {
    /// In the loop's time, nanoseconds.
    public let deadline: UInt64
    /// Let go of when the timer has fired or was cancelled, so that it may refer to whoever holds the timer.
    fileprivate(set) var action: (@Loop () -> Void)?
    /// Where the timer stands in the heap; nil once it has fired or was cancelled.
    fileprivate var index: Int?

    init(deadline: UInt64, action: @escaping @Loop () -> Void) {
        self.deadline = deadline
        self.action = action
    }
}

/// A binary heap, the earliest deadline first. Each timer knows its place, so that cancelling is O(log n).
struct TimerHeap {
    private var heap: [Timer] = []

    var count: Int { heap.count }

    mutating func insert(_ timer: Timer) {
        timer.index = heap.count
        heap.append(timer)
        siftUp(heap.count - 1)
    }

    mutating func remove(_ timer: Timer) {
        guard let index = timer.index else { return }
        timer.index = nil
        timer.action = nil
        let last = heap.removeLast()
        guard index < heap.count else { return }
        heap[index] = last
        last.index = index
        siftUp(index)
        siftDown(last.index ?? index)
    }

    /// Takes out the earliest timer if it is due, and returns what it is to do.
    mutating func popDue(at now: UInt64) -> (@Loop () -> Void)? {
        guard let first = heap.first, first.deadline <= now else { return nil }
        let action = first.action
        remove(first)
        return action
    }

    /// How long epoll_wait may sleep: -1 for ever, else whole milliseconds, rounded up so that nothing is early.
    func millisecondsToNext(after now: UInt64) -> Int32 {
        guard let first = heap.first else { return -1 }
        guard first.deadline > now else { return 0 }
        return Int32(clamping: (first.deadline - now + 999_999) / 1_000_000)
    }

    private mutating func siftUp(_ start: Int) {
        var child = start
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].deadline < heap[parent].deadline else { return }
            swap(child, parent)
            child = parent
        }
    }

    private mutating func siftDown(_ start: Int) {
        var parent = start
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count {
                if heap[child].deadline < heap[least].deadline { least = child }
            }
            guard least != parent else { return }
            swap(parent, least)
            parent = least
        }
    }

    private mutating func swap(_ a: Int, _ b: Int) {
        heap.swapAt(a, b)
        heap[a].index = a
        heap[b].index = b
    }
}
