extension EventLoop {
    /// How long the turns of a loop took: from the moment when events were found until it looked for the next. What
    /// became ready meanwhile waited for so long at most, and all of it together is the time in which it was busy.
    public struct Turns: Sendable {
        /// Microseconds: upper bounds of ``counts``, inclusive.
        public static let bounds: [UInt64] = [
            100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        ]

        /// Turns by their length; the last are those above all bounds.
        public private(set) var counts = [Int](repeating: 0, count: bounds.count + 1)
        /// All turns together.
        public private(set) var nanoseconds: UInt64 = 0

        public init() {}

        mutating func note(_ nanoseconds: UInt64) {
            var place = 0
            while place < Turns.bounds.count, nanoseconds > Turns.bounds[place] * 1000 { place += 1 }
            counts[place] += 1
            self.nanoseconds &+= nanoseconds
        }
    }
}
