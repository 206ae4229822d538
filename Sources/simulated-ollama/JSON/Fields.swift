/// A request's JSON object, read the way Go fills a struct from it: unknown members are ignored, `null` is nothing,
/// and a value of the wrong type is refused in Go's words.
struct Fields {
    let object: JSONObject
    /// The Go type that Ollama decodes into, for the error's text: `ChatRequest`.
    let type: String

    /// Parses a body. Throws a ``JSONProblem`` in Go's words; an empty body is ``JSONProblem/empty``.
    init(_ body: UnsafeRawBufferPointer, as type: String) throws(JSONProblem) {
        let value = try JSONParser.parse(body)
        self.type = type
        switch value {
        case .object(let object): self.object = object
        case .null: object = JSONObject()
        default: throw JSONProblem("json: cannot unmarshal \(value.kind) into Go value of type api.\(type)")
        }
    }

    init(_ object: JSONObject, as type: String) {
        self.object = object
        self.type = type
    }

    subscript(name: String) -> JSONValue? { object[name] }

    /// Absent is empty, as in Go.
    func string(_ name: String) throws(JSONProblem) -> String {
        guard let value = object[name] else { return "" }
        guard let string = value.string else { throw mismatch(value, name, "string") }
        return string
    }

    func bool(_ name: String) throws(JSONProblem) -> Bool? {
        guard let value = object[name] else { return nil }
        guard let bool = value.bool else { throw mismatch(value, name, "bool") }
        return bool
    }

    func int(_ name: String) throws(JSONProblem) -> Int? {
        guard let value = object[name] else { return nil }
        guard case .number(let digits) = value else { throw mismatch(value, name, "int") }
        guard let int = Int(digits) else {
            let field = "\(type).\(name)"
            throw JSONProblem("json: cannot unmarshal number \(digits) into Go struct field \(field) of type int")
        }
        return int
    }

    func number(_ name: String) throws(JSONProblem) -> Double? {
        guard let value = object[name] else { return nil }
        guard let double = value.double else { throw mismatch(value, name, "float64") }
        return double
    }

    func objects(_ name: String, of element: String) throws(JSONProblem) -> [Fields] {
        guard let value = object[name] else { return [] }
        guard let array = value.array else { throw mismatch(value, name, "[]\(element)") }
        var fields: [Fields] = []
        fields.reserveCapacity(array.count)
        for entry in array {
            guard let object = entry.object else { throw mismatch(entry, name, element) }
            fields.append(Fields(object, as: type + "." + name))
        }
        return fields
    }

    func object(_ name: String) throws(JSONProblem) -> Fields? {
        guard let value = object[name] else { return nil }
        guard let object = value.object else { throw mismatch(value, name, "map[string]interface {}") }
        return Fields(object, as: type + "." + name)
    }

    func mismatch(_ value: JSONValue, _ name: String, _ wanted: String) -> JSONProblem {
        JSONProblem("json: cannot unmarshal \(value.kind) into Go struct field \(type).\(name) of type \(wanted)")
    }
}
