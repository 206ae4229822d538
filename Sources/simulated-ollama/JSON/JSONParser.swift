/// Reads the first JSON value of a text, as Go's `json.Decoder` does: what follows it is not looked at, and what is
/// wrong is told in Go's words, which Ollama passes on to its clients.
struct JSONParser {
    private let text: UnsafeRawBufferPointer
    private var position = 0

    /// Go allows 10,000; a thousand keeps the recursion within a thread's stack in debug builds too.
    private static let maxDepth = 1000

    static func parse(_ text: UnsafeRawBufferPointer) throws(JSONProblem) -> JSONValue {
        var parser = JSONParser(text: text)
        parser.skipSpace()
        guard parser.position < text.count else { throw JSONProblem.empty }
        return try parser.value(depth: 0)
    }

    private init(text: UnsafeRawBufferPointer) { self.text = text }

    // MARK: Values

    private mutating func value(depth: Int) throws(JSONProblem) -> JSONValue {
        guard depth < JSONParser.maxDepth else { throw JSONProblem("exceeded max depth") }
        switch try peek() {
        case UInt8(ascii: "{"): return .object(try object(depth: depth))
        case UInt8(ascii: "["): return .array(try array(depth: depth))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "-"), 0x30...0x39: return .number(try number())
        case UInt8(ascii: "t"):
            try literal("true")
            return .bool(true)
        case UInt8(ascii: "f"):
            try literal("false")
            return .bool(false)
        case UInt8(ascii: "n"):
            try literal("null")
            return .null
        case let other: throw .unexpected(other, "looking for beginning of value")
        }
    }

    private mutating func object(depth: Int) throws(JSONProblem) -> JSONObject {
        position += 1
        var object = JSONObject()
        skipSpace()
        if try peek() == UInt8(ascii: "}") {
            position += 1
            return object
        }
        while true {
            skipSpace()
            guard try peek() == UInt8(ascii: "\"") else {
                throw .unexpected(try peek(), "looking for beginning of object key string")
            }
            let name = try string()
            skipSpace()
            guard try peek() == UInt8(ascii: ":") else { throw .unexpected(try peek(), "after object key") }
            position += 1
            skipSpace()
            object.append(name, try value(depth: depth + 1))
            skipSpace()
            switch try peek() {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "}"):
                position += 1
                return object
            case let other: throw .unexpected(other, "after object key:value pair")
            }
        }
    }

    private mutating func array(depth: Int) throws(JSONProblem) -> [JSONValue] {
        position += 1
        var array: [JSONValue] = []
        skipSpace()
        if try peek() == UInt8(ascii: "]") {
            position += 1
            return array
        }
        while true {
            skipSpace()
            array.append(try value(depth: depth + 1))
            skipSpace()
            switch try peek() {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "]"):
                position += 1
                return array
            case let other: throw .unexpected(other, "after array element")
            }
        }
    }

    private mutating func literal(_ word: StaticString) throws(JSONProblem) {
        for index in 0..<word.utf8CodeUnitCount {
            let byte = try peek()
            guard byte == word.utf8Start[index] else {
                let expected = Character(Unicode.Scalar(word.utf8Start[index]))
                throw .unexpected(byte, "in literal \(word) (expecting '\(expected)')")
            }
            position += 1
        }
    }

    private mutating func number() throws(JSONProblem) -> String {
        let start = position
        if try peek() == UInt8(ascii: "-") { position += 1 }
        if try peek() == UInt8(ascii: "0") { position += 1 } else { try digits("in numeric literal") }
        if next == UInt8(ascii: ".") {
            position += 1
            try digits("after decimal point in numeric literal")
        }
        if let e = next, e | 0x20 == UInt8(ascii: "e") {
            position += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { position += 1 }
            try digits("in exponent of numeric literal")
        }
        return String(decoding: UnsafeRawBufferPointer(rebasing: text[start..<position]), as: UTF8.self)
    }

    private mutating func digits(_ place: String) throws(JSONProblem) {
        guard (0x30...0x39).contains(try peek()) else { throw .unexpected(try peek(), place) }
        while let byte = next, (0x30...0x39).contains(byte) { position += 1 }
    }

    // MARK: Strings

    private mutating func string() throws(JSONProblem) -> String {
        position += 1
        let start = position
        while let byte = next {
            if byte == UInt8(ascii: "\"") {
                let plain = UnsafeRawBufferPointer(rebasing: text[start..<position])
                position += 1
                return String(decoding: plain, as: UTF8.self)
            }
            if byte == UInt8(ascii: "\\") { return try stringWithEscapes(from: start) }
            guard byte >= 0x20 else { throw .unexpected(byte, "in string literal") }
            position += 1
        }
        throw .truncated
    }

    private mutating func stringWithEscapes(from start: Int) throws(JSONProblem) -> String {
        var bytes = Array(text[start..<position])
        while true {
            let byte = try peek()
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: bytes, as: UTF8.self)
            case UInt8(ascii: "\\"): try escape(into: &bytes)
            case 0..<0x20: throw .unexpected(byte, "in string literal")
            default: bytes.append(byte)
            }
        }
    }

    private mutating func escape(into bytes: inout [UInt8]) throws(JSONProblem) {
        let byte = try peek()
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): bytes.append(byte)
        case UInt8(ascii: "b"): bytes.append(0x08)
        case UInt8(ascii: "f"): bytes.append(0x0c)
        case UInt8(ascii: "n"): bytes.append(0x0a)
        case UInt8(ascii: "r"): bytes.append(0x0d)
        case UInt8(ascii: "t"): bytes.append(0x09)
        case UInt8(ascii: "u"): bytes += Array(String(Character(try scalar())).utf8)
        default: throw .unexpected(byte, "in string escape code")
        }
    }

    /// What follows `\u`; half a surrogate pair becomes U+FFFD.
    private mutating func scalar() throws(JSONProblem) -> Unicode.Scalar {
        let first = try hexadecimal()
        if let scalar = Unicode.Scalar(first) { return scalar }
        let rest = text[position...].prefix(2)
        guard first < 0xdc00, rest.elementsEqual("\\u".utf8) else { return "\u{fffd}" }
        let before = position
        position += 2
        let second = try hexadecimal()
        guard (0xdc00..<0xe000).contains(second) else {
            position = before
            return "\u{fffd}"
        }
        return Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00)) ?? "\u{fffd}"
    }

    private mutating func hexadecimal() throws(JSONProblem) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            let byte = try peek()
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
                throw .unexpected(byte, "in \\u hexadecimal character escape")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }

    // MARK: Bytes

    private var next: UInt8? { position < text.count ? text[position] : nil }

    private func peek() throws(JSONProblem) -> UInt8 {
        guard position < text.count else { throw .truncated }
        return text[position]
    }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
    }
}

/// Why a text is not JSON, in the words of Go's decoder.
struct JSONProblem: Error, Equatable {
    let message: String

    static let empty = JSONProblem("EOF")
    static let truncated = JSONProblem("unexpected EOF")

    init(_ message: String) { self.message = message }

    static func unexpected(_ byte: UInt8, _ place: String) -> JSONProblem {
        JSONProblem("invalid character \(quoted(byte)) \(place)")
    }

    private static func quoted(_ byte: UInt8) -> String {
        switch byte {
        case UInt8(ascii: "'"): "'\\''"
        case UInt8(ascii: "\\"): "'\\\\'"
        case 0x0a: "'\\n'"
        case 0x0d: "'\\r'"
        case 0x09: "'\\t'"
        case 0x20..<0x7f: "'\(Character(Unicode.Scalar(byte)))'"
        case 0x80...: "'\(Character(Unicode.Scalar(byte)))'"
        default: "'\\x\(byte < 16 ? "0" : "")\(String(byte, radix: 16))'"
        }
    }
}
