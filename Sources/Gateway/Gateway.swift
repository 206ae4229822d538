import EventLoop
import HTTPCore

/// The gateway: what stands between clients and the boxes.
///
/// The life of a request, from the server's calls:
///
///     receive   the header has come    →  how to take the body
///     answer    the body has come      →  what the gateway says itself: /, /health
///     handle    everything else        →  a backend is picked, the request forwarded, the answer relayed
///
/// Sees no socket and no C: backends are reached through a ``Transport``, time comes from a ``WallClock``.
@Loop
public final class Gateway: RequestHandler {
    public struct Settings: Sendable {
        /// Bytes of a request body; uploads to `/api/blobs/` may be of any size.
        public var maxBody = 64 * 1024 * 1024

        public nonisolated init() {}
    }

    let transport: any Transport
    let clock: WallClock
    let log: (any AccessLog)?
    /// Set when the program ends and answers are cut: then a cancelled request is not its client's doing.
    public var isEnding = false
    private let settings: Settings
    private var rotation: RoundRobin
    private var ids: RequestIDs

    private let greeting = Response(status: 200, contentType: "text/plain; charset=utf-8", "Ollama is running")

    public init(
        backends: [Backend], transport: any Transport, settings: Settings = Settings(),
        clock: @escaping WallClock, log: (any AccessLog)? = nil
    ) {
        self.transport = transport
        self.settings = settings
        self.clock = clock
        self.log = log
        rotation = RoundRobin(backends)
        ids = RequestIDs()
    }

    // MARK: RequestHandler

    public func receive(_ request: Request) -> Intake {
        // Blobs are model files: they pass through, they are not kept.
        request.target.hasPrefix("/api/blobs/") ? .stream : .collect(limit: settings.maxBody)
    }

    public func answer(_ request: Request) -> Response? {
        guard let response = ownAnswer(request) else { return nil }
        if let log, log.isOn {
            var record = AccessRecord(of: request, id: ids.id(for: request), at: clock())
            record.status = response.status
            record.bytes = request.method == "HEAD" ? 0 : response.body.count
            log.record(record)
        }
        return response
    }

    private func ownAnswer(_ request: Request) -> Response? {
        switch request.path {
        case "/" where request.method == "GET" || request.method == "HEAD":
            return greeting
        case "/health":
            guard request.method == "GET" || request.method == "HEAD" else {
                return Response(
                    status: 405, headers: ["Content-Type": "application/json", "Allow": "GET, HEAD"],
                    body: Bytes(Dialect.native.body(status: 405, message: "method not allowed", id: "")))
            }
            let now = Timestamp.utc(clock(), fraction: .microseconds, zone: "+00:00")
            return Response(
                status: 200, contentType: "application/json", #"{"status":"healthy","timestamp":"\#(now)"}"#)
        default:
            return nil
        }
    }

    public func handle(_ request: Request, _ reply: consuming Reply) async {
        let id = ids.id(for: request)
        let relay = Relay(request, id: id, backend: rotation.next(), gateway: self)
        await relay.run(reply)
        if let log, log.isOn { log.record(relay.record) }
    }

    public func refusal(of request: Request?, for problem: RequestProblem) -> Response {
        let id = request.map { ids.id(for: $0) } ?? ids.next()
        let failure = Failure(status: problem.status, message: problem.message)
        let response = failure.response(to: request?.path ?? "/", id: id)
        if let log, log.isOn {
            var record = AccessRecord(of: request, id: id, at: clock())
            record.status = problem.status
            record.error = problem.message
            record.bytes = response.body.count
            log.record(record)
        }
        return response
    }
}

/// Microseconds since 1970, UTC.
public typealias WallClock = @Loop () -> Int64

/// How the gateway reaches a backend. See ``ClientRequest`` and ``ClientResponse`` for what is promised.
@Loop
public protocol Transport: AnyObject {
    /// Sends a request and returns when the header of the answer has come. Throws ``TransportError``, or
    /// `CancellationError` when the task is cancelled.
    func send(_ request: ClientRequest) async throws -> ClientResponse
}
