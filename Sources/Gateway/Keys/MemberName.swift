import HTTPCore

/// The name of an object's member with its escapes undone, made to be compared often.
struct MemberName {
    /// In the request's text or, where there were escapes, in memory that ``CanonicalForm`` holds.
    let bytes: UnsafeRawBufferPointer
    /// The first eight bytes as a big-endian number, padded with zeros: it orders as the bytes do and nearly always
    /// decides.
    let prefix: UInt64
    /// Whether there is neither a capital letter nor anything but ASCII in it, so that it folds to itself.
    let isPlain: Bool

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        prefix = bytes.word(at: 0)
        var isPlain = !MemberName.hasCapital(prefix)
        var offset = 8
        while offset < bytes.count {
            if MemberName.hasCapital(bytes.word(at: offset)) { isPlain = false }
            offset += 8
        }
        self.isPlain = isPlain
    }

    /// Negative, zero or positive, as `memcmp` has it; what is a beginning of the other comes first.
    static func compare(_ a: MemberName, _ b: MemberName) -> Int {
        if a.prefix != b.prefix { return a.prefix < b.prefix ? -1 : 1 }
        var offset = 8
        let shorter = min(a.bytes.count, b.bytes.count)
        while offset < shorter {
            let (left, right) = (a.bytes.word(at: offset), b.bytes.word(at: offset))
            if left != right { return left < right ? -1 : 1 }
            offset += 8
        }
        return a.bytes.count - b.bytes.count
    }

    /// Whether one of eight bytes is in `A`…`Z` or beyond ASCII.
    private static func hasCapital(_ word: UInt64) -> Bool {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let low = word & (ones &* 0x7f)
        let fromA = low &+ ones &* 0x3f
        let beyondZ = low &+ ones &* 0x25
        return (word | (fromA & ~beyondZ)) & (ones &* 0x80) != 0
    }
}

extension UnsafeRawBufferPointer {
    /// Up to eight bytes from `offset` on as a big-endian number, padded with zeros at the end.
    fileprivate func word(at offset: Int) -> UInt64 {
        if offset + 8 <= count { return UInt64(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
        var word: UInt64 = 0
        var place = offset
        while place < count {
            word |= UInt64(self[place]) << UInt64(56 - 8 * (place - offset))
            place += 1
        }
        return word
    }

    /// The text as Go's `encoding/json` folds names before it compares them.
    var foldedLikeGo: [UInt8] {
        var folded: [UInt8] = []
        folded.reserveCapacity(count)
        var place = 0
        while place < count { folded.append(foldedByte(at: &place)) }
        return folded
    }

    /// Whether Go takes this for the name `name`, which is in lower case.
    func folds(to name: StaticString) -> Bool {
        var place = 0
        for index in 0..<name.utf8CodeUnitCount {
            guard place < count, foldedByte(at: &place) == name.utf8Start[index] else { return false }
        }
        return place == count
    }

    /// The byte at `place` in lower case, and steps over it. Besides the capital letters of ASCII, U+017F is an `s` and
    /// U+212A a `k`; other letters are let be, since no field's name has any.
    private func foldedByte(at place: inout Int) -> UInt8 {
        let byte = self[place]
        place += 1
        if byte == 0xc5, place < count, self[place] == 0xbf {
            place += 1
            return UInt8(ascii: "s")
        }
        if byte == 0xe2, place + 1 < count, self[place] == 0x84, self[place + 1] == 0xaa {
            place += 2
            return UInt8(ascii: "k")
        }
        return (0x41...0x5a).contains(byte) ? byte | 0x20 : byte
    }
}

extension UnsafeRawBufferPointer {
    init(_ text: StaticString) {
        self.init(start: text.utf8Start, count: text.utf8CodeUnitCount)
    }
}

extension JSONNode {
    /// Whether this is a member's name that Go takes for `name`, which is in lower case.
    func folds(to name: StaticString) -> Bool {
        if equals(name) { return true }
        if !hasEscapes { return escaped.folds(to: name) }
        var decoded = ByteBuffer()
        appendDecoded(to: &decoded)
        return decoded.unread.folds(to: name)
    }
}
