/// Where an event of `/v1` tells how many tokens there were.
enum UsageMember: Equatable {
    case absent
    /// The event is there for nothing else.
    case wholeEvent
    /// The member, with the comma that separates it from another.
    case range(Range<Int>)

    /// - Parameter root: what the event's data is.
    init(in root: JSONNode) {
        guard root["usage"] != nil else {
            self = .absent
            return
        }
        if let choices = root["choices"], choices.kind == .array, choices.isEmpty {
            self = .wholeEvent
            return
        }
        var previous: Int?
        var start: Int?
        for (name, value) in root.members {
            if let start {
                self = .range(start..<name.range.lowerBound)
                return
            }
            guard name.equals("usage") else {
                previous = value.range.upperBound
                continue
            }
            if let previous {
                self = .range(previous..<value.range.upperBound)
                return
            }
            start = name.range.lowerBound
        }
        self = .range((start ?? root.range.upperBound - 1)..<root.range.upperBound - 1)
    }
}
