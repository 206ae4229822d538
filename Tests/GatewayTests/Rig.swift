import Digests
import EventLoop
import HTTPCore
import TestSupport

@testable import Gateway

/// A gateway with everything around it played by the test: the box, the client, the clock, the log.
@Loop final class Rig {
    let client = Client()
    let clock = Clock()
    let log = RecordedLog()
    let box: Box
    let gateway: Gateway

    init(
        backends: [String] = ["box:1"], settings: Gateway.Settings = Gateway.Settings(),
        box script: @escaping Box.Script = { _ in throw CancellationError() }
    ) throws {
        box = Box(script)
        let clock = clock
        gateway = Gateway(
            backends: try backends.map { text in try Backend(text) }, transport: box, settings: settings,
            hash: testHash,
            clock: { clock.now }, monotonic: { UInt64(clock.now) * 1000 }, log: log)
        backends.indices.forEach { gateway.fleet.isWell($0) }
    }

    /// Begins to handle a request; what can be done at once is done when this returns.
    @discardableResult
    func begin(_ request: Request) -> Task<Void, Never> {
        Loop.task { await self.gateway.handle(request, Reply(port: self.client)) }
    }

    /// Handles a request to its end.
    func handle(_ request: Request) async { await begin(request).value }
}

extension Fleet {
    /// Every name of a model that tests ask for.
    static let testModels = ["m", "n", "a", "b", "c", "m:7b", "llama3.2", "x", "qwen3", "nomic-embed-text", "n/m"]

    static let testTags: String = {
        let entries = testModels.map { name in
            let name = ModelName(name).description
            return #"{"name":"\#(name)","digest":"digest-of-\#(name)","modified_at":"1970-01-01T00:00:00Z"}"#
        }
        return #"{"models":[\#(entries.joined(separator: ","))]}"#
    }()

    /// As after a good probe of a backend that has these models.
    func isWell(_ backend: Int, with models: [String] = testModels) {
        let listings = models.map { name in
            let name = ModelName(name).description
            return Listing(
                name: name, shown: name, digest: "digest-of-\(name)", modified: 0,
                json: #"{"name":"\#(name)","digest":"digest-of-\#(name)","modified_at":"1970-01-01T00:00:00Z"}"#)
        }
        queue.balancer.list(listings, at: backend)
        probed(backend, since: queue.balancer.backends[backend].breaker.epoch, nil)
    }
}

/// As the program does it.
let testHash: Hash = { bytes in SHA256.hash(bytes).withUnsafeBytes { Key(bytes: $0) } }

/// A box that answers as the test says.
@Loop final class Box: Transport {
    typealias Script = @Loop (ClientRequest) async throws -> ClientResponse

    private(set) var requests: [ClientRequest] = []
    private let script: Script
    /// What it says to the gateway's own questions, by path; where nothing stands, that there is no such path.
    var probes = ["/api/tags": Fleet.testTags]
    private(set) var probed: [String] = []
    /// Holds up the answers to them.
    var probeGate: Gate?

    init(_ script: @escaping Script) { self.script = script }

    func send(_ request: ClientRequest) async throws -> ClientResponse {
        if request.headers["user-agent"] == Fleet.userAgent {
            probed.append(request.target)
            if let probeGate { try await probeGate.wait() }
            return probes[request.target].map { Body($0).answer() } ?? Body("").answer(404)
        }
        requests.append(request)
        return try await script(request)
    }
}

/// The body of a box's answer, as the box sends it.
@Loop final class Body {
    let stream = ByteStream()
    private(set) var resumes = 0
    private(set) var cancels = 0

    init() {
        stream.onResume = { [unowned self] in resumes += 1 }
        stream.onCancel = { [unowned self] in cancels += 1 }
    }

    /// One that has come whole.
    convenience init(_ text: String) {
        self.init()
        push(text)
        stream.finish()
    }

    @discardableResult
    func push(_ text: String) -> Flow {
        var text = text
        return text.withUTF8 { stream.push(UnsafeRawBufferPointer($0)) }
    }

    func answer(_ status: Int = 200, _ headers: Headers = [:], length: Int? = nil) -> ClientResponse {
        ClientResponse(status: status, headers: headers, length: length, body: stream)
    }
}

/// The client's end of a connection: what reaches it, in order.
@Loop final class Client: ReplyPort, ResponseWriter {
    /// `send 200`, `stream 200`, `write abc`, `finish`, `abort`.
    private(set) var events: [String] = []
    private(set) var response: Response?
    private(set) var headers: Headers = [:]
    private(set) var length: Int?
    /// What was written of a streamed body.
    private(set) var text = ""
    private(set) var isReleased = false

    /// What the connection says to each chunk.
    var flow = Flow.more
    var onDrain: (@Loop () -> Void)?

    func send(_ response: Response) {
        events.append("send \(response.status)")
        self.response = response
        headers = response.headers
    }

    func stream(status: Int, headers: Headers, length: Int?) -> any ResponseWriter {
        events.append("stream \(status)")
        self.headers = headers
        self.length = length
        return self
    }

    func released() { isReleased = true }

    func write(_ chunk: UnsafeRawBufferPointer) -> Flow {
        guard flow != .stop else { return .stop }
        let written = String(decoding: chunk, as: UTF8.self)
        events.append("write \(written)")
        text += written
        return flow
    }

    func finish() { events.append("finish") }
    func abort() { events.append("abort") }
}

/// Stands still until the test moves it.
@Loop final class Clock {
    /// 2026-02-02T16:47:16.414524
    var now: Int64 = 1_770_050_836_414_524
}

@Loop final class RecordedLog: AccessLog {
    var wants = AccessLogWish.all
    private(set) var records: [AccessRecord] = []

    func record(_ record: AccessRecord) { records.append(record) }
}

@Loop func request(
    _ method: String = "GET", _ target: String = "/api/status", headers: Headers = [:], body: RequestBody = .none,
    peer: PeerAddress = .ipv4(0xc000_0201)
) -> Request {
    let request = Request(
        method: method, target: target, peer: peer, contentLength: nil, source: GivenHeaders(fields: headers))
    request.body = body
    return request
}

@Loop final class GivenHeaders: HeaderSource {
    private let fields: Headers

    init(fields: Headers) { self.fields = fields }

    func headers() -> Headers { fields }
    func header(_ name: StaticString) -> String? { fields[name.description] }
}

extension Headers {
    /// As they would be written.
    var lines: [String] { fields.map { "\($0.name): \($0.value)" } }
}
