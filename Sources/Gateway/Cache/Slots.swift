import HTTPCore

/// What the cache knows of one answer: 64 bytes, a line of the processor's cache.
struct Slot: Chained {
    var key = Key.none
    /// Nil in a slot that is free.
    var payload: Bytes?
    /// In nanoseconds of the monotonic clock.
    var storedAt: UInt64 = 0
    var chain = Page.none
    /// Counts what was in this slot, so that a reference to something gone is seen to be one.
    var generation: UInt32
    var model: UInt32 = 0
    /// Its place in the ``ReadyTable``.
    var ready = ReadyTable.none
    var form = AnswerForm.whole
    var endpoint = Endpoint.generate

    /// Chosen anew by each process, so that nobody can make up questions that share a chain.
    private static let secret = UInt64.random(in: .min ... .max) | 1

    static func hash(_ key: Key) -> UInt64 { (key.words.0 &* secret).byteSwapped }

    var hash: UInt64 { Slot.hash(key) }
}

/// The slots of a cache, found by key and in the order of use. Slots come and go by the page: there are never more than
/// about twice as many as are used, and a page's worth.
struct Slots: ~Copyable {
    private var table = Pages<Slot>(of: Slot(generation: 0))
    private var links = LRULinks(of: LRULink())
    private var index = ChainIndex<Slot>()
    private var order = LRUList()
    private var free = LRUList()
    private(set) var used = 0
    /// Above every generation in the pages dropped: a page added again starts with none that was seen before.
    private var firstGeneration: UInt32 = 0

    /// What a page of slots takes, with its share of links and index.
    static let bytesPerPage =
        Page.bytes(of: Slot.self) + Page.bytes(of: LRULink.self) + ChainIndex<Slot>.bytesPerPage

    var capacity: UInt32 { table.count }
    var pageCount: Int { table.pageCount }
    var isFull: Bool { used == Int(table.count) }
    /// The slot whose last use is longest ago; ``Page/none`` if none is used.
    var oldest: UInt32 { order.last }

    subscript(slot: UInt32) -> UnsafeMutablePointer<Slot> { table[slot] }

    func find(_ key: Key) -> UInt32? {
        var slot = index.first(Slot.hash(key))
        while slot != Page.none {
            let found = table[slot]
            if found.pointee.key == key { return slot }
            slot = found.pointee.chain
        }
        return nil
    }

    /// Whether a slot is used, and still for what it was used for in this generation.
    func holds(_ slot: UInt32, _ generation: UInt32) -> Bool {
        slot < table.count && table[slot].pointee.generation == generation && table[slot].pointee.payload != nil
    }

    mutating func touch(_ slot: UInt32) { order.moveToFront(slot, in: links) }

    /// Takes a free slot into use for a key that has none; there must be a free one.
    mutating func add(_ key: Key, _ payload: Bytes) -> UInt32 {
        guard let slot = free.popFirst(in: links) else { preconditionFailure("no slot is free") }
        table[slot].pointee.key = key
        table[slot].pointee.payload = payload
        index.insert(slot, in: table)
        order.prepend(slot, in: links)
        used += 1
        return slot
    }

    mutating func remove(_ slot: UInt32) {
        index.remove(slot, in: table)
        order.remove(slot, in: links)
        clear(slot)
        free.prepend(slot, in: links)
        used -= 1
    }

    /// Adds a page of free slots.
    mutating func grow() {
        let start = table.count
        table.grow()
        links.grow()
        index.grow(in: table)
        for slot in (start..<table.count).reversed() {
            table[slot].pointee.generation = firstGeneration
            free.prepend(slot, in: links)
        }
    }

    /// Whether a page can go and leave enough free slots that it will not soon be missed.
    var isSparse: Bool { pageCount > 1 && (pageCount - 1) * Int(Page.size) >= 2 * used + Int(Page.size) / 2 }

    /// Drops the last page; what is in it moves to free slots of the others.
    mutating func shrink() {
        let start = table.count - Page.size
        for slot in start..<table.count where table[slot].pointee.payload == nil { free.remove(slot, in: links) }
        for slot in start..<table.count {
            if table[slot].pointee.payload != nil { move(slot) }
            firstGeneration = max(firstGeneration, table[slot].pointee.generation &+ 1)
        }
        index.shrink(in: table)
        links.shrink()
        table.shrink()
    }

    private mutating func move(_ slot: UInt32) {
        guard let target = free.popFirst(in: links) else { preconditionFailure("no slot is free") }
        index.remove(slot, in: table)
        let generation = table[target].pointee.generation
        table[target].pointee = table[slot].pointee
        table[target].pointee.generation = generation
        index.insert(target, in: table)
        order.replace(slot, with: target, in: links)
        clear(slot)
    }

    private func clear(_ slot: UInt32) {
        // A slot used 2^32 times comes round to an old generation; no reference is kept that long.
        table[slot].pointee = Slot(generation: table[slot].pointee.generation &+ 1)
    }
}
