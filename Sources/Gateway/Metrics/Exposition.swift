import HTTPCore

/// Writes what Prometheus reads: the text format 0.0.4, or OpenMetrics 1.0.
///
/// Values are whole numbers, or millionths (of a second, of a token per second), which are written without rounding.
///
/// Source: https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/
struct Exposition: ~Copyable {
    enum Format {
        case text, openMetrics

        /// What a client prefers; who does not say gets text. Source: RFC 9110 section 12.5.1.
        init(accept: String?) {
            var quality = (text: 0.0, openMetrics: 0.0)
            for range in (accept ?? "*/*").split(separator: ",") {
                let parts = range.split(separator: ";").map { $0.filter { $0 != " " && $0 != "\t" }.lowercased() }
                let q = parts.lazy.compactMap { $0.hasPrefix("q=") ? Double($0.dropFirst(2)) : nil }.first ?? 1
                switch parts.first {
                case "application/openmetrics-text": quality.openMetrics = max(quality.openMetrics, q)
                case "text/plain", "text/*", "*/*": quality.text = max(quality.text, q)
                default: break
                }
            }
            self = quality.openMetrics > 0 && quality.openMetrics >= quality.text ? .openMetrics : .text
        }

        var contentType: String {
            switch self {
            case .text: "text/plain; version=0.0.4; charset=utf-8"
            case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }

    enum Kind: String { case counter, gauge, histogram }

    private let format: Format
    private var out = ByteBuffer()
    /// Of the family under way, as its samples have it.
    private var name = ""

    init(_ format: Format, reserving bytes: Int = 0) {
        self.format = format
        out.reserve(bytes)
    }

    /// Begins a family; its samples follow.
    /// - Parameter name: without the `_total` of a counter.
    mutating func family(_ name: String, _ kind: Kind, _ help: String) {
        self.name = kind == .counter ? name + "_total" : name
        let title = format == .text ? self.name : name
        out.append("# HELP \(title) \(help)\n# TYPE \(title) \(kind.rawValue)\n")
    }

    /// A family of one sample without labels.
    mutating func family(_ name: String, _ kind: Kind, _ help: String, _ value: Int) {
        family(name, kind, help)
        sample("", value)
    }

    /// - Parameters:
    ///   - labels: as ``label(_:_:)`` writes them, separated by commas; "" for none.
    ///   - more: another label.
    mutating func sample(_ labels: String, _ more: String, _ value: Int) {
        begin("", labels, more)
        out.append(decimal: value)
        out.append(byte: 0x0a)
    }

    mutating func sample(_ labels: String, _ value: Int) { sample(labels, "", value) }

    /// One sample for each of other labels, all with the same value.
    mutating func samples(_ labels: String, with others: some Sequence<String>, _ value: Int) {
        var prefix = "\(name){\(labels),"
        let end = "} \(value)\n"
        prefix.withUTF8 { prefix in
            for other in others {
                out.append(UnsafeRawBufferPointer(prefix))
                out.append(other)
                out.append(end)
            }
        }
    }

    mutating func sample(_ labels: String, millionths value: Int) {
        begin("", labels)
        out.append(millionths: value)
        out.append(byte: 0x0a)
    }

    mutating func sample(_ labels: String, _ histogram: borrowing Histogram) {
        var prefix = "\(name)_bucket{\(labels)\(labels.isEmpty ? "" : ",")"
        var total = 0
        prefix.withUTF8 { prefix in
            for place in histogram.counts.indices {
                total += histogram.counts[place]
                out.append(UnsafeRawBufferPointer(prefix))
                histogram.scale.labels[place].withUnsafeBytes { out.append($0) }
                out.append(decimal: total)
                out.append(byte: 0x0a)
            }
        }
        begin("_sum", labels)
        out.append(millionths: histogram.sum)
        out.append(byte: 0x0a)
        begin("_count", labels)
        out.append(decimal: total)
        out.append(byte: 0x0a)
    }

    private mutating func begin(_ suffix: String, _ labels: String, _ more: String = "") {
        out.append(name)
        out.append(suffix)
        if !labels.isEmpty {
            out.append(byte: UInt8(ascii: "{"))
            out.append(labels)
            if !more.isEmpty {
                out.append(byte: UInt8(ascii: ","))
                out.append(more)
            }
            out.append(byte: UInt8(ascii: "}"))
        }
        out.append(byte: UInt8(ascii: " "))
    }

    consuming func finish() -> Bytes {
        if format == .openMetrics { out.append("# EOF\n") }
        return out.finish()
    }

    /// `name="value"`, with what the formats want escaped.
    static func label(_ name: String, _ value: String) -> String {
        var text = "\(name)=\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\\": text += "\\\\"
            case "\"": text += "\\\""
            case "\n": text += "\\n"
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text + "\""
    }
}

extension ByteBuffer {
    /// Appends a number in decimal.
    mutating func append(decimal value: Int) {
        if value < 0 { append(byte: UInt8(ascii: "-")) }
        append(digits: value.magnitude, atLeast: 1)
    }

    /// Appends millionths as a number with what it takes behind the point.
    mutating func append(millionths value: Int) {
        if value < 0 { append(byte: UInt8(ascii: "-")) }
        let (whole, rest) = value.magnitude.quotientAndRemainder(dividingBy: 1_000_000)
        append(digits: whole, atLeast: 1)
        guard rest > 0 else { return }
        append(byte: UInt8(ascii: "."))
        append(digits: rest, atLeast: 6)
    }

    private mutating func append(digits value: UInt, atLeast least: Int) {
        withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { digits in
            var (rest, place) = (value, 20)
            repeat {
                place -= 1
                digits[place] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0 || 20 - place < least
            append(UnsafeRawBufferPointer(rebasing: digits[place...]))
        }
    }
}
