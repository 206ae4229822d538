import TestSupport
import Testing

@testable import Gateway

@Suite struct TimestampTests {
    @Test(arguments: [
        (0, "1970-01-01T00:00:00"), (86_399, "1970-01-01T23:59:59"), (68_212_800 - 43_200, "1972-02-29T00:00:00"),
        (946_684_799, "1999-12-31T23:59:59"), (951_782_400, "2000-02-29T00:00:00"),
        (951_868_799, "2000-02-29T23:59:59"),
        (951_868_800, "2000-03-01T00:00:00"), (1_709_164_800, "2024-02-29T00:00:00"),
        (1_770_050_836, "2026-02-02T16:47:16"),
        (2_147_483_648, "2038-01-19T03:14:08"), (4_102_444_800, "2100-01-01T00:00:00"),
        (4_107_542_399, "2100-02-28T23:59:59"), (4_107_542_400, "2100-03-01T00:00:00"),
    ])
    func `a known second has its date`(seconds: Int64, text: String) {
        #expect(Timestamp.second(seconds) == text)
    }

    @Test func `fractions are padded, cut short and never rounded up`() {
        let now: Int64 = 1_770_050_836_414_524
        #expect(Timestamp.utc(now, fraction: .microseconds, zone: "+00:00") == "2026-02-02T16:47:16.414524+00:00")
        #expect(Timestamp.utc(now, fraction: .milliseconds, zone: "Z") == "2026-02-02T16:47:16.414Z")
        #expect(Timestamp.utc(7, fraction: .microseconds, zone: "") == "1970-01-01T00:00:00.000007")
        #expect(Timestamp.utc(7, fraction: .milliseconds, zone: "") == "1970-01-01T00:00:00.000")
        #expect(Timestamp.utc(999_999, fraction: .milliseconds, zone: "") == "1970-01-01T00:00:00.999")
    }

    @Test func `every day of 450 years is the day after the one before`() {
        var random = SeededGenerator(seed: 2000)
        var (year, month, day) = (1970, 1, 1)
        var days: Int64 = 0
        while year < 2420 {
            let (hour, minute, second) = (
                Int64.random(in: 0..<24, using: &random), Int64.random(in: 0..<60, using: &random),
                Int64.random(in: 0..<60, using: &random)
            )
            let expected =
                "\(pad(year, 4))-\(pad(month, 2))-\(pad(day, 2))T\(pad(hour, 2)):\(pad(minute, 2)):\(pad(second, 2))"
            let found = Timestamp.second(days * 86_400 + hour * 3600 + minute * 60 + second)
            guard found == expected else {
                Issue.record("day \(days) is \(expected), not \(found)")
                return
            }
            days += 1
            day += 1
            guard day > lengthOfMonth(month, year) else { continue }
            (month, day) = (month + 1, 1)
            if month > 12 { (year, month) = (year + 1, 1) }
        }
        #expect(days == 164_359)
    }

    private func lengthOfMonth(_ month: Int, _ year: Int) -> Int {
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        return [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
    }

    private func pad(_ number: some BinaryInteger, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
