import EventLoop

/// What Prometheus is told on `GET /metrics`.
@Loop
final class Metrics {
    /// Requests to the inference endpoints, refused ones too.
    var requests = 0
    /// Answered without a call of their own.
    var hits = 0
    /// Forwarded to a box.
    var misses = 0
    /// Calls that were sent to another box because one had failed.
    var retries = 0
    var backends: [BackendMetrics] = []
    private var latency = Histogram()

    struct BackendMetrics {
        let name: String
        /// How often it has come into each state.
        var changes: [String: Int] = [:]
    }

    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// An inference request was answered so many microseconds after it came.
    func observe(latency microseconds: Int64) { latency.observe(microseconds) }

    /// The text format, version 0.0.4.
    /// Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    /// - Parameter isUp: whether a backend takes requests, by number.
    func text(cacheEntries: Int, isUp: (Int) -> Bool) -> String {
        var text = ""
        func add(_ name: String, _ kind: String, _ help: String, _ value: Int) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n\(name) \(value)\n"
        }
        add("ollama_requests_total", "counter", "Inference requests received, refused ones included.", requests)
        add("ollama_cache_hits_total", "counter", "Inference requests answered without a call of their own.", hits)
        add("ollama_cache_misses_total", "counter", "Inference requests forwarded to a backend.", misses)
        add("ollama_cache_size", "gauge", "Answers in the cache.", cacheEntries)
        latency.append(
            to: &text, "ollama_request_latency_seconds", "Time from an inference request to the end of its answer.")
        add("ollama_gateway_retries_total", "counter", "Calls sent to another backend because one failed.", retries)
        text += "# HELP ollama_gateway_backend_up Whether a backend takes requests.\n"
        text += "# TYPE ollama_gateway_backend_up gauge\n"
        for (number, backend) in backends.enumerated() {
            text += "ollama_gateway_backend_up{backend=\(JSONText.quoted(backend.name))} \(isUp(number) ? 1 : 0)\n"
        }
        text += "# HELP ollama_gateway_backend_state_changes_total How often a backend has come into a state.\n"
        text += "# TYPE ollama_gateway_backend_state_changes_total counter\n"
        for backend in backends {
            for state in ["healthy", "unhealthy", "recovering", "drained"] {
                text += "ollama_gateway_backend_state_changes_total{backend=\(JSONText.quoted(backend.name)),"
                text += "state=\"\(state)\"} \(backend.changes[state, default: 0])\n"
            }
        }
        return text
    }
}

/// A histogram of durations, as Prometheus has them: cumulative buckets, sum and count.
struct Histogram {
    /// Upper bounds in microseconds, and how Prometheus spells them in seconds.
    private static let bounds: [(microseconds: Int64, label: String)] = [
        (1000, "0.001"), (2500, "0.0025"), (5000, "0.005"), (10_000, "0.01"), (25_000, "0.025"), (50_000, "0.05"),
        (100_000, "0.1"), (250_000, "0.25"), (500_000, "0.5"), (1_000_000, "1"), (2_500_000, "2.5"), (5_000_000, "5"),
        (10_000_000, "10"), (30_000_000, "30"), (60_000_000, "60"), (120_000_000, "120"), (300_000_000, "300"),
    ]

    private var counts = [Int](repeating: 0, count: bounds.count + 1)
    /// Microseconds.
    private var sum: Int64 = 0

    mutating func observe(_ microseconds: Int64) {
        counts[Histogram.bounds.firstIndex { microseconds <= $0.microseconds } ?? Histogram.bounds.count] += 1
        sum += max(0, microseconds)
    }

    func append(to text: inout String, _ name: String, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) histogram\n"
        var total = 0
        for (bound, count) in zip(Histogram.bounds, counts) {
            total += count
            text += "\(name)_bucket{le=\"\(bound.label)\"} \(total)\n"
        }
        total += counts[Histogram.bounds.count]
        text += "\(name)_bucket{le=\"+Inf\"} \(total)\n"
        text += "\(name)_sum \(Double(sum) / 1_000_000)\n\(name)_count \(total)\n"
    }
}
