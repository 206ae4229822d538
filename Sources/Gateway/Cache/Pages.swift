/// A table that grows and shrinks by pages of ``Page/size`` elements and never moves one. An array would copy all of
/// itself when it doubles: a million cache slots, 64 MB, stop the loop for tens of milliseconds.
struct Pages<Element>: ~Copyable {
    private var pages: [UnsafeMutablePointer<Element>] = []
    private let empty: Element

    /// - Parameter empty: what the elements of a new page are.
    init(of empty: Element) { self.empty = empty }

    deinit {
        for page in pages { Self.drop(page) }
    }

    var pageCount: Int { pages.count }
    /// The number of elements, whole pages always.
    var count: UInt32 { UInt32(truncatingIfNeeded: pages.count) * Page.size }

    /// Where an element is; it stays there until its page is dropped.
    subscript(index: UInt32) -> UnsafeMutablePointer<Element> {
        pages[Int(index / Page.size)] + Int(index % Page.size)
    }

    /// Adds a page of empty elements at the end.
    mutating func grow() {
        // Aligned to the processor's cache lines, so that an element of 64 bytes takes one and not two.
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: Int(Page.size) * MemoryLayout<Element>.stride, alignment: 64)
        let page = memory.bindMemory(to: Element.self, capacity: Int(Page.size))
        page.initialize(repeating: empty, count: Int(Page.size))
        pages.append(page)
    }

    /// Drops the last page with everything in it.
    mutating func shrink() {
        Self.drop(pages.removeLast())
    }

    private static func drop(_ page: UnsafeMutablePointer<Element>) {
        page.deinitialize(count: Int(Page.size))
        UnsafeMutableRawPointer(page).deallocate()
    }
}

/// What the tables of ``Pages`` have in common.
enum Page {
    /// Elements in a page. Adding one rehashes that many chains: more would be felt, fewer cost more to keep track of.
    static var size: UInt32 { 128 }
    /// The index of no element.
    static var none: UInt32 { .max }

    /// What the allocator takes for a page of these elements, and ``Pages`` to find it.
    static func bytes<Element>(of _: Element.Type) -> Int {
        Int(size) * MemoryLayout<Element>.stride + 64 + 2 * MemoryLayout<UnsafeRawPointer>.stride
    }
}

/// Linear hashing (W. Litwin, VLDB 1980): which of `count` places a hash belongs to, when `count` may be any number and
/// one place more takes its content from one other place only. So a hash table grows without ever being rebuilt.
struct Places {
    private(set) var count: UInt32 = 0
    /// One less than the least power of two that is not below `count`.
    private var mask: UInt32 = 0

    /// There must be a place.
    func place(of hash: UInt64) -> UInt32 {
        let wide = UInt32(truncatingIfNeeded: hash) & mask
        return wide < count ? wide : wide & (mask >> 1)
    }

    /// Adds a place.
    /// - Returns: the place whose content is to be divided between the two; the new place itself if it is the first.
    mutating func grow() -> UInt32 {
        count += 1
        if count - 1 > mask { mask = mask << 1 | 1 }
        return (count - 1) & (mask >> 1)
    }

    /// Takes the last place away.
    /// - Returns: the place that its content now belongs to.
    mutating func shrink() -> UInt32 {
        count -= 1
        let heir = count & (mask >> 1)
        if count <= (mask + 1) >> 1 { mask >>= 1 }
        return heir
    }
}
