import EventLoop
import Glibc
import HTTPClient
import HTTPCore
import TestSupport
import Testing

/// Everything that can go wrong with a server, and what the caller is told.
@Suite(.timeLimit(.minutes(1))) struct FailureTests {
    init() { LoopThread.start() }

    private func expect(
        _ call: Call, _ kind: TransportError.Kind, answerBegan: Bool, isRetrySafe: Bool,
        _ location: SourceLocation = #_sourceLocation
    ) async throws {
        let error = try await call.transportError()
        #expect(error.kind == kind, "\(error.message)", sourceLocation: location)
        #expect(error.answerBegan == answerBegan, sourceLocation: location)
        #expect(error.isRetrySafe == isRetrySafe, sourceLocation: location)
        #expect(!error.message.isEmpty, sourceLocation: location)
    }

    // MARK: No connection

    @Test @Loop func `a name that nobody knows is a resolve error`() async throws {
        let client = try HTTPClient()
        defer { client.close() }
        let call = Call(ClientRequest(method: "POST", origin: "http://nope.invalid", target: "/"), by: client)
        try await expect(call, .resolve, answerBegan: false, isRetrySafe: true)
    }

    @Test @Loop func `a port that nobody listens on is a connect error`() async throws {
        let client = try HTTPClient()
        defer { client.close() }
        let port = RawListener().port
        let call = Call(ClientRequest(method: "POST", origin: "http://127.0.0.1:\(port)", target: "/"), by: client)
        try await expect(call, .connect, answerBegan: false, isRetrySafe: true)
    }

    @Test @Loop func `a server that does not take the connection is a connect timeout`() async throws {
        let script = try Script(backlog: 0) { $0.connectTimeout = .milliseconds(200) }
        defer { script.client.close() }
        // It fills the backlog; from here on the kernel does not answer.
        let first = RawSocket.connect(port: script.listener.port)
        defer { first.close() }
        try await expect(script.call("POST"), .connectTimeout, answerBegan: false, isRetrySafe: true)
    }

    @Test(arguments: ["", "ftp://127.0.0.1", "http://"])
    @Loop func `an origin that is none is our own fault`(origin: String) async throws {
        let client = try HTTPClient()
        defer { client.close() }
        let error = try await Call(ClientRequest(method: "GET", origin: origin, target: "/"), by: client)
            .transportError()
        #expect(error.kind == .local, "\(error)")
        #expect(error.isRetrySafe)
    }

    // MARK: A connection that breaks

    @Test(arguments: [true, false])
    @Loop func `a connection that breaks before the answer is lost`(reset: Bool) async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("", method: "POST")
        if reset { peer.reset() } else { peer.close() }
        try await expect(call, .connectionLost, answerBegan: false, isRetrySafe: false)
    }

    @Test(arguments: [true, false])
    @Loop func `a connection that breaks amid the header is lost`(reset: Bool) async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("HTTP/1.1 200 OK\r\nContent-Le", method: "POST")
        if reset { peer.reset() } else { peer.close() }
        try await expect(call, .connectionLost, answerBegan: false, isRetrySafe: false)
    }

    @Test(arguments: ["Content-Length: 10", "Transfer-Encoding: chunked"], [true, false])
    @Loop func `a connection that breaks amid the body is lost, after all that came`(
        framing: String, reset: Bool
    ) async throws {
        let script = try Script()
        defer { script.client.close() }
        let body = framing.hasPrefix("C") ? "hello" : "5\r\nhello\r\n"
        let (call, peer) = try await script.exchange("HTTP/1.1 200 OK\r\n\(framing)\r\n\r\n\(body)", method: "POST")
        let answer = try await call.header()
        let came = Recorder<String>()
        let reader = Call.reading(answer.body) { came.note($0) }
        #expect(await eventually { came.values == ["hello"] })
        if reset { peer.reset() } else { peer.close() }
        let error = try #require(await reader.value() as? TransportError)
        #expect(error.kind == .connectionLost, "\(error.message)")
        #expect(error.answerBegan)
        #expect(!error.isRetrySafe)
    }

    @Test @Loop func `a server that breaks off amid an upload loses the connection`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let (call, peer) = try await script.exchange("", method: "POST", body: .stream(body, length: nil))
        body.push("hello")
        peer.reset()
        try await expect(call, .connectionLost, answerBegan: false, isRetrySafe: false)
        #expect(body.push("more") == .stop)
    }

    // MARK: Answers that are none

    static let garbage = [
        "hello there\r\n\r\n", "\u{16}\u{3}\u{1}", "HTTP/1.1\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ]

    @Test(arguments: garbage)
    @Loop func `what is not HTTP is a bad answer`(text: String) async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(text, method: "POST")
        peer.finishSending()
        try await expect(call, .badAnswer, answerBegan: false, isRetrySafe: false)
    }

    @Test @Loop func `a broken chunk amid the body is a bad answer`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, _) = try await script.exchange(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n", method: "POST")
        try await expect(call, .badAnswer, answerBegan: true, isRetrySafe: false)
    }

    // MARK: Time

    @Test @Loop func `no answer in time is a first-byte timeout, and the connection is closed`() async throws {
        let script = try Script { $0.firstByteTimeout = .seconds(1) }
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("", method: "POST")
        try await expect(call, .firstByteTimeout, answerBegan: false, isRetrySafe: false)
        #expect(await peer.receiveToEnd().ending != .timeout)
    }

    @Test(arguments: ["Content-Length: 10", "Transfer-Encoding: chunked"])
    @Loop func `silence amid the body is an idle timeout, and the connection is closed`(framing: String) async throws {
        let script = try Script { $0.idleTimeout = .milliseconds(100) }
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("HTTP/1.1 200 OK\r\n\(framing)\r\n\r\n", method: "POST")
        try await expect(call, .idleTimeout, answerBegan: true, isRetrySafe: false)
        #expect(await peer.receiveToEnd().ending != .timeout)
    }

    @Test @Loop func `a consumer that takes its time is not the server's silence`() async throws {
        let script = try Script { $0.idleTimeout = .milliseconds(500) }
        defer { script.client.close() }
        let bytes = pattern(1 << 20)
        let call = script.call()
        let peer = try await script.accept()
        _ = await peer.receive(through: "\r\n\r\n")
        // In one piece, so that no silence of the sender's own comes between.
        let header = Array("HTTP/1.1 200 OK\r\nContent-Length: \(bytes.count)\r\n\r\n".utf8)
        let sender = Task { await peer.send(header + bytes) }
        let answer = try await call.header()
        // Three times as long as a server may be silent.
        try await Loop.sleep(for: .milliseconds(1500))
        #expect(try await answer.body.collect().count == bytes.count)
        _ = await sender.value
    }

    // MARK: Giving up

    @Test @Loop func `cancelling before the header ends the call and the connection`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("", method: "POST")
        call.cancel()
        await #expect(throws: CancellationError.self) { _ = try await call.header() }
        #expect(await peer.receiveToEnd().ending != .timeout)
        #expect(await eventually { script.client.transfers == 0 })
    }

    @Test @Loop func `cancelling a task before its request begins sends nothing`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let task = Loop.task {
            await #expect(throws: CancellationError.self) {
                try? await Gate().wait()
                _ = try await script.client.send(
                    ClientRequest(method: "GET", origin: script.origin, target: "/"))
            }
        }
        task.cancel()
        await task.value
        #expect(script.client.transfers == 0)
        #expect(await script.listener.accept(patience: 50) == nil)
    }

    @Test(arguments: [true, false])
    @Loop func `giving up amid the body closes the connection`(byTask: Bool) async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        let answer = try await call.header()
        let came = Recorder<String>()
        let reader = Call.reading(answer.body) { came.note($0) }
        #expect(await eventually { came.values == ["hello"] })
        if byTask { reader.cancel() } else { answer.body.cancel() }
        #expect(await reader.value() != nil)
        let began = ContinuousClock.now
        #expect(await peer.receiveToEnd().ending != .timeout)
        #expect(ContinuousClock.now - began < .seconds(5))
        #expect(await eventually { script.client.transfers == 0 })
    }

    @Test @Loop func `a body that is cancelled unread closes the connection`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(
            "HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n")
        let answer = try await call.header()
        await peer.send(pattern(32 << 20), patience: 200)
        answer.body.cancel()
        #expect(await peer.receiveToEnd().ending != .timeout)
        #expect(await eventually { script.client.transfers == 0 })
    }

    @Test @Loop func `closing the client fails what is under way`() async throws {
        let script = try Script()
        let (waiting, first) = try await script.exchange("", method: "POST")
        let (reading, second) = try await script.exchange("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        let answer = try await reading.header()
        script.client.close()
        script.client.close()
        try await expect(waiting, .local, answerBegan: false, isRetrySafe: false)
        await #expect(throws: TransportError.self) { try await answer.body.collect() }
        for peer in [first, second] { #expect(await peer.receiveToEnd().ending != .timeout) }
        try await expect(script.call(), .local, answerBegan: false, isRetrySafe: true)
    }
}

extension Call {
    /// A body being read in a task of its own.
    @Loop
    final class Reading {
        private var failure: (any Error)?
        private var task: Task<Void, Never>?

        init(_ body: ByteStream, _ took: @escaping @Loop (String) -> Void) {
            task = Loop.task { [self] in
                do {
                    try await body.forward {
                        took(String(decoding: $0, as: UTF8.self))
                        return .more
                    }
                } catch {
                    failure = error
                }
            }
        }

        func cancel() { task?.cancel() }

        /// What the reading ended with; nil if well.
        func value() async -> (any Error)? {
            await task?.value
            return failure
        }
    }

    static func reading(_ body: ByteStream, _ took: @escaping @Loop (String) -> Void) -> Reading {
        Reading(body, took)
    }
}
