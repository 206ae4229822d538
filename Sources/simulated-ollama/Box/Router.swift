/// What a box offers.
enum Endpoint: Hashable, Sendable {
    case root, version, status, tags, ps, show
    case generate, chat, embed, embeddings
    case pull, push, create, copy, delete
    case blob(digest: String)
    case account
    case chatCompletions, completions, openAIEmbeddings, responses, messages
    case models
    case model(String)

    /// Whether it asks a model for something: the endpoints that wait, and that faults strike unless told otherwise.
    var isInference: Bool {
        switch self {
        case .generate, .chat, .embed, .embeddings, .chatCompletions, .completions, .openAIEmbeddings, .responses,
            .messages:
            true
        default: false
        }
    }

    var dialect: Dialect {
        switch self {
        case .messages: .anthropic
        case .chatCompletions, .completions, .openAIEmbeddings, .responses, .models, .model: .openAI
        default: .native
        }
    }
}

/// Finds the endpoint of a request, and what Ollama says if there is none.
enum Router {
    enum Match {
        /// `pattern` is the path as the route has it, for counting: `/api/blobs/:digest`.
        case endpoint(Endpoint, pattern: String)
        /// The path exists, but not for this method.
        case wrongMethod(allowed: String)
        /// A slash too many or too few.
        case redirect(path: String)
        case unknown
    }

    static func match(_ method: String, _ path: String) -> Match {
        let routes = routes(at: path)
        if let route = routes.first(where: { $0.method == method }) {
            return .endpoint(route.endpoint, pattern: route.pattern)
        }
        let other = path.hasSuffix("/") ? String(path.dropLast()) : path + "/"
        if path != "/", Router.routes(at: other).contains(where: { $0.method == method }) {
            return .redirect(path: other)
        }
        if routes.isEmpty { return .unknown }
        return .wrongMethod(allowed: routes.map(\.method).joined(separator: ", "))
    }

    private typealias Route = (method: String, endpoint: Endpoint, pattern: String)

    private static func routes(at path: String) -> [Route] {
        if let fixed = table[path] { return fixed }
        if let digest = parameter(of: path, after: "/api/blobs/") {
            return ["HEAD", "POST"].map { ($0, .blob(digest: digest), "/api/blobs/:digest") }
        }
        if let model = parameter(of: path, after: "/v1/models/") {
            return [("GET", .model(model), "/v1/models/:model")]
        }
        if parameter(of: path, after: "/api/user/keys/") != nil {
            return [("DELETE", .account, "/api/user/keys/:encodedKey")]
        }
        return []
    }

    private static func parameter(of path: String, after prefix: String) -> String? {
        guard path.hasPrefix(prefix) else { return nil }
        let rest = path.dropFirst(prefix.count)
        return rest.isEmpty || rest.contains("/") ? nil : String(rest)
    }

    private static let table: [String: [Route]] = {
        let routes: [(String, [String], Endpoint)] = [
            ("/", ["HEAD", "GET"], .root),
            ("/api/version", ["HEAD", "GET"], .version),
            ("/api/status", ["GET"], .status),
            ("/api/tags", ["HEAD", "GET"], .tags),
            ("/api/ps", ["GET"], .ps),
            ("/api/show", ["POST"], .show),
            ("/api/generate", ["POST"], .generate),
            ("/api/chat", ["POST"], .chat),
            ("/api/embed", ["POST"], .embed),
            ("/api/embeddings", ["POST"], .embeddings),
            ("/api/pull", ["POST"], .pull),
            ("/api/push", ["POST"], .push),
            ("/api/create", ["POST"], .create),
            ("/api/copy", ["POST"], .copy),
            ("/api/delete", ["DELETE"], .delete),
            ("/api/me", ["POST"], .account),
            ("/api/signout", ["POST"], .account),
            ("/api/experimental/web_search", ["POST"], .account),
            ("/api/experimental/web_fetch", ["POST"], .account),
            ("/v1/chat/completions", ["POST"], .chatCompletions),
            ("/v1/completions", ["POST"], .completions),
            ("/v1/embeddings", ["POST"], .openAIEmbeddings),
            ("/v1/models", ["GET"], .models),
            ("/v1/responses", ["POST"], .responses),
            ("/v1/messages", ["POST"], .messages),
        ]
        var table: [String: [Route]] = [:]
        for (path, methods, endpoint) in routes { table[path] = methods.map { ($0, endpoint, path) } }
        return table
    }()

    /// Undoes percent-encoding; what is not properly encoded stays as it is.
    static func decoded(_ path: String) -> String {
        guard path.utf8.contains(UInt8(ascii: "%")) else { return path }
        var bytes: [UInt8] = []
        var rest = Array(path.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
