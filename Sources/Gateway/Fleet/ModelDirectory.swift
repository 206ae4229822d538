import HTTPCore

/// A model as a backend lists it in `/api/tags`.
package struct Listing: Sendable, Equatable {
    /// As Ollama compares it, see ``ModelName``.
    package let name: String
    /// As the backend writes it.
    package let shown: String
    /// Hexadecimal; equal digests are the same model.
    package let digest: String
    /// Microseconds since 1970.
    let modified: Int64
    /// The list's entry, as the backend wrote it.
    package let json: String
    /// Whether it is run elsewhere, at ollama.com mostly, and the backend only asks there.
    let isRemote: Bool

    package init(
        name: String, shown: String, digest: String, modified: Int64, json: String, isRemote: Bool = false
    ) {
        self.name = name
        self.shown = shown
        self.digest = digest
        self.modified = modified
        self.json = json
        self.isRemote = isRemote
    }
}

/// Which backends have which models: decides, and does nothing.
///
/// Two backends may mean different models by one name. Then the name is that of those backends that are up (one at
/// least), are the most, and have it newest, in this order; the others do not count until they have the same.
struct ModelDirectory {
    struct Entry {
        let name: String
        /// Of the model that the name stands for.
        fileprivate(set) var digest: String
        /// The backends that have it.
        var candidates: Candidates
        /// Every backend that lists the name, in order.
        fileprivate(set) var versions: [(backend: Int, listing: Listing)]

        var isConflicted: Bool { versions.contains { $0.listing.digest != digest } }

        /// What is told of the model: the newest word on it.
        var listing: Listing? {
            versions.lazy.filter { $0.listing.digest == digest }.map(\.listing).max { $0.modified < $1.modified }
        }
    }

    var entries: [String: Entry] = [:]
    /// What each backend listed last; nil before it has.
    private(set) var listings: [[Listing]?]
    private var isUp: [Bool]
    /// Grows with whatever changes.
    private(set) var version = 0

    init(backends: Int) {
        listings = Array(repeating: nil, count: backends)
        isUp = Array(repeating: false, count: backends)
    }

    var isKnown: Bool { listings.contains { $0 != nil } }

    /// Names that different backends have different models for, in order.
    var conflicts: [Entry] { entries.values.filter(\.isConflicted).sorted { $0.name < $1.name } }

    /// Every model, the newest first.
    var listed: [Listing] {
        entries.values.compactMap(\.listing).sorted { ($0.modified, $1.name) > ($1.modified, $0.name) }
    }

