import HTTPCore

/// The answers kept in memory. Whole answers go in, as they came; they are found by the key of their request, or by the
/// very bytes of one that was seen before. All that they take, with overhead, stays within a budget: the least recently
/// used goes first. Nothing takes longer in a large cache than in a small one, no single call included, and an entry
/// costs about 250 bytes beside its payload.
///
/// It decides and does no I/O: times are nanoseconds of the monotonic clock, handed in. Of one owner, on one executor.
package struct Cache: ~Copyable {
    /// An entry, until the next call that may store or remove one: then it may have become nothing, and is seen to be.
    package struct Entry: Equatable, Sendable {
        let slot: UInt32
        let generation: UInt32
    }

    /// What was stored.
    package struct Contents: Sendable {
        package let payload: Bytes
        /// How the payload is written.
        package let form: AnswerForm
        package let endpoint: Endpoint
        /// As it was stored with.
        package let model: String
        package let storedAt: UInt64
    }

    /// How many entries went, by cause; they only grow.
    package struct Removals: Equatable, Sendable {
        /// To make room.
        package var evicted = 0
        /// Older than the time to live and the time they may be served stale.
        package var expired = 0
        /// Counted when they are purged, though their memory is freed later.
        package var purged = 0
        /// By a newer answer to the same request.
        package var replaced = 0
    }

    private let maxBytes: Int
    private let maxEntryBytes: Int
    private let ttl: UInt64
    let lifetime: UInt64
    var slots = Slots()
    var aliases = AliasTable()
    var models = ModelTable()
    var ready: ReadyTable
    var payloadBytes = 0
    /// By answers on their way.
    private(set) var reserved = 0
    var hand: UInt32 = 0
    package internal(set) var removals = Removals()

    /// - Parameters:
    ///   - maxBytes: the budget; with none, or too little for a first entry, nothing is ever stored.
    ///   - maxEntryBytes: the largest payload that is taken.
    ///   - ttl: for how many nanoseconds an entry is fresh.
    ///   - staleFor: for how many more it may be served when nothing better is to be had.
    ///   - maxReady: entries with finished responses at a time; fewer in a budget below 64 MiB.
    package init(maxBytes: Int, maxEntryBytes: Int, ttl: UInt64, staleFor: UInt64 = 0, maxReady: Int = 4096) {
        self.maxBytes = maxBytes
        self.maxEntryBytes = maxEntryBytes
        self.ttl = ttl
        let (sum, overflow) = ttl.addingReportingOverflow(staleFor)
        lifetime = overflow ? .max : sum
        ready = ReadyTable(limit: min(maxReady, maxBytes / 16_384))
    }

    // MARK: Looking up

    /// The entry of a key if it is fresh; it becomes the most recently used.
    package mutating func lookUp(_ key: Key, at now: UInt64) -> Entry? {
        guard let slot = slots.find(key) else { return nil }
        return use(slot, within: ttl, at: now)
    }

    /// The entry of a key if it is fresh or may be served stale; it becomes the most recently used.
    package mutating func lookUpStale(_ key: Key, at now: UInt64) -> Entry? {
        guard let slot = slots.find(key) else { return nil }
        return use(slot, within: lifetime, at: now)
    }

    /// The entry that the very bytes of a request were seen to lead to, if it is fresh, and the form they ask for; it
    /// becomes the most recently used.
    /// - Parameter raw: the SHA-256 of the endpoint and the bytes.
    package mutating func lookUp(raw: Key, at now: UInt64) -> (entry: Entry, form: AnswerForm)? {
        guard let alias = aliases.find(raw), slots.holds(alias.slot, alias.generation),
            let entry = use(alias.slot, within: ttl, at: now)
        else { return nil }
        return (entry, alias.form)
    }

    /// Remembers that these bytes are a request with this key, which asks for an answer of this form. Does nothing when
    /// the key has no entry. Any such thing may be forgotten at any time.
    package mutating func learn(raw: Key, key: Key, form: AnswerForm) {
        guard let slot = slots.find(key) else { return }
        aliases.learn(
            raw, Alias(raw: raw, slot: slot, generation: slots[slot].pointee.generation, form: form))
    }

    /// What an entry holds; nil if it is no more.
    package func contents(of entry: Entry) -> Contents? {
        guard slots.holds(entry.slot, entry.generation) else { return nil }
        let slot = slots[entry.slot].pointee
        return slot.payload.map {
            Contents(
                payload: $0, form: slot.form, endpoint: slot.endpoint, model: models.name(of: slot.model),
                storedAt: slot.storedAt)
        }
    }

    /// The finished response of an entry in a form; nil if none is kept.
    package mutating func response(of entry: Entry, as form: AnswerForm) -> Response? {
        guard slots.holds(entry.slot, entry.generation) else { return nil }
        return ready.response(slots[entry.slot].pointee.ready, form)
    }

    // MARK: Storing

    /// Stores an answer as the most recently used, in place of an older one with the same key. Others give way.
    /// - Returns: whether it was stored; if not, because it is larger than allowed or than the budget, nothing changed.
    package mutating func store(
        _ key: Key, _ payload: Bytes, form: AnswerForm, endpoint: Endpoint, model: String, at now: UInt64
    ) -> Bool {
        let cost = Self.cost(of: payload)
        guard payload.count <= maxEntryBytes, fits(cost + ModelTable.cost(of: model)) else { return false }
        // First, so that its cost is counted and evicting its other entries does not change it.
        let number = models.retain(model)
        let slot = place(for: key, payload, cost: cost)
        let entry = slots[slot]
        // Requests whose bytes lead to what was here spell the model as that did.
        if entry.pointee.model != number { entry.pointee.generation &+= 1 }
        entry.pointee.storedAt = now
        entry.pointee.form = form
        entry.pointee.endpoint = endpoint
        entry.pointee.model = number
        payloadBytes += cost
        return true
    }

    /// Keeps a finished response of an entry in a form, for as long as the entry is there and hot. Others may give way.
    /// - Parameter extraBytes: the length of its body if that is not the entry's payload itself.
    /// - Returns: whether it is kept.
    @discardableResult
    package mutating func keep(_ response: Response, of entry: Entry, as form: AnswerForm, extraBytes: Int) -> Bool {
        guard let slot = contents(of: entry).map({ _ in slots[entry.slot] }), let payload = slot.pointee.payload else {
            return false
        }
        let key = slot.pointee.key
        let cost = Self.responseOverhead + Self.allocated(extraBytes)
        let own =
            Self.cost(of: payload) + ready.bytes(of: slot.pointee.ready) + models.cost(of: slot.pointee.model)
        guard fits(own + cost) else { return false }
        slots.touch(entry.slot)
        makeRoom(cost, sparing: 1)
        if slot.pointee.ready == ReadyTable.none, ready.isFull { dropReady(of: ready.victim()) }
        guard let kept = slots.find(key) else { return false }
        if slots[kept].pointee.ready == ReadyTable.none { slots[kept].pointee.ready = ready.add(key) }
        ready.set(slots[kept].pointee.ready, form, response, cost: cost)
        return true
    }

    // MARK: The budget

    /// What everything takes: payloads, tables, finished responses, and what is reserved. Never more than the budget.
    package var bytes: Int {
        payloadBytes + slots.pageCount * Self.bytesPerPage + models.bytes + ready.bytes + reserved
    }

    /// The entries, without those purged; those expired count until they are found to be.
    package var count: Int { slots.used - models.purgedEntries }

    /// The models that entries are stored with.
    package var modelNames: [String] { models.names }

    /// Entries with finished responses.
    package var readyCount: Int { ready.count }

    /// Counts bytes of an answer that is still being recorded toward the budget; entries give way.
    /// - Returns: whether they fit. If not, nothing changed.
    package mutating func reserve(_ bytes: Int) -> Bool {
        guard fits(bytes) else { return false }
        makeRoom(bytes)
        reserved += bytes
        return true
    }

    /// Gives back what ``reserve(_:)`` took, before the answer is stored or when it will not be.
    package mutating func release(_ bytes: Int) {
        precondition(bytes <= reserved, "more is released than was reserved")
        reserved -= bytes
    }
}

