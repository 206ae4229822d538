import HTTPCore

/// The finished responses of the hottest entries: a hit is queued, not built. Bounded; when it is full, an entry that
/// was not asked for since the hand last passed gives way (second chance).
struct ReadyTable {
    private struct Ready {
        let key: Key
        /// One for each ``AnswerForm``.
        var responses = InlineArray<3, Finished>(repeating: Finished())
        var bytes = 0
        /// Not from the start: else those that come and are never asked for push out those that are.
        var isReferenced = false
    }

    private struct Finished {
        var response: Response?
        var cost = 0
    }

    private var records: [Ready?] = []
    private var free: [UInt16] = []
    private var hand = 0
    private let limit: Int
    /// What all responses take.
    private(set) var bytes = 0

    /// The number of no record.
    static var none: UInt16 { .max }

    /// - Parameter limit: entries with responses at a time, below 65,535.
    init(limit: Int) {
        self.limit = max(1, min(limit, Int(Self.none)))
    }

    /// Entries with a response.
    var count: Int { records.count - free.count }

    mutating func response(_ number: UInt16, _ form: AnswerForm) -> Response? {
        guard number != Self.none else { return nil }
        records[Int(number)]?.isReferenced = true
        return records[Int(number)]?.responses[Int(form.rawValue)].response
    }

    func bytes(of number: UInt16) -> Int {
        number == Self.none ? 0 : records[Int(number)]?.bytes ?? 0
    }

    /// Whether another entry must give way before one is added.
    var isFull: Bool { free.isEmpty && records.count == limit }

    /// Makes a record for an entry; the table must not be full.
    mutating func add(_ key: Key) -> UInt16 {
        if let number = free.popLast() {
            records[Int(number)] = Ready(key: key)
            return number
        }
        records.append(Ready(key: key))
        return UInt16(records.count - 1)
    }

    /// Keeps a response, in place of the one before it in the same form.
    mutating func set(_ number: UInt16, _ form: AnswerForm, _ response: Response, cost: Int) {
        let change = cost - (records[Int(number)]?.responses[Int(form.rawValue)].cost ?? 0)
        records[Int(number)]?.responses[Int(form.rawValue)] = Finished(response: response, cost: cost)
        records[Int(number)]?.bytes += change
        bytes += change
    }

    mutating func remove(_ number: UInt16) {
        guard number != Self.none else { return }
        bytes -= bytes(of: number)
        records[Int(number)] = nil
        free.append(number)
        if count == 0 { (records, free) = ([], []) }
    }

    /// The key of the entry that gives way next. The table must not be empty.
    mutating func victim() -> Key {
        while true {
            hand = hand + 1 < records.count ? hand + 1 : 0
            guard let ready = records[hand] else { continue }
            if !ready.isReferenced { return ready.key }
            records[hand]?.isReferenced = false
        }
    }
}
