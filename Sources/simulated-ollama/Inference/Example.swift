/// Values made up to fit a JSON Schema: arguments of a tool, answers in a `format`.
enum Example {
    /// The properties that a schema requires, or all it has.
    static func object(of schema: JSONObject, seed: Seed, depth: Int = 0) -> JSONObject {
        var object = JSONObject()
        guard let properties = schema["properties"]?.object, depth < 8 else { return object }
        let required = Set((schema["required"]?.array ?? []).compactMap(\.string))
        for (index, property) in properties.members.enumerated() {
            guard required.isEmpty || required.contains(property.name) else { continue }
            object.append(
                property.name,
                value(of: property.value.object ?? JSONObject(), seed: seed, index: index + 1, depth: depth + 1))
        }
        return object
    }

    /// The answer to `"format": "json"`.
    static func plain(seed: Seed) -> JSONObject {
        JSONObject(members: [
            ("answer", .string((0..<6).map { Vocabulary.word($0, of: seed) }.joined(separator: " "))),
            ("certain", .bool(seed.value % 2 == 0)),
            ("count", .integer(seed.number(7) % 100)),
        ])
    }

    private static func value(of schema: JSONObject, seed: Seed, index: Int, depth: Int) -> JSONValue {
        if let choices = schema["enum"]?.array, !choices.isEmpty {
            return choices[Int(truncatingIfNeeded: seed.number(index) % UInt64(choices.count))]
        }
        let type = schema["type"]?.string ?? schema["type"]?.array?.first?.string ?? "string"
        switch type {
        case "integer": return .integer(seed.number(index) % 100)
        case "number": return .number("\(seed.number(index) % 100).5")
        case "boolean": return .bool(seed.number(index) % 2 == 0)
        case "null": return .null
        case "object": return .object(object(of: schema, seed: seed, depth: depth))
        case "array":
            guard let items = schema["items"]?.object, depth < 8 else { return [] }
            return .array([value(of: items, seed: seed, index: index + 1, depth: depth + 1)])
        default: return .string(Vocabulary.word(index, of: seed))
        }
    }
}
