import EventLoop
import HTTPCore

/// All backends as one: who gets a request, who waits, and what is known of each.
///
/// The shell around ``RequestQueue`` and ``Balancer``, which decide: it sends the probes, wakes those whose turn has
/// come, and tells the log and the metrics of what has changed.
@Loop
final class Fleet {
    /// What is known of a backend beside what the balancer needs.
    struct Report {
        /// Microseconds since 1970: when its state became what it is.
        var since: Int64
        /// Nanoseconds that the last good probe took.
        var latency: UInt64?
        /// Of Ollama.
        var version: String?
        /// What it said last that it has loaded, and when it was asked, in monotonic nanoseconds.
        var running: [RunningModel] = []
        var runningAsked: UInt64 = 0
        /// It is being asked, and is to be asked once more.
        var isAsked = false
        var isToBeAskedAgain = false
        /// When the last probe ended, in monotonic nanoseconds, and the breaker's epoch then.
        var probed: (time: UInt64, epoch: Int)?
    }

    let backends: [Backend]
    let settings: Gateway.Settings.Fleet
    /// How long a request waits for its turn.
    let patience: Duration
    let transport: any Transport
    let now: @Loop () -> UInt64
    let clock: WallClock
    let metrics: Metrics
    let notices: (any Notices)?
    let startedAt: Int64

    var queue: RequestQueue
    var reports: [Report]
    /// When each is probed next, and asked next what it has loaded, in monotonic nanoseconds.
    var probeDue: [UInt64]
    var runningDue: [UInt64]
    let alarm: (any Alarm)?
    var isStopped = false
    /// Those who wait for the probe of a backend that is under way.
    var probing: [Int: [Signal]] = [:]
    /// Questions that wait for the beginning of an answer, by backend.
    private var asking: [Int: [ObjectIdentifier: Task<Void, Never>]] = [:]
    /// Those who wait for the first probes.
    var starting: [Signal] = []
    /// Requests that change a backend's models: how many are under way.
    var changing: [Int: Int] = [:]
    /// When it was last looked for a model that nobody has, in monotonic nanoseconds.
    var lookedAround: UInt64?
    /// Woken when their turn comes.
    var waiting: [RequestQueue.Ticket: Turn] = [:]
    private var lastVisited = -1
    /// Models that are not the same everywhere, and which digest each stood for when that was told.
    private var noted: [String: String] = [:]
    private var notedVersion = 0
    /// Nanoseconds that a call takes, a moving average.
    private var usualTime: Double?
    private var runningCount = 0
    /// Of the calls that run.
    private var sumOfStarts = 0.0

    /// Told of each failed probe of a backend that is unhealthy: those who wait for its answer had better ask another.
    var onDeath: (@Loop (Int) -> Void)?
    /// Told which names stand for another model than before.
    var onDisplaced: (@Loop ([String]) -> Void)?

    init(
        _ backends: [Backend], settings: Gateway.Settings, transport: any Transport, metrics: Metrics,
        now: @escaping @Loop () -> UInt64, clock: @escaping WallClock, alarm: (any Alarm)?,
        notices: (any Notices)?
    ) {
        self.backends = backends
        self.settings = settings.fleet
        patience = settings.queue.timeout
        self.transport = transport
        self.metrics = metrics
        self.now = now
        self.clock = clock
        self.notices = notices
        let start = clock()
        startedAt = start
        let states = backends.map { backend in
            BackendState(
                name: backend.name, weight: backend.weight, tier: backend.tier,
                limit: backend.concurrency ?? settings.queue.concurrency)
        }
        queue = RequestQueue(Balancer(states, mode: settings.fleet.balance), limit: settings.queue.limit)
        reports = backends.map { _ in Report(since: start) }
        probeDue = backends.map { _ in .max }
        runningDue = probeDue
        self.alarm = alarm
        metrics.backends = backends.map { Metrics.BackendMetrics(name: $0.name) }
    }

    /// Whether a request could be served now.
    var isReady: Bool { queue.balancer.backends.contains { $0.isServing } }

    // MARK: Calls

    /// A call's answer has begun.
    func answered(_ lease: Balancer.Lease, status: Int) {
        let (changed, loaded) = queue.balancer.answered(lease, isGood: status == 200)
        if loaded { metrics.backends[lease.backend].loads += 1 }
        // What else had to go for it is for the backend to say.
        if loaded { refreshRunning(at: lease.backend) }
        if changed { noteChange(of: lease.backend) } else if lease.pass.isTrial { settle() }
    }

