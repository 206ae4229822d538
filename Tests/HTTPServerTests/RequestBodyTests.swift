import EventLoop
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// Bodies on their way in: collected, streamed, refused.
@Suite(.timeLimit(.minutes(1))) struct RequestBodyTests {
    init() { LoopThread.start() }

    // MARK: Collected

    @Test @Loop func `a body of declared length is collected`() async throws {
        let server = try TestServer()
        defer { server.close() }
        #expect(await server.answer(to: post("hello")).text == "POST / hello")
    }

    @Test @Loop func `a chunked body is collected, without its frames`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        let text = "5\r\nhello\r\n1;ext=1\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
        for _ in 0..<2 {
            await client.send(header("POST", "/", ["Transfer-Encoding: chunked"]) + text)
            #expect(await client.receiveAnswer().text == "POST / hello 0123456789")
        }
    }

    @Test @Loop func `a large body is collected whole`() async throws {
        let bytes = pattern(4 << 20)
        let server = try TestServer(intake: .collect(limit: 4 << 20)) { request, reply, _ in
            guard case .bytes(let body) = request.body else { return }
            reply.send(Response(status: 200, body: body))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(Array(header("POST", "/", ["Content-Length: \(bytes.count)"]).utf8) + bytes)
        #expect(await client.receiveAnswer().body == bytes)
    }

    @Test @Loop func `a client that expects 100 is told to continue before it sends`() async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", ["Content-Length: 5", "Expect: 100-continue"]))
        #expect(await client.receiveAnswer().status == 100)
        await client.send("hello")
        #expect(await client.receiveAnswer().text == "POST / hello")
    }

    @Test @Loop func `a client that expects 100 for too large a body is refused at once`() async throws {
        let server = try TestServer(intake: .collect(limit: 4))
        defer { server.close() }
        let answer = await server.answer(to: header("POST", "/", ["Content-Length: 5", "Expect: 100-continue"]))
        #expect(answer.status == 413)
    }

    @Test @Loop func `a body as large as the limit is taken`() async throws {
        let server = try TestServer(intake: .collect(limit: 5))
        defer { server.close() }
        #expect(await server.answer(to: post("hello")).text == "POST / hello")
        let chunked = header("POST", "/", ["Transfer-Encoding: chunked"]) + "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
        #expect(await server.answer(to: chunked).text == "POST / hello")
    }

    @Test @Loop func `a declared length beyond the limit is refused with 413 before the body`() async throws {
        let server = try TestServer(intake: .collect(limit: 5))
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", ["Content-Length: 6"]))
        let answer = await client.receiveAnswer()
        #expect(answer.status == 413)
        #expect(answer.text == "request body is larger than the limit of 5 bytes")
        #expect(await client.receiveToEnd().ending == .closed)
        #expect(server.seen.values == ["refused POST 413"])
    }

    @Test @Loop func `a chunked body that grows beyond the limit is refused with 413`() async throws {
        let server = try TestServer(intake: .collect(limit: 5))
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", ["Transfer-Encoding: chunked"]) + "3\r\nhel\r\n3\r\nlo!\r\n")
        let answer = await client.receiveAnswer()
        #expect(answer.status == 413)
        #expect(answer.ending == .whole)
        #expect(await client.receiveToEnd().ending == .closed)
    }

    @Test(arguments: ["Content-Length: 8388608", "Transfer-Encoding: chunked"])
    @Loop func `a client that reads only after sending all sees the refusal`(framing: String) async throws {
        let server = try TestServer(intake: .collect(limit: 5))
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", [framing]))
        if framing.hasPrefix("T") { await client.send("800000\r\n") }
        #expect(await client.send(pattern(8 << 20)) == 8 << 20)
        #expect(await client.receiveAnswer().status == 413)
    }

    // MARK: Streamed

    @Test @Loop func `a streamed body reaches the handler while it comes`() async throws {
        let server = try TestServer(intake: .stream) { request, reply, seen in
            guard case .stream(let body, let length) = request.body else { return }
            seen.note("length \(length ?? -1)")
            try? await body.forward {
                seen.note(String(decoding: $0, as: UTF8.self))
                return .more
            }
            reply.send(Response(status: 200, contentType: "text/plain", "done"))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", ["Content-Length: 10"]) + "first")
        #expect(await eventually { server.seen.values == ["length 10", "first"] })
        await client.send("other")
        #expect(await client.receiveAnswer().text == "done")
        #expect(server.seen.values == ["length 10", "first", "other"])
    }

    @Test @Loop func `a chunked streamed body has no length, an absent one is none`() async throws {
        let server = try TestServer(intake: .stream) { request, reply, seen in
            switch request.body {
            case .none: seen.note("none")
            case .bytes: seen.note("bytes")
            case .stream(let body, let length):
                seen.note("\(length ?? -1) \((try? await body.collect().text) ?? "?")")
            }
            reply.send(Response(status: 204))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", ["Transfer-Encoding: chunked"]) + "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
        #expect(await client.receiveAnswer().status == 204)
        await client.send(get("/"))
        #expect(await client.receiveAnswer().status == 204)
        #expect(server.seen.values == ["-1 hello", "none"])
    }

    @Test(arguments: [true, false])
    @Loop func `a client must wait while its body is not taken, and all of it arrives`(chunked: Bool) async throws {
        let bytes = pattern(32 << 20)
        let gate = Gate()
        let server = try TestServer(intake: .stream) { request, reply, _ in
            guard case .stream(let body, _) = request.body else { return }
            try? await gate.wait()
            let whole = try? await body.collect()
            let isRight = whole.map { $0.buffer.elementsEqual(bytes) } ?? false
            reply.send(Response(status: isRight ? 200 : 500))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(
            header("POST", "/", [chunked ? "Transfer-Encoding: chunked" : "Content-Length: \(bytes.count)"]))
        if chunked { await client.send(String(bytes.count, radix: 16) + "\r\n") }
        let sent = await client.send(bytes, patience: 300)
        #expect(sent < 16 << 20)
        gate.open()
        await client.send(Array(bytes[sent...]))
        if chunked { await client.send("\r\n0\r\n\r\n") }
        #expect(await client.receiveAnswer().status == 200)
    }

    @Test @Loop func `the consumer of an upload can pause and resume`() async throws {
        let bytes = pattern(1 << 20)
        let server = try TestServer(intake: .stream) { request, reply, seen in
            guard case .stream(let body, _) = request.body else { return }
            nonisolated(unsafe) var total = 0
            try? await body.forward { chunk in
                total += chunk.count
                Loop.events.schedule(after: .milliseconds(1)) { body.resume() }
                return .pause
            }
            reply.send(Response(status: 200, contentType: "text/plain", "\(total)"))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(Array(header("POST", "/", ["Content-Length: \(bytes.count)"]).utf8) + bytes)
        #expect(await client.receiveAnswer().text == "\(bytes.count)")
    }

    @Test @Loop func `a client that leaves amid its upload ends the body with an error`() async throws {
        let server = try TestServer(intake: .stream) { request, reply, seen in
            guard case .stream(let body, _) = request.body else { return }
            do {
                _ = try await body.collect()
                seen.note("complete")
            } catch {
                seen.note("\(type(of: error))")
            }
            reply.send(Response(status: 200))
        }
        defer { server.close() }
        for _ in 0..<2 {
            let client = server.connect()
            await client.send(header("POST", "/", ["Content-Length: 10"]) + "first")
            client.close()
        }
        #expect(await eventually { server.seen.count == 2 })
        #expect(!server.seen.values.contains("complete"))
    }

    // MARK: Answered early

    @Test @Loop func `an answer given before the upload is complete is sent at once, and nothing after it`()
        async throws
    {
        let server = try TestServer(intake: .stream) { _, reply, _ in
            reply.send(Response(status: 403, contentType: "text/plain", "no"))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", ["Content-Length: 10"]) + "first")
        let answer = await client.receiveAnswer()
        #expect(answer.status == 403)
        #expect(answer.text == "no")
        #expect(answer["Connection"]?.lowercased() == "close")
        await client.send("other" + get("/next"))
        #expect(await client.receiveToEnd().bytes == [])
    }

    @Test @Loop func `a streamed answer begun before the upload is complete loses nothing`() async throws {
        let bytes = pattern(1 << 20)
        let server = try TestServer(intake: .stream) { request, reply, seen in
            let writer = reply.stream(status: 200, headers: [:])
            do {
                try await writer.write(bytes)
                writer.finish()
            } catch {
                seen.note("\(error)")
            }
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", ["Content-Length: 10"]) + "first")
        await client.send("other")
        let answer = await client.receiveAnswer()
        #expect(answer.ending == .whole)
        #expect(answer.body == bytes)
    }
}
