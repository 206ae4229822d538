@testable import Gateway

/// What a fleet must do, in the plainest terms: nothing is kept twice, and whatever is asked is found by looking at
/// everything.
struct NaiveFleet {
    struct Box {
        let weight: Int
        let tier: Int
        let limit: Int
        var health = Breaker.State.starting
        /// How often its health has changed.
        var changes = 0
        /// Another call may be tried in need: a call failed, at once, and no probe has failed since.
        var isDoubtful = false
        /// Since it was healthy, calls have failed and no probe has since.
        var needsTrial = false
        /// The call that finds out whether it is well.
        var trial: Int?
        var isDrained = false
        var restsUntil: UInt64 = 0
        var isProbing = false
        var list: [String: Listing]?
        var loads: [Load] = []

        var isWell: Bool { health == .healthy }
    }

    struct Load {
        let digest: String
        /// That it is loaded is known, not guessed.
        var isKnown: Bool
        /// When a call with it began or ended last.
        var lastUsed: UInt64
    }

    struct Call {
        let box: Int
        let digest: String
        /// What ``Box/changes`` was when it began.
        let changes: Int
    }

    enum Verdict: Equatable {
        /// On one of these; in need if none of them takes calls.
        case run(on: [Int], inNeed: Bool)
        case wait
        case refuse(Balancer.Refusal)
    }

    let mode: Gateway.Balance
    var boxes: [Box]
    var calls: [Int: Call] = [:]
    private(set) var chosen: [String: String] = [:]
    /// Boxes that have what a name stands for.
    private(set) var holders: [String: [Int]] = [:]
    /// Names that stand for another model than before, or for none.
    var displaced: [String] = []

    init(_ boxes: [Box], mode: Gateway.Balance) {
        self.boxes = boxes
        self.mode = mode
    }

    // MARK: Who may run where

    func verdict(_ want: Balancer.Want, at now: UInt64) -> Verdict {
        if !want.model.isEmpty, chosen[want.model] == nil {
            let isSought = boxes.indices.contains { box in
                let mayTell = serves(box) || boxes[box].list == nil
                return !boxes[box].isDrained
                    && (boxes[box].health == .starting || (boxes[box].isProbing && mayTell))
            }
            if isSought { return .wait }
            let mayBeHidden = boxes.contains { $0.list == nil && !$0.isDrained }
            return .refuse(!mayBeHidden && boxes.indices.contains(where: serves) ? .unknownModel : .unavailable)
        }
        let able = able(want)
        let open = able.filter { isOpen($0, at: now) }
        let free = open.filter { !isFull($0) }
        if !free.isEmpty { return .run(on: best(of: free, for: want), inNeed: false) }
        if !open.isEmpty || able.contains(where: isOnTrial) { return .wait }
        let doubtful = able.filter { isOpenInNeed($0, at: now) }
        let inNeed = doubtful.filter { !isFull($0) }
        if !inNeed.isEmpty { return .run(on: inNeed, inNeed: true) }
        return !doubtful.isEmpty || able.contains { mayOpen($0, at: now) } ? .wait : .refuse(.unavailable)
    }

    /// Those that have the model and were not tried.
    func able(_ want: Balancer.Want) -> [Int] {
        let holders = want.model.isEmpty ? Array(boxes.indices) : holders[want.model] ?? []
        return want.tried.isEmpty ? holders : holders.filter { !want.tried.contains($0) }
    }

    func running(_ box: Int) -> Int { calls.values.count { $0.box == box } }

    func isFull(_ box: Int) -> Bool { running(box) >= boxes[box].limit }

    func isOnTrial(_ box: Int) -> Bool {
        boxes[box].trial != nil && boxes[box].health != .healthy && !boxes[box].isDrained
    }

    func serves(_ box: Int) -> Bool {
        !boxes[box].isDrained && (boxes[box].health == .healthy || boxes[box].health == .recovering)
    }

    private func takesCalls(_ box: Int) -> Bool {
        boxes[box].health == .healthy || (boxes[box].health == .recovering && boxes[box].trial == nil)
    }

    func isOpen(_ box: Int, at now: UInt64) -> Bool {
        takesCalls(box) && !boxes[box].isDrained && boxes[box].restsUntil <= now
    }

    func isOpenInNeed(_ box: Int, at now: UInt64) -> Bool {
        let it = boxes[box]
        return it.health == .unhealthy && it.isDoubtful && it.trial == nil && !it.isDrained && it.restsUntil <= now
    }

