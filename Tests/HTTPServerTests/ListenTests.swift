import EventLoop
import Glibc
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// Where a server listens, and why it cannot.
@Suite(.timeLimit(.minutes(1))) struct ListenTests {
    init() { LoopThread.start() }

    @Test(.enabled(if: access("/proc/net/if_inet6", F_OK) == 0))
    @Loop func `IPv6 clients are served and known by their address`() async throws {
        let server = try TestServer(listen: .tcp(host: "::1", port: 0)) { request, reply, _ in
            reply.send(Response(status: 200, contentType: "text/plain", "\(request.peer)"))
        }
        defer { server.close() }
        let client = RawSocket.connect(port: server.port, ipv6: true)
        await client.send(get())
        #expect(await client.receiveAnswer().text == "::1")
    }

    @Test @Loop func `a server listens on several addresses at once`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let second = try server.http.listen(on: .tcp(host: "127.0.0.1", port: 0))
        guard case .tcp(let host, let port) = second else { return }
        #expect(host == "127.0.0.1")
        #expect(port != 0 && port != server.port)
        #expect("\(second)" == "http://127.0.0.1:\(port)")
        for port in [server.port, port] {
            let client = RawSocket.connect(port: port)
            await client.send(get("/\(port)"))
            #expect(await client.receiveAnswer().text == "GET /\(port) ")
        }
    }

    @Test @Loop func `clients on a Unix socket are served, and the file goes with the server`() async throws {
        let path = "/tmp/http-server-tests-\(getpid())-live.sock"
        let server = try TestServer(listen: nil) { request, reply, _ in
            reply.send(Response(status: 200, contentType: "text/plain", "\(request.peer)"))
        }
        defer { server.close() }
        #expect(try server.http.listen(on: .unix(path: path)) == .unix(path: path))
        let client = RawSocket.connect(path: path)
        for _ in 0..<2 {
            await client.send(get())
            #expect(await client.receiveAnswer().text == "unix")
        }
        server.close()
        #expect(access(path, F_OK) != 0)
    }

    @Test @Loop func `a socket file that nobody listens on is replaced, one that is in use is not`() async throws {
        let path = "/tmp/http-server-tests-\(getpid())-stale.sock"
        RawListener.leaveStaleFile(at: path)
        let server = try TestServer(listen: .unix(path: path))
        defer { server.close() }
        let client = RawSocket.connect(path: path)
        await client.send(get("/a"))
        #expect(await client.receiveAnswer().text == "GET /a ")

        #expect(throws: ServerError.self) { try TestServer(listen: .unix(path: path)) }
        await client.send(get("/b"))
        #expect(await client.receiveAnswer().text == "GET /b ")
    }

    @Test @Loop func `a port in use is an error that says so`() throws {
        let server = try TestServer()
        defer { server.close() }
        let second = try TestServer(listen: nil)
        defer { second.close() }
        do {
            try second.http.listen(on: .tcp(host: "127.0.0.1", port: server.port))
            Issue.record("listened twice on port \(server.port)")
        } catch {
            #expect("\(error)" == "cannot listen on 127.0.0.1:\(server.port): address already in use")
        }
    }

    @Test @Loop func `addresses that cannot be are errors`() throws {
        let server = try TestServer(listen: nil)
        defer { server.close() }
        #expect(throws: ServerError.self) { try server.http.listen(on: .tcp(host: "not.valid.invalid", port: 0)) }
        #expect(throws: ServerError.self) { try server.http.listen(on: .unix(path: "")) }
        let long = "/tmp/" + String(repeating: "x", count: 200)
        #expect(throws: ServerError.self) { try server.http.listen(on: .unix(path: long)) }
        #expect(throws: ServerError.self) { try server.http.listen(on: .unix(path: "/no/such/directory/socket")) }
    }
}
