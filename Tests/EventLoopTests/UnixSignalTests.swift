import EventLoop
import Glibc
import TestSupport
import Testing

/// `onSignals`, on threads of its own: the signals are blocked there and nowhere else in the test process, and are
/// sent to that very thread. (That `kill` reaches a whole process is seen in the end-to-end tests.)
@Suite struct UnixSignalTests {
    @Test func `a signal is a call on the loop`() async {
        let seen = await signals(watched: [SIGUSR1, SIGUSR2], sent: [SIGUSR2])
        #expect(seen == [SIGUSR2])
    }

    @Test func `several kinds of signals are told apart`() async {
        let seen = await signals(watched: [SIGUSR1, SIGUSR2], sent: [SIGUSR2, SIGUSR1])
        #expect(seen.sorted() == [SIGUSR1, SIGUSR2])
    }

    @Test func `a signal sent while the loop runs wakes it`() async {
        let seen = await onNewThread {
            let loop = EventLoop()
            let seen = Recorder<Int32>()
            loop.onSignals([SIGUSR1]) { signal in
                seen.note(signal)
                loop.stop()
            }
            let thread = currentThread()
            loop.schedule(after: .milliseconds(1)) {
                detachThread { pthread_kill(pthread_t(thread), SIGUSR1) }
            }
            loop.runLimited()
            return seen.values
        }
        #expect(seen == [SIGUSR1])
    }

    private func signals(watched: [Int32], sent: [Int32]) async -> [Int32] {
        await onNewThread {
            let loop = EventLoop()
            let seen = Recorder<Int32>()
            loop.onSignals(watched) { signal in
                seen.note(signal)
                if seen.count == sent.count { loop.stop() }
            }
            for signal in sent { pthread_kill(pthread_self(), signal) }
            loop.runLimited()
            return seen.values
        }
    }
}
