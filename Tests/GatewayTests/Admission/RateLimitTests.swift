import HTTPCore
import TestSupport
import Testing

@testable import Gateway

@Suite struct RateLimitTests {
    private static let second: UInt64 = 1_000_000_000
    private let peer = PeerAddress.ipv4(0x7f00_0001)

    @Test func `the limit passes, the next is refused, and after the window a new one starts`() {
        let limit = Limiter(limit: 3, window: 10 * Self.second)
        let start = 5 * Self.second
        for left in [2, 1, 0] {
            #expect(limit.take(peer, at: start) == .init(admitted: true, limit: 3, remaining: left, resetAfter: 10))
        }
        #expect(limit.take(peer, at: start) == .init(admitted: false, limit: 3, remaining: 0, resetAfter: 10))
        let last = start + 10 * Self.second - 1
        #expect(limit.take(peer, at: last) == .init(admitted: false, limit: 3, remaining: 0, resetAfter: 1))
        #expect(limit.take(peer, at: last + 1) == .init(admitted: true, limit: 3, remaining: 2, resetAfter: 10))
    }

    @Test func `a window starts with the client's first request`() {
        let limit = Limiter(limit: 1, window: 10)
        #expect(limit.take(peer, at: 7).admitted)
        #expect(!limit.take(peer, at: 16).admitted)
        #expect(limit.take(peer, at: 17).admitted)
        #expect(!limit.take(peer, at: 26).admitted)
    }

    @Test(
        arguments: [
            (0, 10), (1, 10), (1_000_000_000, 9), (8_999_999_999, 2), (9_000_000_000, 1), (9_999_999_999, 1),
        ] as [(UInt64, Int)])
    func `seconds to the end of the window are rounded up`(elapsed: UInt64, seconds: Int) {
        let limit = Limiter(limit: 2, window: 10 * Self.second)
        _ = limit.take(peer, at: 0)
        #expect(limit.take(peer, at: elapsed).resetAfter == seconds)
    }

    @Test func `a limit of nothing admits everything and remembers nobody`() {
        let limit = Limiter(limit: 0, window: 10)
        for _ in 0..<10 {
            #expect(limit.take(peer, at: 0) == .init(admitted: true, limit: 0, remaining: 0, resetAfter: 0))
        }
        #expect(limit.count == 0 && limit.bytes == 0)
    }

    @Test func `each client has its own count, and what is one client is told apart rightly`() {
        func areOne(_ first: PeerAddress, _ second: PeerAddress) -> Bool {
            let limit = Limiter(limit: 1, window: 10)
            _ = limit.take(first, at: 0)
            return !limit.take(second, at: 0).admitted
        }
        #expect(!areOne(.ipv4(1), .ipv4(2)))
        #expect(areOne(.ipv6(0x2001_0db8_0000_0001, 1), .ipv6(0x2001_0db8_0000_0001, 2)))
        #expect(!areOne(.ipv6(0x2001_0db8_0000_0001, 1), .ipv6(0x2001_0db8_0000_0002, 1)))
        #expect(!areOne(.ipv4(1), .ipv6(1, 0)))
        #expect(areOne(.local, .local))
        #expect(!areOne(.local, .ipv4(0)))
        #expect(!areOne(.local, .ipv6(0, 1)))
        #expect(areOne(.ipv4(9), .ipv6(0, 0xffff_0000_0009)), "an IPv4 address written as an IPv6 one")
        #expect(!areOne(.ipv6(0, 0xffff_0000_0008), .ipv6(0, 0xffff_0000_0009)))
    }

    @Test func `when the table is full an ended window is forgotten first`() {
        let limit = Limiter(limit: 5, window: 10, maxClients: 2)
        _ = limit.take(.ipv4(1), at: 0)
        _ = limit.take(.ipv4(2), at: 5)
        _ = limit.take(.ipv4(1), at: 9)
        // At 11 the window of 1, more recently active, has ended; that of 2 has not.
        _ = limit.take(.ipv4(3), at: 11)
        #expect(limit.take(.ipv4(2), at: 11).remaining == 3)
        #expect(limit.count == 2)
    }

