/// Who runs where and who waits: decides, and does nothing.
///
/// Whoever can run somewhere runs; the rest wait, and of those who could run on a backend that becomes free the one
/// that came first does. Nobody waits for what cannot come.
///
/// After whatever may have opened or closed a backend, ``settle(at:)`` has to be called.
struct RequestQueue {
    typealias Want = Balancer.Want
    typealias Lease = Balancer.Lease

    /// The order in which requests came.
    typealias Ticket = UInt64

    enum Entry {
        case run(Lease)
        case wait
        /// As many wait as may.
        case full
        case refuse(Balancer.Refusal)
    }

    /// What becomes of one that waits.
    struct Turn {
        let ticket: Ticket
        let outcome: Result<Lease, Balancer.Refusal>
    }

    /// Those that can run in the same places wait in one line.
    private struct Line: Hashable {
        let model: String
        let tried: [Int]
    }

    var balancer: Balancer
    /// Requests that may wait; 0 for none.
    let limit: Int
    private var lines: [Line: [Ticket]] = [:]
    private var wants: [Ticket: Want] = [:]
    private var lastTicket: Ticket = 0

    init(_ balancer: Balancer, limit: Int) {
        self.balancer = balancer
        self.limit = limit
    }

    var waiting: Int { wants.count }

    /// How many of those that wait could run at each backend.
    func waitingByBackend() -> [Int] {
        var counts = [Int](repeating: 0, count: balancer.backends.count)
        for (line, tickets) in lines {
            for candidate in balancer.candidates(for: line.model) where !line.tried.contains(candidate.backend) {
                counts[candidate.backend] += tickets.count
            }
        }
        return counts
    }

    mutating func takeTicket() -> Ticket {
        lastTicket += 1
        return lastTicket
    }

    /// One wants to run; one that has run before keeps its ticket.
    mutating func enter(_ want: Want, _ ticket: Ticket, at now: UInt64) -> Entry {
        switch balancer.pick(for: want, at: now) {
        case .run(let lease): return .run(lease)
        case .refuse(let refusal): return .refuse(refusal)
        case .wait: break
        }
        // One that has run before was let in once.
        guard wants.count < limit || !want.tried.isEmpty else { return .full }
        wants[ticket] = want
        let line = Line(model: want.model, tried: want.tried)
        let tickets = lines[line] ?? []
        // Nearly always the end.
        let place = tickets.lastIndex { $0 < ticket }.map { $0 + 1 } ?? 0
        lines[line, default: []].insert(ticket, at: place)
        return .wait
    }

    /// One that waits gives up. Harmless if it does not wait.
    mutating func leave(_ ticket: Ticket) {
        guard let want = wants.removeValue(forKey: ticket) else { return }
        let line = Line(model: want.model, tried: want.tried)
        guard let place = lines[line].flatMap({ RequestQueue.place(of: ticket, in: $0) }) else { return }
        lines[line]?.remove(at: place)
        if lines[line]?.isEmpty == true { lines[line] = nil }
    }

    /// Tickets in a line are in order.
    private static func place(of ticket: Ticket, in tickets: [Ticket]) -> Int? {
        var (low, high) = (0, tickets.count)
        while low < high {
            let middle = (low + high) / 2
            if tickets[middle] < ticket { low = middle + 1 } else { high = middle }
        }
        return low < tickets.count && tickets[low] == ticket ? low : nil
    }

    /// Everybody whose turn has come, in order: those who can run now, and those who wait for nothing.
    mutating func settle(at now: UInt64) -> [Turn] {
        guard !lines.isEmpty else { return [] }
        var turns: [Turn] = []
        var open = Set(lines.keys)
        while let line = open.min(by: { lines[$0]?.first ?? .max < lines[$1]?.first ?? .max }) {
            guard let ticket = lines[line]?.first, let want = wants[ticket] else {
                open.remove(line)
                continue
            }
            switch balancer.pick(for: want, at: now) {
            case .wait:
                open.remove(line)
                continue
            case .run(let lease): turns.append(Turn(ticket: ticket, outcome: .success(lease)))
            case .refuse(let refusal): turns.append(Turn(ticket: ticket, outcome: .failure(refusal)))
            }
            leave(ticket)
        }
        return turns
    }
}
