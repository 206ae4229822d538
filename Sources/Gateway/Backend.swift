import HTTPCore

/// One Ollama box.
public struct Backend: Sendable, Equatable, CustomStringConvertible {
    /// Host and port (and prefix, if there is one): what people and logs call it.
    public let name: String
    /// `http://host:port`, without a slash at the end, perhaps with a path.
    public let origin: String
    /// Its share of the requests beside the others', 1 to 1000.
    public private(set) var weight = 1
    /// The lowest tier that can serve does, 1 to 100.
    public private(set) var tier = 1
    /// Requests to models that it runs at once; nil for what holds for all.
    public private(set) var concurrency: Int?

    public static let defaultPort = 11434

    /// An Ollama on this machine, where it listens unless told otherwise.
    public static let local = Backend(name: "localhost:\(defaultPort)", origin: "http://localhost:\(defaultPort)")

    private init(name: String, origin: String) {
        self.name = name
        self.origin = origin
    }

    /// Why a text is not a backend, in one sentence.
    public struct Invalid: Error, Sendable, CustomStringConvertible {
        public let description: String

        public init(description: String) { self.description = description }
    }

    /// Reads `host`, `host:port`, `http://host:port` or `https://host/prefix`; IPv6 addresses stand in brackets. Behind
    /// it may stand `;weight=`, `;tier=` and `;concurrency=`, each with a whole number.
    public init(_ text: String) throws(Invalid) {
        let parts = text.split(separator: ";", omittingEmptySubsequences: false)
        try self.init(address: String(parts[0]))
        var seen: Set<Substring> = []
        for part in parts.dropFirst() {
            let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard words.count == 2, let bounds = Backend.bounds[String(words[0])] else {
                throw Invalid(
                    description: "'\(text)' has '\(part)' in it; allowed are ;weight=N, ;tier=N and ;concurrency=N")
            }
            guard seen.insert(words[0]).inserted else {
                throw Invalid(description: "'\(text)' says '\(words[0])' twice")
            }
            guard words[1].utf8.allSatisfy(Backend.isDigit), let number = Int(words[1]), bounds.contains(number) else {
                throw Invalid(
                    description:
                        "'\(text)' has \(words[0]) '\(words[1])'; allowed is \(bounds.lowerBound) to \(bounds.upperBound)"
                )
            }
            switch words[0] {
            case "weight": weight = number
            case "tier": tier = number
            default: concurrency = number
            }
        }
    }

    /// Its name, and what was said of it.
    public var description: String {
        name + (weight != 1 ? ";weight=\(weight)" : "") + (tier != 1 ? ";tier=\(tier)" : "")
            + (concurrency.map { ";concurrency=\($0)" } ?? "")
    }

    private static let bounds = ["weight": 1...1000, "tier": 1...100, "concurrency": 1...100_000]

    private init(address text: String) throws(Invalid) {
        var rest = Substring(text)
        var scheme = "http"
        if let mark = text.firstRange(of: "://") {
            scheme = text[..<mark.lowerBound].lowercased()
            rest = text[mark.upperBound...]
            guard scheme == "http" || scheme == "https" else {
                throw Invalid(description: "'\(text)' has scheme '\(scheme)'; allowed are http and https")
            }
        }
        let authority = rest.prefix { $0 != "/" }
        var path = rest[authority.endIndex...]
        while path.hasSuffix("/") { path = path.dropLast() }
        guard !path.contains("//") else {
            throw Invalid(description: "'\(text)' has an empty part in its path; allowed is http://host:port/prefix")
        }
        guard !authority.contains("@") else {
            throw Invalid(description: "'\(text)' contains a user name; allowed is host, host:port or a URL of both")
        }
        guard !path.contains(where: { "?#".contains($0) }), text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw Invalid(
                description:
                    "'\(text)' contains a character that no address has; allowed is host, host:port, http://host:port or https://host/prefix"
            )
        }
        let (host, port) = try Backend.split(authority, of: text)
        let number = port ?? (text.contains("://") ? nil : Backend.defaultPort)
        name = host + (number.map { ":\($0)" } ?? "") + path
        origin = "\(scheme)://\(host)\(number.map { ":\($0)" } ?? "")\(path)"
    }

    private static func split(_ authority: Substring, of text: String) throws(Invalid) -> (String, Int?) {
        let host: Substring
        var port: Substring?
        if authority.hasPrefix("[") {
            guard let end = authority.firstIndex(of: "]") else {
                throw Invalid(description: "'\(text)' opens a bracket and does not close it")
            }
            host = authority[...end]
            let after = authority[authority.index(after: end)...]
            guard after.isEmpty || after.hasPrefix(":") else {
                throw Invalid(description: "'\(text)' has something other than a port behind the bracket")
            }
            if !after.isEmpty { port = after.dropFirst() }
        } else {
            let parts = authority.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count <= 2 else {
                throw Invalid(description: "'\(text)' has more than one colon; an IPv6 address stands in brackets")
            }
            host = parts[0]
            port = parts.count == 2 ? parts[1] : nil
        }
        guard !host.isEmpty, host != "[]" else { throw Invalid(description: "'\(text)' has no host") }
        if host.hasPrefix("[") {
            guard isIPv6(host.dropFirst().dropLast()) else {
                throw Invalid(description: "'\(text)' has something other than an IPv6 address in brackets")
            }
        } else if !host.utf8.allSatisfy(isHostByte) {
            throw Invalid(description: "'\(text)' has a host with a character that no host name has")
        }
        guard let port else { return (String(host), nil) }
        guard port.utf8.allSatisfy(isDigit), let number = Int(port), (1...65535).contains(number) else {
            throw Invalid(description: "'\(text)' has port '\(port)'; allowed is 1 to 65535")
        }
        return (String(host), number)
    }

    /// Whether it looks like one, perhaps with a zone; the resolver decides.
    private static func isIPv6(_ text: Substring) -> Bool {
        let address = text.prefix { $0 != "%" }
        return address.contains(":") && address.utf8.allSatisfy { ":.0123456789abcdefABCDEF".utf8.contains($0) }
            && text[address.endIndex...].utf8.allSatisfy { isHostByte($0) || $0 == UInt8(ascii: "%") }
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

    private static func isHostByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f: true
        default: false
        }
    }
}