    @Test func `a window that started again ends after those that started before it`() {
        let limit = Limiter(limit: 5, window: 10, maxClients: 2)
        _ = limit.take(.ipv4(1), at: 0)
        _ = limit.take(.ipv4(2), at: 5)
        _ = limit.take(.ipv4(1), at: 10)
        _ = limit.take(.ipv4(2), at: 12)
        // At 16 the window of 2, more recently active, has ended; that of 1 has not.
        _ = limit.take(.ipv4(3), at: 16)
        #expect(limit.take(.ipv4(1), at: 16).remaining == 3)
    }

    @Test func `when no window has ended the client silent longest is forgotten`() {
        let limit = Limiter(limit: 5, window: 100, maxClients: 2)
        _ = limit.take(.ipv4(1), at: 0)
        _ = limit.take(.ipv4(2), at: 1)
        _ = limit.take(.ipv4(1), at: 2)
        _ = limit.take(.ipv4(3), at: 3)
        #expect(limit.take(.ipv4(1), at: 4).remaining == 2)
        #expect(limit.take(.ipv4(2), at: 5).remaining == 4)
    }

    @Test func `among a million addresses memory is bounded and an active client keeps its count`() {
        let limit = Limiter(limit: 100, window: .max, maxClients: 10_000)
        var admitted = 0
        for number in 0..<1_000_000 as Range<UInt32> {
            if number % 5000 == 0, limit.take(.local, at: 0).admitted { admitted += 1 }
            _ = limit.take(.ipv4(number), at: 0)
        }
        #expect(admitted == 100)
        #expect(limit.count == 10_000)
        #expect(limit.bytes < 10_000 * 64)
    }

    @Test func `the table does not grow while ended windows can be forgotten`() {
        let limit = Limiter(limit: 1, window: 100)
        for number in 0..<100_000 as Range<UInt32> { _ = limit.take(.ipv4(number), at: UInt64(number)) }
        #expect(limit.count == 100)
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func `a table of clients does what a plain array would`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let (capacity, window) = [(3, 12), (40, 110), (300, 500)][Int(seed - 1)] as (Int, UInt64)
        let limit = Limiter(limit: 3, window: window, maxClients: capacity)
        var naive = NaiveLimit(limit: 3, window: window, capacity: capacity)
        var now: UInt64 = 0
        for _ in 0..<40_000 {
            now += UInt64.random(in: 0..<5, using: &random)
            let client = UInt32.random(in: 0..<UInt32(capacity * 2), using: &random)
            let (verdict, expected) = (limit.take(.ipv4(client), at: now), naive.take(client, at: now))
            guard verdict.admitted == expected.admitted, verdict.remaining == expected.remaining else {
                Issue.record("at \(now) client \(client): \(verdict), not \(expected)")
                return
            }
        }
        #expect(limit.count <= capacity)
    }
}

/// A rate limit in a box: `#expect` cannot look into what is not copyable.
private final class Limiter {
    private var limit: RateLimit

    init(limit: Int, window: UInt64, maxClients: Int = 131_072) {
        self.limit = RateLimit(limit: limit, window: window, maxClients: maxClients)
    }

    var count: Int { limit.count }
    var bytes: Int { limit.bytes }

    func take(_ peer: PeerAddress, at now: UInt64) -> RateLimit.Verdict { limit.take(peer, at: now) }
}

/// The rules of ``RateLimit`` in the plainest terms.
private struct NaiveLimit {
    let limit: Int
    let window: UInt64
    let capacity: Int
    /// The least recently active first.
    private var clients: [(address: UInt32, start: UInt64, order: Int, taken: Int)] = []
    private var started = 0

    init(limit: Int, window: UInt64, capacity: Int) {
        (self.limit, self.window, self.capacity) = (limit, window, capacity)
    }

    mutating func take(_ address: UInt32, at now: UInt64) -> (admitted: Bool, remaining: Int) {
        var client = (address: address, start: now, order: started, taken: 0)
        if let place = clients.firstIndex(where: { $0.address == address }) {
            let present = clients.remove(at: place)
            if now - present.start < window { client = present }
        } else {
            makeRoom(at: now)
        }
        started += 1
        let admitted = client.taken < limit
        if admitted { client.taken += 1 }
        clients.append(client)
        return (admitted, limit - client.taken)
    }

    private mutating func makeRoom(at now: UInt64) {
        let oldest = clients.indices.min { clients[$0].order < clients[$1].order }
        if let oldest, now - clients[oldest].start >= window {
            clients.remove(at: oldest)
        } else if clients.count == capacity {
            clients.removeFirst()
        }
    }
}
