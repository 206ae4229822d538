import EventLoop
import HTTPCore

/// One request on its way to a backend, and the answer on its way back.
@Loop
final class Relay {
    /// For the access log; complete when ``run(_:)`` has returned.
    private(set) var record: AccessRecord

    private let request: Request
    private let id: String
    private let backend: Backend
    private let gateway: Gateway

    init(_ request: Request, id: String, backend: Backend, gateway: Gateway) {
        self.request = request
        self.id = id
        self.backend = backend
        self.gateway = gateway
        record = AccessRecord(of: request, id: id, at: gateway.clock())
        record.backend = backend.name
    }

    func run(_ reply: consuming Reply) async {
        let outcome: Result<ClientResponse, any Error>
        do {
            outcome = .success(try await gateway.transport.send(forwarded()))
        } catch {
            outcome = .failure(error)
        }
        switch outcome {
        case .success(let answer):
            record.firstByte = gateway.clock() - record.start
            await pass(answer, to: reply)
        case .failure(let error): refuse(error, to: reply)
        }
        record.duration = gateway.clock() - record.start
    }

    private func forwarded() -> ClientRequest {
        var forwarded = ClientRequest(
            method: request.method, origin: backend.origin, target: request.target,
            headers: Forwarding.request(request.headers, peer: request.peer, id: id), body: request.body)
        forwarded.mayBeRepeated = !changesTheBox
        return forwarded
    }

    /// Whether the request does something to the box's models, and must not be done twice.
    private var changesTheBox: Bool {
        Relay.changingPaths.contains { request.path.hasPrefix($0) }
    }

    private static let changingPaths = [
        "/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/",
    ]

    // MARK: An answer

    private func pass(_ answer: ClientResponse, to reply: consuming Reply) async {
        record.status = answer.status
        let headers = Forwarding.response(answer.headers, id: id)
        if request.method == "HEAD" || answer.status == 204 || answer.status == 304 {
            answer.body.cancel()
            return reply.send(Response(status: answer.status, headers: headers, declaredLength: answer.length))
        }
        // What has come whole with its header leaves whole with it.
        if answer.length != nil, let body = answer.body.takeComplete() {
            record.bytes = body.count
            return reply.send(Response(status: answer.status, headers: headers, body: body))
        }
        await stream(answer, to: reply.stream(status: answer.status, headers: headers, length: answer.length))
    }

    private func stream(_ answer: ClientResponse, to writer: any ResponseWriter) async {
        var tail = StreamTail(contentType: answer.headers["content-type"], path: request.path)
        let body = answer.body
        writer.onDrain = { body.resume() }
        do {
            try await body.forward { [self] chunk in
                record.bytes += chunk.count
                tail.note(chunk)
                return writer.write(chunk)
            }
            writer.finish()
        } catch {
            let failure = failure(for: error)
            note(failure)
            if failure.status != Failure.clientLeft, answer.length == nil, let last = tail.error(failure, id: id) {
                _ = writer.write(Bytes(last))
            }
            // Never a proper end: who reads the body must not take it for whole.
            writer.abort()
        }
    }

    // MARK: No answer

    private func refuse(_ error: any Error, to reply: consuming Reply) {
        let failure = failure(for: error)
        record.status = failure.status
        note(failure)
        // Nobody is there to read it: the reply goes unused.
        guard failure.status != Failure.clientLeft else { return }
        let response = failure.response(to: request.path, id: id)
        record.bytes = response.body.count
        reply.send(response)
    }

    private func failure(for error: any Error) -> Failure {
        gateway.isEnding && error is CancellationError ? .ending : Failure(error, backend: backend)
    }

    private func note(_ failure: Failure) {
        record.error = failure.message
        if failure.status == Failure.clientLeft { record.status = failure.status }
    }
}
