import EventLoop

/// `/v1/responses`: OpenAI's events, as Ollama speaks them. Go builds them from maps, so that within an event names
/// come in alphabetical order.
@Loop
final class ResponsesFormat: AnswerFormat {
    private let request: JSONObject
    private let model: String
    private let id: String
    private let itemID: String
    private let reasoningID: String
    private let clock: WallClock

    private var sequence = 0
    private var outputIndex = 0
    private var hasBegun = false
    /// All of it, since the last events repeat the whole.
    private var thinking = ""
    private var text = ""
    private var isReasoning = false
    private var isTelling = false
    private var calls: [JSONValue] = []

    init(model: String, request: JSONObject, seed: Seed, clock: WallClock) {
        self.model = model
        self.request = request
        self.clock = clock
        id = "resp_\(seed.number(60) % 999_999)"
        itemID = "msg_\(seed.number(61) % 999_999)"
        reasoningID = "rs_\(seed.number(62) % 999_999)"
    }

    let contentType = "text/event-stream"
    let wholeContentType = "application/json"

    // MARK: Streams

    func write(_ piece: Script.Piece, logprobs: [UInt8]?, to lines: inout Lines) {
        begin(&lines)
        switch piece {
        case .thinking(let token):
            openReasoning(&lines)
            thinking += token.text
            event(
                "response.reasoning_summary_text.delta", &lines,
                [
                    "delta": .string(token.text), "item_id": .string(reasoningID),
                    "output_index": .integer(outputIndex), "summary_index": 0,
                ])
        case .text(let token):
            closeReasoning(&lines)
            openText(&lines)
            text += token.text
            event(
                "response.output_text.delta", &lines,
                [
                    "content_index": 0, "delta": .string(token.text), "item_id": .string(itemID), "logprobs": [],
                    "output_index": .integer(outputIndex),
                ])
        case .call(let call):
            closeReasoning(&lines)
            write(call, &lines)
        }
    }

    func end(_ reason: String, _ metrics: Metrics, to lines: inout Lines) {
        begin(&lines)
        closeReasoning(&lines)
        closeText(&lines)
        var output: [JSONValue] = thinking.isEmpty ? [] : [reasoningItem]
        output += calls
        if calls.isEmpty && isTelling { output.append(messageItem(status: "completed", content: [textPart])) }
        event(
            "response.completed", &lines,
            ["response": .object(response(status: "completed", output: output, metrics: metrics).sorted)])
    }

    /// The error is lost: the stream just ends.
    func breakOff(_ message: String, to lines: inout Lines) {}

    private func begin(_ lines: inout Lines) {
        guard !hasBegun else { return }
        hasBegun = true
        let response = JSONValue.object(response(status: "in_progress", output: [], metrics: nil).sorted)
        event("response.created", &lines, ["response": response])
        event("response.in_progress", &lines, ["response": response])
    }

    private func openReasoning(_ lines: inout Lines) {
        guard !isReasoning else { return }
        isReasoning = true
        event(
            "response.output_item.added", &lines,
            [
                "item": ["id": .string(reasoningID), "summary": [], "type": "reasoning"],
                "output_index": .integer(outputIndex),
            ])
    }

    private func closeReasoning(_ lines: inout Lines) {
        guard isReasoning else { return }
        isReasoning = false
        event(
            "response.reasoning_summary_text.done", &lines,
            [
                "item_id": .string(reasoningID), "output_index": .integer(outputIndex), "summary_index": 0,
                "text": .string(thinking),
            ])
        event(
            "response.output_item.done", &lines, ["item": reasoningItem, "output_index": .integer(outputIndex)])
        outputIndex += 1
    }

    private func openText(_ lines: inout Lines) {
        guard !isTelling else { return }
        isTelling = true
        event(
            "response.output_item.added", &lines,
            ["item": messageItem(status: "in_progress", content: []), "output_index": .integer(outputIndex)])
        event(
            "response.content_part.added", &lines,
            [
                "content_index": 0, "item_id": .string(itemID), "output_index": .integer(outputIndex),
                "part": ["annotations": [], "logprobs": [], "text": "", "type": "output_text"],
            ])
    }

    private func closeText(_ lines: inout Lines) {
        guard isTelling else { return }
        event(
            "response.output_text.done", &lines,
            [
                "content_index": 0, "item_id": .string(itemID), "logprobs": [], "output_index": .integer(outputIndex),
                "text": .string(text),
            ])
        event(
            "response.content_part.done", &lines,
            [
                "content_index": 0, "item_id": .string(itemID), "output_index": .integer(outputIndex), "part": textPart,
            ])
        event(
            "response.output_item.done", &lines,
            ["item": messageItem(status: "completed", content: [textPart]), "output_index": .integer(outputIndex)])
    }

