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

    let settings: Gateway.Settings
    let fleet: Fleet
    let transport: any Transport
    let metrics: Metrics
    let tracer: Tracer
    private let now: @Loop () -> UInt64
    private let freshSeconds: Int

    var cache: Cache
    private var isSweeping = false
    /// Those that can be joined, by what they ask.
    var joinable: [Key: Flight] = [:]
    /// All of them.
    var flights: [ObjectIdentifier: Flight] = [:]
    /// For each model, the flights that somebody waits for and no box has begun to answer.
    var waitingForModel: [String: Int] = [:]
    /// Flights that go on though nobody wants them: they may be loading what others wait for.
    var unwanted: [Flight] = []

    init(
        settings: Gateway.Settings, fleet: Fleet, transport: any Transport, metrics: Metrics,
        tracer: Tracer, now: @escaping @Loop () -> UInt64
    ) {
        self.settings = settings
        self.fleet = fleet
        self.transport = transport
        self.metrics = metrics
        self.tracer = tracer
        self.now = now
        freshSeconds = Int(settings.cache.ttl.components.seconds)
        cache = Cache(
            maxBytes: settings.cache.maxBytes, maxEntryBytes: settings.cache.maxEntryBytes,
            ttl: settings.cache.ttl.clampedNanoseconds, staleFor: settings.cache.staleIfError.clampedNanoseconds)
    }

    /// Runs `body` in the worker, now. For code of the loop, which is on the worker's executor already.
    nonisolated func enter<T>(_ body: (isolated Worker) throws -> T) rethrows -> T {
        // As `Loop.unchecked` does it: the executor is the same, isolation is a matter of the type.
        assert(Loop.events.isCurrent, "the worker was entered from another thread")
        return try withoutActuallyEscaping(body) { body in
            try unsafeBitCast(body, to: ((Worker) throws -> T).self)(self)
        }
    }

    var time: UInt64 { Loop.assumeIsolated { now() } }

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
    func staleAnswer(to call: Call) -> Response? {
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
    func answer(
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
        let note = kept?.note ?? self.note(of: contents)
        // With fields of its own an answer serves nobody else, but for what took work to make.
        if isSpelledAlike, fields.count == 0 || kept == nil {
            let response = Response(status: 200, headers: headers, body: body, note: note)
            cache.keep(response, of: entry, as: form, extraBytes: isPayload ? 0 : body.count)
            if fields.count == 0 { return (response, use) }
        }
        headers.append(fields)
        return (Response(status: 200, headers: headers, body: body, note: note), use)
    }

    /// What is counted when an entry is used.
    private func note(of contents: Cache.Contents) -> UInt64 {
        let model = ModelName(contents.model).description
        return AnswerNote(
            model: Loop.assumeIsolated { fleet.label(of: model) }, AnswerUsage(endOf: contents.payload.buffer)
        ).raw
    }

    /// In whole seconds.
    private func age(of contents: Cache.Contents) -> Int {
        let time = time
        return time > contents.storedAt ? Int((time - contents.storedAt) / 1_000_000_000) : 0
    }

    var cacheGauges: CacheGauges {
        CacheGauges(
            entries: cache.count, bytes: cache.bytes, maxBytes: settings.cache.maxBytes, removals: cache.removals)
    }

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
    func sweepLater() {
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
}
