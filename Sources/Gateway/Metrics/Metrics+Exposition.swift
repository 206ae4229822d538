import EventLoop
import HTTPCore

/// What is known of the gateway at the moment of a scrape, beside what is counted.
struct Gauges {
    let version: String
    var cache = CacheGauges()
    var queue = (depth: 0, limit: 0)
    var backends: [BackendGauges] = []
    /// Models that are loaded, by name, and where.
    var loads: [(model: String, backends: [Int])] = []
    /// Of clients, and how many there may be.
    var connections = (open: 0, most: 0)
    var turns = EventLoop.Turns()
    var spans = (exported: 0, dropped: 0)
    var process: ProcessFacts?

    struct BackendGauges {
        var isUp = false
        var isDrained = false
        var running = 0
        var limit = 0
        /// Requests that wait and could run there.
        var waiting = 0
        var models = 0
        /// Nanoseconds that the last good probe took.
        var probe: UInt64?
    }
}

struct CacheGauges {
    var entries = 0
    var bytes = 0
    var maxBytes = 0
    var removals = Cache.Removals()

    var json: String { #"{"entries":\#(entries),"bytes":\#(bytes),"max_bytes":\#(maxBytes)}"# }
}

extension Metrics {
    /// Everything, as Prometheus reads it.
    func exposition(_ gauges: Gauges, _ format: Exposition.Format) -> Bytes {
        var out = Exposition(format, reserving: lastSize + lastSize / 8)
        let names = modelLabels.names.map { Exposition.label("model", $0) }
        appendTotals(to: &out, entries: gauges.cache.entries)
        appendRequests(to: &out, names)
        appendTokens(to: &out, names)
        appendBackends(to: &out, gauges)
        appendCache(to: &out, gauges.cache)
        out.family("ollama_gateway_queue_depth", .gauge, "Requests to models that wait.", gauges.queue.depth)
        out.family("ollama_gateway_queue_limit", .gauge, "Requests to models that may wait.", gauges.queue.limit)
        appendProcess(to: &out, gauges)
        let text = out.finish()
        lastSize = text.count
        return text
    }

    private func appendTotals(to out: inout Exposition, entries: Int) {
        out.family("ollama_requests", .counter, "Inference requests received, refused ones included.", requests)
        out.family("ollama_cache_hits", .counter, "Inference requests answered without a call of their own.", hits)
        out.family("ollama_cache_misses", .counter, "Inference requests forwarded to a backend.", misses)
        out.family("ollama_cache_size", .gauge, "Answers in the cache.", entries)
        out.family(
            "ollama_request_latency_seconds", .histogram,
            "Time from an inference request to the end of its answer; those refused beforehand are not counted.")
        var all = Histogram()
        for duration in durations { all.add(duration) }
        out.sample("", all)
    }

    private func appendRequests(to out: inout Exposition, _ models: [String]) {
        let caches = CacheLabel.allCases.map { Exposition.label("cache", "\($0)") }
        let routes = Route.names.map { Exposition.label("route", $0) }
        out.family("ollama_gateway_requests", .counter, "Requests answered, by route, status and use of the cache.")
        var answers = answers
        for endpoint in Endpoint.allCases where plainHits[endpoint.index] > 0 {
            let hits = Answered(route: Route(endpoint), status: 200, cache: .hit)
            answers[hits, default: 0] += plainHits[endpoint.index]
        }
        for (what, count) in answers.sorted(by: { $0.key.order < $1.key.order }) {
            out.sample("\(routes[what.route.index]),code=\"\(what.status)\",\(caches[what.cache.rawValue])", count)
        }
        out.family("ollama_gateway_model_requests", .counter, "Requests to models, by model and what became of them.")
        for (model, label) in zip(self.models, models) where model.outcomes.contains(where: { $0 > 0 }) {
            // All of them: a series that begins with its first event has not risen, as Prometheus sees it.
            for outcome in Outcome.allCases {
                out.sample("\(label),\(Metrics.key),result=\"\(outcome)\"", model.outcomes[outcome.rawValue])
            }
        }
        out.family("ollama_gateway_refused", .counter, "Requests refused by the gateway, by reason.")
        for refusal in Refusal.allCases { out.sample("reason=\"\(refusal.rawValue)\"", refusals[refusal, default: 0]) }
        out.family("ollama_gateway_cancelled", .counter, "Requests whose client left before the end of the answer.")
        out.sample("phase=\"waiting\"", cancelled.waiting)
        out.sample("phase=\"answering\"", cancelled.answering)
        out.family(
            "ollama_gateway_request_duration_seconds", .histogram,
            "Time from an inference request to the end of its answer, by route and use of the cache.")
        for (index, duration) in durations.enumerated() where duration.count > 0 {
            let (route, cache) = index.quotientAndRemainder(dividingBy: CacheLabel.allCases.count)
            out.sample("\(routes[route]),\(caches[cache])", duration)
        }
        out.family(
            "ollama_gateway_queue_wait_seconds", .histogram, "Time until a call had its place at a backend.")
        out.sample("", queueWait)
    }

