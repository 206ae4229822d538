/// A way to an entry from the very bytes of a request.
struct Alias {
    /// 184 of the 256 bits of the SHA-256 of those bytes: the third word gives its lowest byte up for the form. No two
    /// requests that agree in them can be found.
    var words: (UInt64, UInt64, UInt64) = (0, 0, 0)
    /// Which slot, and what of all that was ever in it.
    var slot = Page.none
    var generation: UInt32 = 0

    init() {}

    init(raw: Key, slot: UInt32, generation: UInt32, form: AnswerForm) {
        words = (raw.words.0, raw.words.1, raw.words.2 & ~0xff | UInt64(form.rawValue))
        self.slot = slot
        self.generation = generation
    }

    /// The form that the request asks for.
    var form: AnswerForm { AnswerForm(rawValue: UInt8(truncatingIfNeeded: words.2)) ?? .whole }

    func matches(_ raw: Key) -> Bool {
        words.0 == raw.words.0 && words.1 == raw.words.1 && (words.2 ^ raw.words.2) & ~0xff == 0 && slot != Page.none
    }
}

/// The aliases of a cache, in sets of four; in a set a newer one replaces the oldest, so the table is bounded by
/// construction. Nothing is ever deleted: a reference to an entry that is gone has a generation that is gone too.
struct AliasTable: ~Copyable {
    private var ways = Pages<Alias>(of: Alias())
    private var places = Places()

    private static var waysPerSet: UInt32 { 4 }
    /// Three places for each slot: with one alias for each entry, one in twenty is pushed out of its set by newer ones.
    private static var pagesPerSlotPage: Int { 3 }

    /// What is taken by the aliases for a page of slots.
    static var bytesPerPage: Int { pagesPerSlotPage * Page.bytes(of: Alias.self) }

    func find(_ raw: Key) -> Alias? {
        guard places.count > 0 else { return nil }
        let start = set(of: raw.words.0)
        for way in start..<start + Self.waysPerSet where ways[way].pointee.matches(raw) { return ways[way].pointee }
        return nil
    }

    /// Puts an alias at the front of its set, in place of an older one for the same bytes or else of the oldest.
    func learn(_ raw: Key, _ alias: Alias) {
        guard places.count > 0 else { return }
        let start = set(of: raw.words.0)
        let set = start..<start + Self.waysPerSet
        var way =
            set.first { ways[$0].pointee.matches(raw) } ?? set.first { ways[$0].pointee.slot == Page.none }
            ?? start + Self.waysPerSet - 1
        while way > start {
            ways[way].pointee = ways[way - 1].pointee
            way -= 1
        }
        ways[start].pointee = alias
    }

    /// Makes room for the aliases of one page of slots more.
    mutating func grow() {
        for _ in 0..<Self.pagesPerSlotPage {
            ways.grow()
            let origin = places.grow()
            let start = origin * Page.size
            for way in start..<start + Page.size where ways[way].pointee.slot != Page.none { divide(way) }
        }
    }

    /// Takes the room for the aliases of one page of slots away, with the aliases in it: they will be learned again.
    mutating func shrink() {
        for _ in 0..<Self.pagesPerSlotPage {
            ways.shrink()
            _ = places.shrink()
        }
    }

    private func set(of word: UInt64) -> UInt32 {
        // The low bits choose the page, the high ones the set within it.
        let set = UInt32(truncatingIfNeeded: ((word >> 32) * UInt64(Page.size / Self.waysPerSet)) >> 32)
        return places.place(of: word) * Page.size + set * Self.waysPerSet
    }

    /// Moves an alias to the page just added if it belongs there. It leaves a hole; order within the set is kept.
    private func divide(_ way: UInt32) {
        let alias = ways[way].pointee
        let page = places.place(of: alias.words.0)
        guard page != way / Page.size else { return }
        ways[page * Page.size + way % Page.size].pointee = alias
        ways[way].pointee = Alias()
    }
}
