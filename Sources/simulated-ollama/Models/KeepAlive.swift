/// How long a model stays loaded after its last request: `keep_alive` of a request.
enum KeepAlive: Equatable, Sendable {
    case nanoseconds(UInt64)
    case forever

    /// A number is seconds, a string a Go duration (`5m`, `1h30m`); below zero is for ever.
    /// Throws in Go's words.
    init(_ value: JSONValue) throws(JSONProblem) {
        switch value {
        case .number(let digits):
            let seconds = Double(digits) ?? 0
            self = seconds < 0 ? .forever : .nanoseconds(UInt64(min(seconds, 9e9) * 1e9))
        case .string(let text):
            let nanoseconds = try KeepAlive.parse(text)
            self = nanoseconds < 0 ? .forever : .nanoseconds(UInt64(min(nanoseconds, 9e18)))
        default:
            throw JSONProblem("Unsupported type: '\(value.kind)'")
        }
    }

    /// A Go duration in nanoseconds. Source: time.ParseDuration.
    private static func parse(_ text: String) throws(JSONProblem) -> Double {
        var rest = Substring(text)
        let isNegative = rest.hasPrefix("-")
        if isNegative || rest.hasPrefix("+") { rest = rest.dropFirst() }
        if rest == "0" { return 0 }
        guard !rest.isEmpty else { throw JSONProblem("time: invalid duration \"\(text)\"") }
        var sum = 0.0
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
            guard let number = Double(digits.hasPrefix(".") ? "0" + digits : String(digits)) else {
                throw JSONProblem("time: invalid duration \"\(text)\"")
            }
            rest = rest.dropFirst(digits.count)
            let unit = rest.prefix { !($0.isASCII && ($0.isNumber || $0 == ".")) }
            guard !unit.isEmpty else { throw JSONProblem("time: missing unit in duration \"\(text)\"") }
            guard let scale = units[String(unit)] else {
                throw JSONProblem("time: unknown unit \"\(unit)\" in duration \"\(text)\"")
            }
            rest = rest.dropFirst(unit.count)
            sum += number * scale
        }
        return isNegative ? -sum : sum
    }

    private static let units: [String: Double] = [
        "ns": 1, "us": 1e3, "µs": 1e3, "μs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9,
    ]
}
