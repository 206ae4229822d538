import EventLoop

/// A thread for the program's one loop, so that tests marked `@Loop` have somebody to run them.
///
/// A suite with such tests calls ``start()`` in its `init`, which must not itself be on the loop:
///
///     @Suite struct ByteStreamTests {
///         init() { LoopThread.start() }
///         @Test @Loop func `…`() async throws { … }
///     }
public enum LoopThread {
    /// Makes sure that the loop runs; it does so for as long as the test process lives.
    public static func start() { _ = started }

    private static let started: Void = detachThread { Loop.events.run() }
}
