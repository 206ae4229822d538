import ArgumentParser
import Gateway
import Glibc
import Logging

/// Readers of option values. Each says what is allowed when it refuses; the name of the option and the value are
/// put in front of it.
enum Parse {
    static func integer(_ bounds: ClosedRange<Int>) -> @Sendable (String) throws -> Int {
        { text in
            guard let number = Int(text), bounds.contains(number) else {
                throw ValidationError("allowed is a whole number from \(bounds.lowerBound) to \(bounds.upperBound).")
            }
            return number
        }
    }

    static func duration(_ bounds: ClosedRange<Duration>) -> @Sendable (String) throws -> Span {
        { text in
            guard let span = Span(text), bounds.contains(span.duration) else {
                throw ValidationError(
                    "allowed is a duration from \(Span(bounds.lowerBound)) to \(Span(bounds.upperBound)): a number with ms, s, m, h or d, such as 90s."
                )
            }
            return span
        }
    }

    static func size(_ bounds: ClosedRange<Int>) -> @Sendable (String) throws -> Size {
        { text in
            guard let size = Size(text), bounds.contains(size.bytes) else {
                throw ValidationError(
                    "allowed is a size from \(Size(bounds.lowerBound)) to \(Size(bounds.upperBound)): a number of bytes, or with KiB, MiB or GiB."
                )
            }
            return size
        }
    }

    @Sendable static func listenHost(_ text: String) throws -> String {
        if text == "unix:" {
            throw ValidationError("unix: is followed by the path of the socket, as in unix:/run/gateway.sock.")
        }
        let host = text.hasPrefix("[") && text.hasSuffix("]") ? String(text.dropFirst().dropLast()) : text
        let isPlain = host.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x2f }
        guard host.hasPrefix("unix:") || (!host.isEmpty && isPlain) else {
            throw ValidationError("allowed is a host name, an IPv4 or IPv6 address, or unix:/path.")
        }
        // One colon and digits: a port in the wrong place.
        if !host.hasPrefix("unix:"), host.split(separator: ":", omittingEmptySubsequences: false).count == 2 {
            throw ValidationError("allowed is a host without a port; the port is given by --port.")
        }
        return host
    }

    @Sendable static func collector(_ text: String) throws -> String {
        guard text.hasPrefix("http://") || text.hasPrefix("https://"), !text.contains(";") else {
            throw ValidationError("allowed is http://host:port or https://host/prefix, as in http://localhost:4318.")
        }
        guard !text.hasSuffix("/v1/traces"), !text.hasSuffix("/v1/traces/") else {
            throw ValidationError("/v1/traces is put behind it: leave that out.")
        }
        do { return try Backend(text).origin } catch { throw ValidationError("\(error).") }
    }

    @Sendable static func backends(_ text: String) throws -> BackendList {
        do { return try BackendList(text) } catch { throw ValidationError("\(error).") }
    }

    /// A file with at least one PEM certificate in it.
    @Sendable static func certificates(_ path: String) throws -> String {
        guard access(path, R_OK) == 0 else {
            throw ValidationError("the file cannot be read: \(String(cString: strerror(errno)).lowercased()).")
        }
        guard contains(path, "-----BEGIN CERTIFICATE-----") else {
            throw ValidationError("allowed is a PEM file, with a line -----BEGIN CERTIFICATE----- in it.")
        }
        return path
    }

    private static func contains(_ path: String, _ text: String) -> Bool {
        guard let file = fopen(path, "r") else { return false }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 1024)
        while fgets(&line, Int32(line.count), file) != nil {
            if strstr(line, text) != nil { return true }
        }
        return false
    }

    /// One of a few words.
    static func choice<Choice: RawRepresentable<String> & CaseIterable & SendableMetatype>(
        of type: Choice.Type
    ) -> @Sendable (String) throws -> Choice {
        let words = type.allCases.map(\.rawValue)
        return { text in
            guard let choice = Choice(rawValue: text.lowercased()) else {
                throw ValidationError(
                    "allowed are \(words.dropLast().joined(separator: ", ")) and \(words.last ?? "").")
            }
            return choice
        }
    }

    @Sendable static func logLevel(_ text: String) throws -> Logger.Level {
        let name = text.lowercased() == "warn" ? "warning" : text.lowercased()
        guard let level = Logger.Level(rawValue: name) else {
            throw ValidationError("allowed are \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")).")
        }
        return level
    }
}

/// Which answers the cache keeps.
enum CacheOnly: String, CaseIterable, Sendable, CustomStringConvertible {
    case all, deterministic

    var description: String { rawValue }
}

/// A list of backends as it stands on the command line.
struct BackendList: Sendable, CustomStringConvertible {
    let list: [Backend]

    init(_ list: [Backend]) { self.list = list }

    init(_ text: String) throws(Backend.Invalid) {
        var list: [Backend] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            var name = part.drop { $0 == " " }
            while name.hasSuffix(" ") { name = name.dropLast() }
            guard !name.isEmpty else {
                throw Backend.Invalid(
                    description: "a backend's name is missing; allowed is a list like box1:11434,box2:11434")
            }
            let backend = try Backend(String(name))
            guard !list.contains(where: { $0.name == backend.name }) else {
                throw Backend.Invalid(description: "'\(name)' is listed twice")
            }
            list.append(backend)
        }
        self.list = list
    }

    var description: String { list.map(\.description).joined(separator: ",") }
}

/// A duration as people write it.
struct Span: Sendable, CustomStringConvertible {
    let duration: Duration

    private static let units: [(name: String, milliseconds: Double)] = [
        ("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000),
    ]

    init(_ duration: Duration) { self.duration = duration }

    /// `500ms`, `5s`, `1.5m`, `2h`, `1d`, or a number of seconds; nil for anything else.
    init?(_ text: String) {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = digits.count == text.count ? "s" : String(text[digits.endIndex...])
        guard let number = Double(digits), let scale = Span.units.first(where: { $0.name == unit })?.milliseconds,
            number * scale < 1e15
        else { return nil }
        duration = .milliseconds(Int64((number * scale).rounded()))
    }

    var description: String {
        let milliseconds = duration.components.seconds * 1000 + duration.components.attoseconds / 1_000_000_000_000_000
        let unit = Span.units.last { milliseconds > 0 && milliseconds % Int64($0.milliseconds) == 0 } ?? Span.units[1]
        return "\(milliseconds / Int64(unit.milliseconds))\(unit.name)"
    }
}

/// An amount of memory as people write it.
struct Size: Sendable, CustomStringConvertible {
    let bytes: Int

    private static let units: [(names: [String], shift: Int)] = [
        (["b", ""], 0), (["kib", "k", "kb"], 10), (["mib", "m", "mb"], 20), (["gib", "g", "gb"], 30),
        (["tib", "t", "tb"], 40),
    ]

    init(_ bytes: Int) { self.bytes = bytes }

    /// `1000`, `64KiB`, `64M`, `2GiB`: units are powers of 1024; nil for anything else.
    init?(_ text: String) {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let unit = text[digits.endIndex...].lowercased()
        guard let number = Int(digits), let shift = Size.units.first(where: { $0.names.contains(unit) })?.shift,
            number <= Int.max >> shift
        else { return nil }
        bytes = number << shift
    }

    var description: String {
        let names = ["", "KiB", "MiB", "GiB", "TiB"]
        let power = (1...4).last { bytes > 0 && bytes % (1 << (10 * $0)) == 0 } ?? 0
        return "\(bytes >> (10 * power))\(names[power])"
    }
}
