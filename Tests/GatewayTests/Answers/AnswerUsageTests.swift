import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What is read of the work that an answer was.
@Suite(.timeLimit(.minutes(1))) struct AnswerUsageTests {
    private func read(_ text: String) -> AnswerUsage { bytes(text) { AnswerUsage(endOf: $0) } }

    private static func usage(_ prompt: Int, _ completion: Int, writing: Int = 0, loading: Int = 0) -> AnswerUsage {
        var usage = AnswerUsage()
        (usage.prompt, usage.completion, usage.writing, usage.loading) = (prompt, completion, writing, loading)
        return usage
    }

    private static let numbers =
        #""total_duration":488000,"load_duration":133000,"prompt_eval_count":26,"prompt_eval_duration":34000,"#
        + #""eval_count":298,"eval_duration":4799921000"#
    private static let said = usage(26, 298, writing: 4_799_921_000, loading: 133_000)
    private static let chatLine =
        #"{"model":"m","created_at":"t","message":{"role":"assistant","content":"Hi"},"done":false}"#
    private static let chatLast =
        #"{"model":"m","created_at":"t","message":{"role":"assistant","content":""},"done":true,"#
        + #""done_reason":"stop",\#(numbers)}"#
    private static let context = (0..<40_000).map(String.init).joined(separator: ",")
    private static let vector = [String](repeating: "-0.012345678", count: 1024).joined(separator: ",")
    private static let responses =
        #"{"id":"r","object":"response","status":"completed","output":[{"type":"message","#
        + #""content":[{"type":"output_text","text":"Hi"}]}],"#
        + #""usage":{"input_tokens":26,"input_tokens_details":{"cached_tokens":0},"output_tokens":298,"#
        + #""output_tokens_details":{"reasoning_tokens":0},"total_tokens":324},"max_output_tokens":null,"store":false,"#
        + #""service_tier":"default","metadata":{},"safety_identifier":null,"prompt_cache_key":null}"#

    @Test(arguments: [
        lines(chatLine, chatLast), chatLast, chatLast + "\n", String(chatLast.dropLast()),
        lines(#"{"model":"m","response":"a","done":false}"#, #"{"model":"m","response":"","done":true,\#(numbers)}"#),
        #"{"model":"m","response":"Hi","done":true,"done_reason":"stop","context":[\#(context)],\#(numbers)}"#,
        lines(#"{"model":"m","response":"","done":true,"done_reason":"stop","context":[\#(context)],\#(numbers)}"#),
        #"{"total_duration": 488000, "load_duration": 133000, "prompt_eval_count": 26, "#
            + #""eval_count": 298, "eval_duration": 4799921000}"#,
    ]) func `Ollama's own numbers stand at the end`(answer: String) { #expect(read(answer) == Self.said) }

    @Test(arguments: [
        events(#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#)
            + events(
                #"{"choices":[],"usage":{"prompt_tokens":26,"completion_tokens":298,"total_tokens":324}}"#, "[DONE]"),
        #"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"#
            + #""usage":{"prompt_tokens":26,"completion_tokens":298,"total_tokens":324}}"# + "\n",
        // Of completions each event has one, and only the last counts.
        events(
            #"{"choices":[{"text":"a","index":0}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#,
            #"{"choices":[],"usage":{"prompt_tokens":26,"completion_tokens":298,"total_tokens":324}}"#, "[DONE]"),
        responses, "event: response.completed\n" + events(#"{"type":"response.completed","response":\#(responses)}"#),
        #"{"id":"m","type":"message","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","#
            + #""usage":{"input_tokens":26,"output_tokens":298}}"#,
        "event: message_start\n"
            + events(#"{"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":0}}}"#)
            + "event: message_delta\n"
            + events(
                #"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"#
                    + #""usage":{"input_tokens":26,"output_tokens":298}}"#
            ) + "event: message_stop\n" + events(#"{"type":"message_stop"}"#),
    ]) func `so do those of the other APIs`(answer: String) { #expect(read(answer) == Self.usage(26, 298)) }

    @Test(arguments: [
        (#"{"model":"m","embeddings":[[\#(vector)]],"total_duration":5,"load_duration":4,"prompt_eval_count":8}"#, 4),
        (
            #"{"object":"list","data":[{"embedding":[\#(vector)]}],"model":"m","#
                + #""usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            0
        ),
    ]) func `embeddings say what was read`(answer: String, loading: Int) {
        #expect(read(answer) == Self.usage(8, 0, loading: loading))
    }

    @Test(arguments: [
        "", "{}", "\"", "\"\"", "\\\"", "eval_count\":7", "\"eval_count", "\"eval_count\"", "\"eval_count\":",
        #"{"embedding":[0.5]}"#, #"{"error":"no"}"#, chatLine, events("[DONE]"), #"{"eval_counts":7}"#,
        #"{"x_eval_count":7}"#, #"{"Eval_count":7}"#, #"{"eval_count":"7"}"#, #"{"eval_count":-7}"#,
        #"{"eval_count":null,"prompt_tokens":{},"output_tokens":[7]}"#, #"{"message":"prompt_tokens: 7"}"#,
    ]) func `what says nothing of it is no work`(answer: String) { #expect(read(answer) == AnswerUsage()) }

    @Test(arguments: [
        #"\"eval_count\":99"#, #"\\\"eval_count\":99"#, #"{\"prompt_eval_count\":99,\"eval_count\":99}"#,
        #"\"usage\":{\"prompt_tokens\":99,\"completion_tokens\":99}"#, #"eval_count\":99"#, #"\\"#,
        #"\u0022eval_count\u0022:99"#, #"\"input_tokens\":99,\"output_tokens\":99"#, #"eval_count"#,
    ]) func `no text reads like a number of tokens`(text: String) {
        let line = #"{"model":"m","message":{"role":"assistant","content":"\#(text)"},"done":false}"#
        #expect(read(lines(line)) == AnswerUsage())
        #expect(read(#"{"response":"\#(text)","done":true,\#(Self.numbers)}"#) == Self.said)
        let event = #"{"choices":[{"index":0,"delta":{"content":"\#(text)"},"finish_reason":null}]}"#
        #expect(read(events(event, "[DONE]")) == AnswerUsage())
        // Wherever the end that is looked at may begin.
        for length in 0..<60 {
            let padding = String(repeating: ".", count: max(0, AnswerUsage.tail - 60 - line.utf8.count + length))
            #expect(read(lines(padding + line, String(repeating: " ", count: 50))) == AnswerUsage())
        }
    }

    @Test func `members of a tool's arguments are none of it`() {
        let arguments = #"{"eval_count":99,"prompt_eval_count":99,"eval_duration":99,"load_duration":99}"#
        let call = #"{"function":{"index":0,"name":"f","arguments":\#(arguments)}}"#
        let message = #""message":{"role":"assistant","content":"","tool_calls":[\#(call)]}"#
        #expect(read(#"{"model":"m",\#(message),"done":true,\#(Self.numbers)}"#) == Self.said)
        #expect(read(lines(#"{"model":"m",\#(message),"done":false}"#, Self.chatLast)) == Self.said)
        let escaped = #"{\"eval_count\":99,\"completion_tokens\":99}"#
        let openAI =
            #"{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":"\#(escaped)"}}]}}],"#
            + #""usage":{"prompt_tokens":26,"completion_tokens":298}}"#
        #expect(read(openAI) == Self.usage(26, 298))
    }

    @Test func `not even where an answer breaks off behind them`() {
        let call = #"{"function":{"index":0,"name":"f","arguments":{"eval_count":99,"prompt_eval_count":99}}}"#
        let message = #""message":{"role":"assistant","content":"","tool_calls":[\#(call)]}"#
        #expect(read(lines(#"{"model":"m",\#(message),"done":false}"#)) == AnswerUsage())
        let generated = #"{"model":"m","response":"","done":true,\#(Self.numbers),"tool_calls":[\#(call)]}"#
        #expect(read(generated) == Self.said)
    }

    @Test(arguments: [
        #""logprobs":[\#([String](repeating: AnswerMaker.logprob("a"), count: 30).joined(separator: ","))]"#,
        #""tool_calls":[{"function":{"name":"f","arguments":{"text":"\#(context.prefix(2000))"}}}]"#,
    ]) func `a generated answer has more behind them`(more: String) {
        let answer = #"{"model":"m","response":"Hi","done":true,"done_reason":"stop",\#(Self.numbers),\#(more)}"#
        #expect(read(answer) == Self.said)
    }

    @Test func `a part of the end has a part of it, and nothing else`() {
        let answer = lines(Self.chatLine, Self.chatLast)
        for count in 0...answer.utf8.count {
            let usage = read(String(decoding: answer.utf8.prefix(count), as: UTF8.self))
            #expect([0, 2, 26].contains(usage.prompt))
            #expect([0, 2, 29, 298].contains(usage.completion))
            #expect(usage.loading == 0 || "133000".hasPrefix("\(usage.loading)"))
            #expect(usage.writing == 0 || "4799921000".hasPrefix("\(usage.writing)"))
        }
    }

    @Test(arguments: [
        "9", "999999999", "18446744073709551616", "999999999999999999", "99999999999999999999999999999999", "1e308",
        "1.5",
    ]) func `numbers that cannot be are counted, and end nothing`(number: String) {
        let usage = read(
            #"{"total_duration":1,"prompt_eval_count":\#(number),"eval_count":\#(number),"load_duration":\#(number)}"#)
        #expect(usage.prompt == usage.completion)
        #expect(usage.prompt > 0)
        let note = AnswerNote(model: 100, usage)
        #expect((note.model, note.promptTokens) == (100, min(usage.prompt, 0xff_ffff)))
        #expect(note.completionTokens == min(usage.completion, 0xff_ffff))
    }

    @Test(
        arguments: [
            (0, 5, nil), (5, 0, nil), (298, 4_799_921_000, 62_084_355), (1, 1_000_000_000, 1_000_000),
            (2, 3_000_000_000, 666_666),
        ] as [(Int, Int, Int?)])
    func `the speed is tokens by seconds`(completion: Int, writing: Int, speed: Int?) {
        #expect(Self.usage(0, completion, writing: writing).speed == speed)
    }

    @Test func `no answer's numbers end the program`() async {
        await #expect(processExitsWith: .success) {
            LoopThread.start()
            await AnswerUsageTests.countHugeNumbers()
        }
    }

    @Loop private static func countHugeNumbers() {
        let metrics = Metrics()
        let huge =
            #"{"total_duration":1,"prompt_eval_count":999999999999999999,"eval_count":999999999999999999,"#
            + #""eval_duration":"#
        for end in ["1}", #"999999999999999999,"load_duration":999999999999999999}"#, "1000}"] {
            let usage = bytes(huge + end) { AnswerUsage(endOf: $0) }
            for _ in 0..<10_000 { metrics.count(usage, model: 0, seen: 1) }
        }
    }
}
