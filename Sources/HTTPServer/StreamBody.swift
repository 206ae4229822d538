import EventLoop
import Glibc
import HTTPCore

/// The body of a streamed answer.
///
/// Of a body of unknown length libmicrohttpd sends the header and, at the end, the last chunk; in between its
/// connection stays suspended and the chunks go straight from the producer's buffer to the socket. That saves, for
/// each chunk, two copies, a walk over all suspended connections and a system call or two. It is sound because
/// libmicrohttpd asks for the first piece of a body only when all of the header has left, and does not touch the
/// socket of a suspended connection.
///
/// A body of known length is read by libmicrohttpd piece by piece, since it counts the bytes.
@Loop
final class StreamBody: ResponseWriter {
    /// `none` is for an answer to HEAD: what is written goes nowhere.
    enum Framing { case chunked, plain, counted, none }

    private enum Ending { case finished, aborted }

    var onDrain: (@Loop () -> Void)?

    private let connection: Connection
    /// Let go of at the end: the exchange holds its body too.
    private var exchange: Exchange?
    private let framing: Framing
    /// Framed bytes that the socket has not taken, or that came before the header was out.
    private var queue = ByteBuffer()
    /// The header has left, and the socket is ours until the end.
    private var ownsSocket = false
    private var ending: Ending?
    private var isOver = false
    private var isFull = false
    /// Since when the client has taken nothing of what waits for it.
    private var stalledSince = UInt64.max

    init(on connection: Connection, exchange: Exchange, framing: Framing) {
        self.connection = connection
        self.exchange = exchange
        self.framing = framing
    }

    // MARK: The writer's side

    func write(_ chunk: UnsafeRawBufferPointer) -> Flow {
        guard !isOver, ending == nil else { return .stop }
        guard chunk.count > 0, framing != .none else { return isFull ? .pause : .more }
        if ownsSocket && queue.isEmpty { return writeThrough(chunk) }
        withFrame(of: chunk.count) { head, tail in
            queue.append(head)
            queue.append(chunk)
            queue.append(tail)
        }
        if framing == .counted { exchange?.resume() }
        isFull = isFull || queue.count >= ByteStream.highWater
        return isFull ? .pause : .more
    }

    func finish() { end(.finished) }

    func abort() { end(.aborted) }

    func cut() { if !isOver { connection.kill() } }

    private func end(_ ending: Ending) {
        guard !isOver, self.ending == nil else { return }
        self.ending = ending
        if queue.isEmpty || framing == .counted { exchange?.resume() }
    }

    // MARK: The socket's side

    private func writeThrough(_ chunk: UnsafeRawBufferPointer) -> Flow {
        let sent = withFrame(of: chunk.count) { head, tail in
            let sent = transmit(head, chunk, tail)
            if sent >= 0, sent < head.count + chunk.count + tail.count { keep([head, chunk, tail], after: sent) }
            return sent
        }
        if sent < 0 {
            exchange?.clientHasLeft()
            return .stop
        }
        guard !queue.isEmpty else { return .more }
        waitForRoom()
        isFull = true
        return .pause
    }

    /// - Returns: bytes taken, 0 if the socket is full, -1 if the connection is broken.
    private func transmit(
        _ head: UnsafeRawBufferPointer, _ chunk: UnsafeRawBufferPointer, _ tail: UnsafeRawBufferPointer
    ) -> Int {
        withUnsafeTemporaryAllocation(of: iovec.self, capacity: 3) { pieces in
            pieces[0] = iovec(head)
            pieces[1] = iovec(chunk)
            pieces[2] = iovec(tail)
            let sent = writev(connection.socket, pieces.baseAddress, 3)
            return sent >= 0 ? sent : errno == EAGAIN || errno == EINTR ? 0 : -1
        }
    }

    /// Keeps what the socket has not taken.
    private func keep(_ pieces: [UnsafeRawBufferPointer], after sent: Int) {
        var skipped = sent
        for piece in pieces {
            let taken = min(skipped, piece.count)
            skipped -= taken
            queue.append(UnsafeRawBufferPointer(rebasing: piece[taken...]))
        }
    }

    /// Sends what waits; called when the header is out and whenever the socket has room again.
    func flush() {
        guard ownsSocket, !isOver else { return }
        while !queue.isEmpty {
            let waiting = queue.unread
            let sent = Glibc.write(connection.socket, waiting.baseAddress, waiting.count)
            if sent < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN { return waitForRoom() }
                exchange?.clientHasLeft()
                return
            }
            queue.consume(sent)
            stalledSince = .max
        }
        if ending != nil { exchange?.resume() } else { drained() }
    }

    private func waitForRoom() {
        if stalledSince == .max { stalledSince = Loop.events.now }
        connection.watchForRoom()
    }

    private func drained() {
        guard isFull else { return }
        isFull = false
        onDrain?()
    }

    /// Whether the client has refused every byte for longer than it may.
    func isStalled(at now: UInt64) -> Bool {
        stalledSince != .max && now &- stalledSince > connection.server.limits.idleTimeout.clampedNanoseconds
    }

    // MARK: libmicrohttpd's side

    private static let endOfBody = -1
    private static let brokenOff = -2

    /// libmicrohttpd asks for the next bytes: how many there are, or -1 at the end, -2 to break off; 0 and a
    /// suspended connection if it must wait.
    func read(into room: UnsafeMutableRawBufferPointer) -> Int {
        guard !isOver else { return StreamBody.brokenOff }
        if framing == .counted {
            let length = min(queue.count, room.count)
            if length > 0 {
                room.copyMemory(from: UnsafeRawBufferPointer(rebasing: queue.unread[..<length]))
                queue.consume(length)
                if queue.isEmpty { Loop.events.atEndOfTurn { self.drained() } }
                return length
            }
        } else {
            ownsSocket = true
            flush()
        }
        if isOver { return StreamBody.brokenOff }
        if queue.isEmpty, let ending { return ending == .finished ? StreamBody.endOfBody : StreamBody.brokenOff }
        exchange?.suspend()
        return 0
    }

    /// The request is over, or its client is gone: nothing is written any more.
    func end() {
        isOver = true
        exchange = nil
        onDrain?()
        onDrain = nil
    }

    // MARK: Framing

    /// Lends what goes around a chunk: its length in hexadecimal and CRLF before, CRLF after.
    private func withFrame<T>(
        of length: Int, _ body: (_ head: UnsafeRawBufferPointer, _ tail: UnsafeRawBufferPointer) -> T
    ) -> T {
        guard framing == .chunked else {
            return body(UnsafeRawBufferPointer(start: nil, count: 0), UnsafeRawBufferPointer(start: nil, count: 0))
        }
        return withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { bytes in
            bytes[18] = 0x0d
            bytes[19] = 0x0a
            var start = 18
            var rest = length
            repeat {
                start -= 1
                let digit = UInt8(rest & 15)
                bytes[start] = digit < 10 ? 0x30 + digit : 0x57 + digit
                rest >>= 4
            } while rest > 0
            let crlf = UnsafeRawBufferPointer(rebasing: bytes[18...])
            return body(UnsafeRawBufferPointer(rebasing: bytes[start...]), crlf)
        }
    }
}

extension iovec {
    fileprivate init(_ piece: UnsafeRawBufferPointer) {
        self.init(iov_base: UnsafeMutableRawPointer(mutating: piece.baseAddress), iov_len: piece.count)
    }
}
