import EventLoop
import Glibc

/// Closes connections whose request was refused half-read without hurting the answer.
///
/// Closing a socket that holds unread bytes resets the connection, and the reset can overtake the answer. So a
/// second descriptor stays open for a while: our side is shut, what the client still sends is thrown away, until it
/// closes, or a time and an amount are up. Source: RFC 9112 section 9.6.
@Loop
final class Lingering {
    private static let patience = Duration.seconds(5)
    private static let bytesAtMost = 256 * 1024 * 1024
    private static let socketsAtMost = 256

    private final class Socket {
        let descriptor: Int32
        var watch: Watch?
        var timer: Timer?
        var discarded = 0

        init(_ descriptor: Int32) { self.descriptor = descriptor }
    }

    private var sockets: [Int32: Socket] = [:]
    // Unsafe only in name: written on the loop, freed when nobody is left to write.
    private nonisolated(unsafe) let waste = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 16)

    deinit { waste.deallocate() }

    /// Keeps the connection behind `original` open a little longer; the caller closes `original`.
    func take(over original: Int32) {
        guard sockets.count < Lingering.socketsAtMost else { return }
        let descriptor = fcntl(original, F_DUPFD_CLOEXEC, 0)
        guard descriptor >= 0 else { return }
        shutdown(descriptor, Int32(SHUT_WR))
        let socket = Socket(descriptor)
        sockets[descriptor] = socket
        socket.watch = Loop.events.watch(descriptor, for: .read) { [weak self] _ in self?.discard(socket) }
        socket.timer = Loop.events.schedule(after: Lingering.patience) { [weak self] in self?.end(socket) }
    }

    func close() { sockets.values.forEach(end) }

    private func discard(_ socket: Socket) {
        // A few reads a turn, so that a fast sender does not hold up everybody else.
        for _ in 0..<16 {
            let count = recv(socket.descriptor, waste.baseAddress, waste.count, Int32(MSG_DONTWAIT))
            guard count > 0 else {
                if count == 0 || errno != EAGAIN { end(socket) }
                return
            }
            socket.discarded += count
            if socket.discarded > Lingering.bytesAtMost { return end(socket) }
        }
    }

    private func end(_ socket: Socket) {
        guard sockets.removeValue(forKey: socket.descriptor) != nil else { return }
        if let watch = socket.watch { Loop.events.unwatch(watch) }
        if let timer = socket.timer { Loop.events.cancel(timer) }
        Glibc.close(socket.descriptor)
    }
}
