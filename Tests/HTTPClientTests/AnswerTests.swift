import EventLoop
import HTTPClient
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// Answers in all framings, and consumers in no hurry.
@Suite(.timeLimit(.minutes(1))) struct AnswerTests {
    init() { LoopThread.start() }

    @Test @Loop func `an answer has its status, headers, length and body`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, _) = try await script.exchange(
            "HTTP/1.1 418 I'm a teapot\r\nX-b: 1\r\nx-A:  two words \r\nX-b: 3\r\nEmpty:\r\ncontent-length: 3\r\n\r\ntea"
        )
        let answer = try await call.header()
        #expect(answer.status == 418)
        #expect(answer.length == 3)
        #expect(
            answer.headers.fields.map { "\($0.name)=\($0.value)" }
                == ["X-b=1", "x-A=two words", "X-b=3", "Empty=", "content-length=3"])
        #expect(try await answer.body.collect().text == "tea")
    }

    @Test @Loop func `header values come as ISO 8859-1, and nothing is decoded`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let call = script.call()
        let peer = try await script.accept()
        _ = await peer.receive(through: "\r\n\r\n")
        await peer.send(
            Array("HTTP/1.1 302 \r\nContent-Encoding: gzip\r\nLocation: /x\r\nSet-Cookie: a=b\r\nX: ".utf8) + [
                0xfc, 0x80,
            ]
                + Array("\r\nContent-Length: 3\r\n\r\nnot".utf8))
        let answer = try await call.header()
        #expect(answer.status == 302)
        #expect(answer.headers["x"] == "\u{fc}\u{80}")
        #expect(answer.headers["content-encoding"] == "gzip")
        #expect(try await answer.body.collect().text == "not")
        // No cookie is kept.
        let next = script.call()
        #expect(!(await peer.receive(through: "\r\n\r\n")).contains("Cookie"))
        await peer.send(ok(""))
        _ = try await next.text()
    }

    @Test @Loop func `each chunk is delivered as it comes, without its frame`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        // The header does not wait for the body.
        let answer = try await call.header()
        #expect(answer.length == nil)
        let chunks = Recorder<String>()
        let reader = Loop.task {
            try? await answer.body.forward {
                chunks.note(String(decoding: $0, as: UTF8.self))
                return .more
            }
            chunks.note("end")
        }
        for text in ["one", "two"] {
            await peer.send("3\r\n\(text)\r\n")
            #expect(await eventually { chunks.values.last == text })
        }
        await peer.send("0\r\n\r\n")
        await reader.value
        #expect(chunks.values == ["one", "two", "end"])
    }

    @Test @Loop func `an answer without framing lasts until the server closes`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("HTTP/1.1 200 OK\r\n\r\nsome")
        await peer.send(" more")
        peer.close()
        let answer = try await call.header()
        #expect(answer.length == nil)
        #expect(try await answer.body.collect().text == "some more")
    }

    @Test @Loop func `an HTTP 1.0 answer is understood`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("HTTP/1.0 200 OK\r\n\r\nold")
        peer.close()
        #expect(try await call.text() == "old")
    }

    @Test(arguments: ["204 No Content", "304 Not Modified"])
    @Loop func `an answer that has no body by its status ends with its header`(status: String) async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("HTTP/1.1 \(status)\r\n\r\n")
        #expect(try await call.text() == "")
        let next = script.call()
        _ = await peer.receive(through: "\r\n\r\n")
        await peer.send(ok("next"))
        #expect(try await next.text() == "next")
    }

    @Test @Loop func `an answer to HEAD declares a length and has no body`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, _) = try await script.exchange("HTTP/1.1 200 OK\r\nContent-Length: 4321\r\n\r\n", method: "HEAD")
        let answer = try await call.header()
        #expect(answer.length == 4321)
        #expect(try await answer.body.collect().count == 0)
    }

    @Test @Loop func `interim answers are not the answer`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(
            "HTTP/1.1 102 Processing\r\nX: no\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await peer.send("HTTP/1.1 200 OK\r\nX: yes\r\nContent-Length: 2\r\n\r\nok")
        let answer = try await call.header()
        #expect(answer.status == 200)
        #expect(answer.headers.values("X") == ["yes"])
        #expect(answer.headers["Link"] == nil)
        #expect(try await answer.body.collect().text == "ok")
    }

    @Test @Loop func `trailers are passed over`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n")
        let answer = try await call.header()
        #expect(try await answer.body.collect().text == "ok")
        #expect(answer.headers["X-Trailer"] == nil)
        let next = script.call()
        _ = await peer.receive(through: "\r\n\r\n")
        await peer.send(ok("next"))
        #expect(try await next.text() == "next")
    }

    @Test @Loop func `an answer that comes byte by byte is understood`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange("")
        for byte in Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".utf8) {
            await peer.send([byte])
        }
        #expect(try await call.text() == "ok")
    }

    @Test(arguments: [true, false])
    @Loop func `a server must wait for a consumer that pauses, and every byte arrives`(chunked: Bool) async throws {
        let bytes = pattern(32 << 20)
        let script = try Script()
        defer { script.client.close() }
        let (call, peer) = try await script.exchange(
            "HTTP/1.1 200 OK\r\n"
                + (chunked
                    ? "Transfer-Encoding: chunked\r\n\r\n\(String(bytes.count, radix: 16))\r\n"
                    : "Content-Length: \(bytes.count)\r\n\r\n"))
        let answer = try await call.header()
        // Nobody takes the body yet.
        let sent = await peer.send(bytes, patience: 300)
        #expect(sent < 24 << 20)
        let rest = Array(bytes[sent...]) + Array((chunked ? "\r\n0\r\n\r\n" : "").utf8)
        let sender = Task { await peer.send(rest) }
        let pauses = Recorder<Bool>()
        let whole = Collected()
        try await answer.body.forward { chunk in
            whole.bytes += chunk
            guard pauses.count < 20 else { return .more }
            pauses.note(true)
            Loop.events.schedule(after: .milliseconds(1)) { answer.body.resume() }
            return .pause
        }
        #expect(whole.bytes == bytes)
        #expect(await sender.value == rest.count)
    }

    @Test @Loop func `a thousand answers at once from our own server are all right`() async throws {
        let handler = Echo()
        let server = try HTTPServer(handler: handler)
        defer { server.close() }
        guard case .tcp(_, let port) = try server.listen(on: .tcp(host: "127.0.0.1", port: 0)) else { return }
        let client = try HTTPClient()
        defer { client.close() }
        let calls = (0..<1000).map {
            Call(
                ClientRequest(
                    method: "POST", origin: "http://127.0.0.1:\(port)", target: "/\($0)",
                    body: .bytes(Bytes("body \($0)"))),
                by: client)
        }
        for (index, call) in calls.enumerated() { #expect(try await call.text() == "/\(index) body \(index)") }
        #expect(client.transfers == 0)
    }

    @Loop private final class Collected { var bytes: [UInt8] = [] }

    @Loop private final class Echo: RequestHandler {
        func receive(_ request: Request) -> Intake { .collect(limit: 100) }
        func answer(_ request: Request) -> Response? { nil }
        func handle(_ request: Request, _ reply: consuming Reply) async {
            guard case .bytes(let body) = request.body else { return }
            let writer = reply.stream(status: 200, headers: [:])
            try? await writer.send("\(request.target) ")
            try? await writer.send(body.text)
            writer.finish()
        }
        func refusal(of request: Request?, for problem: RequestProblem) -> Response {
            Response(status: problem.status)
        }
    }
}
