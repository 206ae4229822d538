import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// A large fleet that has been asked for everything: what a scrape of it costs.
@Suite(.timeLimit(.minutes(5))) struct ScrapeCostTests {
    init() { LoopThread.start() }

    private static let names = (0..<100).map { "model-\($0):latest" }

    /// A hundred backends that have a hundred models, all of them loaded everywhere, and each asked for in many ways.
    @Loop private func rig() throws -> WorkerRig {
        let rig = try WorkerRig(backends: (0..<100).map { "http://box\($0)" })
        for backend in 0..<100 {
            rig.gateway.fleet.isWell(backend, with: Self.names)
            rig.gateway.fleet.queue.balancer.loaded(Self.names.map { "digest-of-\($0)" }, at: backend)
            rig.gateway.metrics.countChunk(at: backend, gap: backend * 1000)
        }
        for name in Self.names {
            let label = rig.gateway.fleet.label(of: name)
            var usage = AnswerUsage()
            (usage.prompt, usage.completion, usage.writing, usage.loading) = (7, 9, 1_000_000_000, 2_000_000_000)
            rig.gateway.metrics.count(usage, model: label, seen: 0)
            for endpoint in Endpoint.allCases {
                for use in [CacheUse.hit(ttl: 1), .hit(ttl: -1), .coalesced, .miss, .bypass("x")] {
                    for status in [200, 404, 499, 503] {
                        var record = AccessRecord(of: request("POST", endpoint.rawValue), id: "", at: 0)
                        (record.use, record.status, record.modelLabel) = (use, status, label)
                        (record.firstByte, record.duration, record.completionTokens) = (200_000, 900_000, 9)
                        rig.gateway.metrics.count(record)
                    }
                }
            }
        }
        return rig
    }

    @Test(arguments: [Exposition.Format.text, .openMetrics])
    @Loop func `a hundred backends with a hundred models are told as Prometheus reads it`(
        format: Exposition.Format
    ) async throws {
        let rig = try rig()
        let start = EventLoop.monotonicNanoseconds()
        let exposition = rig.gateway.exposition(format)
        let nanoseconds = EventLoop.monotonicNanoseconds() &- start
        print("scrape of 100 backends with 100 models: \(exposition.count) bytes, \(nanoseconds / 1000) us, \(format)")
        let scraped = try Scraped(exposition.text, format)
        let loaded = scraped.samples.filter { $0.name == "ollama_gateway_backend_model_loaded" }
        #expect(loaded.count == 10_000)
        #expect(loaded.allSatisfy { $0.value == 1 })
        let outcomes = scraped.samples.filter { $0.name == "ollama_gateway_model_requests_total" }
        #expect(outcomes.count == 100 * Outcome.allCases.count)
        #expect(outcomes.reduce(0) { $0 + $1.value } == 100 * 10 * 5 * 4)
        #expect(scraped.samples.count < 30_000)
    }
}

/// What Prometheus reads out of an exposition; read strictly, so that nothing is in it that should not be.
struct Scraped {
    struct Malformed: Error { let line: String }

    struct Sample {
        /// With its suffix.
        let name: String
        /// Name, labels and all, as it is written.
        let series: String
        let labels: [String: String]
        let value: Double
    }

    /// Of the families, by their names as the format writes them.
    private(set) var kinds: [String: String] = [:]
    private(set) var samples: [Sample] = []
    private var values: [String: Double] = [:]

    var labels: [[String: String]] { samples.map(\.labels) }

