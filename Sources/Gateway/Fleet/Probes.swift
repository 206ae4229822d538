import EventLoop
import HTTPCore

/// Asking the backends how they are, what they have, and what they have loaded.
extension Fleet {
    static let userAgent = "ollama-gateway-probe"

    /// Probes all backends now, and from then on each when it is due.
    func start() {
        let time = now()
        for backend in backends.indices {
            probeDue[backend] = time
            runningDue[backend] = time &+ Fleet.runningInterval
        }
        probeDue.indices.forEach { probe($0) }
    }

    /// At the start, waits until a backend is known to be well, or all are known not to be.
    func isStarted() async {
        while !isReady, queue.balancer.backends.contains(where: { $0.breaker.state == .starting && $0.isProbing }) {
            do { try await Signal.wait { starting.append($0) } } catch { return }
        }
    }

    /// No more probes.
    func stop() {
        isStopped = true
        for backend in backends.indices { (probeDue[backend], runningDue[backend]) = (.max, .max) }
    }

    /// Nanoseconds between two questions for what is loaded.
    private static let runningInterval: UInt64 = 5_000_000_000
    private static let timeoutAtMost = Duration.seconds(5)
    /// Bytes of an answer to a probe.
    private static let answerAtMost = 16 << 20

    private var timeout: Duration { min(Fleet.timeoutAtMost, settings.healthInterval) }

    // MARK: When

    func scheduleProbe(of backend: Int) {
        let pause = queue.balancer.backends[backend].breaker.nextProbe(
            interval: settings.healthInterval.clampedNanoseconds, jitter: Double.random(in: 0...1))
        probeDue[backend] = now() &+ pause
        setAlarm()
    }

    private func setAlarm() {
        guard !isStopped, let alarm, let due = zip(probeDue, runningDue).lazy.map({ min($0, $1) }).min(), due < .max
        else { return }
        let time = now()
        alarm.ring(after: .nanoseconds(due > time ? Int64(clamping: due - time) : 0)) { [weak self] in self?.askAllDue()
        }
    }

    private func askAllDue() {
        let time = now()
        for backend in backends.indices {
            if probeDue[backend] <= time {
                // Set again when it ends; or one that is under way would be due for ever.
                probeDue[backend] = .max
                probe(backend)
            }
            if runningDue[backend] <= time {
                runningDue[backend] = time &+ Fleet.runningInterval
                if queue.balancer.backends[backend].isServing { refreshRunning(at: backend) }
            }
        }
        setAlarm()
    }

    // MARK: Probes

    /// Probes a backend, unless that is being done.
    func probe(_ backend: Int) {
        guard probing[backend] == nil, !isStopped else { return }
        probing[backend] = []
        queue.balancer.probing(backend, true)
        probeDue[backend] = .max
        Loop.task { await self.runProbe(of: backend) }
    }

    /// Probes backends and waits for the outcome: of probes that begin now, not of those that have begun.
    func probeAfresh(_ backends: some Collection<Int>) async {
        await probesEnd(backends)
        // Clients cannot make a backend be probed without a pause; those who come meanwhile share the next.
        let time = now()
        let latest = backends.compactMap { reports[$0].probed?.time }.max() ?? 0
        if time &- latest < Fleet.freshPause {
            try? await Loop.sleep(for: .nanoseconds(Int64(Fleet.freshPause - (time &- latest))))
        }
        backends.forEach { probe($0) }
        await probesEnd(backends)
    }

    private static let freshPause: UInt64 = 50_000_000

    func probesEnd(_ backends: some Collection<Int>) async { for backend in backends { await probeEnds(backend) } }

    func probeEnds(_ backend: Int) async {
        guard probing[backend] != nil else { return }
        try? await Signal.wait { probing[backend]?.append($0) }
    }

    private func runProbe(of backend: Int) async {
        let epoch = queue.balancer.backends[backend].breaker.epoch
        let started = EventLoop.monotonicNanoseconds()
        var failure: String?
        do {
            let listings = try await ask(backend, "/api/tags") { ModelLists.tags($0) }
            reports[backend].latency = EventLoop.monotonicNanoseconds() &- started
            queue.balancer.list(listings, at: backend)
        } catch {
            failure = words(for: error)
        }
        if failure == nil, queue.balancer.backends[backend].breaker.state == .starting {
            // Before the first request goes there.
            await ask(whatRunsAt: backend)
        }
        queue.balancer.probing(backend, false)
        probed(backend, since: epoch, failure)
        reports[backend].probed = (now(), queue.balancer.backends[backend].breaker.epoch)
        scheduleProbe(of: backend)
        settle()
        probing.removeValue(forKey: backend)?.forEach { $0.fire() }
        starting.forEach { $0.fire() }
        starting = []
        if failure == nil, let version = try? await ask(backend, "/api/version", { ModelLists.version($0) }) {
            reports[backend].version = version
        }
    }

    /// Has a backend asked what it has loaded; again, if that is being done.
    func refreshRunning(at backend: Int) { Loop.task { await self.ask(whatRunsAt: backend) } }

