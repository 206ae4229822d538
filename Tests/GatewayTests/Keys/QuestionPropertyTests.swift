import Glibc
import Testing

@testable import Gateway

@Suite struct QuestionPropertyTests {
    /// Every two of the requests are a pair: that makes some ten million, of which one in hundreds means the same.
    @Test(arguments: Endpoint.cacheable)
    func `two requests have one form exactly if they mean the same`(_ endpoint: Endpoint) {
        var speller = Speller(seed: UInt64(endpoint.rawValue.utf8.count))
        var forms: [Meaning: [UInt8]] = [:]
        var meanings: [[UInt8]: Meaning] = [:]
        var texts: Set<String> = []
        var repeated = 0
        for _ in 0..<2_000 {
            let meaning = speller.request(to: endpoint)
            for _ in 0..<3 {
                let text = speller.body(meaning, of: endpoint)
                let question = Question.read(text, endpoint, cachesTools: true)
                guard let form = question.canonical else {
                    Issue.record("\(text): \(question.content)")
                    return
                }
                texts.insert(text)
                if let known = forms.updateValue(form, forKey: meaning) {
                    repeated += 1
                    #expect(known == form, "\(text)")
                }
                if let known = meanings.updateValue(meaning, forKey: form), known != meaning {
                    Issue.record("\(text): \(known) and \(meaning)")
                }
            }
        }
        // Else this would not say much.
        #expect(repeated >= 4_000 && texts.count > 4_000)
    }

    /// Ratios only, and of the best of some runs: the machine may be busy. Quadratic work would be 64 times as much.
    @Test(arguments: [
        "members that come in reverse", "long names with a common beginning", "escaped names", "elements", "text",
        "digits", "tool calls",
    ])
    func `eight times as long a request takes about eight times as long`(_ kind: String) {
        func body(_ count: Int) -> [UInt8] {
            let numbers = (0..<count).reversed()
            let long = String(repeating: "n", count: 100)
            let extra: String =
                switch kind {
                case "members that come in reverse": #""x":{\#(numbers.map { "\"\($0)\":1" }.joined(separator: ","))}"#
                case "long names with a common beginning":
                    #""x":{\#(numbers.map { "\"\(long)\($0)\":1" }.joined(separator: ","))}"#
                case "escaped names": numbers.map { "\"\\u0078\($0)\":1" }.joined(separator: ",")
                case "elements": #""x":[\#(numbers.map { "{\"a\":\($0)}" }.joined(separator: ","))]"#
                case "text": #""x":"\#(String(repeating: "\\n\u{e9}", count: 10 * count))""#
                case "digits":
                    #""x":1}],"options":{"temperature":0.\#(String(repeating: "3", count: 100 * count))},"y":[{"z":0"#
                default:
                    #""tool_calls":[\#(numbers.map { _ in #"{"arguments":{"b":1,"a":2}}"# }.joined(separator: ","))]"#
                }
            return Array(#"{"model":"m","messages":[{"content":"hi",\#(extra)}]}"#.utf8)
        }
        // Of this thread alone, whatever else the machine is doing.
        func processorTime() -> Int {
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return time.tv_sec * 1_000_000_000 + time.tv_nsec
        }
        func time(_ body: [UInt8]) -> Int {
            (0..<6).map { _ in
                let start = processorTime()
                _ = Question.read(body)
                return processorTime() - start
            }.min() ?? 0
        }
        let short = body(400)
        let long = body(3_200)
        #expect(Question.read(long).canonical != nil)
        #expect(time(long) < time(short) * 30)
    }
}
