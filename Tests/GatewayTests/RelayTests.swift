import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Requests that a box answers.
@Suite(.timeLimit(.minutes(1))) struct RelayTests {
    init() { LoopThread.start() }

    // MARK: There

    @Test @Loop func `a request reaches the box as it was sent`() async throws {
        let rig = try Rig(backends: ["https://box/prefix"]) { _ in Body("").answer(length: 0) }
        let body = Bytes(#"{"model":"m"}"#)
        let headers: Headers = [
            "Host": "gate", "Content-Type": "application/json", "Content-Length": "13", "Origin": "http://page",
            "X-Request-Id": "mine",
        ]
        await rig.handle(request("PATCH", "/api/ch%61t?x=%20&y", headers: headers, body: .bytes(body)))
        let sent = try #require(rig.box.requests.first)
        #expect(rig.box.requests.count == 1)
        #expect(sent.method == "PATCH")
        #expect(sent.origin == "https://box/prefix")
        #expect(sent.target == "/api/ch%61t?x=%20&y")
        #expect(
            sent.headers.lines.filter { !$0.hasPrefix("traceparent: ") } == [
                "Content-Type: application/json", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http",
                "X-Forwarded-Host: gate", "X-Request-Id: mine",
            ])
        #expect(TraceContext(sent.headers)?.isSampled == false)
        guard case .bytes(let sentBody) = sent.body else {
            Issue.record("the body is lost")
            return
        }
        #expect(sentBody === body)
    }

    @Test @Loop func `an upload is handed on, not collected`() async throws {
        let rig = try Rig { _ in Body("").answer(201, length: 0) }
        let upload = ByteStream()
        await rig.handle(request("POST", "/api/blobs/sha256:1", body: .stream(upload, length: 5)))
        guard case .stream(let sent, length: 5)? = rig.box.requests.first?.body else {
            Issue.record("the body is no stream")
            return
        }
        #expect(sent === upload)
        #expect(rig.client.events == ["send 201"])
    }

    @Test @Loop func `requests go to the boxes in turn`() async throws {
        let rig = try Rig(backends: ["a:1", "b:2", "c:3"]) { _ in Body("").answer(length: 0) }
        for _ in 0..<7 { await rig.handle(request()) }
        #expect(
            rig.box.requests.map { String($0.origin.suffix(3)) } == ["a:1", "b:2", "c:3", "a:1", "b:2", "c:3", "a:1"])
        #expect(rig.log.records.map(\.backend) == ["a:1", "b:2", "c:3", "a:1", "b:2", "c:3", "a:1"])
    }

    @Test @Loop func `the box gets the id that the client and the log get`() async throws {
        let rig = try Rig { _ in Body("").answer(length: 0) }
        await rig.handle(request(headers: ["X-Request-Id": "not sane"]))
        let id = try #require(rig.box.requests.first?.headers["x-request-id"])
        #expect(id != "not sane")
        #expect(rig.client.headers["x-request-id"] == id)
        #expect(rig.log.records.map(\.id) == [id])
    }

    // MARK: And back

    @Test(arguments: [200, 201, 400, 404, 500, 503])
    @Loop func `an answer that has come whole leaves whole`(status: Int) async throws {
        let headers: Headers = [
            "Content-Type": "application/json", "Content-Length": "8", "Connection": "keep-alive, X-Hop", "X-Hop": "1",
            "X-A": "1", "x-a": "2",
        ]
        let rig = try Rig { _ in Body("{\"a\":\"é\"}").answer(status, headers, length: 10) }
        await rig.handle(request("GET", "/api/status", headers: ["X-Request-Id": "i"]))
        #expect(rig.client.events == ["send \(status)"])
        #expect(rig.client.response?.body.text == "{\"a\":\"é\"}")
        #expect(rig.client.headers.lines == ["Content-Type: application/json", "X-A: 1", "x-a: 2", "X-Request-Id: i"])
        #expect(rig.client.isReleased)
    }

    @Test @Loop func `an answer of known length is streamed with its length`() async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer(200, ["Content-Length": "6"], length: 6) }
        body.push("ab")
        let task = rig.begin(request())
        body.push("cd")
        #expect(rig.client.events == ["stream 200", "write ab", "write cd"])
        body.push("ef")
        body.stream.finish()
        await task.value
        #expect(rig.client.events == ["stream 200", "write ab", "write cd", "write ef", "finish"])
        #expect(rig.client.length == 6)
        #expect(rig.client.headers["content-length"] == nil)
    }

    @Test @Loop func `an answer of unknown length is streamed, each chunk when it comes`() async throws {
        let body = Body()
        let rig = try Rig { _ in
            body.answer(200, ["Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"])
        }
        let task = rig.begin(request("POST", "/api/chat"))
        #expect(rig.client.events == ["stream 200"])
        for number in 0..<3 {
            #expect(body.push("{\(number)}\n") == .more)
            #expect(rig.client.events.last == "write {\(number)}\n")
        }
        body.stream.finish()
        await task.value
        #expect(rig.client.text == "{0}\n{1}\n{2}\n")
        #expect(rig.client.events.last == "finish")
        #expect(rig.client.length == nil)
        #expect(rig.client.headers["transfer-encoding"] == nil)
    }

    @Test @Loop func `an answer of unknown length that has come whole is still streamed`() async throws {
        let rig = try Rig { _ in Body("all").answer(404) }
        await rig.handle(request())
        #expect(rig.client.events == ["stream 404", "write all", "finish"])
    }

    @Test @Loop func `an empty stream has an end`() async throws {
        let rig = try Rig { _ in Body("").answer() }
        await rig.handle(request())
        #expect(rig.client.events == ["stream 200", "finish"])
    }

    @Test(arguments: [nil, 0, 42])
    @Loop func `an answer to HEAD declares its length and has no body`(length: Int?) async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer(200, ["ETag": "e"], length: length) }
        await rig.handle(request("HEAD", "/api/blobs/sha256:1"))
        #expect(rig.client.events == ["send 200"])
        #expect(rig.client.response?.declaredLength == length)
        #expect(rig.client.response?.body.count == 0)
        #expect(rig.client.headers["etag"] == "e")
        #expect(body.cancels == 1)
        #expect(rig.log.records.first?.bytes == 0)
    }

    @Test(arguments: [204, 304])
    @Loop func `an answer that has no body by its status gets none`(status: Int) async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer(status, ["ETag": "e"]) }
        await rig.handle(request())
        #expect(rig.client.events == ["send \(status)"])
        #expect(rig.client.response?.body.count == 0)
        #expect(rig.client.response?.declaredLength == nil)
        #expect(body.cancels == 1)
    }

    // MARK: Back-pressure

    @Test @Loop func `a full connection holds the box back until it has room`() async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer() }
        let task = rig.begin(request())
        #expect(body.push("a") == .more)
        rig.client.flow = .pause
        #expect(body.push("b") == .pause)
        #expect(body.resumes == 0)
        rig.client.flow = .more
        rig.client.onDrain?()
        #expect(body.resumes == 1)
        #expect(body.push("c") == .more)
        body.stream.finish()
        await task.value
        #expect(rig.client.events == ["stream 200", "write a", "write b", "write c", "finish"])
        #expect(body.resumes == 1)
    }

    @Test @Loop func `a connection that fills up again and again loses nothing`() async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer() }
        rig.client.flow = .pause
        let task = rig.begin(request())
        for number in 1...50 {
            #expect(body.push("\(number),") == .pause)
            #expect(body.resumes == number - 1)
            rig.client.onDrain?()
            #expect(body.resumes == number)
        }
        body.stream.finish()
        await task.value
        #expect(rig.client.text == (1...50).map { "\($0)," }.joined())
        #expect(rig.client.events.last == "finish")
    }

    @Test @Loop func `what came with the header counts towards a full connection`() async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer() }
        body.push("early")
        rig.client.flow = .pause
        let task = rig.begin(request())
        #expect(rig.client.events == ["stream 200", "write early"])
        #expect(body.resumes == 0)
        rig.client.onDrain?()
        #expect(body.resumes == 1)
        body.stream.finish()
        await task.value
        #expect(rig.client.events.last == "finish")
    }
}
