import TestSupport

@testable import Gateway

/// A fleet to which random things happen, and beside it what should come of them.
final class FleetTrial {
    /// What must hold; the first that does not ends the trial, but for those of turns.
    enum Rule: String {
        case tried = "a box twice"
        case limit = "more than a box runs at a time"
        case health = "a box that takes no calls"
        case need = "in need, and there is no need"
        case trial = "a second trial"
        case drained = "a drained box"
        case rest = "a box that rests"
        case model = "a box without the model"
        case best = "not the best box"
        case refused = "refused, and wrongly"
        case waits = "waits, and should not"
        case full = "the queue is full, and is not"
        case order = "somebody who came later is served first"
        case lost = "somebody is lost"
        case state = "not the state it should be"
        case rotation = "not its turn"
        case home = "a conversation away from home"

        /// Those that say who of equally good ones is picked.
        static let ofTurns: Set<Rule> = [.rotation, .home]
    }

    /// What a trial has to have seen to show something.
    enum Event: CaseIterable {
        case ranAtOnce, ranLater, ranInNeed, ranOnTrial, waited, gaveUp, queueFull, refusedAtOnce, refusedLater, unknown
        case conflicted, displaced
        /// A pick among the same boxes as the last few.
        case inTurn
        /// A conversation that could have gone elsewhere.
        case atHome
    }

    struct Running {
        let lease: Balancer.Lease
        let ticket: UInt64
        let want: Balancer.Want
        var isAnswered = false
        var hasFailed = false
    }

    let seed: UInt64
    /// Little goes wrong.
    let isCalm: Bool
    var random: SeededGenerator
    var queue: RequestQueue
    var naive: NaiveFleet
    var turns = TurnsTaken()
    var now: UInt64 = 1_000_000_000
    var step = 0
    /// In the order of their tickets.
    var waiting: [(ticket: UInt64, want: Balancer.Want)] = []
    var running: [Int: Running] = [:]
    /// Requests that have failed and come again.
    var again: [(ticket: UInt64, want: Balancer.Want)] = []
    var visits: [(lease: Balancer.Lease, changes: Int)] = []
    /// For each box what ``NaiveFleet/Box/changes`` was when its probe was sent.
    var probes: [Int: Int] = [:]
    private(set) var broken: [Rule: String] = [:]
    var seen: [Event: Int] = [:]
    private var lastID = 0

    init(seed: UInt64, _ mode: Gateway.Balance, isCalm: Bool = false) {
        self.seed = seed
        self.isCalm = isCalm
        random = SeededGenerator(seed: seed)
        let isEven = Bool.random(using: &random)
        // Who is full, or in a higher tier, has no turns.
        let isOfTurns = isCalm && mode == .roundRobin
        let hasTiers = !isOfTurns && Bool.random(using: &random)
        let limits = isOfTurns ? 8...8 : isCalm ? 2...8 : 1...3
        var boxes: [NaiveFleet.Box] = []
        for _ in 0..<Int.random(in: isCalm ? 3...6 : 1...6, using: &random) {
            boxes.append(
                NaiveFleet.Box(
                    weight: isEven ? 1 : Int.random(in: 1...4, using: &random),
                    tier: hasTiers ? Int.random(in: 1...2, using: &random) : 1,
                    limit: Int.random(in: limits, using: &random)))
        }
        naive = NaiveFleet(boxes, mode: mode)
        let states = boxes.enumerated().map { number, box in
            BackendState(name: "box\(number)", weight: box.weight, tier: box.tier, limit: box.limit)
        }
        queue = RequestQueue(
            Balancer(states, mode: mode), limit: [2, 6, 12].randomElement(using: &random) ?? 0)
    }

    // MARK: Checking

    var isOver: Bool { broken.contains { !Rule.ofTurns.contains($0.key) } }

    /// Notes the first time that a rule is broken.
    func check(_ holds: Bool, _ rule: Rule, _ what: @autoclosure () -> String = "") {
        if holds || broken[rule] != nil { return }
        broken[rule] = "seed \(seed), step \(step), \(queue.balancer.mode): \(what())"
    }

