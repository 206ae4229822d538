import EventLoop
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// A server on a free port of the loopback address, whose handler does what the test says.
@Loop
final class TestServer: RequestHandler {
    /// What the handler notes.
    let seen = Recorder<String>()
    // Set once `self` can be its handler, at the end of `init`.
    // swift-format-ignore: NeverUseImplicitlyUnwrappedOptionals
    private(set) var http: HTTPServer!
    private(set) var port = 0

    private let intake: Intake
    private let respond: @Loop (Request) -> Response?
    private let work: @Loop (Request, consuming Reply, Recorder<String>) async -> Void

    /// What answers without a task. In a struct, so that a trailing closure is always the work.
    struct Answering {
        let at: @Loop (Request) -> Response?
    }

    /// Without closures of its own, the server echoes: method, target and body of the request.
    init(
        limits: HTTPServer.Limits = HTTPServer.Limits(),
        listen address: ListenAddress? = .tcp(host: "127.0.0.1", port: 0),
        intake: Intake = .collect(limit: 1 << 20),
        answering respond: Answering = Answering(at: { _ in nil }),
        work: (@Loop (Request, consuming Reply, Recorder<String>) async -> Void)? = nil
    ) throws {
        self.intake = intake
        self.respond = respond.at
        self.work = work ?? { request, reply, _ in reply.send(TestServer.echo(request)) }
        http = try HTTPServer(handler: self, limits: limits)
        guard let address, case .tcp(_, let port) = try http.listen(on: address) else { return }
        self.port = port
    }

    static func echo(_ request: Request) -> Response {
        let body = if case .bytes(let bytes) = request.body { bytes.text } else { "" }
        return Response(status: 200, contentType: "text/plain", "\(request.method) \(request.target) \(body)")
    }

    func connect(receiveBuffer: Int32? = nil) -> RawSocket {
        RawSocket.connect(port: port, receiveBuffer: receiveBuffer)
    }

    /// Sends `text` over a connection of its own and returns the first answer.
    func answer(to text: String) async -> RawAnswer {
        let client = connect()
        await client.send(text)
        return await client.receiveAnswer()
    }

    /// Ends the server; breaks the circle of server and handler.
    func close() { http.close() }

    // MARK: RequestHandler

    func receive(_ request: Request) -> Intake { intake }

    func answer(_ request: Request) -> Response? { respond(request) }

    func handle(_ request: Request, _ reply: consuming Reply) async { await work(request, reply, seen) }

    func refusal(of request: Request?, for problem: RequestProblem) -> Response {
        seen.note("refused \(request?.method ?? "-") \(problem.status)")
        return Response(status: problem.status, contentType: "text/plain", problem.message)
    }
}

extension ResponseWriter {
    /// Writes all of it, waiting whenever the connection is full. Throws ``ClientLeft`` or `CancellationError`.
    func write(_ bytes: [UInt8], by step: Int = 65_536, paused: @Loop (Int) -> Void = { _ in }) async throws {
        var start = 0
        while start < bytes.count {
            let end = min(start + step, bytes.count)
            let flow = bytes[start..<end].withUnsafeBytes { write($0) }
            start = end
            switch flow {
            case .more: break
            case .stop: throw ClientLeft()
            case .pause:
                paused(start)
                try await Signal.wait { signal in onDrain = { signal.fire() } }
            }
        }
    }
}

/// A request line, `Host`, and further header lines.
func get(_ target: String = "/", _ lines: String...) -> String { header("GET", target, lines) }

func header(_ method: String, _ target: String = "/", _ lines: [String] = []) -> String {
    (["\(method) \(target) HTTP/1.1", "Host: test"] + lines).joined(separator: "\r\n") + "\r\n\r\n"
}

func post(_ body: String, to target: String = "/") -> String {
    header("POST", target, ["Content-Length: \(body.utf8.count)"]) + body
}
