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
    private let settings: Settings
    private let monotonic: @Loop () -> UInt64
    private let hash: Hash
    let worker: Worker
    private let admission: Admission
    private let metrics = Metrics()
    private var rotation: RoundRobin
    private var ids: RequestIDs

    private let greeting = Response(status: 200, contentType: "text/plain; charset=utf-8", "Ollama is running")

    /// - Parameter monotonic: nanoseconds that never go back; the loop's own unless told otherwise.
    public init(
        backends: [Backend], transport: any Transport, settings: Settings = Settings(), hash: @escaping Hash,
        clock: @escaping WallClock, monotonic: @escaping @Loop () -> UInt64 = { Loop.events.now },
        log: (any AccessLog)? = nil
    ) {
        self.transport = transport
        self.settings = settings
        self.hash = hash
        self.clock = clock
        self.monotonic = monotonic
        self.log = log
        rotation = RoundRobin(backends)
        ids = RequestIDs()
        let window = settings.rateWindow.clampedNanoseconds
        admission = Admission(
            settings.rateLimit > 0 ? [RateLimitCheck(RateLimit(limit: settings.rateLimit, window: window))] : [])
        worker = Worker(
            settings: settings, backends: backends, transport: transport, metrics: metrics, now: monotonic)
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
        guard let response = ownAnswer(request) else { return nil }
        record(response, request, at: clock())
        return response
    }

    public func handle(_ request: Request, _ reply: consuming Reply) async {
        if let call = request.context as? Call {
            request.context = nil  // They would hold each other for ever.
            await serve(call, reply)
            return end(call)
        }
        let id = ids.id(for: request)
        let relay = Relay(request, id: id, backend: rotation.next(), gateway: self)
        await relay.run(reply)
        record(relay.record)
    }

    public func refusal(of request: Request?, for problem: RequestProblem) -> Response {
        let id = request.map { ids.id(for: $0) } ?? ids.next()
        // What the server turns away has not been counted; a request that went unanswered has.
        if problem != .unanswered, request?.method == "POST", Endpoint(rawValue: request?.path ?? "") != nil {
            metrics.requests += 1
        }
        let failure = Failure(status: problem.status, message: problem.message)
        let response = failure.response(to: request?.path ?? "/", id: id)
        var record = AccessRecord(of: request, id: id, at: clock())
        record.status = problem.status
        record.error = problem.message
        record.bytes = response.body.count
        self.record(record)
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
            metrics.hits += 1
            metrics.observe(latency: clock() - start)
            record(hit, request, cache: .hit(ttl: 0), at: start)
            return hit
        }
        let call = Call(
            request, at: endpoint, id: ids.id(for: request), directives: CacheControl(request.headers),
            admitted: admitted, clock: clock)
        guard let refusal else {
            call.raw = raw
            request.context = call
            return nil
        }
        let response = refusal.response(to: request.path, id: call.id, adding: admitted)
        call.note(response)
        call.record.error = refusal.message
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
                return call.send(response, reply)
            case .join(let flight) where !call.directives.onlyIfCached:
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
                status: 504, message: "the answer is not in the cache, and only-if-cached was asked for")
            call.use = .unsatisfied
            call.record.error = failure.message
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

    /// Reads what the call asks, and finds its key.
    private func read(_ call: Call) async {
        guard case .bytes(let body) = call.request.body else { return call.use = .bypass("malformed") }
        guard call.request.header("content-encoding") == nil else { return call.use = .bypass("encoded") }
        let reader = QuestionReader(
            body: body, endpoint: call.endpoint, raw: call.raw, isCaching: worker.isCaching,
            cachesTools: settings.cache.includesTools, hash: hash)
        let read = body.count <= QuestionReader.readAtOnce ? reader.read() : await reader.readElsewhere()
        call.question = read.question
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
        if call.record.status != 429 { metrics.observe(latency: call.record.duration) }
        record(call.record)
    }

    private func record(_ record: AccessRecord) {
        if let log, log.wants.includes(failure: record.isFailure) { log.record(record) }
    }

    /// For what was answered at once, which is no failure: nothing is made of it that nobody wants.
    private func record(_ response: Response, _ request: Request, cache: CacheUse? = nil, at start: Int64) {
        guard let log, log.wants == .all else { return }
        var record = AccessRecord(of: request, id: ids.id(for: request), at: start)
        record.status = response.status
        record.bytes = request.method == "HEAD" ? 0 : response.body.count
        record.duration = clock() - start
        record.cache = cache?.word
        log.record(record)
    }

    // MARK: The gateway's own

    /// Bytes that a request to the gateway itself may carry: they are read and not looked at.
    private static let ownBody = 64 * 1024

    private func isOwn(_ path: String) -> Bool {
        path == "/health" || path == "/metrics" || path == "/gateway" || path.hasPrefix("/gateway/")
    }

    private func ownAnswer(_ request: Request) -> Response? {
        // No tunnels: what would follow is not HTTP.
        if request.method == "CONNECT" { return refuse(405, "CONNECT is not supported") }
        switch request.path {
        case "/" where request.method == "GET" || request.method == "HEAD":
            return greeting
        case "/health":
            return only(["GET", "HEAD"], request) {
                let now = Timestamp.utc(clock(), fraction: .microseconds, zone: "+00:00")
                return json(200, #"{"status":"healthy","timestamp":"\#(now)"}"#)
            }
        case "/metrics":
            return only(["GET", "HEAD"], request) {
                let entries = worker.enter { $0.entries }
                return Response(status: 200, contentType: Metrics.contentType, metrics.text(cacheEntries: entries))
            }
        case "/gateway/cache":
            return only(["DELETE"], request) { purge(request) }
        case let path where isOwn(path):
            return refuse(404, "the gateway has no \(path)")
        default:
            return nil
        }
    }

    private func only(_ methods: [String], _ request: Request, _ answer: () -> Response) -> Response {
        if methods.contains(request.method) { return answer() }
        return refuse(405, "method not allowed", ["Allow": methods.joined(separator: ", ")])
    }

    private func json(_ status: Int, _ text: String) -> Response {
        Response(status: status, contentType: "application/json", text)
    }

    private func refuse(_ status: Int, _ message: String, _ fields: Headers = [:]) -> Response {
        var headers: Headers = ["Content-Type": "application/json"]
        headers.append(fields)
        return Response(
            status: status, headers: headers,
            body: Bytes(Dialect.native.body(status: status, message: message, id: "")))
    }

    /// Empties the cache, or forgets one model's answers. For this machine only, until there are keys.
    private func purge(_ request: Request) -> Response {
        // A page in a browser on this machine is no client on this machine.
        guard request.peer.isLoopback, request.header("origin") == nil, Gateway.isLocal(request.header("host")) else {
            return refuse(403, "purging is for clients on the gateway's own machine")
        }
        let query = request.target.drop { $0 != "?" }.dropFirst()
        guard !query.isEmpty else { return json(200, #"{"purged":\#(worker.enter { $0.purge() })}"#) }
        guard query.hasPrefix("model="), !query.contains("&"),
            let name = String(query.dropFirst(6)).percentDecoded(isQuery: true), !name.isEmpty
        else {
            return refuse(400, "unknown query '\(query)'; allowed is model=NAME")
        }
        return json(200, #"{"purged":\#(worker.enter { $0.purge(model: ModelName(name)) })}"#)
    }
}

extension Gateway {
    /// Whether a `Host` names this machine to itself; else the name may be anybody's that leads here.
    static func isLocal(_ host: String?) -> Bool {
        guard let host else { return true }
        let name = host.hasPrefix("[") ? host.prefix { $0 != "]" } + "]" : host.prefix { $0 != ":" }
        return ["localhost", "[::1]", "unix"].contains(name.lowercased()) || name.hasPrefix("127.")
    }
}
