import Testing

@testable import Gateway

struct OpenAIConversionTests {
    private let chatHead =
        #"{"id":"chatcmpl-7","object":"chat.completion.chunk","created":17,"model":"m","#
        + #""system_fingerprint":"fp_ollama","choices":["#
    private let wholeHead =
        #"{"id":"chatcmpl-7","object":"chat.completion","created":17,"model":"m","#
        + #""system_fingerprint":"fp_ollama","choices":["#
    private let textHead = #"{"id":"cmpl-7","object":"text_completion","created":17,"choices":["#
    private let textTail = #"],"model":"m","system_fingerprint":"fp_ollama""#

    private func delta(_ delta: String, _ reason: String = "null", _ behind: String = "") -> String {
        chatHead + #"{"index":0,"delta":{\#(delta)},"finish_reason":\#(reason)\#(behind)}]}"#
    }

    private func text(_ text: String, _ reason: String = "null", _ usage: String = "") -> String {
        textHead + #"{"text":"\#(text)","index":0,"finish_reason":\#(reason)}"# + textTail + usage + "}"
    }

    private let call = #"{"id":"call_1","index":0,"type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}"#

    private var chatWhole: String {
        wholeHead + #"{"index":0,"message":{"role":"assistant","content":"The sky","reasoning":"Hm so","tool_calls":["#
            + call + #"]},"finish_reason":"tool_calls"}],"# + usage + "}\n"
    }

