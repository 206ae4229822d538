import EventLoop
import Glibc

/// A point in time, UTC, as Go prints it in JSON.
struct Moment: Sendable, Comparable {
    /// Since 1970.
    var seconds: Int
    var nanoseconds = 0

    static func < (a: Moment, b: Moment) -> Bool { (a.seconds, a.nanoseconds) < (b.seconds, b.nanoseconds) }

    func advanced(byNanoseconds distance: UInt64) -> Moment {
        let sum = UInt64(nanoseconds) + distance % 1_000_000_000
        return Moment(
            seconds: seconds + Int(distance / 1_000_000_000) + Int(sum / 1_000_000_000),
            nanoseconds: Int(sum % 1_000_000_000))
    }

    /// RFC 3339 with as many digits of a second as it takes, the way Go's `time.Time` marshals:
    /// `2026-08-21T18:48:22.123456789Z`.
    var bytes: [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(30)
        let days = Int((Double(seconds) / 86_400).rounded(.down))
        let secondOfDay = seconds - days * 86_400
        let (year, month, day) = Moment.date(daysSince1970: days)
        text.append(decimal: year)
        for (separator, number) in [
            ("-", month), ("-", day), ("T", secondOfDay / 3600), (":", secondOfDay / 60 % 60), (":", secondOfDay % 60),
        ] {
            text.append(verbatim: separator)
            text.append(UInt8(0x30 + number / 10))
            text.append(UInt8(0x30 + number % 10))
        }
        if nanoseconds > 0 {
            text.append(".")
            let digits = String(1_000_000_000 + nanoseconds).utf8.dropFirst()
            text.append(contentsOf: digits.prefix(9 - digits.reversed().prefix { $0 == 0x30 }.count))
        }
        text.append("Z")
        return text
    }

    var text: String { String(decoding: bytes, as: UTF8.self) }

    /// The Gregorian date of a day, by counting from 1 March of year 0, when leap days come last.
    private static func date(daysSince1970 days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * marchMonth + 2) / 5 + 1)
    }
}

/// The time of day. Its text is made anew at most once a millisecond: every chunk carries one.
@Loop
final class WallClock {
    private var madeAt: UInt64 = 0
    private var stamp: [UInt8] = []

    var now: Moment {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Moment(seconds: time.tv_sec, nanoseconds: time.tv_nsec)
    }

    /// `now` as text, up to a millisecond old.
    var text: [UInt8] {
        let turn = Loop.events.now
        if turn &- madeAt >= 1_000_000 {
            madeAt = turn
            stamp = now.bytes
        }
        return stamp
    }
}
