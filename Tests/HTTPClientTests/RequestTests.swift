import EventLoop
import HTTPClient
import HTTPCore
import TestSupport
import Testing

/// What goes over the wire: what the caller gave, and nothing else.
@Suite(.timeLimit(.minutes(1))) struct RequestTests {
    init() { LoopThread.start() }

    @Test @Loop func `a request is its method, target, Host and the headers given`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let call = script.call("GET", "/a%2fb/../c?q=%20+", headers: ["X-b": "2", "x-A": "1", "X-b": "3"])
        let peer = try await script.accept()
        #expect(
            await peer.receive(through: "\r\n\r\n")
                == "GET /a%2fb/../c?q=%20+ HTTP/1.1\r\nHost: 127.0.0.1:\(script.listener.port)\r\n"
                + "X-b: 2\r\nx-A: 1\r\nX-b: 3\r\n\r\n")
        await peer.send(ok("fine"))
        #expect(try await call.text() == "fine")
    }

    @Test @Loop func `headers that libcurl has a mind of its own about are sent as given`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let fields: Headers = [
            "Accept": "a/b", "User-Agent": "u", "Accept-Encoding": "gzip", "Content-Type": "x/y", "Cookie": "c=1",
            "Authorization": "Bearer t", "Connection": "keep-alive", "TE": "trailers",
        ]
        let call = script.call("POST", "/", headers: fields, body: .bytes(Bytes("hi")))
        let peer = try await script.accept()
        let text = await peer.receive(through: "\r\n\r\n")
        for field in fields.fields { #expect(text.contains("\r\n\(field.name): \(field.value)\r\n")) }
        #expect(text.contains("\r\nContent-Length: 2\r\n"))
        #expect(text.split(separator: "\r\n").count == 1 + 1 + fields.count + 1)
        #expect(await peer.receive(count: 2) == Array("hi".utf8))
        await peer.send(ok(""))
        _ = try await call.text()
    }

    @Test(arguments: ["GET", "DELETE", "OPTIONS", "PATCH", "Brew", "HEAD"])
    @Loop func `a method without a body has no length`(method: String) async throws {
        let script = try Script()
        defer { script.client.close() }
        let call = script.call(method)
        let peer = try await script.accept()
        #expect(
            await peer.receive(through: "\r\n\r\n")
                == "\(method) / HTTP/1.1\r\nHost: 127.0.0.1:\(script.listener.port)\r\n\r\n")
        await peer.send(ok(""))
        #expect(try await call.text() == "")
    }

    @Test(arguments: ["POST", "PUT"])
    @Loop func `a method that promises a body says that it is empty`(method: String) async throws {
        let script = try Script()
        defer { script.client.close() }
        let call = script.call(method)
        let peer = try await script.accept()
        #expect(
            await peer.receive(through: "\r\n\r\n")
                == "\(method) / HTTP/1.1\r\nHost: 127.0.0.1:\(script.listener.port)\r\nContent-Length: 0\r\n\r\n")
        await peer.send(ok(""))
        _ = try await call.text()
    }

    @Test(arguments: ["GET", "POST", "DELETE", "PUT"])
    @Loop func `a body in memory is sent with its length and nothing else`(method: String) async throws {
        let script = try Script()
        defer { script.client.close() }
        let call = script.call(method, body: .bytes(Bytes("hello\u{0}there")))
        let peer = try await script.accept()
        #expect(
            await peer.receive(through: "\r\n\r\n")
                == "\(method) / HTTP/1.1\r\nHost: 127.0.0.1:\(script.listener.port)\r\nContent-Length: 11\r\n\r\n")
        #expect(await peer.receive(count: 11) == Array("hello\u{0}there".utf8))
        await peer.send(ok(""))
        _ = try await call.text()
    }

    @Test @Loop func `a large body in memory is sent without asking first`() async throws {
        let bytes = pattern(4 << 20)
        let script = try Script()
        defer { script.client.close() }
        let call = script.call("POST", body: .bytes(Bytes(bytes)))
        let peer = try await script.accept()
        #expect(!(await peer.receive(through: "\r\n\r\n")).contains("Expect"))
        #expect(await peer.receive(count: bytes.count) == bytes)
        await peer.send(ok(""))
        _ = try await call.text()
    }

    @Test @Loop func `empty header values are sent`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let call = script.call(headers: ["X-Empty": "", "Accept": "", "Y": "1"])
        let peer = try await script.accept()
        let text = await peer.receive(through: "\r\n\r\n")
        #expect(text.hasSuffix("\r\nX-Empty:\r\nAccept:\r\nY: 1\r\n\r\n"), "\(text)")
        await peer.send(ok(""))
        _ = try await call.text()
    }

    @Test @Loop func `header values are sent as ISO 8859-1`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let call = script.call(headers: ["X": "\u{fc}\u{80}"])
        let peer = try await script.accept()
        let line =
            Array("GET / HTTP/1.1\r\nHost: 127.0.0.1:\(script.listener.port)\r\nX: ".utf8) + [0xfc, 0x80, 13, 10]
        #expect(await peer.receive(count: line.count) == line)
        await peer.send(ok(""))
        _ = try await call.text()
    }

    @Test(arguments: ["", "/"])
    @Loop func `a path in the origin goes in front of every target`(slash: String) async throws {
        let script = try Script()
        defer { script.client.close() }
        let request = ClientRequest(method: "GET", origin: script.origin + "/a/b" + slash, target: "/c?d")
        let call = Call(request, by: script.client)
        let peer = try await script.accept()
        #expect(await peer.receive(through: "\r\n") == "GET /a/b/c?d HTTP/1.1\r\n")
        await peer.send(ok(""))
        _ = try await call.text()
    }

    @Test @Loop func `requests of all kinds follow each other on one handle without leaving traces`() async throws {
        let script = try Script()
        defer { script.client.close() }
        var peer: RawSocket?
        let bodies: [(String, Bool)] = [
            ("POST", true), ("HEAD", false), ("GET", false), ("PUT", true), ("DELETE", false),
        ]
        for (method, hasBody) in bodies + bodies.reversed() {
            let call = script.call(method, body: hasBody ? .bytes(Bytes("hi")) : .none)
            if peer == nil { peer = try await script.accept() }
            let text = await peer?.receive(through: "\r\n\r\n")
            #expect(
                text == "\(method) / HTTP/1.1\r\nHost: 127.0.0.1:\(script.listener.port)\r\n"
                    + (hasBody ? "Content-Length: 2\r\n\r\n" : "\r\n"))
            if hasBody { #expect(await peer?.receive(count: 2) == Array("hi".utf8)) }
            let answer = method == "HEAD" ? "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" : ok("fine!")
            await peer?.send(answer)
            #expect(try await call.text() == (method == "HEAD" ? "" : "fine!"))
        }
    }
}

