import CMicroHTTPD
import EventLoop
import Glibc
import HTTPCore

/// An HTTP/1.1 server: libmicrohttpd without threads, driven by the event loop.
///
/// libmicrohttpd reads requests, frames answers and keeps connections alive. The sockets are ours: this class
/// accepts them and hands them over, so that it can listen on any number of addresses, count connections, see a
/// client leave while its request waits, and write the chunks of a stream straight to the socket
/// (``StreamBody``).
///
/// Source: RFC 9110, RFC 9112; libmicrohttpd(3) 0.9.75.
@Loop
public final class HTTPServer {
    /// What a server allows. The defaults suit a gateway on a trusted network.
    public struct Limits: Sendable {
        /// Connections in all; further ones wait in the kernel's backlog until one closes.
        public var maxConnections = 16_384
        /// Connections from one address (an IPv6 /64 counts as one), 0 for any number; further ones are closed.
        public var maxConnectionsPerPeer = 0
        /// Bytes for request line and header together. The memory of one connection.
        public var headerBytes = 16 * 1024
        /// From a connection's start until its first header is complete.
        public var headerTimeout: Duration = .seconds(30)
        /// Between the end of an answer and the next complete header, and for a client that takes no byte of an
        /// answer or sends no byte of a body.
        public var idleTimeout: Duration = .seconds(120)
        /// A body may take this long, plus the time its bytes take at ``bodyBytesPerSecond``.
        public var bodyTimeout: Duration = .seconds(30)
        public var bodyBytesPerSecond = 1024

        public nonisolated init() {}
    }

    let handler: any RequestHandler
    let limits: Limits
    /// Set while libmicrohttpd runs; nil once the server has closed.
    private var daemon: OpaquePointer?
    private var daemonWatch: Watch?
    private var listeners: [Listener] = []
    private(set) var connections = ConnectionTable()
    private let lingering = Lingering()
    private var runIsDue = false
    /// Connections that libmicrohttpd has closed while it ran and may have forgotten.
    private var closing: [(connection: Connection, handle: OpaquePointer)] = []
    private var ticking = false
    private(set) var isDraining = false
    private var isClosed = false
    private var whenEmpty: Signal?
    /// The connection being handed to libmicrohttpd, for the callback that comes out of that very call.
    private var arriving: Connection?

    /// Throws ``ServerError/cannotStart`` if libmicrohttpd does not start (no descriptors, no memory).
    public init(handler: any RequestHandler, limits: Limits = Limits()) throws {
        self.handler = handler
        self.limits = limits
        // A client that leaves is an error of the write, not a signal to the process.
        signal(SIGPIPE, SIG_IGN)
        // The server outlives its daemon: `close()` stops the daemon before `self` can go.
        let owner = Unmanaged.passUnretained(self).toOpaque()
        daemon = gw_mhd_start(
            owner, onAccess, onTarget, onCompleted, onConnection,
            limits.headerBytes, UInt32(limits.maxConnections), UInt32(limits.idleTimeout.components.seconds))
        guard let daemon else {
            isClosed = true
            throw ServerError.cannotStart
        }
        daemonWatch = Loop.events.watch(gw_mhd_epoll_descriptor(daemon), for: .read) { [unowned self] _ in run() }
    }

    isolated deinit {
        // Its connections refer to it: whoever makes a server drains or closes it.
        precondition(isClosed, "a server was let go without close()")
    }

    /// Connections that are open, and how many may be.
    public var openConnections: Int { connections.count }
    public var maxConnections: Int { limits.maxConnections }

    // MARK: Listening

    /// Accepts connections on one more address.
    /// - Returns: the address it is, port 0 replaced by the port that was free.
    /// - Throws: ``ServerError`` with the reason (name not known, address in use, permission).
    @discardableResult
    public func listen(on address: ListenAddress) throws -> ListenAddress {
        let bound = try Listener.open(address) { [unowned self] in accept($0, $1) }
        listeners += bound
        return bound[0].address
    }

    /// True while one more connection may come.
    private var hasRoom: Bool { connections.count < limits.maxConnections }

    private func accept(_ socket: Int32, _ address: SocketAddress) {
        guard let daemon, hasRoom, connections.admits(address.peer, limit: limits.maxConnectionsPerPeer) else {
            Glibc.close(socket)
            return
        }
        let connection = Connection(socket: socket, peer: address.peer, server: self)
        connection.deadline = Loop.events.now &+ limits.headerTimeout.clampedNanoseconds
        connections.add(connection)
        connection.watchPeer()
        arriving = connection
        // On failure libmicrohttpd has closed the socket; whether it called `onConnection` depends on how far it got,
        // hence the check.
        let added = address.withSockaddr { MHD_add_connection(daemon, socket, $0, $1) }
        if added == .NO, connection.isOpen { ended(connection) }
        arriving = nil
        startTicking()
        runSoon()
        if !hasRoom { listeners.forEach { $0.pause() } }
    }

