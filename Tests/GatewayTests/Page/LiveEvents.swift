import HTTPCore

@testable import Gateway

/// A JSON value, copied out of the text that it was read from.
enum Value: Equatable {
    case null, bool(Bool), number(Double), text(String)
    case list([Value])
    case object([Member])

    struct Member: Equatable {
        let name: String
        let value: Value
    }

    init(_ json: String) throws {
        var json = json
        self = try json.withUTF8 { try JSONDocument.read(UnsafeRawBufferPointer($0)) { Value($0) } }
    }

    private init(_ node: JSONNode) {
        self =
            switch node.kind {
            case .null: .null
            case .true: .bool(true)
            case .false: .bool(false)
            case .number: .number(node.double ?? .nan)
            case .string: .text(node.string ?? "")
            case .array: .list(node.elements.map { Value($0) })
            case .object: .object(node.members.map { Member(name: $0.name.string ?? "", value: Value($0.value)) })
            }
    }

    /// Null for what is not there.
    subscript(_ name: String) -> Value {
        guard case .object(let members) = self else { return .null }
        return members.first { $0.name == name }?.value ?? .null
    }

    var names: [String] { if case .object(let members) = self { members.map(\.name) } else { [] } }
    var elements: [Value] { if case .list(let elements) = self { elements } else { [] } }
    var whole: Int { if case .number(let number) = self { Int(number) } else { -1 } }

    func text(_ name: String) -> String { if case .text(let text) = self[name] { text } else { "" } }
}

/// One of the page's events.
struct LiveEvent {
    struct Malformed: Error { let text: String }

    let name: String
    let value: Value

    /// Read strictly: a name, one line of data, and a blank line.
    static func all(_ stream: String) throws -> [LiveEvent] {
        var parts = stream.split(separator: "\n\n", omittingEmptySubsequences: false)
        guard parts.popLast() == "" else { throw Malformed(text: stream) }
        return try parts.map { part in
            let lines = part.split(separator: "\n", omittingEmptySubsequences: false)
            guard lines.count == 2, lines[0].hasPrefix("event: "), lines[1].hasPrefix("data: ") else {
                throw Malformed(text: String(part))
            }
            return LiveEvent(name: String(lines[0].dropFirst(7)), value: try Value(String(lines[1].dropFirst(6))))
        }
    }
}
