/// What happens to backends, as far as it matters to the balancer.
extension Balancer {
    // MARK: Calls

    /// A request goes there that takes no place, and whose answer does not say that the backend is well.
    func visit(_ backend: Int, at now: UInt64) -> Lease {
        Lease(backend: backend, pass: backends[backend].breaker.glance(), digest: "", since: now, takesPlace: false)
    }

    /// A call takes its place.
    mutating func begin(_ backend: Int, _ digest: String, at now: UInt64) -> Lease {
        let (pass, loads) = change(backend) { state in
            state.running += 1
            return (state.breaker.begin(), !digest.isEmpty && state.begins(digest, at: now))
        }
        if loads { loadsChanged(at: backend) }
        return Lease(backend: backend, pass: pass, digest: digest, since: now, takesPlace: true)
    }

    /// A call's answer has begun, and it is no failure of the backend's.
    /// - Parameter isGood: whether the model answered, and is loaded therefore.
    /// - Returns: whether the backend's state has changed, and whether it has loaded a model.
    package mutating func answered(_ lease: Lease, isGood: Bool) -> (changed: Bool, loaded: Bool) {
        guard lease.takesPlace else { return (false, false) }
        let loaded = isGood && change(lease.backend) { $0.answers(with: lease.digest) }
        return (healthChanges(lease.backend) { $0.breaker.succeeded(lease.pass) }, loaded)
    }

    /// A call failed by the backend's fault.
    mutating func failed(_ lease: Lease, _ reason: String, mayBeTriedInNeed: Bool) -> Bool {
        healthChanges(lease.backend) { $0.breaker.failed(lease.pass, reason, mayBeTriedInNeed: mayBeTriedInNeed) }
    }

    /// A call is over, however it went; its place is free.
    /// - Returns: whether it turns out not to have loaded its model, and what else is loaded is not known.
    @discardableResult
    package mutating func end(_ lease: Lease, at now: UInt64 = 0) -> Bool {
        guard lease.takesPlace else { return false }
        let wasNotLoaded = change(lease.backend) { state in
            state.running -= 1
            state.breaker.withdrew(lease.pass)
            return state.ends(lease.digest, at: now)
        }
        if wasNotLoaded { loadsChanged(at: lease.backend) }
        return wasNotLoaded
    }

    /// Whether a call may be loading its model.
    func mayBeLoading(_ lease: Lease) -> Bool {
        let load = backends[lease.backend].loads.first { $0.digest == lease.digest }
        return load.map { !$0.isConfirmed } ?? lease.digest.isEmpty
    }

    // MARK: Health

    package mutating func probed(_ backend: Int, since epoch: Int) -> Bool {
        healthChanges(backend) { $0.breaker.probed(since: epoch) }
    }

    mutating func probeFailed(_ backend: Int, since epoch: Int, _ reason: String) -> Bool {
        healthChanges(backend) { $0.breaker.probeFailed(since: epoch, reason) }
    }

    mutating func probing(_ backend: Int, _ isProbing: Bool) { change(backend) { $0.isProbing = isProbing } }

    /// A backend wants to be left alone until then.
    mutating func rest(_ backend: Int, until time: UInt64) {
        change(backend) { $0.restsUntil = max($0.restsUntil, time) }
    }

    mutating func drain(_ backend: Int, _ isDrained: Bool) -> Bool {
        healthChanges(backend) { state in
            defer { state.isDrained = isDrained }
            return state.isDrained != isDrained
        }
    }

    private mutating func healthChanges(_ backend: Int, _ event: (inout BackendState) -> Bool) -> Bool {
        guard change(backend, event) else { return false }
        let isServing = backends[backend].isServing
        displaced += directory.set(backend, isUp: isServing) { backends[$0].hasLoaded($1) }
        return true
    }

    // MARK: Models

    /// A backend has listed its models.
    package mutating func list(_ listing: [Listing], at backend: Int) {
        change(backend) { $0.models = listing.count }
        displaced += directory.list(listing, at: backend) { backends[$0].hasLoaded($1) }
    }

    /// A backend has said what it has loaded, as digests.
    /// - Parameter time: when it was asked.
    package mutating func loaded(_ digests: [String], at backend: Int, askedAt time: UInt64 = .max) {
        if change(backend, { $0.says(loaded: digests, askedAt: time) }) { loadsChanged(at: backend) }
    }

    private mutating func loadsChanged(at backend: Int) {
        let loads = backends[backend].loads
        directory.refreshLoaded(at: backend) { digest in loads.contains { $0.digest == digest } }
        var copies: [String: Int] = [:]
        for state in backends { for load in state.loads { copies[load.digest, default: 0] += 1 } }
        for index in backends.indices where index == backend || !backends[index].loads.isEmpty {
            change(index) { state in
                state.loss = (state.loads.count { copies[$0.digest] == 1 }, state.loads.map(\.lastUsed).max() ?? 0)
            }
        }
    }
}
