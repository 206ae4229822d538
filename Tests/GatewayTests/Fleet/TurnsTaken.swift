/// Whose turn it was, of those who could have had it.
struct TurnsTaken {
    private struct Window {
        var boxes: [Int] = []
        var picked: [Int] = []
        /// For each box how many turns it is ahead of its share, and the least and the most that it was.
        var ahead: [Double] = []
        var least: [Double] = []
        var most: [Double] = []
    }

    private var windows: [String: Window] = [:]
    private var preferred: Set<[UInt64]> = []

    /// Turns that one of the same boxes had.
    func length(for model: String) -> Int { windows[model]?.picked.count ?? 0 }

    /// A box has had a turn for another reason.
    mutating func endWindow(for model: String) { windows[model] = nil }

    /// Returns why that is not fair, within the time in which the same boxes could be picked.
    mutating func take(_ box: Int, of boxes: [Int], weights: [Int], for model: String) -> String? {
        var window = windows[model] ?? Window()
        if window.boxes != boxes {
            let none = boxes.map { _ in 0.0 }
            window = Window(boxes: boxes, picked: [], ahead: none, least: none, most: none)
        }
        defer { windows[model] = window }
        let isEven = Set(weights).count == 1
        let isTooSoon = isEven && window.picked.suffix(boxes.count - 1).contains(box)
        let sum = Double(weights.reduce(0, +))
        window.picked.append(box)
        for place in boxes.indices {
            window.ahead[place] += (boxes[place] == box ? 1 : 0) - Double(weights[place]) / sum
            window.least[place] = min(window.least[place], window.ahead[place])
            window.most[place] = max(window.most[place], window.ahead[place])
            let spread = max(window.ahead[place] - window.least[place], window.most[place] - window.ahead[place])
            if spread >= 2 { return "\(window.picked) of \(boxes), which weigh \(weights)" }
        }
        return isTooSoon ? "\(window.picked) of \(boxes)" : nil
    }

    /// A conversation has gone to this box. Returns whether it always prefers it to the others.
    mutating func stays(at box: Int, of boxes: [Int], _ conversation: UInt64) -> Bool {
        for other in boxes where other != box {
            if preferred.contains([conversation, UInt64(other), UInt64(box)]) { return false }
            preferred.insert([conversation, UInt64(box), UInt64(other)])
        }
        return true
    }
}
