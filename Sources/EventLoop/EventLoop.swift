import CLinux
import Glibc
import Synchronization

/// One thread, one epoll: everything that changes in the program happens here, one thing after another.
///
/// The loop is a Swift executor. Actors whose `unownedExecutor` it is (see ``Loop``) and tasks that prefer it run
/// on its thread; a job enqueued from that thread costs no lock and no system call. Descriptors, timers and jobs
/// are served in turns:
///
///     jobs, end-of-turn hooks  →  epoll_wait  →  events  →  timers  →  …
///
/// `run()` is called once, on the thread that is to be the loop's. All methods but `enqueue`, `stop`, `execute`
/// and the isolation checks belong to that thread.
///
/// Source: epoll(7), eventfd(2); SE-0392 (custom actor executors), SE-0417 (task executor preference).
public final class EventLoop: SerialExecutor, TaskExecutor, @unchecked Sendable {
    // Why @unchecked Sendable is safe: `foreign` is guarded by a mutex, `owner` and `stopping` are atomics, the
    // descriptors never change, and every other property is touched on the loop's own thread only.

    private let epoll: Int32
    private let wakeup: Int32
    private let foreign = Mutex<[UnownedJob]>([])
    private let owner = Atomic<UInt>(0)
    private let stopping = Atomic<Bool>(false)

    private var jobs: [UnownedJob] = []
    /// Whether the next job is to run inside its `enqueue`, see ``Loop/task(_:)``.
    var startsNextJob = false
    private var hooks: [@Loop () -> Void] = []
    /// Being run; kept for its memory.
    private var dueHooks: [@Loop () -> Void] = []
    private var timers = TimerHeap()
    private var watches = WatchTable()
    private var events = [epoll_event](repeating: epoll_event(), count: 256)

    /// Monotonic time in nanoseconds, read once a turn. Differences are what it is for.
    public private(set) var now: UInt64

    /// How long its turns took.
    public private(set) var turns = Turns()

    /// Makes a loop that nobody runs yet. Traps if the system has no descriptors left for it.
    public init() {
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        wakeup = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        precondition(epoll >= 0 && wakeup >= 0, "no descriptors left for an event loop (errno \(errno))")
        now = Self.monotonicNanoseconds()
        gw_epoll_control(epoll, EPOLL_CTL_ADD, wakeup, Interest.read.rawValue, WatchTable.wakeupToken)
    }

    deinit {
        close(wakeup)
        close(epoll)
    }

    // MARK: Running

    /// Serves until ``stop()``; what was enqueued before the stop has run when this returns.
    ///
    /// May be called again after it has returned.
    public func run() {
        owner.store(Self.currentThread, ordering: .releasing)
        now = Self.monotonicNanoseconds()
        while !stopping.load(ordering: .acquiring) {
            settle()
            poll()
        }
        takeForeignJobs()
        repeat { settle() } while !isSettled
        stopping.store(false, ordering: .releasing)
        owner.store(0, ordering: .releasing)
    }

    /// Ends ``run()`` after the turn under way. From any thread.
    public func stop() {
        stopping.store(true, ordering: .releasing)
        wake()
    }

    /// True on the thread that is inside ``run()``.
    public var isCurrent: Bool {
        owner.load(ordering: .relaxed) == Self.currentThread
    }

    /// Jobs and hooks beget each other: go round until neither has anything to do. A job that always finds another
    /// to do has to wait for the descriptors now and then.
    private func settle() {
        for _ in 0..<Self.roundsAtMost {
            runJobs()
            swap(&hooks, &dueHooks)
            for hook in dueHooks { Loop.unchecked(hook) }
            dueHooks.removeAll(keepingCapacity: true)
            if isSettled { return }
        }
    }

    private static let roundsAtMost = 64
    private static let jobsAtMost = 10_000

    private var isSettled: Bool { jobs.isEmpty && hooks.isEmpty }

    private func runJobs() {
        var next = 0
        while next < jobs.count, next < Self.jobsAtMost {
            let job = jobs[next]
            next += 1
            run(job)
        }
        if next == jobs.count { jobs.removeAll(keepingCapacity: true) } else { jobs.removeFirst(next) }
    }

