import EventLoop
import Glibc

/// One connection with one streamed answer on it.
@Loop
final class LoadStream {
    enum End {
        /// The whole answer came.
        case complete
        /// The answer ended cleanly, but without its last line.
        case incomplete
        /// No connection, for want of a listener, a descriptor or a port.
        case connect
        /// The connection ended amid the answer.
        case cut
        case status, malformed
    }

    private unowned let load: Load
    private var descriptor: Int32 = -1
    private var watch: Watch?
    private var connected = false
    private var scanner = AnswerScanner()
    private(set) var started = false

    init(_ load: Load) {
        self.load = load
    }

    func open(_ address: sockaddr_in) {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        descriptor = socket(AF_INET, kind, 0)
        guard descriptor >= 0 else { return end(.connect) }
        let result = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 || errno == EINPROGRESS else { return end(.connect) }
        // The watch keeps the stream alive until `close` ends it.
        watch = Loop.events.watch(descriptor, for: .write) { _ in self.ready() }
        if watch == nil { end(.connect) }
    }

    func close() {
        if let watch { Loop.events.unwatch(watch) }
        watch = nil
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }

    private func ready() {
        if connected { receive() } else { ask() }
    }

    /// Sends the request as soon as the connection stands; it fits into any empty send buffer.
    private func ask() {
        let request = load.plan.request
        let sent = request.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        guard sent == request.count, let watch else { return end(.connect) }
        connected = true
        Loop.events.update(watch, for: .read)
    }

    private func receive() {
        let buffer = load.buffer
        let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
        guard count > 0 else {
            if count < 0, errno == EAGAIN || errno == EINTR { return }
            return end(.cut)
        }
        // Read anew for each descriptor: the turn's own time would hide what this tool itself is late by.
        let now = EventLoop.monotonicNanoseconds()
        load.received(bytes: count)
        do throws(AnswerScanner.Failure) {
            try scanner.scan(UnsafeRawBufferPointer(rebasing: buffer[0..<count])) { load.received(stamp: $0, at: now) }
        } catch {
            return end(error == .status ? .status : .malformed)
        }
        if !started, scanner.content {
            started = true
            load.streamStarted()
        }
        if scanner.ended { end(scanner.done ? .complete : .incomplete) }
    }

    private func end(_ reason: End) {
        close()
        load.streamEnded(self, reason)
    }
}
