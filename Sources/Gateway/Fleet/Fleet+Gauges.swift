/// What metrics and the page show of the backends as they are now.
extension Fleet {
    /// The number that a model has in metrics.
    func label(of model: String) -> ModelLabels.Number {
        metrics.label(of: model) { queue.balancer.directory.entries[model] != nil }
    }

    func gauges() -> [Gauges.BackendGauges] {
        let waiting = queue.waitingByBackend()
        let names = namesByDigest()
        return backends.indices.map { backend in
            let state = queue.balancer.backends[backend]
            var gauges = Gauges.BackendGauges(
                isUp: state.isServing, isDrained: state.isDrained, running: state.running, limit: state.limit,
                waiting: waiting[backend],
                models: state.models, probe: reports[backend].latency)
            // One that does not answer has told nothing of late.
            guard state.breaker.state != .unhealthy else { return gauges }
            let labels = state.loads.map { label(of: names[$0.digest] ?? "") }
            gauges.loaded = Set(labels).filter { $0 != ModelLabels.other }.sorted()
            return gauges
        }
    }

    /// What the digests stand for; where one has several names, the first.
    func namesByDigest() -> [String: String] {
        var names: [String: String] = [:]
        for entry in queue.balancer.directory.entries.values {
            for version in entry.isConflicted ? entry.versions.map(\.listing.digest) : [entry.digest] {
                names[version] = names[version].map { min($0, entry.name) } ?? entry.name
            }
        }
        return names
    }
}
