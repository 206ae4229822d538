import EventLoop
import HTTPCore

/// The heart of the gateway: cache check, dispatch to a backend and cache store happen here, one at a time.
///
/// An actor on the loop's executor. Waiting for a box is `await`, so a hit never waits behind a slow miss; and since
/// the loop is the executor, entering costs no hop, from the loop's own code not even an `await` (``enter(_:)``).
///
///     find ──► hit                                       the answer is queued
///       └────► join ──► Flight                           somebody asks the box the same already
///       └────► begin ──► run: queue ──► box ──► store    a call of its own
actor Worker {
    nonisolated var unownedExecutor: UnownedSerialExecutor { Loop.events.asUnownedSerialExecutor() }

    private let settings: Gateway.Settings
    private let backends: [Backend]
    private let transport: any Transport
    private let metrics: Metrics
    private let now: @Loop () -> UInt64
    private let freshSeconds: Int

    private(set) var cache: Cache
    private var isSweeping = false
    /// Those that can be joined, by what they ask.
    private(set) var joinable: [Key: Flight] = [:]
    /// All of them.
    private(set) var flights: [ObjectIdentifier: Flight] = [:]
    private(set) var queue: RequestQueue
    /// Woken when their turn comes.
    private var waiting: [RequestQueue.Ticket: Turn] = [:]
    private var loads = LoadWatch()
    /// For each model, the flights that somebody waits for and no box has begun to answer.
    private(set) var waitingForModel: [String: Int] = [:]
    /// Flights that go on though nobody wants them: they may be loading what others wait for.
    private(set) var unwanted: [Flight] = []
    /// Nanoseconds that a call takes, a moving average.
    private var usualTime: Double?
    private var runningCount = 0
    /// Of those that run.
    private var sumOfSentAt = 0.0

    @Loop
    private final class Turn {
        var signal: Signal?
        var backend: Int?

        nonisolated init() {}

        func comes(at backend: Int) {
            self.backend = backend
            signal?.fire()
        }

        func wait(for patience: Duration, orThrow error: any Error) async throws {
            var timer: Timer?
            defer { if let timer { Loop.events.cancel(timer) } }
            try await Signal.wait { signal in
                self.signal = signal
                if backend != nil { signal.fire() }
                timer = Loop.events.schedule(after: patience) { signal.fire(error) }
            }
        }
    }

    init(
        settings: Gateway.Settings, backends: [Backend], transport: any Transport, metrics: Metrics,
        now: @escaping @Loop () -> UInt64
    ) {
        self.settings = settings
        self.backends = backends
        self.transport = transport
        self.metrics = metrics
        self.now = now
        freshSeconds = Int(settings.cache.ttl.components.seconds)
        cache = Cache(
            maxBytes: settings.cache.maxBytes, maxEntryBytes: settings.cache.maxEntryBytes,
            ttl: settings.cache.ttl.clampedNanoseconds, staleFor: settings.cache.staleIfError.clampedNanoseconds)
        queue = RequestQueue(
            backends: backends.count, concurrency: settings.queue.concurrency, limit: settings.queue.limit)
    }

    /// Runs `body` in the worker, now. For code of the loop, which is on the worker's executor already.
    nonisolated func enter<T>(_ body: (isolated Worker) throws -> T) rethrows -> T {
        // As `Loop.unchecked` does it: the executor is the same, isolation is a matter of the type.
        assert(Loop.events.isCurrent, "the worker was entered from another thread")
        return try withoutActuallyEscaping(body) { body in
            try unsafeBitCast(body, to: ((Worker) throws -> T).self)(self)
        }
    }

    private var time: UInt64 { Loop.assumeIsolated { now() } }

    nonisolated var isCaching: Bool { settings.cache.ttl > .zero }
    nonisolated var maxEntryBytes: Int { settings.cache.maxEntryBytes }

    // MARK: The cache

    /// What is to be done for a call whose question was read.
    enum Finding {
        case hit(Response, CacheUse)
        case join(Flight)
        /// - Parameter isTooOld: there is an answer, older than the client wants it.
        case miss(isTooOld: Bool)
    }

    /// Looks for an answer, or for somebody who is asking for it.
    /// - Parameters:
    ///   - raw: what the answer may be found by without reading the question; nil if it may not.
    ///   - maxAge: in seconds; an older answer will not do.
    ///   - fields: for the answer.
    func find(_ key: Key, for question: Question, raw: Key?, maxAge: Int?, adding fields: Headers) -> Finding {
        var isTooOld = false
        if let entry = cache.lookUp(key, at: time), let contents = cache.contents(of: entry) {
            isTooOld = maxAge.map { age(of: contents) > $0 } ?? false
            if !isTooOld, let found = answer(entry, as: question.form, for: question.model, adding: fields) {
                if let raw, contents.model == question.model { cache.learn(raw: raw, key: key, form: question.form) }
                return .hit(found.response, found.use)
            }
        }
        if let flight = joinable[key], Loop.assumeIsolated({ flight.isJoinable }) { return .join(flight) }
        return .miss(isTooOld: isTooOld)
    }

    /// The answer to a request whose very bytes were asked before.
    func answer(raw: Key, adding fields: Headers) -> Response? {
        guard let found = cache.lookUp(raw: raw, at: time) else { return nil }
        return answer(found.entry, as: found.form, for: nil, adding: fields)?.response
    }

    /// An answer that is no longer fresh, for when no box can be reached.
    private func staleAnswer(to call: Call) -> Response? {
        let (key, asked, directives) = Loop.assumeIsolated { (call.key, call.question, call.directives) }
        guard settings.cache.staleIfError > .zero, !directives.noCache, let key, let question = asked,
            let entry = cache.lookUpStale(key, at: time), let contents = cache.contents(of: entry),
            directives.maxAge.map({ age(of: contents) <= $0 }) ?? true,
            let found = answer(
                entry, as: question.form, for: question.model, adding: Loop.assumeIsolated { call.ownFields })
        else { return nil }
        Loop.assumeIsolated { call.use = found.use }
        return found.response
    }

    /// An entry as an answer; nil if it cannot be had in this form.
    /// - Parameter model: how the request spells it; nil if as the entry has it.
    private func answer(
        _ entry: Cache.Entry, as form: AnswerForm, for model: String?, adding fields: Headers
    ) -> (response: Response, use: CacheUse)? {
        guard let contents = cache.contents(of: entry) else { return nil }
        let age = age(of: contents)
        let use = CacheUse.hit(ttl: freshSeconds - age)
        let isSpelledAlike = model == nil || model == contents.model
        let kept = isSpelledAlike ? cache.response(of: entry, as: form) : nil
        if let kept, fields.count == 0, kept.headers["age"] == String(age) { return (kept, use) }

        let isPayload = isSpelledAlike && form == contents.form
        let converted =
            isPayload
            ? contents.payload
            : kept?.body
                ?? Answers.convert(
                    contents.payload.buffer, from: contents.form, to: form, endpoint: contents.endpoint,
                    model: isSpelledAlike ? nil : model)
        guard let body = converted else { return nil }
        var headers: Headers = [
            "Content-Type": form.contentType(of: contents.endpoint), "X-Cache": use.word, "Cache-Status": use.status,
            "Age": String(age),
        ]
        // With fields of its own an answer serves nobody else, but for a body that took work to make.
        if isSpelledAlike, fields.count == 0 || (!isPayload && kept == nil) {
            let response = Response(status: 200, headers: headers, body: body)
            cache.keep(response, of: entry, as: form, extraBytes: isPayload ? 0 : body.count)
            if fields.count == 0 { return (response, use) }
        }
        headers.reserve(headers.count + fields.count)
        for field in fields.fields { headers.append(field.name, field.value) }
        return (Response(status: 200, headers: headers, body: body), use)
    }

    /// In whole seconds.
    private func age(of contents: Cache.Contents) -> Int {
        let time = time
        return time > contents.storedAt ? Int((time - contents.storedAt) / 1_000_000_000) : 0
    }

    /// Answers in the cache.
    var entries: Int { cache.count }

    func purge() -> Int {
        outdate { _ in true }
        return cache.purge()
    }

    /// Forgets the answers of a model, however requests have spelled it.
    func purge(model: ModelName) -> Int {
        outdate { $0 == model.description }
        return cache.modelNames.filter { ModelName($0) == model }.reduce(0) { $0 + cache.purge(model: $1) }
    }

    /// What is being answered now is as old as what is purged: it is not to be kept, and nobody joins it.
    private func outdate(_ isMeant: (String) -> Bool) {
        for flight in flights.values where isMeant(flight.model) { Loop.assumeIsolated { flight.isOutdated = true } }
    }

    private static let sweptAtOnce = 1024

    /// Lets go of what is too old or was purged, bit by bit, for as long as there is anything.
    private func sweepLater() {
        guard !isSweeping else { return }
        isSweeping = true
        let pause = cache.unsweptCount > 0 ? Duration.milliseconds(10) : .seconds(1)
        Loop.assumeIsolated {
            _ = Loop.events.schedule(after: pause) { self.enter { $0.sweep() } }
        }
    }

    private func sweep() {
        isSweeping = false
        cache.sweep(at: time, limit: Worker.sweptAtOnce)
        if cache.count > 0 || cache.unsweptCount > 0 { sweepLater() }
    }

    // MARK: Flights

    /// Starts a call of its own. What can be done at once is done when this returns.
    func begin(_ flight: Flight) {
        flights[ObjectIdentifier(flight)] = flight
        // One that nobody can join any more gives way.
        if let key = flight.key, joinable[key].map({ other in Loop.assumeIsolated { other.isJoinable } }) != true {
            joinable[key] = flight
        }
        Loop.assumeIsolated { flight.task = Loop.task { await self.run(flight) } }
    }

    private func run(_ flight: Flight) async {
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
    private struct Recorded {
        let answer: Bytes
        let form: AnswerForm
    }

    /// What a flight has recorded, if it may be kept.
    private func recordedAnswer(of flight: Flight) async -> Recorded? {
        guard let answer = Loop.assumeIsolated({ flight.recorded() }) else { return nil }
        let check = WholenessCheck(answer: answer, asked: flight.form, endpoint: flight.endpoint)
        let form = answer.count <= QuestionReader.readAtOnce ? check.form() : await check.formElsewhere()
        return form.map { Recorded(answer: answer, form: $0) }
    }

    /// Keeps the answer and tells everybody, in one go: nobody finds neither the entry nor the flight.
    private func land(_ flight: Flight, _ problem: (any Error)?, _ recorded: Recorded?) {
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

    private func keep(_ recorded: Recorded, of flight: Flight) {
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

    private func forget(_ flight: Flight) {
        if let key = flight.key, joinable[key] === flight { joinable[key] = nil }
        cache.release(Loop.assumeIsolated { flight.giveBack() })
    }

    private func failure(for error: any Error, of flight: Flight) -> Failure {
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

    // MARK: The queue

    private enum QueueRefusal: Error { case full, tooLong }

    /// Waits for a backend to be free. Whoever gets one gives it back with ``pass(_:)``.
    private func turn(of flight: Flight) async throws -> Int {
        let backend: Int
        switch queue.enter() {
        case .run(let free): backend = free
        case .full: throw QueueRefusal.full
        case .wait(let ticket): backend = try await wait(with: ticket)
        }
        let time = time
        Loop.assumeIsolated {
            flight.backend = backend
            flight.sentAt = time
            metrics.misses += 1
        }
        return backend
    }

    private func wait(with ticket: RequestQueue.Ticket) async throws -> Int {
        let turn = Turn()
        waiting[ticket] = turn
        do {
            try await turn.wait(for: settings.queue.timeout, orThrow: QueueRefusal.tooLong)
        } catch {
            waiting[ticket] = nil
            queue.leave(ticket)
            // Its turn came in the moment in which it gave up.
            if let backend = Loop.assumeIsolated({ turn.backend }) { pass(backend) }
            throw error
        }
        waiting[ticket] = nil
        guard let backend = Loop.assumeIsolated({ turn.backend }) else { throw CancellationError() }
        return backend
    }

    /// A call has ended: the next one's turn.
    private func pass(_ backend: Int) {
        guard let next = queue.release(backend: backend) else { return }
        guard let turn = waiting[next.ticket] else { return pass(next.backend) }
        Loop.assumeIsolated { turn.comes(at: next.backend) }
    }

    private func note(_ nanoseconds: UInt64) {
        let latest = Double(nanoseconds)
        usualTime = usualTime.map { $0 * 0.8 + latest * 0.2 } ?? latest
    }

    /// Seconds until one who comes now would have its turn, by how long calls take and how many wait.
    private func retryAfter() -> Int {
        let time = time
        // Calls that have taken longer than usual are what is usual now.
        let sinceSent = runningCount > 0 ? Double(time) - sumOfSentAt / Double(runningCount) : 0
        let expected = max(usualTime ?? 0, sinceSent)
        let seconds = expected / 1e9 * Double(queue.waiting + 1) / Double(queue.slots)
        return min(max(1, Int(seconds.rounded(.up))), 3600)
    }

    // MARK: What flights tell

    /// Room for so many more bytes of an answer on its way; false if there is none.
    func reserve(_ bytes: Int) -> Bool { cache.reserve(bytes) }

    func stoppedRecording(_ flight: Flight) { forget(flight) }

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
    private func keepIfWhole(_ flight: Flight) {
        guard flight.key != nil, let answer = Loop.assumeIsolated({ flight.recordedSoFar() }) else { return }
        let check = WholenessCheck(answer: answer, asked: flight.form, endpoint: flight.endpoint)
        if let form = check.form() { keep(Recorded(answer: answer, form: form), of: flight) }
    }

    private func waitsNoMore(_ flight: Flight) {
        if Loop.assumeIsolated({ flight.isWaitingForModel }) {
            Loop.assumeIsolated { flight.isWaitingForModel = false }
            let others = waitingForModel[flight.model, default: 1] - 1
            waitingForModel[flight.model] = others > 0 ? others : nil
        }
        if !unwanted.isEmpty { cancelUnwanted() }
    }

    private func cancelUnwanted() {
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

    private func isLoadingForOthers(_ flight: Flight) -> Bool {
        guard !flight.model.isEmpty, waitingForModel[flight.model] != nil,
            let backend = Loop.assumeIsolated({ flight.header == nil ? flight.backend : nil })
        else { return false }
        let sentAt = Loop.assumeIsolated { flight.sentAt }
        return time &- sentAt < Worker.loadTakesAtMost
            && loads.mayLoad(backend: backend, model: flight.model, at: time)
    }

    private func isSameLoad(_ one: Flight, _ other: Flight) -> Bool {
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