/// Bodies that are sent while they come.
@Suite(.timeLimit(.minutes(1))) struct UploadTests {
    init() { LoopThread.start() }

    @Test @Loop func `an upload of known length is sent piece by piece`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let call = script.call("POST", body: .stream(body, length: 10))
        let peer = try await script.accept()
        #expect(
            await peer.receive(through: "\r\n\r\n")
                == "POST / HTTP/1.1\r\nHost: 127.0.0.1:\(script.listener.port)\r\nContent-Length: 10\r\n\r\n")
        for text in ["first", "other"] {
            body.push(text)
            #expect(await peer.receive(count: 5) == Array(text.utf8))
        }
        body.finish()
        await peer.send(ok("thanks"))
        #expect(try await call.text() == "thanks")
    }

    @Test(arguments: ["POST", "PUT", "PATCH"])
    @Loop func `an upload of unknown length is sent in chunks`(method: String) async throws {
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let call = script.call(method, body: .stream(body, length: nil))
        let peer = try await script.accept()
        #expect(
            await peer.receive(through: "\r\n\r\n")
                == "\(method) / HTTP/1.1\r\nHost: 127.0.0.1:\(script.listener.port)\r\n"
                + "Transfer-Encoding: chunked\r\n\r\n")
        for text in ["first", "other"] {
            body.push(text)
            #expect(await peer.receive(through: "\(text)\r\n") == "5\r\n\(text)\r\n")
        }
        body.finish()
        #expect(await peer.receive(through: "0\r\n\r\n") == "0\r\n\r\n")
        await peer.send(ok("thanks"))
        #expect(try await call.text() == "thanks")
    }

    @Test @Loop func `an upload that was complete before it began, and an empty one, are sent whole`() async throws {
        let script = try Script()
        defer { script.client.close() }
        for text in ["hello", ""] {
            let body = ByteStream()
            if !text.isEmpty { body.push(text) }
            body.finish()
            let call = script.call("POST", body: .stream(body, length: nil))
            let peer = try await script.accept()
            _ = await peer.receive(through: "\r\n\r\n")
            let chunks = (text.isEmpty ? "" : "5\r\nhello\r\n") + "0\r\n\r\n"
            #expect(await peer.receive(count: chunks.utf8.count) == Array(chunks.utf8))
            await peer.send(ok("", "Connection: close\r\n"))
            #expect(try await call.text() == "")
        }
    }

    @Test(arguments: [nil, 16 << 20])
    @Loop func `the producer waits while the server takes nothing, and every byte arrives`(length: Int?) async throws {
        let bytes = pattern(16 << 20)
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let call = script.call("POST", body: .stream(body, length: length))
        let peer = try await script.accept()
        let seen = Recorder<String>()
        let producer = Loop.task {
            try? await body.push(all: bytes) { seen.note("paused") }
            body.finish()
            seen.note("done")
        }
        #expect(await eventually { seen.count > 0 })
        _ = await peer.receive(through: "\r\n\r\n")
        if length != nil {
            #expect(await peer.receive(count: bytes.count) == bytes)
        } else {
            var received: [UInt8] = []
            while true {
                let size = Int((await peer.receive(through: "\r\n")).dropLast(), radix: 16) ?? 0
                received += await peer.receive(count: size)
                _ = await peer.receive(count: 2)
                if size == 0 { break }
            }
            #expect(received == bytes)
        }
        await producer.value
        await peer.send(ok("thanks"))
        #expect(try await call.text() == "thanks")
    }

    @Test @Loop func `a producer far ahead of the server is told to pause`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let call = script.call("POST", body: .stream(body, length: nil))
        let peer = try await script.accept()
        let seen = Recorder<String>()
        let producer = Loop.task {
            try? await body.push(all: pattern(32 << 20)) { seen.note("paused") }
            seen.note("done")
        }
        // The kernel takes some megabytes, then everything stands.
        var (count, since) = (0, ContinuousClock.now)
        #expect(
            await eventually {
                if seen.count != count { (count, since) = (seen.count, ContinuousClock.now) }
                return count > 0 && ContinuousClock.now - since > .milliseconds(300)
            })
        #expect(!seen.values.contains("done"))
        call.cancel()
        #expect(await peer.receiveToEnd().ending != .timeout)
        body.cancel()
        producer.cancel()
        await producer.value
    }

    @Test(arguments: [nil, 100])
    @Loop func `an upload that breaks off does not look complete`(length: Int?) async throws {
        struct Broken: Error {}
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let call = script.call("POST", body: .stream(body, length: length))
        let peer = try await script.accept()
        _ = await peer.receive(through: "\r\n\r\n")
        body.push("hello")
        let frame = length == nil ? "5\r\nhello\r\n" : "hello"
        #expect(await peer.receive(count: frame.utf8.count) == Array(frame.utf8))
        body.finish(Broken())
        let rest = await peer.receiveToEnd()
        #expect(rest.bytes == [])
        #expect(rest.ending == .closed || rest.ending == .reset)
        await #expect(throws: (any Error).self) { try await call.text() }
    }

    @Test @Loop func `an upload shorter than its length does not look complete`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let call = script.call("POST", body: .stream(body, length: 10))
        let peer = try await script.accept()
        _ = await peer.receive(through: "\r\n\r\n")
        body.push("hello")
        body.finish()
        let rest = await peer.receiveToEnd()
        #expect(rest.bytes == Array("hello".utf8))
        #expect(rest.ending == .closed || rest.ending == .reset)
        await #expect(throws: (any Error).self) { try await call.text() }
    }

    @Test @Loop func `an answer that comes before the upload is complete is delivered`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let call = script.call("POST", body: .stream(body, length: 10))
        let peer = try await script.accept()
        _ = await peer.receive(through: "\r\n\r\n")
        body.push("hello")
        _ = await peer.receive(count: 5)
        await peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        let answer = try await call.header()
        #expect(answer.status == 403)
        #expect(try await answer.body.collect().text == "no")
    }

    @Test @Loop func `what is sent up can be answered at the same time`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let body = ByteStream()
        let call = script.call("POST", body: .stream(body, length: nil))
        let peer = try await script.accept()
        _ = await peer.receive(through: "\r\n\r\n")
        await peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        let answer = try await call.header()
        let echoed = Recorder<String>()
        let reader = Loop.task {
            try? await answer.body.forward {
                echoed.note(String(decoding: $0, as: UTF8.self))
                return .more
            }
        }
        for text in ["one", "two"] {
            body.push(text)
            #expect(await peer.receive(through: "\(text)\r\n") == "3\r\n\(text)\r\n")
            await peer.send("3\r\n\(text)\r\n")
            #expect(await eventually { echoed.values.last == text })
        }
        body.finish()
        #expect(await peer.receive(through: "0\r\n\r\n") == "0\r\n\r\n")
        await peer.send("0\r\n\r\n")
        await reader.value
        #expect(echoed.values == ["one", "two"])
    }
}
