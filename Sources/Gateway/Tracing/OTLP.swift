import HTTPCore

/// Spans on their way to a collector: what is sent, and what its answers mean.
///
/// Source: https://opentelemetry.io/docs/specs/otlp/ (OTLP/HTTP with JSON) and opentelemetry-proto's
/// `ExportTraceServiceRequest`: ids in hexadecimal, enumerations as numbers, numbers of 64 bits as strings.
enum OTLP {
    /// Behind the collector's address.
    static let path = "/v1/traces"

    /// Who tells all this.
    struct Service: Sendable {
        static let name = "ollama-gateway"

        let version: String
        /// Another one after each start.
        let instance = Service.randomUUID()

        /// Version 4. Source: RFC 9562 section 5.4.
        private static func randomUUID() -> String {
            let digits = Array(
                TraceContext.hex(.random(in: .min ... .max) & ~0xf000 | 0x4000)
                    + TraceContext.hex(.random(in: .min ... .max) & ~(3 << 62) | 1 << 63))
            return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
        }
    }

    /// The body of a request. Takes about 2 µs a span.
    static func body(_ spans: some Collection<Span>, of service: Service) -> Bytes {
        var json = ByteBuffer()
        json.reserve(1024 * (spans.count + 1))
        json.append(#"{"resourceSpans":[{"resource":{"attributes":["#)
        append("service.name", .string(Service.name), to: &json)
        json.append(",")
        append("service.version", .string(service.version), to: &json)
        json.append(",")
        append("service.instance.id", .string(service.instance), to: &json)
        json.append(#"]},"scopeSpans":[{"scope":{"name":"#)
        append(Service.name, to: &json)
        json.append(#","version":"#)
        append(service.version, to: &json)
        json.append(#"},"spans":["#)
        for (number, span) in spans.enumerated() {
            if number > 0 { json.append(",") }
            append(span, to: &json)
        }
        json.append("]}]}]}")
        return json.finish()
    }

    private static func append(_ span: Span, to json: inout ByteBuffer) {
        json.append(#"{"traceId":""#)
        json.append(TraceContext.hex(span.context.traceID.high))
        json.append(TraceContext.hex(span.context.traceID.low))
        json.append(#"","spanId":""#)
        json.append(TraceContext.hex(span.context.spanID))
        if let parent = span.parent {
            json.append(#"","parentSpanId":""#)
            json.append(TraceContext.hex(parent))
        }
        json.append(#"","name":"#)
        append(span.name, to: &json)
        json.append(#","kind":"#)
        json.append(String(span.kind.rawValue))
        json.append(#","startTimeUnixNano":""#)
        json.append(String(span.start))
        json.append(#"","endTimeUnixNano":""#)
        json.append(String(span.end))
        json.append(#"","attributes":["#)
        for (number, attribute) in span.attributes.enumerated() {
            if number > 0 { json.append(",") }
            append(attribute.key.rawValue, attribute.value, to: &json)
        }
        json.append("]")
        if case .error(let message) = span.status {
            json.append(#","status":{"code":2"#)
            if !message.isEmpty {
                json.append(#","message":"#)
                append(message, to: &json)
            }
            json.append("}")
        }
        json.append("}")
    }

    private static func append(_ key: String, _ value: Span.Value, to json: inout ByteBuffer) {
        json.append(#"{"key":""#)
        json.append(key)
        switch value {
        case .string(let text):
            json.append(#"","value":{"stringValue":"#)
            append(text, to: &json)
        case .int(let number):
            json.append(#"","value":{"intValue":""#)
            json.append(String(number))
            json.append("\"")
        case .double(let number):
            json.append(#"","value":{"doubleValue":"#)
            json.append(number.isFinite ? "\(number)" : "0")
        case .bool(let fact):
            json.append(fact ? #"","value":{"boolValue":true"# : #"","value":{"boolValue":false"#)
        }
        json.append("}}")
    }

    /// Quoted.
    private static func append(_ text: String, to json: inout ByteBuffer) {
        // Nearly every text means itself.
        let isPlain = text.utf8.allSatisfy { (0x20..<0x7f).contains($0) && $0 != 0x22 && $0 != 0x5c }
        guard isPlain else { return json.append(JSONText.quoted(text)) }
        json.append(byte: 0x22)
        json.append(text)
        json.append(byte: 0x22)
    }

    // MARK: Answers

    /// What has become of a batch.
    enum Outcome: Sendable, Equatable {
        /// The collector has it, but for some spans; it may say why, or something else.
        case taken(rejected: Int, message: String?)
        /// It is worth another try, not before so long.
        case again(why: String, after: Duration?)
        /// It would be refused again.
        case refused(why: String)
    }

    /// - Parameters:
    ///   - body: nil if it did not come whole, or was too large.
    ///   - now: microseconds since 1970.
    static func outcome(status: Int, headers: Headers, body: Bytes?, at now: Int64) -> Outcome {
        if (200..<300).contains(status) {
            let (rejected, message) = body.map(partialSuccess) ?? (0, nil)
            return .taken(rejected: rejected, message: message)
        }
        let why = "it answers \(status)" + (body.flatMap(message).map { " (\($0))" } ?? "")
        switch status {
        case 429, 502, 503, 504: return .again(why: why, after: pause(headers["retry-after"], at: now))
        default: return .refused(why: why)
        }
    }

    /// Seconds, or a date. Source: RFC 9110 section 10.2.3.
    private static func pause(_ retryAfter: String?, at now: Int64) -> Duration? {
        guard let retryAfter else { return nil }
        if let seconds = Headers.length(retryAfter) { return .seconds(min(seconds, 1 << 30)) }
        return Timestamp.microseconds(ofHTTPDate: retryAfter).map { .microseconds(max(0, $0 - now)) }
    }

    /// `{"partialSuccess":{"rejectedSpans":"3","errorMessage":"…"}}`; nothing in it where all is well.
    private static func partialSuccess(_ body: Bytes) -> (rejected: Int, message: String?) {
        let found = try? JSONDocument.read(body.buffer) { root -> (rejected: Int, message: String?) in
            let partial = root["partialSuccess"]
            let count = partial?["rejectedSpans"]
            let rejected = count?.string.flatMap { Int($0) } ?? count?.double.flatMap { Int(exactly: $0) } ?? 0
            return (max(0, rejected), partial?["errorMessage"].flatMap(words))
        }
        return found ?? (0, nil)
    }

    /// `google.rpc.Status`, which errors come with.
    private static func message(_ body: Bytes) -> String? {
        try? JSONDocument.read(body.buffer) { root in root["message"].flatMap(words) }
    }

    /// A line of what a stranger says.
    private static func words(_ node: JSONNode) -> String? {
        guard let text = node.string, !text.isEmpty else { return nil }
        return String(
            text.unicodeScalars.prefix(200).map { $0.properties.generalCategory == .control ? " " : Character($0) })
    }
}