    func saw(_ event: Event) { seen[event, default: 0] += 1 }

    // MARK: Running

    func run(steps: Int) {
        // Of the first nothing is known yet.
        for box in naive.boxes.indices where box > 0 || isCalm {
            list(at: box)
            probeEnds(box, isWell: true)
            checkAll()
        }
        while step < steps, !isOver {
            step += 1
            happen()
            checkAll()
        }
        finish()
    }

    func enter(_ want: Balancer.Want, _ ticket: UInt64) {
        let expected = naive.verdict(want, at: now)
        switch queue.enter(want, ticket, at: now) {
        case .run(let lease):
            saw(.ranAtOnce)
            begin(lease, ticket, want, expected)
        case .wait:
            saw(.waited)
            check(expected == .wait, .waits, "\(want): \(expected)")
            // One that has run before was let in once.
            check(waiting.count < queue.limit || !want.tried.isEmpty, .full)
            waiting.insert((ticket, want), at: waiting.firstIndex { $0.ticket > ticket } ?? waiting.count)
        case .full:
            saw(.queueFull)
            check(waiting.count >= queue.limit && want.tried.isEmpty, .full, "\(want)")
            check(expected == .wait, .waits, "\(want): \(expected)")
        case .refuse(let refusal):
            saw(refusal == .unknownModel ? .unknown : .refusedAtOnce)
            check(expected == .refuse(refusal), .refused, "\(want): \(refusal), not \(expected)")
        }
    }

    /// A request has got a place.
    private func begin(
        _ lease: Balancer.Lease, _ ticket: UInt64, _ want: Balancer.Want, _ expected: NaiveFleet.Verdict
    ) {
        let box = lease.backend
        let it = naive.boxes[box]
        check(!want.tried.contains(box), .tried, "\(want) at \(box)")
        check(naive.running(box) < it.limit, .limit, "at \(box)")
        check(!it.isDrained, .drained, "at \(box)")
        check(it.restsUntil <= now, .rest, "at \(box)")
        check(it.health == .healthy || it.trial == nil, .trial, "at \(box)")
        let digest = naive.chosen[want.model]
        check(want.model.isEmpty || (digest != nil && it.list?[want.model]?.digest == digest), .model, "at \(box)")
        check(lease.digest == (digest ?? "") && lease.takesPlace && lease.since == now, .state, "\(lease)")
        guard case .run(let best, let isInNeed) = expected else {
            return check(false, .refused, "\(want) runs at \(box), not \(expected)")
        }
        if isInNeed { saw(.ranInNeed) } else if it.health == .recovering { saw(.ranOnTrial) }
        check(isInNeed || naive.isOpen(box, at: now), naive.isOpenInNeed(box, at: now) ? .need : .health, "at \(box)")
        check(best.contains(box), .best, "\(want) at \(box), not \(best)")
        if isInNeed { turns.endWindow(for: want.model) } else if !isOver { checkTurn(box, want, best) }
        lastID += 1
        running[lastID] = Running(lease: lease, ticket: ticket, want: want)
        naive.begin(lastID, box, lease.digest, at: now)
    }

    private func checkTurn(_ box: Int, _ want: Balancer.Want, _ best: [Int]) {
        switch naive.mode {
        case .roundRobin:
            let problem = turns.take(box, of: best, weights: best.map { naive.boxes[$0].weight }, for: want.model)
            check(problem == nil, .rotation, "\(want.model) at \(box): \(problem ?? "")")
            if turns.length(for: want.model) > 3 * best.count, best.count > 1 { saw(.inTurn) }
        case .affinity where want.conversation != 0:
            let calm = naive.calm(best, for: want, at: now)
            if calm.count > 1 { saw(.atHome) }
            let isAtHome = calm.isEmpty || (calm.contains(box) && turns.stays(at: box, of: calm, want.conversation))
            check(isAtHome, .home, "\(want) at \(box) of \(calm)")
        default: break
        }
    }

