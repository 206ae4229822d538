/// Who runs where and who waits: decides, and does nothing.
///
/// Each backend runs a limited number of requests at once; the rest wait in the order they came. A backend that is
/// full is passed over for a free one, else they take turns.
struct RequestQueue {
    /// A place in the queue.
    typealias Ticket = UInt64

    enum Entry: Equatable {
        /// Runs at once, on the backend of this index.
        case run(backend: Int)
        case wait(Ticket)
        /// As many wait as may.
        case full
    }

    /// Requests that one backend runs at a time, at least one.
    let concurrency: Int
    /// Requests that may wait; 0 for none.
    let limit: Int
    private(set) var running: [Int]
    private var position = 0
    private var nextTicket: Ticket = 1
    /// Tickets in order; those not in `waitingTickets` have left.
    private var order: [Ticket] = []
    private var head = 0
    private var waitingTickets: Set<Ticket> = []

    init(backends: Int, concurrency: Int, limit: Int) {
        precondition(backends > 0 && concurrency > 0, "a queue needs somebody to serve it")
        self.concurrency = concurrency
        self.limit = limit
        running = [Int](repeating: 0, count: backends)
    }

    var waiting: Int { waitingTickets.count }

    /// Requests that all backends together run at a time.
    var slots: Int { running.count * concurrency }

    mutating func enter() -> Entry {
        if waitingTickets.isEmpty, let backend = takeFree() { return .run(backend: backend) }
        guard waitingTickets.count < limit else { return .full }
        defer { nextTicket += 1 }
        order.append(nextTicket)
        waitingTickets.insert(nextTicket)
        return .wait(nextTicket)
    }

    /// One that waits gives up. Harmless if it runs or has left before.
    mutating func leave(_ ticket: Ticket) {
        waitingTickets.remove(ticket)
        compact()
    }

    /// A request has ended.
    /// - Returns: the one whose turn it is now, and where it runs.
    mutating func release(backend: Int) -> (ticket: Ticket, backend: Int)? {
        running[backend] -= 1
        while head < order.count {
            let ticket = order[head]
            guard waitingTickets.contains(ticket) else {
                head += 1
                continue
            }
            guard let free = takeFree() else { break }
            head += 1
            waitingTickets.remove(ticket)
            compact()
            return (ticket, free)
        }
        compact()
        return nil
    }

    private mutating func takeFree() -> Int? {
        for step in 0..<running.count {
            let backend = (position + step) % running.count
            guard running[backend] < concurrency else { continue }
            position = (backend + 1) % running.count
            running[backend] += 1
            return backend
        }
        return nil
    }

    /// Lets go of what has been served or has left, once it is the larger part.
    private mutating func compact() {
        if waitingTickets.isEmpty {
            order.removeAll(keepingCapacity: true)
            head = 0
        } else if order.count > 64, order.count > 2 * waitingTickets.count {
            order = order[head...].filter(waitingTickets.contains)
            head = 0
        }
    }
}
