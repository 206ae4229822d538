import EventLoop
import FoundationEssentials
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What is written, in either format.
@Suite(.timeLimit(.minutes(1))) struct ExpositionTests {
    init() { LoopThread.start() }

    // MARK: Which format

    private static let openMetrics = "application/openmetrics-text;version=1.0.0"

    @Test(arguments: [
        // Prometheus 2, Prometheus 3, and both with protobuf before all else.
        "\(openMetrics),application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "\(openMetrics);escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
            + "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
            + "\(openMetrics);q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        "application/openmetrics-text", "Application/OpenMetrics-Text ; q=0.001", "application/openmetrics-text;q=0.2,",
        "text/html, application/openmetrics-text;q=0.9, text/plain;q=0.8", "application/openmetrics-text;Q=1,*/*;q=0.9",
        " application/openmetrics-text\t; q = 1", "text/plain;q=0,application/openmetrics-text;q=0.1",
    ]) func `who prefers OpenMetrics gets that`(accept: String) {
        #expect(Exposition.Format(accept: accept) == .openMetrics)
    }

    @Test(arguments: [
        nil, "", ",", ";", ";;q=1", "*/*", "text/*", "text/plain", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json", "x", "\u{1f642}",
        "application/openmetrics-text;q=0", "application/openmetrics-text;q=0,*/*", "application/openmetrics-text;q=-1",
        "text/plain,application/openmetrics-text;q=0.9", "*/*;q=1,application/openmetrics-text;q=0.999",
        "application/openmetrics", "application/openmetrics-texts", "q=1", "application/openmetrics-text;q=nan",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    ]) func `everybody else gets text`(accept: String?) {
        #expect(Exposition.Format(accept: accept) == .text)
    }

    @Test(
        arguments: [
            (nil, "text/plain; version=0.0.4; charset=utf-8"),
            (openMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ] as [(String?, String)])
    @Loop func `a scrape says what it is`(accept: String?, type: String) async throws {
        let rig = try WorkerRig()
        let headers = accept.map { Headers([("Accept", $0)]) } ?? [:]
        for method in ["GET", "HEAD"] {
            let asked = Asked(request(method, "/metrics?x", headers: headers), rig.gateway)
            await asked.end()
            #expect((asked.status, asked.client.headers["content-type"]) == (200, type))
            let format = Exposition.Format(accept: accept)
            #expect(try Scraped(asked.body, format).value("ollama_requests_total") == 0)
        }
    }

    // MARK: What is written

    @Test func `the name of a counter ends in the text's title, and not in OpenMetrics'`() {
        func written(_ format: Exposition.Format) -> [Substring] {
            var out = Exposition(format)
            out.family("a_b", .counter, "How often.", 3)
            out.family("c", .gauge, "How much.")
            out.sample(Exposition.label("x", "y") + "," + Exposition.label("z", ""), -4)
            return out.finish().text.split(separator: "\n", omittingEmptySubsequences: false)
        }
        let samples = ["a_b_total 3", "# HELP c How much.", "# TYPE c gauge", #"c{x="y",z=""} -4"#]
        #expect(
            written(.text).map(String.init)
                == ["# HELP a_b_total How often.", "# TYPE a_b_total counter"] + samples + [""])
        #expect(
            written(.openMetrics).map(String.init)
                == ["# HELP a_b How often.", "# TYPE a_b counter"] + samples + ["# EOF", ""])
    }

    @Test(arguments: [
        ("", #"n="""#), ("plain", #"n="plain""#), (#"a"b"#, #"n="a\"b""#), (#"a\b"#, #"n="a\\b""#),
        ("a\nb", #"n="a\nb""#), (#"\n"#, #"n="\\n""#), (#"\""#, #"n="\\\"""#), ("\"\u{301}", "n=\"\\\"\u{301}\""),
        ("a\r\nb", "n=\"a\r\\nb\""), ("{a=\"1\",}", #"n="{a=\"1\",}""#), ("ü東🙂", #"n="ü東🙂""#),
    ]) func `what would end a label is escaped`(value: String, written: String) {
        #expect(Exposition.label("n", value) == written)
    }

    @Test func `whoever reads a label reads what it was`() throws {
        var random = SeededGenerator(seed: 1)
        let scalars: [Unicode.Scalar] = [
            "\\", "\"", "\n", "\r", "n", "a", "{", "}", ",", "=", " ", "é", "\u{301}", "🙂",
        ]
        for _ in 0..<2000 {
            var value = String.UnicodeScalarView()
            for _ in 0..<Int.random(in: 0...8, using: &random) {
                value.append(scalars.randomElement(using: &random) ?? "a")
            }
            var out = Exposition(.text)
            out.family("x", .gauge, "X.")
            out.sample(Exposition.label("n", String(value)), 1)
            let scraped = try Scraped(out.finish().text)
            let labels = try #require(scraped.labels.first)
            #expect(labels["n"].map { Array($0.unicodeScalars) } == Array(value))
        }
    }

    @Test func `numbers are written as they are`() throws {
        var random = SeededGenerator(seed: 2)
        var values = [
            0, 1, -1, 9, 10, 999_999, 1_000_000, 1_000_001, -999_999, -1_000_000, 100_000, 10, Int.max, Int.min,
        ]
        values += (0..<5000).map { _ in
            Int(truncatingIfNeeded: random.next()) >> Int.random(in: 0..<63, using: &random)
        }
        for value in values {
            var decimal = ByteBuffer()
            decimal.append(decimal: value)
            #expect(decimal.finish().text == String(value))
            var millionths = ByteBuffer()
            millionths.append(millionths: value)
            let text = millionths.finish().text
            let read = try #require(Decimal(string: text), "\(text)")
            #expect(read * 1_000_000 == Decimal(value), "\(text) of \(value)")
            #expect(text.utf8.allSatisfy { $0 == 0x2d || $0 == 0x2e || (0x30...0x39).contains($0) })
        }
    }

    @Test(arguments: [
        (0, "0"), (1, "0.000001"), (-1, "-0.000001"), (1_000_000, "1"), (2_500_000, "2.500000"),
        (-1_000_001, "-1.000001"), (Int.max, "9223372036854.775807"), (Int.min, "-9223372036854.775808"),
    ]) func `millionths have six digits behind the point, or none`(value: Int, written: String) {
        #expect(JSONText.seconds(Int64(value)) == written)
    }

    // MARK: The catalogue

    private static let catalogue: [(kind: String, names: String)] = [
        (
            "counter",
            """
            ollama_requests ollama_cache_hits ollama_cache_misses ollama_gateway_requests ollama_gateway_model_requests
            ollama_gateway_refused ollama_gateway_cancelled ollama_gateway_prompt_tokens
            ollama_gateway_completion_tokens ollama_gateway_saved_tokens ollama_gateway_backend_picks
            ollama_gateway_backend_retries ollama_gateway_backend_failures ollama_gateway_backend_loads
            ollama_gateway_backend_state_changes ollama_gateway_cache_stores ollama_gateway_cache_evictions
            ollama_gateway_single_flight_joins ollama_gateway_spans_exported ollama_gateway_spans_dropped
            process_cpu_seconds
            """
        ),
        (
            "gauge",
            """
            ollama_cache_size ollama_gateway_backend_up ollama_gateway_backend_drained ollama_gateway_backend_running
            ollama_gateway_backend_limit ollama_gateway_backend_waiting ollama_gateway_backend_model_loaded
            ollama_gateway_backend_models ollama_gateway_backend_probe_seconds ollama_gateway_cache_bytes
            ollama_gateway_cache_max_bytes ollama_gateway_cache_entries ollama_gateway_queue_depth
            ollama_gateway_queue_limit ollama_gateway_connections ollama_gateway_max_connections
            ollama_gateway_build_info process_resident_memory_bytes process_virtual_memory_bytes process_open_fds
            process_max_fds process_start_time_seconds
            """
        ),
        (
            "histogram",
            """
            ollama_request_latency_seconds ollama_gateway_request_duration_seconds
            ollama_gateway_time_to_first_byte_seconds ollama_gateway_queue_wait_seconds
            ollama_gateway_backend_first_byte_seconds ollama_gateway_chunk_gap_seconds ollama_gateway_model_load_seconds ollama_gateway_tokens_per_second
            ollama_gateway_event_loop_lag_seconds
            """
        ),
    ]

    @Test(arguments: [Exposition.Format.text, .openMetrics])
    @Loop func `every name is there from the start, and no other`(format: Exposition.Format) async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"])
        let scraped = try Scraped(rig.gateway.exposition(format, ProcessFacts()).text, format)
        for (kind, names) in Self.catalogue {
            let wanted = names.split { $0 == " " || $0 == "\n" }.map { name in
                format == .text && kind == "counter" ? "\(name)_total" : String(name)
            }
            #expect(Set(scraped.kinds.filter { $0.value == kind }.keys) == Set(wanted))
        }
        for reason in Refusal.allCases {
            #expect(scraped.value("ollama_gateway_refused_total", ["reason": reason.rawValue]) == 0)
        }
        for backend in ["a", "b"] {
            for reason in Fault.Kind.allCases.map(\.rawValue) {
                let labels = ["backend": backend, "reason": reason]
                #expect(scraped.value("ollama_gateway_backend_failures_total", labels) == 0)
            }
            #expect(scraped.value("ollama_gateway_backend_up", ["backend": backend]) == 1)
            #expect(scraped.value("ollama_gateway_backend_limit", ["backend": backend]) == 4)
        }
        for phase in ["waiting", "answering"] {
            #expect(scraped.value("ollama_gateway_cancelled_total", ["phase": phase]) == 0)
        }
        for reason in ["size", "expired", "purged", "replaced"] {
            #expect(scraped.value("ollama_gateway_cache_evictions_total", ["reason": reason]) == 0)
        }
        #expect(scraped.value("ollama_gateway_queue_wait_seconds_count") == 0)
    }
}
