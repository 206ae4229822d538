import Synchronization

/// What happened, in order, noted from any thread.
public final class Recorder<Value: Sendable>: Sendable {
    private let noted = Mutex<[Value]>([])

    public init() {}

    public var values: [Value] { noted.withLock { $0 } }
    public var count: Int { noted.withLock { $0.count } }

    public func note(_ value: Value) { noted.withLock { $0.append(value) } }
}
