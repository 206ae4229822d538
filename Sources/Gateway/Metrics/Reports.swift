import EventLoop
import HTTPCore

/// What is told of all there is, and takes its time to be written: whoever asks again at once gets the same, so that
/// nobody can keep the loop busy with it, or fill the memory with copies that are read slowly.
@Loop
struct Reports<Kind: Hashable> {
    private var last: [Kind: (bytes: Bytes, until: UInt64)] = [:]

    /// Writing takes this part of the time at most.
    private static var share: UInt64 { 20 }
    /// Bytes: larger ones are written once a second at most.
    private static var large: Int { 256 * 1024 }

    mutating func bytes(for kind: Kind, _ write: () -> Bytes) -> Bytes {
        let start = EventLoop.monotonicNanoseconds()
        if let last = last[kind], start < last.until { return last.bytes }
        let bytes = write()
        let end = EventLoop.monotonicNanoseconds()
        let pause = bytes.count > Self.large ? 1_000_000_000 : (end &- start) * Self.share
        last[kind] = (bytes, end &+ pause)
        return bytes
    }
}
