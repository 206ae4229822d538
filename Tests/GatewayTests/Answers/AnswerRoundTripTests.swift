import TestSupport
import Testing

@testable import Gateway

/// Text, thinking, tool calls, log-probabilities and numbers survive whatever forms an answer goes through.
struct AnswerRoundTripTests {
    private static let endpoints = Endpoint.allCases.filter { $0.streams && $0.isCacheable }

    @Test(arguments: endpoints)
    func `a whole answer made a stream and whole again is the same`(endpoint: Endpoint) {
        var maker = AnswerMaker(random: SeededGenerator(seed: 1))
        let form: AnswerForm = endpoint.isNative ? .stream : .streamWithUsage
        for _ in 0..<400 {
            let whole = maker.whole(endpoint)
            #expect(isWhole(whole, .whole, endpoint))
            let stream = converted(whole, .whole, form, endpoint) ?? ""
            #expect(isWhole(stream, form, endpoint), "\(stream)")
            #expect(converted(stream, form, .whole, endpoint) == whole)
            guard form == .streamWithUsage else { continue }
            let plain = converted(stream, form, .stream, endpoint) ?? ""
            #expect(isWhole(plain, .stream, endpoint))
            #expect(converted(whole, .whole, .stream, endpoint) == plain)
        }
    }

    @Test func `a chat stream in any pieces becomes the same whole answer`() {
        var maker = AnswerMaker(random: SeededGenerator(seed: 2))
        for _ in 0..<400 {
            let (thinking, text) = (maker.tokens(6), maker.tokens(12))
            let pieces =
                thinking.map { #""content":"","thinking":"\#($0)"},"done":false"# }
                + text.map { #""content":"\#($0)"},"done":false,"logprobs":[\#(AnswerMaker.logprob($0))]"# }
                + [#""content":""},"done":true"#]
            let stream = pieces.map { AnswerMaker.native + #""message":{"role":"assistant",\#($0)}"# + "\n" }.joined()
            let spoken = thinking.isEmpty ? "" : #","thinking":"\#(thinking.joined())""#
            let whole =
                AnswerMaker.native
                + #""message":{"role":"assistant","content":"\#(text.joined())"\#(spoken)},"done":true"#
                + AnswerMaker.list("logprobs", text.map(AnswerMaker.logprob)) + "}"
            #expect(converted(stream, .stream, .whole, .chat) == whole)
            #expect(converted(stream, .stream, .whole, .chat).flatMap { converted($0, .whole, .stream, .chat) } != nil)
        }
    }

    @Test func `a long answer goes through both ways`() {
        let tokens = (0..<10_000).map { " word\($0)" }
        let context = (0..<20_000).map(String.init).joined(separator: ",")
        let whole =
            AnswerMaker.native + #""response":"\#(tokens.joined())","done":true,"context":[\#(context)]"#
            + AnswerMaker.list("logprobs", tokens.map(AnswerMaker.logprob)) + "}"
        let stream = converted(whole, .whole, .stream, .generate) ?? ""
        #expect(stream.utf8.count { $0 == UInt8(ascii: "\n") } == 10_001)
        #expect(converted(stream, .stream, .whole, .generate) == whole)
    }

    @Test func `twice the text takes about twice the chunks`() {
        func stream(_ count: Int) -> Int {
            let text = String(repeating: " words\\n\u{301}\u{1f1e9}", count: count)
            return converted(#"{"response":"\#(text)","done":true}"#, .whole, .stream, .generate)?.utf8.count ?? 0
        }
        let (small, large) = (stream(2_000), stream(4_000))
        #expect(small > 2_000 && large < small * 21 / 10)
    }
}
