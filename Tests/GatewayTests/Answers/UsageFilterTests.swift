import Testing

@testable import Gateway

struct UsageFilterTests {
    private let chat = events(
        #"{"choices":[{"delta":{"content":"a \"usage\" b"}}]}"#, #"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        #"{"choices":[],"usage":{"prompt_tokens":1}}"#, "[DONE]")
    private let mixed =
        ": alive\r\n\r\n" + #"data: {"choices":[{"text":"é"}],"model":"m","usage":{"a":0},"x":1}"# + "\r\n\r\n\n"
        + events(#"{"usage":{},"choices":[1]}"#, #"{"usage":null}"#, "{\"usage\"", "[DONE]") + #"data: {"usage":1}"#

    /// What comes out, and in how many calls, of a stream that comes in these parts.
    private func filtered(_ parts: [UnsafeRawBufferPointer]) -> (text: String, calls: Int) {
        var filter = UsageFilter()
        var output: [UInt8] = []
        var calls = 0
        func emit(_ part: UnsafeRawBufferPointer) {
            output += part
            calls += 1
        }
        for part in parts { filter.take(part, emit) }
        filter.finish(emit)
        return (String(decoding: output, as: UTF8.self), calls)
    }

    @Test func `the usage event is left out and the usage of others cut`() {
        #expect(
            bytes(chat) { filtered([$0]).text }
                == chat.replacing(#"data: {"choices":[],"usage":{"prompt_tokens":1}}"# + "\n\n", with: ""))
        let expected =
            ": alive\r\n\r\n" + #"data: {"choices":[{"text":"é"}],"model":"m","x":1}"# + "\r\n\r\n\n"
            + events(#"{"choices":[1]}"#, "{}", "{\"usage\"", "[DONE]") + #"data: {"usage":1}"#
        #expect(bytes(mixed) { filtered([$0]).text } == expected)
    }

    @Test func `it does not matter how the stream is split`() {
        for text in [chat, mixed] {
            bytes(text) { all in
                let expected = filtered([all]).text
                for first in 0...all.count {
                    #expect(filtered([all.part(0..<first), all.part(first..<all.count)]).text == expected)
                }
                #expect(filtered((0..<all.count).map { all.part($0..<$0 + 1) }).text == expected)
                for size in 2..<40 {
                    let starts = stride(from: 0, to: all.count, by: size)
                    #expect(filtered(starts.map { all.part($0..<min($0 + size, all.count)) }).text == expected)
                }
            }
        }
    }

    @Test func `whole events without usage are passed on at once and not copied`() {
        bytes(events(#"{"choices":[{"delta":{}}]}"#, #"{"choices":[{}]}"#, "[DONE]")) { text in
            var filter = UsageFilter()
            var parts: [UnsafeRawBufferPointer] = []
            filter.take(text) { parts.append($0) }
            #expect(
                parts.count == 1 && parts.first?.baseAddress == text.baseAddress && parts.first?.count == text.count)
        }
    }

    @Test(arguments: [1, 4096])
    func `an event that is too large is passed on as it is`(size: Int) {
        let large = "data: {\"x\":\"" + String(repeating: "x", count: UsageFilter.maxEvent) + "\",\"usage\":1}\n\n"
        let text = large + chat
        let expected = large + bytes(chat) { filtered([$0]).text }
        bytes(text) { all in
            #expect(filtered([all]).text == expected)
            let middle = all.count - 400
            let rest = stride(from: middle, to: all.count, by: size).map { all.part($0..<min($0 + size, all.count)) }
            #expect(filtered([all.part(0..<middle)] + rest).text == expected)
        }
    }

    @Test func `a stream that asked for nothing more than was sent is the same as the conversion`() {
        var maker = AnswerMaker(random: .init(seed: 4))
        for endpoint in [Endpoint.chatCompletions, .completions] {
            for _ in 0..<50 {
                let stream = converted(maker.whole(endpoint), .whole, .streamWithUsage, endpoint) ?? ""
                #expect(bytes(stream) { filtered([$0]).text } == converted(stream, .streamWithUsage, .stream, endpoint))
            }
        }
    }
}