    /// A call failed by the backend's fault.
    func failed(_ lease: Balancer.Lease, _ fault: Fault) {
        metrics.countFailure(of: lease.backend, fault.kind)
        if fault.rest > .zero {
            queue.balancer.rest(lease.backend, until: now() &+ fault.rest.clampedNanoseconds)
            _ = Loop.events.schedule(after: fault.rest) { [weak self] in self?.settle() }
        }
        guard let reason = fault.reason else { return }
        let changed = queue.balancer.failed(lease, reason, mayBeTriedInNeed: fault.mayBeTried)
        if changed {
            scheduleProbe(of: lease.backend)
            noteChange(of: lease.backend)
        } else if lease.pass.isTrial {
            settle()
        }
    }

    /// An answer that had begun came to no good end.
    func brokeOff(_ backend: Int?, _ error: any Error) {
        guard let backend, let error = error as? TransportError, error.answerBegan, let kind = Fault.Kind(error) else {
            return
        }
        metrics.countFailure(of: backend, kind)
    }

    /// A call is over: somebody else's turn.
    func end(_ lease: Balancer.Lease) {
        guard lease.takesPlace else { return }
        if queue.balancer.end(lease, at: now()) { refreshRunning(at: lease.backend) }
        if queue.balancer.backends[lease.backend].isDrained, queue.balancer.backends[lease.backend].running == 0 {
            notices?.note(.notice, "backend \(backends[lease.backend].name) is drained")
        }
        runningCount -= 1
        sumOfStarts -= Double(lease.since)
        settle()
    }

    func began(_ lease: Balancer.Lease) {
        runningCount += 1
        sumOfStarts += Double(lease.since)
    }

    /// A call took so long, from being sent to its end.
    func note(nanoseconds: UInt64) {
        let latest = Double(nanoseconds)
        usualTime = usualTime.map { $0 * 0.8 + latest * 0.2 } ?? latest
    }

    /// Seconds until one who comes now would have its turn, by how long calls take and how many wait.
    func retryAfter() -> Int {
        let slots = queue.balancer.backends.lazy.filter(\.isServing).map(\.limit).reduce(0, +)
        // Calls that have taken longer than usual are what is usual now.
        let sinceSent = runningCount > 0 ? Double(now()) - sumOfStarts / Double(runningCount) : 0
        let expected = max(usualTime ?? 0, sinceSent)
        let seconds = expected / 1e9 * Double(queue.waiting + 1) / Double(max(slots, 1))
        return min(max(1, Int(seconds.rounded(.up))), 3600)
    }

    // MARK: What changes

    /// A probe has told something.
    func probed(_ backend: Int, since epoch: Int, _ failure: String?) {
        if failure != nil { metrics.countFailure(of: backend, .probe) }
        let changed =
            if let failure {
                queue.balancer.probeFailed(backend, since: epoch, failure)
            } else {
                queue.balancer.probed(backend, since: epoch)
            }
        if changed { noteChange(of: backend) }
        // Who waits there for the beginning of an answer had better ask somebody else.
        if failure != nil, queue.balancer.backends[backend].breaker.state == .unhealthy {
            onDeath?(backend)
            for task in Array((asking[backend] ?? [:]).values) { task.cancel() }
        }
    }

    /// A backend's state is another: everybody is told.
    private func noteChange(of backend: Int) {
        let state = queue.balancer.backends[backend].breaker.state
        let reason = queue.balancer.backends[backend].breaker.reason
        reports[backend].since = clock()
        metrics.backends[backend].changes[state.rawValue, default: 0] += 1
        let name = backends[backend].name
        switch state {
        case .healthy: notices?.note(.notice, "backend \(name) is healthy")
        case .recovering: notices?.note(.notice, "backend \(name) is recovering: one request tries whether it is well")
        case .unhealthy, .starting: notices?.note(.warning, "backend \(name) is unhealthy: \(reason ?? "")")
        }
        settle()
    }

    /// Wakes everybody whose turn has come.
    func settle() {
        noteDisplaced()
        for turn in queue.settle(at: now()) {
            guard let waiter = waiting[turn.ticket] else {
                if case .success(let lease) = turn.outcome { queue.balancer.end(lease) }
                continue
            }
            waiter.comes(turn.outcome)
        }
    }

