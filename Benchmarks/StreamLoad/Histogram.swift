/// Counts durations in buckets at most 1/64 wide of what they hold, so that memory does not grow with the load.
struct Histogram {
    private static let subBuckets = 64
    private var buckets = [Int](repeating: 0, count: 64 * subBuckets)

    private(set) var count = 0
    private(set) var largest: UInt64 = 0

    mutating func record(_ nanoseconds: UInt64) {
        buckets[Self.index(of: nanoseconds)] += 1
        count += 1
        largest = max(largest, nanoseconds)
    }

    /// The value that `share` (0 - 1) of all recorded ones do not exceed; rounded up, by 1.6 % at most.
    func quantile(_ share: Double) -> UInt64 {
        let rank = Int((share * Double(count)).rounded(.up))
        var seen = 0
        for (index, inBucket) in buckets.enumerated() where inBucket > 0 {
            seen += inBucket
            if seen >= rank { return min(Self.upperBound(of: index), largest) }
        }
        return largest
    }

    /// Below 64 a bucket a value; above, 64 buckets for each power of two.
    private static func index(of value: UInt64) -> Int {
        guard value >= 64 else { return Int(value) }
        let shift = 63 - value.leadingZeroBitCount - 6
        return (shift + 1) * subBuckets + Int((value >> UInt64(shift)) & 63)
    }

    private static func upperBound(of index: Int) -> UInt64 {
        guard index >= subBuckets else { return UInt64(index) }
        let shift = UInt64(index / subBuckets - 1)
        return ((UInt64(64 + index % subBuckets) + 1) << shift) - 1
    }
}
