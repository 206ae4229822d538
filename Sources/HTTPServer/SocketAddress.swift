import Glibc
import HTTPCore

/// A socket address of any family, and what the server wants to know of it.
struct SocketAddress {
    private var storage: sockaddr_storage
    private var length: socklen_t

    static let longestUnixPath = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1

    init(storage: sockaddr_storage, length: socklen_t) {
        self.storage = storage
        self.length = length
    }

    init(_ address: UnsafePointer<sockaddr>, _ length: socklen_t) {
        storage = sockaddr_storage()
        self.length = length
        withUnsafeMutableBytes(of: &storage) {
            $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Int(length)))
        }
    }

    /// The address that `socket` is bound to.
    init(of socket: Int32) {
        storage = sockaddr_storage()
        length = socklen_t(MemoryLayout.size(ofValue: storage))
        var length = length
        withUnsafeMutablePointer(to: &storage) {
            _ = $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(socket, $0, &length) }
        }
        self.length = length
    }

    /// nil if the path is empty or does not fit.
    init?(unixPath path: String) {
        guard !path.isEmpty, path.utf8.count <= SocketAddress.longestUnixPath else { return nil }
        storage = sockaddr_storage()
        length = socklen_t(MemoryLayout<sockaddr_un>.size)
        withUnsafeMutableBytes(of: &storage) { bytes in
            bytes.storeBytes(of: sa_family_t(AF_UNIX), as: sa_family_t.self)
            let offset = MemoryLayout<sockaddr_un>.offset(of: \.sun_path).unsafelyUnwrapped
            UnsafeMutableRawBufferPointer(rebasing: bytes[offset...]).copyBytes(from: path.utf8)
        }
    }

    var family: Int32 { Int32(storage.ss_family) }

    var port: Int {
        get { Int(UInt16(bigEndian: view(sockaddr_in.self) { $0.sin_port })) }
        set {
            // `sin_port` and `sin6_port` are the same two bytes.
            guard family == AF_INET || family == AF_INET6 else { return }
            withUnsafeMutableBytes(of: &storage) {
                $0.storeBytes(of: UInt16(newValue).bigEndian, toByteOffset: 2, as: UInt16.self)
            }
        }
    }

    /// An IPv4 address that arrives in IPv6's clothes (`::ffff:a.b.c.d`) is the IPv4 address.
    var peer: PeerAddress {
        switch family {
        case AF_INET:
            return .ipv4(UInt32(bigEndian: view(sockaddr_in.self) { $0.sin_addr.s_addr }))
        case AF_INET6:
            let (high, low) = view(sockaddr_in6.self) { address in
                withUnsafeBytes(of: address.sin6_addr) {
                    (
                        UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                        UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                    )
                }
            }
            return high == 0 && low >> 32 == 0xffff ? .ipv4(UInt32(truncatingIfNeeded: low)) : .ipv6(high, low)
        default:
            return .local
        }
    }

    func withSockaddr<T>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        withUnsafePointer(to: storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    /// Whether a socket file lies there that refuses connections: left behind by a process that is gone.
    func isStaleUnixSocket() -> Bool {
        let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard probe >= 0 else { return false }
        defer { close(probe) }
        return withSockaddr { connect(probe, $0, $1) } != 0 && errno == ECONNREFUSED
    }

    private func view<A, T>(_ type: A.Type, _ body: (A) -> T) -> T {
        withUnsafeBytes(of: storage) { body($0.loadUnaligned(as: type)) }
    }
}
