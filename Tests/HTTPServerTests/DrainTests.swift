import EventLoop
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// The end of a server: gentle, or at once.
@Suite(.timeLimit(.minutes(1))) struct DrainTests {
    init() { LoopThread.start() }

    @Test @Loop func `draining closes idle connections and lets running answers finish`() async throws {
        let gate = Gate()
        let server = try TestServer { request, reply, seen in
            seen.note("working")
            try? await gate.wait()
            reply.send(TestServer.echo(request))
        }
        let (idle, busy) = (server.connect(), server.connect())
        await busy.send(get("/busy"))
        #expect(await eventually { server.seen.count == 1 })
        let drained = Recorder<Int>()
        let draining = Loop.task { drained.note(await server.http.drain(within: .seconds(20))) }
        #expect(await idle.receiveToEnd().ending == .closed)
        #expect(drained.values == [])
        gate.open()
        let answer = await busy.receiveAnswer()
        #expect(answer.text == "GET /busy ")
        #expect(answer["Connection"]?.lowercased() == "close")
        #expect(await busy.receiveToEnd().ending == .closed)
        await draining.value
        #expect(drained.values == [0])
    }

    @Test @Loop func `a running stream finishes while the server drains`() async throws {
        let gate = Gate()
        let server = try TestServer { _, reply, _ in
            let writer = reply.stream(status: 200, headers: [:])
            try? await writer.send("first")
            try? await gate.wait()
            try? await writer.send("last")
            writer.finish()
        }
        let client = server.connect()
        await client.send(get())
        _ = await client.receive(through: "first\r\n")
        let drained = Recorder<Int>()
        let draining = Loop.task { drained.note(await server.http.drain(within: .seconds(20))) }
        gate.open()
        let rest = await client.receiveToEnd()
        #expect(String(decoding: rest.bytes, as: UTF8.self) == "4\r\nlast\r\n0\r\n\r\n")
        #expect(rest.ending == .closed)
        await draining.value
        #expect(drained.values == [0])
    }

    @Test @Loop func `nobody listens any more while the server drains`() async throws {
        let gate = Gate()
        let server = try TestServer { _, reply, seen in
            seen.note("working")
            try? await gate.wait()
            reply.send(Response(status: 200))
        }
        let client = server.connect()
        await client.send(get())
        #expect(await eventually { server.seen.count == 1 })
        let draining = Loop.task { _ = await server.http.drain(within: .seconds(20)) }
        // The port is free again, for another server.
        let second = try TestServer(listen: nil)
        defer { second.close() }
        #expect(
            await eventually {
                (try? second.http.listen(on: .tcp(host: "127.0.0.1", port: server.port))) != nil
            })
        gate.open()
        #expect(await client.receiveAnswer().status == 200)
        await draining.value
    }

    @Test @Loop func `what is not done when the patience ends is cut, cancelled and counted`() async throws {
        let server = try TestServer { request, reply, seen in
            let work = { @Loop () async in
                seen.note("working")
                do { try await Gate().wait() } catch { seen.note("cancelled") }
            }
            if request.target == "/stream" {
                let writer = reply.stream(status: 200, headers: [:])
                try? await writer.send("first")
                await work()
            } else {
                await work()
                reply.send(Response(status: 200))
            }
        }
        let clients = [server.connect(), server.connect()]
        await clients[0].send(get("/stream"))
        await clients[1].send(get("/wait"))
        #expect(await eventually { server.seen.count == 2 })
        #expect(await server.http.drain(within: .milliseconds(50)) == 2)
        let stream = await clients[0].receiveAnswer()
        #expect(stream.text == "first")
        #expect(stream.ending == .closed || stream.ending == .reset)
        // Its handler had a moment to answer.
        #expect(await clients[1].receiveAnswer().status == 200)
        #expect(await eventually { server.seen.values.filter { $0 == "cancelled" }.count == 2 })
    }

    @Test @Loop func `draining a server without connections returns at once`() async throws {
        let server = try TestServer()
        #expect(await server.http.drain(within: .seconds(20)) == 0)
        server.close()
    }

    @Test @Loop func `closing amid everything cancels all, and may be done twice`() async throws {
        let server = try TestServer(intake: .stream) {
            request, reply, seen in
            seen.note("working")
            if case .stream(let body, _) = request.body {
                do { _ = try await body.collect() } catch { seen.note("ended") }
            } else {
                let writer = reply.stream(status: 200, headers: [:])
                do { try await writer.write(pattern(32 << 20)) } catch { seen.note("ended") }
            }
        }
        let clients = [server.connect(), server.connect(), server.connect()]
        await clients[0].send(get("/stream"))
        await clients[1].send(header("POST", "/upload", ["Content-Length: 100"]) + "ab")
        await clients[2].send("GET /half")
        #expect(await eventually { server.seen.count == 2 })
        server.close()
        server.close()
        #expect(await eventually { server.seen.values.filter { $0 == "ended" }.count == 2 })
        for client in clients { #expect(await client.receiveToEnd().ending != .timeout) }
    }
}