    private func write(_ call: ToolCall, _ lines: inout Lines) {
        let item = "fc_\(call.id.dropFirst(5))_0"
        func functionCall(_ status: JSONValue, _ arguments: String) -> JSONValue {
            [
                "arguments": .string(arguments), "call_id": .string(call.id), "id": .string(item),
                "name": .string(call.name), "status": status, "type": "function_call",
            ]
        }
        let position = JSONValue.integer(outputIndex)
        let arguments = call.argumentText
        event(
            "response.output_item.added", &lines,
            ["item": functionCall("in_progress", ""), "output_index": position])
        event(
            "response.function_call_arguments.delta", &lines,
            ["delta": .string(arguments), "item_id": .string(item), "output_index": position])
        event(
            "response.function_call_arguments.done", &lines,
            ["arguments": .string(arguments), "item_id": .string(item), "output_index": position])
        event(
            "response.output_item.done", &lines,
            ["item": functionCall("completed", arguments), "output_index": position])
        calls.append(functionCall("completed", arguments))
    }

    private func event(_ name: StaticString, _ lines: inout Lines, _ data: JSONValue) {
        var object = data.object ?? JSONObject()
        object.append("sequence_number", .integer(sequence))
        object.append("type", .string(name.description))
        sequence += 1
        lines.event(name, .object(object.sorted))
    }

    private var reasoningItem: JSONValue {
        [
            "encrypted_content": .string(thinking), "id": .string(reasoningID),
            "summary": [["text": .string(thinking), "type": "summary_text"]], "type": "reasoning",
        ]
    }

    private var textPart: JSONValue {
        ["annotations": [], "logprobs": [], "text": .string(text), "type": "output_text"]
    }

    private func messageItem(status: JSONValue, content: [JSONValue]) -> JSONValue {
        ["content": .array(content), "id": .string(itemID), "role": "assistant", "status": status, "type": "message"]
    }

    // MARK: Whole answers

    func whole(_ answer: Answer) -> [UInt8] {
        var output: [JSONValue] = []
        if !answer.thinking.isEmpty {
            output.append([
                "id": .string("rs_" + id), "type": "reasoning",
                "summary": [["type": "summary_text", "text": .string(answer.thinking)]],
                "encrypted_content": .string(answer.thinking),
            ])
        }
        for (index, call) in answer.calls.enumerated() {
            output.append([
                "id": .string("fc_\(id)_\(index)"), "type": "function_call", "status": "completed",
                "call_id": .string(call.id), "name": .string(call.name), "arguments": .string(call.argumentText),
            ])
        }
        if answer.calls.isEmpty {
            output.append([
                "id": .string(itemID), "type": "message", "status": "completed", "role": "assistant",
                "content": [
                    ["type": "output_text", "text": .string(answer.content), "annotations": [], "logprobs": []]
                ],
            ])
        }
        let response = response(status: "completed", output: output, metrics: answer.metrics)
        return JSONValue.object(response).bytes + [UInt8(ascii: "\n")]
    }

    /// The object `response`, in the order of Ollama's struct.
    private func response(status: JSONValue, output: [JSONValue], metrics: Metrics?) -> JSONObject {
        let now = JSONValue.integer(clock.now.seconds)
        let reasoning = request["reasoning"]?.object
        let members: [JSONObject.Member] = [
            ("id", .string(id)), ("object", "response"), ("created_at", now),
            ("completed_at", metrics == nil ? nil : now), ("status", status), ("incomplete_details", nil),
            ("model", .string(model)), ("previous_response_id", nil),
            ("instructions", request["instructions"] ?? nil), ("output", .array(output)), ("error", nil),
            ("tools", request["tools"] ?? []), ("tool_choice", "auto"),
            ("truncation", request["truncation"] ?? "disabled"), ("parallel_tool_calls", true),
            ("text", ["format": request["text"]?.object?["format"] ?? ["type": "text"]]),
            ("top_p", request["top_p"] ?? 1), ("presence_penalty", 0), ("frequency_penalty", 0), ("top_logprobs", 0),
            ("temperature", request["temperature"] ?? 1),
            ("reasoning", reasoning.map { ["effort": $0["effort"] ?? nil, "summary": $0["summary"] ?? nil] } ?? nil),
            ("usage", metrics.map(usage) ?? nil), ("max_output_tokens", request["max_output_tokens"] ?? nil),
            ("max_tool_calls", nil), ("store", false), ("background", request["background"] ?? false),
            ("service_tier", "default"), ("metadata", [:]), ("safety_identifier", nil), ("prompt_cache_key", nil),
        ]
        return JSONObject(members: members)
    }

    private func usage(_ metrics: Metrics) -> JSONValue {
        [
            "input_tokens": .integer(metrics.promptTokens), "output_tokens": .integer(metrics.tokens),
            "total_tokens": .integer(metrics.promptTokens + metrics.tokens),
            "input_tokens_details": ["cached_tokens": 0], "output_tokens_details": ["reasoning_tokens": 0],
        ]
    }
}

extension JSONObject {
    /// Names in alphabetical order, in here and below, as Go writes a map.
    var sorted: JSONObject {
        JSONObject(
            members: members.sorted { $0.name < $1.name }.map { member in
                guard case .object(let object) = member.value else { return member }
                return (member.name, .object(object.sorted))
            })
    }
}
