import EventLoop
import HTTPCore

/// The gateway: what stands between clients and the boxes.
///
/// The life of a request, from the server's calls:
///
///     receive   the header has come    →  how to take the body
///     answer    the body has come      →  what can be said at once: the gateway's own, a refusal, a hit
///     handle    everything else        →  to a model: through the worker; all else is relayed
///
/// Sees no socket and no C: backends are reached through a ``Transport``, time comes from clocks, hashes from a
/// ``Hash``.
@Loop
public final class Gateway: RequestHandler {
    let transport: any Transport
    let clock: WallClock
    let log: (any AccessLog)?
    /// Set when the program ends and answers are cut: then a cancelled request is not its client's doing.
    public var isEnding = false
    let settings: Settings
    private let monotonic: @Loop () -> UInt64
    private let hash: Hash
    let worker: Worker
    let fleet: Fleet
    private let admission: Admission
    let metrics: Metrics
    let live: Live
    let tracer: Tracer
    let surroundings: (any Surroundings)?
    private let management: Management
    var expositions = Reports<Exposition.Format>()
    var statuses = Reports<Int>()
    private var ids: RequestIDs

    let greeting = Response(status: 200, contentType: "text/plain; charset=utf-8", "Ollama is running")

    /// - Parameter monotonic: nanoseconds that never go back; the loop's own unless told otherwise.
    public init(
        backends: [Backend], transport: any Transport, settings: Settings = Settings(), hash: @escaping Hash,
        clock: @escaping WallClock, monotonic: @escaping @Loop () -> UInt64 = { Loop.events.now },
        log: (any AccessLog)? = nil, alarm: (any Alarm)? = nil, notices: (any Notices)? = nil,
        surroundings: (any Surroundings)? = nil
    ) {
        self.transport = transport
        self.settings = settings
        self.hash = hash
        self.clock = clock
        self.monotonic = monotonic
        self.log = log
        self.surroundings = surroundings
        ids = RequestIDs()
        let metrics = Metrics(isOn: settings.metrics)
        self.metrics = metrics
        let window = settings.rateWindow.clampedNanoseconds
        admission = Admission(
            settings.rateLimit > 0 ? [RateLimitCheck(RateLimit(limit: settings.rateLimit, window: window))] : [])
        fleet = Fleet(
            backends, settings: settings, transport: transport, metrics: metrics, now: monotonic, clock: clock,
            alarm: alarm, notices: notices)
        tracer = Tracer(
            settings.otlpEndpoint.map {
                SpanExporter(
                    endpoint: $0, transport: transport, clock: clock, notices: notices,
                    version: surroundings?.version ?? "")
            })
        let worker = Worker(
            settings: settings, fleet: fleet, transport: transport, metrics: metrics, tracer: tracer, now: monotonic)
        self.worker = worker
        management = Management(settings.fleet.manage)
        live = Live(worker, surroundings: surroundings, clock: clock)
        // Weak: the worker has the fleet.
        fleet.onDeath = { [weak worker] backend in worker?.enter { $0.leave(backend) } }
        // Their answers are another model's.
        fleet.onDisplaced = { [weak worker] names in
            worker?.enter { worker in for name in names { _ = worker.purge(model: ModelName(name)) } }
        }
    }

    /// Begins to look after the backends.
    public func start() {
        fleet.start()
        if settings.metrics { live.start() }
    }

    /// No more requests come: what would never end by itself ends.
    public func drain() { live.stop() }

    /// Looks after the backends no more, and sends off what it has not sent yet.
    public func stop() async {
        fleet.stop()
        await tracer.exporter?.stop()
    }

    // MARK: RequestHandler

    public func receive(_ request: Request) -> Intake {
        // Blobs are model files: they pass through, they are not kept.
        if request.path.hasPrefix("/api/blobs/") { return .stream }
        return .collect(limit: isOwn(request.path) ? min(Gateway.ownBody, settings.maxBody) : settings.maxBody)
    }

    public func answer(_ request: Request) -> Response? {
        if request.method == "POST", let endpoint = Endpoint(rawValue: request.path) {
            return answer(request, at: endpoint)
        }
        let start = clock()
        guard let response = ownAnswer(request) else { return nil }
        finish(response, request, at: start)
        return response
    }

    public func handle(_ request: Request, _ reply: consuming Reply) async {
        if let call = request.context as? Call {
            request.context = nil  // They would hold each other for ever.
            await serve(call, reply)
            return end(call)
        }
        await handleOther(request, reply)
    }

    /// What no model is asked for. On its own: what it keeps while it waits would be kept for each stream, too.
    @inline(never)
    private func handleOther(_ request: Request, _ reply: consuming Reply) async {
        let id = ids.id(for: request)
        let start = clock()
        if request.isReading, request.path == "/metrics" {
            return send(await exposition(request), request, reply, id: id, at: start)
        }
        if request.isReading, request.path == "/gateway/events" {
            return await serveEvents(request, reply, id: id, at: start)
        }
        await fleet.isStarted()
        let trace = tracer.trace(of: request)
        if request.isReading, let answer = await fleet.answer(request.path) {
            var record = AccessRecord(of: request, id: id, at: start, trace)
            record.end(answer, request, reply, at: clock())
            return finish(record)
        }
        if let change = management.change(of: request) {
            return finish(await management.handle(change, request, reply, id: id, at: start, trace, self))
        }
        let relay = Relay(request, id: id, at: start, to: await aim(of: request), trace, gateway: self)
        await relay.run(reply)
        finish(relay.record)
    }

