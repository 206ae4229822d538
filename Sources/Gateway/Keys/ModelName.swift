/// A model's name as Ollama compares it: `[host/][namespace/]model[:tag]` with the defaults filled in, in lower case
/// and without `:local`.
///
///     ModelName(" LLaMA3.2 ") == ModelName("registry.ollama.ai/library/llama3.2:latest")
///
/// A name that Ollama would refuse is kept as it is, or a hash of it if it is very long, and equals no valid one.
/// Source: Ollama's `types/model/name.go` and `internal/modelref/modelref.go`.
struct ModelName: Hashable, Sendable, CustomStringConvertible {
    /// The name as Ollama lists it: without the default host and namespace, always with the tag; "" if there is none.
    let description: String
    /// Whether ollama.com runs it (`:cloud`, or a tag that ends in `-cloud`), whatever box is asked.
    let isCloud: Bool

    /// Bytes: no valid name is longer.
    private static let longest = 700

    init(_ written: String) {
        guard written.utf8.count <= ModelName.longest else {
            // Comparing texts of megabytes would hold everybody up.
            (description, isCloud) = ("invalid-" + String(ConversationHash.of(written), radix: 16), false)
            return
        }
        var name = ModelName.lowered(written)
        guard !name.isEmpty else {
            (description, isCloud) = ("", false)
            return
        }
        var source = ModelName.source(of: name)
        if source.elementsEqual("local".utf8), let colon = name.lastIndex(of: ModelName.colon) {
            name.removeSubrange(colon...)
            source = ModelName.source(of: name)
        }
        isCloud =
            source.elementsEqual("cloud".utf8)
            || source.suffix(6).elementsEqual("-cloud".utf8) && !source.contains(ModelName.slash)
        description = ModelName.complete(name)
    }

    /// Whether Ollama takes this for a name. Source: `types/model/name.go`, `isValidPart`.
    var isValid: Bool {
        let parts = description.utf8.split(separator: ModelName.slash, omittingEmptySubsequences: false)
        guard (1...3).contains(parts.count), let last = parts.last, let colon = last.lastIndex(of: ModelName.colon)
        else { return false }
        func isPart(_ part: some Collection<UInt8>, atMost length: Int = 80, besides others: String = "-.") -> Bool {
            guard let first = part.first, part.count <= length, ModelName.isWordByte(first) else { return false }
            return part.allSatisfy { ModelName.isWordByte($0) || others.utf8.contains($0) }
        }
        guard isPart(last[..<colon]), isPart(last[last.index(after: colon)...]) else { return false }
        if parts.count >= 2, !isPart(parts[parts.count - 2], besides: "-") { return false }
        return parts.count < 3 || isPart(parts[0], atMost: 350, besides: "-.:")
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x5f: true
        default: false
        }
    }

    private static let slash = UInt8(ascii: "/")
    private static let colon = UInt8(ascii: ":")

    /// What stands behind the last colon, where Ollama looks for the place that a model runs at.
    private static func source(of name: [UInt8]) -> [UInt8] {
        guard let colon = name.lastIndex(of: colon), colon + 1 < name.count else { return [] }
        return lowered(String(decoding: name[(colon + 1)...], as: UTF8.self))
    }

    /// Takes default parts away and puts a missing tag in.
    private static func complete(_ name: [UInt8]) -> String {
        var path = name[...]
        // A scheme before the host is of no account.
        if let colon = path.firstIndex(of: colon), path[(colon + 1)...].starts(with: [slash, slash]) {
            path = path[(colon + 3)...]
        }
        var slashes = 0
        var partStart = path.startIndex
        for place in path.indices where path[place] == slash {
            guard place > partStart else { return String(decoding: name, as: UTF8.self) }
            slashes += 1
            partStart = place + 1
        }
        let tag = path[partStart...].lastIndex(of: colon)
        guard (tag ?? path.endIndex) > partStart, tag != path.endIndex - 1 else {
            return String(decoding: name, as: UTF8.self)
        }
        if slashes == 2, path.starts(with: "registry.ollama.ai/".utf8) {
            path = path.dropFirst(19)
            slashes = 1
        }
        if slashes == 1, path.starts(with: "library/".utf8) { path = path.dropFirst(8) }
        let text = String(decoding: path, as: UTF8.self)
        return tag == nil ? text + ":latest" : text
    }

    /// The text without white space around it (as Unicode has it: `strings.TrimSpace`), and in lower case as far as
    /// ASCII goes: valid names consist of nothing else.
    private static func lowered(_ text: String) -> [UInt8] {
        var rest = text.unicodeScalars[...]
        while let first = rest.first, first.isSpace { rest.removeFirst() }
        while let last = rest.last, last.isSpace { rest.removeLast() }
        return Substring(rest).utf8.map { (0x41...0x5a).contains($0) ? $0 | 0x20 : $0 }
    }
}

extension Unicode.Scalar {
    /// White space; for what is in nearly every name the answer is known without Unicode's tables.
    fileprivate var isSpace: Bool { !(0x21...0x7e).contains(value) && properties.isWhitespace }
}
