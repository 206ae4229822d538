/// An element that a ``ChainIndex`` finds.
protocol Chained {
    /// Equally likely in each of its low 32 bits.
    var hash: UInt64 { get }
    /// The next element with the same place in the index; the index's own.
    var chain: UInt32 { get set }
}

/// A hash index from hashes to the elements of a table, chained through the elements: four bytes here and four there
/// for each. It grows and shrinks a page at a time and is never rebuilt, so no insertion takes long, at any size.
struct ChainIndex<Element: Chained>: ~Copyable {
    private var heads = Pages<UInt32>(of: Page.none)
    private var places = Places()

    static var bytesPerPage: Int { Page.bytes(of: UInt32.self) }

    /// The first index with this place, to follow along `chain` and compare; ``Page/none`` if there is none.
    func first(_ hash: UInt64) -> UInt32 {
        places.count == 0 ? Page.none : heads[places.place(of: hash)].pointee
    }

    func insert(_ index: UInt32, in table: borrowing Pages<Element>) {
        push(index, on: places.place(of: table[index].pointee.hash), in: table)
    }

    func remove(_ index: UInt32, in table: borrowing Pages<Element>) {
        let element = table[index]
        let head = heads[places.place(of: element.pointee.hash)]
        if head.pointee == index {
            head.pointee = element.pointee.chain
        } else {
            var before = head.pointee
            while table[before].pointee.chain != index { before = table[before].pointee.chain }
            table[before].pointee.chain = element.pointee.chain
        }
    }

    /// Adds a page of places, to be called with every page that the table gains.
    mutating func grow(in table: borrowing Pages<Element>) {
        heads.grow()
        for _ in 0..<Page.size {
            let origin = places.grow()
            divide(origin, in: table)
        }
    }

    /// Drops a page of places, to be called with every page that the table loses.
    mutating func shrink(in table: borrowing Pages<Element>) {
        for _ in 0..<Page.size {
            var index = heads[places.count - 1].pointee
            let heir = places.shrink()
            while index != Page.none {
                let next = table[index].pointee.chain
                push(index, on: heir, in: table)
                index = next
            }
        }
        heads.shrink()
    }

    /// Puts the elements of a place where they now belong.
    private func divide(_ place: UInt32, in table: borrowing Pages<Element>) {
        var index = heads[place].pointee
        heads[place].pointee = Page.none
        while index != Page.none {
            let next = table[index].pointee.chain
            insert(index, in: table)
            index = next
        }
    }

    private func push(_ index: UInt32, on place: UInt32, in table: borrowing Pages<Element>) {
        table[index].pointee.chain = heads[place].pointee
        heads[place].pointee = index
    }
}
