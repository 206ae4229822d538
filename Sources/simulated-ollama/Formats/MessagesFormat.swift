import EventLoop

/// `/v1/messages`: Anthropic's events, as Ollama speaks them.
@Loop
final class MessagesFormat: AnswerFormat {
    private enum Block { case none, thinking, text }

    private let model: String
    private let id: String
    private let promptTokens: Int
    private var hasBegun = false
    private var block = Block.none
    private var index = 0
    private var hasCalled = false

    init(model: String, promptTokens: Int, seed: Seed) {
        self.model = model
        self.promptTokens = promptTokens
        id = "msg_" + MessagesFormat.hexadecimal(seed)
    }

    let contentType = "text/event-stream"
    let wholeContentType = "application/json"

    /// 24 digits, as Ollama's ids have.
    static func hexadecimal(_ seed: Seed) -> String {
        String((0..<2).map { String(seed.number($0 + 50) | 1 << 63, radix: 16) }.joined().prefix(24))
    }

    func write(_ piece: Script.Piece, logprobs: [UInt8]?, to lines: inout Lines) {
        begin(&lines)
        switch piece {
        case .thinking(let token):
            open(.thinking, &lines)
            delta("thinking_delta", "thinking", token, &lines)
        case .text(let token):
            open(.text, &lines)
            delta("text_delta", "text", token, &lines)
        case .call(let call):
            close(&lines)
            hasCalled = true
            event(
                "content_block_start", &lines,
                [
                    "type": "content_block_start", "index": .integer(index),
                    "content_block": [
                        "type": "tool_use", "id": .string(call.id), "name": .string(call.name), "input": [:],
                    ],
                ])
            event(
                "content_block_delta", &lines,
                [
                    "type": "content_block_delta", "index": .integer(index),
                    "delta": ["type": "input_json_delta", "partial_json": .string(call.argumentText)],
                ])
            event("content_block_stop", &lines, ["type": "content_block_stop", "index": .integer(index)])
            index += 1
        }
    }

    func end(_ reason: String, _ metrics: Metrics, to lines: inout Lines) {
        begin(&lines)
        close(&lines)
        event(
            "message_delta", &lines,
            [
                "type": "message_delta", "delta": ["stop_reason": .string(stopReason(reason, called: hasCalled))],
                "usage": ["input_tokens": .integer(metrics.promptTokens), "output_tokens": .integer(metrics.tokens)],
            ])
        event("message_stop", &lines, ["type": "message_stop"])
    }

    /// The error is lost: the stream just ends.
    func breakOff(_ message: String, to lines: inout Lines) {}

    func whole(_ answer: Answer) -> [UInt8] {
        var content: [[UInt8]] = []
        func block(_ type: StaticString, _ text: String) {
            var bytes: [UInt8] = []
            bytes.append(#"{"type":""#)
            bytes.append(type)
            bytes.append(#"",""#)
            bytes.append(type)
            bytes.append(#"":""#)
            bytes.append(escaping: text)
            bytes.append(#""}"#)
            content.append(bytes)
        }
        if !answer.thinking.isEmpty { block("thinking", answer.thinking) }
        if !answer.content.isEmpty { block("text", answer.content) }
        for call in answer.calls {
            let use: JSONValue = [
                "type": "tool_use", "id": .string(call.id), "name": .string(call.name),
                "input": .object(call.arguments),
            ]
            content.append(use.bytes)
        }
        var bytes: [UInt8] = []
        bytes.append(#"{"id":"#)
        bytes.append(quoting: id)
        bytes.append(#","type":"message","role":"assistant","model":"#)
        bytes.append(quoting: model)
        bytes.append(#","content":"#)
        bytes.append(list: content)
        if let reason = answer.reason {
            bytes.append(#","stop_reason":"#)
            bytes.append(quoting: stopReason(reason, called: !answer.calls.isEmpty))
        }
        bytes.append(#","usage":{"input_tokens":"#)
        bytes.append(decimal: answer.metrics.promptTokens)
        bytes.append(#","output_tokens":"#)
        bytes.append(decimal: answer.metrics.tokens)
        bytes.append("}}\n")
        return bytes
    }

    // MARK: Events

    private func begin(_ lines: inout Lines) {
        guard !hasBegun else { return }
        hasBegun = true
        event(
            "message_start", &lines,
            [
                "type": "message_start",
                "message": [
                    "id": .string(id), "type": "message", "role": "assistant", "model": .string(model), "content": [],
                    "usage": ["input_tokens": .integer(promptTokens), "output_tokens": 0],
                ],
            ])
    }

    private func open(_ wanted: Block, _ lines: inout Lines) {
        guard block != wanted else { return }
        close(&lines)
        block = wanted
        let content: JSONValue =
            wanted == .thinking ? ["type": "thinking", "thinking": ""] : ["type": "text", "text": ""]
        event(
            "content_block_start", &lines,
            ["type": "content_block_start", "index": .integer(index), "content_block": content])
    }

    private func close(_ lines: inout Lines) {
        guard block != .none else { return }
        block = .none
        event("content_block_stop", &lines, ["type": "content_block_stop", "index": .integer(index)])
        index += 1
    }

    private func delta(_ type: StaticString, _ field: StaticString, _ token: Token, _ lines: inout Lines) {
        lines.bytes.append("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":")
        lines.bytes.append(decimal: index)
        lines.bytes.append(#","delta":{"type":""#)
        lines.bytes.append(type)
        lines.bytes.append(#"",""#)
        lines.bytes.append(field)
        lines.bytes.append(#"":""#)
        lines.bytes.append(contentsOf: token.escaped)
        lines.bytes.append("\"}}\n\n")
        lines.end()
    }

    private func event(_ name: StaticString, _ lines: inout Lines, _ data: JSONValue) {
        lines.event(name, data)
    }

    private func stopReason(_ reason: String, called: Bool) -> String {
        if called { return "tool_use" }
        return switch reason {
        case "stop": "end_turn"
        case "length": "max_tokens"
        default: "stop_sequence"
        }
    }
}

extension Lines {
    /// A server-sent event with a name.
    mutating func event(_ name: StaticString, _ data: JSONValue) {
        bytes.append("event: ")
        bytes.append(name)
        bytes.append("\ndata: ")
        bytes.append(json: data)
        bytes.append("\n\n")
        end()
    }
}
