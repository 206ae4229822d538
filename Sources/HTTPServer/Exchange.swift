import CMicroHTTPD
import EventLoop
import Glibc
import HTTPCore

/// One request and its answer.
///
///     header ──► receiving ──► complete ──► answered ──► over
///        └─────────── refused ─────────────────┘
///
/// libmicrohttpd holds a reference from the request line (`onTarget`) to the end (`onCompleted`), the connection
/// another until then; a ``Reply`` and the handler's task may hold others and outlive both.
@Loop
final class Exchange: ReplyPort, HeaderSource {
    private enum Phase { case header, receiving, complete, answered, over }

    private let connection: Connection
    /// libmicrohttpd's connection; nil once the request is over.
    private var handle: OpaquePointer?
    /// Where libmicrohttpd keeps the target, query and all, until it cuts it up.
    private let target: UnsafeRawBufferPointer
    private let targetText: String
    private var phase = Phase.header
    private var request: Request?
    private var task: Task<Void, Never>?

    private var limit = 0
    private var collected = ByteBuffer()
    private var upload: ByteStream?
    private var discardsUpload = false

    private(set) var isSuspended = false
    private var hasLeft = false
    private var isReplied = false
    /// An answer that came before all of the request's body; libmicrohttpd takes it after.
    private var early: (status: Int, rendering: Rendering)?
    private var body: StreamBody?
    private var speaksChunked = true

    init(on connection: Connection, handle: OpaquePointer, target: UnsafePointer<CChar>?) {
        self.connection = connection
        self.handle = handle
        self.target = UnsafeRawBufferPointer(start: target, count: target.map { strlen($0) } ?? 0)
        targetText = String(latin1: self.target)
        connection.exchange = self
    }

    private var server: HTTPServer { connection.server }

    // MARK: The request coming in

    /// libmicrohttpd has got on with the request. False closes the connection.
    func advance(
        method: UnsafePointer<CChar>?, version: UnsafePointer<CChar>?, data: UnsafePointer<CChar>?, size: inout Int
    ) -> Bool {
        guard !hasLeft else { return false }
        switch phase {
        case .header:
            headerArrived(method: method, version: version)
        case .receiving where size > 0:
            // After a suspension libmicrohttpd may still offer what it has read: it keeps what is left alone.
            guard !isSuspended else { return true }
            let chunk = UnsafeRawBufferPointer(start: data, count: size)
            size = 0
            return take(chunk)
        case .receiving:
            bodyArrived()
        case .complete:
            suspend()
        case .answered, .over:
            break
        }
        return true
    }

    private func headerArrived(method: UnsafePointer<CChar>?, version: UnsafePointer<CChar>?) {
        guard let handle, let method, let version else { return }
        let line = HeaderFacts.RequestLine(method: method, target: target, targetText: targetText, version: version)
        let facts = HeaderFacts(of: handle, line)
        speaksChunked = facts.speaksChunked
        let request = Request(
            method: facts.method, target: facts.target, peer: connection.peer, contentLength: facts.contentLength,
            source: self)  // A circle, which `completed` breaks.
        self.request = request
        if let problem = facts.problem { return refuseAtHeader(problem) }

        phase = .receiving
        switch server.handler.receive(request) {
        case .collect(let limit):
            if let length = facts.contentLength, length > limit { return refuseAtHeader(.bodyTooLarge(limit: limit)) }
            self.limit = limit
            collected.reserve(min(facts.contentLength ?? 0, 1 << 20))
        case .stream where facts.hasBody:
            let upload = ByteStream()
            upload.onResume = { [weak self] in self?.resume() }
            upload.onCancel = { [weak self] in self?.discardUpload() }
            self.upload = upload
            request.body = .stream(upload, length: facts.contentLength)
            start(request)
        case .stream:
            break
        }
        connection.deadline =
            facts.hasBody ? Loop.events.now &+ server.limits.bodyTimeout.clampedNanoseconds : .max
    }

    func headers() -> Headers { handle.map(Headers.init(of:)) ?? [:] }

    func header(_ name: StaticString) -> String? { handle.flatMap { Headers.value(name, in: $0) } }

    private func take(_ chunk: UnsafeRawBufferPointer) -> Bool {
        allowTime(for: chunk.count)
        guard let upload else {
            guard collected.count + chunk.count <= limit else {
                refuse(for: .bodyTooLarge(limit: limit))
                return false
            }
            collected.append(chunk)
            return true
        }
        guard !discardsUpload else { return true }
        switch upload.push(chunk) {
        case .more: break
        case .pause: suspend()
        case .stop: discardsUpload = true
        }
        return true
    }

    private func bodyArrived() {
        guard let request else { return }
        phase = .complete
        connection.deadline = .max
        if let upload {
            upload.finish()
            if let early { answer(early.status, early.rendering) } else { suspend() }
            return
        }
        if !collected.isEmpty {
            var whole = ByteBuffer()
            swap(&whole, &collected)
            request.body = .bytes(whole.finish())
        }
        if let response = server.handler.answer(request) {
            send(response)
        } else {
            suspend()
            start(request)
        }
    }

