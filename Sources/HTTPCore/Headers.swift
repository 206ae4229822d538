/// Header fields in the order they came, names as they were written and compared without regard to case.
///
/// Values are ISO-8859-1 as RFC 9110 section 5.5 has it: each byte is one scalar, so that bytes beyond ASCII pass
/// through unchanged, whatever their sender meant by them.
public struct Headers: Sendable {
    public typealias Field = (name: String, value: String)

    public private(set) var fields: [Field] = []

    public init() {}

    public init(_ fields: [Field]) { self.fields = fields }

    public var count: Int { fields.count }

    /// The first value under this name.
    public subscript(name: String) -> String? {
        let length = name.utf8.count
        for field in fields where field.name.utf8.count == length && Headers.same(field.name, name) {
            return field.value
        }
        return nil
    }

    /// All values under this name, in order.
    public func values(_ name: String) -> [String] {
        fields.compactMap { Headers.same($0.name, name) ? $0.value : nil }
    }

    public mutating func append(_ name: String, _ value: String) {
        fields.append((name, value))
    }

    /// Appends all fields of another header, in order.
    public mutating func append(_ other: Headers) { fields += other.fields }

    /// Puts one value in the place of all there were.
    public mutating func set(_ name: String, _ value: String) {
        remove(name)
        append(name, value)
    }

    public mutating func remove(_ name: String) {
        fields.removeAll { Headers.same($0.name, name) }
    }

    public mutating func reserve(_ capacity: Int) { fields.reserveCapacity(capacity) }

    /// What a `Content-Length` says: digits and nothing else; nil for anything that is no length.
    public static func length(_ text: String) -> Int? {
        text.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 } ? Int(text) : nil
    }

    /// Whether bytes are a token, as names of headers and methods are. Source: RFC 9110 section 5.6.2.
    public static func isName(_ bytes: UnsafeRawBufferPointer) -> Bool {
        !bytes.isEmpty
            && bytes.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
                case 0x21, 0x23...0x27, 0x2a, 0x2b, 0x2d, 0x2e, 0x5e, 0x5f, 0x60, 0x7c, 0x7e: true
                default: false
                }
            }
    }

    /// Whether bytes can be a header's value: no control characters but the tab. Source: RFC 9110 section 5.5.
    public static func isValue(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.allSatisfy { ($0 >= 0x20 && $0 != 0x7f) || $0 == 0x09 }
    }

    /// Whether two names are the same header: equal but for the case of ASCII letters.
    public static func same(_ a: String, _ b: String) -> Bool {
        // Both are native strings with their bytes in one piece; this runs dozens of times a request.
        guard a.utf8.count == b.utf8.count else { return false }
        return a.utf8.withContiguousStorageIfAvailable { a in
            b.utf8.withContiguousStorageIfAvailable { b in same(a, b) }
        }.flatMap { $0 } ?? (a.lowercased() == b.lowercased())
    }

    private static func same(_ a: UnsafeBufferPointer<UInt8>, _ b: UnsafeBufferPointer<UInt8>) -> Bool {
        for index in a.indices where a[index] != b[index] {
            let letter = a[index] | 0x20
            guard a[index] ^ b[index] == 0x20, letter >= 0x61, letter <= 0x7a else { return false }
        }
        return true
    }
}

extension Headers: ExpressibleByDictionaryLiteral {
    public init(dictionaryLiteral elements: (String, String)...) {
        fields = elements.map { (name: $0.0, value: $0.1) }
    }
}

extension UnsafeRawBufferPointer {
    /// Without spaces and tabs at both ends, which are no part of a header's value. Source: RFC 9112 section 5.1.
    public var withoutBlanks: UnsafeRawBufferPointer {
        let isBlank = { (byte: UInt8) in byte == 0x20 || byte == 0x09 }
        let head = drop(while: isBlank)
        let end = head.lastIndex { !isBlank($0) }.map { $0 + 1 } ?? head.startIndex
        return UnsafeRawBufferPointer(rebasing: head[..<end])
    }
}

extension String {
    /// Reads bytes as ISO-8859-1.
    public init(latin1 bytes: UnsafeRawBufferPointer) {
        if isASCII(bytes) {
            self = String(decoding: bytes, as: UTF8.self)
        } else {
            self.init(String.UnicodeScalarView(bytes.map { Unicode.Scalar($0) }))
        }
    }

    /// Lends the text as a C string in ISO-8859-1; scalars beyond U+00FF become `?`.
    public func withLatin1CString<T>(_ body: (UnsafePointer<CChar>) throws -> T) rethrows -> T {
        if isPlain { return try withCString(body) }
        let bytes = unicodeScalars.map { CChar(bitPattern: UInt8(exactly: $0.value) ?? 0x3f) } + [0]
        return try bytes.withUnsafeBufferPointer { try body($0.baseAddress.unsafelyUnwrapped) }
    }

    /// ASCII and nothing else.
    var isPlain: Bool {
        utf8.withContiguousStorageIfAvailable { isASCII(UnsafeRawBufferPointer($0)) } ?? utf8.allSatisfy { $0 < 0x80 }
    }
}

/// Eight bytes a step: it is asked of every header value.
private func isASCII(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var seen: UInt64 = 0
    var index = 0
    while index + 8 <= bytes.count {
        seen |= bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
        index += 8
    }
    while index < bytes.count {
        seen |= UInt64(bytes[index])
        index += 1
    }
    return seen & 0x8080_8080_8080_8080 == 0
}
