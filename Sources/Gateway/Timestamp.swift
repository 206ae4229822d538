/// Points in time as text.
public enum Timestamp {
    public enum Fraction: Int, Sendable {
        case milliseconds = 3
        case microseconds = 6
    }

    /// `2026-02-02T16:47:16.414524` and what the zone is called, UTC. Source: ISO 8601.
    /// - Parameter microseconds: since 1970, not negative.
    public static func utc(_ microseconds: Int64, fraction: Fraction, zone: String) -> String {
        let (seconds, rest) = microseconds.quotientAndRemainder(dividingBy: 1_000_000)
        let part = fraction == .milliseconds ? rest / 1000 : rest
        return "\(second(seconds)).\(padded(part, fraction.rawValue))\(zone)"
    }

    /// `2026-02-02T16:47:16`
    public static func second(_ seconds: Int64) -> String {
        let (days, clock) = seconds.quotientAndRemainder(dividingBy: 86_400)
        let (year, month, day) = date(days)
        let time = [clock / 3600, clock / 60 % 60, clock % 60].map { padded($0, 2) }.joined(separator: ":")
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T\(time)"
    }

    /// The Gregorian date so many days after 1970-01-01, counting in eras of 400 years that begin in March.
    private static func date(_ days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let march = (5 * dayOfYear + 2) / 153
        let month = march < 10 ? march + 3 : march - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * march + 2) / 5 + 1)
    }

    /// Reads a point in time as RFC 3339 has it, such as `2024-06-04T14:38:31.83753-07:00`: microseconds since 1970;
    /// nil for anything else.
    static func microseconds(of text: String) -> Int64? {
        var rest = text.utf8[...]
        func number(_ digits: Int, _ bounds: ClosedRange<Int64>, before mark: Unicode.Scalar? = nil) -> Int64? {
            let part = rest.prefix(digits)
            guard part.count == digits, part.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            rest = rest.dropFirst(digits)
            if let mark {
                guard let byte = rest.popFirst(), byte == mark.value || byte == mark.value | 0x20 else { return nil }
            }
            let value = part.reduce(0) { $0 * 10 + Int64($1 - 0x30) }
            return bounds.contains(value) ? value : nil
        }
        guard let year = number(4, 1...9999, before: "-"), let month = number(2, 1...12, before: "-"),
            let day = number(2, 1...31, before: "T"), let hour = number(2, 0...23, before: ":"),
            let minute = number(2, 0...59, before: ":"), let second = number(2, 0...60),
            date(days(year, month, day)) == (year, month, day)
        else { return nil }
        var fraction: Int64 = 0
        if rest.first == UInt8(ascii: ".") {
            let digits = rest.dropFirst().prefix { (0x30...0x39).contains($0) }
            guard !digits.isEmpty else { return nil }
            rest = rest[digits.endIndex...]
            for digit in (Array(digits.prefix(6)) + [UInt8](repeating: 0x30, count: 6)).prefix(6) {
                fraction = fraction * 10 + Int64(digit - 0x30)
            }
        }
        var offset: Int64 = 0
        switch rest.popFirst() {
        case UInt8(ascii: "Z"), UInt8(ascii: "z"): break
        case let sign? where sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-"):
            guard let hours = number(2, 0...23, before: ":"), let minutes = number(2, 0...59) else { return nil }
            offset = (hours * 60 + minutes) * (sign == UInt8(ascii: "+") ? 60 : -60)
        default: return nil
        }
        guard rest.isEmpty else { return nil }
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset
        return seconds * 1_000_000 + fraction
    }

    /// Reads a point in time as HTTP has it, such as `Sun, 06 Nov 1994 08:49:37 GMT`; nil for anything else.
    /// Source: RFC 9110 section 5.6.7.
    static func microseconds(ofHTTPDate text: String) -> Int64? {
        let words = text.split(separator: " ")
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        guard words.count == 6, words[5] == "GMT", let month = months.firstIndex(of: String(words[2])),
            words[1].utf8.count == 2, words[3].utf8.count == 4, words[4].utf8.count == 8
        else { return nil }
        let number = month + 1
        return microseconds(of: "\(words[3])-\(padded(Int64(number), 2))-\(words[1])T\(words[4])Z")
    }

    /// Days from 1970-01-01 to a Gregorian date, as ``date(_:)`` counts them.
    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let marchYear = month <= 2 ? year - 1 : year
        let era = marchYear / 400
        let yearOfEra = marchYear - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func padded(_ number: Int64, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