    private func mayOpen(_ box: Int, at now: UInt64) -> Bool {
        let it = boxes[box]
        if it.isDrained { return false }
        return it.health == .starting || it.isProbing || isOnTrial(box) || (takesCalls(box) && it.restsUntil > now)
    }

    // MARK: Which is the best

    /// Those that are as good as any; for a conversation, before its own box is looked for.
    private func best(of free: [Int], for want: Balancer.Want) -> [Int] {
        var best = NaiveFleet.least(free) { boxes[$0].tier }
        if mode == .roundRobin { return best }
        let digest = chosen[want.model] ?? ""
        // What is no model's loads nothing.
        if !want.model.isEmpty { best = NaiveFleet.least(best) { hasLoaded(digest, $0) ? 0 : 1 } }
        if !want.model.isEmpty, !hasLoaded(digest, best[0]) {
            best = NaiveFleet.least(best) { box in boxes[box].loads.count { load in isNowhereElse(load, than: box) } }
            best = NaiveFleet.least(best) { boxes[$0].loads.isEmpty ? 0 : 1 }
        }
        if mode == .affinity && want.conversation != 0 { return best }
        let common = boxes.map(\.weight).reduce(1, *)
        return NaiveFleet.least(best) { running($0) * common / boxes[$0].weight }
    }

    /// Those of the best that run no two requests more than another that could serve: one of them has the conversation.
    /// None if the model has to be loaded first: then there is something else to go by.
    func calm(_ best: [Int], for want: Balancer.Want, at now: UInt64) -> [Int] {
        guard want.model.isEmpty || hasLoaded(chosen[want.model] ?? "", best[0]) else { return [] }
        let free = able(want).filter { isOpen($0, at: now) && !isFull($0) }
        let idlest = free.filter { boxes[$0].tier == boxes[best[0]].tier }.map(running).min() ?? 0
        return best.filter { running($0) < idlest + 2 }
    }

    private func hasLoaded(_ digest: String, _ box: Int) -> Bool {
        boxes[box].loads.contains { $0.digest == digest }
    }

    private func isNowhereElse(_ load: Load, than box: Int) -> Bool {
        !boxes.indices.contains { $0 != box && hasLoaded(load.digest, $0) }
    }

    private static func least(_ boxes: [Int], _ measure: (Int) -> Int) -> [Int] {
        if boxes.count == 1 { return boxes }
        let measures = boxes.map(measure)
        let least = measures.min()
        return zip(boxes, measures).filter { $0.1 == least }.map(\.0)
    }
}

// MARK: - What happens

extension NaiveFleet {
    mutating func begin(_ id: Int, _ box: Int, _ digest: String, at now: UInt64) {
        if boxes[box].health != .healthy { boxes[box].trial = id }
        if !digest.isEmpty, !hasLoaded(digest, box) {
            boxes[box].loads.removeAll { load in !calls.values.contains { $0.box == box && $0.digest == load.digest } }
            boxes[box].loads.append(Load(digest: digest, isKnown: false, lastUsed: now))
        }
        use(digest, box, at: now)
        calls[id] = Call(box: box, digest: digest, changes: boxes[box].changes)
    }

    /// Returns whether that its model is loaded is news.
    mutating func answered(_ id: Int, isGood: Bool) -> Bool {
        guard let call = calls[id] else { return false }
        var isNews = false
        if isGood, let place = boxes[call.box].loads.firstIndex(where: { $0.digest == call.digest }) {
            isNews = !boxes[call.box].loads[place].isKnown
            boxes[call.box].loads[place].isKnown = true
        }
        if isOfNow(id, call) {
            endTrial(id, call.box)
            become(.healthy, call.box)
        }
        return isNews
    }

    mutating func failed(_ id: Int, mayBeTriedInNeed: Bool) {
        guard let call = calls[id], isOfNow(id, call) else { return }
        endTrial(id, call.box)
        fails(call.box, mayBeTriedInNeed: mayBeTriedInNeed)
    }

    /// Something failed that was no call.
    mutating func visitFailed(_ box: Int, since changes: Int, mayBeTriedInNeed: Bool) {
        if changes == boxes[box].changes { fails(box, mayBeTriedInNeed: mayBeTriedInNeed) }
    }