    private func start(_ request: Request) {
        // The task may ask for them when the client, and with it libmicrohttpd's memory, is gone.
        request.retainHeaders()
        let handler = server.handler
        task = Loop.task { await handler.handle(request, Reply(port: self)) }
    }

    /// The consumer of an upload wants no more: the rest is read and thrown away.
    private func discardUpload() {
        discardsUpload = true
        resume()
    }

    /// A body earns time by its bytes; one that comes drop by drop does not.
    private func allowTime(for bytes: Int) {
        connection.deadline &+= UInt64(bytes) * 1_000_000_000 / UInt64(server.limits.bodyBytesPerSecond)
    }

    // MARK: The answer going out

    func send(_ response: Response) {
        guard !isReplied, !hasLeft, handle != nil else { return }
        isReplied = true
        if phase == .receiving {
            // The rest of the body may never come: a client may wait for this answer before it goes on.
            write(response)
            return connection.kill()
        }
        answer(response.status, Rendering.whole(response, closing: server.isDraining))
    }

    func stream(status: Int, headers: Headers, length: Int?) -> any ResponseWriter {
        let framing: StreamBody.Framing =
            length != nil ? .counted : request?.method == "HEAD" ? .none : speaksChunked ? .chunked : .plain
        let body = StreamBody(on: connection, exchange: self, framing: framing)
        guard !isReplied, !hasLeft, handle != nil else {
            body.end()
            return body
        }
        isReplied = true
        if framing == .none {
            // libmicrohttpd would end the body that there is none of.
            answer(status, Rendering.whole(Response(status: status, headers: headers), closing: server.isDraining))
            return body
        }
        self.body = body
        answer(
            status, Rendering.stream(body, headers: headers, length: length, closing: server.isDraining))
        return body
    }

    func released() {
        guard !isReplied, !hasLeft, let request else { return }
        send(server.handler.refusal(of: request, for: .unanswered))
    }

    private func answer(_ status: Int, _ rendering: Rendering) {
        guard let handle else { return }
        if phase == .receiving {
            early = (status, rendering)
            return discardUpload()
        }
        early = nil
        phase = .answered
        if MHD_queue_response(handle, UInt32(status), rendering.pointer) == .NO { hasLeft = true }
        resume()
    }

    /// Refuses before any of the body was read: libmicrohttpd sends the answer and closes.
    private func refuseAtHeader(_ problem: RequestProblem) {
        phase = .complete
        connection.lingers = true
        send(server.handler.refusal(of: request, for: problem))
    }

    /// Refuses amid the request. The caller closes the connection.
    func refuse(for problem: RequestProblem) {
        guard phase == .header || phase == .receiving, !isReplied else { return }
        isReplied = true
        write(server.handler.refusal(of: request, for: problem))
    }

    /// Answers amid the request, where libmicrohttpd takes no answer, by writing to the socket; the connection must
    /// be closed after it.
    private func write(_ response: Response) {
        connection.lingers = true
        var message = ByteBuffer()
        let reason = String(cString: MHD_get_reason_phrase_for(UInt32(response.status)))
        message.append("HTTP/1.1 \(response.status) \(reason)\r\n")
        for field in response.headers.fields {
            message.append(latin1: "\(field.name): \(field.value)\r\n")
        }
        message.append("Content-Length: \(response.body.count)\r\nConnection: close\r\n\r\n")
        if request?.method != "HEAD" { message.append(response.body.buffer) }
        // Nothing was sent on this connection since its last answer was taken: the socket has room for a short one.
        _ = Glibc.write(connection.socket, message.unread.baseAddress, message.count)
    }

    // MARK: Waiting

    /// Takes the connection out of libmicrohttpd's hands; called inside its callbacks only.
    func suspend() {
        guard !isSuspended, let handle else { return }
        isSuspended = true
        MHD_suspend_connection(handle)
        if connection.peerHasClosed { Loop.events.atEndOfTurn { [connection] in connection.leaveIfAtEnd() } }
    }

    func resume() {
        guard isSuspended, let handle else { return }
        isSuspended = false
        MHD_resume_connection(handle)
        server.runSoon()
    }

    /// Nothing the client sends matters any more: libmicrohttpd closes with its next byte, or soon.
    func hurry() {
        if let handle { gw_mhd_hurry(handle) }
    }

    func writable() { body?.flush() }

    func isStalled(at now: UInt64) -> Bool { body?.isStalled(at: now) ?? false }

    // MARK: The end

    /// The client is gone: everyone who works for it is told, and libmicrohttpd is made to close.
    func clientHasLeft() {
        guard !hasLeft, phase != .over else { return }
        hasLeft = true
        endWork()
        resume()
    }

    /// The server cannot wait any longer: the handler may still say so to the client.
    func cancelHandler() { task?.cancel() }

    /// libmicrohttpd is done with the request.
    func completed(well: Bool) {
        if let handle, !well { server.closeSoon(connection, handle) }
        phase = .over
        request?.detach()
        handle = nil
        isSuspended = false
        if !well { hasLeft = true }
        endWork()
        connection.requestEnded()
    }

    private func endWork() {
        if hasLeft { task?.cancel() }
        task = nil
        body?.end()
        upload?.finish(ClientLeft())
    }
}
