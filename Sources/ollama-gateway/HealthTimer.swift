import Dispatch
import EventLoop
import Gateway

/// The Dispatch timer behind the health probes: fires on a queue of its own, and rings on the loop.
@Loop
final class HealthTimer: Alarm {
    private let timer = DispatchSource.makeTimerSource(queue: .global(qos: .utility))
    private var action: (@Loop () -> Void)?

    init() {
        timer.setEventHandler(handler: HealthTimer.handler(of: self))
        timer.activate()
    }

    /// Nonisolated: Dispatch calls it on a thread of its own.
    private nonisolated static func handler(of alarm: HealthTimer) -> @Sendable () -> Void {
        { [weak alarm] in Loop.onLoop { alarm?.fire() } }
    }

    isolated deinit { timer.cancel() }

    func ring(after delay: Duration, _ action: @escaping @Loop () -> Void) {
        self.action = action
        let nanoseconds = Int(clamping: delay.clampedNanoseconds)
        timer.schedule(deadline: .now() + .nanoseconds(nanoseconds), leeway: .milliseconds(1))
    }

    private func fire() {
        guard let action else { return }
        self.action = nil
        action()
    }
}
