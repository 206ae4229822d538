import EventLoop
import Glibc
import HTTPCore

/// A client's connection: its socket, how long it may take, and the request under way on it.
///
/// libmicrohttpd holds one reference from its start to its end (`onConnection`), the table another.
@Loop
final class Connection {
    let socket: Int32
    let peer: PeerAddress
    // The server closes all its connections before it goes.
    unowned let server: HTTPServer
    /// When the client must have sent what is awaited of it, in the loop's time.
    var deadline = UInt64.max
    /// The request under way; it lets go of the connection when it is over.
    var exchange: Exchange?
    /// Set when an answer was sent before all of the request was read: closing then must not reset the connection
    /// before the client has read the answer.
    var lingers = false
    private(set) var isOpen = true
    /// The client has closed its side; libmicrohttpd may not know.
    private(set) var peerHasClosed = false
    fileprivate var index = 0
    private var watch: Watch?

    init(socket: Int32, peer: PeerAddress, server: HTTPServer) {
        self.socket = socket
        self.peer = peer
        self.server = server
    }

    // MARK: The client leaving

    /// Sees to it that we learn when the client leaves.
    ///
    /// libmicrohttpd does not look at a suspended connection, and misses an end that arrives together with the last
    /// bytes before it (its own watch is edge-triggered). Ours is edge-triggered too and stays for the connection's
    /// life: one system call a connection.
    func watchPeer() {
        watch = Loop.events.watch(socket, for: [.peerClosed, .edgeTriggered]) { [unowned self] in happened($0) }
    }

    /// Asks to be told when the socket takes bytes again; ``Exchange/writable()`` is called, once.
    func watchForRoom() {
        if let watch { Loop.events.update(watch, for: [.peerClosed, .write, .edgeTriggered]) }
    }

    private func happened(_ events: Events) {
        if !events.isDisjoint(with: [.hungUp, .failed]) {
            peerHasClosed = true
            exchange?.clientHasLeft()
            return
        }
        if events.contains(.peerClosed), !peerHasClosed {
            peerHasClosed = true
            // Makes libmicrohttpd look again; what has arrived can still be read.
            shutdown(socket, Int32(SHUT_RD))
            leaveIfAtEnd()
        }
        if isOpen, events.contains(.writable) {
            if let watch { Loop.events.update(watch, for: [.peerClosed, .edgeTriggered]) }
            exchange?.writable()
        }
    }

    /// A client that has closed its side and has left nothing to read does not wait for the answer under way.
    func leaveIfAtEnd() {
        if peerHasClosed, isOpen, exchange?.isSuspended == true, isAtEnd() { exchange?.clientHasLeft() }
    }

    /// Whether the client has closed its side and left nothing to read. One that has sent a further request before
    /// closing its side is still waiting for answers.
    private func isAtEnd() -> Bool {
        var byte: UInt8 = 0
        return recv(socket, &byte, 1, Int32(MSG_PEEK | MSG_DONTWAIT)) == 0
    }

    // MARK: Time

    func checkDeadlines(at now: UInt64) {
        if now >= deadline {
            deadline = .max
            exchange?.refuse(for: .tooSlow)
            kill()
        } else if exchange?.isStalled(at: now) == true {
            kill()
        }
    }

    func requestEnded() {
        exchange = nil
        deadline = Loop.events.now &+ server.limits.idleTimeout.clampedNanoseconds
        if server.isDraining { kill() }
    }

    func closeIfIdle() {
        if exchange == nil { kill() }
    }

    /// Cuts the connection; what was written before is still delivered. libmicrohttpd sees it and closes.
    ///
    /// With an answer on its way to a client that is still sending, only our side is shut: shutting both would reset
    /// the connection with the client's next byte, and the answer with it.
    func kill() {
        shutdown(socket, Int32(lingers ? SHUT_WR : SHUT_RDWR))
        if lingers { exchange?.hurry() }
        exchange?.clientHasLeft()
        server.runSoon()
    }

    /// libmicrohttpd is about to close the socket.
    func end(lingering: Lingering) {
        isOpen = false
        if let watch { Loop.events.unwatch(watch) }
        watch = nil
        if lingers { lingering.take(over: socket) }
    }
}

/// All connections; adding, removing and counting a peer's take constant time.
@Loop
struct ConnectionTable {
    private var all: [Connection] = []
    private var perPeer: [PeerAddress: Int] = [:]

    var count: Int { all.count }

    func admits(_ peer: PeerAddress, limit: Int) -> Bool {
        limit == 0 || peer == .local || perPeer[key(peer), default: 0] < limit
    }

    mutating func add(_ connection: Connection) {
        connection.index = all.count
        all.append(connection)
        perPeer[key(connection.peer), default: 0] += 1
    }

    mutating func remove(_ connection: Connection) {
        guard connection.index < all.count, all[connection.index] === connection else { return }
        let last = all.removeLast()
        if last !== connection {
            all[connection.index] = last
            last.index = connection.index
        }
        let peer = key(connection.peer)
        perPeer[peer] = perPeer[peer].flatMap { $0 > 1 ? $0 - 1 : nil }
    }

    func forEach(_ body: (Connection) -> Void) { all.forEach(body) }

    func countWhere(_ condition: (Connection) -> Bool) -> Int { all.count(where: condition) }

    private func key(_ peer: PeerAddress) -> PeerAddress {
        if case .ipv6(let high, _) = peer { .ipv6(high, 0) } else { peer }
    }
}
