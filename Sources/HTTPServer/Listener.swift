import EventLoop
import Glibc
import HTTPCore

/// Where to listen.
public enum ListenAddress: Sendable, Equatable, CustomStringConvertible {
    /// `host` is a name or an address; a name listens on every address it has. Port 0 takes a free one.
    case tcp(host: String, port: Int)
    /// A path; a socket file that nobody listens on any more is replaced.
    case unix(path: String)

    public var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "http://[\(host)]:\(port)" : "http://\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}

/// One listening socket.
@Loop
final class Listener {
    let address: ListenAddress
    private let socket: Int32
    private let accepted: @Loop (Int32, SocketAddress) -> Void
    private var watch: Watch?
    private var isHeld = false

    /// Accepted at most per turn, so that a flood of connections does not starve those there are.
    private static let acceptBatch = 64

    /// Opens all sockets an address stands for.
    static func open(
        _ address: ListenAddress, accepted: @escaping @Loop (Int32, SocketAddress) -> Void
    ) throws -> [Listener] {
        switch address {
        case .unix(let path): [try unix(path, accepted)]
        case .tcp(let host, let port): try tcp(host, port, accepted)
        }
    }

    private init(_ socket: Int32, _ address: ListenAddress, _ accepted: @escaping @Loop (Int32, SocketAddress) -> Void)
    {
        self.socket = socket
        self.address = address
        self.accepted = accepted
        resume()
    }

    /// Goes on accepting.
    func resume() {
        isHeld = false
        startWatching()
    }

    /// Accepts nobody until ``resume()``; who comes waits in the kernel's backlog.
    func pause() {
        isHeld = true
        stopWatching()
    }

    private func startWatching() {
        guard watch == nil, !isHeld else { return }
        // The listener is closed, and the watch with it, before it goes.
        watch = Loop.events.watch(socket, for: .read) { [unowned self] _ in acceptBatch() }
    }

    private func stopWatching() {
        if let watch { Loop.events.unwatch(watch) }
        watch = nil
    }

    func close() {
        pause()
        Glibc.close(socket)
        if case .unix(let path) = address { unlink(path) }
    }

    private func acceptBatch() {
        for _ in 0..<Listener.acceptBatch where watch != nil {
            var storage = sockaddr_storage()
            var length = socklen_t(MemoryLayout.size(ofValue: storage))
            let descriptor = withUnsafeMutablePointer(to: &storage) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    // libmicrohttpd makes it non-blocking and close-on-exec.
                    accept(socket, $0, &length)
                }
            }
            if descriptor >= 0 {
                accepted(descriptor, SocketAddress(storage: storage, length: length))
                continue
            }
            switch errno {
            case EAGAIN: return
            case EMFILE, ENFILE, ENOBUFS, ENOMEM:
                // Nothing left to accept with: let others finish first.
                stopWatching()
                Loop.events.schedule(after: .milliseconds(100)) { [weak self] in self?.startWatching() }
                return
            default: continue  // The connection broke before it was taken (ECONNABORTED and its kin).
            }
        }
    }

    // MARK: Opening

    private static func tcp(
        _ host: String, _ port: Int, _ accepted: @escaping @Loop (Int32, SocketAddress) -> Void
    ) throws -> [Listener] {
        let failure = { ServerError.cannotListen(address: "\(host):\(port)", reason: $0) }
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_PASSIVE
        var found: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, String(port), &hints, &found)
        guard code == 0 else { throw failure(String(cString: gai_strerror(code))) }
        defer { freeaddrinfo(found) }

        var listeners: [Listener] = []
        var bound = port
        do {
            for candidate in sequence(first: found.unsafelyUnwrapped, next: { $0.pointee.ai_next }) {
                var address = SocketAddress(candidate.pointee.ai_addr, candidate.pointee.ai_addrlen)
                if bound != 0 { address.port = bound }
                let socket = try listening(address, failure)
                bound = SocketAddress(of: socket).port
                listeners.append(Listener(socket, .tcp(host: host, port: bound), accepted))
            }
        } catch {
            listeners.forEach { $0.close() }
            throw error
        }
        return listeners
    }

    private static func unix(
        _ path: String, _ accepted: @escaping @Loop (Int32, SocketAddress) -> Void
    ) throws -> Listener {
        let failure = { ServerError.cannotListen(address: "unix:\(path)", reason: $0) }
        guard let address = SocketAddress(unixPath: path) else {
            throw failure("the path is longer than \(SocketAddress.longestUnixPath) bytes or empty")
        }
        if address.isStaleUnixSocket() { unlink(path) }
        return Listener(try listening(address, failure), .unix(path: path), accepted)
    }

    private static func listening(_ address: SocketAddress, _ failure: (String) -> ServerError) throws -> Int32 {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = Glibc.socket(address.family, type, 0)
        guard socket >= 0 else { throw failure(String(cString: strerror(errno))) }
        func set(_ level: Int32, _ option: Int32, _ value: Int32) {
            var value = value
            setsockopt(socket, level, option, &value, socklen_t(MemoryLayout.size(ofValue: value)))
        }
        set(SOL_SOCKET, SO_REUSEADDR, 1)
        if address.family == AF_INET6 { set(Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }
        if address.family != AF_UNIX {
            // Accepted sockets inherit both: chunks leave at once, and what a slow client has not taken stays
            // with the box that makes it instead of in the kernel's send buffer.
            set(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
            set(Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, 128 * 1024)
        }
        let done = address.withSockaddr { bind(socket, $0, $1) == 0 } && Glibc.listen(socket, 4096) == 0
        guard done else {
            let reason = String(cString: strerror(errno))
            Glibc.close(socket)
            throw failure(reason.lowercased())
        }
        return socket
    }
}
