import Glibc
import Synchronization

/// A stream socket in a test's hands: bytes as they are, on either side of a connection.
///
/// Everything that may block does so on a thread of its own and gives up after ``patience``.
public final class RawSocket: Sendable {
    /// How what was received ended.
    public enum Ending: Sendable {
        /// All that was asked for has come.
        case whole
        /// The other side has closed properly.
        case closed
        /// The connection was broken off.
        case reset
        /// Nothing came for too long.
        case timeout
    }

    /// What any call waits for the other side, in milliseconds.
    public static let patience: Int32 = 20_000

    private let descriptor: Atomic<Int32>
    /// Received and not yet asked for.
    private let unread = Mutex<[UInt8]>([])

    public init(adopting descriptor: Int32) { self.descriptor = Atomic(descriptor) }

    deinit { close() }

    // MARK: Opening and closing

    /// Connects to a port of the IPv4 loopback address, or of the IPv6 one.
    public static func connect(port: Int, ipv6: Bool = false, receiveBuffer: Int32? = nil) -> RawSocket {
        if ipv6 {
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = in_port_t(port).bigEndian
            address.sin6_addr = in6addr_loopback
            return connect(AF_INET6, address, receiveBuffer)
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
        return connect(AF_INET, address, receiveBuffer)
    }

    public static func connect(path: String) -> RawSocket { connect(AF_UNIX, unixAddress(path), nil) }

    static func unixAddress(_ path: String) -> sockaddr_un {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return address
    }

    private static func connect<Address>(_ family: Int32, _ address: Address, _ receiveBuffer: Int32?) -> RawSocket {
        let descriptor = socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        if var size = receiveBuffer {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout.size(ofValue: size)))
        }
        let code = withSockaddr(address) { Glibc.connect(descriptor, $0, $1) }
        precondition(code == 0, "cannot connect (errno \(errno))")
        return RawSocket(adopting: descriptor)
    }

    /// Closes, with whatever was not read: the kernel may make a reset of it.
    public func close() {
        let descriptor = descriptor.exchange(-1, ordering: .acquiringAndReleasing)
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// Breaks the connection off.
    public func reset() {
        var now = linger(l_onoff: 1, l_linger: 0)
        setsockopt(number, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout.size(ofValue: now)))
        close()
    }

    /// Says that nothing more is sent; receiving goes on.
    public func finishSending() { shutdown(number, Int32(SHUT_WR)) }

    private var number: Int32 { descriptor.load(ordering: .acquiring) }

    // MARK: Sending

    /// Sends all of it, or as much as the other side takes before it takes nothing for `patience` milliseconds.
    /// - Returns: how many bytes went.
    @discardableResult
    public func send(_ bytes: [UInt8], patience: Int32 = RawSocket.patience) async -> Int {
        await onNewThread { [self] in
            bytes.withUnsafeBytes { bytes in
                var sent = 0
                while sent < bytes.count {
                    let flags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)
                    let rest = UnsafeRawBufferPointer(rebasing: bytes[sent...])
                    let count = Glibc.send(number, rest.baseAddress, rest.count, flags)
                    if count > 0 {
                        sent += count
                    } else if errno != EAGAIN || !wait(for: POLLOUT, patience) {
                        break
                    }
                }
                return sent
            }
        }
    }

    @discardableResult
    public func send(_ text: String) async -> Int { await send(Array(text.utf8)) }

    /// Sends a short text before this call returns: on a connection just made, before its server has seen it.
    public func sendNow(_ text: String) {
        let bytes = Array(text.utf8)
        let sent = Glibc.send(number, bytes, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
        precondition(sent == bytes.count, "the kernel does not take \(bytes.count) bytes at once (errno \(errno))")
    }

    // MARK: Receiving

    /// Receives as many bytes as asked for, or fewer if they do not come.
    public func receive(count: Int) async -> [UInt8] {
        await reading { reader in
            _ = reader.have(count)
            return reader.take(min(count, reader.available))
        }
    }

    /// Receives up to and including `mark`, or all there is if it does not come.
    public func receive(through mark: String) async -> String {
        await reading { String(decoding: $0.take(through: Array(mark.utf8)), as: UTF8.self) }
    }

    /// Receives until the other side closes.
    public func receiveToEnd() async -> (bytes: [UInt8], ending: Ending) {
        await reading { reader in
            let ending = reader.have(.max)
            return (reader.take(reader.available), ending)
        }
    }

    /// Receives one answer to a request of `method`, framed as its header says.
    public func receiveAnswer(to method: String = "GET") async -> RawAnswer {
        await reading { RawAnswer(from: &$0, method: method) }
    }

    private func reading<Value: Sendable>(_ body: @escaping @Sendable (inout RawReader) -> Value) async -> Value {
        await onNewThread { [self] in
            unread.withLock { unread in
                var reader = RawReader(bytes: unread) { [self] in receive(into: &$0) }
                defer { unread = Array(reader.bytes[reader.position...]) }
                return body(&reader)
            }
        }
    }

    private func receive(into bytes: inout [UInt8]) -> Ending? {
        guard wait(for: POLLIN, RawSocket.patience) else { return .timeout }
        return withUnsafeTemporaryAllocation(byteCount: 256 * 1024, alignment: 1) { room in
            let count = recv(number, room.baseAddress, room.count, Int32(MSG_DONTWAIT))
            if count > 0 { bytes += UnsafeRawBufferPointer(rebasing: room[..<count]) }
            return count > 0 || (count < 0 && errno == EAGAIN) ? nil : count == 0 ? .closed : .reset
        }
    }

    private func wait(for event: Int32, _ milliseconds: Int32) -> Bool {
        var entry = pollfd(fd: number, events: Int16(event), revents: 0)
        return poll(&entry, 1, milliseconds) > 0
    }
}

/// Lends a socket address of any family.
func withSockaddr<Address, Value>(_ address: Address, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Value) -> Value {
    withUnsafePointer(to: address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<Address>.size)) }
    }
}

/// Bytes received, and a place in them.
struct RawReader {
    private(set) var bytes: [UInt8]
    private(set) var position = 0
    private let more: (inout [UInt8]) -> RawSocket.Ending?

    init(bytes: [UInt8], more: @escaping (inout [UInt8]) -> RawSocket.Ending?) {
        self.bytes = bytes
        self.more = more
    }

    var available: Int { bytes.count - position }

    /// Waits until so many bytes are there.
    mutating func have(_ count: Int) -> RawSocket.Ending {
        while available < count {
            if let ending = more(&bytes) { return ending }
        }
        return .whole
    }

    mutating func take(_ count: Int) -> [UInt8] {
        defer { position += count }
        return Array(bytes[position..<(position + count)])
    }

    /// Everything up to and including `mark`; all there is if it does not come.
    mutating func take(through mark: [UInt8]) -> [UInt8] {
        var start = position
        while true {
            while start + mark.count <= bytes.count {
                if bytes[start..<(start + mark.count)].elementsEqual(mark) {
                    return take(start + mark.count - position)
                }
                start += 1
            }
            if more(&bytes) != nil { return take(available) }
        }
    }
}
