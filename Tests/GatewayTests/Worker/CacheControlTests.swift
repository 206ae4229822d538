import HTTPCore
import Testing

@testable import Gateway

@Suite struct CacheControlTests {
    private func read(_ fields: (String, String)...) -> CacheControl { CacheControl(Headers(fields)) }

    @Test func `a header without it asks for nothing`() {
        #expect(read() == .none)
        #expect(read(("Accept", "no-cache")) == .none)
        for value in [
            "", ",", " , ,", "no-transform", "max-stale", "max-stale=5", "min-fresh=3", "no-cachex", "public",
        ] {
            #expect(read(("Cache-Control", value)) == .none, "\(value)")
        }
    }

    @Test func `directives are known in any case, with blanks around, in one field or in several`() {
        var all = CacheControl()
        all.noCache = true
        all.noStore = true
        all.onlyIfCached = true
        all.maxAge = 5
        #expect(read(("cache-control", " No-Cache ,NO-STORE,\tonly-if-cached\t, Max-Age=5")) == all)
        #expect(
            read(
                ("Cache-Control", "no-cache"), ("X", "y"), ("CACHE-CONTROL", "no-store, x=y, only-if-cached"),
                ("Cache-Control", "max-age=5")) == all)
    }

    @Test(arguments: [
        ("0", 0), ("1", 1), ("007", 7), ("86400", 86400), ("\"60\"", 60), ("", 0), ("-1", 0), ("+5", 0), ("5s", 0),
        ("1.5", 0), ("x", 0), ("\"\"", 0), (" 5", 0), ("٥", 0), ("9223372036854775807", .max),
        ("9223372036854775808", .max), ("99999999999999999999999", .max),
    ])
    func `an age is a number of seconds; what is none asks for the freshest`(text: String, seconds: Int) {
        #expect(read(("Cache-Control", "max-age=\(text)")).maxAge == seconds)
    }

    @Test func `Pragma counts where there is no Cache-Control`() {
        #expect(read(("Pragma", "no-cache")).noCache)
        #expect(read(("pragma", "x, No-Cache")).noCache)
        #expect(read(("Pragma", "x")) == .none)
        #expect(read(("Pragma", "no-cache"), ("Cache-Control", "max-age=5")).noCache == false)
    }
}
