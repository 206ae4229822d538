import EventLoop
import HTTPCore

/// One request on its way to a backend, and the answer on its way back: for all that is no request to a model.
@Loop
final class Relay {
    /// Where it may go.
    enum Aim {
        /// To any backend, in turn.
        case any
        /// To one that has this model.
        case model(String)
        /// To this one and no other: it does something that must not be done twice, or not elsewhere.
        case backend(Int)
    }

    /// For the access log; complete when ``run(_:)`` has returned.
    private(set) var record: AccessRecord

    private let request: Request
    private let id: String
    private let aim: Aim
    private let gateway: Gateway
    private var fleet: Fleet { gateway.fleet }
    private var tried: [Int] = []
    /// The last of them, for its trace.
    private var call: BackendCall?
    private var backend: Backend { fleet.backends[tried.last ?? 0] }

    /// - Parameter start: when the request came.
    init(
        _ request: Request, id: String, at start: Int64, to aim: Aim, _ trace: RequestTrace?, gateway: Gateway
    ) {
        self.request = request
        self.id = id
        self.aim = aim
        self.gateway = gateway
        record = AccessRecord(of: request, id: id, at: start, trace)
        if case .model(let name) = aim { record.model = name }
    }

    func run(_ reply: consuming Reply) async {
        switch await answer() {
        case .success(let answer):
            record.firstByte = gateway.clock() - record.start
            endCall(await pass(answer, to: reply))
        case .failure(let failure): refuse(failure, to: reply)
        }
        record.duration = gateway.clock() - record.start
    }

    /// The answer of the first backend that has one, or of the last that could be asked.
    private func answer() async -> Result<ClientResponse, Failure> {
        var last = Result<ClientResponse, Failure>.failure(fleet.unavailable(model))
        while let lease = next() {
            if case .success(let answer) = last { answer.body.cancel() }
            gateway.metrics.countPick(of: lease.backend, isRetry: !tried.isEmpty)
            tried.append(lease.backend)
            record.backend = backend.name
            record.tries = tried.count
            let context = beginCall()
            do {
                let answer = try await send(
                    Forwarding.request(request, id: id, to: backend, mayBeRepeated: !isPinned, context),
                    to: lease.backend)
                last = .success(answer)
                call?.answered(answer.status, at: gateway.clock())
                // The box itself may be well: it may be speaking for ollama.com, or for a registry.
                guard Fault.passedOver.contains(answer.status), isQuestion else { return last }
            } catch {
                last = .failure(failure(for: error))
                endCall(error)
                guard let error = error as? TransportError, let fault = Fault(error) else { return last }
                // What is done for the client alone may take long.
                if !isPinned || error.kind != .firstByteTimeout { fleet.failed(lease, fault) }
                guard isQuestion || error.isRetrySafe else { return last }
            }
        }
        return last
    }

    private func beginCall() -> TraceContext? {
        endCall(nil)
        let (context, begun) = gateway.tracer.begin(
            request, at: backend, number: tried.count, of: record.trace, at: gateway.clock())
        call = begun
        return context
    }

    private func endCall(_ problem: (any Error)?) {
        guard let call = call.take() else { return }
        gateway.tracer.note(call, of: record.trace, at: gateway.clock(), problem)
    }

    private func next() -> Balancer.Lease? {
        if case .backend(let backend) = aim {
            return tried.isEmpty ? fleet.queue.balancer.visit(backend, at: fleet.now()) : nil
        }
        guard tried.count <= gateway.settings.fleet.retries, isRepeatable || tried.isEmpty else { return nil }
        return fleet.visit(for: model, without: tried)
    }

    private var model: String { if case .model(let name) = aim { name } else { "" } }

    /// Whether it only asks for something that another backend may know as well.
    private var isQuestion: Bool {
        if case .model = aim { return true }
        return request.isReading
    }

    private var isPinned: Bool { if case .backend = aim { true } else { false } }

    private func send(_ request: ClientRequest, to backend: Int) async throws -> ClientResponse {
        isPinned ? try await gateway.transport.send(request) : try await fleet.ask(request, of: backend)
    }

    private var isRepeatable: Bool { if case .stream = request.body { false } else { true } }

    // MARK: An answer

    /// - Returns: why it was not passed on to its end, if it was not.
    private func pass(_ answer: ClientResponse, to reply: consuming Reply) async -> (any Error)? {
        record.status = answer.status
        if answer.status >= 500 { record.error = "backend \(backend.name): it answers \(answer.status)" }
        let headers = Forwarding.response(answer.headers, id: id)
        if request.method == "HEAD" || answer.status == 204 || answer.status == 304 {
            answer.body.cancel()
            reply.send(Response(status: answer.status, headers: headers, declaredLength: answer.length))
            return nil
        }
        // What has come whole with its header leaves whole with it.
        if answer.length != nil, let body = answer.body.takeComplete() {
            record.bytes = body.count
            reply.send(Response(status: answer.status, headers: headers, body: body))
            return nil
        }
        return await stream(answer, to: reply.stream(status: answer.status, headers: headers, length: answer.length))
    }

    private func stream(_ answer: ClientResponse, to writer: any ResponseWriter) async -> (any Error)? {
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
            return nil
        } catch {
            let failure = failure(for: error)
            fleet.brokeOff(tried.last, error)
            record.note(failure)
            if !record.hasLeft, answer.length == nil, let last = tail.error(failure, id: id) {
                _ = writer.write(Bytes(last))
            }
            // Never a proper end: who reads the body must not take it for whole.
            writer.abort()
            return error
        }
    }

    // MARK: No answer

    private func refuse(_ failure: Failure, to reply: consuming Reply) {
        record.note(failure)
        // Nobody is there to read it: the reply goes unused.
        guard !record.hasLeft else { return }
        let response = failure.response(to: request.path, id: id)
        record.note(response)
        reply.send(response)
    }

    private func failure(for error: any Error) -> Failure {
        gateway.isEnding && error is CancellationError ? .ending : Failure(error, backend: backend.name)
    }
}