    /// Asks a backend what it has loaded. Answers do not overtake each other: of those who ask meanwhile, one more does.
    func ask(whatRunsAt backend: Int) async {
        guard reports[backend].isAsked == false else {
            reports[backend].isToBeAskedAgain = true
            return
        }
        reports[backend].isAsked = true
        repeat {
            reports[backend].isToBeAskedAgain = false
            let time = now()
            reports[backend].runningAsked = time
            guard let running = try? await ask(backend, "/api/ps", { ModelLists.running($0) }) else { break }
            reports[backend].running = running
            queue.balancer.loaded(running.map(\.digest), at: backend, askedAt: time)
        } while reports[backend].isToBeAskedAgain
        reports[backend].isAsked = false
    }

    /// Asks all that serve what they have loaded, but for those that were asked within the last second, and waits for
    /// half a second at most.
    func askWhatRuns(at backends: some Collection<Int>) async {
        let time = now()
        let due = backends.filter {
            queue.balancer.backends[$0].isServing && time &- reports[$0].runningAsked > 1_000_000_000
        }
        guard !due.isEmpty else { return }
        await waitAWhile { try? await FanOut.forEach(due) { await self.ask(whatRunsAt: $0) } }
    }

    /// Waits for something to end, for half a second at most; it goes on then.
    func waitAWhile(for body: @escaping @Loop () async -> Void) async {
        var timer: Timer?
        defer { if let timer { Loop.events.cancel(timer) } }
        try? await Signal.wait { signal in
            timer = Loop.events.schedule(after: .milliseconds(500)) { signal.fire() }
            Loop.task {
                await body()
                signal.fire()
            }
        }
    }

    // MARK: Looking again

    /// A request finds nobody who could serve it: whether that is being found out anew.
    ///
    /// Not more often than once a second for a backend whose state is known since, and once in two seconds for models
    /// that nobody has.
    ///
    /// - Returns: the backends that are being asked.
    @discardableResult
    func looksAgain(for want: Balancer.Want, _ refusal: Balancer.Refusal) -> [Int] {
        let time = now()
        var concerned: [Int]
        switch refusal {
        case .unavailable:
            // Those that have it or, if it is not known who has, have not said yet what they have.
            let having = queue.balancer.candidates(for: want.model).map(\.backend)
            let unknown = backends.indices.filter { queue.balancer.directory.listings[$0] == nil }
            concerned = (having.isEmpty ? unknown : having).filter { backend in
                !want.tried.contains(backend) && !queue.balancer.backends[backend].isDrained
            }
            concerned.filter { isNews(from: $0, at: time) }.forEach { probe($0) }
        case .unknownModel:
            // One that has not said yet what it has may have it.
            concerned = backends.indices.filter { backend in
                queue.balancer.backends[backend].isServing || queue.balancer.directory.listings[backend] == nil
            }
            let pause: UInt64 = changing.isEmpty ? 2_000_000_000 : 200_000_000
            if lookedAround.map({ time &- $0 > pause }) ?? true {
                lookedAround = time
                concerned.forEach { probe($0) }
            }
        }
        return concerned.filter { queue.balancer.backends[$0].isProbing }
    }

    /// Whether a probe would tell something that the last one did not.
    private func isNews(from backend: Int, at time: UInt64) -> Bool {
        guard let last = reports[backend].probed else { return true }
        return time &- last.time > 1_000_000_000 || last.epoch != queue.balancer.backends[backend].breaker.epoch
    }

    // MARK: Asking

    private struct NoAnswer: Error { let words: String }

    private func ask<T: Sendable>(
        _ backend: Int, _ path: String, _ read: @escaping @Sendable (Bytes) -> T?
    ) async throws -> T {
        let request = ClientRequest(
            method: "GET", origin: backends[backend].origin, target: path,
            headers: ["Accept": "application/json", "User-Agent": Fleet.userAgent])
        var outcome = Result<Bytes, any Error>.failure(CancellationError())
        let task = Loop.task { outcome = await self.get(request) }
        let timeout = timeout
        let timer = Loop.events.schedule(after: timeout) { task.cancel() }
        defer { Loop.events.cancel(timer) }
        await task.value
        let body: Bytes
        switch outcome {
        case .success(let bytes): body = bytes
        case .failure(is CancellationError): throw NoAnswer(words: "no answer to \(path) within \(timeout)")
        case .failure(let error): throw error
        }
        guard let said = await said(body, read) else {
            throw NoAnswer(words: "the answer to \(path) is not what Ollama says")
        }
        return said
    }

    private func get(_ request: ClientRequest) async -> Result<Bytes, any Error> {
        do {
            let answer = try await transport.send(request)
            let body = try await answer.body.collect(limit: Fleet.answerAtMost, expecting: answer.length)
            guard (200..<300).contains(answer.status) else {
                throw NoAnswer(words: "\(request.target) answers \(answer.status)")
            }
            return .success(body)
        } catch {
            return .failure(error)
        }
    }

    private func said<T: Sendable>(_ body: Bytes, _ read: @escaping @Sendable (Bytes) -> T?) async -> T? {
        if body.count <= QuestionReader.readAtOnce { return read(body) }
        return await Loop.elsewhere { read(body) }
    }

    private func words(for error: any Error) -> String {
        switch error {
        case let error as NoAnswer: error.words
        case let error as TransportError: Failure.words(for: error)
        case let error as BodyTooLarge: "its answer is larger than \(error.limit >> 20) MiB"
        default: "\(error)"
        }
    }
}
