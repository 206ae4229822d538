import EventLoop

/// `/v1/chat/completions`, as Ollama speaks it.
@Loop
final class ChatCompletionFormat: AnswerFormat {
    private let clock: WallClock
    private let includesUsage: Bool
    private let model: String
    private let id: String
    private let created: Int
    /// Up to and with `"choices":[`, for chunks.
    private let head: [UInt8]
    private var hasBegun = false
    private var hasCalled = false

    init(model: String, includesUsage: Bool, seed: Seed, clock: WallClock) {
        self.clock = clock
        self.includesUsage = includesUsage
        self.model = model
        id = "chatcmpl-\(seed.value % 999)"
        created = clock.now.seconds
        head = ChatCompletionFormat.head(
            id: id, object: "chat.completion.chunk", created: created, model: model, isEvent: true)
    }

    let contentType = "text/event-stream"
    let wholeContentType = "application/json"

    func write(_ piece: Script.Piece, logprobs: [UInt8]?, to lines: inout Lines) {
        lines.bytes.append(contentsOf: head)
        lines.bytes.append(#"{"index":0,"delta":{"#)
        let isFirst = !hasBegun
        hasBegun = true
        if isFirst { lines.bytes.append(#""role":"assistant","#) }
        switch piece {
        case .text(let token):
            append("content", token, to: &lines.bytes)
        case .thinking(let token):
            if isFirst { lines.bytes.append(#""content":"","#) }
            append("reasoning", token, to: &lines.bytes)
        case .call(let call):
            hasCalled = true
            if isFirst { lines.bytes.append(#""content":"","#) }
            lines.bytes.append(#""tool_calls":["#)
            call.appendForOpenAI(to: &lines.bytes)
            lines.bytes.append("]")
        }
        lines.bytes.append(#"},"finish_reason":null"#)
        if let logprobs {
            lines.bytes.append(#","logprobs":{"content":["#)
            lines.bytes.append(contentsOf: logprobs)
            lines.bytes.append("]}")
        }
        lines.bytes.append("}]}\n\n")
        lines.end()
    }

    func end(_ reason: String, _ metrics: Metrics, to lines: inout Lines) {
        lines.bytes.append(contentsOf: head)
        lines.bytes.append(#"{"index":0,"delta":{},"finish_reason":"#)
        lines.bytes.append(quoting: hasCalled && reason == "stop" ? "tool_calls" : reason)
        lines.bytes.append("}]}\n\n")
        lines.end()
        if includesUsage {
            lines.bytes.append(contentsOf: head)
            lines.bytes.append(#"],"usage":"#)
            lines.bytes.append(usage: metrics)
            lines.bytes.append("}\n\n")
            lines.end()
        }
        lines.bytes.append("data: [DONE]\n\n")
        lines.end()
    }

    /// Ollama takes the error for an empty answer and passes that on.
    func breakOff(_ message: String, to lines: inout Lines) {
        lines.bytes.append(
            contentsOf: ChatCompletionFormat.head(
                id: id, object: "chat.completion.chunk", created: created, model: "", isEvent: true))
        lines.bytes.append(#"{"index":0,"delta":{"content":""},"finish_reason":null}]}"#)
        lines.bytes.append("\n\n")
        lines.end()
    }

    func whole(_ answer: Answer) -> [UInt8] {
        var bytes = ChatCompletionFormat.head(
            id: id, object: "chat.completion", created: created, model: model, isEvent: false)
        bytes.append(#"{"index":0,"message":{"role":"assistant","content":""#)
        bytes.append(escaping: answer.content)
        bytes.append(UInt8(ascii: "\""))
        if !answer.thinking.isEmpty {
            bytes.append(#","reasoning":""#)
            bytes.append(escaping: answer.thinking)
            bytes.append(UInt8(ascii: "\""))
        }
        if !answer.calls.isEmpty {
            bytes.append(#","tool_calls":["#)
            for (index, call) in answer.calls.enumerated() {
                if index > 0 { bytes.append(",") }
                call.appendForOpenAI(to: &bytes)
            }
            bytes.append("]")
        }
        bytes.append(#"},"finish_reason":"#)
        if let reason = answer.reason {
            bytes.append(quoting: answer.calls.isEmpty ? reason : "tool_calls")
        } else {
            bytes.append("null")
        }
        if !answer.logprobs.isEmpty {
            bytes.append(#","logprobs":{"content":"#)
            bytes.append(list: answer.logprobs)
            bytes.append("}")
        }
        bytes.append(#"}],"usage":"#)
        bytes.append(usage: answer.metrics)
        bytes.append("}\n")
        return bytes
    }

    private func append(_ name: StaticString, _ token: Token, to bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: "\""))
        bytes.append(name)
        bytes.append(#"":""#)
        bytes.append(contentsOf: token.escaped)
        bytes.append(UInt8(ascii: "\""))
    }

    private static func head(id: String, object: String, created: Int, model: String, isEvent: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        if isEvent { bytes.append("data: ") }
        bytes.append(#"{"id":"#)
        bytes.append(quoting: id)
        bytes.append(#","object":"#)
        bytes.append(quoting: object)
        bytes.append(#","created":"#)
        bytes.append(decimal: created)
        bytes.append(#","model":"#)
        bytes.append(quoting: model)
        bytes.append(#","system_fingerprint":"fp_ollama","choices":["#)
        return bytes
    }
}

extension [UInt8] {
    /// OpenAI's `usage` object.
    mutating func append(usage metrics: Metrics) {
        append(#"{"prompt_tokens":"#)
        append(decimal: metrics.promptTokens)
        append(#","completion_tokens":"#)
        append(decimal: metrics.tokens)
        append(#","total_tokens":"#)
        append(decimal: metrics.promptTokens + metrics.tokens)
        append("}")
    }
}
