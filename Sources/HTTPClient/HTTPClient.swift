import CCurl
import EventLoop
import HTTPCore

/// An HTTP/1.1 client: libcurl's multi-socket interface, driven by the event loop.
///
/// Connections are kept and reused. Nothing is added to a request and nothing is interpreted in an answer: no
/// redirects, no proxies, no cookies, no decompression. Source: libcurl-multi(3), curl_multi_socket_action(3).
@Loop
public final class HTTPClient {
    public struct Options: Sendable {
        /// Name look-up, TCP and TLS together.
        public var connectTimeout: Duration = .seconds(5)
        /// From the request's last byte to the answer's first.
        public var firstByteTimeout: Duration = .seconds(600)
        /// Between two bytes of an answer, or of an upload that the server does not take.
        public var idleTimeout: Duration = .seconds(120)
        /// Connections kept open while nobody uses them.
        public var maxIdleConnections = 256
        /// A file of PEM certificates to trust instead of the system's.
        public var certificateAuthorities: String?

        public nonisolated init() {}
    }

    let options: Options
    private let multi: UnsafeMutableRawPointer
    private let sockets: CurlSockets
    private var active: [ObjectIdentifier: Transfer] = [:]
    private var doomed: [Transfer] = []
    private var timer: Timer?
    private var wakeAt = UInt64.max
    private var isClosed = false
    /// The path in each origin seen so far; there are as many as backends.
    private var paths: [String: String] = [:]

    private static let isInitialized: Bool = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    /// Throws ``TransportError`` of kind `local` if libcurl does not start.
    public init(options: Options = Options()) throws {
        guard HTTPClient.isInitialized, let multi = curl_multi_init() else {
            throw TransportError(
                kind: .local, answerBegan: false, isRetrySafe: true, message: "libcurl does not start")
        }
        self.options = options
        self.multi = multi
        sockets = CurlSockets(multi: multi)
        // Unretained: `close()` ends all callbacks before the client can go.
        let owner = Unmanaged.passUnretained(self).toOpaque()
        gw_curl_multi_set_callbacks(multi, owner, onSocket, onTimer, options.maxIdleConnections)
        sockets.acted = { [unowned self] in collectFinished() }
    }

    isolated deinit { close() }

    /// Sends a request and waits for the header of the answer.
    ///
    /// The body of the answer is then taken from ``ClientResponse/body``. Cancelling the task ends the transfer
    /// and its connection, before or after the header. Throws ``TransportError`` or `CancellationError`.
    public func send(_ request: ClientRequest) async throws -> ClientResponse {
        guard !isClosed else {
            throw TransportError(kind: .local, answerBegan: false, isRetrySafe: true, message: "the client is closed")
        }
        let transfer = Transfer(request, handle: try CurlHandle(client: self), client: self)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { transfer.start($0) }
        } onCancel: {
            Loop.onLoop { transfer.cancel() }
        }
    }

    /// Transfers under way.
    public var transfers: Int { active.count }

    /// Ends everything; requests under way fail. May be called twice.
    public func close() {
        guard !isClosed else { return }
        isClosed = true
        for transfer in active.values {
            curl_multi_remove_handle(multi, transfer.handle.easy)
            transfer.ended(.failed(.local, "the client was closed"))
            transfer.handle.transfer = nil
        }
        active = [:]
        if let timer { Loop.events.cancel(timer) }
        curl_multi_cleanup(multi)
    }

    /// The path in an origin, without a slash at its end: `/prefix` in `https://host/prefix/`.
    func path(of origin: String) -> String {
        if let known = paths[origin] { return known }
        let authority = origin.firstRange(of: "://").map { origin[$0.upperBound...] } ?? origin[...]
        let path = authority.drop { $0 != "/" }
        let trimmed = path.hasSuffix("/") ? String(path.dropLast()) : String(path)
        paths[origin] = trimmed
        return trimmed
    }

    // MARK: Transfers

    func add(_ transfer: Transfer) {
        active[ObjectIdentifier(transfer.handle)] = transfer
        curl_multi_add_handle(multi, transfer.handle.easy)
    }

    /// Ends a transfer that libcurl has not finished. Not at once, since this may be called from inside libcurl,
    /// but before this turn ends.
    func abandon(_ transfer: Transfer) {
        doomed.append(transfer)
        guard doomed.count == 1 else { return }
        Loop.events.atEndOfTurn { [weak self] in
            guard let self else { return }
            let due = doomed
            doomed = []
            for transfer in due { remove(transfer) }
        }
    }

    private func collectFinished() {
        var code = CURLE_OK
        while let easy = gw_curl_next_done(multi, &code) {
            let handle = Unmanaged<CurlHandle>.fromOpaque(gw_curl_owner(easy).unsafelyUnwrapped).takeUnretainedValue()
            guard let transfer = active[ObjectIdentifier(handle)] else { continue }
            let ending = transfer.ending(of: code)
            remove(transfer)
            transfer.ended(ending)
        }
    }

    private func remove(_ transfer: Transfer) {
        let handle = transfer.handle
        guard !isClosed, active[ObjectIdentifier(handle)] === transfer else { return }
        active[ObjectIdentifier(handle)] = nil
        curl_multi_remove_handle(multi, handle.easy)
        handle.transfer = nil
    }

    // MARK: libcurl's sockets and timer

    func socketChanged(_ socket: Int32, _ what: Int32, by transfer: Transfer?) {
        sockets.wanted(socket, what, by: transfer)
    }

    func openSocket(_ family: Int32, _ type: Int32, _ protocol: Int32) -> Int32 {
        sockets.open(family, type, `protocol`)
    }

    func closeSocket(_ socket: Int32) { sockets.close(socket) }

    /// libcurl wants to be called in so many milliseconds; -1: not at all.
    func timerChanged(_ milliseconds: Int) {
        guard milliseconds >= 0 else { return wakeAt = .max }
        wakeAt = Loop.events.now &+ UInt64(milliseconds) &* 1_000_000
        if milliseconds == 0 {
            Loop.events.atEndOfTurn { [weak self] in self?.wake() }
        } else if timer == nil || timer.unsafelyUnwrapped.deadline > wakeAt {
            arm()
        }
    }

    /// A timer that turns out to be early is set again; libcurl changes its mind far more often than one fires.
    private func arm() {
        if let timer { Loop.events.cancel(timer) }
        timer = Loop.events.schedule(after: .nanoseconds(Int64(clamping: wakeAt &- Loop.events.now))) { [weak self] in
            guard let self else { return }
            timer = nil
            if wakeAt == .max { return }
            if wakeAt > Loop.events.now { arm() } else { wake() }
        }
    }

    private func wake() {
        guard !isClosed, wakeAt <= Loop.events.now else { return }
        wakeAt = .max
        sockets.act(CURL_SOCKET_TIMEOUT, 0)
    }
}
