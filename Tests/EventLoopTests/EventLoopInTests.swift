import EventLoop
import Testing

extension EventLoop {
    /// Runs a loop that belongs to one test, on the test's own thread, until something stops it. A loop that nothing
    /// stops fails the test after ten seconds.
    func runLimited(sourceLocation: SourceLocation = #_sourceLocation) {
        let limit = schedule(after: .seconds(10)) {
            Issue.record("nothing stopped the loop", sourceLocation: sourceLocation)
            self.stop()
        }
        run()
        cancel(limit)
    }

    /// ``EventLoop/watch(_:for:handler:)``, for a descriptor that the kernel has to take.
    @discardableResult
    func mustWatch(
        _ descriptor: Int32, for interest: Interest, sourceLocation: SourceLocation = #_sourceLocation,
        handler: @escaping @Loop (Events) -> Void
    ) throws -> Watch {
        let watch = watch(descriptor, for: interest, handler: handler)
        return try #require(watch, sourceLocation: sourceLocation)
    }
}
