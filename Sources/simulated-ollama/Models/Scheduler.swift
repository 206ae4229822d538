import EventLoop

/// The model could not be had: too many wait for a model to be loaded.
struct QueueFull: Error {}

/// The right to one slot of a loaded model; given back with ``Scheduler/release(_:)``.
struct Lease {
    let runner: Runner
    /// When the model was ready for the request, waiting for a slot not counted, in monotonic nanoseconds.
    let assignedAt: UInt64
    fileprivate let holdsSlot: Bool
}

/// Decides which request runs when, as Ollama's scheduler does.
///
/// - A request for a loaded model waits for one of its slots, in line and without bound.
/// - A request whose model must be loaded first queues with all such; only this queue has a bound, and one model is
///   loaded at a time. Models that are loaded keep serving meanwhile.
/// - When the box is full an idle model makes room, the one with the shortest keep-alive; if all are busy, it waits
///   for one of them.
@Loop
final class Scheduler {
    /// What a request wants.
    struct Demand {
        let model: Model
        let options: RunnerOptions
        let keepAlive: KeepAlive?
        /// False only loads the model.
        var needsSlot = true
    }

    final class Waiter {
        let demand: Demand
        fileprivate var signal: Signal?
        fileprivate(set) var lease: Lease?
        fileprivate var assignedAt: UInt64 = 0

        fileprivate init(_ demand: Demand) { self.demand = demand }
    }

    var parallel = 1 { didSet { loaded.forEach(grant) } }
    var maxQueue = 512
    var maxLoaded = 3
    /// In nanoseconds.
    var loadTime: UInt64 = 0
    var keepAlive = KeepAlive.nanoseconds(300_000_000_000)

    private(set) var loaded: [Runner] = []
    /// Loads begun since the start or the last reset, by the model's name.
    var loads: [String: Int] = [:]
    private var pending: [Waiter] = []
    private var loading: (waiter: Waiter, timer: Timer)?

    /// Requests that hold a slot.
    var running: Int { loaded.reduce(0) { $0 + $1.running } }
    /// Requests that wait for a model or a slot.
    var waiting: Int { pending.count + (loading == nil ? 0 : 1) + loaded.reduce(0) { $0 + $1.waiters.count } }

    // MARK: Asking

    /// A slot, if one is free this instant.
    func leaseNow(_ demand: Demand) -> Lease? {
        if let runner = runner(for: demand) {
            let isFree = runner.running < slots(of: runner) && runner.waiters.isEmpty
            guard isFree || !demand.needsSlot else { return nil }
            return take(runner, for: demand, assignedAt: EventLoop.monotonicNanoseconds())
        }
        guard loadTime == 0, loading == nil, pending.isEmpty else { return nil }
        pending.append(Waiter(demand))
        let waiter = pending[0]
        proceed()
        if waiter.lease == nil { withdraw(waiter) }
        return waiter.lease
    }

    /// A slot, when it is this request's turn. Throws ``QueueFull``, or `CancellationError` when the client leaves.
    func lease(_ demand: Demand) async throws -> Lease {
        if let lease = leaseNow(demand) { return lease }
        let waiter = Waiter(demand)
        if let runner = runner(for: demand) {
            waiter.assignedAt = EventLoop.monotonicNanoseconds()
            runner.waiters.append(waiter)
        } else {
            guard pending.count < maxQueue else { throw QueueFull() }
            pending.append(waiter)
        }
        do {
            try await Signal.wait { signal in
                waiter.signal = signal
                proceed()
            }
        } catch {
            withdraw(waiter)
            throw error
        }
        guard let lease = waiter.lease else { throw CancellationError() }
        return lease
    }

    func release(_ lease: Lease) {
        let runner = lease.runner
        if lease.holdsSlot { runner.running -= 1 }
        grant(runner)
        settle(runner)
        proceed()
    }

    /// Unloads a model as soon as nobody uses it.
    func unload(_ model: Model) {
        guard let runner = loaded.first(where: { $0.model.runnerKey == model.runnerKey }) else { return }
        runner.keepAlive = .nanoseconds(0)
        settle(runner)
    }

    // MARK: Slots

    private func runner(for demand: Demand) -> Runner? {
        loaded.first { $0.model.runnerKey == demand.model.runnerKey && $0.options == demand.options && !$0.isRetiring }
    }

