import EventLoop
import HTTPCore
import HTTPServer
import TestSupport
import Testing

/// The rules of RFC 9112 that keep one request from hiding in another.
@Suite(.timeLimit(.minutes(1))) struct HeaderRuleTests {
    init() { LoopThread.start() }

    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let text: String
        var status = 400
    }

    static let refused = [
        Case(testDescription: "no Host", text: "GET / HTTP/1.1\r\n\r\n"),
        Case(testDescription: "two Hosts", text: get("/", "Host: other")),
        Case(testDescription: "two equal Hosts", text: get("/", "hOST: test")),
        Case(
            testDescription: "Content-Length and Transfer-Encoding",
            text: header("POST", "/", ["Content-Length: 5", "Transfer-Encoding: chunked"]) + "0\r\n\r\n"),
        Case(
            testDescription: "Transfer-Encoding and Content-Length",
            text: header("POST", "/", ["Transfer-Encoding: chunked", "Content-Length: 5"]) + "0\r\n\r\n"),
        Case(
            testDescription: "two Content-Lengths that disagree",
            text: header("POST", "/", ["Content-Length: 5", "Content-Length: 6"]) + "hello"),
        Case(testDescription: "a list of lengths", text: header("POST", "/", ["Content-Length: 5, 5"]) + "hello"),
        Case(testDescription: "a negative length", text: header("POST", "/", ["Content-Length: -5"])),
        Case(testDescription: "a length with a sign", text: header("POST", "/", ["Content-Length: +5"]) + "hello"),
        Case(testDescription: "a hexadecimal length", text: header("POST", "/", ["Content-Length: 0x5"]) + "hello"),
        Case(testDescription: "an empty length", text: header("POST", "/", ["Content-Length:"])),
        Case(
            testDescription: "a length beyond all numbers",
            text: header("POST", "/", ["Content-Length: 99999999999999999999"]), status: 413),
        Case(
            testDescription: "two Transfer-Encodings",
            text: header("POST", "/", ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]) + "0\r\n\r\n"),
        Case(
            testDescription: "Transfer-Encoding in HTTP 1.0",
            text: "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        Case(
            testDescription: "gzip", text: header("POST", "/", ["Transfer-Encoding: gzip"]), status: 501),
        Case(
            testDescription: "gzip, chunked", text: header("POST", "/", ["Transfer-Encoding: gzip, chunked"]),
            status: 501),
        Case(
            testDescription: "identity", text: header("POST", "/", ["Transfer-Encoding: identity"]), status: 501),
        Case(testDescription: "a space before the colon", text: get("/", "X : 1")),
        Case(
            testDescription: "a length with a space before the colon",
            text: header("POST", "/", ["Content-Length : 5"]) + "hello"),
        Case(testDescription: "a header without a name", text: get("/", ": 1")),
        Case(testDescription: "a header name with a bracket", text: get("/", "X(: 1")),
        Case(testDescription: "a control character in a value", text: get("/", "X: a\u{1}b")),
        Case(testDescription: "DEL in a value", text: get("/", "X: a\u{7f}b")),
        Case(testDescription: "a method with a bracket", text: header("GE(T")),
        Case(testDescription: "a target without a slash", text: get("other")),
        Case(testDescription: "a target of another scheme", text: get("ftp://host/x")),
        Case(testDescription: "a star for GET", text: get("*")),
        Case(testDescription: "a control character in the target", text: get("/a\u{1}b")),
    ]

    @Test(arguments: refused)
    @Loop func `a request that breaks the rules is refused and its connection closed`(rule: Case) async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        await client.send(rule.text + get("/hidden"))
        let answer = await client.receiveAnswer()
        #expect(answer.status == rule.status, "\(answer)")
        let rest = await client.receiveToEnd()
        let text = String(decoding: rest.bytes, as: UTF8.self)
        // Of lengths that it refuses itself, libmicrohttpd 0.9.75 sends the header twice.
        withKnownIssue(isIntermittent: true) {
            #expect(text == "", "\(answer.header)\(answer.text)")
        } when: {
            text.hasSuffix("</html>")
        }
        #expect(rest.ending != .timeout)
    }

    static let accepted = [
        Case(testDescription: "absolute form", text: get("http://other:1/a/b?c=1"), status: 200),
        Case(testDescription: "absolute form without a path", text: get("HTTPS://other"), status: 200),
        Case(testDescription: "absolute form with a query only", text: get("http://other?c"), status: 200),
        Case(testDescription: "a star for OPTIONS", text: header("OPTIONS", "*"), status: 200),
        Case(
            testDescription: "equal lengths",
            text: header("POST", "/", ["Content-Length: 2", "Content-Length: 2"]) + "hi", status: 200),
        Case(
            testDescription: "chunked in capitals",
            text: header("POST", "/", ["TRANSFER-ENCODING: Chunked"]) + "2\r\nhi\r\n0\r\n\r\n", status: 200),
        Case(testDescription: "a tab in a value", text: get("/", "X: a\tb"), status: 200),
        Case(testDescription: "an unknown method", text: header("BREW", "/pot"), status: 200),
    ]

    @Test(
        arguments: zip(
            accepted,
            [
                "GET /a/b?c=1 ", "GET / ", "GET /?c ", "OPTIONS * ", "POST / hi", "POST / hi", "GET / ", "BREW /pot ",
            ]))
    @Loop func `an unusual request that keeps to the rules is answered`(rule: Case, echo: String) async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        await client.send(rule.text + get("/next"))
        let answer = await client.receiveAnswer()
        #expect(answer.status == rule.status)
        #expect(answer.text == echo)
        #expect(await client.receiveAnswer().text == "GET /next ")
    }

    static let broken = [
        Case(testDescription: "no number", text: "xyz\r\n"),
        Case(testDescription: "a negative size", text: "-1\r\n"),
        Case(testDescription: "too large a size", text: "ffffffffffffffffff\r\n"),
        Case(testDescription: "no line end after a chunk", text: "2\r\nhiXX0\r\n\r\n"),
    ]

    @Test(arguments: broken)
    @Loop func `a broken chunk ends the connection and is never a complete body`(rule: Case) async throws {
        let server = try TestServer()
        defer { server.close() }
        let client = server.connect()
        await client.send(header("POST", "/", ["Transfer-Encoding: chunked"]) + rule.text)
        let rest = await client.receiveToEnd()
        #expect(rest.ending != .timeout)
        let text = String(decoding: rest.bytes, as: UTF8.self)
        #expect(text.isEmpty || text.hasPrefix("HTTP/1.1 4"), "\(text)")
    }

    @Test @Loop func `what is not HTTP is turned away`() async throws {
        let server = try TestServer()
        defer { server.close() }
        for text in [
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n", "hello\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/3.7\r\n\r\n",
        ] {
            let client = server.connect()
            await client.send(text)
            client.finishSending()
            let answer = await client.receiveAnswer()
            #expect(answer.status == 0 || answer.status >= 400, "\(answer.header)")
            #expect(await client.receiveToEnd().ending != .timeout)
        }
        #expect(await server.answer(to: get("/still")).text == "GET /still ")
    }
}
