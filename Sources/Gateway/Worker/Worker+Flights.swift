import EventLoop
import HTTPCore

/// Calls to boxes, from their beginning to the store.
extension Worker {
    /// Starts a call of its own. What can be done at once is done when this returns.
    func begin(_ flight: Flight) {
        flights[ObjectIdentifier(flight)] = flight
        // One that nobody can join any more gives way.
        if let key = flight.key, joinable[key].map({ other in Loop.assumeIsolated { other.isJoinable } }) != true {
            joinable[key] = flight
        }
        Loop.assumeIsolated { flight.task = Loop.task { await self.run(flight) } }
    }

    /// One attempt to have the flight's answer. If the box fails and there is another, the next attempt is a task of its
    /// own, since this one may have been cancelled.
    func run(_ flight: Flight) async {
        var problem: (any Error)?
        var recorded: Recorded?
        do {
            let want = want(of: flight)
            let ticket = Loop.assumeIsolated { flight.takeTicket(from: fleet) }
            let asked = time
            let lease = try await fleet.turn(for: want, ticket)
            let waited = Int64((time &- asked) / 1000)
            Loop.assumeIsolated {
                if flight.tried.isEmpty { metrics.misses += 1 }
                metrics.countPick(of: lease.backend, isRetry: !flight.tried.isEmpty)
                metrics.observe(queueWait: waited)
                flight.takes(lease, after: waited)
            }
            defer { Loop.assumeIsolated { flight.givesBack(to: fleet) } }
            let backend = Loop.assumeIsolated { fleet.backends[lease.backend] }
            try await flight.fly(to: backend, by: transport)
            let time = time
            Loop.assumeIsolated {
                if flight.header?.status == 200 { fleet.note(nanoseconds: time &- lease.since) }
            }
            recorded = await recordedAnswer(of: flight)
        } catch {
            problem = error
            Loop.assumeIsolated { fleet.brokeOff(flight.backend, error) }
        }
        noteUsage(of: flight, problem)
        if let problem, goesElsewhere(flight, after: problem) { return tryAgain(flight) }
        land(flight, problem, recorded)
        flights[ObjectIdentifier(flight)] = nil
        forget(flight)
        waitsNoMore(flight)
    }

    /// A box counts what it did, even if nobody wants it any more.
    private func noteUsage(of flight: Flight, _ problem: (any Error)?) {
        Loop.assumeIsolated {
            // What breaks off has no end to read it from.
            if !(problem is TransportError) { flight.readUsage() }
            let usage = flight.usage
            metrics.count(usage, model: fleet.label(of: flight.model), seen: flight.chunks)
            flight.endCall(usage, problem)
        }
    }

    private func tryAgain(_ flight: Flight) {
        Loop.assumeIsolated {
            flight.isBeingMoved = false
            flight.task = Loop.task { await self.run(flight) }
        }
    }

    /// What a flight needs of a box. What is no name of a model, or one that runs at ollama.com and no box lists, any
    /// box can answer.
    private func want(of flight: Flight) -> Balancer.Want {
        Loop.assumeIsolated {
            var want = flight.want
            if fleet.queue.balancer.directory.entries[want.model] == nil, !flight.isOfNamedModel { want.model = "" }
            return want
        }
    }

    /// Whether another box is to answer instead of the one that has failed.
    private func goesElsewhere(_ flight: Flight, after problem: any Error) -> Bool {
        switch problem {
        case is Flight.PassedOver: return Loop.assumeIsolated { flight.hasSubscribers }
        case is CancellationError:
            return Loop.assumeIsolated { flight.isBeingMoved && flight.hasSubscribers && flight.header == nil }
        case let error as TransportError:
            return !error.answerBegan && error.kind != .local && hasAnother(flight)
        default: return false
        }
    }

    /// Whether a box that the flight has not been to could answer it.
    func hasAnother(_ flight: Flight) -> Bool {
        let (want, time) = (want(of: flight), time)
        return Loop.assumeIsolated {
            flight.hasSubscribers && flight.tried.count <= settings.fleet.retries
                && fleet.queue.balancer.hasAnother(for: want, at: time)
        }
    }

