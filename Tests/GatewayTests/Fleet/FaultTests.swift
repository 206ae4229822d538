import HTTPCore
import Testing

@testable import Gateway

/// What a failed request says of the box.
@Suite struct FaultTests {
    /// 2026-02-02T16:47:16Z in microseconds since 1970.
    private static let now: Int64 = 1_770_050_836_000_000

    private func fault(_ status: Int, retryAfter: String? = nil) -> Fault? {
        var headers: Headers = ["Server": "nginx"]
        if let retryAfter { headers.append("retry-AFTER", retryAfter) }
        return Fault(status: status, headers: headers, at: Self.now)
    }

    // MARK: Answers

    @Test func `answers, and errors of the request or the model, are no fault of the box`() {
        for status in Array(100..<429) + Array(430...501) + [600, 999] {
            #expect(fault(status, retryAfter: "9") == nil, "\(status)")
        }
    }

    @Test(arguments: [502, 503, 504, 507, 520, 599])
    func `a box that answers so is not well`(status: Int) throws {
        let fault = try #require(self.fault(status))
        #expect(fault.reason == "it answers \(status)")
        #expect(fault.mayBeTried && fault.rest == .zero)
    }

    @Test func `a box that has too much to do is well, and is left alone for a second`() throws {
        let fault = try #require(self.fault(429))
        #expect(fault.reason == nil && fault.rest == .seconds(1))
    }

    @Test(arguments: [429, 503])
    func `a box is left alone for as long as it says, up to five minutes`(status: Int) throws {
        let rests = [
            ("0", 0), ("1", 1), ("007", 7), ("299", 299), ("300", 300), ("301", 300), ("86400", 300),
            ("99999999999999999999", 300),
            ("Mon, 02 Feb 2026 16:47:26 GMT", 10), ("Mon, 02 Feb 2026 16:47:16 GMT", 0),
            ("Mon, 02 Feb 2026 16:47:15 GMT", 0), ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
            ("Tue, 03 Feb 2026 00:00:00 GMT", 300), ("Fri, 31 Dec 9999 23:59:59 GMT", 300),
        ]
        for (text, seconds) in rests {
            #expect(try #require(fault(status, retryAfter: text)).rest == .seconds(seconds), "\(text)")
        }
    }

    @Test(arguments: ["", "-1", "1.5", "soon", "1 s", "0x10", "Mon, 02 Feb 2026", "2026-02-02T16:47:26Z"])
    func `what is no time is as if it were not there`(text: String) {
        #expect(fault(429, retryAfter: text)?.rest == .seconds(1))
        #expect(fault(503, retryAfter: text)?.rest == .zero)
    }

    @Test func `what another box may do better is asked of another, and is a fault`() {
        for status in Fault.passedOver { #expect(fault(status) != nil) }
        #expect(Fault.passedOver == [429, 502, 503, 504])
    }

    // MARK: No answer

    private func fault(_ kind: TransportError.Kind, answerBegan: Bool = false) -> Fault? {
        Fault(TransportError(kind: kind, answerBegan: answerBegan, isRetrySafe: false, message: "curl says so"))
    }

    @Test func `no answer is a fault of the box, and what we did wrong is none`() {
        for kind in TransportError.Kind.allCases {
            #expect((fault(kind) == nil) == (kind == .local), "\(kind)")
            #expect(fault(kind, answerBegan: true) == nil, "once the answer has begun it is as good as answered")
        }
    }

    @Test func `the reason says what failed, and no box has to rest for it`() throws {
        let fault = try #require(self.fault(.connect))
        #expect(fault.reason == "cannot connect (curl says so)" && fault.rest == .zero)
    }

    @Test func `nobody is sent to wait for what took long before`() {
        let slow = TransportError.Kind.allCases.filter { fault($0)?.mayBeTried == false }
        #expect(slow == [.connectTimeout, .firstByteTimeout, .idleTimeout])
    }
}
