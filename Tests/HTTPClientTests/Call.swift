import EventLoop
import HTTPClient
import HTTPCore
import TestSupport
import Testing

/// A request under way in a task of its own.
@Loop
final class Call {
    private(set) var answer: ClientResponse?
    private(set) var failure: (any Error)?
    private var task: Task<Void, Never>?

    init(_ request: ClientRequest, by client: HTTPClient) {
        task = Loop.task { [self] in
            do { answer = try await client.send(request) } catch { failure = error }
        }
    }

    func cancel() { task?.cancel() }

    /// Waits for the header of the answer. A test that is out of time cancels the call.
    func header() async throws -> ClientResponse {
        await withTaskCancellationHandler { [task] in
            await task?.value
        } onCancel: { [task] in
            task?.cancel()
        }
        if let failure { throw failure }
        return try #require(answer)
    }

    /// Waits for the whole answer: its body as text.
    func text() async throws -> String { try await header().body.collect().text }

    /// Waits for the failure, before or after the header.
    func transportError() async throws -> TransportError {
        do {
            let text = try await text()
            Issue.record("answered: \(text.prefix(100))")
        } catch let error as TransportError {
            return error
        }
        throw Unexpected()
    }

    struct Unexpected: Error {}
}

/// A server that says what the test wants, byte by byte, and the requests for it.
@Loop
struct Script {
    let listener: RawListener
    let client: HTTPClient

    init(backlog: Int32 = 64, _ change: (inout HTTPClient.Options) -> Void = { _ in }) throws {
        var options = HTTPClient.Options()
        change(&options)
        listener = RawListener(backlog: backlog)
        client = try HTTPClient(options: options)
    }

    var origin: String { "http://127.0.0.1:\(listener.port)" }

    func call(
        _ method: String = "GET", _ target: String = "/", headers: Headers = [:], body: RequestBody = .none
    ) -> Call {
        Call(ClientRequest(method: method, origin: origin, target: target, headers: headers, body: body), by: client)
    }

    /// The server's end of the next connection.
    func accept() async throws -> RawSocket {
        try #require(await listener.accept(), "nobody connected")
    }

    /// Begins a request, takes its connection, reads its header and answers `text`.
    func exchange(
        _ text: String, method: String = "GET", body: RequestBody = .none
    ) async throws -> (call: Call, peer: RawSocket) {
        let call = call(method, body: body)
        let peer = try await accept()
        _ = await peer.receive(through: "\r\n\r\n")
        await peer.send(text)
        return (call, peer)
    }
}

func ok(_ body: String, _ lines: String = "") -> String {
    "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\(lines)\r\n\(body)"
}

extension ByteStream {
    @discardableResult
    func push(_ text: String) -> Flow { Array(text.utf8).withUnsafeBytes { push($0) } }

    /// Pushes all of it in steps, waiting whenever it must. Returns once all has been taken, or none is wanted.
    func push(all bytes: [UInt8], paused: @Loop () -> Void = {}) async throws {
        var start = 0
        while start < bytes.count {
            let end = min(start + 65_536, bytes.count)
            let room = Gate()
            onResume = { room.open() }
            let flow = bytes[start..<end].withUnsafeBytes { push($0) }
            start = end
            if flow == .stop { return }
            if flow == .pause {
                paused()
                try await room.wait()
            }
        }
    }
}
