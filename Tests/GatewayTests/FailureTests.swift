import HTTPCore
import Testing

@testable import Gateway

@Suite struct DialectTests {
    @Test(arguments: [
        ("/", Dialect.native), ("/api/chat", .native), ("/v1x", .native), ("/v2/messages", .native), ("", .native),
        ("/api/v1/messages", .native), ("/v1", .openAI), ("/v1/", .openAI), ("/v1/chat/completions", .openAI),
        ("/v1/message", .openAI), ("/v1/messagesx", .openAI), ("/v1/messages", .anthropic),
        ("/v1/messages/", .anthropic),
        ("/v1/messages/count_tokens", .anthropic),
    ])
    func `a path belongs to one of the three APIs`(path: String, dialect: Dialect) {
        #expect(Dialect(path: path) == dialect)
    }

    @Test(arguments: [400, 404, 413, 500, 502, 503, 504])
    func `a native error is one text`(status: Int) throws {
        let body = Dialect.native.body(status: status, message: "it broke", id: "i")
        #expect(body == #"{"error":"it broke"}"#)
    }

    @Test(arguments: [
        (400, "invalid_request_error"), (404, "not_found_error"), (405, "api_error"), (413, "api_error"),
        (500, "api_error"), (502, "api_error"), (503, "api_error"), (504, "api_error"),
    ])
    func `an OpenAI error names its type`(status: Int, type: String) throws {
        let body = Dialect.openAI.body(status: status, message: "it broke", id: "i")
        let error = try decode(OpenAIError.self, body).error
        #expect(error.message == "it broke")
        #expect(error.type == type)
        // Ollama sends both, and sends them null.
        #expect(body.hasSuffix(#","param":null,"code":null}}"#))
    }

    @Test(arguments: [
        (400, "invalid_request_error"), (404, "not_found_error"), (413, "request_too_large"),
        (500, "api_error"), (502, "api_error"), (503, "overloaded_error"), (504, "api_error"),
    ])
    func `an Anthropic error names its type and its request`(status: Int, type: String) throws {
        let body = try decode(
            AnthropicError.self, Dialect.anthropic.body(status: status, message: "it broke", id: "r-1"))
        #expect(body.type == "error")
        #expect(body.error.type == type)
        #expect(body.error.message == "it broke")
        #expect(body.requestID == "r-1")
    }

    @Test func `a message with quotes and line breaks arrives as it was`() throws {
        let message = "say \"no\"\\\r\n\u{1}\u{2028}🦙"
        #expect(
            try decode(NativeError.self, Dialect.native.body(status: 500, message: message, id: "")).error == message)
        #expect(
            try decode(OpenAIError.self, Dialect.openAI.body(status: 500, message: message, id: "")).error.message
                == message)
        let body = try decode(AnthropicError.self, Dialect.anthropic.body(status: 500, message: message, id: message))
        #expect(body.error.message == message)
        #expect(body.requestID == message)
    }
}

@Suite struct FailureTests {
    private let backend = "box:7"

    private func failure(_ kind: TransportError.Kind, answerBegan: Bool = false, _ message: String = "why") -> Failure {
        Failure(
            TransportError(kind: kind, answerBegan: answerBegan, isRetrySafe: false, message: message), backend: backend
        )
    }

    @Test(arguments: [
        (TransportError.Kind.resolve, 502, "name not known"), (.connect, 502, "cannot connect"),
        (.connectTimeout, 502, "cannot connect in time"), (.tls, 502, "no trusted TLS connection"),
        (.connectionLost, 502, "connection lost"), (.firstByteTimeout, 504, "timed out"),
        (.idleTimeout, 502, "timed out"),
        (.badAnswer, 502, "the answer is not HTTP"), (.local, 500, "the request cannot be sent"),
    ])
    func `an error has a status, and words that name the box`(kind: TransportError.Kind, status: Int, words: String) {
        #expect(failure(kind).status == status)
        #expect(failure(kind).message == "backend box:7: \(words) (why)")
        #expect(failure(kind, "").message == "backend box:7: \(words)")
    }

    @Test func `a connection lost amid the answer is called so`() {
        #expect(failure(.connectionLost, answerBegan: true).message.contains("lost amid the answer"))
    }

    @Test func `a client that has left is nobody's failure`() {
        for error in [CancellationError(), ClientLeft()] as [any Error] {
            #expect(Failure(error, backend: backend).status == 499)
        }
    }

    @Test func `an error that nobody foresaw is the gateway's`() {
        struct Surprise: Error {}
        let failure = Failure(Surprise(), backend: backend)
        #expect(failure.status == 500)
        #expect(failure.message == "internal error: Surprise()")
    }

    @Test func `a response is JSON with the request's id`() throws {
        let response = Failure(status: 502, message: "m").response(to: "/v1/models", id: "i-1")
        #expect(response.status == 502)
        #expect(response.headers.lines == ["Content-Type: application/json; charset=utf-8", "X-Request-Id: i-1"])
        #expect(try decode(OpenAIError.self, response.body.text).error.message == "m")
    }
}

@Suite struct JSONTextTests {
    @Test func `every character reads back as itself, and none ends a line`() throws {
        let scalars = [
            0x00...0x2ff, 0x2000...0x206f, 0xd7f0...0xd7ff, 0xe000...0xe00f, 0xfff0...0x1000f, 0x1f990...0x1f9ff,
        ]
        .joined().compactMap { Unicode.Scalar(UInt32($0)) }
        for scalar in scalars {
            let text = "<\(scalar)>"
            let quoted = JSONText.quoted(text)
            let back = try decode([String].self, "[\(quoted)]")
            #expect(
                back.map { Array($0.unicodeScalars) } == [Array(text.unicodeScalars)],
                "U+\(String(scalar.value, radix: 16))")
            // httpx splits lines at all of these.
            #expect(
                quoted.unicodeScalars.allSatisfy {
                    $0.value >= 0x20 && ![0x7f, 0x85, 0x2028, 0x2029].contains($0.value)
                })
        }
    }

    @Test(arguments: [
        ("", #""""#), ("plain", #""plain""#), ("\"", #""\"""#), ("\\", #""\\""#), ("\n\r\t", #""\n\r\t""#),
        ("\r\n", #""\r\n""#), ("\u{0}\u{1f}\u{7f}", #""\u0000\u001f\u007f""#), ("\u{85}\u{2028}", #""\u0085\u2028""#),
        ("/", #""/""#), ("né 🦙 👩‍👩‍👧", #""né 🦙 👩‍👩‍👧""#), ("e\u{301}", "\"e\u{301}\""), ("\"\u{301}", "\"\\\"\u{301}\""),
    ])
    func `text is quoted`(text: String, quoted: String) throws {
        #expect(JSONText.quoted(text) == quoted)
        #expect(try decode([String].self, "[\(quoted)]") == [text])
    }
}