    /// Until there are keys, everybody is nobody in particular.
    private static let key = Exposition.label("key", "anonymous")

    private func appendTokens(to out: inout Exposition, _ labels: [String]) {
        func histogram(
            _ name: String, _ help: String, _ out: inout Exposition, _ member: (ModelMetrics) -> Histogram
        ) {
            out.family(name, .histogram, help)
            for (model, label) in zip(models, labels) where member(model).count > 0 { out.sample(label, member(model)) }
        }
        func counter(
            _ name: String, _ help: String, _ key: String, _ out: inout Exposition, _ member: (ModelMetrics) -> Int
        ) {
            out.family(name, .counter, help)
            for (model, label) in zip(models, labels) where member(model) > 0 { out.sample(label + key, member(model)) }
        }
        let key = "," + Metrics.key
        histogram(
            "ollama_gateway_time_to_first_byte_seconds",
            "Time from an inference request to the first byte of a backend's answer, by model.", &out
        ) { $0.firstByte }
        histogram(
            "ollama_gateway_model_load_seconds", "Time that loading the model took, as backends report it.", &out
        ) { $0.loading }
        histogram(
            "ollama_gateway_tokens_per_second", "How fast models write, as backends report it.", &out
        ) { $0.speed }
        counter("ollama_gateway_prompt_tokens", "Tokens read by models, as backends report it.", key, &out) {
            $0.promptTokens
        }
        counter("ollama_gateway_completion_tokens", "Tokens written by models, as backends report it.", key, &out) {
            $0.completionTokens
        }
        counter(
            "ollama_gateway_saved_tokens", "Tokens in answers that were cached or shared, and not written again.", "",
            &out
        ) { $0.savedTokens }
    }

    private func appendBackends(to out: inout Exposition, _ gauges: Gauges) {
        func family(
            _ name: String, _ kind: Exposition.Kind, _ help: String, _ out: inout Exposition,
            _ value: (BackendMetrics, Gauges.BackendGauges) -> Int
        ) {
            out.family("ollama_gateway_backend_\(name)", kind, help)
            for (backend, gauge) in zip(backends, gauges.backends) { out.sample(backend.label, value(backend, gauge)) }
        }
        family("up", .gauge, "Whether a backend takes requests.", &out) { $1.isUp ? 1 : 0 }
        family("drained", .gauge, "Whether a backend is taken out by hand.", &out) { $1.isDrained ? 1 : 0 }
        family("running", .gauge, "Requests to models that a backend runs.", &out) { $1.running }
        family("limit", .gauge, "Requests to models that a backend may run at once.", &out) { $1.limit }
        family("waiting", .gauge, "Requests that wait and could run at a backend; one may count at several.", &out) {
            $1.waiting
        }
        family("models", .gauge, "Models that a backend has.", &out) { $1.models }
        family("picks", .counter, "Calls sent to a backend; probes are not counted.", &out) { backend, _ in
            backend.picks
        }
        family("retries", .counter, "Calls sent to a backend after another had failed.", &out) { backend, _ in
            backend.retries
        }
        family("loads", .counter, "Models that a backend had to load for a request.", &out) { backend, _ in
            backend.loads
        }
        out.family("ollama_gateway_backend_failures", .counter, "Calls and probes that a backend failed, by reason.")
        for backend in backends {
            for kind in Fault.Kind.allCases {
                out.sample(backend.label, kind.label, backend.failures[kind, default: 0])
            }
        }
        out.family("ollama_gateway_backend_state_changes", .counter, "How often a backend has come into a state.")
        for backend in backends {
            for state in ["healthy", "unhealthy", "recovering", "drained"] {
                out.sample("\(backend.label),state=\"\(state)\"", backend.changes[state, default: 0])
            }
        }
        out.family("ollama_gateway_backend_model_loaded", .gauge, "Models that a backend has in memory.")
        for load in gauges.loads.prefix(ModelLabels.atMost) {
            let holders = load.backends.lazy.map { self.backends[$0].label }
            out.samples(Exposition.label("model", load.model), with: holders, 1)
        }
        out.family("ollama_gateway_backend_probe_seconds", .gauge, "Time that the last good probe of a backend took.")
        for (backend, gauge) in zip(backends, gauges.backends) {
            if let probe = gauge.probe { out.sample(backend.label, millionths: Int(probe / 1000)) }
        }
        out.family(
            "ollama_gateway_backend_first_byte_seconds", .histogram,
            "Time from sending a call to a backend to the first byte of its answer: its own queue, load and prompt.")
        for backend in backends where backend.firstByte.count > 0 { out.sample(backend.label, backend.firstByte) }
        out.family("ollama_gateway_chunk_gap_seconds", .histogram, "Time between two pieces of an answer.")
        for backend in backends where backend.chunkGap.count > 0 { out.sample(backend.label, backend.chunkGap) }
    }