    public func refusal(of request: Request?, for problem: RequestProblem) -> Response {
        let id = request.map { ids.id(for: $0) } ?? ids.next()
        // What the server turns away has not been counted; a request that went unanswered has.
        if problem != .unanswered, request?.method == "POST", Endpoint(rawValue: request?.path ?? "") != nil {
            metrics.requests += 1
        }
        let failure = Failure(problem)
        let response = failure.response(to: request?.path ?? "/", id: id)
        var record = AccessRecord(of: request, id: id, at: clock(), request.map { tracer.trace(of: $0) })
        record.note(failure)
        record.note(response)
        finish(record)
        return response
    }

    // MARK: Inference

    /// A refusal, or a hit that needs nothing but the hash of the request's bytes; nil for everything that waits.
    private func answer(_ request: Request, at endpoint: Endpoint) -> Response? {
        metrics.requests += 1
        let start = clock()
        let (admitted, refusal) = admission.admit(request, at: monotonic())
        let ownID = request.header("x-request-id")
        let raw = refusal == nil ? rawKey(of: request, at: endpoint) : nil
        if let raw, let hit = hitAtOnce(raw, ownID, admitted) {
            finishHit(hit, request, at: endpoint, start)
            return hit
        }
        let call = Call(
            request, at: endpoint, id: ids.id(for: request), directives: CacheControl(request.headers),
            admitted: admitted,
            trace: refusal == nil || tracer.exporter != nil ? tracer.trace(of: request) : nil, clock: clock)
        guard let refusal else {
            call.raw = raw
            request.context = call
            return nil
        }
        let response = refusal.response(to: request.path, id: call.id, adding: admitted)
        call.record.note(response)
        call.record.note(refusal)
        end(call)
        return response
    }

    /// The hash of the request's bytes, where an answer may be found by it.
    private func rawKey(of request: Request, at endpoint: Endpoint) -> Key? {
        guard worker.isCaching, endpoint.isCacheable, case .bytes(let body) = request.body,
            body.count <= QuestionReader.readAtOnce, request.header("cache-control") == nil,
            request.header("pragma") == nil, request.header("content-encoding") == nil
        else { return nil }
        return hash(body.buffer).salted(with: endpoint)
    }

    private func hitAtOnce(_ raw: Key, _ ownID: String?, _ admitted: Headers) -> Response? {
        var fields = admitted
        if let ownID, RequestIDs.isSane(ownID) { fields.append("X-Request-Id", ownID) }
        return worker.enter { $0.answer(raw: raw, adding: fields) }
    }

    private func serve(_ call: Call, _ reply: consuming Reply) async {
        await read(call)
        if let question = call.question, question.isUnload {
            guard let reply = await unload(question.modelName, call, reply) else { return }
            return await fly(call, reply)
        }
        await look(for: call, reply, attempts: 3)
    }

    /// Answers from the cache, from a call to a box under way, or from one of its own.
    private func look(for call: Call, _ reply: consuming Reply, attempts: Int) async {
        let question = call.question
        if let key = call.key, let question, !call.directives.noCache {
            let (raw, maxAge) = (call.raw, call.directives.maxAge)
            let fields = call.ownFields
            let found = worker.enter { $0.find(key, for: question, raw: raw, maxAge: maxAge, adding: fields) }
            switch found {
            case .hit(let response, let use):
                call.use = use
                call.record.note(AnswerNote(raw: response.note))
                return call.send(response, reply)
            case .join(let flight) where !call.directives.onlyIfCached:
                if call.use != .coalesced { metrics.joins += 1 }
                call.use = .coalesced
                guard let reply = await flight.serve(call, reply, isEnding: { isEnding }) else { return }
                // Its answer cannot be turned into what this client wants. The next that it joins may be asked for in
                // its own form; if not, it asks alone.
                if attempts > 1 { return await look(for: call, reply, attempts: attempts - 1) }
                call.key = nil
                call.use = .bypass("form")
                return await fly(call, reply)
            case .miss(isTooOld: true): call.use = .request
            case .join, .miss: break
            }
        }
        guard !call.directives.onlyIfCached else {
            let failure = Failure(
                status: 504, message: "the answer is not in the cache, and only-if-cached was asked for", .notCached)
            call.use = .unsatisfied
            call.record.note(failure)
            return call.send(call.response(to: failure), reply)
        }
        await fly(call, reply)
    }

