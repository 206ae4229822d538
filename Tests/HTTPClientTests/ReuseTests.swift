import EventLoop
import HTTPClient
import HTTPCore
import TestSupport
import Testing

/// Connections that are kept, and those that are not.
@Suite(.timeLimit(.minutes(1))) struct ReuseTests {
    init() { LoopThread.start() }

    private static let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    @Test @Loop func `requests one after the other share a connection`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(ok("0"))
        #expect(try await call.text() == "0")
        for index in 1..<10 {
            let call = script.call(index % 2 == 0 ? "POST" : "GET")
            _ = await peer.receive(through: "\r\n\r\n")
            await peer.send(index % 3 == 0 ? Self.chunked : ok("ok"))
            #expect(try await call.text() == "ok")
        }
        #expect(await script.listener.accept(patience: 50) == nil)
    }

    @Test @Loop func `requests at the same time have connections of their own`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let calls = (0..<5).map { _ in script.call() }
        var peers: [RawSocket] = []
        for _ in calls { peers.append(try await script.accept()) }
        for peer in peers {
            _ = await peer.receive(through: "\r\n\r\n")
            await peer.send(ok("ok"))
        }
        for call in calls { #expect(try await call.text() == "ok") }
    }

    @Test(arguments: ["Connection: close\r\n", ""])
    @Loop func `a connection that the server closed while it was idle is not used again`(line: String) async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(ok("first", line))
        #expect(try await call.text() == "first")
        peer.close()
        for text in ["second", "third"] {
            let (call, peer) = try await script.exchange(ok(text), method: "POST")
            #expect(try await call.text() == text)
            peer.close()
        }
    }

    @Test @Loop func `a connection whose answer was not read to its end is not used again`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (first, _) = try await script.exchange("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        try await first.header().body.cancel()
        let (second, _) = try await script.exchange(ok("second"))
        #expect(try await second.text() == "second")
    }

    @Test @Loop func `an upload can be sent over a kept connection`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(ok("first"))
        #expect(try await call.text() == "first")
        let body = ByteStream()
        let upload = script.call("POST", body: .stream(body, length: nil))
        _ = await peer.receive(through: "\r\n\r\n")
        body.push("hello")
        body.finish()
        #expect(await peer.receive(through: "0\r\n\r\n") == "5\r\nhello\r\n0\r\n\r\n")
        await peer.send(ok("second"))
        #expect(try await upload.text() == "second")
    }

    @Test @Loop func `an upload on a kept connection that breaks is reported, not sent again`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(ok("first"))
        #expect(try await call.text() == "first")
        let body = ByteStream()
        let upload = script.call("POST", body: .stream(body, length: nil))
        _ = await peer.receive(through: "\r\n\r\n")
        body.push("hello")
        _ = await peer.receive(through: "hello\r\n")
        peer.close()
        let error = try await upload.transportError()
        #expect(error.kind == .connectionLost, "\(error)")
        #expect(!error.isRetrySafe)
    }
}
