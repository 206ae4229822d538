import EventLoop

/// Something to wait for until a test opens it.
@Loop
public final class Gate {
    private var isOpen = false
    private var waiting: [Signal] = []

    public init() {}

    public func open() {
        isOpen = true
        waiting.forEach { $0.fire() }
        waiting = []
    }

    /// Throws `CancellationError` as soon as the task is cancelled.
    public func wait() async throws {
        if !isOpen { try await Signal.wait { waiting.append($0) } }
    }
}

/// Looks again and again until `condition` holds.
/// - Returns: false if it did not within `limit`.
@Loop
public func eventually(within limit: Duration = .seconds(20), _ condition: @Loop () -> Bool) async -> Bool {
    let deadline = ContinuousClock.now + limit
    while !condition() {
        guard ContinuousClock.now < deadline else { return false }
        try? await Loop.sleep(for: .milliseconds(1))
    }
    return true
}

/// Bytes to recognise: each depends on its place.
public func pattern(_ count: Int) -> [UInt8] {
    precondition(count <= patterns.count)
    return Array(patterns[..<count])
}

/// Made once: it takes a while in a debug build.
private let patterns: [UInt8] = {
    let period = (0..<251).map { UInt8($0) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(33 << 20)
    while bytes.count < 32 << 20 { bytes += period }
    return bytes
}()
