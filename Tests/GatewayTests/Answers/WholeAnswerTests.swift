import Testing

@testable import Gateway

struct WholeAnswerTests {
    private let line = #"{"model":"m","message":{"role":"assistant","content":"a"},"done":false}"#
    private let last = #"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#
    private let delta = #"{"model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#
    private let ending = #"{"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#
    private let count = #"{"model":"m","choices":[],"usage":{"prompt_tokens":1}}"#

    @Test func `a native stream is whole with done on its last line`() {
        #expect(isWhole(lines(line, last), .stream, .chat))
        #expect(isWhole(line + "\r\n\r\n" + last + "\r\n", .stream, .chat))
        #expect(isWhole(line + "\n" + last, .stream, .chat))
        #expect(isWhole(#"{"response":"a","done":true}"#, .stream, .generate))
    }

    @Test func `a native stream is not whole that breaks off, errs, goes on or only loads`() {
        let loaded = last.replacing("stop", with: "load")
        for text in [
            "", "\n", lines(line), lines(line, #"{"error":"no"}"#), lines(line, last, line), lines(last, last),
            lines(line, last.replacing("}", with: "")), lines(loaded),
            lines(line, loaded.replacing("load", with: "unload")),
            lines(line, "nonsense", last), lines("[]", last), lines(#"{"error":"no"}"#, last),
            lines(#"{"message":{"content":1},"done":false}"#, last), lines(line, last.replacing("true", with: "1")),
        ] {
            #expect(!isWhole(text, .stream, .chat), "\(text)")
        }
        #expect(!isWhole(lines(line, last), .streamWithUsage, .chat))
    }

    @Test func `a native object is whole if it is done`() {
        #expect(isWhole(last, .whole, .chat))
        #expect(isWhole(#"{"response":"","done":true,"done_reason":"length"}"#, .whole, .generate))
        for text in [
            line, last.replacing("stop", with: "load"), last.replacing("stop", with: "unload"), last + "{}",
            #"{"done":true,"error":"no"}"#, #"{"response":"a"}"#, "true",
        ] {
            #expect(!isWhole(text, .whole, .chat), "\(text)")
        }
    }

    @Test(arguments: [
        (Endpoint.embed, #"{"model":"m","embeddings":[[0.1]]}"#), (.embeddings, #"{"embedding":[0.1]}"#),
        (.openAIEmbeddings, #"{"object":"list","data":[{"embedding":"AAA="}],"usage":{}}"#),
    ])
    func `vectors are whole if there are any`(endpoint: Endpoint, text: String) {
        #expect(isWhole(text, .whole, endpoint))
        #expect(!isWhole(text, .stream, endpoint))
        for none in ["{}", text.replacing(#/\[.*\]/#, with: "null"), text.replacing(#/\[.*\]/#, with: "[]")] {
            #expect(!isWhole(none, .whole, endpoint), "\(none)")
        }
        #expect(!isWhole(#"{"error":"no","data":[1],"embedding":[1],"embeddings":[1]}"#, .whole, endpoint))
    }

    @Test func `a stream of events is whole with a reason and DONE at its end`() {
        #expect(isWhole(events(delta, ending, "[DONE]"), .stream, .chatCompletions))
        #expect(isWhole(events(delta, ending, count, "[DONE]"), .streamWithUsage, .chatCompletions))
        let lively = ": alive\r\n\r\nid: 1\r\ndata:\(delta)\r\n\r\n: x\ndata: \(ending)\n\ndata: [DONE]\n\n: bye\n"
        #expect(isWhole(lively, .stream, .chatCompletions))
    }

    @Test func `a stream of events is not whole that breaks off, errs or lacks its usage`() {
        for text in [
            "", events("[DONE]"), events(delta, "[DONE]"), events(delta, ending),
            events(delta, ending, "[DONE]", delta),
            events(delta, ending) + "data: [DONE]", events(delta, #"{"error":{"message":"no"}}"#, ending, "[DONE]"),
            events("{", ending, "[DONE]"), "event: error\n" + events(delta, ending, "[DONE]"),
            events(ending.replacing("stop", with: "load"), "[DONE]"), "data: {\n" + events("}", ending, "[DONE]"),
            "dota: 1\n" + events(ending, "[DONE]"), events(#"{"choices":[1]}"#, ending, "[DONE]"),
            events("{}", ending, "[DONE]"),
        ] {
            #expect(!isWhole(text, .stream, .chatCompletions), "\(text)")
        }
        #expect(!isWhole(events(delta, ending, "[DONE]"), .streamWithUsage, .chatCompletions))
    }

    @Test func `an OpenAI object is whole with a reason`() {
        let chat = #"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}"#
        #expect(isWhole(chat, .whole, .chatCompletions))
        #expect(isWhole(#"{"choices":[{"text":"a","finish_reason":"length"}]}"#, .whole, .completions))
        for text in [
            #"{"choices":[]}"#, chat.replacing(#""stop""#, with: "null"), chat.replacing("stop", with: "load"),
            #"{"choices":[{"message":{}}]}"#, #"{"error":{},"# + chat.dropFirst(),
        ] {
            #expect(!isWhole(text, .whole, .chatCompletions), "\(text)")
        }
    }

    @Test func `endpoints that are not cached have no whole answers`() {
        for endpoint in Endpoint.allCases where !endpoint.isCacheable {
            for form in AnswerForm.allCases { #expect(!isWhole(last, form, endpoint)) }
        }
    }
}
