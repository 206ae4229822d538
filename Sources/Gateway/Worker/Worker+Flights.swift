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

    func run(_ flight: Flight) async {
        var problem: (any Error)?
        var recorded: Recorded?
        do {
            let backend = try await turn(of: flight)
            runningCount += 1
            sumOfSentAt += Double(Loop.assumeIsolated { flight.sentAt })
            defer {
                runningCount -= 1
                sumOfSentAt -= Double(Loop.assumeIsolated { flight.sentAt })
                pass(backend)
            }
            try await flight.fly(to: backends[backend], by: transport)
            if Loop.assumeIsolated({ flight.header?.status == 200 }) {
                note(time &- Loop.assumeIsolated { flight.sentAt })
            }
            recorded = await recordedAnswer(of: flight)
        } catch {
            problem = error
        }
        land(flight, problem, recorded)
        flights[ObjectIdentifier(flight)] = nil
        forget(flight)
        waitsNoMore(flight)
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
        let isOutOfReach = (problem as? TransportError)?.isOutOfReach == true
        Loop.assumeIsolated {
            flight.land(failure, written: recorded?.form) { call in
                guard isOutOfReach, let stale = self.enter({ $0.staleAnswer(to: call) }) else { return nil }
                // The answer is good, and the box is not.
                call.record.error = failure?.message
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
        guard let refusal = error as? QueueRefusal else {
            let failure = Failure(error, backend: backends[Loop.assumeIsolated { flight.backend } ?? 0])
            // Whoever is told waits: it was no client that ended the call.
            return failure.status == Failure.clientLeft ? .ending : failure
        }
        let message =
            switch refusal {
            case .full: "every backend is busy, and \(settings.queue.limit) requests wait already (--queue-limit)"
            case .tooLong: "no backend became free within \(settings.queue.timeout) (--queue-timeout)"
            }
        return Failure(status: 503, message: message, retryAfter: retryAfter())
    }

    // MARK: What flights tell

    /// Room for so many more bytes of an answer on its way; false if there is none.
    func reserve(_ bytes: Int) -> Bool { cache.reserve(bytes) }

    func answerBegan(_ flight: Flight, status: Int) {
        if status == 200, let backend = Loop.assumeIsolated({ flight.backend }) {
            loads.note(backend: backend, model: flight.model, at: time)
        }
        waitsNoMore(flight)
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
            let backend = Loop.assumeIsolated({ flight.header == nil ? flight.backend : nil })
        else { return false }
        let sentAt = Loop.assumeIsolated { flight.sentAt }
        return time &- sentAt < Worker.loadTakesAtMost
            && loads.mayLoad(backend: backend, model: flight.model, at: time)
    }

    func isSameLoad(_ one: Flight, _ other: Flight) -> Bool {
        one.model == other.model && Loop.assumeIsolated { one.backend == other.backend }
    }

    /// Nanoseconds: a call that nobody wants is not kept for longer.
    private static let loadTakesAtMost: UInt64 = 120_000_000_000
}

extension TransportError {
    /// Whether the box could not be reached, or had nothing to say: not its words, and not our own doing.
    fileprivate var isOutOfReach: Bool {
        guard !answerBegan else { return false }
        return switch kind {
        case .resolve, .connect, .connectTimeout, .tls, .connectionLost, .firstByteTimeout: true
        case .idleTimeout, .badAnswer, .local: false
        }
    }
}
