/// The health of one backend, as probes and calls tell of it: decides, and does nothing.
///
///                 probe well                    a call or a probe fails
///     starting ───────────────► healthy ─────────────────────────────────► unhealthy
///                                  ▲  ▲        probe well, no call failed        │
///                                  │  └──────────────────────────────────────────┤
///                                  └─────────────── recovering ◄─────────────────┘
///                               its trial is well,     probe well, but calls had failed
///                               or the next probe
///
/// A backend that answers probes and fails calls is half-open when the next probe is well: it gets one call, the
/// trial, and the rest wait for what becomes of it, or for the probe after that. When no other backend takes calls, an
/// unhealthy one that has failed a call and no probe since may get a trial, too, and be healthy again by that.
struct Breaker {
    enum State: String, CaseIterable, Sendable {
        case starting, healthy, unhealthy, recovering
    }

    /// The right of one call to tell how it went.
    struct Pass: Equatable {
        fileprivate let epoch: Int
        /// 0 for a call that is no trial.
        fileprivate let trial: Int

        var isTrial: Bool { trial != 0 }
    }

    private(set) var state = State.starting
    /// Why it is not healthy.
    private(set) var reason: String?
    /// In a row: how long the next probe waits.
    private(set) var failures = 0
    /// Counts what has changed: what was begun before says nothing of now.
    private(set) var epoch = 0
    /// The last failure was a call's, and such that another call may be tried when there is nobody else.
    private var isDoubtful = false
    /// Calls failed, so that it is a call that has to show that all is well.
    private var needsTrial = false
    private var trial = 0
    private var lastTrial = 0

    /// Whether a call may go there.
    var takesCalls: Bool { state == .healthy || (state == .recovering && trial == 0) }
    /// Whether one may be tried there, if there is nobody better.
    var takesCallsInNeed: Bool { state == .unhealthy && isDoubtful && trial == 0 }
    /// Whether a call is finding out how it is.
    var isOnTrial: Bool { trial != 0 && state != .healthy }

    /// A call begins. At most one at a time but for a healthy backend.
    mutating func begin() -> Pass {
        guard state != .healthy else { return Pass(epoch: epoch, trial: 0) }
        lastTrial += 1
        trial = lastTrial
        return Pass(epoch: epoch, trial: trial)
    }

    /// A call begins that tries nothing: only its failure counts.
    func glance() -> Pass { Pass(epoch: epoch, trial: 0) }

    /// The call was answered, if only with an error that is not the backend's fault.
    /// - Returns: whether the state has changed, as with all of these.
    mutating func succeeded(_ pass: Pass) -> Bool {
        guard counts(pass) else { return false }
        withdrew(pass)
        failures = 0
        return state == .healthy ? false : become(.healthy, nil)
    }

    /// The call failed by the backend's fault.
    /// - Parameter mayBeTriedInNeed: whether the next call would not wait long for the same.
    mutating func failed(_ pass: Pass, _ reason: String, mayBeTriedInNeed: Bool) -> Bool {
        guard counts(pass) else { return false }
        withdrew(pass)
        isDoubtful = mayBeTriedInNeed
        needsTrial = true
        // Only probes are put off by failures.
        if state == .unhealthy {
            self.reason = reason
            return false
        }
        return fail(reason)
    }

    /// Whether it says something of now: the trial always does.
    private func counts(_ pass: Pass) -> Bool { pass.epoch == epoch || (pass.isTrial && pass.trial == trial) }

    /// The call ended without telling anything: its client left.
    mutating func withdrew(_ pass: Pass) {
        if pass.trial == trial { trial = 0 }
    }

    /// A probe was well.
    /// - Parameter epoch: that in which it was sent.
    mutating func probed(since epoch: Int) -> Bool {
        guard epoch == self.epoch else { return false }
        switch state {
        case .healthy: return false
        case .unhealthy where needsTrial: return become(.recovering, reason)
        case .starting, .unhealthy, .recovering:
            // Whether calls are well is not known: if not, the next probes come as late as before.
            if !needsTrial { failures = 0 }
            return become(.healthy, nil)
        }
    }

    /// A probe failed.
    mutating func probeFailed(since epoch: Int, _ reason: String) -> Bool {
        guard epoch == self.epoch else { return false }
        isDoubtful = false
        needsTrial = false
        return fail(reason)
    }

    private mutating func fail(_ reason: String) -> Bool {
        failures += 1
        guard state != .unhealthy else {
            self.reason = reason
            return false
        }
        return become(.unhealthy, reason)
    }

    private mutating func become(_ state: State, _ reason: String?) -> Bool {
        self.state = state
        self.reason = reason
        epoch += 1
        if state == .healthy { (isDoubtful, needsTrial, trial) = (false, false, 0) }
        return true
    }

    // MARK: Probes

    private static let soonest: UInt64 = 1_000_000_000

    /// Nanoseconds until the next probe: the interval, or sooner while it is unhealthy, from a second up to the
    /// interval.
    /// - Parameter jitter: 0…1; takes up to a fifth off, so that probes do not march in step.
    func nextProbe(interval: UInt64, jitter: Double) -> UInt64 {
        var pause = interval
        if state == .unhealthy { pause = min(interval, Breaker.soonest << UInt64(min(max(failures - 1, 0), 16))) }
        return pause - UInt64(Double(pause) * 0.2 * min(max(jitter, 0), 1))
    }
}
