import EventLoop
import HTTPCore

/// What the page shows as it happens: a sample each second, and the latest requests, as server-sent events.
///
/// Samples are taken, and the latest requests kept, whether anybody watches or not, so that who comes sees the last
/// minutes; they are written only for those who watch.
@Loop
final class Live {
    static let watchersAtMost = 32
    /// Of one address, but for this machine's: behind a proxy on it everybody has that.
    private static let watchersOfOneAtMost = 8
    static let headers: Headers = [
        "Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no",
    ]
    /// Seconds of which samples are kept.
    private static let samplesAtMost = 300
    private static let requestsAtMost = 50
    /// Requests that are shown of one second.
    private static let requestsASecond = 25

    private let metrics: Metrics
    private let fleet: Fleet
    private let worker: Worker
    private let surroundings: (any Surroundings)?
    private let clock: WallClock
    private var samples: [LiveSample] = []
    private var before = Metrics.Totals()
    private var latencies = RecentLatencies()
    /// The newest last.
    private var requests: [AccessRecord] = []
    private var budget = Live.requestsASecond
    /// Of `requests`, those that watchers have not been told of, and how many are not shown.
    private var untold = (shown: 0, more: 0)
    private var isTelling = false
    private var watchers: [ObjectIdentifier: Watcher] = [:]
    private var timer: Timer?
    private var isStopped = false

    init(_ worker: Worker, surroundings: (any Surroundings)?, clock: @escaping WallClock) {
        metrics = worker.metrics
        fleet = worker.fleet
        self.worker = worker
        self.surroundings = surroundings
        self.clock = clock
    }

    private final class Watcher {
        let writer: any ResponseWriter
        let peer: PeerAddress
        var isPaused = false
        var over: Signal?

        init(_ writer: any ResponseWriter, of peer: PeerAddress) { (self.writer, self.peer) = (writer, peer) }
    }

    // MARK: What happens

    func start() {
        guard !isStopped else { return }
        timer = Loop.events.schedule(after: .seconds(1)) { [weak self] in
            self?.takeSample()
            self?.start()
        }
    }

    /// Ends all streams, with a word.
    func stop() {
        isStopped = true
        if let timer { Loop.events.cancel(timer) }
        tell("bye", "{}")
        for watcher in watchers.values {
            // Who has stopped reading is not waited for.
            if watcher.isPaused { watcher.writer.cut() } else { watcher.over?.fire() }
        }
    }

    /// Whether the next request would be shown.
    var takesMore: Bool { metrics.isOn && budget > 0 }

    /// A request is over that is not shown.
    func noteMore() { untold.more += 1 }

    func note(_ record: AccessRecord) {
        guard metrics.isOn, !record.route.isOwn else { return }
        if record.isInference, let firstByte = record.firstByte {
            latencies.note(firstByte: firstByte, duration: record.duration, at: Loop.events.now)
        }
        guard takesMore else { return noteMore() }
        budget -= 1
        if requests.count == Live.requestsAtMost { requests.removeFirst() }
        requests.append(record)
        untold.shown += 1
        tellRequestsSoon()
    }

    // MARK: Telling

