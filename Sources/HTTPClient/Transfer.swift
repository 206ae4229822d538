import CCurl
import EventLoop
import Glibc
import HTTPCore

/// One request on its way, from `start` until libcurl is done with it or it is given up.
@Loop
final class Transfer {
    /// How a transfer ends.
    enum Ending {
        case complete
        case failed(TransportError.Kind, String)
        case cancelled
    }

    let handle: CurlHandle
    private let request: ClientRequest
    private unowned let client: HTTPClient
    private var waiter: CheckedContinuation<ClientResponse, any Error>?
    private var status = 0
    private var expectsStatusLine = true
    private var headers = Headers()
    private var length: Int?
    private var received = 0
    private var uploaded = 0
    private var isUploaded = false
    private var answerBegan = false
    private var hasEnded = false

    private let body = ByteStream()
    private var upload: Upload?
    private var pausesBody = false
    private var pausesUpload = false

    private var timer: Timer?
    private var lastProgress: UInt64 = 0

    init(_ request: ClientRequest, handle: CurlHandle, client: HTTPClient) {
        self.request = request
        self.handle = handle
        self.client = client
    }

    func start(_ waiter: CheckedContinuation<ClientResponse, any Error>) {
        if Task.isCancelled { return waiter.resume(throwing: CancellationError()) }
        self.waiter = waiter
        handle.transfer = self
        handle.prepare(request, prefix: client.path(of: request.origin))
        // A circle, which `end` breaks.
        body.onResume = { self.resumeBody() }
        body.onCancel = { self.cancel() }
        client.add(self)
        progressed()
        watchClock()
    }

    // MARK: The answer

    func headerLine(_ line: UnsafeRawBufferPointer) {
        progressed()
        guard !answerBegan else { return }  // A trailer.
        var end = line.count
        while end > 0, line[end - 1] == 0x0a || line[end - 1] == 0x0d { end -= 1 }
        let text = UnsafeRawBufferPointer(rebasing: line[..<end])
        if text.isEmpty {
            status = gw_curl_long(handle.easy, CURLINFO_RESPONSE_CODE)
            expectsStatusLine = true
            if status >= 200 { headerComplete() }
        } else if expectsStatusLine {
            // A new header; one of a 1xx answer may have gone before.
            expectsStatusLine = false
            headers = Headers()
            headers.reserve(8)
        } else if let colon = text.firstIndex(of: 0x3a) {
            let name = UnsafeRawBufferPointer(rebasing: text[..<colon])
            let value = UnsafeRawBufferPointer(rebasing: text[(colon + 1)...]).withoutBlanks
            // What is no header field is not passed on: it might be one to somebody else.
            if Headers.isName(name), Headers.isValue(value) {
                headers.append(String(latin1: name), String(latin1: value))
            }
        }
    }

    /// The length that the header declares, if it can be believed. Source: RFC 9112 section 6.3.
    private func declaredLength() -> Int? {
        headers["transfer-encoding"] == nil ? headers["content-length"].flatMap(Headers.length) : nil
    }

    private func headerComplete() {
        answerBegan = true
        length = declaredLength()
        watchClock()
        waiter?.resume(returning: ClientResponse(status: status, headers: headers, length: length, body: body))
        waiter = nil
        endIfAnswered()
    }

    /// The server has said all it has to say while the upload goes on: it does not want the rest, and libcurl, left
    /// alone, would wait for it.
    private func endIfAnswered() {
        if upload?.isFlowing == true, received == length { giveUp(.complete) }
    }

    /// The server has closed its side. libcurl does not act on that while it waits for more of an upload.
    func serverHasClosed() {
        if pausesUpload { giveUp(.failed(.connectionLost, "closed amid the upload")) }
    }

    /// False ends the transfer.
    func bodyChunk(_ chunk: UnsafeRawBufferPointer) -> Bool {
        progressed()
        guard answerBegan else {
            // What follows a 101: not asked for, and not HTTP.
            giveUp(.failed(.badAnswer, "status \(status) instead of an answer"))
            return false
        }
        received += chunk.count
        defer { endIfAnswered() }
        switch body.push(chunk) {
        case .more:
            return true
        case .pause:
            // The chunk was taken; libcurl keeps what else it has read.
            pausesBody = true
            applyPauses()
            return true
        case .stop:
            return false
        }
    }

    private func resumeBody() {
        guard pausesBody, !hasEnded else { return }
        pausesBody = false
        progressed()
        applyPauses()
    }

    // MARK: The upload

    func uploadMore(into room: UnsafeMutableRawBufferPointer) -> Int {
        progressed()
        guard case .stream(let source, let length) = request.body else { return 0 }
        // Not before there is a connection: a body that nobody has touched can be sent elsewhere.
        let upload = upload ?? Upload(source) { [weak self] in self?.resumeUpload() }
        self.upload = upload
        switch upload.read(into: room) {
        case .bytes(let count):
            uploaded += count
            // libcurl does not ask again then.
            if uploaded == length { isUploaded = true }
            return count
        case .end:
            // Less than was declared must not look complete.
            if let length, uploaded < length { return gw_curl_read_abort }
            isUploaded = true
            return 0
        case .broken: return gw_curl_read_abort
        case .nothingYet:
            pausesUpload = true
            return gw_curl_read_pause
        }
    }

