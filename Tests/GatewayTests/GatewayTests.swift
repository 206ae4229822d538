import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What the gateway says itself, and what it wants of each request.
@Suite(.timeLimit(.minutes(1))) struct GatewayTests {
    init() { LoopThread.start() }

    // MARK: Its own answers

    @Test(arguments: ["GET", "HEAD"], ["/", "/?x=1"])
    @Loop func `the root says that Ollama is running`(method: String, target: String) throws {
        let response = try #require(try Rig().gateway.answer(request(method, target)))
        #expect(response.status == 200)
        #expect(response.headers["content-type"] == "text/plain; charset=utf-8")
        #expect(response.body.text == "Ollama is running")
    }

    @Test(arguments: ["GET", "HEAD"], ["/health", "/health?verbose"])
    @Loop func `health is JSON with the time in microseconds`(method: String, target: String) throws {
        let response = try #require(try Rig().gateway.answer(request(method, target)))
        #expect(response.status == 200)
        #expect(response.headers["content-type"] == "application/json")
        #expect(response.body.text == #"{"status":"healthy","timestamp":"2026-02-02T16:47:16.414524+00:00"}"#)
        let form = /\{"status":"healthy","timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"\}/
        #expect(response.body.text.wholeMatch(of: form) != nil)
    }

    @Test @Loop func `health tells the time of the request`() throws {
        let rig = try Rig()
        for (now, text) in [(Int64(0), "1970-01-01T00:00:00.000000"), (1_000_001, "1970-01-01T00:00:01.000001")] {
            rig.clock.now = now
            #expect(rig.gateway.answer(request("GET", "/health"))?.body.text.contains("\"\(text)+00:00\"") == true)
        }
    }

    @Test(arguments: ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get"])
    @Loop func `health takes no other method`(method: String) throws {
        let response = try #require(try Rig().gateway.answer(request(method, "/health")))
        #expect(response.status == 405)
        #expect(response.headers["allow"] == "GET, HEAD")
        #expect(response.headers["content-type"] == "application/json")
        #expect(try decode(NativeError.self, response.body.text).error == "method not allowed")
    }

    @Test(arguments: [
        ("POST", "/"), ("OPTIONS", "/"), ("GET", "//"), ("GET", "/health/"), ("GET", "/Health"), ("GET", "/api/tags"),
        ("GET", "/v1/models"), ("POST", "/api/chat"), ("OPTIONS", "*"), ("GET", "/favicon.ico"),
    ])
    @Loop func `everything else is for a box`(method: String, target: String) throws {
        #expect(try Rig().gateway.answer(request(method, target)) == nil)
    }

    // MARK: Intake

    @Test(arguments: ["/api/blobs/sha256:0123", "/api/blobs/", "/api/blobs/x?y"])
    @Loop func `blobs are taken while they come`(target: String) throws {
        guard case .stream = try Rig().gateway.receive(request("POST", target)) else {
            Issue.record("\(target) is collected")
            return
        }
    }

    @Test(arguments: [
        "/", "/healthy", "/api/chat", "/api/blobs", "/api/blobsx/y", "/v1/api/blobs/x", "/?/api/blobs/x", "*",
    ])
    @Loop func `any other body is collected, up to 64 MiB`(target: String) throws {
        guard case .collect(let limit) = try Rig().gateway.receive(request("POST", target)) else {
            Issue.record("\(target) is not collected")
            return
        }
        #expect(limit == 64 * 1024 * 1024)
    }

    @Test(arguments: ["/health", "/metrics", "/gateway/cache", "/gateway"])
    @Loop func `of a body for the gateway itself little is collected`(target: String) throws {
        guard case .collect(limit: 65_536) = try Rig().gateway.receive(request("POST", target)) else {
            Issue.record("\(target): another limit")
            return
        }
    }

    @Test @Loop func `the limit is as it was set`() throws {
        var settings = Gateway.Settings()
        settings.maxBody = 17
        let gateway = Gateway(
            backends: [try Backend("box")], transport: Box { _ in throw CancellationError() }, settings: settings,
            hash: testHash,
            clock: { 0 })
        guard case .collect(limit: 17) = gateway.receive(request("POST", "/api/chat")) else {
            Issue.record("the limit is another")
            return
        }
    }

    // MARK: Refusals

    @Test(arguments: [
        (RequestProblem.malformed("no host"), 400), (.unsupportedTransferCoding("gzip"), 501),
        (.bodyTooLarge(limit: 5), 413), (.tooSlow, 408), (.unanswered, 500),
    ])
    @Loop func `a request that the server turns away is told why, in the words of its API`(
        problem: RequestProblem, status: Int
    ) throws {
        let rig = try Rig()
        let headers: Headers = ["X-Request-Id": "mine"]
        let native = rig.gateway.refusal(of: request("POST", "/api/chat?x", headers: headers), for: problem)
        #expect(native.status == status)
        #expect(native.headers["x-request-id"] == "mine")
        #expect(try decode(NativeError.self, native.body.text).error == problem.message)
        let openAI = rig.gateway.refusal(of: request("POST", "/v1/completions?x", headers: headers), for: problem)
        #expect(openAI.status == status)
        #expect(try decode(OpenAIError.self, openAI.body.text).error.message == problem.message)
        let anthropic = rig.gateway.refusal(of: request("POST", "/v1/messages?x", headers: headers), for: problem)
        #expect(try decode(AnthropicError.self, anthropic.body.text).error.message == problem.message)
        #expect(try decode(AnthropicError.self, anthropic.body.text).requestID == "mine")
    }

    @Test @Loop func `a request that nobody understood is answered too`() throws {
        let rig = try Rig()
        let response = rig.gateway.refusal(of: nil, for: .malformed("not HTTP"))
        #expect(response.status == 400)
        #expect(try decode(NativeError.self, response.body.text).error == "bad request: not HTTP")
        let record = try #require(rig.log.records.first)
        #expect([record.method, record.target, record.peer] == ["-", "-", "-"])
        #expect(response.headers["x-request-id"] == record.id)
    }
}
