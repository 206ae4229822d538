import EventLoop
import HTTPCore

/// What the fleet tells of itself as if it were one Ollama.
extension Fleet {
    /// The answer to `GET` or `HEAD` of a path that is about all backends; nil if it is not.
    func answer(_ path: String) async -> Result<Response, Failure>? {
        switch path {
        case "/api/tags":
            await lookAtChanges()
            return ifKnown { json(models(named: "models", queue.balancer.directory.listed.map(\.json))) }
        case "/v1/models":
            await lookAtChanges()
            return ifKnown { openAIModels }
        case "/api/ps":
            await askWhatRuns(at: backends.indices)
            return ifKnown { json(models(named: "models", running.map(\.json))) }
        case "/api/version":
            return ifKnown { json(#"{"version":\#(JSONText.quoted(version))}"#) }
        case let path where path.hasPrefix("/v1/models/") && path.utf8.count > 11:
            return await openAIModel(String(path.dropFirst(11)))
        default:
            return nil
        }
    }

    private func json(_ text: String) -> Response {
        Response(status: 200, contentType: "application/json; charset=utf-8", text)
    }

    private func models(named name: String, _ entries: [String]) -> String {
        "{\"\(name)\":[\(entries.joined(separator: ","))]}"
    }

    /// Before any backend has said what it has, nothing can be told.
    private func ifKnown(_ answer: () -> Response) -> Result<Response, Failure> {
        queue.balancer.directory.isKnown ? .success(answer()) : .failure(unavailable(""))
    }

    func unavailable(_ model: String) -> Failure {
        let due =
            queue.balancer.candidates(for: model).map {
                max(probeDue[$0.backend], queue.balancer.backends[$0.backend].restsUntil)
            }.min() ?? .max
        let time = now()
        let wait = due == .max || due <= time ? 1 : Int((due - time) / 1_000_000_000) + 1
        let isKnown = queue.balancer.directory.entries[model] != nil
        let what =
            model.isEmpty
            ? "no backend is available"
            : isKnown ? "no backend that has \(model) is available" : "\(model) is not on the backends that answer"
        return Failure(
            status: 503, message: "\(what): \(unavailability(of: model))", retryAfter: min(wait, 3600),
            .noBackend)
    }

    // MARK: Models

    /// Waits until it is known what the requests have done that change models.
    private func lookAtChanges() async {
        let changing = changing.keys.filter { queue.balancer.backends[$0].isServing }
        if !changing.isEmpty { await waitAWhile { await self.probeAfresh(changing) } }
    }

    private var openAIModels: Response {
        let entries = queue.balancer.directory.listed.map { openAI($0, id: $0.shown) }
        let list = #"{"object":"list",\#(models(named: "data", entries).dropFirst())"#
        return Response(status: 200, contentType: "application/json", list + "\n")
    }

    private func openAI(_ listing: Listing, id: String) -> String {
        let namespace = id.contains("/") ? String(id.split(separator: "/").dropLast().last ?? "library") : "library"
        return #"{"id":\#(JSONText.quoted(id)),"object":"model","created":\#(listing.modified / 1_000_000),"#
            + #""owned_by":\#(JSONText.quoted(namespace))}"#
    }

    private func openAIModel(_ name: String) async -> Result<Response, Failure> {
        await lookAtChanges()
        let model = ModelName(name).description
        _ = await holders(of: model)
        if mayBeElsewhere(model) { return .failure(unavailable(model)) }
        guard queue.balancer.directory.isKnown else { return .failure(unavailable("")) }
        guard let listing = queue.balancer.directory.entries[model]?.listing else {
            return .failure(Failure(noModel: ModelName(name)))
        }
        return .success(
            Response(status: 200, contentType: "application/json", openAI(listing, id: name) + "\n"))
    }

    // MARK: What runs

    /// Models that are loaded anywhere: one entry for each, longest to live first.
    var running: [RunningModel] {
        struct Identity: Hashable {
            let name: String
            let digest: String
        }
        var found: [Identity: RunningModel] = [:]
        for backend in backends.indices where queue.balancer.backends[backend].isServing {
            for model in reports[backend].running {
                let identity = Identity(name: model.name, digest: model.digest)
                if let other = found[identity], other.expires >= model.expires { continue }
                found[identity] = model
            }
        }
        return found.values.sorted { ($0.expires, $1.name) > ($1.expires, $0.name) }
    }

    // MARK: Version

    /// The lowest of those that are known: what all of them can do.
    var version: String {
        let serving = backends.indices.filter { queue.balancer.backends[$0].isServing }
        let known = (serving.isEmpty ? Array(backends.indices) : serving).compactMap { reports[$0].version }
        return known.min { Fleet.numbers($0).lexicographicallyPrecedes(Fleet.numbers($1)) } ?? "0.0.0"
    }

    /// Of `0.33.0-rc2`: 0, 33, 0.
    private static func numbers(_ version: String) -> [Int] {
        version.prefix { $0.isNumber || $0 == "." }.split(separator: ".").map { Int($0) ?? 0 }
    }
}