    private func resumeUpload() {
        guard pausesUpload, !hasEnded else { return }
        pausesUpload = false
        progressed()
        applyPauses()
    }

    private func applyPauses() {
        var mask: Int32 = 0
        if pausesBody { mask |= CURLPAUSE_RECV }
        if pausesUpload { mask |= CURLPAUSE_SEND }
        curl_easy_pause(handle.easy, mask)
    }

    // MARK: Time

    private func progressed() { lastProgress = Loop.events.now }

    /// Whether bytes are flowing, or should be: else the server is thinking.
    private var isMoving: Bool { answerBegan || (upload != nil && !isUploaded) }

    private var patience: UInt64 {
        (isMoving ? client.options.idleTimeout : client.options.firstByteTimeout).clampedNanoseconds
    }

    /// Looks again when the time could be up at the earliest; progress only moves a number.
    private func watchClock() {
        if let timer { Loop.events.cancel(timer) }
        guard !hasEnded else { return timer = nil }
        let due = lastProgress &+ patience
        let delay = due > Loop.events.now ? due - Loop.events.now : 0
        timer = Loop.events.schedule(after: .nanoseconds(Int64(clamping: delay))) { self.checkClock() }
    }

    private func checkClock() {
        timer = nil
        // Who waits for the client's side of things does not wait for the server, and connecting has a limit of its own.
        if pausesBody || pausesUpload || !hasSent { progressed() }
        guard Loop.events.now &- lastProgress >= patience else { return watchClock() }
        giveUp(
            isMoving
                ? .failed(.idleTimeout, "no byte for \(client.options.idleTimeout)")
                : .failed(.firstByteTimeout, "no answer within \(client.options.firstByteTimeout)"))
    }

    // MARK: The end

    /// Nobody waits for the answer any more.
    func cancel() { giveUp(.cancelled) }

    private func giveUp(_ ending: Ending) {
        guard !hasEnded else { return }
        let sent = hasSent
        client.abandon(self)
        end(ending, hasSent: sent)
    }

    /// What libcurl's result means.
    func ending(of code: CURLcode) -> Ending {
        let message = handle.message
        switch code {
        case CURLE_OK: return .complete
        case CURLE_COULDNT_RESOLVE_HOST: return .failed(.resolve, message)
        case CURLE_COULDNT_CONNECT:
            let number = Int32(truncatingIfNeeded: gw_curl_long(handle.easy, CURLINFO_OS_ERRNO))
            return .failed(.connect, number != 0 ? String(cString: strerror(number)) : message)
        case CURLE_OPERATION_TIMEDOUT: return .failed(.connectTimeout, message)
        case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE,
            CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_INVALIDCERTSTATUS:
            return .failed(.tls, message)
        case CURLE_RECV_ERROR where message.lowercased().contains("chunk"): return .failed(.badAnswer, message)
        case CURLE_UNSUPPORTED_PROTOCOL where !hasSent: return .failed(.local, message)
        case CURLE_GOT_NOTHING, CURLE_RECV_ERROR, CURLE_SEND_ERROR, CURLE_PARTIAL_FILE, CURLE_SEND_FAIL_REWIND:
            return .failed(.connectionLost, message)
        case CURLE_WEIRD_SERVER_REPLY, CURLE_UNSUPPORTED_PROTOCOL, CURLE_HTTP2, CURLE_BAD_CONTENT_ENCODING,
            CURLE_OUT_OF_MEMORY:
            // The last is what libcurl says of a header line that is too long for it.
            return .failed(.badAnswer, message)
        case CURLE_WRITE_ERROR, CURLE_ABORTED_BY_CALLBACK: return .cancelled
        default: return .failed(hasSent ? .badAnswer : .local, message)
        }
    }

    func ended(_ ending: Ending) {
        guard !hasEnded else { return }
        end(ending, hasSent: hasSent)
    }

    /// Whether any byte of the request has gone to the server.
    private var hasSent: Bool { gw_curl_long(handle.easy, CURLINFO_REQUEST_SIZE) > 0 }

    private func end(_ ending: Ending, hasSent: Bool) {
        hasEnded = true
        if let timer { Loop.events.cancel(timer) }
        timer = nil
        body.onResume = nil
        body.onCancel = nil
        upload?.stop()
        let error: (any Error)? =
            switch ending {
            case .complete: nil
            case .cancelled: CancellationError()
            case .failed(let kind, let message):
                TransportError(
                    kind: kind, answerBegan: answerBegan, isRetrySafe: !hasSent && upload == nil, message: message)
            }
        if let waiter {
            self.waiter = nil
            waiter.resume(
                throwing: error
                    // libcurl takes the end of the connection amid a header for the end of an answer.
                    ?? TransportError(
                        kind: .connectionLost, answerBegan: false, isRetrySafe: false, message: "closed amid the header"
                    ))
        }
        body.finish(error)
    }
}
