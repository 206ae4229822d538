import HTTPCore

/// JSON text, read once and then looked at where it lies: nothing is copied and no tree is built.
///
///     let model = try JSONDocument.read(body.buffer) { root in root["model"]?.string }
///
/// One pass checks the text and writes a tape with one token for each value and each member's name, so that
/// stepping over a value, however large, is a jump. Time and memory are linear in the text; nothing recurses.
/// Source: RFC 8259; what is one value to Go's `encoding/json` is one here, but for nesting beyond ``maxDepth``.
enum JSONDocument {
    /// Deeper nesting is refused. Go allows 10,000; no request or answer that means something comes near this.
    static let maxDepth = 512
    /// More values than this are refused where nothing else is said: the tape of one costs 32 bytes.
    static let maxValues = 1 << 20

    struct Token {
        /// Bytes of the value in the text, quotation marks and brackets included.
        var start: Int
        var end: Int
        /// The token behind the value and all that is in it.
        var next: Int
        var kind: JSONNode.Kind
        /// For strings: whether there is a backslash in it; for objects and arrays: unused.
        var hasEscapes = false
    }

    /// Reads `text`, which must be one value with nothing but white space around it, and lends its root.
    ///
    /// The node, and every node got from it, is valid inside `body` only.
    static func read<T>(
        _ text: UnsafeRawBufferPointer, maxValues: Int = maxValues, _ body: (JSONNode) throws -> T
    ) throws -> T {
        var reader = JSONTapeReader(text, maxValues: maxValues)
        try reader.run()
        return try reader.tape.withUnsafeBufferPointer { tape in
            try body(JSONNode(text: text, tape: tape, index: 0))
        }
    }
}

/// Why a text is not JSON that we read.
struct JSONProblem: Error, Equatable {
    enum Kind { case malformed, truncated, tooDeep, tooMany, trailing }

    let kind: Kind
    /// Where, in bytes from the start.
    let offset: Int
}

/// Writes the tape. Brackets are kept on a stack of its own, so that depth costs no call.
private struct JSONTapeReader {
    private let text: UnsafeRawBufferPointer
    private let maxValues: Int
    private var position = 0
    private(set) var tape: [JSONDocument.Token] = []
    /// Tokens of the objects and arrays that are open.
    private var open: [Int] = []

    init(_ text: UnsafeRawBufferPointer, maxValues: Int) {
        self.text = text
        self.maxValues = maxValues
        tape.reserveCapacity(32)
    }

    mutating func run() throws(JSONProblem) {
        try value()
        while let container = open.last {
            skipSpace()
            if tape[container].kind == .object { try goOn(inObject: container) } else { try goOn(inArray: container) }
        }
        skipSpace()
        guard position == text.count else { throw problem(.trailing) }
    }

    /// Behind an opening brace, or behind a member.
    private mutating func goOn(inObject container: Int) throws(JSONProblem) {
        var byte = try peek()
        if byte == UInt8(ascii: "}") { return close(container) }
        if tape.count > container + 1 {
            guard byte == UInt8(ascii: ",") else { throw problem(.malformed) }
            position += 1
            skipSpace()
            byte = try peek()
        }
        guard byte == UInt8(ascii: "\"") else { throw problem(.malformed) }
        try string()
        skipSpace()
        guard try peek() == UInt8(ascii: ":") else { throw problem(.malformed) }
        position += 1
        try value()
    }

    /// Behind an opening bracket, or behind an element.
    private mutating func goOn(inArray container: Int) throws(JSONProblem) {
        let byte = try peek()
        if byte == UInt8(ascii: "]") { return close(container) }
        if tape.count > container + 1 {
            guard byte == UInt8(ascii: ",") else { throw problem(.malformed) }
            position += 1
        }
        try value()
    }

    private mutating func close(_ container: Int) {
        position += 1
        tape[container].end = position
        tape[container].next = tape.count
        open.removeLast()
    }

