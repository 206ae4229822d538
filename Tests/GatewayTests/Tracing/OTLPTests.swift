import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Spans as JSON, and what a collector's answers mean.
@Suite struct OTLPTests {
    static let context =
        TraceContext(traceparent: "00-0123456789abcdef00000000000000ff-00000000000000ab-01") ?? .make(sampled: true)
    static let service = OTLP.Service(version: "1.2.3")

    @Test func `a batch says whose it is and what is in it`() throws {
        var first = Span(.server, "GET /x", Self.context, parent: nil, start: 1_770_050_836_414_524, duration: 7)
        first.tell(.method, "GET")
        first.tell(.statusCode, 200)
        first.tell(.queueWait, microseconds: 1)
        first.tell(.clientLeft, true)
        var second = Span(.client, "chat m", Self.context, parent: 0xff00, start: 0, duration: .max / 1000)
        second.fail("connect", "cannot connect")
        let told = try Told(OTLP.body([first, second], of: Self.service))
        #expect(
            told.resource == [
                "service.name=ollama-gateway", "service.version=1.2.3", "service.instance.id=\(Self.service.instance)",
            ])
        #expect(told.scope == ["ollama-gateway", "1.2.3"])
        #expect(
            told.spans == [
                Told.Span(
                    traceID: "0123456789abcdef00000000000000ff", spanID: "00000000000000ab", name: "GET /x", kind: 2,
                    start: 1_770_050_836_414_524_000, end: 1_770_050_836_414_531_000,
                    attributes: [
                        "http.request.method=GET", "http.response.status_code=200i", "ollama_gateway.queue_wait=1e-06d",
                        "ollama_gateway.client_left=trueb",
                    ]),
                Told.Span(
                    traceID: "0123456789abcdef00000000000000ff", spanID: "00000000000000ab", parent: "000000000000ff00",
                    name: "chat m", kind: 3, start: 0, end: UInt64(Int64.max / 1000) * 1000,
                    attributes: ["error.type=connect"], message: "cannot connect", isError: true),
            ])
    }

    @Test func `an error without words has no message`() throws {
        var span = Span(.server, "GET", Self.context, parent: nil, start: 0, duration: 0)
        span.fail("500", nil)
        let told = try #require(try Told(OTLP.body([span], of: Self.service)).spans.first)
        #expect(told.isError)
        #expect(told.message == nil)
    }

    @Test(arguments: [
        "", "plain", "\"quoted\"", "back\\slash", "line\nfeed\r\t", "\u{0}\u{1f}\u{7f}", "é € 😀 \u{2028}",
        "\u{fe}\u{ff}",
        "</script>", "a\u{300}",
    ])
    func `any text comes through`(text: String) throws {
        var span = Span(.server, text, Self.context, parent: nil, start: 0, duration: 0)
        span.tell(.model, text)
        span.fail("x", text)
        let told = try #require(try Told(OTLP.body([span], of: OTLP.Service(version: text))).spans.first)
        #expect(told.name == text)
        #expect(told.attributes.first == "gen_ai.request.model=\(text)")
        #expect((told.message ?? "") == text)
    }

    @Test func `random spans come through as they are`() throws {
        var random = SeededGenerator(seed: 99)
        let spans = (0..<300).map { number in
            var span = Span(
                number % 2 == 0 ? .server : .client, "n\(number)", .make(sampled: true, using: &random),
                parent: Bool.random(using: &random) ? .random(in: 1...UInt64.max, using: &random) : nil,
                start: .random(in: 0...4_000_000_000_000_000, using: &random),
                duration: .random(in: 0...1_000_000_000, using: &random))
            span.tell(.bodySize, Int.random(in: .min ... .max, using: &random))
            span.tell(.firstByte, microseconds: .random(in: 0...Int64.max, using: &random))
            return span
        }
        let told = try Told(OTLP.body(spans, of: Self.service)).spans
        #expect(told.count == spans.count)
        for (span, told) in zip(spans, told) {
            #expect(told.traceID == span.context.traceID.description)
            #expect(told.spanID == TraceContext.hex(span.context.spanID))
            #expect(told.parent == span.parent.map(TraceContext.hex))
            #expect([told.start, told.end] == [span.start, span.end])
            #expect(told.attributes == [span.told[0] + "i", span.told[1] + "d"])
        }
    }

    @Test func `each start is another instance, with a UUID of version 4`() throws {
        let ids = (0..<200).map { _ in OTLP.Service(version: "1").instance }
        #expect(Set(ids).count == 200)
        for id in ids {
            #expect(id.split(separator: "-").map(\.count) == [8, 4, 4, 4, 12])
            #expect(Array(id)[14] == "4")
            #expect("89ab".contains(Array(id)[19]))
        }
    }

    // MARK: Answers

    /// Sun, 06 Nov 1994 08:49:37 GMT
    static let now: Int64 = 784_111_777_000_000

    private func outcome(_ status: Int, _ headers: Headers = [:], _ body: String? = nil) -> OTLP.Outcome {
        OTLP.outcome(status: status, headers: headers, body: body.map { Bytes($0) }, at: Self.now)
    }

    @Test(
        arguments: [
            (nil, 0, nil), ("", 0, nil), ("{}", 0, nil), ("nonsense", 0, nil), (#"{"partialSuccess":{}}"#, 0, nil),
            (#"{"partialSuccess":null}"#, 0, nil), (#"{"partialSuccess":{"rejectedSpans":"3"}}"#, 3, nil),
            (#"{"partialSuccess":{"rejectedSpans":3,"errorMessage":"too old"}}"#, 3, "too old"),
            (#"{"partialSuccess":{"rejectedSpans":"0","errorMessage":"a\nhint"}}"#, 0, "a hint"),
            (#"{"partialSuccess":{"rejectedSpans":"-5"}}"#, 0, nil),
            (#"{"partialSuccess":{"rejectedSpans":1.5}}"#, 0, nil),
            (#"{"partialSuccess":{"rejectedSpans":1e300,"errorMessage":""}}"#, 0, nil), ("[1]", 0, nil),
        ] as [(String?, Int, String?)])
    func `what is taken may be so in part`(body: String?, rejected: Int, message: String?) {
        #expect(outcome(200, [:], body) == .taken(rejected: rejected, message: message))
        #expect(outcome(202, [:], body) == .taken(rejected: rejected, message: message))
    }

    @Test(arguments: [429, 502, 503, 504]) func `a collector that is busy or away is asked again`(status: Int) {
        #expect(outcome(status) == .again(why: "it answers \(status)", after: nil))
    }

    @Test(arguments: [301, 304, 400, 401, 403, 404, 408, 413, 415, 500, 501, 505])
    func `every other answer is final`(status: Int) {
        #expect(outcome(status) == .refused(why: "it answers \(status)"))
    }

    @Test func `its reason is told, if it gives one in JSON`() {
        #expect(
            outcome(400, [:], #"{"code":3,"message":"bad \"id\""}"#) == .refused(why: #"it answers 400 (bad "id")"#))
        #expect(outcome(400, [:], "<html>") == .refused(why: "it answers 400"))
        let long = String(repeating: "é", count: 500)
        #expect(outcome(400, [:], #"{"message":"\#(long)"}"#) == .refused(why: "it answers 400 (\(long.prefix(200)))"))
    }

    @Test(
        arguments: [
            ("0", .zero), ("7", .seconds(7)), ("Sun, 06 Nov 1994 08:49:47 GMT", .seconds(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", .zero), ("-1", nil), ("soon", nil), ("", nil), ("1.5", nil),
            ("99999999999999999999", nil), ("9999999999999999", .seconds(1 << 30)),
        ] as [(String, Duration?)])
    func `it may say when`(text: String, pause: Duration?) {
        #expect(outcome(503, ["Retry-After": text]) == .again(why: "it answers 503", after: pause))
    }
}