    /// A backend's list has come.
    /// - Returns: the names that stand for another model than before, or for none any more.
    mutating func list(_ listing: [Listing], at backend: Int, isLoaded: (Int, String) -> Bool) -> [String] {
        // A name twice: the first counts.
        let new = Dictionary(listing.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        let old = listings[backend] ?? []
        guard listings[backend] == nil || listing != old else { return [] }
        listings[backend] = listing
        version += 1
        var changed: [String] = []
        for name in Set(old.map(\.name)).union(new.keys).sorted() {
            var versions = (entries[name]?.versions ?? []).filter { $0.backend != backend }
            if let listing = new[name] {
                let place = versions.firstIndex { $0.backend > backend } ?? versions.endIndex
                versions.insert((backend, listing), at: place)
            }
            if settle(name, versions, isLoaded) { changed.append(name) }
        }
        return changed
    }

    /// A backend has come up or gone down.
    mutating func set(_ backend: Int, isUp up: Bool, isLoaded: (Int, String) -> Bool) -> [String] {
        guard isUp[backend] != up else { return [] }
        isUp[backend] = up
        return (listings[backend] ?? []).map(\.name).filter { name in
            guard let entry = entries[name], Set(entry.versions.map(\.listing.digest)).count > 1 else { return false }
            return settle(name, entry.versions, isLoaded)
        }
    }

    /// Decides what a name stands for.
    private mutating func settle(
        _ name: String, _ versions: [(backend: Int, listing: Listing)], _ isLoaded: (Int, String) -> Bool
    ) -> Bool {
        let before = entries[name]
        guard let digest = chosen(versions) else {
            entries[name] = nil
            return before != nil
        }
        let backends = versions.filter { $0.listing.digest == digest }.map(\.backend)
        var entry = before ?? Entry(name: name, digest: digest, candidates: Candidates(), versions: versions)
        entry.digest = digest
        entry.versions = versions
        entry.candidates.set(backends) { isLoaded($0, digest) }
        entries[name] = entry
        return before.map { $0.digest != digest } ?? false
    }

    private func chosen(_ versions: [(backend: Int, listing: Listing)]) -> String? {
        guard let first = versions.first?.listing.digest else { return nil }
        guard versions.contains(where: { $0.listing.digest != first }) else { return first }
        struct Vote: Comparable {
            var isUp = false
            var count = 0
            var modified = Int64.min
            let digest: String

            static func < (a: Vote, b: Vote) -> Bool {
                if a.isUp != b.isUp { return b.isUp }
                if a.count != b.count { return a.count < b.count }
                return (a.modified, a.digest) < (b.modified, b.digest)
            }
        }
        var votes: [String: Vote] = [:]
        for (backend, listing) in versions {
            var vote = votes[listing.digest] ?? Vote(digest: listing.digest)
            vote.isUp = vote.isUp || isUp[backend]
            vote.count += 1
            vote.modified = max(vote.modified, listing.modified)
            votes[listing.digest] = vote
        }
        return votes.values.max()?.digest
    }

    /// Which of the backends have a model loaded has changed.
    mutating func refreshLoaded(at backend: Int, isLoaded: (String) -> Bool) {
        for listing in listings[backend] ?? [] {
            guard let index = entries.index(forKey: listing.name) else { continue }
            let digest = entries.values[index].digest
            entries.values[index].candidates.set(backend, isLoaded: isLoaded(digest))
        }
    }
}

/// The backends that can do something, and whose turn it is among them.
struct Candidates {
    struct Candidate {
        let backend: Int
        /// Whether it has the model in memory.
        var isLoaded: Bool
        /// When its next turn is, in the candidates' own time, in which a turn of the heaviest takes the shortest.
        var due: UInt64 = 0
        /// Which turn was its last; 0 if it has had none.
        var turn: UInt64 = 0
    }

    private(set) var all: [Candidate] = []
    /// Whether any of them has the model in memory.
    private(set) var isLoadedAnywhere = false
    /// The time; no turn that is past is made up for.
    private var clock: UInt64 = 0
    private var turns: UInt64 = 0
    /// Where the first round begins; nil before it has.
    private var start: Int?

    init() {}

    init(_ backends: Range<Int>) { all = backends.map { Candidate(backend: $0, isLoaded: false) } }

    mutating func set(_ backends: [Int], isLoaded: (Int) -> Bool) {
        let old = Dictionary(uniqueKeysWithValues: all.map { ($0.backend, $0) })
        all = backends.map { backend in
            var candidate = old[backend] ?? Candidate(backend: backend, isLoaded: false)
            candidate.isLoaded = isLoaded(backend)
            return candidate
        }
        isLoadedAnywhere = all.contains(where: \.isLoaded)
    }

    mutating func set(_ backend: Int, isLoaded: Bool) {
        guard let place = all.firstIndex(where: { $0.backend == backend }) else { return }
        all[place].isLoaded = isLoaded
        isLoadedAnywhere = isLoaded || (isLoadedAnywhere && all.contains(where: \.isLoaded))
    }

    /// The one of these whose turn it is: that which has waited longest or, where they do not weigh the same, each as
    /// often as it weighs. Source: start-time fair queueing.
    /// - Parameters:
    ///   - places: at least one, in `all`, in order.
    ///   - count: where the first round begins.
    mutating func takeTurn(among places: [Int32], startingAt count: Int, weight: (Int) -> Int) -> Int {
        let start = start ?? count
        self.start = start
        let first = start % all.count
        var best = -1
        var order = 0
        for place in places.lazy.map({ Int($0) }) {
            all[place].due = max(all[place].due, clock)
            let itsOrder = place < first ? place + all.count : place
            if best < 0 || (all[place].due, all[place].turn, itsOrder) < (all[best].due, all[best].turn, order) {
                (best, order) = (place, itsOrder)
            }
        }
        clock = all[best].due
        turns += 1
        all[best].turn = turns
        all[best].due = clock + Candidates.turn / UInt64(weight(all[best].backend))
        return best
    }

    /// How long a turn of one that weighs 1 takes.
    private static let turn: UInt64 = 1 << 20
}
