import EventLoop
import HTTPCore

/// What is told of all there is. Where that is much it is written once a second at most, and whoever asks again gets the
/// same: nobody can keep the loop busy with it, or fill the memory with copies that are read slowly.
@Loop
struct Reports<Kind: Hashable> {
    private var last: [Kind: (bytes: Bytes, until: UInt64)] = [:]

    /// Bytes from which on it is much: about half a millisecond's work.
    private static var much: Int { 256 * 1024 }

    mutating func bytes(for kind: Kind, _ write: () -> Bytes) -> Bytes {
        if let last = last[kind], Loop.events.now < last.until { return last.bytes }
        let bytes = write()
        last[kind] = bytes.count < Self.much ? nil : (bytes, Loop.events.now &+ 1_000_000_000)
        return bytes
    }
}
