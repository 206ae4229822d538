/// The links of doubly linked lists of table indices, kept apart from what they link: a list is reordered within a few
/// bytes per element. An index is in one list at a time of those that share the links.
typealias LRULinks = Pages<LRULink>

/// An element's neighbours in its list, ``Page/none`` at the ends.
struct LRULink {
    var previous = Page.none
    var next = Page.none
}

/// A list of table indices, the most recently used first. Every operation takes constant time.
struct LRUList {
    private(set) var first = Page.none
    /// The least recently used.
    private(set) var last = Page.none

    /// Puts an index that is in no list in front.
    mutating func prepend(_ index: UInt32, in links: borrowing LRULinks) {
        links[index].pointee = LRULink(previous: Page.none, next: first)
        if first == Page.none { last = index } else { links[first].pointee.previous = index }
        first = index
    }

    mutating func remove(_ index: UInt32, in links: borrowing LRULinks) {
        let link = links[index].pointee
        join(link.previous, link.next, in: links)
    }

    /// Takes the first index out.
    mutating func popFirst(in links: borrowing LRULinks) -> UInt32? {
        guard first != Page.none else { return nil }
        let index = first
        remove(index, in: links)
        return index
    }

    mutating func moveToFront(_ index: UInt32, in links: borrowing LRULinks) {
        guard first != index else { return }
        remove(index, in: links)
        prepend(index, in: links)
    }

    /// Puts `index`, which is in no list, where `old` was.
    mutating func replace(_ old: UInt32, with index: UInt32, in links: borrowing LRULinks) {
        let link = links[old].pointee
        links[index].pointee = link
        join(link.previous, index, in: links)
        join(index, link.next, in: links)
    }

    /// Makes two indices neighbours; none on one side makes the other an end.
    private mutating func join(_ previous: UInt32, _ next: UInt32, in links: borrowing LRULinks) {
        if previous == Page.none { first = next } else { links[previous].pointee.next = next }
        if next == Page.none { last = previous } else { links[next].pointee.previous = previous }
    }
}
