import Testing

@testable import Gateway

struct NativeConversionTests {
    private let head = #"{"model":"llama3.2","created_at":"now","#

    private func chat(_ content: String, _ rest: String = "", _ behind: String = "") -> String {
        head + #""message":{"role":"assistant","content":"\#(content)"\#(rest)},"done":false\#(behind)}"#
    }

    private let ending =
        #"{"model":"llama3.2","created_at":"now","message":{"role":"assistant","content":""},"done":true"#
        + #","done_reason":"stop","total_duration":5,"eval_count":3}"#

    @Test func `a chat stream becomes the object that Ollama writes`() {
        let call = #"{"id":"call_1","function":{"index":0,"name":"f","arguments":{"a":[1]}}}"#
        let stream = lines(
            chat("", #","thinking":"Hm""#), chat("", #","thinking":" so \u003c""#),
            chat("The", "", #","logprobs":[{"token":"The"}]"#),
            chat(#" \"sky\" 🙂"#, "", #","logprobs":[{"token":"x"}]"#),
            chat("", #","tool_calls":[\#(call)]"#), chat("", #","tool_calls":[\#(call),\#(call)]"#), ending)
        let whole =
            head + #""message":{"role":"assistant","content":"The \"sky\" 🙂","thinking":"Hm so \u003c","tool_calls":["#
            + "\(call),\(call),\(call)"
            + #"]},"done":true,"done_reason":"stop","logprobs":[{"token":"The"},{"token":"x"}],"total_duration":5"#
            + #","eval_count":3}"#
        #expect(converted(stream, .stream, .whole, .chat) == whole)
    }

    @Test func `text and tool calls of the last line count`() {
        let last = #"{"message":{"content":"b","tool_calls":[{"x":2}]},"done":true}"#
        let stream = lines(#"{"message":{"content":"a","tool_calls":[{"x":1}]},"done":false}"#, last)
        let message = #"{"role":"assistant","content":"ab","tool_calls":[{"x":1},{"x":2}]}"#
        #expect(converted(stream, .stream, .whole, .chat) == #"{"message":\#(message),"done":true}"#)
    }

    @Test func `a generate stream keeps its context and has its log-probabilities last`() {
        let stream = lines(
            head + #""response":"","thinking":"t","done":false}"#,
            head + #""response":"a","done":false,"logprobs":[{"token":"a"}]}"#,
            head + #""response":"","done":true,"done_reason":"stop","context":[1,2],"eval_count":1}"#)
        let whole =
            head + #""response":"a","thinking":"t","done":true,"done_reason":"stop","context":[1,2],"eval_count":1"#
            + #","logprobs":[{"token":"a"}]}"#
        #expect(converted(stream, .stream, .whole, .generate) == whole)
        #expect(converted(whole, .whole, .stream, .generate) == stream)
    }

    @Test func `a chat object becomes thinking, text, calls and an end`() {
        let whole =
            head + #""message":{"role":"assistant","content":"The sky","thinking":"Hm so","tool_calls":[{"x":1}]}"#
            + #","done":true,"done_reason":"stop","total_duration":5,"eval_count":3}"#
        let stream = lines(
            chat("", #","thinking":"Hm""#), chat("", #","thinking":" so""#), chat("The"), chat(" sky"),
            chat("", #","tool_calls":[{"x":1}]"#), ending)
        #expect(converted(whole, .whole, .stream, .chat) == stream)
    }

    @Test func `each token has its log-probability where they fit, else the first text has all`() {
        func whole(_ content: String) -> String {
            #"{"message":{"role":"assistant","content":"\#(content)"},"done":true,"logprobs":"#
                + #"[{"token":"ab"},{"token":"c d"}]}"#
        }
        func line(_ content: String, _ behind: String = "") -> String {
            #"{"message":{"role":"assistant","content":"\#(content)"},"done":false\#(behind)}"#
        }
        let end = #"{"message":{"role":"assistant","content":""},"done":true}"#
        #expect(
            converted(whole("abc d"), .whole, .stream, .chat)
                == lines(
                    line("ab", #","logprobs":[{"token":"ab"}]"#), line("c d", #","logprobs":[{"token":"c d"}]"#), end))
        let all = #","logprobs":[{"token":"ab"},{"token":"c d"}]"#
        #expect(converted(whole("abx d"), .whole, .stream, .chat) == lines(line("abx", all), line(" d"), end))
        #expect(converted(whole(""), .whole, .stream, .chat) == lines(line("", all), end))
    }

    @Test func `nothing said is one line`() {
        #expect(converted(ending, .whole, .stream, .chat) == ending + "\n")
        #expect(converted(ending, .stream, .whole, .chat) == ending)
    }

    @Test func `what is not known stays, on the last line of a stream`() {
        let whole = #"{"message":{"role":"assistant","content":"a","mood":"good"},"done":true,"new":[1]}"#
        let stream = lines(
            #"{"message":{"role":"assistant","content":"a"},"done":false}"#,
            #"{"message":{"role":"assistant","content":"","mood":"good"},"done":true,"new":[1]}"#)
        #expect(converted(whole, .whole, .stream, .chat) == stream)
        #expect(converted(stream, .stream, .whole, .chat) == whole)
    }

    @Test func `line ends within an object do not end a line of the stream`() {
        let whole = "{\"model\":\n\"m\",\r\n\"message\": {\"content\":\"a\"},\n\"done\":true,\"context\":[1,\n2]}"
        let stream = converted(whole, .whole, .stream, .chat) ?? ""
        #expect(isWhole(stream, .stream, .chat))
        #expect(stream.split(separator: "\n").count == 2)
    }

    @Test func `the model is renamed on every line as Go would quote it`() {
        let stream = lines(
            #"{"model":"a","response":"x","done":false}"#, "", #"{"response":"", "model" : "b","done":true}"#)
        let renamed = lines(
            #"{"model":"\u003c\"é\u0085","response":"x","done":false}"#, "",
            #"{"response":"", "model" : "\u003c\"é\u0085","done":true}"#)
        #expect(converted(stream, .stream, .stream, .generate, model: "<\"é\u{85}") == renamed)
        let whole = #"{"model":"n","response":"x","done":true}"#
        #expect(converted(stream, .stream, .whole, .generate, model: "n")?.hasPrefix(#"{"model":"n""#) == true)
        #expect(converted(whole, .whole, .whole, .generate, model: "p") == whole.replacing(#""n""#, with: #""p""#))
        #expect(converted(whole, .whole, .stream, .generate, model: "p")?.contains(#""n""#) == false)
    }

    @Test func `what is not finished or has no such form cannot be converted`() {
        #expect(converted(lines(chat("a")), .stream, .whole, .chat) == nil)
        #expect(converted(chat("a"), .whole, .stream, .chat) == nil)
        #expect(converted(ending, .whole, .streamWithUsage, .chat) == nil)
        #expect(converted(#"{"embeddings":[[1]]}"#, .whole, .stream, .embed) == nil)
        #expect(converted("nonsense", .stream, .stream, .chat, model: "m") == nil)
        #expect(converted("nonsense", .stream, .stream, .chat) == "nonsense")
        #expect(converted(#"{"model":"a"}"#, .whole, .whole, .responses, model: "b") == nil)
        #expect(
            converted(#"{"model":"a","embeddings":[[1]]}"#, .whole, .whole, .embed, model: "b")
                == #"{"model":"b","embeddings":[[1]]}"#)
    }

    @Test func `a head as long as the text is not repeated for each word`() {
        let name = String(repeating: "n", count: 50_000)
        let words = String(repeating: " word", count: 10_000)
        let whole = #"{"model":"\#(name)","response":"\#(words)","done":true}"#
        #expect((converted(whole, .whole, .stream, .generate)?.utf8.count ?? .max) < whole.utf8.count * 3)
    }
}
