import EventLoop
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// Answers on their way out: complete, sent again, streamed, broken off.
@Suite(.timeLimit(.minutes(1))) struct AnswerTests {
    init() { LoopThread.start() }

    // MARK: Complete

    @Test @Loop func `a complete answer has its status, headers, length and body`() async throws {
        let server = try TestServer { _, reply, _ in
            reply.send(Response(status: 418, headers: ["X-B": "2", "x-a": "ü"], body: Bytes("tea")))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(get())
        let answer = await client.receiveAnswer()
        #expect(answer.header.hasPrefix("HTTP/1.1 418 "))
        #expect(answer.values("Content-Length") == ["3"])
        #expect(answer.values("X-B") == ["2"])
        #expect(answer.values("Transfer-Encoding") == [])
        #expect(answer.text == "tea")
    }

    @Test @Loop func `header values leave as ISO 8859-1, as they came`() async throws {
        let server = try TestServer { request, reply, _ in
            reply.send(Response(status: 200, headers: ["Y": request.headers["X"] ?? "?"]))
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(Array("GET / HTTP/1.1\r\nHost: x\r\nX: ".utf8) + [0xfc, 0x80, 0xff] + Array("\r\n\r\n".utf8))
        // Not as text: it is no UTF-8.
        await client.send(get("/", "Connection: close"))
        let bytes = await client.receiveToEnd().bytes
        #expect(bytes.contains(sequence: Array("Y: ".utf8) + [0xfc, 0x80, 0xff, 0x0d]))
    }

    @Test @Loop func `an answer from the handler's first call needs no task`() async throws {
        let server = try TestServer(answering: .init { $0.target == "/now" ? TestServer.echo($0) : nil })
        defer { server.close() }
        let client = server.connect()
        await client.send(get("/now") + get("/later"))
        #expect(await client.receiveAnswer().text == "GET /now ")
        #expect(await client.receiveAnswer().text == "GET /later ")
    }

    @Test @Loop func `one Response object serves many requests on many connections at once`() async throws {
        let bytes = pattern(300_000)
        let response = Response(status: 200, headers: ["X": "same"], body: Bytes(bytes))
        let server = try TestServer { _, reply, _ in reply.send(response) }
        defer { server.close() }
        let clients = (0..<20).map { _ in server.connect() }
        for round in 0..<5 {
            for client in clients { await client.send(get("/\(round)")) }
            for client in clients {
                let answer = await client.receiveAnswer()
                #expect(answer["X"] == "same")
                #expect(answer.body == bytes)
            }
        }
    }

    @Test @Loop func `an empty answer says that its length is zero`() async throws {
        let server = try TestServer { _, reply, _ in reply.send(Response(status: 200)) }
        defer { server.close() }
        #expect(await server.answer(to: get())["Content-Length"] == "0")
    }

    @Test @Loop func `a reply that is dropped becomes a 500`() async throws {
        let server = try TestServer { _, reply, _ in _ = consume reply }
        defer { server.close() }
        let client = server.connect()
        for _ in 0..<2 {
            await client.send(get())
            let answer = await client.receiveAnswer()
            #expect(answer.status == 500)
            #expect(answer.text == "internal error: the request was not answered")
        }
    }

    // MARK: Streamed

    @Test @Loop func `each chunk of a streamed answer leaves at once, as a chunk of its own`() async throws {
        let gates = (0..<3).map { _ in Gate() }
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: ["Content-Type": "text/plain"])
            for gate in gates {
                try? await gate.wait()
                try? await writer.send("chunk")
            }
            writer.finish()
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(get())
        // The header does not wait for the first chunk.
        let header = await client.receive(through: "\r\n\r\n")
        #expect(header.contains("Transfer-Encoding: chunked\r\n"))
        for gate in gates {
            gate.open()
            #expect(await client.receive(through: "chunk\r\n") == "5\r\nchunk\r\n")
        }
        #expect(await client.receive(through: "0\r\n\r\n") == "0\r\n\r\n")
        await client.send(get())
        #expect(await client.receiveAnswer().chunks == [5, 5, 5])
    }

    @Test @Loop func `chunks written before the header has left are not lost`() async throws {
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: [:])
            for text in ["a", "", "bc"] { try? await writer.send(text) }
            writer.finish()
        }
        defer { server.close() }
        let client = server.connect()
        for _ in 0..<2 {
            await client.send(get())
            let answer = await client.receiveAnswer()
            #expect(answer.text == "abc")
            #expect(answer.ending == .whole)
        }
    }

    @Test(arguments: [0, 1, 10, 100_000, 3_000_000])
    @Loop func `a streamed answer of known length is not chunked`(length: Int) async throws {
        let bytes = pattern(length)
        let server = try TestServer { _, reply, seen in
            let writer = reply.stream(status: 200, headers: [:], length: length)
            do { try await writer.write(bytes) } catch { seen.note("\(error)") }
            writer.finish()
        }
        defer { server.close() }
        let client = server.connect()
        for _ in 0..<2 {
            await client.send(get())
            let answer = await client.receiveAnswer()
            #expect(answer.values("Content-Length") == ["\(length)"])
            #expect(answer["Transfer-Encoding"] == nil)
            #expect(answer.body == bytes)
        }
        #expect(server.seen.values == [])
    }

    @Test @Loop func `pieces of an answer of known length leave as they come`() async throws {
        let gate = Gate()
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: [:], length: 10)
            try? await writer.send("first")
            try? await gate.wait()
            try? await writer.send("other")
            writer.finish()
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(get())
        _ = await client.receive(through: "\r\n\r\n")
        #expect(await client.receive(count: 5) == Array("first".utf8))
        gate.open()
        #expect(await client.receive(count: 5) == Array("other".utf8))
    }

    @Test @Loop func `a streamed answer to HTTP 1.0 is ended by closing`() async throws {
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: [:])
            for text in ["one ", "two"] { try? await writer.send(text) }
            writer.finish()
        }
        defer { server.close() }
        let answer = await server.answer(to: "GET / HTTP/1.0\r\n\r\n")
        #expect(answer["Transfer-Encoding"] == nil)
        #expect(answer.text == "one two")
        #expect(answer.ending == .closed)
    }

    @Test(arguments: [nil, 16 << 20], [1000, 65_536, 1 << 20])
    @Loop func `a writer waits for a reader that stalls, and every byte arrives`(length: Int?, step: Int) async throws {
        let bytes = pattern(16 << 20)
        let server = try TestServer { _, reply, seen in
            let writer = reply.stream(status: 200, headers: [:], length: length)
            do {
                try await writer.write(bytes, by: step) { written in
                    if seen.count == 0 { seen.note("\(written)") }
                }
                writer.finish()
            } catch {
                seen.note("\(error)")
            }
        }
        defer { server.close() }
        let client = server.connect(receiveBuffer: 64 * 1024)
        await client.send(get())
        #expect(await eventually { server.seen.count > 0 })
        #expect((server.seen.values.first.flatMap { Int($0) } ?? .max) < 12 << 20)
        let answer = await client.receiveAnswer()
        #expect(answer.ending == .whole)
        #expect(answer.body == bytes)
        await client.send(get("/", "Connection: close"))
        #expect(await client.receiveAnswer().body.count == bytes.count)
    }

    @Test @Loop func `streams of several clients do not hold each other up`() async throws {
        let server = try TestServer { request, reply, seen in
            let writer = reply.stream(status: 200, headers: [:])
            let large = request.target == "/large"
            try? await writer.write(pattern(large ? 32 << 20 : 1000)) { _ in seen.note("stalled") }
            writer.finish()
        }
        defer { server.close() }
        let stalled = server.connect(receiveBuffer: 4096)
        await stalled.send(get("/large"))
        #expect(await eventually { server.seen.count > 0 })
        #expect(await server.answer(to: get("/small")).body == pattern(1000))
    }

    // MARK: Broken off

    @Test @Loop func `an aborted stream delivers its bytes and does not look complete`() async throws {
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: [:])
            try? await writer.send("as far as this")
            writer.abort()
        }
        defer { server.close() }
        let answer = await server.answer(to: get())
        #expect(answer.text == "as far as this")
        #expect(answer.ending == .closed || answer.ending == .reset)
    }

    @Test @Loop func `an abort after the first bytes were read does not look complete either`() async throws {
        let gate = Gate()
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: [:])
            try? await writer.send("first")
            try? await gate.wait()
            try? await writer.send("last")
            writer.abort()
        }
        defer { server.close() }
        let client = server.connect()
        await client.send(get())
        #expect(await client.receive(through: "first\r\n").hasSuffix("5\r\nfirst\r\n"))
        gate.open()
        let rest = await client.receiveToEnd()
        #expect(String(decoding: rest.bytes, as: UTF8.self) == "4\r\nlast\r\n")
    }

    @Test @Loop func `an aborted stream of known length stops short of it`() async throws {
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: [:], length: 100)
            try? await writer.send("as far as this")
            writer.abort()
        }
        defer { server.close() }
        let answer = await server.answer(to: get())
        #expect(answer.text == "as far as this")
        #expect(answer.ending == .closed || answer.ending == .reset)
    }

    @Test @Loop func `bytes that a slow reader has not taken yet arrive before the abort`() async throws {
        let bytes = pattern(8 << 20)
        let server = try TestServer { _, reply, seen in
            let writer = reply.stream(status: 200, headers: [:])
            _ = bytes.withUnsafeBytes { writer.write($0) }
            writer.abort()
            seen.note("aborted")
        }
        defer { server.close() }
        let client = server.connect(receiveBuffer: 64 * 1024)
        await client.send(get())
        #expect(await eventually { server.seen.count > 0 })
        let answer = await client.receiveAnswer()
        #expect(answer.body == bytes)
        #expect(answer.ending == .closed || answer.ending == .reset)
    }
}

extension [UInt8] {
    func contains(sequence: [UInt8]) -> Bool {
        indices.contains { self[$0...].starts(with: sequence) }
    }
}
