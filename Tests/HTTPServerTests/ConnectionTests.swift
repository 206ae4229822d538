import EventLoop
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// Requests on connections: one after the other, ahead of time, half-closed.
@Suite(.timeLimit(.minutes(1))) struct ConnectionTests {
    init() { LoopThread.start() }

    @Test @Loop func `a connection carries one request after the other`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        for index in 0..<3 {
            await client.send(get("/\(index)"))
            let answer = await client.receiveAnswer()
            #expect(answer.status == 200)
            #expect(answer.text == "GET /\(index) ")
            #expect(answer["Connection"] == nil)
        }
    }

    @Test @Loop func `requests sent ahead are answered in order`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        await client.send(get("/a") + post("body", to: "/b") + get("/c"))
        #expect(await client.receiveAnswer().text == "GET /a ")
        #expect(await client.receiveAnswer().text == "POST /b body")
        #expect(await client.receiveAnswer().text == "GET /c ")
    }

    @Test @Loop func `a client that closes its side behind two requests gets both answers`() async throws {
        let gate = Gate()
        let server = try TestServer { request, reply, _ in
            try? await gate.wait()
            reply.send(TestServer.echo(request))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(get("/a") + get("/b"))
        client.finishSending()
        gate.open()
        #expect(await client.receiveAnswer().text == "GET /a ")
        #expect(await client.receiveAnswer().text == "GET /b ")
        #expect(await client.receiveToEnd().ending == .closed)
    }

    @Test @Loop func `the connection is closed when the client asks for it`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        await client.send(get("/", "Connection: close"))
        let answer = await client.receiveAnswer()
        #expect(answer.text == "GET / ")
        #expect(answer["Connection"]?.lowercased() == "close")
        let rest = await client.receiveToEnd()
        #expect(rest.bytes == [])
        #expect(rest.ending == .closed)
    }

    @Test @Loop func `an HTTP 1.0 client without Host is answered and its connection closed`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        await client.send("GET /old HTTP/1.0\r\n\r\n")
        #expect(await client.receiveAnswer().text == "GET /old ")
        #expect(await client.receiveToEnd().ending == .closed)
    }

    @Test @Loop func `a header that comes byte by byte is understood`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        for byte in Array(get("/slow").utf8) { await client.send([byte]) }
        #expect(await client.receiveAnswer().text == "GET /slow ")
    }

    @Test @Loop func `an answer to HEAD has the header of GET and no body`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        await client.send(header("HEAD", "/x"))
        let answer = await client.receiveAnswer(to: "HEAD")
        #expect(answer["Content-Length"] == "8")
        await client.send(get("/next"))
        #expect(await client.receiveAnswer().text == "GET /next ")
    }

    @Test @Loop func `an answer to HEAD declares the length it is given`() async throws {
        let server = try TestServer(answering: .init { _ in Response(status: 200, declaredLength: 4321) })
        defer { server.close() }
        let client = server.connect()
        for _ in 0..<2 {
            await client.send(header("HEAD", "/x"))
            #expect(await client.receiveAnswer(to: "HEAD")["Content-Length"] == "4321")
        }
    }

    @Test @Loop func `a streamed answer to HEAD has no body`() async throws {
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: ["X": "1"])
            writer.finish()
        }
        defer { server.close() }
        let client = server.connect()
        for _ in 0..<2 {
            await client.send(header("HEAD", "/x"))
            let answer = await client.receiveAnswer(to: "HEAD")
            #expect(answer["X"] == "1", "\(answer)")
        }
        await client.send(get("/"))
        #expect(await client.receiveAnswer().body == [])
    }

    @Test @Loop func `method, target and header reach the handler as they were written`() async throws {
        let server = try TestServer { request, reply, seen in
            for field in request.headers.fields { seen.note("\(field.name)=\(field.value)") }
            seen.note("\(request.method) \(request.target) \(request.path) \(request.peer)")
            reply.send(Response(status: 204))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(
            "Patch /a%2Fb/%zz/+?q=%20+ HTTP/1.1\r\nhOST: x\r\nX-A: 1\r\nx-a:  two words \r\nEmpty:\r\n\r\n")
        #expect(await client.receiveAnswer().status == 204)
        #expect(
            server.seen.values == [
                "hOST=x", "X-A=1", "x-a=two words", "Empty=", "Patch /a%2Fb/%zz/+?q=%20+ /a%2Fb/%zz/+ 127.0.0.1",
            ])
    }
}
