import CCurl
import EventLoop
import Glibc

/// libcurl's sockets in the event loop.
///
/// libcurl says for each request anew that it wants to read and, when it is done, that it wants nothing. A
/// connection that stays open stays registered, so that a request on a kept connection costs no epoll_ctl. That
/// needs to know exactly when a socket closes: libcurl opens and closes its connections through ``open`` and
/// ``close``. The few other descriptors it has (the resolver's) are registered and removed as it says.
@Loop
final class CurlSockets {
    /// Called after libcurl has worked, to see what has finished.
    var acted: (@Loop () -> Void)?

    private final class Entry {
        var watch: Watch?
        var wanted: Interest = []
        var registered: Interest = []
        /// Who uses the connection now.
        weak var transfer: Transfer?
        let isConnection: Bool

        init(isConnection: Bool) { self.isConnection = isConnection }
    }

    private let multi: UnsafeMutableRawPointer
    private var entries: [Int32: Entry] = [:]

    init(multi: UnsafeMutableRawPointer) { self.multi = multi }

    func open(_ family: Int32, _ type: Int32, _ protocol: Int32) -> Int32 {
        let socket = Glibc.socket(family, type | Int32(SOCK_CLOEXEC.rawValue), `protocol`)
        if socket >= 0 { entries[socket] = Entry(isConnection: true) }
        return socket
    }

    func close(_ socket: Int32) {
        forget(socket)
        Glibc.close(socket)
    }

    /// libcurl says what it wants of a socket, and for whom.
    func wanted(_ socket: Int32, _ what: Int32, by transfer: Transfer?) {
        if what == CURL_POLL_REMOVE {
            guard let entry = entries[socket] else { return }
            entry.wanted = []
            entry.transfer = nil
            if !entry.isConnection { forget(socket) }
            return
        }
        let entry = entries[socket] ?? Entry(isConnection: false)
        entries[socket] = entry
        entry.transfer = transfer
        entry.wanted = [.peerClosed]
        if what & CURL_POLL_IN != 0 { entry.wanted.insert(.read) }
        if what & CURL_POLL_OUT != 0 { entry.wanted.insert(.write) }
        if let watch = entry.watch {
            if entry.registered != entry.wanted { Loop.events.update(watch, for: entry.wanted) }
        } else {
            entry.watch = Loop.events.watch(socket, for: entry.wanted) { [unowned self] in happened($0, socket) }
        }
        entry.registered = entry.wanted
    }

    private func happened(_ events: Events, _ socket: Int32) {
        guard let entry = entries[socket] else { return }
        var bits: Int32 = 0
        if events.contains(.readable) { bits |= CURL_CSELECT_IN }
        if events.contains(.writable) { bits |= CURL_CSELECT_OUT }
        if !events.isDisjoint(with: [.failed, .hungUp]) { bits |= CURL_CSELECT_ERR | CURL_CSELECT_IN }
        if entry.wanted.isDisjoint(with: [.read, .write]) {
            // The server has closed a connection of which libcurl wants nothing now: it is kept for later, or its
            // reader is paused. libcurl will find out when it wants something.
            if let watch = entry.watch { Loop.events.unwatch(watch) }
            entry.watch = nil
            entry.registered = []
            return
        }
        let transfer = entry.transfer
        if bits != 0 { act(socket, bits) }
        guard events.contains(.peerClosed) else { return }
        transfer?.serverHasClosed()
        // Said once: the state lasts, and libcurl may want to write for a long time yet.
        if let watch = entry.watch, entries[socket] === entry, entry.registered.contains(.peerClosed) {
            entry.registered.remove(.peerClosed)
            Loop.events.update(watch, for: entry.registered)
        }
    }

    func act(_ socket: Int32, _ bits: Int32) {
        var running: Int32 = 0
        curl_multi_socket_action(multi, socket, bits, &running)
        acted?()
    }

    private func forget(_ socket: Int32) {
        if let watch = entries.removeValue(forKey: socket)?.watch { Loop.events.unwatch(watch) }
    }
}
