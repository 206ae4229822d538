import HTTPCore

@testable import Gateway

/// What ``Cache`` should hold, in the plainest terms: a dictionary, and an array in the order of use. It does not know
/// what things cost; how many entries had to go it is told, and which they must have been it says.
struct NaiveCache {
    struct Entry {
        /// Another one for each entry that was ever added; replacing does not change it.
        let identity: Int
        var payload: Bytes
        var form: AnswerForm
        var model: String
        var storedAt: UInt64
        var isPurged = false
        var responses: [AnswerForm: Response] = [:]
    }

    struct Alias {
        let number: Int
        let identity: Int
        let form: AnswerForm
    }

    static let ttl: UInt64 = 1000
    static let lifetime: UInt64 = 1500

    var entries: [Int: Entry] = [:]
    /// The least recently used first.
    var order: [Int] = []
    var aliases: [Int: Alias] = [:]
    private var added = 0

    var count: Int { entries.values.count { !$0.isPurged } }

    mutating func touch(_ number: Int) {
        order.remove(at: order.firstIndex(of: number) ?? 0)
        order.append(number)
    }

    mutating func remove(_ number: Int) {
        entries[number] = nil
        order.remove(at: order.firstIndex(of: number) ?? 0)
    }

    mutating func store(_ number: Int, _ payload: Bytes, _ form: AnswerForm, _ model: String, at now: UInt64) {
        if let present = entries[number] {
            touch(number)
            entries[number] = Entry(
                identity: present.identity, payload: payload, form: form, model: model, storedAt: now)
        } else {
            added += 1
            order.append(number)
            entries[number] = Entry(identity: added, payload: payload, form: form, model: model, storedAt: now)
        }
    }

    /// What a look-up finds: it touches what it finds, and drops what will never be found again.
    mutating func lookUp(_ number: Int, within limit: UInt64, at now: UInt64) -> Entry? {
        guard let entry = entries[number] else { return nil }
        if entry.isPurged || now - entry.storedAt >= Self.lifetime {
            remove(number)
            return nil
        }
        guard now - entry.storedAt < limit else { return nil }
        touch(number)
        return entry
    }

    /// What an alias leads to: nothing when the entry is not the one that it was learned for.
    func target(of raw: Int) -> Alias? {
        aliases[raw].flatMap { entries[$0.number]?.identity == $0.identity ? $0 : nil }
    }

    mutating func purge(model: String?) -> Int {
        let purged = entries.filter { !$0.value.isPurged && (model == nil || $0.value.model == model) }.keys
        for number in purged { entries[number]?.isPurged = true }
        return purged.count
    }

    func isDead(_ number: Int, at now: UInt64) -> Bool {
        entries[number].map { $0.isPurged || now - $0.storedAt >= Self.lifetime } ?? true
    }
}
