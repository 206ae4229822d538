import EventLoop
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// Clients that leave before they have their answer: whoever works for them must hear of it.
@Suite(.timeLimit(.minutes(1))) struct LeavingTests {
    enum Manner: CaseIterable { case close, reset, halfClose }

    init() { LoopThread.start() }

    private func leave(_ client: RawSocket, _ manner: Manner) {
        switch manner {
        case .close: client.close()
        case .reset: client.reset()
        case .halfClose: client.finishSending()
        }
    }

    @Test(arguments: Manner.allCases)
    @Loop func `a client that leaves before the first byte cancels the handler's task`(manner: Manner) async throws {
        let server = try TestServer { _, reply, seen in
            seen.note("working")
            do { try await Gate().wait() } catch { seen.note("\(type(of: error))") }
            reply.send(Response(status: 200))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(get())
        #expect(await eventually { server.seen.count == 1 })
        leave(client, manner)
        #expect(await eventually { server.seen.values == ["working", "CancellationError"] })
    }

    @Test(arguments: Manner.allCases)
    @Loop func `a client that leaves amid a stream cancels the task, and the next write stops`(
        manner: Manner
    ) async throws {
        let server = try TestServer { _, reply, seen in
            let writer = reply.stream(status: 200, headers: [:])
            try? await writer.send("first")
            do { try await Gate().wait() } catch { seen.note("\(type(of: error))") }
            let flow = Array("x".utf8).withUnsafeBytes { writer.write($0) }
            seen.note("\(flow)")
            writer.finish()
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(get())
        _ = await client.receive(through: "first\r\n")
        leave(client, manner)
        #expect(await eventually { server.seen.values == ["CancellationError", "stop"] })
    }

    @Test(arguments: [Manner.close, .reset], [nil, 32 << 20])
    @Loop func `a client that leaves while a writer waits for it ends the wait`(
        manner: Manner, length: Int?
    ) async throws {
        let server = try TestServer { _, reply, seen in
            let writer = reply.stream(status: 200, headers: [:], length: length)
            do {
                try await writer.write(pattern(32 << 20)) { _ in if seen.count == 0 { seen.note("paused") } }
                seen.note("written")
            } catch {
                seen.note("left")
            }
        }
        defer { server.close() }
        let client = server.connect(receiveBuffer: 4096)
        await client.send(get())
        #expect(await eventually { server.seen.count == 1 })
        leave(client, manner)
        #expect(await eventually { server.seen.values == ["paused", "left"] })
    }

    @Test @Loop func `a client that leaves amid its header bothers nobody`() async throws {
        let server = try TestServer()
        defer { server.close() }
        for text in ["", "GET", "GET / HTTP/1.1\r\nHost", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"] {
            let client = server.connect()
            await client.send(text)
            client.close()
        }
        #expect(await server.answer(to: get("/still")).text == "GET /still ")
        #expect(server.seen.values == [])
    }

    @Test @Loop func `a handler that answers after its client has left does no harm`() async throws {
        let gate = Gate()
        let server = try TestServer { _, reply, seen in
            seen.note("working")
            // In a task of its own, so that it is not cancelled.
            await Loop.task { try? await gate.wait() }.value
            let writer = reply.stream(status: 200, headers: [:])
            seen.note("\(Array("x".utf8).withUnsafeBytes { writer.write($0) })")
            writer.finish()
            writer.abort()
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(get())
        #expect(await eventually { server.seen.count == 1 })
        client.reset()
        // A round trip on another connection: by then the server has seen the reset.
        let other = server.connect()
        await other.send("x")
        other.close()
        gate.open()
        #expect(await eventually { server.seen.count == 2 })
        #expect(await server.connect().send(get()) > 0)
    }
}