    private func takeSample() {
        let totals = metrics.totals
        latencies.forget(before: Loop.events.now &- 60_000_000_000)
        let sample = LiveSample(
            time: clock() / 1000, totals.since(before), durations: latencies.durations,
            firstBytes: latencies.firstBytes, waiting: fleet.queue.waiting,
            running: fleet.queue.balancer.backends.reduce(0) { $0 + $1.running })
        before = totals
        if samples.count == Live.samplesAtMost { samples.removeFirst() }
        samples.append(sample)
        budget = Live.requestsASecond
        guard !watchers.isEmpty else {
            untold = (0, 0)
            return
        }
        tellRequests()
        tell("tick", #"{"sample":\#(sample.json),"state":\#(stateJSON)}"#)
    }

    private func tellRequestsSoon() {
        guard !isTelling, !watchers.isEmpty else { return }
        isTelling = true
        _ = Loop.events.schedule(after: .milliseconds(200)) { [weak self] in self?.tellRequests() }
    }

    private func tellRequests() {
        isTelling = false
        guard untold.shown + untold.more > 0, !watchers.isEmpty else { return }
        let latest = requests.suffix(untold.shown).map(\.liveJSON).joined(separator: ",")
        tell("requests", #"{"requests":[\#(latest)],"more":\#(untold.more)}"#)
        untold = (0, 0)
    }

    private func tell(_ event: String, _ data: String) {
        guard !watchers.isEmpty else { return }
        let bytes = Bytes("event: \(event)\ndata: \(data)\n\n")
        // Who cannot keep up misses some.
        for watcher in watchers.values where !watcher.isPaused {
            watcher.isPaused = watcher.writer.write(bytes) == .pause
        }
    }

    // MARK: Watching

    func hasRoom(for peer: PeerAddress) -> Bool {
        !isStopped && watchers.count < Live.watchersAtMost
            && (peer.isLoopback || watchers.values.count { $0.peer == peer } < Live.watchersOfOneAtMost)
    }

    /// Tells a client all that happens, until it leaves or the gateway ends.
    func serve(_ peer: PeerAddress, _ reply: consuming Reply) async {
        let watcher = Watcher(reply.stream(status: 200, headers: Live.headers), of: peer)
        watcher.writer.onDrain = { [weak watcher] in watcher?.isPaused = false }
        // What is in the hello is told by that.
        if watchers.isEmpty { untold = (0, 0) } else { tellRequests() }
        watcher.isPaused = watcher.writer.write(Bytes("event: hello\ndata: \(hello)\n\n")) == .pause
        watchers[ObjectIdentifier(watcher)] = watcher
        try? await Signal.wait { watcher.over = $0 }
        watchers[ObjectIdentifier(watcher)] = nil
        watcher.writer.finish()
        watcher.writer.onDrain = nil
    }

    private var hello: String {
        let version = JSONText.quoted(surroundings?.version ?? "")
        return #"{"version":\#(version),"now":\#(clock() / 1000),"started":\#(fleet.startedAt / 1000),"#
            + #""balance":"\#(fleet.settings.balance.rawValue)","interval":1000,"#
            + #""samples":[\#(samples.map(\.json).joined(separator: ","))],"#
            + #""requests":[\#(requests.map(\.liveJSON).joined(separator: ","))],"state":\#(stateJSON)}"#
    }

    private var stateJSON: String {
        let cache = worker.enter { $0.cacheGauges }
        let connections = surroundings?.connections.open ?? 0
        return #"{"ready":\#(fleet.isReady),"uptime":\#((clock() - fleet.startedAt) / 1_000_000),"#
            + #""queue":{"waiting":\#(fleet.queue.waiting),"limit":\#(fleet.queue.limit)},"#
            + #""cache":\#(cache.json),"connections":\#(connections),"#
            + #""totals":\#(metrics.totals.json),"backends":[\#(fleet.liveJSON)]}"#
    }
}

/// How long the latest answers of backends took: of the last minute, and not more than so many.
struct RecentLatencies {
    private static let atMost = 1024
    private var all: [(time: UInt64, firstByte: Int64, duration: Int64)] = []
    private var next = 0

    /// In microseconds; the time is monotonic, in nanoseconds.
    mutating func note(firstByte: Int64, duration: Int64, at time: UInt64) {
        if all.count < RecentLatencies.atMost { return all.append((time, firstByte, duration)) }
        all[next] = (time, firstByte, duration)
        next = (next + 1) % RecentLatencies.atMost
    }

    mutating func forget(before time: UInt64) {
        guard all.contains(where: { $0.time < time }) else { return }
        all = (all[next...] + all[..<next]).filter { $0.time >= time }
        next = 0
    }

    /// Sorted.
    var durations: [Int64] { all.map(\.duration).sorted() }
    var firstBytes: [Int64] { all.map(\.firstByte).sorted() }
}
