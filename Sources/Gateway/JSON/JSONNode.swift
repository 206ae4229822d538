import HTTPCore

/// One value of a JSON text, or the name of a member: a place on the tape. Valid only inside
/// ``JSONDocument/read(_:_:)``.
struct JSONNode {
    enum Kind: UInt8 { case object, array, string, number, `true`, `false`, null }

    fileprivate let text: UnsafeRawBufferPointer
    fileprivate let tape: UnsafeBufferPointer<JSONDocument.Token>
    fileprivate let index: Int

    init(text: UnsafeRawBufferPointer, tape: UnsafeBufferPointer<JSONDocument.Token>, index: Int) {
        self.text = text
        self.tape = tape
        self.index = index
    }

    private var token: JSONDocument.Token { tape[index] }

    var kind: Kind { token.kind }

    /// Where the value stands in the text, quotation marks and brackets included.
    var range: Range<Int> { token.start..<token.end }

    /// The value as it is written.
    var raw: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: text[range]) }

    // MARK: Objects and arrays

    /// Names and values in the order they stand; empty for what is no object.
    var members: Members { Members(parent: self) }

    /// Values in the order they stand; empty for what is no array.
    var elements: Elements { Elements(parent: self) }

    /// The first member with exactly this name.
    subscript(name: StaticString) -> JSONNode? {
        for member in members where member.name.equals(name) { return member.value }
        return nil
    }

    var isEmpty: Bool { token.next == index + 1 }

    /// The number of members or elements, got by stepping over them; 0 for what has none.
    var count: Int {
        var place = index + 1
        var count = 0
        let end = token.next
        let step = kind == .object ? 1 : 0
        while place < end {
            place = tape[place + step].next
            count += 1
        }
        return count
    }

    /// The value itself, and behind each object and array all that is in it, names as strings: the whole of it in
    /// the order in which it stands.
    var subtree: Subtree { Subtree(root: self) }

    struct Subtree: Sequence, IteratorProtocol {
        private let text: UnsafeRawBufferPointer
        private let tape: UnsafeBufferPointer<JSONDocument.Token>
        private var place: Int
        private let end: Int

        fileprivate init(root: JSONNode) {
            (text, tape, place, end) = (root.text, root.tape, root.index, root.token.next)
        }

        mutating func next() -> JSONNode? {
            guard place < end else { return nil }
            defer { place += 1 }
            return JSONNode(text: text, tape: tape, index: place)
        }
    }

    struct Members: Sequence, IteratorProtocol {
        private let parent: JSONNode
        private var place: Int

        fileprivate init(parent: JSONNode) {
            self.parent = parent
            place = parent.kind == .object ? parent.index + 1 : parent.token.next
        }

        mutating func next() -> (name: JSONNode, value: JSONNode)? {
            guard place < parent.token.next else { return nil }
            let name = JSONNode(text: parent.text, tape: parent.tape, index: place)
            let value = JSONNode(text: parent.text, tape: parent.tape, index: place + 1)
            place = value.token.next
            return (name, value)
        }
    }

    struct Elements: Sequence, IteratorProtocol {
        private let parent: JSONNode
        private var place: Int

        fileprivate init(parent: JSONNode) {
            self.parent = parent
            place = parent.kind == .array ? parent.index + 1 : parent.token.next
        }

        mutating func next() -> JSONNode? {
            guard place < parent.token.next else { return nil }
            let value = JSONNode(text: parent.text, tape: parent.tape, index: place)
            place = value.token.next
            return value
        }
    }

    // MARK: Strings

    /// A string's content as it is written, escapes and all.
    var escaped: UnsafeRawBufferPointer {
        kind == .string
            ? UnsafeRawBufferPointer(rebasing: text[token.start + 1..<token.end - 1]) : .init(start: nil, count: 0)
    }

    var hasEscapes: Bool { token.hasEscapes }

    /// A string's content; nil for other values.
    var string: String? {
        guard kind == .string else { return nil }
        guard hasEscapes else { return String(decoding: escaped, as: UTF8.self) }
        var buffer = ByteBuffer()
        appendDecoded(to: &buffer)
        return String(decoding: buffer.unread, as: UTF8.self)
    }

    /// Whether this is the string `other`.
    func equals(_ other: StaticString) -> Bool {
        guard kind == .string else { return false }
        // Not with `==` of String, to which some different texts (U+212A and K) are equal.
        if hasEscapes { return string?.utf8.elementsEqual(other.description.utf8) == true }
        let content = escaped
        guard content.count == other.utf8CodeUnitCount else { return false }
        for index in 0..<content.count where content[index] != other.utf8Start[index] { return false }
        return true
    }

    /// Whether a string has no content. `"\u0000"` has.
    var isEmptyString: Bool { kind == .string && token.end - token.start == 2 }

    /// Appends a string's content with its escapes undone; half a surrogate pair becomes U+FFFD, as in Go.
    func appendDecoded(to buffer: inout ByteBuffer) {
        let content = escaped
        guard hasEscapes else { return buffer.append(content) }
        var start = 0
        while let slash = content[start...].firstIndex(of: UInt8(ascii: "\\")) {
            buffer.append(UnsafeRawBufferPointer(rebasing: content[start..<slash]))
            start = slash + 2
            switch content[slash + 1] {
            case UInt8(ascii: "b"): buffer.append(byte: 0x08)
            case UInt8(ascii: "f"): buffer.append(byte: 0x0c)
            case UInt8(ascii: "n"): buffer.append(byte: 0x0a)
            case UInt8(ascii: "r"): buffer.append(byte: 0x0d)
            case UInt8(ascii: "t"): buffer.append(byte: 0x09)
            case UInt8(ascii: "u"):
                let (scalar, length) = JSONNode.scalar(in: content, at: slash)
                start = slash + length
                buffer.append(String(scalar))
            case let byte: buffer.append(byte: byte)
            }
        }
        buffer.append(UnsafeRawBufferPointer(rebasing: content[start...]))
    }

    /// The scalar that the `\u` at `slash` stands for, and how many bytes say so: 6, or 12 for a surrogate pair.
    static func scalar(in content: UnsafeRawBufferPointer, at slash: Int) -> (Unicode.Scalar, length: Int) {
        let first = codeUnit(content, slash)
        if let first, let scalar = Unicode.Scalar(first) { return (scalar, 6) }
        if let first, first < 0xdc00, let second = codeUnit(content, slash + 6), (0xdc00..<0xe000).contains(second),
            let scalar = Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00))
        {
            return (scalar, 12)
        }
        return ("\u{fffd}", 6)
    }

    private static func codeUnit(_ content: UnsafeRawBufferPointer, _ slash: Int) -> UInt32? {
        guard slash + 6 <= content.count, content[slash] == UInt8(ascii: "\\"), content[slash + 1] == UInt8(ascii: "u")
        else { return nil }
        var value: UInt32 = 0
        for index in slash + 2..<slash + 6 {
            guard let digit = hexadecimal(content[index]) else { return nil }
            value = value << 4 | digit
        }
        return value
    }

    // MARK: Other values

    /// A number as IEEE 754 has it, the way Go and JavaScript read it; nil for other values and beyond its range.
    var double: Double? {
        guard kind == .number, let number = Double(String(decoding: raw, as: UTF8.self)), number.isFinite else {
            return nil
        }
        return number
    }

    var bool: Bool? { kind == .true ? true : kind == .false ? false : nil }
}
