import EventLoop
import HTTPCore

/// An inference request on its way through the gateway, and what becomes of it.
@Loop
final class Call {
    let request: Request
    let endpoint: Endpoint
    let id: String
    /// What the client asked of the cache.
    let directives: CacheControl
    /// Fields that admission has for the answer.
    let admitted: Headers
    /// The hash of the request's bytes, if it is known.
    var raw: Key?
    var question: Question?
    /// See ``ConversationHash``.
    var conversation: UInt64 = 0
    /// The hash of the canonical form; nil for what the cache has nothing to do with.
    var key: Key?
    /// The body that a box is asked with, if it is not the client's.
    var asking: Bytes?
    /// How the cache was used. Told to the client and the log.
    var use: CacheUse? {
        get { record.use }
        set { record.use = newValue }
    }
    /// For the access log; complete when the call is over.
    var record: AccessRecord

    private let clock: WallClock

    init(
        _ request: Request, at endpoint: Endpoint, id: String, directives: CacheControl, admitted: Headers,
        trace: RequestTrace? = nil, clock: @escaping WallClock
    ) {
        self.request = request
        self.endpoint = endpoint
        self.id = id
        self.directives = directives
        self.admitted = admitted
        self.clock = clock
        record = AccessRecord(of: request, id: id, at: clock(), trace)
    }

    /// How the client wants its answer.
    var form: AnswerForm { question?.form ?? .whole }

    /// Its answer has begun.
    func answerBegan(at backend: String?, tries: Int) {
        record.backend = backend
        record.tries = tries
        if record.firstByte == nil { record.firstByte = clock() - record.start }
    }

    /// It has its place at a backend.
    /// - Parameter waited: microseconds that the call to it has waited in all.
    func gotPlace(at backend: String, tries: Int, after waited: Int64) {
        record.backend = backend
        record.tries = tries
        // Who joined later has waited less.
        record.queueWait = min(waited, clock() - record.start)
    }

    /// It is over.
    func ended() { record.duration = clock() - record.start }

    /// Fields that an answer from the cache has beside the cache's own: the client's id only if it sent one.
    var ownFields: Headers {
        var fields = admitted
        if request.header("x-request-id") == id { fields.append("X-Request-Id", id) }
        return fields
    }

    /// Fields of the answer that are ours to say.
    func fields() -> Headers {
        var fields = admitted
        if let use {
            fields.append("X-Cache", use.word)
            fields.append("Cache-Status", use.status)
        }
        return fields
    }

    /// A box's header fields as this client gets them.
    func headers(from box: Headers) -> Headers {
        // Who joins gets the answer, and nothing that was said to the first client alone.
        var headers = box
        if use == .coalesced { headers = Headers(box.fields.filter { Headers.same($0.name, "Content-Type") }) }
        if headers["x-request-id"] == nil { headers.append("X-Request-Id", id) }
        // `Cache-Status` is a list, to which each cache on the way adds itself.
        for field in fields().fields where !Headers.same(field.name, "Cache-Status") {
            headers.set(field.name, field.value)
        }
        if let use { headers.append("Cache-Status", use.status) }
        return headers
    }

    func send(_ response: Response, _ reply: consuming Reply) {
        record.note(response)
        reply.send(response)
    }

    func response(to failure: Failure) -> Response {
        failure.response(to: request.path, id: id, adding: fields())
    }
}

/// How the cache was used for an answer. Source: RFC 9211.
enum CacheUse: Equatable {
    /// From the cache; seconds until it is stale, negative if it is.
    case hit(ttl: Int)
    /// The box was asked.
    case miss
    /// The box was being asked the same already.
    case coalesced
    /// The box was asked because the client wanted so.
    case request
    /// The cache had nothing to do with it, and why, in a word.
    case bypass(String)
    /// Not in the cache, and the client wanted nothing else.
    case unsatisfied

    /// For `X-Cache`, and the access log.
    var word: String {
        switch self {
        case .hit: "HIT"
        case .miss, .request, .unsatisfied: "MISS"
        case .coalesced: "COALESCED"
        case .bypass: "BYPASS"
        }
    }

    /// For `Cache-Status`.
    var status: String {
        switch self {
        case .hit(let ttl): "ollama-gateway; hit; ttl=\(ttl)"
        case .miss: "ollama-gateway; fwd=miss"
        case .coalesced: "ollama-gateway; fwd=miss; collapsed"
        case .request: "ollama-gateway; fwd=request"
        case .bypass(let reason): "ollama-gateway; fwd=bypass; detail=\(reason)"
        case .unsatisfied: "ollama-gateway; detail=only-if-cached"
        }
    }

    /// Whether it was answered without a call of its own.
    var isHit: Bool {
        switch self {
        case .hit, .coalesced: true
        default: false
        }
    }
}