    /// A box is found dead: who waits there for the beginning of an answer goes elsewhere, if that is possible.
    func leave(_ backend: Int) {
        for flight in flights.values {
            let waits = Loop.assumeIsolated { flight.lease?.backend == backend && flight.header == nil }
            guard waits, hasAnother(flight) else { continue }
            Loop.assumeIsolated {
                flight.isBeingMoved = true
                flight.task?.cancel()
            }
        }
    }

    /// A whole answer and how it is written.
    struct Recorded {
        let answer: Bytes
        let form: AnswerForm
    }

    /// What a flight has recorded, if it may be kept.
    func recordedAnswer(of flight: Flight) async -> Recorded? {
        guard let answer = Loop.assumeIsolated({ flight.recorded() }) else { return nil }
        let check = WholenessCheck(answer: answer, asked: flight.form, endpoint: flight.endpoint)
        let form = answer.count <= QuestionReader.readAtOnce ? check.form() : await check.formElsewhere()
        return form.map { Recorded(answer: answer, form: $0) }
    }

    /// Keeps the answer and tells everybody, in one go: nobody finds neither the entry nor the flight.
    func land(_ flight: Flight, _ problem: (any Error)?, _ recorded: Recorded?) {
        if let recorded { keep(recorded, of: flight) }
        var failure: Failure?
        if let problem { failure = self.failure(for: problem, of: flight) }
        let isOutOfReach = Worker.isOutOfReach(problem)
        Loop.assumeIsolated {
            flight.land(failure, written: recorded?.form) { call in
                guard isOutOfReach, let stale = self.enter({ $0.staleAnswer(to: call) }) else { return nil }
                // The answer is good, and the box is not.
                call.record.error = failure?.message
                call.record.note(AnswerNote(raw: stale.note))
                return stale
            }
        }
    }

    func keep(_ recorded: Recorded, of flight: Flight) {
        guard let key = flight.key, !Loop.assumeIsolated({ flight.isOutdated }) else { return }
        cache.release(Loop.assumeIsolated { flight.giveBack() })
        guard
            cache.store(
                key, recorded.answer, form: recorded.form, endpoint: flight.endpoint, model: flight.spelling, at: time)
        else { return }
        Loop.assumeIsolated { metrics.stores += 1 }
        for spelling in Loop.assumeIsolated({ flight.spellings }) {
            cache.learn(raw: spelling.raw, key: key, form: spelling.form)
        }
        sweepLater()
    }

    /// Nobody joins a flight any more, and nothing of it is recorded.
    func forget(_ flight: Flight) {
        if let key = flight.key, joinable[key] === flight { joinable[key] = nil }
        cache.release(Loop.assumeIsolated { flight.giveBack() })
    }

    func failure(for error: any Error, of flight: Flight) -> Failure {
        switch error {
        case let refusal as Fleet.QueueRefusal:
            let (message, why): (String, Refusal) =
                switch refusal {
                case .full:
                    (
                        "every backend is busy, and \(settings.queue.limit) requests wait already (--queue-limit)",
                        .queueFull
                    )
                case .tooLong:
                    ("no backend became free within \(settings.queue.timeout) (--queue-timeout)", .queueTimeout)
                }
            return Failure(status: 503, message: message, retryAfter: Loop.assumeIsolated { fleet.retryAfter() }, why)
        case Balancer.Refusal.unknownModel:
            return Loop.assumeIsolated { Failure(unknownModel: flight.spelling, at: flight.endpoint) }
        case Balancer.Refusal.unavailable:
            let model = want(of: flight).model
            return Loop.assumeIsolated { fleet.unavailable(model) }
        default:
            let failure = Failure(error, backend: Loop.assumeIsolated { flight.backendName ?? "" })
            // Whoever is told waits: it was no client that ended the call.
            return failure.status == Failure.clientLeft ? .ending : failure
        }
    }

    // MARK: What flights tell

    /// Room for so many more bytes of an answer on its way; false if there is none.
    func reserve(_ bytes: Int) -> Bool { cache.reserve(bytes) }

