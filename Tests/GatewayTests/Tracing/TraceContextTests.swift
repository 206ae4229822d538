import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// `traceparent` and `tracestate`, by W3C Trace Context.
@Suite struct TraceContextTests {
    static let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    static let span = "00f067aa0ba902b7"

    @Test func `a valid traceparent is read`() throws {
        let context = try #require(TraceContext(traceparent: "00-\(Self.trace)-\(Self.span)-01"))
        #expect(context.traceID == .init(high: 0x4bf9_2f35_77b3_4da6, low: 0xa3ce_929d_0e0e_4736))
        #expect(context.traceID.description == Self.trace)
        #expect(context.spanID == 0x00f0_67aa_0ba9_02b7)
        #expect(context.flags == 1)
        #expect(context.isSampled)
        #expect(context.traceparent == "00-\(Self.trace)-\(Self.span)-01")
    }

    @Test(
        arguments: [
            ("00", 0), ("01", 1), ("02", 2), ("03", 3), ("ff", 3), ("fc", 0), ("a1", 1),
        ] as [(String, UInt8)])
    func `of the flags those are kept that mean something`(written: String, kept: UInt8) {
        let context = TraceContext(traceparent: "00-\(Self.trace)-\(Self.span)-\(written)")
        #expect(context?.flags == kept)
        #expect(context?.isSampled == (kept & 1 == 1))
    }

    @Test(arguments: [
        "01-\(trace)-\(span)-01", "fe-\(trace)-\(span)-03", "cc-\(trace)-\(span)-01-",
        "cc-\(trace)-\(span)-09-what-ever",
        "01-\(trace)-\(span)-01-\u{e9}",
    ])
    func `a version to come is read as far as it is known, and answered with version 00`(text: String) {
        #expect(TraceContext(traceparent: text)?.traceparent == "00-\(Self.trace)-\(Self.span)-01")
    }

    @Test(arguments: [
        "", "-", "00", "00-", "00-\(trace)", "00-\(trace)-\(span)", "00-\(trace)-\(span)-", "00-\(trace)-\(span)-1",
        "00-\(trace)-\(span)-01-", "00-\(trace)-\(span)-01-extra", "00-\(trace)-\(span)-011", "00-\(trace)-\(span)-01 ",
        " 00-\(trace)-\(span)-01", "0-\(trace)-\(span)-01", "000-\(trace)-\(span)-01", "ff-\(trace)-\(span)-01",
        "ff-\(trace)-\(span)-01-x", "FE-\(trace)-\(span)-01", "0g-\(trace)-\(span)-01", "-1-\(trace)-\(span)-01",
        "01-\(trace)-\(span)-01x", "01-\(trace)-\(span)-01.x", "01-\(trace)-\(span)-0",
        "00-00000000000000000000000000000000-\(span)-01", "00-\(trace)-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-\(span)-01", "00-\(trace)-00F067AA0BA902B7-01",
        "00-\(trace)-\(span)-0A", "00-\(trace)-\(span)-0x", "00-\(trace)-\(span)-+1", "00_\(trace)_\(span)_01",
        "00-\(trace.dropLast())-\(span)-01", "00-\(trace)0-\(span)-01", "00-\(trace)-\(span)0-01",
        "00-\(trace.dropLast())g-\(span)-01", "00-\(trace)-\(span.dropLast())\u{e9}-01",
        "00-\(trace)-\(span)-01,00-\(trace)-\(span)-01", "01-\(trace.dropLast())-\(span)0-01",
    ])
    func `what is not valid is not read`(text: String) {
        #expect(TraceContext(traceparent: text) == nil)
    }

    @Test func `what is made or read comes back as it was`() {
        var random = SeededGenerator(seed: 17)
        for _ in 0..<2000 {
            let context = TraceContext.make(sampled: random.next() & 1 == 0, using: &random)
            #expect(TraceContext(traceparent: context.traceparent) == context)
        }
    }

    @Test func `a byte that is changed makes it invalid or another, never one that is written otherwise`() {
        var random = SeededGenerator(seed: 4)
        let valid = Array("00-\(Self.trace)-\(Self.span)-01".utf8)
        for place in valid.indices {
            for byte in UInt8(0x20)..<0x7f where byte != valid[place] {
                var bytes = valid
                bytes[place] = byte
                let text = String(decoding: bytes, as: UTF8.self)
                guard let context = TraceContext(traceparent: text) else { continue }
                #expect(context.traceparent.dropFirst(2).dropLast(2) == text.dropFirst(2).dropLast(2))
                #expect("0123456789abcdef".utf8.contains(byte))
            }
            // Cut off, or something put in.
            #expect(TraceContext(traceparent: String(decoding: valid[..<place], as: UTF8.self)) == nil)
            var longer = valid
            longer.insert(valid.randomElement(using: &random) ?? 0, at: place)
            #expect(TraceContext(traceparent: String(decoding: longer, as: UTF8.self)) == nil)
        }
    }

