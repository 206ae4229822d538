/// What the balancer knows of a backend.
package struct BackendState {
    /// Its share beside the others', at least 1.
    let weight: Int
    /// The lowest tier that can serve does.
    let tier: Int
    /// Requests to models that it runs at a time, at least 1.
    let limit: Int
    /// By which conversations find it.
    let seed: UInt64
    var running = 0
    var breaker = Breaker()
    /// Taken out by hand: it ends what it has and gets nothing new.
    var isDrained = false
    /// Monotonic nanoseconds: it asked to be left alone until then.
    var restsUntil: UInt64 = 0
    /// A probe is on its way.
    var isProbing = false
    /// Models that it has in memory, or is loading.
    var loads: [Load] = []
    /// What would be lost by loading another: models that no other backend has loaded, and when the latest of them
    /// was used.
    var loss = (models: 0, lastUsed: UInt64(0))
    /// Models that it has on disk.
    var models = 0

    struct Load {
        let digest: String
        /// In monotonic nanoseconds.
        var lastUsed: UInt64
        /// The backend has said so, or has answered with it.
        var isConfirmed: Bool
        /// Calls under way.
        var running = 0
    }

    /// Models in the memory of one backend that count.
    private static let loadsAtMost = 100

    package init(name: String, weight: Int = 1, tier: Int = 1, limit: Int) {
        seed = ConversationHash.of(name)
        self.weight = weight
        self.tier = tier
        self.limit = limit
    }

    var isServing: Bool { !isDrained && (breaker.state == .healthy || breaker.state == .recovering) }

    func hasLoaded(_ digest: String) -> Bool { loads.contains { $0.digest == digest } }

    // MARK: Loads

    /// A call with a model begins.
    /// - Returns: whether the model has to be loaded for it.
    mutating func begins(_ digest: String, at now: UInt64) -> Bool {
        if let place = loads.firstIndex(where: { $0.digest == digest }) {
            loads[place].running += 1
            loads[place].lastUsed = now
            loss.lastUsed = max(loss.lastUsed, now)
            return false
        }
        // What is idle may have to make room; the backend will say what is left.
        loads.removeAll { $0.running == 0 }
        loads.append(Load(digest: digest, lastUsed: now, isConfirmed: false, running: 1))
        return true
    }

    /// It answers with a model.
    /// - Returns: whether it has loaded it for that.
    mutating func answers(with digest: String) -> Bool {
        guard let place = loads.firstIndex(where: { $0.digest == digest }) else { return false }
        defer { loads[place].isConfirmed = true }
        return !loads[place].isConfirmed
    }

    /// A call with a model is over.
    /// - Returns: whether the model was not loaded after all.
    mutating func ends(_ digest: String, at now: UInt64) -> Bool {
        guard let place = loads.firstIndex(where: { $0.digest == digest }) else { return false }
        loads[place].running -= 1
        loads[place].lastUsed = max(loads[place].lastUsed, now)
        if loads[place].running > 0 || loads[place].isConfirmed { return false }
        loads.remove(at: place)
        return true
    }

    /// It says what it has loaded. What it is loading is not among that, nor what it has loaded since it was asked.
    /// - Returns: whether that is news.
    mutating func says(loaded digests: [String], askedAt time: UInt64) -> Bool {
        let before = loads
        let digests = digests.prefix(BackendState.loadsAtMost)
        loads.removeAll { $0.running == 0 && $0.lastUsed < time && !digests.contains($0.digest) }
        for digest in digests where !digest.isEmpty {
            if let place = loads.firstIndex(where: { $0.digest == digest }) {
                loads[place].isConfirmed = true
            } else {
                loads.append(Load(digest: digest, lastUsed: 0, isConfirmed: true))
            }
        }
        return before.map(\.digest) != loads.map(\.digest)
    }
}

/// What picking looks at: a few plain numbers, side by side in memory with those of the others.
struct Seat {
    let seed: UInt64
    let weight: Int
    let tier: Int
    let limit: Int
    let running: Int
    let restsUntil: UInt64
    let lostModels: Int
    let lastUsed: UInt64
    let models: Int
    let hasLoads: Bool
    /// A call is finding out how it is.
    let isOnTrial: Bool
    private let takesCalls: Bool
    private let takesCallsInNeed: Bool
    private let isBeingFoundOut: Bool

    init(_ state: borrowing BackendState) {
        seed = state.seed
        weight = state.weight
        tier = state.tier
        limit = state.limit
        running = state.running
        restsUntil = state.restsUntil
        lostModels = state.loss.models
        lastUsed = state.loss.lastUsed
        models = state.models
        hasLoads = !state.loads.isEmpty
        isOnTrial = state.breaker.isOnTrial && !state.isDrained
        takesCalls = state.breaker.takesCalls && !state.isDrained
        takesCallsInNeed = state.breaker.takesCallsInNeed && !state.isDrained
        isBeingFoundOut =
            !state.isDrained && (state.breaker.state == .starting || state.isProbing || state.breaker.isOnTrial)
    }

    var isFull: Bool { running >= limit }

    /// Whether it takes calls, if it is not full.
    func isOpen(at now: UInt64) -> Bool { takesCalls && restsUntil <= now }

    /// Whether one call may be tried there if no other backend takes any.
    func isOpenInNeed(at now: UInt64) -> Bool { takesCallsInNeed && restsUntil <= now }

    /// Whether it may be open soon, without anybody doing something.
    func mayOpen(at now: UInt64) -> Bool { isBeingFoundOut || (takesCalls && restsUntil > now) }
}