    private func chatStream(_ more: String...) -> String {
        events(
            delta(#""role":"assistant","content":"","reasoning":"Hm""#), delta(#""reasoning":" so""#),
            delta(#""content":"The""#), delta(#""content":" sky""#), delta(#""tool_calls":[\#(call)]"#),
            delta("", #""tool_calls""#)) + more.map { events($0) }.joined() + events("[DONE]")
    }

    @Test func `a chat object and its streams become each other`() {
        let count = chatHead + "]," + usage + "}"
        #expect(converted(chatWhole, .whole, .stream, .chatCompletions) == chatStream())
        #expect(converted(chatWhole, .whole, .streamWithUsage, .chatCompletions) == chatStream(count))
        #expect(converted(chatStream(count), .streamWithUsage, .stream, .chatCompletions) == chatStream())
        #expect(converted(chatStream(count), .streamWithUsage, .whole, .chatCompletions) == chatWhole)
    }

    @Test func `a completion and its streams become each other`() {
        let whole =
            #"{"id":"cmpl-7","object":"text_completion","created":17,"model":"m","#
            + #""system_fingerprint":"fp_ollama","choices":[{"text":"The sky","index":0,"finish_reason":"length"}],"#
            + usage + "}\n"
        let stream = events(text("The"), text(" sky"), text("", #""length""#), "[DONE]")
        let counted = events(
            text("The", "null", "," + noUsage), text(" sky", "null", "," + noUsage),
            text("", #""length""#, "," + noUsage),
            textHead + textTail + "," + usage + "}", "[DONE]")
        #expect(converted(whole, .whole, .stream, .completions) == stream)
        #expect(converted(whole, .whole, .streamWithUsage, .completions) == counted)
        #expect(converted(counted, .streamWithUsage, .stream, .completions) == stream)
        #expect(converted(counted, .streamWithUsage, .whole, .completions) == whole)
    }

    @Test func `log-probabilities come with their tokens`() {
        let whole =
            wholeHead + #"{"index":0,"message":{"role":"assistant","content":"ab"},"finish_reason":"stop","logprobs":"#
            + #"{"content":[{"token":"a"},{"token":"b"}]}}],"# + usage + "}\n"
        let stream = events(
            delta(#""role":"assistant","content":"a""#, "null", #","logprobs":{"content":[{"token":"a"}]}"#),
            delta(#""content":"b""#, "null", #","logprobs":{"content":[{"token":"b"}]}"#),
            delta("", #""stop""#), chatHead + "]," + usage + "}", "[DONE]")
        #expect(converted(whole, .whole, .streamWithUsage, .chatCompletions) == stream)
        #expect(converted(stream, .streamWithUsage, .whole, .chatCompletions) == whole)
    }

    @Test func `who says nothing has a role`() {
        let whole = wholeHead + #"{"index":0,"message":{"content":null},"finish_reason":"stop"}]}"#
        let stream = events(delta(#""role":"assistant","content":"""#), delta("", #""stop""#), "[DONE]")
        #expect(converted(whole, .whole, .stream, .chatCompletions) == stream)
    }

    @Test func `the reason counts wherever it stands`() {
        let stream = events(
            delta(#""content":"a""#, #""length""#), delta(#""content":"b""#), chatHead + "]," + usage + "}", "[DONE]")
        let whole =
            wholeHead + #"{"index":0,"message":{"role":"assistant","content":"ab"},"finish_reason":"length"}],"# + usage
            + "}\n"
        #expect(converted(stream, .streamWithUsage, .whole, .chatCompletions) == whole)
    }

    @Test func `a call without a place gets one`() {
        let whole = wholeHead + #"{"index":0,"message":{"tool_calls":[{"id":"a"},{}]},"finish_reason":"stop"}]}"#
        let stream = converted(whole, .whole, .stream, .chatCompletions) ?? ""
        #expect(stream.contains(#""tool_calls":[{"index":0,"id":"a"},{"index":1}]"#))
    }

    @Test func `what is not known stays, on the event that tells the reason`() {
        let whole =
            wholeHead.replacing(#","choices":["#, with: #","tier":"x","choices":["#)
            + #"{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"#
            + #""finish_reason":"stop","flag":1}],"# + usage + "}\n"
        let stream = converted(whole, .whole, .streamWithUsage, .chatCompletions) ?? ""
        let ending = #"{"index":0,"delta":{"refusal":null},"finish_reason":"stop","flag":1}],"tier":"x"}"#
        #expect(stream.contains(ending))
        #expect(converted(stream, .streamWithUsage, .whole, .chatCompletions)?.contains(#""refusal":null},"#) == true)
        #expect(converted(stream, .streamWithUsage, .whole, .chatCompletions)?.contains(#""flag":1}]"#) == true)
        #expect(converted(stream, .streamWithUsage, .whole, .chatCompletions)?.contains(#""tier":"x""#) == true)
    }

    @Test func `the model is renamed in every event`() {
        let count = chatHead + "]," + usage + "}"
        let renamed = chatStream(count).replacing(#""model":"m""#, with: #""model":"a\u0026b""#)
        #expect(
            converted(chatStream(count), .streamWithUsage, .streamWithUsage, .chatCompletions, model: "a&b") == renamed)
        #expect(converted(chatWhole, .whole, .streamWithUsage, .chatCompletions, model: "a&b") == renamed)
        #expect(
            converted(chatStream(count), .streamWithUsage, .whole, .chatCompletions, model: "a&b")
                == chatWhole.replacing(#""model":"m""#, with: #""model":"a\u0026b""#))
        let comment = ": alive\r\n\r\nid: 3\r\ndata:{\"model\" : 1}\r\n\r\n"
        #expect(
            converted(comment, .stream, .stream, .completions, model: "b")
                == comment.replacing(": 1", with: #": "b""#))
        #expect(converted(chatWhole, .whole, .stream, .chatCompletions, model: "b")?.contains(#""m""#) == false)
    }

    @Test func `what lacks its usage cannot become what tells it`() {
        #expect(converted(chatStream(), .stream, .whole, .chatCompletions) == nil)
        #expect(converted(chatStream(), .stream, .streamWithUsage, .chatCompletions) == nil)
        #expect(converted(chatStream(), .streamWithUsage, .whole, .chatCompletions) == nil)
        let bare = wholeHead + #"{"message":{"content":"a"},"finish_reason":"stop"}]}"#
        #expect(converted(bare, .whole, .streamWithUsage, .chatCompletions) == nil)
        #expect(converted(bare, .whole, .stream, .chatCompletions) != nil)
    }
}
