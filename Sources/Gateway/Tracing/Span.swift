/// Something that took its time and has ended: a request, or a call to a backend that was made for it.
///
/// What it is called and what is told of it stands in `Span+Makers.swift`; how it is written in ``OTLP``.
/// Source: https://opentelemetry.io/docs/specs/otel/trace/api/#span
struct Span: Sendable {
    /// By OTLP's numbers.
    enum Kind: Int, Sendable { case server = 2, client = 3 }

    enum Status: Sendable, Equatable {
        case unset
        /// With what was wrong, in a few words; they may be none.
        case error(String)
    }

    enum Value: Sendable, Equatable {
        case string(String)
        case int(Int)
        case double(Double)
        case bool(Bool)
    }

    struct Attribute: Sendable, Equatable {
        let key: Key
        let value: Value
    }

    let context: TraceContext
    /// The span that this one is a part of; nil for the first of a trace.
    let parent: UInt64?
    let kind: Kind
    var name: String
    /// Nanoseconds since 1970.
    let start: UInt64
    let end: UInt64
    var status = Status.unset
    private(set) var attributes: [Attribute] = []

    /// - Parameters:
    ///   - start: microseconds since 1970.
    ///   - duration: in microseconds.
    init(
        _ kind: Kind, _ name: String, _ context: TraceContext, parent: UInt64?, start: Int64, duration: Int64
    ) {
        (self.kind, self.name, self.context, self.parent) = (kind, name, context, parent)
        self.start = UInt64(max(0, start)) &* 1000
        end = self.start &+ UInt64(max(0, duration)) &* 1000
        attributes.reserveCapacity(18)
    }

    /// Bytes of a text in a span: a client can make a path or a model's name as long as it likes.
    static let textAtMost = 1024

    // What is not known is not told.

    mutating func tell(_ key: Key, _ text: String?) {
        if let text { attributes.append(Attribute(key: key, value: .string(Span.clipped(text)))) }
    }

    mutating func tell(_ key: Key, _ number: Int?) {
        if let number { attributes.append(Attribute(key: key, value: .int(number))) }
    }

    /// Told in seconds.
    mutating func tell(_ key: Key, microseconds: Int64?) {
        if let microseconds {
            attributes.append(Attribute(key: key, value: .double(Double(microseconds) / 1_000_000)))
        }
    }

    mutating func tell(_ key: Key, _ fact: Bool) { attributes.append(Attribute(key: key, value: .bool(fact))) }

    /// - Parameter kind: from a small set: something to count by.
    mutating func fail(_ kind: String, _ message: String?) {
        status = .error(Span.clipped(message ?? ""))
        tell(.errorType, kind)
    }

    static func clipped(_ text: String) -> String {
        guard text.utf8.count > textAtMost else { return text }
        var end = text.utf8.index(text.startIndex, offsetBy: textAtMost)
        // Not amid a character.
        while end.samePosition(in: text.unicodeScalars) == nil { end = text.utf8.index(before: end) }
        return String(text.unicodeScalars[..<end])
    }
}