    init(_ text: String, _ format: Exposition.Format = .text) throws {
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        guard lines.popLast() == "" else { throw Malformed(line: "the last line has no end") }
        if format == .openMetrics, lines.popLast() != "# EOF" { throw Malformed(line: "no # EOF") }
        var (name, kind, hasHelp) = ("", "", false)
        for line in lines {
            let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false).map(String.init)
            if line.hasPrefix("# HELP ") {
                guard words.count == 4, !words[3].isEmpty, kinds[words[2]] == nil else { throw Malformed(line: line) }
                (name, kind, hasHelp) = (words[2], "", true)
            } else if line.hasPrefix("# TYPE ") {
                guard hasHelp, words.count == 4, words[2] == name else { throw Malformed(line: line) }
                (kind, hasHelp) = (words[3], false)
                kinds[name] = kind
            } else {
                let sample = try Scraped.sample(line)
                guard Scraped.names(name, kind, format).contains(sample.name), values[sample.series] == nil,
                    kind == "gauge" || sample.value >= 0
                else { throw Malformed(line: line) }
                values[sample.series] = sample.value
                samples.append(sample)
            }
        }
        try checkHistograms()
    }

    func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
        samples.first { $0.name == name && $0.labels == labels }?.value
    }

    private static func names(_ family: String, _ kind: String, _ format: Exposition.Format) -> [String] {
        switch kind {
        case "counter": [format == .text ? family : family + "_total"]
        case "gauge": [family]
        case "histogram": ["_bucket", "_sum", "_count"].map { family + $0 }
        default: []
        }
    }

    /// Buckets rise with their bounds, and the last has all.
    private func checkHistograms() throws {
        var (bound, count, before) = (-Double.infinity, 0.0, "")
        for sample in samples {
            if sample.name.hasSuffix("_bucket") {
                var labels = sample.labels
                guard let le = labels.removeValue(forKey: "le"), let next = Double(le),
                    le == "+Inf" || le.contains(".")
                else { throw Malformed(line: sample.series) }
                let whose = "\(sample.name)\(labels.sorted { $0.key < $1.key })"
                if whose != before { (bound, count, before) = (-.infinity, 0, whose) }
                guard next > bound, sample.value >= count else { throw Malformed(line: sample.series) }
                (bound, count) = (next, sample.value)
            } else if sample.name.hasSuffix("_seconds_count") || sample.name.hasSuffix("_second_count") {
                guard bound == .infinity, sample.value == count else { throw Malformed(line: sample.series) }
            }
        }
    }

    private static func sample(_ line: String) throws -> Sample {
        var rest = Array(line.utf8)[...]
        func word(_ isIn: (UInt8) -> Bool) throws -> String {
            let taken = rest.prefix(while: isIn)
            guard let first = taken.first, !(0x30...0x39).contains(first) else { throw Malformed(line: line) }
            rest = rest[taken.endIndex...]
            return String(decoding: taken, as: UTF8.self)
        }
        func isOfName(_ byte: UInt8) -> Bool {
            byte == 0x5f || (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte | 0x20)
        }
        let name = try word { isOfName($0) || $0 == 0x3a }
        var labels: [String: String] = [:]
        if rest.first == UInt8(ascii: "{") {
            repeat {
                rest = rest.dropFirst()
                let label = try word(isOfName)
                guard rest.starts(with: "=\"".utf8), labels[label] == nil else { throw Malformed(line: line) }
                rest = rest.dropFirst(2)
                labels[label] = try Scraped.quoted(&rest, line)
            } while rest.first == UInt8(ascii: ",")
            guard rest.popFirst() == UInt8(ascii: "}") else { throw Malformed(line: line) }
        }
        let series = String(decoding: Array(line.utf8).prefix(line.utf8.count - rest.count), as: UTF8.self)
        guard rest.popFirst() == 0x20, rest.allSatisfy({ isOfName($0) || $0 == 0x2d || $0 == 0x2e }),
            let value = Double(String(decoding: rest, as: UTF8.self)), value.isFinite
        else { throw Malformed(line: line) }
        return Sample(name: name, series: series, labels: labels, value: value)
    }

    private static func quoted(_ rest: inout ArraySlice<UInt8>, _ line: String) throws -> String {
        var value: [UInt8] = []
        while let byte = rest.popFirst(), byte != UInt8(ascii: "\"") {
            guard byte == UInt8(ascii: "\\") else {
                value.append(byte)
                continue
            }
            switch rest.popFirst() {
            case UInt8(ascii: "n"): value.append(0x0a)
            case let escaped? where escaped == UInt8(ascii: "\\") || escaped == UInt8(ascii: "\""):
                value.append(escaped)
            default: throw Malformed(line: line)
            }
        }
        return String(decoding: value, as: UTF8.self)
    }
}
