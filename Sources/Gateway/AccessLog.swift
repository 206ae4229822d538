import EventLoop
import HTTPCore

/// What is known of a request when it is over.
public struct AccessRecord: Sendable {
    /// Microseconds since 1970.
    public let start: Int64
    public let id: String
    public let peer: String
    public let method: String
    public let target: String
    public var status = 0
    /// As Ollama lists it, its beginning if it is very long; nil where no model is concerned.
    public var model: String? {
        didSet { model = AccessRecord.clipped(model, 400) }
    }
    public var backend: String?
    /// Backends that were asked.
    public var tries = 0
    /// Bytes of the answer's body.
    public var bytes = 0
    /// Microseconds that it waited for its place at a backend; nil for what does not queue.
    public var queueWait: Int64? { didSet { queueWait = queueWait.map { max(0, $0) } } }
    /// Microseconds until the backend's answer began.
    public var firstByte: Int64? { didSet { firstByte = firstByte.map { max(0, $0) } } }
    /// Microseconds until all was over. Never negative, as these three could be when the clock is set back.
    public var duration: Int64 = 0 { didSet { duration = max(0, duration) } }
    /// Of the answer, as its backend reported them.
    public var promptTokens: Int?
    public var completionTokens: Int?
    /// In a few words; a box may have many.
    public var error: String? { didSet { error = AccessRecord.clipped(error, 1000) } }

    /// Its client did not wait for the end.
    private(set) var hasLeft = false

    let route: Route
    var trace: RequestTrace?
    /// How the cache was used; nil where it has no business.
    var use: CacheUse?
    /// Why the gateway refused it.
    var refusal: Refusal?
    var modelLabel = ModelLabels.other

    @Loop
    init(of request: Request?, id: String, at start: Int64, _ trace: RequestTrace? = nil) {
        self.trace = trace
        self.start = start
        self.id = id
        peer = request?.peer.description ?? "-"
        method = request?.method ?? "-"
        target = request?.target ?? "-"
        route = request.map { Route(path: $0.path) } ?? .other
    }

    /// - Parameter most: bytes.
    private static func clipped(_ text: String?, _ most: Int) -> String? {
        guard let text, text.utf8.count > most else { return text }
        return String(text.unicodeScalars.prefix(most / 4)) + "…"
    }

    /// The target without its query, in which credentials may stand.
    public var path: String { target.withoutQuery }

    /// Whether it failed on our side of the client.
    public var isFailure: Bool { !isOwn && (status >= 500 || (error != nil && status < 400)) }

    /// Whether it only asked the gateway how it is.
    public var isOwn: Bool { route.isOwn && (method == "GET" || method == "HEAD") }

    /// Whether a model was to answer.
    var isInference: Bool { route.isInference && method == "POST" }

    /// `HIT`, `MISS`, `COALESCED`, `BYPASS`.
    public var cache: String? { use?.word }

    /// Of its trace, if somebody else knows of that; 32 hexadecimal digits.
    public var traceID: String? { trace?.knownID }

    /// Why the cache had nothing to do with it.
    public var bypass: String? { if case .bypass(let reason) = use { reason } else { nil } }

    /// It goes to these backends at once.
    mutating func goes(to names: [String]) {
        backend = names.joined(separator: ",")
        tries = names.count
    }

    /// Not answered as it should be.
    mutating func note(_ failure: Failure) {
        error = failure.message
        refusal = failure.refusal
        if failure.status == Failure.clientLeft { (hasLeft, status) = (true, failure.status) }
    }

    mutating func note(_ note: AnswerNote) {
        guard note.promptTokens > 0 || note.completionTokens > 0 else { return }
        (promptTokens, completionTokens) = (note.promptTokens, note.completionTokens)
    }

    /// - Parameter usage: nothing if the backend reports none.
    mutating func note(_ usage: AnswerUsage) {
        guard !usage.isEmpty else { return }
        (promptTokens, completionTokens) = (usage.prompt, usage.completion)
    }
}

/// Takes one record a request.
@Loop
public protocol AccessLog: AnyObject {
    /// Which records it wants; others are not made.
    var wants: AccessLogWish { get }
    func record(_ record: AccessRecord)
}

/// Which requests a log wants to hear of.
public enum AccessLogWish: Sendable {
    case all
    /// Not those that only ask the gateway how it is.
    case requests
    /// Those that failed on this side of the client.
    case failures
    case none

    func includes(_ record: AccessRecord) -> Bool {
        switch self {
        case .all: true
        case .requests: !record.isOwn
        case .failures: record.isFailure
        case .none: false
        }
    }
}

extension AccessRecord {
    /// The request is answered, and over.
    @Loop
    mutating func end(
        _ answer: Result<Response, Failure>, _ request: Request, _ reply: consuming Reply, at now: Int64
    ) {
        switch answer {
        case .success(let response): end(nil, response, reply, at: now)
        case .failure(let failure): end(failure, failure.response(to: request.path, id: id), reply, at: now)
        }
    }

    /// - Parameter failure: what was wrong, if anything was.
    @Loop
    mutating func end(_ failure: Failure?, _ response: Response, _ reply: consuming Reply, at now: Int64) {
        if let failure { note(failure) }
        note(response)
        duration = now - start
        reply.send(response)
    }

    /// What the client is told, in one piece.
    mutating func note(_ response: Response) {
        status = response.status
        bytes = method == "HEAD" ? 0 : response.body.count
    }

    /// The request's task was cancelled: its client has left, or the gateway is ending and says so.
    @Loop
    mutating func cut(_ reply: consuming Reply, _ request: Request, isEnding: Bool, at now: Int64) {
        if isEnding {
            return end(.ending, Failure.ending.response(to: request.path, id: id), reply, at: now)
        }
        note(Failure.left)
        duration = now - start
    }
}