    /// Models that only embed take one request at a time, whatever the box allows.
    private func slots(of runner: Runner) -> Int {
        runner.model.family.abilities.contains(.completion) ? max(parallel, 1) : 1
    }

    private func take(_ runner: Runner, for demand: Demand, assignedAt: UInt64) -> Lease {
        if let keepAlive = demand.keepAlive { runner.keepAlive = keepAlive }
        if demand.needsSlot { runner.running += 1 }
        return Lease(runner: runner, assignedAt: assignedAt, holdsSlot: demand.needsSlot)
    }

    private func grant(_ runner: Runner) {
        while let waiter = runner.waiters.first, !waiter.demand.needsSlot || runner.running < slots(of: runner) {
            runner.waiters.removeFirst()
            waiter.lease = take(runner, for: waiter.demand, assignedAt: waiter.assignedAt)
            waiter.signal?.fire()
        }
    }

    /// Starts the clock of a runner that has nothing to do, or ends it at once.
    private func settle(_ runner: Runner) {
        guard runner.isIdle else { return }
        if runner.isRetiring || runner.keepAlive == .nanoseconds(0) { return drop(runner) }
        runner.becameIdle { [weak self] in
            self?.drop(runner)
            self?.proceed()
        }
    }

    private func drop(_ runner: Runner) {
        runner.stop()
        loaded.removeAll { $0 === runner }
    }

    /// The client has left: out of whatever line it stands in. Leaving amid a load ends the load; whoever else
    /// waits for that model starts it again.
    private func withdraw(_ waiter: Waiter) {
        if let lease = waiter.lease { return release(lease) }
        pending.removeAll { $0 === waiter }
        for runner in loaded where runner.waiters.contains(where: { $0 === waiter }) {
            runner.waiters.removeAll { $0 === waiter }
            settle(runner)
        }
        if let loading, loading.waiter === waiter {
            Loop.events.cancel(loading.timer)
            self.loading = nil
        }
        proceed()
    }

    // MARK: Loading

    /// Works on the queue of those whose model is not loaded, until it must wait for something.
    private func proceed() {
        while loading == nil, let waiter = pending.first {
            if let runner = runner(for: waiter.demand) {
                pending.removeFirst()
                assign(waiter, to: runner)
            } else if let other = loaded.first(where: { $0.model.runnerKey == waiter.demand.model.runnerKey }) {
                guard makeWay(other) else { return }
            } else if loaded.count >= maxLoaded {
                guard makeRoom() else { return }
            } else {
                pending.removeFirst()
                load(for: waiter)
            }
        }
    }

    private func makeRoom() -> Bool {
        let candidates = loaded.filter(\.isIdle).isEmpty ? loaded : loaded.filter(\.isIdle)
        guard let victim = candidates.min(by: { $0.keepAlive.length < $1.keepAlive.length }) else { return false }
        return makeWay(victim)
    }

    /// True if the runner is gone; else it goes when its requests are done.
    private func makeWay(_ runner: Runner) -> Bool {
        guard runner.isIdle else {
            runner.isRetiring = true
            return false
        }
        drop(runner)
        return true
    }

    private func load(for waiter: Waiter) {
        loads[waiter.demand.model.name.display, default: 0] += 1
        guard loadTime > 0 else { return finishLoad(for: waiter) }
        let timer = Loop.events.schedule(after: .nanoseconds(Int64(clamping: loadTime))) { [weak self] in
            self?.loading = nil
            self?.finishLoad(for: waiter)
            self?.proceed()
        }
        loading = (waiter, timer)
    }

    private func finishLoad(for waiter: Waiter) {
        let demand = waiter.demand
        let runner = Runner(demand.model, options: demand.options, keepAlive: demand.keepAlive ?? keepAlive)
        loaded.append(runner)
        assign(waiter, to: runner)
    }

    private func assign(_ waiter: Waiter, to runner: Runner) {
        waiter.assignedAt = EventLoop.monotonicNanoseconds()
        runner.waiters.append(waiter)
        grant(runner)
    }
}

extension KeepAlive {
    fileprivate var length: UInt64 { if case .nanoseconds(let length) = self { length } else { .max } }
}
