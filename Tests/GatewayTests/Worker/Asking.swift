import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// A client that has asked, and what becomes of it.
@Loop final class Asked {
    let client = Client()
    /// Nil if it was answered at once.
    private(set) var task: Task<Void, Never>?

    init(_ request: Request, _ gateway: Gateway, flow: Flow = .more) {
        client.flow = flow
        let client = client
        if let response = gateway.answer(request) {
            client.send(response)
        } else {
            task = Loop.task { await gateway.handle(request, Reply(port: client)) }
        }
    }

    /// The client closes its connection, as the server sees it.
    func leave() {
        client.flow = .stop
        task?.cancel()
    }

    func end() async { await task?.value }

    var wasAnsweredAtOnce: Bool { task == nil }
    var status: Int? { client.events.first.flatMap { Int($0.suffix(3)) } }
    /// What has come of the body, in whichever way.
    var body: String { client.response?.body.text ?? client.text }
    var cache: String? { client.headers["x-cache"] }
    var cacheStatus: String? { client.headers["cache-status"] }
    /// Whether the answer has come to a proper end.
    var isWhole: Bool { client.response != nil || client.events.last == "finish" }
}

/// A call that has reached a box and is answered by the test, bit by bit.
@Loop final class BoxCall {
    let request: ClientRequest
    let body = Body()
    private var arrived: ClientResponse?
    private(set) var wasCancelled = false
    private var waiting: Signal?

    init(_ request: ClientRequest) { self.request = request }

    func answer(
        _ status: Int = 200, _ text: String = "", type: String = "application/x-ndjson", length: Int? = nil,
        headers: Headers = [:]
    ) {
        var headers = headers
        headers.append("Content-Type", type)
        if !text.isEmpty { body.push(text) }
        arrived = body.answer(status, headers, length: length)
        waiting?.fire()
    }

    /// All of an answer that is one JSON object.
    func answerWhole(_ text: String, _ status: Int = 200) {
        body.push(text)
        body.stream.finish()
        answer(status, type: "application/json; charset=utf-8", length: text.utf8.count)
    }

    func fail(_ error: any Error) { waiting?.fire(error) }

    fileprivate func wait() async throws -> ClientResponse {
        do {
            try await Signal.wait { waiting = $0 }
        } catch {
            wasCancelled = error is CancellationError
            throw error
        }
        guard let arrived else { throw CancellationError() }
        return arrived
    }

    /// Whether the gateway has let go of it before its end.
    var isCancelled: Bool { wasCancelled || body.cancels > 0 }
}

/// Boxes that leave every answer to the test.
@Loop final class BoxCalls {
    private(set) var all: [BoxCall] = []

    func send(_ request: ClientRequest) async throws -> ClientResponse {
        let call = BoxCall(request)
        all.append(call)
        return try await call.wait()
    }

    /// The call of this number, which must have come.
    subscript(number: Int) -> BoxCall {
        if all.indices.contains(number) { return all[number] }
        Issue.record("there is no call \(number): \(all.count) have come")
        return BoxCall(ClientRequest(method: "", origin: "", target: ""))
    }
    var count: Int { all.count }
    /// Which boxes were called, by the last letter of their origins.
    var boxes: String { all.map { String($0.request.origin.suffix(1)) }.joined() }
}

/// A gateway and boxes that the test plays.
@Loop final class WorkerRig {
    let calls: BoxCalls
    let rig: Rig
    var gateway: Gateway { rig.gateway }
    var clock: Clock { rig.clock }

    init(backends: [String] = ["http://a"], _ change: (inout Gateway.Settings) -> Void = { _ in }) throws {
        let calls = BoxCalls()
        self.calls = calls
        var settings = Gateway.Settings()
        settings.rateLimit = 0
        change(&settings)
        rig = try Rig(backends: backends, settings: settings) { try await calls.send($0) }
    }

    /// Asks, and lets everything happen that can.
    func ask(
        _ body: String, at target: String = "/api/chat", headers: Headers = [:], flow: Flow = .more,
        peer: PeerAddress = .ipv4(0xc000_0201)
    ) async -> Asked {
        let asked = Asked(
            request("POST", target, headers: headers, body: .bytes(Bytes(body)), peer: peer), gateway, flow: flow)
        await quiet()
        return asked
    }

    /// The client's question is asked, answered by the box, and over.
    @discardableResult
    func fill(_ body: String, at target: String = "/api/chat", headers: Headers = [:], with answer: String)
        async -> Asked
    {
        let asked = await ask(body, at: target, headers: headers)
        if let call = calls.all.last, !asked.wasAnsweredAtOnce {
            let type = answer.hasPrefix("data:") ? "text/event-stream" : "application/x-ndjson"
            if answer.hasSuffix("}") { call.answerWhole(answer) } else { call.answer(200, answer, type: type) }
            call.body.stream.finish()
            await asked.end()
        }
        return asked
    }

    /// The value of a metric.
    func metric(_ name: String) -> String? {
        gateway.exposition(.text).text.split(separator: "\n").first { $0.hasPrefix(name + " ") }.map {
            String($0.dropFirst(name.count + 1))
        }
    }

    func pass(seconds: Double) { clock.now += Int64(seconds * 1_000_000) }
}

/// Until everything has happened that happens without somebody outside doing something.
@Loop func quiet() async {
    for _ in 0..<2 { try? await Signal.wait { signal in Loop.events.atEndOfTurn { signal.fire() } } }
}

extension RequestBody {
    /// What it says, if it is there.
    var text: String? { if case .bytes(let bytes) = self { bytes.text } else { nil } }
}