    private func appendCache(to out: inout Exposition, _ cache: CacheGauges) {
        out.family("ollama_gateway_cache_entries", .gauge, "Answers in the cache.", cache.entries)
        out.family("ollama_gateway_cache_bytes", .gauge, "Memory that the cache takes, overhead included.", cache.bytes)
        out.family("ollama_gateway_cache_max_bytes", .gauge, "Memory that the cache may take.", cache.maxBytes)
        out.family("ollama_gateway_cache_stores", .counter, "Answers stored.", stores)
        out.family("ollama_gateway_cache_evictions", .counter, "Answers that went from the cache, by reason.")
        out.sample("reason=\"size\"", cache.removals.evicted)
        out.sample("reason=\"expired\"", cache.removals.expired)
        out.sample("reason=\"purged\"", cache.removals.purged)
        out.sample("reason=\"replaced\"", cache.removals.replaced)
        out.family("ollama_gateway_single_flight_joins", .counter, "Requests that joined another's call.", joins)
    }

    private func appendProcess(to out: inout Exposition, _ gauges: Gauges) {
        out.family(
            "ollama_gateway_connections", .gauge, "Connections of clients that are open.", gauges.connections.open)
        out.family(
            "ollama_gateway_max_connections", .gauge, "Connections of clients that may be open.",
            gauges.connections.most)
        out.family(
            "ollama_gateway_event_loop_lag_seconds", .histogram,
            "Length of a turn of the event loop: what became ready meanwhile had to wait so long at most.")
        out.sample(
            "", Histogram(.turns, counts: gauges.turns.counts, sum: Int(gauges.turns.nanoseconds / 1000)))
        out.family(
            "ollama_gateway_spans_exported", .counter, "Spans that an OpenTelemetry collector has taken.",
            gauges.spans.exported)
        out.family(
            "ollama_gateway_spans_dropped", .counter, "Spans that no OpenTelemetry collector has taken.",
            gauges.spans.dropped)
        out.family("ollama_gateway_build_info", .gauge, "The version that runs.")
        out.sample(Exposition.label("version", gauges.version), 1)
        guard let process = gauges.process else { return }
        out.family("process_cpu_seconds", .counter, "Total user and system CPU time spent in seconds.")
        out.sample("", millionths: process.cpuMicroseconds)
        out.family("process_resident_memory_bytes", .gauge, "Resident memory size in bytes.", process.residentBytes)
        out.family("process_virtual_memory_bytes", .gauge, "Virtual memory size in bytes.", process.virtualBytes)
        out.family("process_open_fds", .gauge, "Number of open file descriptors.", process.openDescriptors)
        out.family("process_max_fds", .gauge, "Maximum number of open file descriptors.", process.maxDescriptors)
        out.family("process_start_time_seconds", .gauge, "Start time of the process since unix epoch in seconds.")
        out.sample("", millionths: process.startMicroseconds)
    }
}
