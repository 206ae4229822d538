/// What an answer's words are drawn from: a hash of everything that decides the answer. The same request gives the
/// same words on every box, today and tomorrow.
struct Seed: Sendable, Equatable {
    private(set) var value: UInt64 = 0x6f6c_6c61_6d61_0001

    mutating func mix(_ number: UInt64) {
        value = Seed.scramble(value ^ number &* 0x9e37_79b9_7f4a_7c15)
    }

    mutating func mix(_ text: String) {
        var text = text
        text.withUTF8 { mix(UnsafeRawBufferPointer($0)) }
    }

    mutating func mix(_ bytes: UnsafeRawBufferPointer) {
        var offset = 0
        while offset + 8 <= bytes.count {
            mix(bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            offset += 8
        }
        var last = UInt64(bytes.count) << 56
        for byte in bytes[offset...] { last = last << 8 | UInt64(byte) }
        mix(last)
    }

    mutating func mix(json value: JSONValue) {
        switch value {
        case .null: mix(1)
        case .bool(let bool): mix(bool ? 3 : 2)
        case .number(let digits): mix(Double(digits)?.bitPattern ?? 4)
        case .string(let string): mix(string)
        case .array(let array): for element in array { mix(json: element) }
        case .object(let object):
            for member in object.members {
                mix(member.name)
                mix(json: member.value)
            }
        }
    }

    /// One of the numbers that belong to this seed.
    func number(_ index: Int) -> UInt64 {
        Seed.scramble(value &+ UInt64(truncatingIfNeeded: index) &* 0x9e37_79b9_7f4a_7c15)
    }

    /// The finaliser of SplitMix64: every bit of the input changes half of the output's.
    private static func scramble(_ input: UInt64) -> UInt64 {
        var mixed = input
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}
