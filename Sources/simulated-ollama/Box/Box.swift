import EventLoop
import HTTPCore

/// A simulated Ollama box: models, a scheduler, and the endpoints.
///
/// A request becomes a ``Plan`` at once; what needs no waiting is answered in the same breath.
@Loop
final class Box: RequestHandler {
    private let initialSettings: Settings
    var settings: Settings { didSet { configureScheduler() } }
    let catalogue: Catalogue
    let scheduler = Scheduler()
    let counts = Counts()
    let clock = WallClock()

    /// Plans made in `answer` wait here for the call of `handle` that follows it.
    private var planned: (request: Request, plan: Plan)?

    init(_ settings: Settings, models: [Model]) {
        initialSettings = settings
        self.settings = settings
        catalogue = Catalogue(models)
        configureScheduler()
    }

    func resetSettings() {
        settings = initialSettings
        resetCounts()
    }

    func resetCounts() {
        counts.reset()
        scheduler.loads = [:]
    }

    private func configureScheduler() {
        scheduler.parallel = settings.parallel
        scheduler.maxQueue = settings.maxQueue
        scheduler.maxLoaded = settings.maxLoaded
        scheduler.loadTime = settings.loadTime
        scheduler.keepAlive = settings.keepAlive
    }

    // MARK: Handling requests

    /// Ollama has no bound of its own for bodies; this one keeps the simulator's machine alive.
    private static let maxBody = 1 << 30

    func receive(_ request: Request) -> Intake {
        request.method == "POST" && request.path.hasPrefix("/api/blobs/") ? .stream : .collect(limit: Box.maxBody)
    }

    func answer(_ request: Request) -> Response? {
        let plan = plan(request)
        if case .send(let response) = plan { return response }
        planned = (request, plan)
        return nil
    }

    func handle(_ request: Request, _ reply: consuming Reply) async {
        let plan: Plan
        if let planned, planned.request === request {
            plan = planned.plan
            self.planned = nil
        } else {
            plan = self.plan(request)
        }
        await plan.carryOut(reply)
    }

    func refusal(of request: Request?, for problem: RequestProblem) -> Response {
        let text = "\(problem.status) \(problem.message)"
        return Response(status: problem.status, contentType: "text/plain; charset=utf-8", text)
    }

    // MARK: Planning

    private func plan(_ request: Request) -> Plan {
        let arrival = EventLoop.monotonicNanoseconds()
        let path = Router.decoded(request.path)
        if path == "/control" { return control(request) }
        if case .bytes(let bytes) = request.body { counts.bytesReceived += bytes.count }

        let added: [Headers.Field]
        switch Origins.judge(request) {
        case .admitted(let fields): added = fields
        case .answered(let status, let fields):
            counts.count(request.method, path)
            return .send(Response(status: status, headers: Headers(fields)))
        }
        switch Router.match(request.method, path) {
        case .endpoint(let endpoint, let pattern):
            counts.count(request.method, pattern)
            let fault = takeFault(for: path, isInference: endpoint.isInference)
            return plan(Call(request: request, endpoint: endpoint, arrival: arrival, fault: fault, added: added))
        case .redirect(let other):
            counts.count(request.method, path)
            return redirect(request, to: other)
        case .wrongMethod(let allowed):
            counts.count(request.method, path)
            return nothing(request, 405, "405 method not allowed", [("Allow", allowed)] + added)
        case .unknown:
            counts.count(request.method, path)
            return nothing(request, 404, "404 page not found", added)
        }
    }

    private func plan(_ call: Call) -> Plan {
        guard let fault = call.fault else { return plainPlan(call) }
        switch fault.kind {
        case .status:
            return call.answer(Failure(status: fault.status, message: fault.message))
        case .hangHeader:
            return .work { [self] reply in await hang(reply) }
        case .garbageTags:
            return call.answer(200, "application/json; charset=utf-8", Array(#"{"models":[{"name":"llam"#.utf8))
        case .slowTags:
            return .work { [self] reply in
                try? await Loop.sleep(for: .nanoseconds(Int64(fault.milliseconds * 1_000_000)))
                await plainPlan(call).carryOut(reply)
            }
        case .hang, .cut, .errorLine, .silentEnd:
            return damaged(plainPlan(call), for: call)
        }
    }

    /// What the box would answer if all were well; errors are answers too.
    private func plainPlan(_ call: Call) -> Plan {
        do {
            return try dispatch(call)
        } catch let failure as Failure {
            return call.answer(failure)
        } catch let problem as JSONProblem {
            return call.answer(Failure(status: 400, message: problem.message, isEarly: true))
        } catch {
            return call.answer(Failure(status: 500, message: "\(error)"))
        }
    }

    private func dispatch(_ call: Call) throws -> Plan {
        switch call.endpoint {
        case .root: call.answer(200, "text/plain; charset=utf-8", Array("Ollama is running".utf8))
        case .version: call.answer(json: ["version": "0.33.0"])
        case .status: call.answer(json: ["cloud": ["disabled": false, "source": "none"]])
        case .account: call.answer(.cloud)
        case .tags: tags(call)
        case .ps: ps(call)
        case .show: try show(call)
        case .copy: try copy(call)
        case .delete: try delete(call)
        case .pull: try pull(call)
        case .push: try push(call)
        case .create: try create(call)
        case .blob(let digest): blob(digest, call)
        case .generate: try generate(call)
        case .chat: try chat(call)
        case .embed: try embed(call)
        case .embeddings: try embeddings(call)
        case .chatCompletions: try chatCompletions(call)
        case .completions: try completions(call)
        case .openAIEmbeddings: try openAIEmbeddings(call)
        case .responses: try responses(call)
        case .messages: try messages(call)
        case .models: models(call)
        case .model(let name): try model(name, call)
        }
    }

    // MARK: Where there is nothing

    private func nothing(_ request: Request, _ status: Int, _ text: String, _ fields: [Headers.Field]) -> Plan {
        let headers = Headers([("Content-Type", "text/plain")] + fields)
        if request.method == "HEAD" {
            return .send(Response(status: status, headers: headers, declaredLength: text.utf8.count))
        }
        return .send(Response(status: status, headers: headers, body: Bytes(text)))
    }

    private func redirect(_ request: Request, to path: String) -> Plan {
        let target = path + request.target.drop { $0 != "?" }
        guard request.method == "GET" else {
            return .send(Response(status: 307, headers: ["Location": target]))
        }
        let headers: Headers = ["Content-Type": "text/html; charset=utf-8", "Location": target]
        let body = Bytes("<a href=\"\(target)\">Moved Permanently</a>.\n\n")
        return .send(Response(status: 301, headers: headers, body: body))
    }
}
