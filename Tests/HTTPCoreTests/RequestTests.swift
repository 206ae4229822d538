import EventLoop
import TestSupport
import Testing

@testable import HTTPCore

@Suite struct PeerAddressTests {
    @Test(
        arguments: [
            (0x7f00_0001, "127.0.0.1"), (0, "0.0.0.0"), (0xffff_ffff, "255.255.255.255"), (0x0a01_02c8, "10.1.2.200"),
        ] as [(UInt32, String)])
    func `an IPv4 address is written in four parts`(address: UInt32, text: String) {
        #expect(PeerAddress.ipv4(address).description == text)
    }

    /// Examples of RFC 5952, sections 4 and 5, and the ends of every rule.
    @Test(
        arguments: [
            // 4.1: no leading zeros.
            (0x2001_0db8_0aaa_0001, 0x0002_0003_0004_0005, "2001:db8:aaa:1:2:3:4:5"),
            // 4.2.1: shortened as much as possible.
            (0, 0, "::"),
            (0, 1, "::1"),
            (0x2001_0db8_0000_0000, 0x0000_0000_0002_0001, "2001:db8::2:1"),
            (0x2001_0db8_0000_0000, 0, "2001:db8::"),
            (0x0001_0000_0000_0000, 0, "1::"),
            (0, 0x0000_0000_0000_ffff, "::ffff"),
            // 4.2.2: one zero group alone is written.
            (0x2001_0db8_0000_0001, 0x0001_0001_0001_0001, "2001:db8:0:1:1:1:1:1"),
            (0x0000_0001_0002_0003, 0x0004_0005_0006_0007, "0:1:2:3:4:5:6:7"),
            (0x0001_0002_0003_0004, 0x0005_0006_0007_0000, "1:2:3:4:5:6:7:0"),
            // 4.2.3: the longest run, and of equally long ones the first.
            (0x2001_0000_0000_0001, 0x0000_0000_0000_0001, "2001:0:0:1::1"),
            (0x2001_0000_0000_0000, 0x0001_0000_0000_0001, "2001::1:0:0:1"),
            (0x2001_0db8_0000_0000, 0x0001_0000_0000_0001, "2001:db8::1:0:0:1"),
            (0, 0x0001_0000_0000_0000, "::1:0:0:0"),
            (0x0000_0000_0001_0000, 0, "0:0:1::"),
            // 4.3: lower case.
            (0xabcd_ef01_abcd_ef01, 0xabcd_ef01_abcd_ef01, "abcd:ef01:abcd:ef01:abcd:ef01:abcd:ef01"),
            (0xfe80_0000_0000_0000, 0x0204_61ff_fe9d_f156, "fe80::204:61ff:fe9d:f156"),
        ] as [(UInt64, UInt64, String)])
    func `an IPv6 address is written as RFC 5952 wants it`(high: UInt64, low: UInt64, text: String) {
        #expect(PeerAddress.ipv6(high, low).description == text)
    }

    @Test func `a Unix socket has no address`() {
        #expect(PeerAddress.local.description == "unix")
    }

    @Test func `addresses can be counted by`() {
        let peers: Set<PeerAddress> = [.ipv4(1), .ipv4(1), .ipv4(2), .ipv6(0, 1), .ipv6(0, 1), .local, .local]
        #expect(peers.count == 4)
    }
}

@Suite struct RequestTests {
    init() { LoopThread.start() }

    @Test(arguments: [
        ("/", "/"), ("/api/chat", "/api/chat"), ("/api/chat?x=1", "/api/chat"), ("/a?b?c", "/a"), ("/?", "/"),
        ("/a%3Fb?c", "/a?b"), ("/api/%63hat?%41", "/api/chat"), ("/a%zz", "/a%zz"), ("/a%ff", "/a%ff"),
        ("/a+b", "/a+b"),
        ("*", "*"), ("/ä/🦙?ü", "/ä/🦙"), ("/api/chat?\u{301}x", "/api/chat"), ("", ""),
    ])
    @Loop func `the path is the target up to its query, decoded`(target: String, path: String) {
        #expect(request(target).path == path)
    }

    @Test @Loop func `the header is read once, when somebody asks`() {
        let reads = Recorder<Int>()
        let request = request("/") {
            reads.note(1)
            return ["Host": "box"]
        }
        #expect(reads.count == 0)
        #expect(request.headers["host"] == "box")
        #expect(request.headers["host"] == "box")
        request.retainHeaders()
        #expect(reads.count == 1)
    }

    @Test @Loop func `a retained header is not read again`() {
        let reads = Recorder<Int>()
        let request = request("/") {
            reads.note(1)
            return ["Host": "box"]
        }
        request.retainHeaders()
        #expect(reads.count == 1)
        #expect(request.headers["Host"] == "box")
        #expect(reads.count == 1)
    }

    @Test @Loop func `a new request has no body`() {
        guard case .none = request("/").body else {
            Issue.record("a body out of nowhere")
            return
        }
    }

    @Loop private func request(_ target: String, headers: @escaping @Loop () -> Headers = { [:] }) -> Request {
        Request(
            method: "GET", target: target, peer: .local, contentLength: nil, source: CountedHeaders(read: headers))
    }
}

@Loop private final class CountedHeaders: HeaderSource {
    private let read: @Loop () -> Headers

    init(read: @escaping @Loop () -> Headers) { self.read = read }

    func headers() -> Headers { read() }
    func header(_ name: StaticString) -> String? { read()[name.description] }
}
