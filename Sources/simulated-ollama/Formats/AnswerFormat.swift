import EventLoop

/// Lines (NDJSON) or events (SSE) that are rendered and wait to be written; each becomes one HTTP chunk.
struct Lines {
    var bytes: [UInt8] = []
    private(set) var ends: [Int] = []

    /// What was appended since the last end is one line.
    mutating func end() { ends.append(bytes.count) }

    mutating func clear() {
        bytes.removeAll(keepingCapacity: true)
        ends.removeAll(keepingCapacity: true)
    }
}

/// What an answer took; durations in nanoseconds.
struct Metrics {
    var promptTokens = 0
    var tokens = 0
    var total: UInt64 = 1
    var load: UInt64 = 1
    var promptEvaluation: UInt64 = 1
    var evaluation: UInt64 = 1
}

/// A whole answer, for those who did not ask for a stream.
struct Answer {
    var thinking = ""
    var content = ""
    var calls: [ToolCall] = []
    var logprobs: [[UInt8]] = []
    /// Nil if the model fell silent without saying that it was done.
    var reason: String?
    var metrics = Metrics()
}

/// How answers are written on one endpoint. One object writes one answer.
@Loop
protocol AnswerFormat: AnyObject {
    /// Of a stream.
    var contentType: String { get }
    /// Of a whole answer.
    var wholeContentType: String { get }

    /// What a piece of the answer is in the stream: one line or more.
    func write(_ piece: Script.Piece, logprobs: [UInt8]?, to lines: inout Lines)
    /// The end of a stream.
    func end(_ reason: String, _ metrics: Metrics, to lines: inout Lines)
    /// What becomes of an error amid the stream.
    func breakOff(_ message: String, to lines: inout Lines)
    /// The answer in one body.
    func whole(_ answer: Answer) -> [UInt8]
}

extension ToolCall {
    /// As Ollama writes it, the arguments an object.
    func append(to bytes: inout [UInt8]) {
        bytes.append(#"{"id":"#)
        bytes.append(quoting: id)
        bytes.append(#","function":{"index":0,"name":"#)
        bytes.append(quoting: name)
        bytes.append(#","arguments":"#)
        bytes.append(json: .object(arguments))
        bytes.append("}}")
    }

    /// As OpenAI writes it, the arguments a string.
    func appendForOpenAI(to bytes: inout [UInt8]) {
        bytes.append(#"{"id":"#)
        bytes.append(quoting: id)
        bytes.append(#","index":0,"type":"function","function":{"name":"#)
        bytes.append(quoting: name)
        bytes.append(#","arguments":"#)
        bytes.append(quoting: argumentText)
        bytes.append("}}")
    }

    var argumentText: String { JSONValue.object(arguments).text }
}

extension [UInt8] {
    /// `[a,b]`
    mutating func append(list elements: [[UInt8]]) {
        append(UInt8(ascii: "["))
        for (index, element) in elements.enumerated() {
            if index > 0 { append(UInt8(ascii: ",")) }
            append(contentsOf: element)
        }
        append(UInt8(ascii: "]"))
    }
}
