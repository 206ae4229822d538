import CLinux
import Glibc

extension EventLoop {
    /// Turns signals into calls on the loop.
    ///
    /// The signals are blocked in the calling thread, so call this before any other thread is started; threads
    /// inherit the mask. Each delivery calls `handler` with the signal's number. Source: signalfd(2).
    public func onSignals(_ signals: [Int32], handler: @escaping @Loop (Int32) -> Void) {
        var mask = sigset_t()
        sigemptyset(&mask)
        for signal in signals { sigaddset(&mask, signal) }
        pthread_sigmask(SIG_BLOCK, &mask, nil)
        let descriptor = signalfd(-1, &mask, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
        precondition(descriptor >= 0, "no descriptor left for signals (errno \(errno))")
        // The descriptor lives as long as the process.
        _ = watch(descriptor, for: .read) { _ in
            var info = signalfd_siginfo()
            while read(descriptor, &info, MemoryLayout.size(ofValue: info)) == MemoryLayout.size(ofValue: info) {
                handler(Int32(bitPattern: info.ssi_signo))
            }
        }
    }
}
