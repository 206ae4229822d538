import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Histograms beside one that is counted in the simplest way.
@Suite(.timeLimit(.minutes(1))) struct HistogramTests {
    private static let scales: [(String, Histogram.Scale)] = [
        ("seconds", .seconds), ("tokensPerSecond", .tokensPerSecond), ("turns", .turns),
    ]

    private func scale(_ name: String) throws -> Histogram.Scale {
        try #require(Self.scales.first { $0.0 == name }?.1)
    }

    /// All values, looked at anew for each bucket.
    private struct Naive {
        var values: [Int] = []

        func below(_ bound: Int) -> Int { values.count { $0 <= bound } }
        var sum: Int { values.reduce(0) { $0 + max(0, $1) } }
    }

    private func values(_ scale: Histogram.Scale, _ random: inout SeededGenerator) -> [Int] {
        (0..<Int.random(in: 0...200, using: &random)).map { _ in
            switch Int.random(in: 0..<4, using: &random) {
            case 0: (scale.bounds.randomElement(using: &random) ?? 0) + Int.random(in: -1...1, using: &random)
            case 1: Int.random(in: -10...10, using: &random)
            case 2: Int.random(in: 0...2_000_000_000, using: &random)
            default: Int.random(in: 0...(1 << Int.random(in: 1...40, using: &random)), using: &random)
            }
        }
    }

    private func check(_ histogram: Histogram, _ naive: Naive) throws {
        var out = Exposition(.text)
        out.family("x_seconds", .histogram, "X.")
        out.sample("", histogram)
        let scraped = try Scraped(out.finish().text)
        for bound in histogram.scale.bounds {
            let bucket = scraped.samples.first { $0.labels["le"].flatMap { Double($0) } == Double(bound) / 1e6 }
            #expect(bucket?.value == Double(naive.below(bound)))
        }
        #expect(scraped.value("x_seconds_bucket", ["le": "+Inf"]) == Double(naive.values.count))
        #expect(scraped.value("x_seconds_count") == Double(naive.values.count))
        #expect(scraped.value("x_seconds_sum") == Double(naive.sum) / 1e6)
        #expect(histogram.count == naive.values.count)
        #expect(histogram.sum == naive.sum)
    }

    @Test(arguments: scales.map(\.0)) func `each value is in all buckets that are large enough`(name: String) throws {
        let scale = try scale(name)
        var random = SeededGenerator(seed: 3)
        for _ in 0..<100 {
            var (histogram, naive) = (Histogram(scale), Naive())
            for value in values(scale, &random) {
                histogram.observe(value)
                naive.values.append(value)
            }
            try check(histogram, naive)
        }
    }

    @Test(arguments: scales.map(\.0)) func `several together are as one that saw it all`(name: String) throws {
        let scale = try scale(name)
        var random = SeededGenerator(seed: 4)
        for _ in 0..<30 {
            var (all, naive) = (Histogram(scale), Naive())
            for _ in 0..<3 {
                var part = Histogram(scale)
                for value in values(scale, &random) {
                    part.observe(value)
                    naive.values.append(value)
                }
                all.add(Histogram(scale, counts: part.counts, sum: part.sum))
            }
            try check(all, naive)
        }
    }

    @Test(arguments: scales.map(\.0)) func `bounds rise, and are written as what they are`(name: String) throws {
        let scale = try scale(name)
        #expect(zip(scale.bounds, scale.bounds.dropFirst()).allSatisfy { $0 < $1 })
        let labels = scale.labels.map { String(decoding: $0, as: UTF8.self) }
        #expect(scale.labels.count == scale.bounds.count + 1)
        #expect(labels.last == #"le="+Inf"} "#)
        for (bound, label) in zip(scale.bounds, labels) {
            let written = label.dropFirst(4).dropLast(3)
            #expect(written.contains("."))
            #expect(Double(written).map { ($0 * 1e6).rounded() } == Double(bound), "\(label)")
        }
    }

    @Test func `the buckets are those that are promised`() {
        let promised = "0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 120 300"
        let speeds = "1 2.5 5 10 20 30 50 75 100 150 200 300 500 1000"
        let turns = "0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1"
        for (scale, promised) in [(Histogram.Scale.seconds, promised), (.tokensPerSecond, speeds), (.turns, turns)] {
            let bounds = promised.split(separator: " ").compactMap { Double($0) }
            #expect(scale.bounds == bounds.map { Int(($0 * 1e6).rounded()) })
        }
        #expect(Histogram.Scale.turns.bounds == EventLoop.Turns.bounds.map { Int($0) })
        #expect(Histogram.Scale.turns.labels.count == EventLoop.Turns().counts.count)
    }

    @Test func `an empty one has all its buckets`() throws {
        try check(Histogram(), Naive())
    }
}
