import HTTPCore

@testable import Gateway

/// What a collector understands of a request: read strictly, so that nothing is in it that should not be.
struct Told {
    struct Malformed: Error { let what: String }

    struct Span: Equatable {
        var traceID = ""
        var spanID = ""
        var parent: String?
        var name = ""
        var kind = 0
        var start: UInt64 = 0
        var end: UInt64 = 0
        var attributes: [String] = []
        var message: String?
        var isError = false
    }

    private(set) var resource: [String] = []
    private(set) var scope: [String] = []
    private(set) var spans: [Span] = []

    init(_ body: Bytes) throws { self = try JSONDocument.read(body.buffer) { try Told($0) } }

    private init(_ root: JSONNode) throws {
        let resources = try Told.members(root, ["resourceSpans"])["resourceSpans"]
        let resource = try Told.members(try Told.only(resources), ["resource", "scopeSpans"])
        self.resource = try Told.attributes(Told.members(resource["resource"], ["attributes"])["attributes"])
        let scope = try Told.members(try Told.only(resource["scopeSpans"]), ["scope", "spans"])
        let scopeMembers = try Told.members(scope["scope"], ["name", "version"])
        self.scope = [try Told.text(scopeMembers["name"]), try Told.text(scopeMembers["version"])]
        guard let spans = scope["spans"], spans.kind == .array else { throw Malformed(what: "spans") }
        self.spans = try spans.elements.map(Told.span)
    }

    private static func span(_ node: JSONNode) throws -> Span {
        let required = ["traceId", "spanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes"]
        let members = try members(node, required, optional: ["parentSpanId", "status"])
        var span = Span()
        span.traceID = try id(members["traceId"], 32)
        span.spanID = try id(members["spanId"], 16)
        span.parent = try members["parentSpanId"].map { try id($0, 16) }
        span.name = try text(members["name"])
        span.kind = members["kind"]?.double.flatMap { Int(exactly: $0) } ?? -1
        span.start = try UInt64(text(members["startTimeUnixNano"])) ?? 0
        span.end = try UInt64(text(members["endTimeUnixNano"])) ?? 0
        span.attributes = try attributes(members["attributes"])
        if let status = try members["status"].map({ try Told.members($0, ["code"], optional: ["message"]) }) {
            guard status["code"]?.double == 2 else { throw Malformed(what: "status") }
            span.isError = true
            span.message = try status["message"].map(text)
        }
        return span
    }

    private static func attributes(_ node: JSONNode?) throws -> [String] {
        guard let node, node.kind == .array else { throw Malformed(what: "attributes") }
        return try node.elements.map { attribute in
            let members = try members(attribute, ["key", "value"])
            guard let value = members["value"], value.count == 1,
                let (kind, said) = value.members.first(where: { _ in true })
            else { throw Malformed(what: "value") }
            let written: String? =
                switch kind.string {
                case "stringValue": said.string
                case "intValue": said.string.flatMap { Int($0) }.map { "\($0)i" }
                case "doubleValue": said.double.map { "\($0)d" }
                case "boolValue": said.bool.map { "\($0)b" }
                default: nil
                }
            guard let written else { throw Malformed(what: "value") }
            return try "\(text(members["key"]))=\(written)"
        }
    }

    private static func members(
        _ node: JSONNode?, _ required: [String], optional: [String] = []
    ) throws -> [String: JSONNode] {
        guard let node, node.kind == .object else { throw Malformed(what: "\(required)") }
        let pairs = node.members.map { ($0.name.string ?? "", $0.value) }
        let found = try Dictionary(pairs) { _, _ in throw Malformed(what: "twice, among \(required)") }
        guard Set(required).isSubset(of: found.keys), Set(found.keys).isSubset(of: required + optional) else {
            throw Malformed(what: "\(found.keys) for \(required)")
        }
        return found
    }

    private static func only(_ node: JSONNode?) throws -> JSONNode {
        guard let node, node.kind == .array, node.count == 1 else { throw Malformed(what: "one element") }
        return Array(node.elements)[0]
    }

    private static func text(_ node: JSONNode?) throws -> String {
        guard let text = node?.string else { throw Malformed(what: "text") }
        return text
    }

    private static func id(_ node: JSONNode?, _ digits: Int) throws -> String {
        let id = try text(node)
        guard id.utf8.count == digits, id.utf8.allSatisfy({ "0123456789abcdef".utf8.contains($0) }),
            id.utf8.contains(where: { $0 != 0x30 })
        else { throw Malformed(what: "id \(id)") }
        return id
    }
}
