import EventLoop

/// `/api/generate` and `/api/chat`: one JSON object a line.
@Loop
final class NativeFormat: AnswerFormat {
    private let clock: WallClock
    private let isChat: Bool
    /// Tokens for the last line of `/api/generate`, to go on from; nil where none are told.
    private let context: (earlier: [JSONValue], seed: Seed)?
    /// `{"model":"llama3.2","created_at":"`
    private let head: [UInt8]

    init(model: String, isChat: Bool, context: (earlier: [JSONValue], seed: Seed)?, clock: WallClock) {
        self.clock = clock
        self.isChat = isChat
        self.context = context
        var head: [UInt8] = []
        head.append(#"{"model":"#)
        head.append(quoting: model)
        head.append(#","created_at":""#)
        self.head = head
    }

    let contentType = "application/x-ndjson"
    let wholeContentType = "application/json; charset=utf-8"

    func write(_ piece: Script.Piece, logprobs: [UInt8]?, to lines: inout Lines) {
        begin(&lines.bytes)
        switch piece {
        case .text(let token):
            lines.bytes.append(contentsOf: token.escaped)
            lines.bytes.append(UInt8(ascii: "\""))
        case .thinking(let token):
            lines.bytes.append(#"","thinking":""#)
            lines.bytes.append(contentsOf: token.escaped)
            lines.bytes.append(UInt8(ascii: "\""))
        case .call(let call):
            lines.bytes.append(#"","tool_calls":["#)
            call.append(to: &lines.bytes)
            lines.bytes.append("]")
        }
        if isChat { lines.bytes.append("}") }
        lines.bytes.append(#","done":false"#)
        if let logprobs {
            lines.bytes.append(#","logprobs":["#)
            lines.bytes.append(contentsOf: logprobs)
            lines.bytes.append("]")
        }
        lines.bytes.append("}\n")
        lines.end()
    }

    func end(_ reason: String, _ metrics: Metrics, to lines: inout Lines) {
        begin(&lines.bytes)
        lines.bytes.append(isChat ? #""}"# : #"""#)
        finish(Answer(reason: reason, metrics: metrics), &lines.bytes)
        lines.bytes.append("\n")
        lines.end()
    }

    func breakOff(_ message: String, to lines: inout Lines) {
        lines.bytes.append(json: ["error": .string(message)])
        lines.bytes.append("\n")
        lines.end()
    }

    func whole(_ answer: Answer) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(head.count + answer.content.utf8.count + answer.thinking.utf8.count + 400)
        begin(&bytes)
        bytes.append(escaping: answer.content)
        bytes.append(UInt8(ascii: "\""))
        if !answer.thinking.isEmpty {
            bytes.append(#","thinking":""#)
            bytes.append(escaping: answer.thinking)
            bytes.append(UInt8(ascii: "\""))
        }
        if !answer.calls.isEmpty {
            bytes.append(#","tool_calls":["#)
            for (index, call) in answer.calls.enumerated() {
                if index > 0 { bytes.append(",") }
                call.append(to: &bytes)
            }
            bytes.append("]")
        }
        if isChat { bytes.append("}") }
        finish(answer, &bytes)
        return bytes
    }

    /// The answer to a request that only loads or unloads.
    func nothing(reason: String) -> [UInt8] {
        var bytes: [UInt8] = []
        begin(&bytes)
        bytes.append(isChat ? #""}"# : #"""#)
        bytes.append(#","done":true,"done_reason":"#)
        bytes.append(quoting: reason)
        bytes.append("}")
        return bytes
    }

    /// Up to and with the quote that opens the text.
    private func begin(_ bytes: inout [UInt8]) {
        bytes.append(contentsOf: head)
        bytes.append(contentsOf: clock.text)
        bytes.append(isChat ? #"","message":{"role":"assistant","content":""# : #"","response":""#)
    }

    /// From `done` to the closing brace.
    private func finish(_ answer: Answer, _ bytes: inout [UInt8]) {
        guard let reason = answer.reason else {
            bytes.append(#","done":false}"#)
            return
        }
        bytes.append(#","done":true,"done_reason":"#)
        bytes.append(quoting: reason)
        if let context { append(context.earlier, context.seed, answer.metrics, &bytes) }
        if isChat { append(answer.logprobs, &bytes) }
        append(answer.metrics, &bytes)
        if !isChat { append(answer.logprobs, &bytes) }
        bytes.append("}")
    }

    private func append(_ metrics: Metrics, _ bytes: inout [UInt8]) {
        bytes.append(#","total_duration":"#)
        bytes.append(decimal: metrics.total)
        bytes.append(#","load_duration":"#)
        bytes.append(decimal: metrics.load)
        bytes.append(#","prompt_eval_count":"#)
        bytes.append(decimal: metrics.promptTokens)
        bytes.append(#","prompt_eval_duration":"#)
        bytes.append(decimal: metrics.promptEvaluation)
        // Go leaves a zero out.
        if metrics.tokens > 0 {
            bytes.append(#","eval_count":"#)
            bytes.append(decimal: metrics.tokens)
        }
        bytes.append(#","eval_duration":"#)
        bytes.append(decimal: metrics.evaluation)
    }

    private func append(_ logprobs: [[UInt8]], _ bytes: inout [UInt8]) {
        guard !logprobs.isEmpty else { return }
        bytes.append(#","logprobs":"#)
        bytes.append(list: logprobs)
    }

    /// Numbers for the tokens read and written, as many as a context holds.
    private func append(_ earlier: [JSONValue], _ seed: Seed, _ metrics: Metrics, _ bytes: inout [UInt8]) {
        bytes.append(#","context":["#)
        let count = min(metrics.promptTokens + metrics.tokens, 32_768)
        for index in 0..<count {
            if index > 0 { bytes.append(UInt8(ascii: ",")) }
            if index < earlier.count {
                bytes.append(json: earlier[index])
            } else {
                bytes.append(decimal: Int(seed.number(index + 2_000_000) % 128_000))
            }
        }
        bytes.append("]")
    }
}
