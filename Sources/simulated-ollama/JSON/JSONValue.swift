/// A JSON value as it was written: object members in order, numbers in their own digits.
enum JSONValue: Sendable {
    case null
    case bool(Bool)
    case number(String)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    static func integer(_ value: some BinaryInteger) -> JSONValue { .number(String(value)) }

    var object: JSONObject? { if case .object(let object) = self { object } else { nil } }
    var array: [JSONValue]? { if case .array(let array) = self { array } else { nil } }
    var string: String? { if case .string(let string) = self { string } else { nil } }
    var double: Double? { if case .number(let digits) = self { Double(digits) } else { nil } }
    var bool: Bool? { if case .bool(let bool) = self { bool } else { nil } }

    /// Go's word for the kind of value, as its decoder's errors have it.
    var kind: String {
        switch self {
        case .null: "null"
        case .bool: "bool"
        case .number: "number"
        case .string: "string"
        case .array: "array"
        case .object: "object"
        }
    }
}

/// The members of a JSON object in the order they were written.
struct JSONObject: Sendable {
    typealias Member = (name: String, value: JSONValue)

    var members: [Member] = []

    var isEmpty: Bool { members.isEmpty }

    /// The member's value as Go's decoder finds it: names match without regard to case, the last one wins, and
    /// `null` is as good as nothing.
    subscript(name: String) -> JSONValue? {
        for member in members.reversed() where Ascii.same(member.name, name) {
            if case .null = member.value { return nil }
            return member.value
        }
        return nil
    }

    mutating func append(_ name: String, _ value: JSONValue) { members.append((name, value)) }
}

// MARK: Literals, so that answers read as the JSON they are

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByNilLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    init(stringLiteral value: String) { self = .string(value) }
    init(booleanLiteral value: Bool) { self = .bool(value) }
    init(integerLiteral value: Int) { self = .integer(value) }
    init(floatLiteral value: Double) { self = .number(value.description) }
    init(nilLiteral: ()) { self = .null }
    init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(JSONObject(members: elements.map { (name: $0.0, value: $0.1) }))
    }
}

/// Text compared as ASCII, the way header names, model names and Go's JSON keys are.
enum Ascii {
    static func same(_ a: String, _ b: String) -> Bool {
        if a == b { return true }
        guard a.utf8.count == b.utf8.count else { return false }
        return zip(a.utf8, b.utf8).allSatisfy { lower($0) == lower($1) }
    }

    static func lower(_ byte: UInt8) -> UInt8 { (0x41...0x5a).contains(byte) ? byte | 0x20 : byte }

    static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte | 0x20)
    }
}
