import TestSupport

@testable import Gateway

/// Makes up meanings, and spells them in one of the ways that there are.
struct Speller {
    private var generator: SeededGenerator

    init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

    /// A request to an endpoint, of a model, that says something.
    mutating func request(to endpoint: Endpoint) -> Meaning { filled(.fields(.request(endpoint), [:])) }

    /// The meaning, with the fields of the objects in it chosen.
    private mutating func filled(_ meaning: Meaning) -> Meaning {
        switch meaning {
        case .list(let elements): return .list(elements.map { filled($0) })
        case .fields(let shape, _):
            var fields: [String: Meaning] = [:]
            for field in shape.fields where field.isRequired || oneIn(4) {
                fields[field.name] = filled(choice(of: field.meanings))
            }
            // No options are as good as nothing: an absence, not a meaning.
            if shape == .options, fields.isEmpty { fields["y"] = .text("5") }
            return .fields(shape, fields)
        default: return meaning
        }
    }

    /// The text of a request.
    mutating func body(_ request: Meaning, of endpoint: Endpoint) -> String {
        guard case .fields(_, let fields) = request else { return "" }
        var members = self.members(fields, of: .request(endpoint))
        members.append(("model", string(choice(of: ["m", "M", "m:latest", " library/m", "m:local"]))))
        members += [
            ("keep_alive", choice(of: ["1", "\"5m\"", "-1", "null"])),
            ("stream", choice(of: ["true", "false", "null"])),
        ].filter { _ in oneIn(3) }
        if !endpoint.isNative, oneIn(3) { members.append(("user", string("somebody"))) }
        return space() + object(members) + space()
    }

    private mutating func members(_ fields: [String: Meaning], of shape: Shape) -> [(String, String)] {
        var members: [(String, String)] = []
        for field in shape.fields {
            if let meaning = fields[field.name] {
                members.append((field.name, spelled(meaning)))
            } else if !field.absences.isEmpty, oneIn(3) {
                members.append((field.name, choice(of: field.absences)))
            }
        }
        return members
    }

    private mutating func spelled(_ meaning: Meaning) -> String {
        switch meaning {
        case .text(let text): string(text)
        case .anyCase(let text): string(oneIn(2) ? text.uppercased() : text)
        case .literal(let spellings): choice(of: spellings)
        case .list(let elements): array(elements.map { spelled($0) })
        case .oneOrList(let text): oneIn(2) ? string(text) : array([string(text)])
        case .sorted(let members): object(members.map { ($0.key, spelled($0.value)) })
        case .ordered(let members): object(members.map { ($0.name, spelled($0.value)) }, shuffles: false)
        case .fields(let shape, let fields): object(members(fields, of: shape))
        }
    }

    private mutating func object(_ members: [(String, String)], shuffles: Bool = true) -> String {
        let members = shuffles ? members.shuffled(using: &generator) : members
        let texts = members.map { name, value in string(name) + space() + ":" + space() + value }
        return "{" + space() + texts.joined(separator: space() + "," + space()) + space() + "}"
    }

    private mutating func array(_ elements: [String]) -> String {
        "[" + space() + elements.joined(separator: "," + space()) + space() + "]"
    }

    private mutating func string(_ text: String) -> String {
        guard oneIn(4) || text.unicodeScalars.contains(where: { $0.value < 0x20 || $0 == "\"" || $0 == "\\" }) else {
            return "\"\(text)\""
        }
        return "\"" + text.unicodeScalars.map { escaped($0) }.joined() + "\""
    }

    private mutating func escaped(_ scalar: Unicode.Scalar) -> String {
        let short: [Unicode.Scalar: String] = ["\n": "\\n", "\"": "\\\"", "\\": "\\\\", "/": "\\/"]
        if let short = short[scalar], oneIn(2) { return short }
        if scalar.value >= 0x20, scalar != "\"", scalar != "\\", oneIn(2) { return String(scalar) }
        return String(scalar).utf16.map { unit in
            let digits = String(unit, radix: 16, uppercase: oneIn(2))
            return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }.joined()
    }

    private mutating func space() -> String { oneIn(4) ? choice(of: [" ", "\n", "\t", "\r\n", "   "]) : "" }

    private mutating func oneIn(_ count: Int) -> Bool { generator.next() % UInt64(count) == 0 }

    private mutating func choice<T>(of values: [T]) -> T { values[Int(generator.next() % UInt64(values.count))] }
}
