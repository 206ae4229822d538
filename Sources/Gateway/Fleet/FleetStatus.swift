import EventLoop
import HTTPCore

/// What is told of the fleet on `GET /gateway/status`, for programs and for people.
enum FleetStatus {
    /// A table whose columns are as wide as they must be.
    static func table(_ rows: [[String]]) -> String {
        guard let first = rows.first else { return "" }
        let widths = first.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
            var line = cells.joined(separator: "  ")
            while line.hasSuffix(" ") { line.removeLast() }
            return line + "\n"
        }.joined()
    }

    /// The first, and how many more: a terminal is 80 columns wide.
    static func shortened(_ names: [String]) -> String {
        (names.first ?? "") + (names.count > 1 ? " +\(names.count - 1)" : "")
    }

    /// With one digit behind the point, unless that is nought.
    static func mebibytes(_ bytes: Int) -> String {
        let tenths = (bytes * 10 + (1 << 19)) >> 20
        return tenths % 10 == 0 ? "\(tenths / 10)" : "\(tenths / 10).\(tenths % 10)"
    }

    /// `5s`, `12m`, `3h`, `2d`: the largest unit that makes at least one.
    static func age(seconds: Int64) -> String {
        switch seconds {
        case ..<120: "\(max(0, seconds))s"
        case ..<7200: "\(seconds / 60)m"
        case ..<172_800: "\(seconds / 3600)h"
        default: "\(seconds / 86_400)d"
        }
    }
}

extension Fleet {
    /// Takes a backend out (it ends what it has), or puts it back.
    func drain(_ backend: Int, _ isDrained: Bool) {
        guard queue.balancer.drain(backend, isDrained) else { return }
        reports[backend].since = clock()
        let state = queue.balancer.backends[backend]
        metrics.backends[backend].changes[isDrained ? "drained" : state.breaker.state.rawValue, default: 0] += 1
        let how =
            !isDrained ? "back in use" : state.running == 0 ? "drained" : "draining: requests running: \(state.running)"
        notices?.note(.notice, "backend \(backends[backend].name) is \(how)")
        settle()
    }

    /// In a word, as it is told.
    func state(of backend: Int) -> String {
        let state = queue.balancer.backends[backend]
        guard state.isDrained else { return state.breaker.state.rawValue }
        return state.running > 0 ? "draining" : "drained"
    }

    func reason(of backend: Int) -> String? {
        let state = queue.balancer.backends[backend]
        if state.isDrained { return "by request" }
        if let reason = state.breaker.reason { return reason }
        let time = now()
        guard state.restsUntil > time else { return nil }
        return "asked to be left alone for \((state.restsUntil - time) / 1_000_000_000 + 1)s"
    }

    private func models(of backend: Int) -> [String] {
        (queue.balancer.directory.listings[backend] ?? []).map(\.shown).sorted()
    }

    private func loaded(at backend: Int) -> [String] {
        // One that does not answer has told nothing of late.
        guard queue.balancer.backends[backend].breaker.state != .unhealthy else { return [] }
        let listings = queue.balancer.directory.listings[backend] ?? []
        let names = Dictionary(listings.map { ($0.digest, $0.shown) }, uniquingKeysWith: { first, _ in first })
        return queue.balancer.backends[backend].loads.map { names[$0.digest] ?? String($0.digest.prefix(12)) }
    }

    // MARK: JSON

    func status(_ cache: CacheGauges) -> String {
        let uptime = Double(clock() - startedAt) / 1_000_000
        let all = backends.indices.map { status(of: $0) }.joined(separator: ",")
        let conflicts = queue.balancer.directory.conflicts.map { conflict($0) }.joined(separator: ",")
        return #"{"uptime":\#(uptime),"ready":\#(isReady),"balance":"\#(settings.balance.rawValue)","#
            + #""backends":[\#(all)],"conflicts":[\#(conflicts)],"#
            + #""queue":{"waiting":\#(queue.waiting),"limit":\#(queue.limit)},"#
            + #""cache":\#(cache.json)}"#
            + "\n"
    }

    func status(of backend: Int) -> String {
        let state = queue.balancer.backends[backend]
        let report = reports[backend]
        func text(_ text: String?) -> String { text.map(JSONText.quoted) ?? "null" }
        func list(_ texts: [String]) -> String { "[\(texts.map(JSONText.quoted).joined(separator: ","))]" }
        let since = Timestamp.utc(report.since, fraction: .milliseconds, zone: "Z")
        let latency = report.latency.map { "\(Double($0 / 1000) / 1_000_000)" } ?? "null"
        return #"{"name":\#(text(backends[backend].name)),"url":\#(text(backends[backend].origin)),"#
            + #""state":"\#(self.state(of: backend))","since":"\#(since)","reason":\#(text(reason(of: backend))),"#
            + #""models":\#(list(models(of: backend))),"loaded":\#(list(loaded(at: backend))),"#
            + #""running":\#(state.running),"limit":\#(state.limit),"weight":\#(state.weight),"tier":\#(state.tier),"#
            + #""latency":\#(latency),"version":\#(text(report.version))}"#
    }

    private func conflict(_ entry: ModelDirectory.Entry) -> String {
        var digests: [String: [String]] = [:]
        for version in entry.versions {
            digests[version.listing.digest, default: []].append(backends[version.backend].name)
        }
        let all = digests.sorted { $0.key < $1.key }.map { digest, names in
            #"{"digest":\#(JSONText.quoted(digest)),"backends":[\#(names.map(JSONText.quoted).joined(separator: ","))],"#
                + #""used":\#(digest == entry.digest)}"#
        }
        return #"{"model":\#(JSONText.quoted(entry.name)),"digests":[\#(all.joined(separator: ","))]}"#
    }

    // MARK: A table

    func statusTable(_ cache: CacheGauges) -> String {
        let time = clock()
        var rows = [["BACKEND", "STATE", "SINCE", "RUNNING", "MODELS", "LOADED", "LATENCY", "VERSION"]]
        var reasons: [String] = []
        for backend in backends.indices {
            let state = queue.balancer.backends[backend]
            let report = reports[backend]
            rows.append([
                backends[backend].name, self.state(of: backend),
                FleetStatus.age(seconds: (time - report.since) / 1_000_000), "\(state.running)/\(state.limit)",
                "\(state.models)", FleetStatus.shortened(loaded(at: backend)),
                report.latency.map { "\(Double($0 / 100_000) / 10)ms" } ?? "-", report.version ?? "-",
            ])
            if let reason = reason(of: backend) {
                reasons.append("\(backends[backend].name) is \(self.state(of: backend)): \(reason)\n")
            }
        }
        let conflicts = queue.balancer.directory.conflicts.map { words(for: $0) + "\n" }
        return FleetStatus.table(rows) + "\n" + (reasons + conflicts).joined()
            + "requests waiting: \(queue.waiting), at most \(queue.limit); answers in the cache: \(cache.entries), "
            + "\(FleetStatus.mebibytes(cache.bytes)) of \(FleetStatus.mebibytes(cache.maxBytes)) MiB; "
            + "up for \(FleetStatus.age(seconds: (time - startedAt) / 1_000_000)); \(settings.balance.rawValue)\n"
    }
}
