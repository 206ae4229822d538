import HTTPCore

/// Values as bytes of which no one sequence begins another: a tag, a length where there is one, the content.
/// So what is written value behind value can be read in one way only, and is equal only for equal values.
struct CanonicalWriter: ~Copyable {
    private enum Tag: UInt8 {
        case null = 0x6e  // n
        case `true` = 0x74  // t
        case `false` = 0x66  // f
        case text = 0x73  // s, length, bytes
        case double = 0x64  // d, 8 bytes of IEEE 754
        case digits = 0x23  // #, length, a number as it was written
        case array = 0x5b  // [, number of elements, elements
        case object = 0x7b  // {, number of members, name and value of each
    }

    private var output = ByteBuffer()
    private var scratch = ByteBuffer()

    /// Makes room for as many bytes as will probably be written.
    init(capacity: Int) { output.reserve(capacity) }

    consuming func finish() -> Bytes { output.finish() }

    mutating func text(_ bytes: UnsafeRawBufferPointer) {
        output.append(byte: Tag.text.rawValue)
        append(bytes)
    }

    mutating func text(_ text: String) {
        var text = text
        text.withUTF8 { self.text(UnsafeRawBufferPointer($0)) }
    }

    /// A string with its escapes undone.
    mutating func text(_ string: JSONNode) {
        guard string.hasEscapes else { return text(string.escaped) }
        string.appendDecoded(to: &scratch)
        text(scratch.unread)
        scratch.consume(scratch.count)
    }

    /// A string in lower case, as far as ASCII goes.
    mutating func lowered(_ string: JSONNode) {
        string.appendDecoded(to: &scratch)
        let lower = scratch.unread.map { (0x41...0x5a).contains($0) ? $0 | 0x20 : $0 }
        scratch.consume(scratch.count)
        lower.withUnsafeBytes { text($0) }
    }

    /// A number as IEEE 754 has it; -0 is 0.
    mutating func double(_ number: Double) {
        output.append(byte: Tag.double.rawValue)
        withUnsafeBytes(of: (number + 0).bitPattern.bigEndian) { output.append($0) }
    }

    /// A number as it is written.
    mutating func digits(_ number: JSONNode) {
        output.append(byte: Tag.digits.rawValue)
        append(number.raw)
    }

    /// Begins an array; its elements follow.
    mutating func array(_ count: Int) { begin(.array, count) }

    /// Begins an object; the names and values of its members follow.
    mutating func object(_ count: Int) { begin(.object, count) }

    /// A value that holds no others; numbers as they are written.
    mutating func scalar(_ value: JSONNode) {
        switch value.kind {
        case .string: text(value)
        case .number: digits(value)
        case .true: output.append(byte: Tag.true.rawValue)
        case .false: output.append(byte: Tag.false.rawValue)
        case .null: output.append(byte: Tag.null.rawValue)
        case .array, .object: preconditionFailure("an array or an object is no scalar")
        }
    }

    private mutating func begin(_ tag: Tag, _ count: Int) {
        output.append(byte: tag.rawValue)
        length(count)
    }

    private mutating func append(_ bytes: UnsafeRawBufferPointer) {
        length(bytes.count)
        output.append(bytes)
    }

    /// Seven bits to a byte, the high bit on all but the last (LEB128).
    private mutating func length(_ count: Int) {
        var rest = UInt(count)
        while rest > 0x7f {
            output.append(byte: UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        output.append(byte: UInt8(rest))
    }
}
