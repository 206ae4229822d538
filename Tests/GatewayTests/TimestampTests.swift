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

    // MARK: Reading

    @Test(arguments: [
        ("1970-01-01T00:00:00Z", 0), ("1970-01-01T00:00:00.000001Z", 1), ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-02-02T16:47:16.414524Z", 1_770_050_836_414_524), ("2026-02-02T16:47:16Z", 1_770_050_836_000_000),
        ("2026-02-02T16:47:16.4Z", 1_770_050_836_400_000), ("2026-02-02T16:47:16.414524999Z", 1_770_050_836_414_524),
        ("2026-02-02T17:47:16+01:00", 1_770_050_836_000_000), ("2026-02-02T08:47:16.5-08:00", 1_770_050_836_500_000),
        ("2026-02-03T06:32:16+13:45", 1_770_050_836_000_000), ("2026-02-02T16:47:16-00:00", 1_770_050_836_000_000),
        ("2026-02-02t16:47:16z", 1_770_050_836_000_000), ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
        // Go's zero time, and what Ollama says of a model that stays loaded for good.
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000), ("2318-05-14T16:34:33.145224192Z", 10_993_336_473_145_224),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ])
    func `a point in time is read as RFC 3339 has it`(text: String, microseconds: Int64) {
        #expect(Timestamp.microseconds(of: text) == microseconds)
    }

    @Test(arguments: [
        "", "now", "0", "2026-02-02", "2026-02-02T16:47:16", "2026-02-02T16:47Z", "2026-02-02T16:47:16.5",
        "2026-02-02T16:47:16 Z", "2026-02-02T16:47:16Z ", " 2026-02-02T16:47:16Z", "2026-02-02T16:47:16ZZ",
        "2026-02-02T16:47:16+", "2026-02-02T16:47:16+01", "2026-02-02T16:47:16+0100", "2026-02-02T16:47:16+1:00",
        "2026-02-02T16:47:16+01:0", "2026-02-02T16:47:16+01:000", "2026-02-02T16:47:16*01:00",
        "2026-00-02T16:47:16Z", "2026-13-02T16:47:16Z", "2026-02-00T16:47:16Z", "2026-02-32T16:47:16Z",
        "2026-02-02T24:00:00Z", "2026-02-02T16:60:16Z", "2026-02-02T16:47:61Z", "-026-02-02T16:47:16Z",
        "+2026-02-02T16:47:16Z", "2026-2-02T16:47:16Z", "20260-02-02T16:47:16Z", "2026-02-02T16:47:1xZ",
        "2026-02-02T16:47:16,5Z", "\u{662}\u{660}26-02-02T16:47:16Z", "2026-02-02T16:47:16.-5Z",
    ])
    func `what is no point in time is not read`(text: String) {
        #expect(Timestamp.microseconds(of: text) == nil)
        #expect(Timestamp.microseconds(ofHTTPDate: text) == nil)
    }

    @Test(arguments: [
        "2026/02/02T16:47:16Z", "2026-02-02x16:47:16Z", "2026-02-02T16.47.16Z", "2026x02x02x16x47x16Z",
        "2026-02-02T16:47:16+01x00", "2026-02-02T16:47:16+25:00", "2026-02-02T16:47:16+01:60", "2026-02-02T16:47:16.Z",
        "2026-02-30T16:47:16Z", "2026-02-29T16:47:16Z", "2026-04-31T16:47:16Z", "1900-02-29T00:00:00Z",
    ])
    func `nor is what only looks like one`(text: String) {
        #expect(Timestamp.microseconds(of: text) == nil)
    }

    @Test func `what is written is read again, on every day of 3,000 years`() {
        var random = SeededGenerator(seed: 3339)
        for day in 0..<1_095_700 as Range<Int64> {
            let time = day * 86_400_000_000 + Int64.random(in: 0..<86_400_000_000, using: &random)
            // All of them would take a second.
            guard day % 11 == 0 || day % 365 < 2 else { continue }
            let text = Timestamp.utc(time, fraction: .microseconds, zone: "Z")
            guard Timestamp.microseconds(of: text) == time else {
                Issue.record("\(text) is read as \(String(describing: Timestamp.microseconds(of: text)))")
                return
            }
        }
    }

    @Test func `before 1970 every day is the day before the one after`() {
        var expected: Int64 = 0
        for year in stride(from: 1969, through: 1, by: -1) {
            for month in stride(from: 12, through: 1, by: -1) {
                for day in stride(from: lengthOfMonth(month, year), through: 1, by: -1) {
                    expected -= 86_400_000_000
                    guard day < 3 || day > 27 else { continue }
                    let text = "\(pad(year, 4))-\(pad(month, 2))-\(pad(day, 2))T00:00:00Z"
                    guard Timestamp.microseconds(of: text) == expected else {
                        Issue.record("\(text) is read as \(String(describing: Timestamp.microseconds(of: text)))")
                        return
                    }
                }
            }
        }
        #expect(expected == -62_135_596_800_000_000)
    }

    @Test(arguments: [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Mon, 02 Feb 2026 16:47:16 GMT", 1_770_050_836), ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
    ])
    func `a date in a header is read`(text: String, seconds: Int64) {
        #expect(Timestamp.microseconds(ofHTTPDate: text) == seconds * 1_000_000)
    }

    @Test func `every month has its name`() {
        let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        for (index, name) in names.enumerated() {
            let expected = Timestamp.microseconds(of: "2025-\(pad(index + 1, 2))-09T10:11:12Z")
            #expect(expected != nil)
            #expect(Timestamp.microseconds(ofHTTPDate: "Any, 09 \(name) 2025 10:11:12 GMT") == expected)
        }
    }

    @Test(arguments: [
        "", "GMT", "06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000", "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 06 November 1994 08:49:37 GMT", "Sun, 06 11 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, xx Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 199x 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT x", "Sun, 06 Nov 1994 8:49:037 GMT",
        "Sun, 06 Nov 1994 08:49:7Z GMT",
    ])
    func `what is no date of a header is not read`(text: String) {
        #expect(Timestamp.microseconds(ofHTTPDate: text) == nil)
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
