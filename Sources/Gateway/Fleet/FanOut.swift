import EventLoop
import HTTPCore

/// One request to several backends at once.
@Loop
enum FanOut {
    /// What one of them said, all of it.
    struct Answer {
        let backend: Int
        let outcome: Result<Response, Failure>

        var isGood: Bool { if case .success(let response) = outcome { response.status < 300 } else { false } }

        /// Its error in its own words; nil if there is none.
        var problem: Failure? {
            switch outcome {
            case .failure(let failure): failure
            case .success(let response):
                response.status < 300
                    ? nil : Failure(status: response.status, message: FanOut.words(of: response.body, response.status))
            }
        }
    }

    /// Bytes of an answer: those that are asked of several are short.
    private static let answerAtMost = 1 << 20

    /// Does the same for each backend, all at once, and waits until all is done. Cancelling the task cancels all.
    static func forEach(_ backends: [Int], _ body: @escaping @Loop (Int) async -> Void) async throws {
        try Task.checkCancellation()
        var tasks: [Task<Void, Never>] = []
        do {
            try await Signal.wait { signal in
                var left = backends.count
                if left == 0 { signal.fire() }
                tasks = backends.map { backend in
                    Loop.task {
                        await body(backend)
                        left -= 1
                        if left == 0 { signal.fire() }
                    }
                }
            }
        } catch {
            tasks.forEach { $0.cancel() }
            throw error
        }
    }

    /// Sends a request to each and collects what they say, in order. Throws `CancellationError`.
    static func send(
        _ request: Request, id: String, to backends: [Int], _ trace: RequestTrace?, _ gateway: Gateway
    ) async throws -> [Answer] {
        var answers: [Answer] = []
        try await forEach(backends) { backend in
            var outcome: Result<Response, Failure>
            gateway.metrics.countPick(of: backend, isRetry: false)
            let box = gateway.fleet.backends[backend]
            var (context, call) = gateway.tracer.begin(request, at: box, number: 1, of: trace, at: gateway.clock())
            var problem: (any Error)?
            do {
                let forwarded = Forwarding.request(
                    request, id: id, to: box, mayBeRepeated: false, context)
                let answer = try await gateway.fleet.ask(forwarded, of: backend)
                call?.status = answer.status
                let body = try await answer.body.collect(limit: answerAtMost, expecting: answer.length)
                outcome = .success(
                    Response(status: answer.status, headers: Forwarding.response(answer.headers, id: id), body: body))
            } catch {
                problem = error
                outcome = .failure(failure(error, backend, gateway.fleet))
            }
            if let call { gateway.tracer.note(call, of: trace, at: gateway.clock(), problem) }
            answers.append(Answer(backend: backend, outcome: outcome))
        }
        return answers.sorted { $0.backend < $1.backend }
    }

    /// That a backend could not be asked counts.
    static func failure(_ error: any Error, _ backend: Int, _ fleet: Fleet) -> Failure {
        guard let error = error as? TransportError else { return Failure(error, backend: fleet.backends[backend].name) }
        fleet.brokeOff(backend, error)
        if let fault = Fault(error), error.kind != .firstByteTimeout {
            fleet.failed(fleet.queue.balancer.visit(backend, at: fleet.now()), fault)
        }
        return Failure(status: error.kind == .firstByteTimeout ? 504 : 502, message: Failure.words(for: error))
    }

    /// What a backend says is wrong.
    nonisolated static func words(of body: Bytes, _ status: Int) -> String {
        let error = try? JSONDocument.read(body.buffer) { root in
            root["error"]?.string ?? root["error"]?["message"]?.string
        }
        return error.flatMap { $0 } ?? "it answers \(status)"
    }

    /// All answers as one: the first good one if all are good, else what failed, and where.
    static func response(to path: String, id: String, _ answers: [Answer], _ fleet: Fleet) -> Response {
        let failed = answers.compactMap { answer in answer.problem.map { (answer.backend, $0) } }
        guard let first = failed.first else {
            if case .success(let response)? = answers.first?.outcome { return response }
            return Failure(status: 500, message: "no backend was asked").response(to: path, id: id)
        }
        if failed.count == answers.count, failed.allSatisfy({ $0.1.message == first.1.message }) {
            // One voice, in its own words.
            if case .success(let response)? = answers.first?.outcome { return response }
            return first.1.response(to: path, id: id)
        }
        let names = { (backend: Int) in fleet.backends[backend].name }
        var message = failed.map { "\(names($0.0)): \($0.1.message)" }.joined(separator: "; ")
        let done = answers.filter(\.isGood).map { names($0.backend) }
        if !done.isEmpty { message += "; done on \(done.joined(separator: ", "))" }
        return Failure(status: first.1.status, message: message).response(to: path, id: id)
    }
}