    /// libmicrohttpd takes the connection over: the reference that it keeps until it closes.
    func takeArriving() -> Connection? {
        defer { arriving = nil }
        return arriving
    }

    func ended(_ connection: Connection) {
        connection.end(lingering: lingering)
        connections.remove(connection)
        if hasRoom && !isDraining { listeners.forEach { $0.resume() } }
        if connections.count == 0 { whenEmpty?.fire() }
    }

    // MARK: Running libmicrohttpd

    /// Lets libmicrohttpd work before this turn ends: once for all connections that were resumed in it.
    func runSoon() {
        guard !runIsDue else { return }
        runIsDue = true
        Loop.events.atEndOfTurn { self.run() }
    }

    private func run() {
        runIsDue = false
        guard let daemon else { return }
        // An answer takes two passes (build the header, send it), and a streamed one a third (ask for its body).
        for _ in 0..<4 {
            MHD_run(daemon)
            sweepClosed()
            guard gw_mhd_must_run_now(daemon) != 0 else { return }
        }
        Loop.events.schedule(after: .zero) { self.run() }
    }

    /// A request has ended badly, and its connection with it.
    func closeSoon(_ connection: Connection, _ handle: OpaquePointer) { closing.append((connection, handle)) }

    /// libmicrohttpd 0.9.75 marks a connection closed when its body's reader breaks off, and then waits for an event
    /// on it that never comes. Suspended and resumed, the connection is looked at again and cleaned up.
    private func sweepClosed() {
        let due = closing
        closing = []
        for (connection, handle) in due where connection.isOpen {
            MHD_suspend_connection(handle)
            MHD_resume_connection(handle)
            runSoon()
        }
    }

    /// Once a second, while there are connections: libmicrohttpd's time-outs and ours.
    private func startTicking() {
        guard !ticking else { return }
        ticking = true
        // Not weakly: a weak reference would make every other one to the server dearer.
        Loop.events.schedule(after: .seconds(1)) { [self] in
            ticking = false
            guard connections.count > 0 else { return }
            connections.forEach { $0.checkDeadlines(at: Loop.events.now) }
            run()
            startTicking()
        }
    }

    // MARK: Ending

    /// Answers under way.
    public var runningAnswers: Int { connections.countWhere { $0.exchange != nil } }

    /// Stops accepting, closes idle connections, lets running answers finish for as long as `patience` lasts, cuts
    /// what is left, and closes. Returns the number of connections that were cut.
    /// - Parameter willCut: called before the cut, if there is one; handlers are then cancelled and have a moment to
    ///   tell their clients.
    @discardableResult
    public func drain(within patience: Duration, willCut: @Loop () -> Void = {}) async -> Int {
        isDraining = true
        listeners.forEach { $0.close() }
        listeners = []
        connections.forEach { $0.closeIfIdle() }
        run()
        await waitUntilEmpty(for: patience)
        let cut = connections.count
        if cut > 0 {
            willCut()
            connections.forEach { $0.exchange?.cancelHandler() }
            await waitUntilEmpty(for: .milliseconds(100))
        }
        connections.forEach { $0.kill() }
        run()
        await waitUntilEmpty(for: .seconds(1))
        close()
        return cut
    }

    private func waitUntilEmpty(for patience: Duration) async {
        guard connections.count > 0 else { return }
        var timer: Timer?
        try? await Signal.wait { signal in
            whenEmpty = signal
            timer = Loop.events.schedule(after: patience) { signal.fire() }
        }
        whenEmpty = nil
        if let timer { Loop.events.cancel(timer) }
    }

    /// Closes everything at once. May be called twice.
    public func close() {
        listeners.forEach { $0.close() }
        listeners = []
        connections.forEach { $0.kill() }
        guard let daemon else { return }
        // libmicrohttpd must not be stopped while connections are suspended; one pass resumes them.
        MHD_run(daemon)
        self.daemon = nil
        isClosed = true
        if let daemonWatch { Loop.events.unwatch(daemonWatch) }
        MHD_stop_daemon(daemon)
        lingering.close()
    }
}

/// Why a server cannot do what it was told.
public enum ServerError: Error, CustomStringConvertible {
    case cannotStart
    case cannotListen(address: String, reason: String)

    public var description: String {
        switch self {
        case .cannotStart: "the HTTP server cannot start: no memory or descriptors left"
        case .cannotListen(let address, let reason): "cannot listen on \(address): \(reason)"
        }
    }
}