    /// Whether a call says something of how the box is now: if nothing has changed since it began, or it is the trial.
    private func isOfNow(_ id: Int, _ call: Call) -> Bool {
        call.changes == boxes[call.box].changes || boxes[call.box].trial == id
    }

    private mutating func fails(_ box: Int, mayBeTriedInNeed: Bool) {
        boxes[box].isDoubtful = mayBeTriedInNeed
        boxes[box].needsTrial = true
        become(.unhealthy, box)
    }

    /// Returns whether its model is not loaded after all.
    mutating func end(_ id: Int, at now: UInt64) -> Bool {
        guard let call = calls.removeValue(forKey: id) else { return false }
        endTrial(id, call.box)
        use(call.digest, call.box, at: now)
        if calls.values.contains(where: { $0.box == call.box && $0.digest == call.digest }) { return false }
        let before = boxes[call.box].loads.count
        boxes[call.box].loads.removeAll { $0.digest == call.digest && !$0.isKnown }
        return boxes[call.box].loads.count < before
    }

    private mutating func use(_ digest: String, _ box: Int, at now: UInt64) {
        guard let place = boxes[box].loads.firstIndex(where: { $0.digest == digest }) else { return }
        boxes[box].loads[place].lastUsed = now
    }

    func mayBeLoading(_ id: Int) -> Bool {
        guard let call = calls[id] else { return false }
        return !boxes[call.box].loads.contains { $0.digest == call.digest && $0.isKnown }
    }

    private mutating func endTrial(_ id: Int, _ box: Int) {
        if boxes[box].trial == id { boxes[box].trial = nil }
    }

    mutating func probed(_ box: Int, isWell: Bool, since changes: Int) {
        guard changes == boxes[box].changes else { return }
        guard isWell else {
            (boxes[box].isDoubtful, boxes[box].needsTrial) = (false, false)
            return become(.unhealthy, box)
        }
        switch boxes[box].health {
        case .unhealthy where boxes[box].needsTrial: become(.recovering, box)
        default: become(.healthy, box)
        }
    }

    private mutating func become(_ health: Breaker.State, _ box: Int) {
        guard boxes[box].health != health else { return }
        boxes[box].health = health
        boxes[box].changes += 1
        if health == .healthy { (boxes[box].isDoubtful, boxes[box].needsTrial, boxes[box].trial) = (false, false, nil) }
        choose()
    }

    mutating func rest(_ box: Int, until time: UInt64) { boxes[box].restsUntil = max(boxes[box].restsUntil, time) }

    mutating func drain(_ box: Int, _ isDrained: Bool) {
        boxes[box].isDrained = isDrained
        choose()
    }

    mutating func list(_ listing: [Listing], at box: Int) {
        boxes[box].list = Dictionary(listing.map { ($0.name, $0) }) { first, _ in first }
        choose()
    }

    /// A box says what it had loaded when it was asked.
    mutating func loaded(_ digests: [String], at box: Int, askedAt time: UInt64) {
        var loads = boxes[box].loads.filter { load in
            load.lastUsed >= time || calls.values.contains { $0.box == box && $0.digest == load.digest }
        }
        for digest in Set(digests) where !digest.isEmpty {
            let lastUsed = boxes[box].loads.first { $0.digest == digest }?.lastUsed ?? 0
            loads.removeAll { $0.digest == digest }
            loads.append(Load(digest: digest, isKnown: true, lastUsed: lastUsed))
        }
        boxes[box].loads = loads
    }

    /// Finds out anew what every name stands for.
    private mutating func choose() {
        let before = chosen
        (chosen, holders) = ([:], [:])
        for name in Set(boxes.flatMap { $0.list.map { Array($0.keys) } ?? [] }) {
            let listings = boxes.map { $0.list?[name] }
            let digests = Set(listings.compactMap { $0?.digest })
            let digest = digests.max { claim(of: $0, listings) < claim(of: $1, listings) }
            chosen[name] = digest
            holders[name] = boxes.indices.filter { listings[$0]?.digest == digest }
        }
        displaced += before.keys.filter { chosen[$0] != before[$0] }
    }

    private func claim(of digest: String, _ listings: [Listing?]) -> (Int, Int, Int64, String) {
        let having = boxes.indices.filter { listings[$0]?.digest == digest }
        let isUp = having.contains(where: serves)
        return (isUp ? 1 : 0, having.count, having.compactMap { listings[$0]?.modified }.max() ?? 0, digest)
    }
}
