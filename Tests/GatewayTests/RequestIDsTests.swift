import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

@Suite struct RequestIDsTests {
    init() { LoopThread.start() }

    @Test(arguments: [
        "a", "0", "6f1d2c3b-0000-4000-8000-1a2b3c4d5e6f", "req_1:2/3+4=5@x.y-Z", String(repeating: "x", count: 128),
    ])
    @Loop func `a sane id of the client's is kept`(id: String) {
        var ids = RequestIDs()
        #expect(ids.id(for: request(headers: ["X-REQUEST-ID": id])) == id)
    }

    @Test(arguments: [
        "", " ", String(repeating: "x", count: 129), "a b", " a", "a\t", "a\nb", "a\r\nX: y", "a\u{0}", "a\u{7f}",
        "a\"b",
        "a'b", "a`b", "a,b", "a;b", "a\\b", "<a>", "{a}", "a%20", "é", "🦙",
    ])
    @Loop func `an insane id is replaced`(id: String) {
        var ids = RequestIDs()
        let given = ids.id(for: request(headers: ["X-Request-Id": id]))
        #expect(given != id)
        #expect(RequestIDs.isSane(given))
    }

    @Test @Loop func `a request without an id gets one`() {
        var ids = RequestIDs()
        #expect(RequestIDs.isSane(ids.id(for: request())))
    }

    @Test @Loop func `no id is given twice, by one gateway or by two`() {
        var seen: Set<String> = []
        for _ in 0..<10 {
            var ids = RequestIDs()
            for _ in 0..<500 { seen.insert(ids.next()) }
        }
        #expect(seen.count == 5000)
        #expect(seen.allSatisfy { RequestIDs.isSane($0) })
    }
}
