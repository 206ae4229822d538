import EventLoop
import HTTPCore

/// Names requests: a client's own id if it is sane, else one that no other request has.
@Loop
struct RequestIDs {
    private let prefix: String
    private var count: UInt64 = 0

    init() {
        // Random once a process; then counting is enough.
        prefix = String(UInt64.random(in: .min ... .max) | 1 << 63, radix: 16) + "-"
    }

    mutating func next() -> String {
        count += 1
        return prefix + String(count, radix: 16)
    }

    /// 1 to 128 letters, digits and `-_.:/+=@`: what can stand in a log line and a header without harm.
    mutating func id(for request: Request) -> String {
        if let own = request.headers["x-request-id"], RequestIDs.isSane(own) { return own }
        return next()
    }

    static func isSane(_ id: String) -> Bool {
        (1...128).contains(id.utf8.count)
            && id.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
                default: "-_.:/+=@".utf8.contains(byte)
                }
            }
    }
}
