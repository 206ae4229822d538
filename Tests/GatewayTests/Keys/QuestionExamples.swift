import HTTPCore

@testable import Gateway

extension Question {
    /// Reads a body given as text.
    static func read(_ text: String, _ endpoint: Endpoint = .chat, cachesTools: Bool = false) -> Question {
        read(Array(text.utf8), endpoint, cachesTools: cachesTools)
    }

    static func read(_ bytes: [UInt8], _ endpoint: Endpoint = .chat, cachesTools: Bool = false) -> Question {
        bytes.withUnsafeBytes { read($0, for: endpoint, cachesTools: cachesTools) }
    }

    var canonical: [UInt8]? {
        guard case .cacheable(let canonical) = content else { return nil }
        return Array(canonical.buffer)
    }

    var bypass: Bypass? {
        guard case .bypass(let reason) = content else { return nil }
        return reason
    }
}

extension Endpoint {
    static let cacheable = allCases.filter(\.isCacheable)

    /// The members that a request to this endpoint needs.
    var essentials: String {
        switch self {
        case .generate, .embeddings, .completions: #""model":"m","prompt":"hi""#
        case .embed, .openAIEmbeddings: #""model":"m","input":"hi""#
        default: #""model":"m","messages":[{"role":"user","content":"hi"}]"#
        }
    }

    /// A request with some members more.
    func with(_ members: String) -> String {
        members.isEmpty ? "{\(essentials)}" : "{\(essentials),\(members)}"
    }
}

/// Two spellings of members of a request to some endpoints.
struct Spellings: CustomStringConvertible, Sendable {
    let endpoints: [Endpoint]
    let a: String
    let b: String

    init(_ endpoints: [Endpoint], _ a: String, _ b: String) { (self.endpoints, self.a, self.b) = (endpoints, a, b) }
    init(_ endpoint: Endpoint, _ a: String, _ b: String) { self.init([endpoint], a, b) }

    var description: String { "\(endpoints.map(\.rawValue).joined(separator: ", ")): \(a) and \(b)" }
}
