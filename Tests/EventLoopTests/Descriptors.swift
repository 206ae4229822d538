import Glibc

/// Two connected descriptors that are closed with their owner: a pipe, or a pair of stream sockets.
final class Descriptors: @unchecked Sendable {
    // Why @unchecked Sendable is safe: the loops under test run on the test's own thread.

    /// The end of a pipe to read from; either end of a pair of sockets.
    let near: Int32
    /// The end of a pipe to write to; the other end of a pair of sockets.
    private(set) var far: Int32

    static func pipe() -> Descriptors {
        var ends: [Int32] = [-1, -1]
        precondition(Glibc.pipe(&ends) == 0, "no descriptors left")
        for end in ends { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
        return Descriptors(near: ends[0], far: ends[1])
    }

    static func sockets() -> Descriptors {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        precondition(socketpair(AF_UNIX, kind, 0, &ends) == 0, "no descriptors left")
        return Descriptors(near: ends[0], far: ends[1])
    }

    private init(near: Int32, far: Int32) {
        self.near = near
        self.far = far
    }

    deinit {
        close(near)
        closeFar()
    }

    func closeFar() {
        if far >= 0 { close(far) }
        far = -1
    }

    /// Writes on the far end.
    func send(_ text: String) {
        precondition(write(far, text, text.utf8.count) == text.utf8.count)
    }

    /// Reads on the near end what has arrived, at most `limit` bytes.
    @discardableResult
    func receive(limit: Int = 65_536) -> String {
        var bytes = [UInt8](repeating: 0, count: limit)
        let count = read(near, &bytes, limit)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }

    /// Fills what the kernel holds for `descriptor` until it takes no more.
    static func fill(_ descriptor: Int32) {
        let block = [UInt8](repeating: 0, count: 65_536)
        while write(descriptor, block, block.count) > 0 {}
    }
}