    /// Says zero first, whatever it is asked for.
    private struct ZeroFirst: RandomNumberGenerator {
        var zeros: Int
        var others = SeededGenerator(seed: 1)

        mutating func next() -> UInt64 {
            zeros -= 1
            return zeros >= 0 ? 0 : others.next()
        }
    }

    @Test func `no id is zero`() {
        for zeros in 0...3 {
            var random = ZeroFirst(zeros: zeros)
            let context = TraceContext.make(sampled: true, using: &random)
            #expect(context.spanID != 0)
            #expect(context.traceID != .init(high: 0, low: 0))
            #expect(TraceContext(traceparent: context.traceparent) == context)
        }
    }

    @Test func `traces that are made are not the same, and say that they are random`() {
        let contexts = (0..<1000).map { _ in TraceContext.make(sampled: true) }
        #expect(Set(contexts.map(\.traceID)).count == 1000)
        #expect(Set(contexts.map(\.spanID)).count == 1000)
        #expect(contexts.allSatisfy { $0.flags == 3 })
        #expect(TraceContext.make(sampled: false).flags == 2)
        #expect(!TraceContext.make(sampled: false).isSampled)
    }

    @Test func `a child is another span of the same trace`() {
        let parent = TraceContext.make(sampled: false)
        let child = parent.child()
        #expect(child.traceID == parent.traceID)
        #expect(child.flags == parent.flags)
        #expect(child.spanID != parent.spanID)
        #expect(child.spanID != 0)
    }

    @Test func `ids are written with all their zeros`() {
        #expect(TraceContext.hex(0) == "0000000000000000")
        #expect(TraceContext.hex(0xabc) == "0000000000000abc")
        #expect(TraceContext.hex(.max) == "ffffffffffffffff")
        #expect(TraceContext.hex(0x0123_4567_89ab_cdef) == "0123456789abcdef")
    }
}

/// From a client's header to a backend's.
@Suite struct TracePropagationTests {
    static let parent = "00-\(TraceContextTests.trace)-\(TraceContextTests.span)-01"

    @Test(arguments: ["traceparent", "Traceparent", "TRACEPARENT"])
    func `the client's context is read from its header`(name: String) {
        let context = TraceContext(["Host": "x", name: Self.parent, "tracestate": "a=1"])
        #expect(context?.traceparent == Self.parent)
    }

    @Test func `no context, one that is not valid and more than one are none`() {
        #expect(TraceContext(["tracestate": "a=1", "X-traceparent": Self.parent]) == nil)
        #expect(TraceContext(["traceparent": "nonsense"]) == nil)
        #expect(TraceContext(["traceparent": ""]) == nil)
        #expect(TraceContext(["traceparent": Self.parent, "Traceparent": Self.parent]) == nil)
        #expect(TraceContext(["traceparent": Self.parent, "traceparent": "nonsense"]) == nil)
    }

    @Test func `a backend is told the span that calls it, and the client's state as it is`() throws {
        var headers: Headers = [
            "A": "1", "TraceParent": Self.parent, "tracestate": "a=1, b=2", "B": "2", "Tracestate": "c=3",
        ]
        let call = try #require(TraceContext(headers)).child()
        call.name(in: &headers)
        #expect(
            headers.lines == [
                "A: 1", "tracestate: a=1, b=2", "B: 2", "Tracestate: c=3",
                "traceparent: 00-\(TraceContextTests.trace)-\(TraceContext.hex(call.spanID))-01",
            ])
    }

    @Test(
        arguments: [
            [], ["traceparent: nonsense"], ["traceparent: \(parent)", "Traceparent: \(parent)"],
            ["traceparent: ff\(parent.dropFirst(2))"],
        ] as [[String]])
    func `where a trace begins anew, nothing is left of what came`(received: [String]) {
        var headers: Headers = ["A": "1", "tracestate": "a=1", "TraceState": "b=2"]
        for line in received {
            headers.append(String(line.prefix { $0 != ":" }), String(line.drop { $0 != " " }.dropFirst()))
        }
        let own = TraceContext.make(sampled: true)
        own.name(in: &headers)
        #expect(headers.lines == ["A: 1", "traceparent: \(own.traceparent)"])
    }

    @Test func `the state of another trace goes no further`() {
        var headers: Headers = ["traceparent": Self.parent, "tracestate": "a=1"]
        let own = TraceContext.make(sampled: true)
        own.name(in: &headers)
        #expect(headers.lines == ["traceparent: \(own.traceparent)"])
    }
}
