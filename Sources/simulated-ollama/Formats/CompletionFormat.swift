import EventLoop

/// `/v1/completions`, as Ollama speaks it: no thinking, no log-probabilities.
@Loop
final class CompletionFormat: AnswerFormat {
    private let includesUsage: Bool
    private let id: String
    private let created: Int
    /// Up to and with `"choices":[`.
    private let head: [UInt8]
    /// From the end of the choices to the end of the event.
    private let tail: [UInt8]
    private let model: String

    init(model: String, includesUsage: Bool, seed: Seed, clock: WallClock) {
        self.includesUsage = includesUsage
        self.model = model
        id = "cmpl-\(seed.value % 999)"
        created = clock.now.seconds
        var head: [UInt8] = []
        head.append("data: ")
        head.append(#"{"id":"#)
        head.append(quoting: id)
        head.append(#","object":"text_completion","created":"#)
        head.append(decimal: created)
        head.append(#","choices":["#)
        self.head = head
        tail = CompletionFormat.tail(model: model, usage: includesUsage ? Metrics(total: 0) : nil)
    }

    let contentType = "text/event-stream"
    let wholeContentType = "application/json"

    func write(_ piece: Script.Piece, logprobs: [UInt8]?, to lines: inout Lines) {
        var text: [UInt8] = []
        if case .text(let token) = piece { text = token.escaped }
        write(text, reason: nil, tail: tail, to: &lines)
    }

    func end(_ reason: String, _ metrics: Metrics, to lines: inout Lines) {
        write([], reason: reason, tail: tail, to: &lines)
        if includesUsage {
            lines.bytes.append(contentsOf: head)
            lines.bytes.append(contentsOf: CompletionFormat.tail(model: model, usage: metrics))
            lines.end()
        }
        lines.bytes.append("data: [DONE]\n\n")
        lines.end()
    }

    func breakOff(_ message: String, to lines: inout Lines) {
        let tail = CompletionFormat.tail(model: "", usage: includesUsage ? Metrics(total: 0) : nil)
        write([], reason: nil, tail: tail, to: &lines)
    }

    func whole(_ answer: Answer) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(#"{"id":"#)
        bytes.append(quoting: id)
        bytes.append(#","object":"text_completion","created":"#)
        bytes.append(decimal: created)
        bytes.append(#","model":"#)
        bytes.append(quoting: model)
        bytes.append(#","system_fingerprint":"fp_ollama","choices":["#)
        choice(Token(answer.content).escaped, reason: answer.reason, to: &bytes)
        bytes.append(#"],"usage":"#)
        bytes.append(usage: answer.metrics)
        bytes.append("}\n")
        return bytes
    }

    private func write(_ text: [UInt8], reason: String?, tail: [UInt8], to lines: inout Lines) {
        lines.bytes.append(contentsOf: head)
        choice(text, reason: reason, to: &lines.bytes)
        lines.bytes.append(contentsOf: tail)
        lines.end()
    }

    private func choice(_ text: [UInt8], reason: String?, to bytes: inout [UInt8]) {
        bytes.append(#"{"text":""#)
        bytes.append(contentsOf: text)
        bytes.append(#"","index":0,"finish_reason":"#)
        if let reason { bytes.append(quoting: reason) } else { bytes.append("null") }
        bytes.append("}")
    }

    private static func tail(model: String, usage: Metrics?) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(#"],"model":"#)
        bytes.append(quoting: model)
        bytes.append(#","system_fingerprint":"fp_ollama""#)
        if let usage {
            bytes.append(#","usage":"#)
            bytes.append(usage: usage)
        }
        bytes.append("}\n\n")
        return bytes
    }
}
