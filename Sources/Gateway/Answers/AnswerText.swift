import HTTPCore

/// Writing JSON.
extension ByteBuffer {
    /// A comma, unless this is the first thing within its brackets.
    mutating func separate() {
        guard let last = unread.last, last != UInt8(ascii: "{"), last != UInt8(ascii: "[") else { return }
        append(byte: UInt8(ascii: ","))
    }

    /// A name and its colon, separated from what stands before.
    mutating func begin(_ name: StaticString) {
        separate()
        append(byte: UInt8(ascii: "\""))
        append(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        append("\":")
    }

    /// A member whose value is this text.
    mutating func append(_ name: StaticString, _ value: UnsafeRawBufferPointer) {
        begin(name)
        append(onOneLine: value)
    }

    /// A member whose value is a string with this content, escaped as it is.
    mutating func append(_ name: StaticString, escaped: UnsafeRawBufferPointer) {
        begin(name)
        append(byte: UInt8(ascii: "\""))
        append(onOneLine: escaped)
        append(byte: UInt8(ascii: "\""))
    }

    /// A member whose value is an array of these elements, commas and all; nothing if there are none.
    mutating func append(_ name: StaticString, elements: UnsafeRawBufferPointer) {
        guard !elements.isEmpty else { return }
        begin(name)
        append(byte: UInt8(ascii: "["))
        append(onOneLine: elements)
        append(byte: UInt8(ascii: "]"))
    }

    /// A member as it is, but for the model's name.
    mutating func append(_ member: (name: JSONNode, value: JSONNode), model: String?) {
        separate()
        append(member.name.raw)
        append(byte: UInt8(ascii: ":"))
        if let model, member.name.equals("model") { return append(quoted: model) }
        append(onOneLine: member.value.raw)
    }

    /// More elements for an array that is gathered without its brackets.
    mutating func gather(_ elements: UnsafeRawBufferPointer) {
        guard !elements.isEmpty else { return }
        if !isEmpty { append(byte: UInt8(ascii: ",")) }
        append(elements)
    }

    /// JSON without what would end the line or the event that it becomes part of. CR and LF stand between tokens only
    /// and go. U+0085, U+2028 and U+2029, at which Python's httpx ends a line, stand in strings only and are escaped.
    mutating func append(onOneLine json: UnsafeRawBufferPointer) {
        var (start, next) = (0, 0)
        while next < json.count {
            let length: Int
            let instead: StaticString
            switch json[next] {
            case 0x0a, 0x0d: (length, instead) = (1, "")
            case 0xc2 where json.holds(0x85, at: next + 1): (length, instead) = (2, "\\u0085")
            case 0xe2 where json.holds(0x80, at: next + 1) && json.holds(0xa8, at: next + 2):
                (length, instead) = (3, "\\u2028")
            case 0xe2 where json.holds(0x80, at: next + 1) && json.holds(0xa9, at: next + 2):
                (length, instead) = (3, "\\u2029")
            default:
                next += 1
                continue
            }
            append(json.part(start..<next))
            append(UnsafeRawBufferPointer(start: instead.utf8Start, count: instead.utf8CodeUnitCount))
            next += length
            start = next
        }
        append(json.part(start..<json.count))
    }

    /// A string as Go's `encoding/json` writes it, HTML's characters and U+2028/9 escaped; and U+0085, at which
    /// Python's httpx ends a line.
    mutating func append(quoted text: String) {
        append(byte: UInt8(ascii: "\""))
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": append("\\\"")
            case "\\": append("\\\\")
            case "\u{8}": append("\\b")
            case "\u{c}": append("\\f")
            case "\n": append("\\n")
            case "\r": append("\\r")
            case "\t": append("\\t")
            case "\u{0}"..."\u{1f}", "<", ">", "&", "\u{85}", "\u{2028}", "\u{2029}":
                let digits = String(scalar.value, radix: 16)
                append("\\u" + String(repeating: "0", count: 4 - digits.count) + digits)
            default: append(String(scalar))
            }
        }
        append(byte: UInt8(ascii: "\""))
    }
}

/// Members that we do not know, gathered from all parts of an answer: the last value that is not null counts.
///
/// It points into the text that they were read from, and must not outlive it.
struct ExtraMembers {
    private var members: [(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)] = []
    private var places: [[UInt8]: Int] = [:]

    mutating func take(_ member: (name: JSONNode, value: JSONNode)) {
        let name = Array(member.name.raw)
        guard let place = places[name] else {
            places[name] = members.count
            return members.append((member.name.raw, member.value.raw))
        }
        if member.value.kind != .null { members[place].value = member.value.raw }
    }

    func write(to output: inout ByteBuffer) {
        for member in members {
            output.separate()
            output.append(member.name)
            output.append(byte: UInt8(ascii: ":"))
            output.append(onOneLine: member.value)
        }
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func holds(_ byte: UInt8, at index: Int) -> Bool { index < count && self[index] == byte }
}
