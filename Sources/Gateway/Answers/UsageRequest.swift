import HTTPCore

/// Requests of `/v1` streams, made to ask for what a cache needs to know: without the numbers of tokens no whole
/// answer can be made of a stream.
enum UsageRequest {
    private typealias Replacement = (range: Range<Int>, text: String)
    private static let options = #"{"include_usage":true}"#

    /// The body with `stream_options.include_usage` true and all else as it is; nil if it is not a JSON object.
    ///
    /// Options that are no object stay too: Ollama knows best how to complain.
    static func asking(_ body: UnsafeRawBufferPointer) -> Bytes? {
        try? JSONDocument.read(body) { root in
            guard root.kind == .object else { throw NotAnAnswer() }
            var output = ByteBuffer()
            output.reserve(body.count + 64)
            var copied = 0
            for (range, text) in replacements(in: root) {
                output.append(body.part(copied..<range.lowerBound))
                output.append(text)
                copied = range.upperBound
            }
            output.append(body.part(copied..<body.count))
            return output.finish()
        }
    }

    /// In the order of their places.
    private static func replacements(in root: JSONNode) -> [Replacement] {
        var found: [Replacement] = []
        var isThere = false
        // All of them, should there be several: Go takes the last.
        for (name, value) in root.members where name.equals("stream_options") {
            isThere = true
            switch value.kind {
            case .null: found.append((value.range, options))
            case .object: found += replacements(inOptions: value)
            default: break
            }
        }
        if isThere { return found }
        let end = root.range.upperBound - 1
        return [(end..<end, (root.isEmpty ? "" : ",") + #""stream_options":"# + options)]
    }

    private static func replacements(inOptions options: JSONNode) -> [Replacement] {
        let known = options.members.filter { $0.name.equals("include_usage") }
        guard known.isEmpty else { return known.map { ($0.value.range, "true") } }
        let start = options.range.lowerBound + 1
        return [(start..<start, #""include_usage":true"# + (options.isEmpty ? "" : ","))]
    }
}