    private func noteDisplaced() {
        if !queue.balancer.displaced.isEmpty {
            let names = queue.balancer.displaced
            queue.balancer.displaced = []
            onDisplaced?(names)
        }
        // At the start, not before all have said what they have.
        guard queue.balancer.directory.version != notedVersion,
            !queue.balancer.backends.contains(where: { $0.breaker.state == .starting })
        else { return }
        notedVersion = queue.balancer.directory.version
        let conflicts = queue.balancer.directory.conflicts
        for entry in conflicts where noted[entry.name] != entry.digest {
            notices?.note(.warning, words(for: entry))
        }
        noted = Dictionary(uniqueKeysWithValues: conflicts.map { ($0.name, $0.digest) })
    }

    /// Of a name that is in conflict.
    func words(for entry: ModelDirectory.Entry) -> String {
        let versions = entry.versions.map { version in
            let use = version.listing.digest == entry.digest ? "" : ", not used"
            return "\(backends[version.backend].name) has \(version.listing.digest.prefix(12))\(use)"
        }
        return "\(entry.name) is not the same model everywhere: \(versions.joined(separator: "; "))"
    }

    // MARK: Requests that do not queue

    /// Sends a question that makes no model work. It fails as soon as a probe finds the backend dead.
    func ask(_ request: ClientRequest, of backend: Int) async throws -> ClientResponse {
        let asked = Asked()
        let task = Loop.task { [transport] in
            do { asked.outcome = .success(try await transport.send(request)) } catch { asked.outcome = .failure(error) }
        }
        asking[backend, default: [:]][ObjectIdentifier(asked)] = task
        await withTaskCancellationHandler {
            await task.value
        } onCancel: {
            task.cancel()
        }
        asking[backend]?[ObjectIdentifier(asked)] = nil
        if case .failure(is CancellationError) = asked.outcome, !Task.isCancelled {
            throw Fleet.isDead
        }
        return try asked.outcome.get()
    }

    /// Why a call to a backend was given up.
    nonisolated static let isDead = TransportError(
        kind: .firstByteTimeout, answerBegan: false, isRetrySafe: false, message: "it answers no probe either")

    private final class Asked {
        var outcome = Result<ClientResponse, any Error>.failure(CancellationError())
    }

    /// The next backend for a request that takes no place, in turn.
    /// - Parameter model: "" for what any can do.
    func visit(for model: String = "", without tried: [Int] = []) -> Balancer.Lease? {
        let all = queue.balancer.candidates(for: model).map(\.backend).filter { !tried.contains($0) }
        let time = now()
        // One on trial has time for this.
        let open = all.filter {
            queue.balancer.backends[$0].isServing && queue.balancer.backends[$0].restsUntil <= time
        }
        let best = open.isEmpty ? all.filter { queue.balancer.seat(of: $0).isOpenInNeed(at: time) } : open
        guard let tier = best.map({ queue.balancer.backends[$0].tier }).min() else { return nil }
        let first = best.filter { queue.balancer.backends[$0].tier == tier }
        let next = first.first { $0 > lastVisited } ?? first[0]
        lastVisited = next
        return queue.balancer.visit(next, at: time)
    }

    /// Whether the backends have a model run elsewhere.
    func isRemote(_ model: String) -> Bool { queue.balancer.directory.entries[model]?.listing?.isRemote == true }

    /// Why no backend that has the model takes requests, for people.
    func unavailability(of model: String) -> String {
        let listed = queue.balancer.candidates(for: model).map(\.backend)
        // Where nobody is known to have it, it may be with those that have not said yet what they have.
        let silent = backends.indices.filter { queue.balancer.directory.listings[$0] == nil }
        let concerned = !listed.isEmpty ? listed : silent.isEmpty ? Array(backends.indices) : Array(silent)
        let reasons = concerned.prefix(8).map { backend in
            let state = queue.balancer.backends[backend]
            let why = state.isDrained ? "drained" : state.breaker.reason ?? state.breaker.state.rawValue
            return "\(backends[backend].name): \(why)"
        }
        let more = concerned.count > 8 ? " and \(concerned.count - 8) more" : ""
        return reasons.joined(separator: "; ") + more
    }
}
