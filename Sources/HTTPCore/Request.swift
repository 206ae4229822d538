import EventLoop

/// A request as it came in: the header at once, the body as the handler's ``Intake`` asked for it.
@Loop
public final class Request {
    /// As written, case and all: `GET`, `POST`, …
    public let method: String
    /// As written, never decoded: `/api/chat?x=1`; always with a leading `/`, or `*`.
    public let target: String
    public let peer: PeerAddress
    /// What the client's `Content-Length` said; nil without one.
    public let contentLength: Int?
    /// What the body turned out to be, once the handler is asked for an answer.
    public package(set) var body: RequestBody = .none

    /// What the handler likes to remember from ``RequestHandler/answer(_:)`` to ``RequestHandler/handle(_:_:)``.
    public var context: AnyObject?

    /// The header fields, read from the server the first time someone asks for all.
    public private(set) lazy var headers: Headers = {
        headersAreRead = true
        return source?.headers() ?? [:]
    }()

    private var headersAreRead = false
    /// Where the header is read from; the server takes it away when the request is over.
    private var source: (any HeaderSource)?

    package init(
        method: String, target: String, peer: PeerAddress, contentLength: Int?, source: any HeaderSource
    ) {
        self.method = method
        self.target = target
        self.peer = peer
        self.contentLength = contentLength
        self.source = source
    }

    /// The first value under this name, without reading the others where that can be helped.
    /// - Parameter name: in lower case.
    public func header(_ name: StaticString) -> String? {
        headersAreRead ? headers[name.description] : source?.header(name)
    }

    /// The target up to its query, with percent-encoding undone: as Ollama, and many a server, reads it to find out
    /// what is wanted.
    public private(set) lazy var path: String = {
        let path = target.withoutQuery
        return path.utf8.contains(UInt8(ascii: "%")) ? path.percentDecoded(isQuery: false) ?? path : path
    }()

    /// Whether it asks for something and changes nothing.
    public var isReading: Bool { method == "GET" || method == "HEAD" }

    /// Fetches the header now, before the place it is read from goes away.
    package func retainHeaders() { _ = headers }

    /// The place it is read from goes away.
    package func detach() { source = nil }
}

/// Where a request's header fields are read from.
@Loop
package protocol HeaderSource: AnyObject {
    func headers() -> Headers
    /// The first value under this name.
    func header(_ name: StaticString) -> String?
}

public enum RequestBody: Sendable {
    case none
    /// All of it.
    case bytes(Bytes)
    /// To be taken while it comes; `length` is known if the client declared it.
    case stream(ByteStream, length: Int?)
}

/// What a handler wants to happen with a request whose header has come.
public enum Intake {
    /// Wait for the whole body; more than `limit` bytes is refused as ``RequestProblem/bodyTooLarge(limit:)``.
    case collect(limit: Int)
    /// Hand the body over while it comes, of any length.
    case stream
}

/// Where a request came from.
public enum PeerAddress: Hashable, Sendable, CustomStringConvertible {
    /// In network order, the first byte highest.
    case ipv4(UInt32)
    case ipv6(UInt64, UInt64)
    /// Over a Unix socket.
    case local

    /// Whether it is this machine.
    public var isLoopback: Bool {
        switch self {
        case .ipv4(let address): address >> 24 == 127
        case .ipv6(let high, let low): high == 0 && low == 1
        case .local: true
        }
    }

    public var description: String {
        switch self {
        case .ipv4(let address):
            return PeerAddress.text(ipv4: address)
        case .ipv6(let high, let low):
            return PeerAddress.text(
                ipv6: (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> (48 - UInt64($0 % 4) * 16)) })
        case .local:
            return "unix"
        }
    }

    /// Written digit by digit: it is asked for with every request.
    private static func text(ipv4 address: UInt32) -> String {
        String(unsafeUninitializedCapacity: 15) { bytes in
            var count = 0
            for shift: UInt32 in [24, 16, 8, 0] {
                let number = UInt8(truncatingIfNeeded: address >> shift)
                if shift < 24 {
                    bytes[count] = 0x2e
                    count += 1
                }
                for (place, least) in [(100, 100), (10, 10), (1, 0)] as [(UInt8, UInt8)] where number >= least {
                    bytes[count] = 0x30 + number / place % 10
                    count += 1
                }
            }
            return count
        }
    }

    /// RFC 5952: the longest run of two or more zero groups becomes `::`.
    private static func text(ipv6 groups: [UInt16]) -> String {
        var (bestStart, bestLength) = (0, 1)
        var start = 0
        while start < 8 {
            let length = groups[start...].prefix { $0 == 0 }.count
            if length > bestLength { (bestStart, bestLength) = (start, length) }
            start += max(length, 1)
        }
        let hex = { (part: ArraySlice<UInt16>) in part.map { String($0, radix: 16) }.joined(separator: ":") }
        guard bestLength > 1 else { return hex(groups[...]) }
        return hex(groups[..<bestStart]) + "::" + hex(groups[(bestStart + bestLength)...])
    }
}

/// Why the server turns a request away before a handler has answered it.
public enum RequestProblem: Sendable, Equatable {
    /// The header breaks the rules of HTTP; the text says which.
    case malformed(String)
    /// A transfer coding other than `chunked`.
    case unsupportedTransferCoding(String)
    case bodyTooLarge(limit: Int)
    /// The client took too long over its header or body.
    case tooSlow
    /// The handler let its ``Reply`` go without answering: a bug.
    case unanswered

    /// The status that RFC 9110 and RFC 9112 have for it.
    public var status: Int {
        switch self {
        case .malformed: 400
        case .unsupportedTransferCoding: 501
        case .bodyTooLarge: 413
        case .tooSlow: 408
        case .unanswered: 500
        }
    }

    /// One sentence for the client.
    public var message: String {
        switch self {
        case .malformed(let rule): "bad request: \(rule)"
        case .unsupportedTransferCoding(let coding): "transfer coding '\(coding)' is not supported, only chunked is"
        case .bodyTooLarge(let limit): "request body is larger than the limit of \(limit) bytes"
        case .tooSlow: "request took too long to arrive"
        case .unanswered: "internal error: the request was not answered"
        }
    }
}
