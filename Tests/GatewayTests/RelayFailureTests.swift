import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Requests that no box answers, answers that break off, clients that leave.
@Suite(.timeLimit(.minutes(1))) struct RelayFailureTests {
    init() { LoopThread.start() }

    // MARK: No answer

    @Test(arguments: TransportError.Kind.allCases)
    @Loop func `a box that cannot be reached becomes a status and an error of the path's API`(
        kind: TransportError.Kind
    ) async throws {
        let status = [.firstByteTimeout: 504, .local: 500][kind] ?? 502
        let error = TransportError(kind: kind, answerBegan: false, isRetrySafe: true, message: "said \"no\"")
        for path in ["/api/chat", "/v1/chat/completions", "/v1/messages"] {
            let rig = try Rig { _ in throw error }
            await rig.handle(request("POST", path + "?q", headers: ["X-Request-Id": "i"]))
            #expect(rig.client.events == ["send \(status)"])
            #expect(rig.client.headers["content-type"] == "application/json; charset=utf-8")
            #expect(rig.client.headers["x-request-id"] == "i")
            let body = try #require(rig.client.response?.body.text)
            let message: String
            switch Dialect(path: path) {
            case .native: message = try decode(NativeError.self, body).error
            case .openAI: message = try decode(OpenAIError.self, body).error.message
            case .anthropic: message = try decode(AnthropicError.self, body).error.message
            }
            #expect(message.hasPrefix("backend box:1: "))
            #expect(message.hasSuffix(#" (said "no")"#))
            let record = try #require(rig.log.records.first)
            #expect(record.status == status)
            #expect(record.error == message)
            #expect(record.bytes == body.utf8.count)
            #expect(record.firstByte == nil)
        }
    }

    @Test @Loop func `an error that nobody foresaw is a 500`() async throws {
        struct Surprise: Error {}
        let rig = try Rig { _ in throw Surprise() }
        await rig.handle(request())
        #expect(rig.client.events == ["send 500"])
        #expect(rig.log.records.first?.status == 500)
    }

    // MARK: A cut amid the answer

    private static let lost = TransportError(
        kind: .connectionLost, answerBegan: true, isRetrySafe: false, message: "reset")
    private static let lostMessage = "backend box:1: connection lost amid the answer (reset)"

    /// Writes `text`, then breaks off.
    @Loop private func cut(_ text: String, type: String, path: String, length: Int? = nil) async throws -> Rig {
        let body = Body()
        let rig = try Rig { _ in body.answer(200, ["Content-Type": type], length: length) }
        let task = rig.begin(request("POST", path, headers: ["X-Request-Id": "i"]))
        body.push(text)
        body.stream.finish(Self.lost)
        await task.value
        #expect(rig.client.events.last == "abort")
        #expect(!rig.client.events.contains("finish"))
        #expect(rig.log.records.map(\.status) == [200])
        #expect(rig.log.records.map(\.error) == [Self.lostMessage])
        return rig
    }

    @Test @Loop func `a cut stream of lines ends in a line with the error, and not properly`() async throws {
        let rig = try await cut(#"{"done":false}"# + "\n{\"do", type: "application/x-ndjson", path: "/api/chat")
        let lines = rig.client.text.split(separator: "\n")
        #expect(lines.count == 3)
        #expect(try decode(NativeError.self, lines[2]).error == Self.lostMessage)
        #expect(rig.client.events.count == 4)
    }

    @Test @Loop func `a cut stream of events ends in an event with the error, and not properly`() async throws {
        let rig = try await cut("data: {}\n\n", type: "text/event-stream", path: "/v1/chat/completions")
        let tail = rig.client.text.dropFirst("data: {}\n\n".count)
        #expect(tail.hasPrefix("data: ") && tail.hasSuffix("\n\n"))
        #expect(try decode(OpenAIError.self, tail.dropFirst(6)).error.message == Self.lostMessage)
    }

    @Test @Loop func `a cut stream of Anthropic's ends in its event of an error, and not properly`() async throws {
        let rig = try await cut(
            "event: ping\ndata: {}\n\n", type: "text/event-stream; charset=utf-8", path: "/v1/messages")
        let tail = rig.client.text.dropFirst("event: ping\ndata: {}\n\n".count)
        #expect(tail.hasPrefix("event: error\ndata: "))
        let error = try decode(AnthropicError.self, tail.dropFirst("event: error\ndata: ".count))
        #expect(error.error.message == Self.lostMessage)
        #expect(error.requestID == "i")
    }

    @Test @Loop func `a cut body that cannot carry an error just breaks off`() async throws {
        let text = try await cut("{\"a\":", type: "application/json", path: "/api/status")
        #expect(text.client.events == ["stream 200", "write {\"a\":", "abort"])
        let counted = try await cut("{}\n", type: "application/x-ndjson", path: "/api/chat", length: 99)
        #expect(counted.client.events == ["stream 200", "write {}\n", "abort"])
    }

    @Test @Loop func `an answer that breaks off before its first byte is no empty answer`() async throws {
        let rig = try await cut("", type: "application/x-ndjson", path: "/api/chat")
        #expect(try decode(NativeError.self, rig.client.text).error == Self.lostMessage)
    }

    @Test @Loop func `an answer that was whole but for its end is not sent as whole`() async throws {
        let body = Body()
        body.push("half")
        body.stream.finish(Self.lost)
        let rig = try Rig { _ in body.answer(200, ["Content-Type": "application/json"], length: 8) }
        await rig.handle(request())
        #expect(rig.client.events == ["stream 200", "write half", "abort"])
    }

    // MARK: A client that leaves

    @Test @Loop func `a client that leaves before the answer ends the call to the box and gets nothing`() async throws {
        let rig = try Rig { _ in
            try await Loop.sleep(for: .seconds(3600))
            return Body("").answer()
        }
        let task = rig.begin(request("POST", "/api/chat"))
        #expect(rig.box.requests.count == 1)
        rig.clock.now += 7
        task.cancel()
        await task.value
        #expect(rig.client.events == [])
        #expect(rig.client.isReleased)
        let record = try #require(rig.log.records.first)
        #expect(rig.log.records.count == 1)
        #expect(record.status == 499)
        #expect(record.error == "the client left")
        #expect(record.bytes == 0)
        #expect(record.firstByte == nil)
        #expect(record.duration == 7)
    }

    @Test @Loop func `a client that leaves amid the stream stops the box, and nothing more is written`() async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer(200, ["Content-Type": "application/x-ndjson"]) }
        let task = rig.begin(request("POST", "/api/chat"))
        body.push("{}\n")
        task.cancel()
        await task.value
        #expect(body.cancels == 1)
        #expect(body.push("{}\n") == .stop)
        #expect(rig.client.events == ["stream 200", "write {}\n", "abort"])
        #expect(rig.log.records.map(\.status) == [499])
        #expect(rig.log.records.map(\.bytes) == [3])
    }

    @Test @Loop func `a client that is found gone by a write stops the box likewise`() async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer(200, ["Content-Type": "text/event-stream"]) }
        let task = rig.begin(request("POST", "/v1/chat/completions"))
        body.push("data: 1\n\n")
        rig.client.flow = .stop
        #expect(body.push("data: 2\n\n") == .stop)
        await task.value
        #expect(body.cancels == 1)
        #expect(rig.client.events == ["stream 200", "write data: 1\n\n", "abort"])
        #expect(rig.log.records.map(\.status) == [499])
        #expect(rig.log.records.map(\.error) == ["the client left"])
    }

    @Test @Loop func `a client that leaves while its connection is full stops the box likewise`() async throws {
        let body = Body()
        let rig = try Rig { _ in body.answer(200, ["Content-Type": "text/event-stream"]) }
        rig.client.flow = .pause
        let task = rig.begin(request("POST", "/v1/chat/completions"))
        #expect(body.push("data: 1\n\n") == .pause)
        task.cancel()
        await task.value
        #expect(body.cancels == 1)
        #expect(rig.client.events == ["stream 200", "write data: 1\n\n", "abort"])
        #expect(rig.log.records.map(\.status) == [499])
    }
}
