/// A model's name as Ollama reads it: `[host/][namespace/]model[:tag]`.
struct ModelName: Hashable, Sendable {
    var host = "registry.ollama.ai"
    var namespace = "library"
    var model: String
    var tag = "latest"
    /// `:cloud` and `-cloud` name a model that runs elsewhere.
    var isCloud = false

    /// Nil if the text is no valid name.
    init?(_ text: String) {
        var rest = Substring(text.trimmed)
        if rest.hasSuffix(":local") { rest = rest.dropLast(6) }
        if let colon = rest.lastIndex(of: ":"), !rest[colon...].contains("/") {
            tag = String(rest[rest.index(after: colon)...])
            rest = rest[..<colon]
        }
        let parts = rest.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        switch parts.count {
        case 1: model = parts[0]
        case 2: (namespace, model) = (parts[0], parts[1])
        case 3: (host, namespace, model) = (parts[0], parts[1], parts[2])
        default: return nil
        }
        isCloud = tag == "cloud" || tag.hasSuffix("-cloud")
        guard ModelName.isValid(model), ModelName.isValid(tag), ModelName.isValid(namespace),
            ModelName.isValid(host, alsoAllowed: UInt8(ascii: ":"))
        else { return nil }
    }

    /// Without a host and namespace that are the usual ones; the tag is always there.
    var display: String {
        if host != "registry.ollama.ai" { return "\(host)/\(namespace)/\(model):\(tag)" }
        return namespace == "library" ? "\(model):\(tag)" : "\(namespace)/\(model):\(tag)"
    }

    var full: String { "\(host)/\(namespace)/\(model):\(tag)" }

    /// What two spellings of the same model have in common.
    var key: String { full.lowercased() }

    private static func isValid(_ part: String, alsoAllowed: UInt8? = nil) -> Bool {
        guard let first = part.utf8.first, part.utf8.count <= 80 else { return false }
        guard Ascii.isLetterOrDigit(first) || first == UInt8(ascii: "_") else { return false }
        return part.utf8.allSatisfy { Ascii.isLetterOrDigit($0) || "_-.".utf8.contains($0) || $0 == alsoAllowed }
    }
}

extension String {
    var trimmed: Substring {
        let isSpace: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0 == "\n" || $0 == "\r" }
        guard let first = firstIndex(where: { !isSpace($0) }), let last = lastIndex(where: { !isSpace($0) }) else {
            return ""
        }
        return self[first...last]
    }
}
