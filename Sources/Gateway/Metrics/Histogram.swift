/// Counts observations by how large they are, as Prometheus has it; in millionths of their unit.
struct Histogram: Sendable {
    /// Where its buckets end.
    final class Scale: Sendable {
        /// Upper bounds, inclusive; above the last there is one bucket more.
        let bounds: [Int]
        /// `le="0.5"} ` and so on, for each bucket.
        let labels: [[UInt8]]

        /// - Parameter bounds: in millionths, with how they are written.
        init(_ bounds: KeyValuePairs<Int, String>) {
            self.bounds = bounds.map(\.key)
            labels = (bounds.map(\.value) + ["+Inf"]).map { Array("le=\"\($0)\"} ".utf8) }
        }

        /// From a millisecond to five minutes.
        static let seconds = Scale([
            1000: "0.001", 2500: "0.0025", 5000: "0.005", 10_000: "0.01", 25_000: "0.025", 50_000: "0.05",
            100_000: "0.1", 250_000: "0.25", 500_000: "0.5", 1_000_000: "1.0", 2_500_000: "2.5", 5_000_000: "5.0",
            10_000_000: "10.0", 30_000_000: "30.0", 60_000_000: "60.0", 120_000_000: "120.0", 300_000_000: "300.0",
        ])

        /// Of how fast models write.
        static let tokensPerSecond = Scale([
            1_000_000: "1.0", 2_500_000: "2.5", 5_000_000: "5.0", 10_000_000: "10.0", 20_000_000: "20.0",
            30_000_000: "30.0", 50_000_000: "50.0", 75_000_000: "75.0", 100_000_000: "100.0", 150_000_000: "150.0",
            200_000_000: "200.0", 300_000_000: "300.0", 500_000_000: "500.0", 1_000_000_000: "1000.0",
        ])

        /// Of turns of the event loop; the bounds are ``EventLoop/Turns``'.
        static let turns = Scale([
            100: "0.0001", 250: "0.00025", 500: "0.0005", 1000: "0.001", 2500: "0.0025", 5000: "0.005",
            10_000: "0.01", 25_000: "0.025", 50_000: "0.05", 100_000: "0.1", 250_000: "0.25", 500_000: "0.5",
            1_000_000: "1.0",
        ])
    }

    let scale: Scale
    private(set) var counts: [Int]
    private(set) var sum = 0

    init(_ scale: Scale = .seconds) {
        self.scale = scale
        counts = [Int](repeating: 0, count: scale.bounds.count + 1)
    }

    /// What was counted elsewhere, bucket by bucket.
    init(_ scale: Scale, counts: [Int], sum: Int) {
        self.scale = scale
        self.counts = counts
        self.sum = sum
    }

    var count: Int { counts.reduce(0, +) }

    mutating func observe(_ value: Int) {
        var place = 0
        while place < scale.bounds.count, value > scale.bounds[place] { place += 1 }
        counts[place] += 1
        add(sum: max(0, value))
    }

    /// Adds what another of the same scale has.
    mutating func add(_ other: Histogram) {
        for place in counts.indices { counts[place] += other.counts[place] }
        add(sum: other.sum)
    }

    /// What backends report may be anything, and as often as they like.
    private mutating func add(sum more: Int) {
        let (total, isTooLarge) = sum.addingReportingOverflow(more)
        sum = isTooLarge ? .max : total
    }
}