    private func run(_ job: UnownedJob) {
        job.runSynchronously(isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
    }

    private func poll() {
        // Not from `now`: the turn may have taken long, and what it took would be slept on top.
        let end = Self.monotonicNanoseconds()
        turns.note(end &- now)
        let timeout =
            if !isSettled || stopping.load(ordering: .acquiring) { Int32(0) } else if timers.count == 0 {
                Int32(-1)
            } else {
                timers.millisecondsToNext(after: end)
            }
        let count = events.withUnsafeMutableBufferPointer {
            epoll_wait(epoll, $0.baseAddress, Int32($0.count), timeout)
        }
        now = Self.monotonicNanoseconds()
        for index in 0..<max(0, Int(count)) {
            let happened = Events(rawValue: events[index].events)
            let token = withUnsafePointer(to: events[index]) { gw_epoll_token($0) }
            if token == WatchTable.wakeupToken {
                takeForeignJobs()
            } else if let handler = watches.handler(for: token) {
                Loop.unchecked { handler(happened) }
            }
        }
        while let action = timers.popDue(at: now) { Loop.unchecked(action) }
    }

    // MARK: Executor

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isCurrent, startsNextJob {
            startsNextJob = false
            run(job)
        } else if isCurrent {
            jobs.append(job)
        } else {
            let first = foreign.withLock { queue in
                queue.append(job)
                return queue.count == 1
            }
            if first { wake() }
        }
    }

    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

    public func asUnownedTaskExecutor() -> UnownedTaskExecutor { UnownedTaskExecutor(ordinary: self) }

    public func isIsolatingCurrentContext() -> Bool? { isCurrent }

    public func checkIsolated() {
        precondition(isCurrent, "called off the event loop's thread")
    }

    private func takeForeignJobs() {
        var count: UInt64 = 0
        _ = read(wakeup, &count, MemoryLayout.size(ofValue: count))
        let arrived = foreign.withLock { queue in
            let arrived = queue
            queue.removeAll(keepingCapacity: true)
            return arrived
        }
        jobs.append(contentsOf: arrived)
    }

    private func wake() {
        var one: UInt64 = 1
        _ = write(wakeup, &one, MemoryLayout.size(ofValue: one))
    }

    // MARK: Descriptors, timers, hooks

    /// Calls `handler` with what has happened, each turn in which `descriptor` is ready for what `interest` names.
    ///
    /// The watch ends with ``unwatch(_:)``, which must come before the descriptor is closed.
    /// - Returns: nil if the kernel refuses the descriptor (a plain file, a closed one, no memory); see `errno`.
    public func watch(
        _ descriptor: Int32, for interest: Interest, handler: @escaping @Loop (Events) -> Void
    ) -> Watch? {
        assertCurrent()
        let watch = watches.add(descriptor, handler)
        guard gw_epoll_control(epoll, EPOLL_CTL_ADD, descriptor, interest.rawValue, watch.token) == 0 else {
            watches.remove(watch)
            return nil
        }
        return watch
    }

    /// Changes what a watch waits for; `[]` leaves only errors and hang-ups, which epoll always reports.
    public func update(_ watch: Watch, for interest: Interest) {
        assertCurrent()
        gw_epoll_control(epoll, EPOLL_CTL_MOD, watch.descriptor, interest.rawValue, watch.token)
    }

    /// Ends a watch; its handler is not called again, not even for events already fetched in this turn.
    public func unwatch(_ watch: Watch) {
        assertCurrent()
        guard watches.remove(watch) else { return }
        gw_epoll_control(epoll, EPOLL_CTL_DEL, watch.descriptor, 0, 0)
    }

    /// Calls `action` once, `delay` from now (granularity: 1 ms, never early).
    @discardableResult
    public func schedule(after delay: Duration, _ action: @escaping @Loop () -> Void) -> Timer {
        assertCurrent()
        // Not from `now`, which is as old as the turn: the timer would be early, and one that sets itself again with
        // no delay would be due in the same turn for ever.
        let timer = Timer(deadline: Self.monotonicNanoseconds() &+ delay.clampedNanoseconds, action: action)
        timers.insert(timer)
        return timer
    }

    /// Takes a timer out; harmless if it has fired or was cancelled before.
    public func cancel(_ timer: Timer) {
        assertCurrent()
        timers.remove(timer)
    }

    /// Calls `hook` once, after the jobs of this turn and before the loop looks for new events.
    ///
    /// What is done here is done once for all the events of a turn.
    public func atEndOfTurn(_ hook: @escaping @Loop () -> Void) {
        assertCurrent()
        hooks.append(hook)
    }

    private func assertCurrent() {
        assert(isCurrent || owner.load(ordering: .relaxed) == 0, "called off the event loop's thread")
    }

    /// Monotonic time in nanoseconds, read now.
    public static func monotonicNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    private static var currentThread: UInt { UInt(pthread_self()) }
}

extension Duration {
    /// Whole nanoseconds; below zero is zero, beyond 100 years is 100 years.
    public var clampedNanoseconds: UInt64 {
        let century: Int64 = 100 * 366 * 86_400
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return UInt64(min(seconds, century)) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }
}
