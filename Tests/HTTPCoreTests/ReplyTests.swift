import EventLoop
import TestSupport
import Testing

@testable import HTTPCore

/// A `Reply` is consumed by its answer: a second answer is not a failing test but a program that does not compile.
@Suite struct ReplyTests {
    init() { LoopThread.start() }

    @Test @Loop func `a complete answer is sent once, and the reply is gone`() {
        let port = Port()
        let reply = Reply(port: port)
        reply.send(Response(status: 204))
        #expect(port.calls == ["send 204", "released"])
    }

    @Test @Loop func `a streamed answer is begun once, and the reply is gone`() {
        let port = Port()
        let reply = Reply(port: port)
        let writer = reply.stream(status: 200, headers: ["A": "1"], length: 3)
        #expect(port.calls == ["stream 200 A 3", "released"])
        #expect(writer === port.writer)
    }

    @Test @Loop func `a dropped reply is reported`() {
        let port = Port()
        do {
            let reply = Reply(port: port)
            #expect(port.calls == [])
            _ = consume reply
        }
        #expect(port.calls == ["released"])
    }

    @Test @Loop func `a reply that one branch forgets is reported in that branch alone`() {
        for isKnown in [true, false] {
            let port = Port()
            forgetful(Reply(port: port), isKnown: isKnown)
            #expect(port.calls == (isKnown ? ["send 200", "released"] : ["released"]))
        }
    }

    @Test @Loop func `a reply held by a task is reported when the task ends without an answer`() async {
        let port = Port()
        await Loop.task {
            let reply = Reply(port: port)
            await Task.yield()
            #expect(port.calls == [])
            _ = consume reply
        }.value
        #expect(port.calls == ["released"])
    }

    @Loop private func forgetful(_ reply: consuming Reply, isKnown: Bool) {
        if isKnown { reply.send(Response(status: 200)) }
    }

    @Loop private final class Port: ReplyPort {
        private(set) var calls: [String] = []
        let writer = Writer()

        func send(_ response: Response) { calls.append("send \(response.status)") }

        func stream(status: Int, headers: Headers, length: Int?) -> any ResponseWriter {
            calls.append("stream \(status) \(headers.fields.map(\.name).joined()) \(length ?? -1)")
            return writer
        }

        func released() { calls.append("released") }
    }
}

/// `ResponseWriter.send(_:)`: text, written with patience.
@Suite(.timeLimit(.minutes(1))) struct ResponseWriterTests {
    init() { LoopThread.start() }

    @Test @Loop func `text is written, and the next may follow at once`() async throws {
        let writer = Writer()
        try await writer.send("hällo")
        #expect(writer.text == "hällo")
    }

    @Test @Loop func `a full connection is waited for`() async {
        let writer = Writer()
        writer.flow = .pause
        let seen = Recorder<String>()
        let task = Loop.task {
            try? await writer.send("a")
            seen.note("sent")
        }
        await Task.yield()
        #expect(seen.values == [])
        writer.onDrain?()
        await task.value
        #expect(seen.values == ["sent"])
        #expect(writer.text == "a")
    }

    @Test @Loop func `a client that has left is reported`() async {
        let writer = Writer()
        writer.flow = .stop
        await #expect(throws: ClientLeft.self) { try await writer.send("a") }
    }

    @Test @Loop func `cancelling the task ends the wait`() async {
        let writer = Writer()
        writer.flow = .pause
        let task = Loop.task {
            await #expect(throws: CancellationError.self) { try await writer.send("a") }
        }
        task.cancel()
        await task.value
    }
}

@Suite struct ResponseTests {
    @Test func `text is sent as UTF-8 with its type`() {
        let response = Response(status: 200, contentType: "text/plain", "grüße")
        #expect(response.headers["content-type"] == "text/plain")
        #expect(response.body.text == "grüße")
        #expect(response.body.count == 7)
    }

    @Test func `a response needs no more than a status`() {
        let response = Response(status: 304)
        #expect(response.headers.count == 0)
        #expect(response.body.count == 0)
        #expect(response.declaredLength == nil)
        #expect(Response(status: 200, declaredLength: 17).declaredLength == 17)
    }
}

/// Takes what is written and answers as it is told to.
@Loop final class Writer: ResponseWriter {
    var flow = Flow.more
    var onDrain: (@Loop () -> Void)?
    private(set) var text = ""

    func write(_ chunk: UnsafeRawBufferPointer) -> Flow {
        if flow != .stop { text += String(decoding: chunk, as: UTF8.self) }
        return flow
    }

    func finish() {}
    func abort() {}
}
