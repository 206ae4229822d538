import HTTPCore

/// A model that a backend has in memory, as it says in `/api/ps`.
struct RunningModel: Sendable {
    /// As Ollama compares it.
    let name: String
    let digest: String
    /// Microseconds since 1970.
    let expires: Int64
    /// The list's entry, as the backend wrote it.
    let json: String
}

/// Reads what Ollama says of its models. Source: Ollama's `api/types.go`, `ListResponse` and `ProcessResponse`.
enum ModelLists {
    /// Models of one backend that count.
    private static let modelsAtMost = 10_000

    /// `GET /api/tags`. Nil for what is not JSON or has no list of models.
    static func tags(_ body: Bytes) -> [Listing]? {
        entries(of: body) { entry, name in
            Listing(
                name: ModelName(name).description, shown: name, digest: entry["digest"]?.string ?? "",
                modified: entry["modified_at"]?.string.flatMap(Timestamp.microseconds(of:)) ?? 0, json: text(of: entry),
                isRemote: (entry["remote_host"] ?? entry["remote_model"])?.isEmptyString == false)
        }
    }

    /// `GET /api/ps`.
    static func running(_ body: Bytes) -> [RunningModel]? {
        entries(of: body) { entry, name in
            RunningModel(
                name: ModelName(name).description, digest: entry["digest"]?.string ?? "",
                expires: entry["expires_at"]?.string.flatMap(Timestamp.microseconds(of:)) ?? 0,
                json: text(of: entry))
        }
    }

    /// `GET /api/version`.
    static func version(_ body: Bytes) -> String? {
        let version = try? JSONDocument.read(body.buffer) { $0["version"]?.string }
        return version.flatMap { $0 }.flatMap { isPlain($0) && $0.utf8.count <= 100 ? $0 : nil }
    }

    /// Whether it is what names and digests look like, and nothing that could speak to a terminal.
    private static func isPlain(_ text: String) -> Bool {
        (1...512).contains(text.utf8.count) && text.utf8.allSatisfy { (0x21...0x7e).contains($0) }
    }

    private static func entries<T>(of body: Bytes, _ read: (JSONNode, String) -> T) -> [T]? {
        let entries = try? JSONDocument.read(body.buffer) { root -> [T]? in
            guard let models = root["models"], models.kind == .array || models.kind == .null else { return nil }
            var result: [T] = []
            for entry in models.elements where result.count < modelsAtMost {
                let name = entry["name"]?.string ?? entry["model"]?.string ?? ""
                let digest = entry["digest"]?.string ?? ""
                if isPlain(name), digest.isEmpty || isPlain(digest) { result.append(read(entry, name)) }
            }
            return result
        }
        return entries.flatMap { $0 }
    }

    private static func text(of entry: JSONNode) -> String { String(decoding: entry.raw, as: UTF8.self) }
}
