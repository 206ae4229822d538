/// Which backend a request goes to: decides, and does nothing.
///
/// Among the backends that have the model, take calls and are not full, those of the lowest tier count. Among them,
///
/// - `roundRobin` takes turns, each as often as it weighs;
/// - `leastLoaded` takes one that has the model loaded, else one that has the least to lose by loading it; then the
///   one that runs the fewest for its weight; then turns;
/// - `affinity` does the same but for the last two: it takes the backend that the conversation belongs to, unless
///   that runs two requests more than another could.
///
/// When none of them takes calls, one may be tried that failed a call and no probe since.
package struct Balancer {
    /// What a request needs of a backend.
    package struct Want: Sendable {
        /// As ``ModelName`` writes it; "" for what any backend can do.
        var model = ""
        /// Backends that it has been to, in order of their numbers.
        var tried: [Int] = []
        /// Stays the same while a conversation goes on; 0 for none.
        var conversation: UInt64 = 0

        package init(model: String = "", tried: [Int] = [], conversation: UInt64 = 0) {
            self.model = model
            self.tried = tried
            self.conversation = conversation
        }
    }

    /// A place at a backend, until it is given back by ``end(_:)``.
    package struct Lease: Sendable {
        let backend: Int
        let pass: Breaker.Pass
        /// Of the model; "" if it is not known which.
        let digest: String
        /// In monotonic nanoseconds.
        let since: UInt64
        let takesPlace: Bool
    }

    package enum Refusal: Error, Equatable, Sendable {
        /// No backend has the model.
        case unknownModel
        /// None that has it takes calls.
        case unavailable
    }

    package enum Choice {
        case run(Lease)
        /// None is free, or one is finding out whether it is well.
        case wait
        case refuse(Refusal)
    }

    let mode: Gateway.Balance
    private(set) var backends: [BackendState]
    /// What of that matters to picking.
    private var seats: [Seat]
    var directory: ModelDirectory
    /// Names of models that meanwhile stand for another, or for none.
    var displaced: [String] = []
    private var all: Candidates
    /// Models begin their rounds where those before them have got to.
    private var picks = 0
    /// Places of those that are equally good; kept for its memory.
    private var ties: [Int32] = []

    package init(_ backends: [BackendState], mode: Gateway.Balance) {
        precondition(!backends.isEmpty, "a gateway needs a backend")
        self.backends = backends
        seats = backends.map { Seat($0) }
        self.mode = mode
        directory = ModelDirectory(backends: backends.count)
        all = Candidates(backends.indices)
    }

    /// Something happens to a backend.
    @discardableResult
    mutating func change<T>(_ backend: Int, _ event: (inout BackendState) -> T) -> T {
        defer { seats[backend] = Seat(backends[backend]) }
        return event(&backends[backend])
    }

    func seat(of backend: Int) -> Seat { seats[backend] }

    // MARK: Picking

    /// Picks a backend and takes a place there.
    package mutating func pick(for want: Want, at now: UInt64) -> Choice {
        let found: Found
        var digest = ""
        if want.model.isEmpty {
            found = Balancer.find(in: &all, seats, mode, want, now, picks, &ties)
        } else if let index = directory.entries.index(forKey: want.model) {
            digest = directory.entries.values[index].digest
            found = Balancer.find(
                in: &directory.entries.values[index].candidates, seats, mode, want, now, picks, &ties)
        } else {
            if mayStillBeFound { return .wait }
            // One that has never said what it has may have it.
            let isCertain = backends.indices.allSatisfy { directory.listings[$0] != nil || backends[$0].isDrained }
            return .refuse(isCertain && backends.contains(where: \.isServing) ? .unknownModel : .unavailable)
        }
        switch found {
        case .backend(let backend):
            picks &+= 1
            return .run(begin(backend, digest, at: now))
        case .notYet: return .wait
        case .none: return .refuse(.unavailable)
        }
    }

    /// Whether a backend other than those tried takes calls, be it full, or may after the call that it has on trial.
    func hasAnother(for want: Want, at now: UInt64) -> Bool {
        candidates(for: want.model).contains { candidate in
            let seat = seats[candidate.backend]
            return !want.tried.contains(candidate.backend)
                && (seat.isOpen(at: now) || seat.isOnTrial || seat.isOpenInNeed(at: now))
        }
    }

    func candidates(for model: String) -> [Candidates.Candidate] {
        model.isEmpty ? all.all : directory.entries[model]?.candidates.all ?? []
    }

    /// Whether a backend is being asked what it has.
    private var mayStillBeFound: Bool {
        backends.indices.contains { index in
            let state = backends[index]
            guard !state.isDrained else { return false }
            let mayTell = state.isServing || directory.listings[index] == nil
            return state.breaker.state == .starting || (state.isProbing && mayTell)
        }
    }

    private enum Found { case backend(Int), notYet, none }

    private static func find(
        in candidates: inout Candidates, _ seats: [Seat], _ mode: Gateway.Balance, _ want: Want, _ now: UInt64,
        _ picks: Int,
        _ ties: inout [Int32]
    ) -> Found {
        var (best, isAnyOpen, mayOpen, hasTrial) = (Rank(), false, false, false)
        var inNeed: [Int32] = []
        let idlest = mode == .affinity ? leastRunning(candidates, seats, want, now) : 0
        ties.removeAll(keepingCapacity: true)
        for place in candidates.all.indices {
            let candidate = candidates.all[place]
            if !want.tried.isEmpty, want.tried.contains(candidate.backend) { continue }
            let seat = seats[candidate.backend]
            guard seat.isOpen(at: now) else {
                mayOpen = mayOpen || seat.mayOpen(at: now)
                hasTrial = hasTrial || seat.isOnTrial
                if seat.isOpenInNeed(at: now) {
                    // Full as it may be of calls that are failing too.
                    if seat.isFull { mayOpen = true } else { inNeed.append(Int32(truncatingIfNeeded: place)) }
                }
                continue
            }
            isAnyOpen = true
            if seat.isFull { continue }
            // What is no model's, or not known whose, loads nothing.
            let isLoaded = candidate.isLoaded || want.model.isEmpty
            let rank = Rank(seat, isLoaded: isLoaded, mode, want.conversation, idlest)
            if !ties.isEmpty {
                if best < rank { continue }
                if rank < best { ties.removeAll(keepingCapacity: true) }
            }
            best = rank
            ties.append(Int32(truncatingIfNeeded: place))
        }
        if !ties.isEmpty {
            let place = candidates.takeTurn(among: ties, startingAt: picks) { seats[$0].weight }
            return .backend(candidates.all[place].backend)
        }
        // What a trial shows is soon known, and better than what need brings.
        if !isAnyOpen, !hasTrial, !inNeed.isEmpty {
            let place = candidates.takeTurn(among: inNeed, startingAt: picks) { seats[$0].weight }
            return .backend(candidates.all[place].backend)
        }
        return isAnyOpen || mayOpen ? .notYet : .none
    }

    /// The fewest requests that one of those runs that could be picked.
    private static func leastRunning(
        _ candidates: borrowing Candidates, _ seats: [Seat], _ want: Want, _ now: UInt64
    ) -> Int {
        var (tier, least) = (Int.max, Int.max)
        for candidate in candidates.all where !want.tried.contains(candidate.backend) {
            let seat = seats[candidate.backend]
            guard seat.tier <= tier, seat.isOpen(at: now), !seat.isFull else { continue }
            least = seat.tier < tier ? seat.running : min(least, seat.running)
            tier = seat.tier
        }
        return least
    }
}

