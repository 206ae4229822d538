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
    /// False if records go nowhere; then none are made.
    var isOn: Bool { get }
    func record(_ record: AccessRecord)
}