    /// A call to a box for this client, which others may join.
    private func fly(_ call: Call, _ reply: consuming Reply) async {
        if call.key != nil, call.use != .request { call.use = call.directives.noCache ? .request : .miss }
        let flight = Flight(for: call, key: call.key, worker: worker)
        _ = await flight.serve(
            call, reply, isEnding: { isEnding }, begin: { worker.enter { $0.begin(flight) } })
    }

    /// Takes a model out of the memory of every backend that has it there.
    /// - Returns: the right to answer, if none has.
    private func unload(_ model: ModelName, _ call: Call, _ reply: consuming Reply) async -> Reply? {
        let loaded = await fleet.backends(thatHaveLoaded: model.description)
        guard !loaded.isEmpty else { return reply }
        metrics.misses += 1
        call.use = call.use ?? .bypass("load")
        call.record.goes(to: loaded.map { fleet.backends[$0].name })
        guard let answers = try? await FanOut.send(call.request, id: call.id, to: loaded, call.record.trace, self)
        else {
            call.record.cut(reply, call.request, isEnding: isEnding, at: clock())
            return nil
        }
        try? await FanOut.forEach(loaded) { await self.fleet.ask(whatRunsAt: $0) }
        let response = FanOut.response(to: call.request.path, id: call.id, answers, fleet)
        call.record.error = answers.lazy.compactMap(\.problem).first?.message
        call.send(
            Response(status: response.status, headers: call.headers(from: response.headers), body: response.body), reply
        )
        return nil
    }

    /// Where a request goes that is about no model's answer and changes nothing.
    private func aim(of request: Request) async -> Relay.Aim {
        guard request.method == "POST", request.path == "/api/show" else { return .any }
        let model = management.model(of: request)
        guard ModelName(model).isValid else { return .any }
        _ = await fleet.holders(of: model)
        // A backend says in its own words that it has no such model; where it may be is not known yet, nobody does.
        return fleet.isNowhere(model) ? .any : .model(model)
    }

    /// Reads what the call asks, and finds its key.
    private func read(_ call: Call) async {
        guard case .bytes(let body) = call.request.body else { return call.use = .bypass("malformed") }
        guard call.request.header("content-encoding") == nil else { return call.use = .bypass("encoded") }
        let reader = QuestionReader(
            body: body, endpoint: call.endpoint, raw: call.raw, isCaching: worker.isCaching,
            cachesTools: settings.cache.includesTools, wantsConversation: settings.fleet.balance == .affinity,
            hash: hash)
        let read = body.count <= QuestionReader.readAtOnce ? reader.read() : await reader.readElsewhere()
        call.question = read.question
        call.conversation = read.conversation
        if case .bypass(let reason) = read.question.content { return call.use = .bypass(reason.rawValue) }
        if settings.cache.onlyDeterministic, !read.question.isDeterministic { return call.use = .bypass("random") }
        if call.directives.noStore { return call.use = .bypass("no-store") }
        call.raw = read.raw
        call.key = read.key
        call.asking = read.asking
    }

    /// A call is over, and its answer sent.
    private func end(_ call: Call) {
        call.ended()
        if call.use?.isHit == true, call.record.status < 400 { metrics.hits += 1 }
        if let question = call.question, !question.modelName.description.isEmpty {
            call.record.model = question.modelName.description
            call.record.modelLabel = fleet.label(of: question.modelName.description)
        }
        finish(call.record)
    }

    // MARK: What is over

    /// Counts a request, shows it, and logs it.
    private func finish(_ record: AccessRecord) {
        metrics.count(record)
        tell(record)
    }

    private func tell(_ record: AccessRecord) {
        live.note(record)
        tracer.note(record)
        if let log, log.wants.includes(record) { log.record(record) }
    }

    /// Of what is about the gateway itself.
    func finish(_ response: Response, _ request: Request, id: String? = nil, at start: Int64) {
        let route = Route(path: request.path)
        // Nothing is made that nobody wants.
        if route.isOwn, request.isReading, log?.wants != .all { return metrics.count(route, response.status) }
        var record = AccessRecord(of: request, id: id ?? ids.id(for: request), at: start)
        record.note(response)
        record.duration = clock() - start
        finish(record)
    }

    /// A hit that waited for nothing: a record of it is made only if somebody wants it.
    private func finishHit(_ hit: Response, _ request: Request, at endpoint: Endpoint, _ start: Int64) {
        let duration = clock() - start
        let note = AnswerNote(raw: hit.note)
        metrics.countHit(at: endpoint, note, microseconds: duration)
        let isLogged = log.map { $0.wants == .all || $0.wants == .requests } ?? false
        let isTraced = tracer.exporter != nil
        guard isLogged || isTraced || live.takesMore else { return live.noteMore() }
        var record = AccessRecord(
            of: request, id: ids.id(for: request), at: start,
            isTraced || request.header("traceparent") != nil ? tracer.trace(of: request) : nil)
        record.note(hit)
        record.note(note)
        record.use = .hit(ttl: 0)
        record.duration = duration
        record.model = note.model == ModelLabels.other ? nil : metrics.modelLabels.names[note.model]
        tell(record)
    }
}