/// How good a backend is for a request; the least is the best.
private struct Rank {
    var tier = Int.max
    /// 1 if it would have to load the model.
    var mustLoad = 0
    /// Models that only it has loaded.
    var lost = 0
    /// 1 if anything is loaded.
    var isOccupied = 0
    /// 1 if it is too busy for a conversation of its own.
    var isBusy = 0
    var running = 0
    var weight = 1
    var lastUsed: UInt64 = 0
    /// Those with fewer models can serve fewer other requests.
    var models = 0
    var score: UInt64 = 0

    init() {}

    @inline(__always)
    init(_ seat: Seat, isLoaded: Bool, _ mode: Gateway.Balance, _ conversation: UInt64, _ idlest: Int) {
        tier = seat.tier
        if mode == .roundRobin { return }
        if !isLoaded {
            mustLoad = 1
            lost = seat.lostModels
            isOccupied = seat.hasLoads ? 1 : 0
            lastUsed = seat.lastUsed
            models = seat.models
        }
        if mode == .affinity, conversation != 0, seat.running < idlest + 2 {
            score = Rank.distance(from: conversation, to: seat.seed, weight: seat.weight)
        } else {
            isBusy = mode == .affinity && conversation != 0 ? 1 : 0
            running = seat.running
            weight = seat.weight
        }
    }

    @inline(__always)
    static func < (a: Rank, b: Rank) -> Bool {
        if a.tier != b.tier { return a.tier < b.tier }
        if a.mustLoad != b.mustLoad { return a.mustLoad < b.mustLoad }
        if a.lost != b.lost { return a.lost < b.lost }
        if a.isOccupied != b.isOccupied { return a.isOccupied < b.isOccupied }
        if a.isBusy != b.isBusy { return a.isBusy < b.isBusy }
        let (left, right) = (a.running * b.weight, b.running * a.weight)
        if left != right { return left < right }
        if a.lastUsed != b.lastUsed { return a.lastUsed < b.lastUsed }
        if a.models != b.models { return a.models < b.models }
        return a.score < b.score
    }

    /// The least is where the conversation belongs: the same on every gateway, and when a backend comes or goes only
    /// its own conversations move. Source: rendezvous hashing; a backend has as many draws as it weighs.
    static func distance(from conversation: UInt64, to seed: UInt64, weight: Int) -> UInt64 {
        var least = UInt64.max
        var draws = SplitMix64(state: conversation ^ seed)
        for _ in 0..<weight { least = min(least, draws.next()) }
        return least
    }
}
