/// Writing JSON as Go's encoder does: no spaces, and `<`, `>`, `&`, U+2028 and U+2029 escaped inside strings.
extension [UInt8] {
    mutating func append(_ text: StaticString) {
        append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// As it is, with neither quotes nor escapes.
    mutating func append(verbatim text: String) { append(contentsOf: text.utf8) }

    mutating func append(decimal number: Int) {
        var rest = number.magnitude
        guard rest >= 10 || number < 0 else { return append(0x30 + UInt8(rest)) }
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var first = 20
            repeat {
                first -= 1
                let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
                digits[first] = 0x30 + UInt8(digit)
                rest = quotient
            } while rest > 0
            if number < 0 { append(UInt8(ascii: "-")) }
            append(contentsOf: digits[first...])
        }
    }

    mutating func append(decimal number: UInt64) { append(decimal: Int(clamping: number)) }

    /// A JSON string, quotes and all.
    mutating func append(quoting text: String) {
        append(UInt8(ascii: "\""))
        append(escaping: text)
        append(UInt8(ascii: "\""))
    }

    /// The inside of a JSON string.
    mutating func append(escaping text: String) {
        var text = text
        text.withUTF8 { append(escaping: UnsafeRawBufferPointer($0)) }
    }

    mutating func append(escaping text: UnsafeRawBufferPointer) {
        var start = 0
        for (index, byte) in text.enumerated() where JSONEscapes.needed[Int(byte)] {
            guard let escape = JSONEscapes.escape(at: index, in: text) else { continue }
            append(contentsOf: UnsafeRawBufferPointer(rebasing: text[start..<index]))
            append(verbatim: escape.text)
            start = index + escape.replaced
        }
        append(contentsOf: UnsafeRawBufferPointer(rebasing: text[start...]))
    }

    mutating func append(json value: JSONValue) {
        switch value {
        case .null: append("null")
        case .bool(let bool): append(bool ? "true" : "false")
        case .number(let digits): append(verbatim: digits)
        case .string(let string): append(quoting: string)
        case .array(let array):
            append(UInt8(ascii: "["))
            for (index, element) in array.enumerated() {
                if index > 0 { append(UInt8(ascii: ",")) }
                append(json: element)
            }
            append(UInt8(ascii: "]"))
        case .object(let object):
            append(UInt8(ascii: "{"))
            for (index, member) in object.members.enumerated() {
                if index > 0 { append(UInt8(ascii: ",")) }
                append(quoting: member.name)
                append(UInt8(ascii: ":"))
                append(json: member.value)
            }
            append(UInt8(ascii: "}"))
        }
    }
}

extension JSONValue {
    /// As text, on one line.
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(json: self)
        return bytes
    }

    var text: String { String(decoding: bytes, as: UTF8.self) }
}

enum JSONEscapes {
    /// Bytes at which a look is needed: controls, quotes, Go's HTML characters, and the first byte of U+2028.
    static let needed: [Bool] = (0..<256).map { byte in
        byte < 0x20 || byte == 0xe2 || "\"\\<>&".utf8.contains(UInt8(byte))
    }

    /// The escape for what stands at `index`, and how many bytes it replaces; nil if nothing there needs one.
    static func escape(at index: Int, in text: UnsafeRawBufferPointer) -> (text: String, replaced: Int)? {
        let byte = text[index]
        switch byte {
        case UInt8(ascii: "\""): return ("\\\"", 1)
        case UInt8(ascii: "\\"): return ("\\\\", 1)
        case 0x08: return ("\\b", 1)
        case 0x0a: return ("\\n", 1)
        case 0x0c: return ("\\f", 1)
        case 0x0d: return ("\\r", 1)
        case 0x09: return ("\\t", 1)
        case 0xe2:
            guard index + 2 < text.count, text[index + 1] == 0x80, text[index + 2] & 0xfe == 0xa8 else { return nil }
            return (text[index + 2] == 0xa8 ? "\\u2028" : "\\u2029", 3)
        default:
            return ("\\u00" + (byte < 16 ? "0" : "") + String(byte, radix: 16), 1)
        }
    }
}
