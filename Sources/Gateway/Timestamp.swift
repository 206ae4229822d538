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

    private static func padded(_ number: Int64, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
