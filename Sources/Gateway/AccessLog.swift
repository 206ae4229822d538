import EventLoop
import HTTPCore

/// What is known of a request when it is over.
public struct AccessRecord: Sendable {
    /// Microseconds since 1970.
    public let start: Int64
    public let id: String
    public let peer: String
    public let method: String
    public let target: String
    public var status = 0
    public var backend: String?
    /// Backends that were asked.
    public var tries = 0
    /// How the cache was used: `HIT`, `MISS`, `COALESCED`, `BYPASS`; nil where it has no business.
    public var cache: String?
    /// Bytes of the answer's body.
    public var bytes = 0
    /// Microseconds until the backend's answer began.
    public var firstByte: Int64?
    /// Microseconds until all was over.
    public var duration: Int64 = 0
    public var error: String?

    @Loop
    init(of request: Request?, id: String, at start: Int64) {
        self.start = start
        self.id = id
        peer = request?.peer.description ?? "-"
        method = request?.method ?? "-"
        target = request?.target ?? "-"
    }
}

/// Takes one record a request.
@Loop
public protocol AccessLog: AnyObject {
    /// Which records it wants; others are not made.
    var wants: AccessLogWish { get }
    func record(_ record: AccessRecord)
}

/// Which requests a log wants to hear of.
public enum AccessLogWish: Sendable {
    case all
    /// Those that failed on this side of the client.
    case failures
    case none

    func includes(failure: Bool) -> Bool { self == .all || (self == .failures && failure) }
}

extension AccessRecord {
    /// Whether it failed on our side of the client.
    public var isFailure: Bool { status >= 500 || (error != nil && status < 400) }
}

extension AccessRecord {
    /// The request is answered, and over.
    /// - Parameter failure: what was wrong, if anything was.
    @Loop
    mutating func end(_ failure: Failure?, _ response: Response, _ reply: consuming Reply, at now: Int64) {
        status = response.status
        bytes = method == "HEAD" ? 0 : response.body.count
        error = failure?.message
        duration = now - start
        reply.send(response)
    }

    /// The request's task was cancelled: its client has left, or the gateway is ending and says so.
    @Loop
    mutating func cut(_ reply: consuming Reply, _ request: Request, isEnding: Bool, at now: Int64) {
        if isEnding {
            return end(.ending, Failure.ending.response(to: request.path, id: id), reply, at: now)
        }
        status = Failure.clientLeft
        error = Failure.left.message
        duration = now - start
    }
}