    private mutating func value() throws(JSONProblem) {
        skipSpace()
        let byte = try peek()
        guard tape.count < maxValues else { throw problem(.tooMany) }
        switch byte {
        case UInt8(ascii: "\""):
            try string()
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            guard open.count < JSONDocument.maxDepth else { throw problem(.tooDeep) }
            open.append(tape.count)
            add(byte == UInt8(ascii: "{") ? .object : .array, from: position)
            position += 1
        case UInt8(ascii: "-"), 0x30...0x39:
            try number()
        case UInt8(ascii: "t"): try literal("true", .true)
        case UInt8(ascii: "f"): try literal("false", .false)
        case UInt8(ascii: "n"): try literal("null", .null)
        default: throw problem(.malformed)
        }
    }

    private mutating func add(_ kind: JSONNode.Kind, from start: Int, hasEscapes: Bool = false) {
        tape.append(
            JSONDocument.Token(
                start: start, end: position, next: tape.count + 1, kind: kind, hasEscapes: hasEscapes))
    }

    private mutating func string() throws(JSONProblem) {
        let start = position
        var hasEscapes = false
        position += 1
        while true {
            skipPlain()
            switch try peek() {
            case UInt8(ascii: "\""):
                position += 1
                return add(.string, from: start, hasEscapes: hasEscapes)
            case UInt8(ascii: "\\"):
                hasEscapes = true
                position += 1
                try escape()
            case 0..<0x20:
                throw problem(.malformed)
            default:
                position += 1
            }
        }
    }

    /// Steps over bytes that mean themselves, eight at a time.
    private mutating func skipPlain() {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let highs: UInt64 = 0x8080_8080_8080_8080
        while position + 8 <= text.count {
            let word = text.loadUnaligned(fromByteOffset: position, as: UInt64.self)
            let quote = word ^ (ones &* 0x22)
            let slash = word ^ (ones &* 0x5c)
            // A byte's high bit where the byte is zero, or (last term) below 0x20.
            let found =
                ((quote &- ones) & ~quote) | ((slash &- ones) & ~slash) | ((word &- ones &* 0x20) & ~word)
            if found & highs != 0 {
                // The lowest mark is never a false one, and the lowest byte is the first.
                position += (found & highs).trailingZeroBitCount / 8
                return
            }
            position += 8
        }
    }

    private mutating func escape() throws(JSONProblem) {
        switch try peek() {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
            UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
            position += 1
        case UInt8(ascii: "u"):
            position += 1
            for _ in 0..<4 {
                guard hexadecimal(try peek()) != nil else { throw problem(.malformed) }
                position += 1
            }
        default: throw problem(.malformed)
        }
    }

    private mutating func number() throws(JSONProblem) {
        let start = position
        if text[position] == UInt8(ascii: "-") { position += 1 }
        if try peek() == UInt8(ascii: "0") { position += 1 } else { try digits() }
        if next == UInt8(ascii: ".") {
            position += 1
            try digits()
        }
        if let byte = next, byte | 0x20 == UInt8(ascii: "e") {
            position += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { position += 1 }
            try digits()
        }
        add(.number, from: start)
    }

    private mutating func digits() throws(JSONProblem) {
        guard (0x30...0x39).contains(try peek()) else { throw problem(.malformed) }
        while let byte = next, (0x30...0x39).contains(byte) { position += 1 }
    }

    private mutating func literal(_ word: StaticString, _ kind: JSONNode.Kind) throws(JSONProblem) {
        let start = position
        for index in 0..<word.utf8CodeUnitCount {
            guard try peek() == word.utf8Start[index] else { throw problem(.malformed) }
            position += 1
        }
        add(kind, from: start)
    }

    private var next: UInt8? { position < text.count ? text[position] : nil }

    private func peek() throws(JSONProblem) -> UInt8 {
        guard position < text.count else { throw problem(.truncated) }
        return text[position]
    }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
    }

    private func problem(_ kind: JSONProblem.Kind) -> JSONProblem { JSONProblem(kind: kind, offset: position) }
}
