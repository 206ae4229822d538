import HTTPCore

/// What a client's `Cache-Control` asks of the cache. Source: RFC 9111 section 5.2.1.
///
/// `min-fresh`, `max-stale` and `no-transform` and what is unknown are not heeded.
struct CacheControl: Equatable {
    /// Ask the box, whatever is kept.
    var noCache = false
    /// Keep nothing of this request.
    var noStore = false
    /// Answer from what is kept or not at all.
    var onlyIfCached = false
    /// In seconds: older answers will not do.
    var maxAge: Int?

    static let none = CacheControl()

    init() {}

    init(_ headers: Headers) {
        let values = headers.values("cache-control")
        for value in values {
            for directive in value.split(separator: ",") { take(directive.trimmed.lowercased()) }
        }
        // What HTTP/1.0 had for it; `Cache-Control` overrides it.
        if values.isEmpty, headers.values("pragma").contains(where: { $0.lowercased().contains("no-cache") }) {
            noCache = true
        }
    }

    private mutating func take(_ directive: String) {
        switch directive {
        case "no-cache": noCache = true
        case "no-store": noStore = true
        case "only-if-cached": onlyIfCached = true
        default:
            guard directive.hasPrefix("max-age=") else { return }
            let seconds = directive.dropFirst(8).drop { $0 == "\"" }
            let digits = seconds.prefix { $0 != "\"" }
            // What is no number asks for the freshest, to be safe; one beyond all bounds for any.
            // Source: RFC 9111 sections 1.2.2 and 4.2.1.
            let isNumber = !digits.isEmpty && digits.utf8.allSatisfy { (0x30...0x39).contains($0) }
            maxAge = isNumber ? Int(digits) ?? .max : 0
        }
    }
}

extension StringProtocol {
    /// Without spaces and tabs at both ends.
    fileprivate var trimmed: SubSequence {
        let isBlank = { (character: Character) in character == " " || character == "\t" }
        let head = drop(while: isBlank)
        return head.lastIndex { !isBlank($0) }.map { head[...$0] } ?? head
    }
}
