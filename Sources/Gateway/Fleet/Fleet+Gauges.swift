/// What metrics and the page show of the backends as they are now.
extension Fleet {
    /// The number that a model has in metrics.
    func label(of model: String) -> ModelLabels.Number {
        metrics.label(of: model) { queue.balancer.directory.entries[model] != nil }
    }

    func gauges() -> [Gauges.BackendGauges] {
        let waiting = queue.waitingByBackend()
        return backends.indices.map { backend in
            let seat = queue.balancer.seat(of: backend)
            return Gauges.BackendGauges(
                isUp: queue.balancer.backends[backend].isServing,
                isDrained: queue.balancer.backends[backend].isDrained, running: seat.running, limit: seat.limit,
                waiting: waiting[backend], models: seat.models, probe: reports[backend].latency)
        }
    }

    /// The models that are loaded anywhere, by name, and where; of several names for one model the first.
    func loads() -> [(model: String, backends: [Int])] {
        // One that does not answer has told nothing of late.
        let tells = queue.balancer.backends.map { $0.breaker.state != .unhealthy }
        var seen: Set<String> = []
        // There may be very many that are not loaded.
        let loaded = queue.balancer.directory.entries.values.lazy.filter { $0.candidates.isLoadedAnywhere }
        return loaded.sorted { $0.name < $1.name }.compactMap { entry in
            guard seen.insert(entry.digest).inserted else { return nil }
            let holders = entry.candidates.all.lazy.filter { $0.isLoaded && tells[$0.backend] }.map(\.backend)
            return holders.isEmpty ? nil : (entry.name, Array(holders))
        }
    }
}
