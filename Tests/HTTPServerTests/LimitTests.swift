import EventLoop
import Glibc
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// What the server does to clients that are too large, too slow or too many.
@Suite(.timeLimit(.minutes(1))) struct LimitTests {
    init() { LoopThread.start() }

    private func limits(_ change: (inout HTTPServer.Limits) -> Void) -> HTTPServer.Limits {
        var limits = HTTPServer.Limits()
        change(&limits)
        return limits
    }

    // MARK: Too large

    @Test @Loop func `a header larger than the limit is refused`() async throws {
        let server = try TestServer(limits: limits { $0.headerBytes = 4096 })
        defer { server.close() }
        for text in [
            get("/", "X: " + String(repeating: "x", count: 8192)), get("/" + String(repeating: "x", count: 8192)),
        ] {
            let answer = await server.answer(to: text)
            #expect((400..<500).contains(answer.status), "\(answer.header)")
        }
        #expect(await server.answer(to: get("/", "X: " + String(repeating: "x", count: 1024))).status == 200)
    }

    @Test @Loop func `a header of 12 KiB fits the defaults`() async throws {
        let server = try TestServer()
        defer { server.close() }
        #expect(await server.answer(to: get("/", "X: " + String(repeating: "x", count: 12 * 1024))).status == 200)
    }

    // MARK: Too slow

    @Test @Loop func `a client that sends nothing is disconnected`() async throws {
        let server = try TestServer(limits: limits { $0.headerTimeout = .milliseconds(100) })
        defer { server.close() }
        let rest = await server.connect().receiveToEnd()
        #expect(rest.bytes == [])
        #expect(rest.ending == .closed)
    }

    @Test @Loop func `a client that does not end its header gets 408`() async throws {
        let server = try TestServer(limits: limits { $0.headerTimeout = .milliseconds(100) })
        defer { server.close() }
        let client = server.connect()
        client.sendNow("GET / HTTP/1.1\r\nHost: x\r\n")
        #expect(await client.receiveAnswer().status == 408)
        #expect(await client.receiveToEnd().ending == .closed)
    }

    @Test @Loop func `a body that comes too slowly gets 408`() async throws {
        let server = try TestServer(limits: limits { $0.bodyTimeout = .milliseconds(100) })
        defer { server.close() }
        let client = server.connect()
        client.sendNow(header("POST", "/", ["Content-Length: 1000"]) + "ab")
        #expect(await client.receiveAnswer().status == 408)
        #expect(await client.receiveToEnd().ending == .closed)
    }

    @Test @Loop func `a streamed body that comes too slowly ends with an error`() async throws {
        let server = try TestServer(limits: limits { $0.bodyTimeout = .milliseconds(100) }, intake: .stream) {
            request, reply, seen in
            guard case .stream(let body, _) = request.body else { return }
            do {
                _ = try await body.collect()
                seen.note("complete")
            } catch {
                seen.note("broken off")
            }
            reply.send(Response(status: 200))
        }
        defer { server.close() }
        let client = server.connect()
        client.sendNow(header("POST", "/", ["Content-Length: 1000"]) + "ab")
        #expect(await client.receiveToEnd().ending != .timeout)
        #expect(await eventually { server.seen.count > 0 })
        #expect(server.seen.values.last == "broken off")
    }

    @Test @Loop func `a slow handler is not the client's fault`() async throws {
        let server = try TestServer(
            limits: limits {
                $0.headerTimeout = .milliseconds(100)
                $0.bodyTimeout = .milliseconds(100)
                $0.idleTimeout = .seconds(1)
            }
        ) { request, reply, _ in
            // Longer than every limit and the second that the server takes to look.
            try? await Loop.sleep(for: .milliseconds(2500))
            reply.send(TestServer.echo(request))
        }
        defer { server.close() }
        let client = server.connect()
        client.sendNow(post("x"))
        let answer = await client.receiveAnswer()
        #expect(answer.text == "POST / x", "\(answer)")
    }

    @Test @Loop func `an idle connection is closed`() async throws {
        let server = try TestServer(limits: limits { $0.idleTimeout = .seconds(1) })
        defer { server.close() }
        let client = server.connect()
        client.sendNow(get())
        #expect(await client.receiveAnswer().status == 200)
        let rest = await client.receiveToEnd()
        #expect(rest.bytes == [])
        #expect(rest.ending == .closed)
    }

    @Test(arguments: [nil, 32 << 20])
    @Loop func `a client that takes no byte of its answer is cut off`(length: Int?) async throws {
        let server = try TestServer(limits: limits { $0.idleTimeout = .seconds(1) }) { _, reply, seen in
            let writer = reply.stream(status: 200, headers: [:], length: length)
            do {
                try await writer.write(pattern(32 << 20))
                seen.note("written")
            } catch {
                seen.note("left")
            }
        }
        defer { server.close() }
        let client = server.connect(receiveBuffer: 4096)
        client.sendNow(get())
        #expect(await eventually { server.seen.values == ["left"] })
    }

    // MARK: Too many

    @Test @Loop func `a connection beyond the limit is served when another closes`() async throws {
        let server = try TestServer(limits: limits { $0.maxConnections = 2 })
        defer { server.close() }
        let clients = [server.connect(), server.connect()]
        for client in clients {
            await client.send(get("/in"))
            #expect(await client.receiveAnswer().text == "GET /in ")
        }
        let third = server.connect()
        await third.send(get("/waits"))
        // A round trip: the server has had the chance to take the third connection, and has not.
        await clients[0].send(get("/again"))
        #expect(await clients[0].receiveAnswer().text == "GET /again ")
        clients[1].close()
        #expect(await third.receiveAnswer().text == "GET /waits ")
    }

    @Test @Loop func `an address may have so many connections and no more, until one closes`() async throws {
        let server = try TestServer(limits: limits { $0.maxConnectionsPerPeer = 2 })
        defer { server.close() }
        let clients = [server.connect(), server.connect()]
        for client in clients {
            await client.send(get())
            #expect(await client.receiveAnswer().status == 200)
        }
        let third = server.connect()
        let rest = await third.receiveToEnd()
        #expect(rest.bytes == [])
        #expect(rest.ending != .timeout)
        clients[0].close()
        var served = false
        while !served {
            // The server may not have seen the close yet.
            let fourth = server.connect()
            await fourth.send(get())
            served = await fourth.receiveAnswer().status == 200
        }
    }
}
