import HTTPCore

/// How many requests each client address may make in a window of time. A client's window starts with its first request;
/// all in it are counted exactly. The table is bounded: when it is full, ended windows are forgotten first, then the
/// client that has been silent longest, so that an active one keeps its count among any number of others.
///
/// It decides and does no I/O: times are nanoseconds of the monotonic clock, handed in. Of one owner, on one executor.
package struct RateLimit: ~Copyable {
    /// What to tell the client, as the `RateLimit` fields do (draft-ietf-httpapi-ratelimit-headers).
    package struct Verdict: Equatable, Sendable {
        package let admitted: Bool
        /// Requests in a window; 0 means that there is no limit.
        package let limit: Int
        /// Requests left in this window.
        package let remaining: Int
        /// Seconds until the window ends, rounded up: at least 1 while there is a limit.
        package let resetAfter: Int
    }

    private let limit: UInt32
    private let window: UInt64
    private let maxClients: Int
    private var clients = Pages<Client>(of: Client())
    private var index = ChainIndex<Client>()
    private var activityLinks = LRULinks(of: LRULink())
    private var windowLinks = LRULinks(of: LRULink())
    /// The most recently active first.
    private var activity = LRUList()
    /// The window that started last first: as all are equally long, the last in the list is the next to end.
    private var windows = LRUList()
    /// The clients that the table knows.
    package private(set) var count = 0

    /// - Parameters:
    ///   - limit: requests in a window; 0 admits everything.
    ///   - window: its length in nanoseconds.
    ///   - maxClients: addresses known at a time; 64 bytes for each are taken as they are needed.
    package init(limit: Int, window: UInt64, maxClients: Int = 131_072) {
        self.limit = UInt32(clamping: limit)
        self.window = max(window, 1)
        self.maxClients = max(maxClients, 1)
    }

    /// What the tables take, in bytes.
    package var bytes: Int { clients.pageCount * Self.bytesPerPage }

    private static var bytesPerPage: Int {
        Page.bytes(of: Client.self) + 2 * Page.bytes(of: LRULink.self) + ChainIndex<Client>.bytesPerPage
    }

    /// Counts a request and says whether it may pass. A refused one keeps the client known but does not prolong its
    /// window.
    package mutating func take(_ peer: PeerAddress, at now: UInt64) -> Verdict {
        guard limit > 0 else { return Verdict(admitted: true, limit: 0, remaining: 0, resetAfter: 0) }
        let number = client(Address(peer), at: now)
        let client = clients[number]
        let admitted = client.pointee.taken < limit
        if admitted { client.pointee.taken += 1 }
        let elapsed = elapsed(since: client.pointee.windowStart, at: now)
        return Verdict(
            admitted: admitted, limit: Int(limit), remaining: Int(limit - client.pointee.taken),
            resetAfter: Int(clamping: (window - elapsed - 1) / 1_000_000_000 + 1))
    }

    /// The client of an address as the most recently active, with a window that runs.
    private mutating func client(_ address: Address, at now: UInt64) -> UInt32 {
        guard let number = find(address) else { return add(address, at: now) }
        activity.moveToFront(number, in: activityLinks)
        if hasEnded(number, at: now) {
            clients[number].pointee.taken = 0
            clients[number].pointee.windowStart = now
            windows.moveToFront(number, in: windowLinks)
        }
        return number
    }

    private mutating func add(_ address: Address, at now: UInt64) -> UInt32 {
        let number = vacancy(at: now)
        clients[number].pointee = Client(address: address, hash32: address.hash32, windowStart: now)
        index.insert(number, in: clients)
        activity.prepend(number, in: activityLinks)
        windows.prepend(number, in: windowLinks)
        return number
    }

    /// A free place: of a client whose window has ended, or a new one, or at last of the one silent longest.
    private mutating func vacancy(at now: UInt64) -> UInt32 {
        let next = windows.last
        let hasEnded = next != Page.none && hasEnded(next, at: now)
        if !hasEnded, count < maxClients {
            if count == Int(clients.count) { grow() }
            count += 1
            return UInt32(count - 1)
        }
        let forgotten = hasEnded ? next : activity.last
        index.remove(forgotten, in: clients)
        activity.remove(forgotten, in: activityLinks)
        windows.remove(forgotten, in: windowLinks)
        return forgotten
    }

    private mutating func grow() {
        clients.grow()
        activityLinks.grow()
        windowLinks.grow()
        index.grow(in: clients)
    }

    private func find(_ address: Address) -> UInt32? {
        var number = index.first(UInt64(address.hash32))
        while number != Page.none {
            if clients[number].pointee.address == address { return number }
            number = clients[number].pointee.chain
        }
        return nil
    }

    private func hasEnded(_ number: UInt32, at now: UInt64) -> Bool {
        elapsed(since: clients[number].pointee.windowStart, at: now) >= window
    }

    private func elapsed(since start: UInt64, at now: UInt64) -> UInt64 { now > start ? now - start : 0 }
}

extension RateLimit {
    /// What counts as one client: an IPv4 address; the /64 of an IPv6 address, for that is what one subscriber has; all
    /// that come over a Unix socket.
    private struct Address: Hashable {
        private enum Family: UInt8 { case ipv4, ipv6, local }

        private let family: Family
        private let number: UInt64

        init(_ peer: PeerAddress) {
            switch peer {
            case .ipv4(let address): (family, number) = (.ipv4, UInt64(address))
            // An IPv4 client of a socket that listens on both (RFC 4291, section 2.5.5.2): else all were one client.
            case .ipv6(0, let low) where low >> 32 == 0xffff: (family, number) = (.ipv4, low & 0xffff_ffff)
            case .ipv6(let high, _): (family, number) = (.ipv6, high)
            case .local: (family, number) = (.local, 0)
            }
        }

        /// Of the standard library's hash, whose secret keeps clients from choosing addresses that collide.
        var hash32: UInt32 { UInt32(truncatingIfNeeded: hashValue) }
    }

    private struct Client: Chained {
        var address = Address(.local)
        var hash32: UInt32 = 0
        var chain = Page.none
        var windowStart: UInt64 = 0
        /// Requests admitted in this window.
        var taken: UInt32 = 0

        var hash: UInt64 { UInt64(hash32) }
    }
}
