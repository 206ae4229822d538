import Glibc

/// A listening socket on the IPv4 loopback address in a test's hands.
public final class RawListener: Sendable {
    public let port: Int
    private let descriptor: Int32

    /// - Parameter backlog: connections that the kernel completes before ``accept()``.
    public init(backlog: Int32 = 64) {
        let listening = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
        let bound = withSockaddr(address) { bind(listening, $0, $1) }
        precondition(bound == 0 && listen(listening, backlog) == 0, "cannot listen (errno \(errno))")
        var length = socklen_t(MemoryLayout.size(ofValue: address))
        withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(listening, $0, &length) }
        }
        descriptor = listening
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    deinit { close(descriptor) }

    /// The next connection; nil if none comes within the time.
    public func accept(patience: Int32 = RawSocket.patience) async -> RawSocket? {
        await onNewThread { [self] in
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, patience) > 0 else { return nil }
            let accepted = Glibc.accept(descriptor, nil, nil)
            return accepted >= 0 ? RawSocket(adopting: accepted) : nil
        }
    }

    /// Leaves a socket file behind that nobody listens on, as a process that was killed does.
    public static func leaveStaleFile(at path: String) {
        let socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        let bound = withSockaddr(RawSocket.unixAddress(path)) { bind(socket, $0, $1) }
        precondition(bound == 0, "cannot bind \(path) (errno \(errno))")
        close(socket)
    }
}
