import CLinux

/// What to wait for on a descriptor. Source: epoll_ctl(2).
public struct Interest: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let read = Interest(rawValue: EPOLLIN.rawValue)
    public static let write = Interest(rawValue: EPOLLOUT.rawValue)
    /// The peer has closed its side, or all of the connection.
    public static let peerClosed = Interest(rawValue: EPOLLRDHUP.rawValue)
    /// Report a change once instead of a state each turn.
    public static let edgeTriggered = Interest(rawValue: EPOLLET.rawValue)
}

/// What has happened on a descriptor. Source: epoll_ctl(2).
public struct Events: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let readable = Events(rawValue: EPOLLIN.rawValue)
    public static let writable = Events(rawValue: EPOLLOUT.rawValue)
    /// The peer has closed its side of the connection, or all of it.
    public static let peerClosed = Events(rawValue: EPOLLRDHUP.rawValue)
    public static let hungUp = Events(rawValue: EPOLLHUP.rawValue)
    public static let failed = Events(rawValue: EPOLLERR.rawValue)
}

/// A descriptor being watched, as ``EventLoop/watch(_:for:handler:)`` returned it.
public struct Watch: Sendable {
    public let descriptor: Int32
    /// Slot in the low half, the slot's generation in the high half: an event for a watch that ended in this very
    /// turn finds a newer generation and is dropped.
    let token: UInt64
}

struct WatchTable {
    static let wakeupToken = UInt64.max

    private struct Slot {
        var generation: UInt32
        var handler: (@Loop (Events) -> Void)?
    }

    private var slots: [Slot] = []
    private var free: [Int] = []

    mutating func add(_ descriptor: Int32, _ handler: @escaping @Loop (Events) -> Void) -> Watch {
        let index: Int
        if let reused = free.popLast() {
            index = reused
            slots[index].handler = handler
        } else {
            index = slots.count
            slots.append(Slot(generation: 0, handler: handler))
        }
        return Watch(descriptor: descriptor, token: UInt64(slots[index].generation) << 32 | UInt64(index))
    }

    @discardableResult
    mutating func remove(_ watch: Watch) -> Bool {
        let index = Int(watch.token & 0xffff_ffff)
        guard slots[index].generation == UInt32(watch.token >> 32), slots[index].handler != nil else { return false }
        slots[index].handler = nil
        slots[index].generation &+= 1
        free.append(index)
        return true
    }

    func handler(for token: UInt64) -> (@Loop (Events) -> Void)? {
        let slot = slots[Int(token & 0xffff_ffff)]
        return slot.generation == UInt32(token >> 32) ? slot.handler : nil
    }
}
