import CMicroHTTPD
import EventLoop
import Glibc
import HTTPCore

/// What the header of a request comes to, and whether it keeps to the rules that libmicrohttpd does not enforce.
///
/// A gateway must be strict about lengths: two readings of where a body ends let one request hide in another.
/// Source: RFC 9112 sections 3, 5.1, 6.1 and 6.3.
struct HeaderFacts {
    let method: String
    private(set) var target: String
    private(set) var contentLength: Int?
    private(set) var isChunked = false
    private(set) var problem: RequestProblem?
    /// HTTP/1.1 or newer: the client understands chunked answers.
    let speaksChunked: Bool
    private var hosts = 0

    var hasBody: Bool { isChunked || (contentLength ?? 0) > 0 }

    /// The words of a request line, as libmicrohttpd has put an end to each where it stands.
    struct RequestLine {
        let method: UnsafePointer<CChar>
        let target: UnsafeRawBufferPointer
        let targetText: String
        let version: UnsafePointer<CChar>

        /// Whether the words follow each other with one byte between: no second space, no NUL within a word.
        var isTight: Bool {
            UnsafeRawPointer(method + strlen(method) + 1) == target.baseAddress
                && target.baseAddress.map { $0 + target.count + 1 } == UnsafeRawPointer(version)
        }

        /// Whether the header ends in CR LF CR LF (four NULs by now). libmicrohttpd takes a line that begins with a
        /// colon for the end, and what follows for the next request.
        func endsHeaderProperly(of handle: OpaquePointer) -> Bool {
            let size = gw_mhd_header_size(handle)
            return size > 4 && (1...4).allSatisfy { method[size - $0] == 0 }
        }
    }

    init(of handle: OpaquePointer, _ line: RequestLine) {
        method = String(cString: line.method)
        target = line.targetText
        speaksChunked = strcmp(line.version, "HTTP/1.0") != 0
        if !Headers.isName(UnsafeRawBufferPointer(start: line.method, count: strlen(line.method))) {
            problem = .malformed("the method is not a token")
        } else if !line.isTight {
            problem = .malformed("the request line is not three words with a space between them")
        } else if !line.endsHeaderProperly(of: handle) {
            problem = .malformed("a header line has no name, or the header does not end in an empty line")
        } else {
            checkTarget()
        }
        withUnsafeMutablePointer(to: &self) { facts in
            _ = MHD_get_connection_values_n(
                handle, MHD_ValueKind.HEADER_KIND,
                { context, _, name, nameLength, value, valueLength in
                    let facts = context.unsafelyUnwrapped.assumingMemoryBound(to: HeaderFacts.self)
                    facts.pointee.check(
                        UnsafeRawBufferPointer(start: name, count: nameLength),
                        UnsafeRawBufferPointer(start: value, count: value == nil ? 0 : valueLength))
                    return .YES
                }, facts)
        }
        checkWhole()
    }

    private mutating func checkTarget() {
        if let byte = target.unicodeScalars.first(where: { $0.value <= 0x20 || $0.value == 0x7f }) {
            problem = .malformed("the request target contains byte \(byte.value)")
        } else if target.hasPrefix("/") || (target == "*" && method == "OPTIONS") {
            return
        } else if let scheme = ["http://", "https://"].first(where: { target.lowercased().hasPrefix($0) }) {
            // Absolute form: what stands before the path is a matter between client and proxy.
            let rest = target.dropFirst(scheme.count).drop { $0 != "/" && $0 != "?" }
            target = rest.hasPrefix("/") ? String(rest) : "/" + rest
        } else {
            problem = .malformed("the request target must begin with '/'")
        }
    }

    private mutating func check(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        guard problem == nil else { return }
        if !Headers.isName(name) {
            problem = .malformed("a header name is not a token")
        } else if !HeaderFacts.areOneLine(name, value) {
            problem = .malformed("a header line is folded, contains NUL, or does not end in CR LF")
        } else if !Headers.isValue(value) {
            problem = .malformed("a header value contains a control character")
        } else if HeaderFacts.matches(name, "content-length") {
            checkLength(String(latin1: value))
        } else if HeaderFacts.matches(name, "transfer-encoding") {
            checkTransferCoding(String(latin1: value))
        } else if HeaderFacts.matches(name, "host") {
            hosts += 1
        }
    }

    private mutating func checkLength(_ text: String) {
        guard let length = Headers.length(text) else {
            problem = .malformed("Content-Length is not a number: '\(text.prefix(40))'")
            return
        }
        if let contentLength, contentLength != length {
            problem = .malformed("two Content-Length headers disagree: \(contentLength) and \(length)")
        }
        contentLength = length
    }

    private mutating func checkTransferCoding(_ text: String) {
        if isChunked {
            problem = .malformed("more than one Transfer-Encoding header")
        } else if text.lowercased() != "chunked" {
            problem = .unsupportedTransferCoding(String(text.prefix(40)))
        }
        isChunked = true
    }

    private mutating func checkWhole() {
        guard problem == nil else { return }
        if isChunked && contentLength != nil {
            problem = .malformed("both Transfer-Encoding and Content-Length")
        } else if isChunked && !speaksChunked {
            problem = .malformed("Transfer-Encoding in an HTTP/1.0 request")
        } else if hosts > 1 {
            problem = .malformed("more than one Host header")
        } else if hosts == 0 && speaksChunked {
            problem = .malformed("no Host header")
        }
    }

    /// Whether name and value are what stood on one line. libmicrohttpd puts NULs in the place of the colon, CR and
    /// LF, and joins folded lines elsewhere in its memory, not always rightly.
    private static func areOneLine(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool {
        guard let colon = name.baseAddress.map({ $0 + name.count }), let start = value.baseAddress else { return false }
        let gap = start - colon
        guard gap >= 1, gap <= 16 * 1024 * 1024 else { return false }
        let blanks = UnsafeRawBufferPointer(start: colon + 1, count: gap - 1)
        let end = UnsafeRawBufferPointer(start: start + value.count, count: 2)
        return blanks.allSatisfy { $0 == 0x20 || $0 == 0x09 } && end.allSatisfy { $0 == 0 }
    }

    private static func matches(_ name: UnsafeRawBufferPointer, _ lowercased: StaticString) -> Bool {
        name.count == lowercased.utf8CodeUnitCount
            && strncasecmp(name.baseAddress.unsafelyUnwrapped, lowercased.utf8Start, name.count) == 0
    }
}

extension Headers {
    /// The first value under a name in a request; `handle` is libmicrohttpd's connection.
    static func value(_ name: StaticString, in handle: OpaquePointer) -> String? {
        let name = UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
        guard let value = MHD_lookup_connection_value(handle, .HEADER_KIND, name) else { return nil }
        return String(latin1: UnsafeRawBufferPointer(start: value, count: strlen(value)).withoutBlanks)
    }

    /// Reads the header fields of a request; `handle` is libmicrohttpd's connection.
    init(of handle: OpaquePointer) {
        self.init()
        reserve(16)
        withUnsafeMutablePointer(to: &self) { headers in
            _ = MHD_get_connection_values_n(
                handle, MHD_ValueKind.HEADER_KIND,
                { context, _, name, nameLength, value, valueLength in
                    context.unsafelyUnwrapped.assumingMemoryBound(to: Headers.self).pointee.append(
                        String(latin1: UnsafeRawBufferPointer(start: name, count: nameLength)),
                        // libmicrohttpd leaves the blanks behind a value.
                        String(
                            latin1: UnsafeRawBufferPointer(start: value, count: value == nil ? 0 : valueLength)
                                .withoutBlanks))
                    return .YES
                }, headers)
        }
    }
}
