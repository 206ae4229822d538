import HTTPCore
import TestSupport

@testable import Gateway

/// Lends the bytes of a text.
func bytes<T>(_ text: String, _ body: (UnsafeRawBufferPointer) -> T) -> T {
    var text = text
    return text.withUTF8 { body(UnsafeRawBufferPointer($0)) }
}

func converted(
    _ text: String, _ from: AnswerForm, _ form: AnswerForm, _ endpoint: Endpoint, model: String? = nil
) -> String? {
    bytes(text) { Answers.convert($0, from: from, to: form, endpoint: endpoint, model: model)?.text }
}

func isWhole(_ text: String, _ form: AnswerForm, _ endpoint: Endpoint) -> Bool {
    bytes(text) { Answers.isWhole($0, form: form, endpoint: endpoint) }
}

/// `data: …` and a blank line for each.
func events(_ data: String...) -> String { data.map { "data: \($0)\n\n" }.joined() }

/// Each on a line.
func lines(_ lines: String...) -> String { lines.map { $0 + "\n" }.joined() }

let usage = #""usage":{"prompt_tokens":26,"completion_tokens":4,"total_tokens":30}"#
let noUsage = #""usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#

/// Answers that are made up, such as Ollama writes them.
struct AnswerMaker {
    var random: SeededGenerator

    /// Escaped as Go does it, or as others do.
    static let words = [
        "The", " sky", " is", " blue", ".", " ", "  ", #"\n\n"#, #" \"so\""#, #"\\"#, #" a\\u0041"#, " naïve", " Größe",
        "東京", " 空", "🙂", "👩‍🚀", "🇩🇪🇫🇷", "e\u{301}", #" \u003cb\u003e"#, #"\u2028"#, #"\ud83d\ude00"#, #"\t"#,
        "antidisestablishmentarianism", #"\u00e9"#, #"\/"#,
    ]

    mutating func tokens(_ upTo: Int) -> [String] {
        (0..<Int.random(in: 0...upTo, using: &random)).map { _ in AnswerMaker.words.randomElement(using: &random) ?? ""
        }
    }

    mutating func chance() -> Bool { Bool.random(using: &random) }

    /// A whole answer for one of the endpoints that stream.
    mutating func whole(_ endpoint: Endpoint) -> String {
        let text = tokens(12)
        let thinking = chance() ? tokens(8) : []
        let entries = (thinking + text).map(AnswerMaker.logprob)
        let logprobs = chance() && endpoint != .completions ? entries : []
        let calls = endpoint == .chat || endpoint == .chatCompletions ? self.calls(endpoint) : []
        let spoken = AnswerMaker.spoken(
            endpoint, text: text.joined(), thinking: endpoint == .completions ? "" : thinking.joined(), calls: calls)
        switch endpoint {
        case .chat:
            return AnswerMaker.native + spoken + #","done":true,"done_reason":"stop""#
                + AnswerMaker.list("logprobs", logprobs) + AnswerMaker.numbers + "}"
        case .generate:
            return AnswerMaker.native + spoken + #","done":true,"done_reason":"length","context":[1,2,3]"#
                + AnswerMaker.numbers + AnswerMaker.list("logprobs", logprobs) + "}"
        case .chatCompletions:
            let content = AnswerMaker.list("content", logprobs).dropFirst()
            return AnswerMaker.openAI("chat.completion") + #"{"index":0,"# + spoken + #","finish_reason":"stop""#
                + (logprobs.isEmpty ? "" : #","logprobs":{\#(content)}"#) + "}],\(usage)}\n"
        default:
            return AnswerMaker.openAI("text_completion")
                + #"{\#(spoken),"index":0,"finish_reason":"stop"}],\#(usage)}"# + "\n"
        }
    }

    private mutating func calls(_ endpoint: Endpoint) -> [String] {
        (0..<Int.random(in: 0...2, using: &random)).map { index in
            endpoint == .chat
                ? #"{"id":"call_\#(index)","function":{"index":\#(index),"name":"f","arguments":{"a":"\"{}"}}}"#
                : #"{"id":"call_\#(index)","index":\#(index),"type":"function","#
                    + #""function":{"name":"f","arguments":"{\"a\":\"]\"}"}}"#
        }
    }

    static let native = #"{"model":"llama3.2","created_at":"2026-08-21T18:48:22.123456789Z","#
    static let numbers =
        #","total_duration":488,"load_duration":133,"prompt_eval_count":26,"prompt_eval_duration":34,"eval_count":4"#
        + #","eval_duration":45"#

    static func openAI(_ object: String) -> String {
        #"{"id":"chatcmpl-7","object":"\#(object)","created":1787337702,"model":"llama3.2","#
            + #""system_fingerprint":"fp_ollama","choices":["#
    }

    static func logprob(_ token: String) -> String { #"{"token":"\#(token)","logprob":-0.5,"bytes":[1,2]}"# }

    static func list(_ name: String, _ elements: [String]) -> String {
        elements.isEmpty ? "" : #","\#(name)":[\#(elements.joined(separator: ","))]"#
    }

    private static func spoken(_ endpoint: Endpoint, text: String, thinking: String, calls: [String]) -> String {
        let name = endpoint == .chatCompletions ? "reasoning" : "thinking"
        let thinking = thinking.isEmpty ? "" : #","\#(name)":"\#(thinking)""#
        let calls = list("tool_calls", calls)
        return switch endpoint {
        case .chat, .chatCompletions:
            #""message":{"role":"assistant","content":"\#(text)"\#(thinking)\#(calls)}"#
        case .generate: #""response":"\#(text)"\#(thinking)"#
        default: #""text":"\#(text)""#
        }
    }
}