    /// Wakes those whose turn has come, and looks whether it has.
    func settle() {
        for turn in queue.settle(at: now) where !isOver {
            guard let place = waiting.firstIndex(where: { $0.ticket == turn.ticket }) else {
                return check(false, .lost, "\(turn.ticket) does not wait")
            }
            for (ticket, want) in waiting[..<place] {
                check(naive.verdict(want, at: now) == .wait, .order, "\(turn.ticket) before \(ticket)")
            }
            let want = waiting.remove(at: place).want
            let expected = naive.verdict(want, at: now)
            switch turn.outcome {
            case .success(let lease):
                saw(.ranLater)
                begin(lease, turn.ticket, want, expected)
            case .failure(let refusal):
                saw(refusal == .unknownModel ? .unknown : .refusedLater)
                check(expected == .refuse(refusal), .refused, "\(want): \(refusal), not \(expected)")
            }
        }
    }

    private func checkAll() {
        settle()
        if isOver { return }
        check(queue.waiting == waiting.count, .lost, "\(queue.waiting) wait, not \(waiting.count)")
        for (ticket, want) in waiting {
            let expected = naive.verdict(want, at: now)
            check(expected == .wait, .waits, "\(ticket), \(want): \(expected)")
        }
        for box in naive.boxes.indices { checkState(of: box) }
        checkModels()
    }

    private func checkState(of box: Int) {
        let (it, state) = (naive.boxes[box], queue.balancer.backends[box])
        let calls = naive.running(box)
        check(calls <= it.limit, .limit)
        check(state.running == calls, .state, "box \(box) runs \(state.running), not \(calls)")
        check(state.breaker.state == it.health, .state, "box \(box) is \(state.breaker.state), not \(it.health)")
        check(state.breaker.epoch == it.changes, .state, "box \(box) changed")
        check(state.loads.count == it.loads.count, .state, "box \(box) has loaded \(state.loads), not \(it.loads)")
        for load in it.loads {
            let isSo = state.loads.contains { $0.digest == load.digest && $0.isConfirmed == load.isKnown }
            check(isSo, .state, "box \(box) has loaded \(state.loads), not \(it.loads)")
        }
    }

    /// What the names stand for, where something may have changed.
    private func checkModels() {
        guard !naive.displaced.isEmpty || !queue.balancer.displaced.isEmpty || step % 50 == 0 else { return }
        check(queue.balancer.displaced.sorted() == naive.displaced.sorted(), .state, "displaced: \(naive.displaced)")
        if !naive.displaced.isEmpty { saw(.displaced) }
        (naive.displaced, queue.balancer.displaced) = ([], [])
        let entries = queue.balancer.directory.entries
        check(entries.count == naive.chosen.count, .state, "\(entries.count) names")
        for (name, digest) in naive.chosen {
            check(entries[name]?.digest == digest, .model, "\(name) stands for \(entries[name]?.digest ?? "nothing")")
            check(entries[name]?.candidates.all.map(\.backend) == naive.holders[name], .model, name)
            if entries[name]?.isConflicted == true { saw(.conflicted) }
        }
    }

    /// Lets all be well and end, and sees that everybody was served or refused.
    private func finish() {
        if isOver { return }
        now += 100_000_000_000
        for box in naive.boxes.indices { drain(box, false) }
        for _ in 0..<1000 where !isOver && !(running.isEmpty && waiting.isEmpty && naive.boxes.allSatisfy(\.isWell)) {
            for box in naive.boxes.indices { probeEnds(box, isWell: true) }
            checkAll()
            for id in running.keys.sorted() {
                answer(id, isGood: true)
                end(id)
                checkAll()
            }
        }
        check(waiting.isEmpty && queue.waiting == 0, .lost, "\(waiting.count) wait at the end")
        for box in naive.boxes.indices {
            check(queue.balancer.backends[box].breaker.state == .healthy, .health, "box \(box) at the end")
            check(queue.balancer.backends[box].running == 0, .limit, "box \(box) at the end")
        }
        for name in naive.chosen.keys.sorted() where !isOver {
            enter(Balancer.Want(model: name), queue.takeTicket())
            check(running.count == 1, .waits, "\(name) at the end")
            running.keys.forEach { end($0) }
        }
    }
}