    /// A box has begun to answer. Throws ``Flight/PassedOver`` if another is to do that.
    func answerBegan(_ flight: Flight, status: Int, headers: Headers) throws {
        let fault = Loop.assumeIsolated {
            guard let fault = Fault(status: status, headers: headers, at: fleet.clock()) else { return nil as Fault? }
            // What ollama.com says is no fault of the box's.
            return flight.isOfCloudModel || fleet.isRemote(flight.model) ? nil : fault
        }
        Loop.assumeIsolated {
            guard let lease = flight.lease else { return }
            if let fault { fleet.failed(lease, fault) } else { fleet.answered(lease, status: status) }
        }
        if fault != nil, Fault.passedOver.contains(status), hasAnother(flight) { throw Flight.PassedOver() }
        waitsNoMore(flight)
    }

    /// No box has begun to answer.
    func answerFailed(_ flight: Flight, _ error: any Error) {
        guard let error = error as? TransportError, let fault = Fault(error) else { return }
        Loop.assumeIsolated { if let lease = flight.lease { fleet.failed(lease, fault) } }
    }

    /// Somebody waits for a flight that no box has begun to answer; it may have been given up already.
    func waits(_ flight: Flight) {
        guard Loop.assumeIsolated({ !flight.isWaitingForModel }) else { return }
        Loop.assumeIsolated { flight.isWaitingForModel = true }
        waitingForModel[flight.model, default: 0] += 1
    }

    /// Nobody waits for a flight any more: it is cancelled, unless it may be loading what others wait for.
    func abandoned(_ flight: Flight) {
        keepIfWhole(flight)
        unwanted.append(flight)
        waitsNoMore(flight)
    }

    /// Clients leave once they have read the last word, and the end of the box's answer may come after it.
    func keepIfWhole(_ flight: Flight) {
        guard flight.key != nil, let answer = Loop.assumeIsolated({ flight.recordedSoFar() }) else { return }
        let check = WholenessCheck(answer: answer, asked: flight.form, endpoint: flight.endpoint)
        if let form = check.form() { keep(Recorded(answer: answer, form: form), of: flight) }
    }

    func waitsNoMore(_ flight: Flight) {
        if Loop.assumeIsolated({ flight.isWaitingForModel }) {
            Loop.assumeIsolated { flight.isWaitingForModel = false }
            let others = waitingForModel[flight.model, default: 1] - 1
            waitingForModel[flight.model] = others > 0 ? others : nil
        }
        if !unwanted.isEmpty { cancelUnwanted() }
    }

    func cancelUnwanted() {
        var kept: [Flight] = []
        for flight in unwanted where Loop.assumeIsolated({ !flight.hasSubscribers && !flight.hasLanded }) {
            // One is enough to load a model.
            if isLoadingForOthers(flight), !kept.contains(where: { isSameLoad($0, flight) }) {
                kept.append(flight)
            } else {
                forget(flight)
                Loop.assumeIsolated { flight.task?.cancel() }
            }
        }
        unwanted = kept
    }

    func isLoadingForOthers(_ flight: Flight) -> Bool {
        guard !flight.model.isEmpty, waitingForModel[flight.model] != nil,
            let lease = Loop.assumeIsolated({ flight.header == nil ? flight.lease : nil })
        else { return false }
        return time &- lease.since < Worker.loadTakesAtMost
            && Loop.assumeIsolated { fleet.queue.balancer.mayBeLoading(lease) }
    }

    func isSameLoad(_ one: Flight, _ other: Flight) -> Bool {
        one.model == other.model && Loop.assumeIsolated { one.lease?.backend == other.lease?.backend }
    }

    /// Nanoseconds: a call that nobody wants is not kept for longer.
    private static let loadTakesAtMost: UInt64 = 120_000_000_000

    /// Whether no box could be reached, or one had nothing to say: not its words, and not our own doing.
    private static func isOutOfReach(_ problem: (any Error)?) -> Bool {
        switch problem {
        case Balancer.Refusal.unavailable?: true
        case let error as TransportError:
            switch error.kind {
            case .resolve, .connect, .connectTimeout, .tls, .connectionLost, .firstByteTimeout: !error.answerBegan
            case .idleTimeout, .badAnswer, .local: false
            }
        default: false
        }
    }
}