extension Cache {
    /// What a page of slots takes, with all that goes with it.
    static var bytesPerPage: Int { Slots.bytesPerPage + AliasTable.bytesPerPage }

    /// What a finished response takes beside its body: the object, its fields, and what the server made of it.
    static var responseOverhead: Int { 1024 }

    /// What an entry takes beside its part of a page.
    static func cost(of payload: Bytes) -> Int { allocated(payload.count) + 48 }

    /// What `malloc` of glibc takes for so many bytes: eight more and a multiple of 16, or whole pages of their own.
    static func allocated(_ count: Int) -> Int {
        if count == 0 { return 0 }
        return count < 131_072 ? max(32, (count + 23) & ~15) : (count + 16 + 4095) & ~4095
    }

    /// Whether so many bytes would fit if everything else went that can.
    private func fits(_ bytes: Int) -> Bool {
        let (sum, overflow) = bytes.addingReportingOverflow(reserved + Self.bytesPerPage)
        return !overflow && sum <= maxBytes
    }

    /// Evicts until so many bytes fit, or but `sparing` entries are left.
    private mutating func makeRoom(_ extra: Int, sparing: Int = 0) {
        while bytes + extra > maxBytes, slots.used > sparing { evictOldest() }
    }

    /// A slot in front of all others that holds a key and its new payload, and room for them.
    private mutating func place(for key: Key, _ payload: Bytes, cost: Int) -> UInt32 {
        guard let present = slots.find(key) else {
            makeRoom(cost)
            // A page more, if there is room for it; else an entry gives way for its slot.
            if slots.isFull, bytes + cost + Self.bytesPerPage <= maxBytes { grow() }
            if slots.isFull { evictOldest() }
            return slots.add(key, payload)
        }
        // The slot stays what it was, so that the bytes that lead to it still do.
        removals.replaced += 1
        slots.touch(present)
        vacate(present)
        slots[present].pointee.payload = payload
        makeRoom(cost, sparing: 1)
        return slots.find(key) ?? present
    }

    private mutating func evictOldest() {
        removals.evicted += models.isPurged(slots[slots.oldest].pointee.model) ? 0 : 1
        remove(slots.oldest)
    }

    /// The slot as an entry if it is young enough. One that will never be served again goes.
    private mutating func use(_ slot: UInt32, within limit: UInt64, at now: UInt64) -> Entry? {
        if age(of: slot, at: now) < limit, !models.isPurged(slots[slot].pointee.model) {
            slots.touch(slot)
            return Entry(slot: slot, generation: slots[slot].pointee.generation)
        }
        removeIfDead(slot, at: now)
        return nil
    }
}
