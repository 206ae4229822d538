import EventLoop
import HTTPCore

/// What happened in a second.
struct LiveSample {
    /// As JSON.
    let json: String

    /// - Parameters:
    ///   - time: milliseconds since 1970: when it ended.
    ///   - done: what was done in it.
    ///   - durations, firstBytes: microseconds, sorted: of the answers of the last minute.
    init(
        time: Int64, _ done: Metrics.Totals, durations: [Int64], firstBytes: [Int64], waiting: Int, running: Int
    ) {
        let tokens = done.tokens
        json =
            #"{"t":\#(time),"requests":\#(done.requests),"hits":\#(done.hits),"errors":\#(done.errors),"#
            + #""refused":\#(done.refused),"tokens":\#(tokens),"#
            + #""p50":\#(LiveSample.percentile(50, of: durations)),"p95":\#(LiveSample.percentile(95, of: durations)),"#
            + #""p99":\#(LiveSample.percentile(99, of: durations)),"#
            + #""first50":\#(LiveSample.percentile(50, of: firstBytes)),"#
            + #""first95":\#(LiveSample.percentile(95, of: firstBytes)),"waiting":\#(waiting),"running":\#(running)}"#
    }

    /// In seconds; the nearest rank.
    private static func percentile(_ percent: Int, of sorted: [Int64]) -> String {
        guard !sorted.isEmpty else { return "null" }
        return JSONText.seconds(sorted[max(0, (sorted.count * percent + 99) / 100 - 1)])
    }
}

extension JSONText {
    /// Microseconds, in seconds.
    static func seconds(_ microseconds: Int64?) -> String {
        guard let microseconds else { return "null" }
        var text = ByteBuffer()
        text.append(millionths: Int(microseconds))
        return String(decoding: text.unread, as: UTF8.self)
    }

    static func orNull(_ text: String?) -> String { text.map(quoted) ?? "null" }
}

extension Metrics {
    /// Of requests to models, since the start.
    struct Totals {
        var requests = 0
        var hits = 0
        var errors = 0
        var refused = 0
        var tokens = 0
        var savedTokens = 0

        func since(_ before: Totals) -> Totals {
            Totals(
                requests: requests - before.requests, hits: hits - before.hits, errors: errors - before.errors,
                refused: refused - before.refused, tokens: tokens - before.tokens,
                savedTokens: savedTokens - before.savedTokens)
        }

        var json: String {
            #"{"requests":\#(requests),"hits":\#(hits),"errors":\#(errors),"refused":\#(refused),"#
                + #""tokens":\#(tokens),"saved_tokens":\#(savedTokens)}"#
        }
    }

    var totals: Totals {
        var totals = Totals(tokens: tokensSeen)
        for model in models {
            totals.requests += model.outcomes.reduce(0, +)
            totals.hits += model.outcomes[Outcome.hit.rawValue] + model.outcomes[Outcome.coalesced.rawValue]
            totals.errors += model.outcomes[Outcome.failed.rawValue]
            totals.refused += model.outcomes[Outcome.refused.rawValue]
            totals.savedTokens += model.savedTokens
        }
        return totals
    }
}

extension AccessRecord {
    /// As the page shows it; without what was asked.
    var liveJSON: String {
        let path = String(path.unicodeScalars.prefix(200))
        let time = (start + duration) / 1000
        let tokens = completionTokens.map(String.init) ?? "null"
        return #"{"t":\#(time),"id":\#(JSONText.quoted(id)),"client":"\#(peer)","#
            + #""method":\#(JSONText.quoted(method)),"path":\#(JSONText.quoted(path)),"#
            + #""model":\#(JSONText.orNull(model)),"status":\#(status),"#
            + #""cache":\#(JSONText.orNull(cache)),"backend":\#(JSONText.orNull(backend)),"tries":\#(tries),"#
            + #""queue":\#(JSONText.seconds(queueWait)),"first":\#(JSONText.seconds(firstByte)),"#
            + #""duration":\#(JSONText.seconds(duration)),"bytes":\#(bytes),"tokens":\#(tokens),"#
            + #""error":\#(JSONText.orNull(error))}"#
    }
}

extension Fleet {
    /// All backends, for the page.
    var liveJSON: String {
        let gauges = gauges()
        var loaded = backends.map { _ in "" }
        for load in loads() {
            let name = JSONText.quoted(load.model)
            for backend in load.backends { loaded[backend] += loaded[backend].isEmpty ? name : "," + name }
        }
        return backends.indices.map { backend in
            let state = queue.balancer.backends[backend]
            let report = reports[backend]
            let counted = metrics.backends[backend]
            return #"{"name":\#(JSONText.quoted(backends[backend].name)),"state":"\#(self.state(of: backend))","#
                + #""since":\#(report.since / 1000),"reason":\#(JSONText.orNull(reason(of: backend))),"#
                + #""running":\#(state.running),"limit":\#(state.limit),"waiting":\#(gauges[backend].waiting),"#
                + #""models":\#(state.models),"loaded":[\#(loaded[backend])],"#
                + #""latency":\#(JSONText.seconds(report.latency.map { Int64($0 / 1000) })),"#
                + #""version":\#(JSONText.orNull(report.version)),"weight":\#(state.weight),"tier":\#(state.tier),"#
                + #""picks":\#(counted.picks),"failures":\#(counted.failures.reduce(0) { $0 + ($1.key == .probe ? 0 : $1.value) }),"#
                + #""retries":\#(counted.retries)}"#
        }.joined(separator: ",")
    }
}
