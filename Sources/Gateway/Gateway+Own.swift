import EventLoop
import HTTPCore

/// What the gateway answers itself, about itself.
extension Gateway {
    /// Bytes that a request to the gateway itself may carry: they are read and not looked at.
    static let ownBody = 64 * 1024

    func isOwn(_ path: String) -> Bool {
        Route(path: path).isOwn
    }

    func ownAnswer(_ request: Request) -> Response? {
        // No tunnels: what would follow is not HTTP.
        if request.method == "CONNECT" { return refuse(405, "CONNECT is not supported") }
        if isOwn(request.path), isDisguised(request), request.path != "/health", request.path != "/ready" {
            return refuse(403, "this gateway is not known as '\(request.header("host") ?? "")' to its own machine")
        }
        switch request.path {
        case "/" where request.isReading:
            return greeting
        case "/health":
            return only(["GET", "HEAD"], request) {
                let now = Timestamp.utc(clock(), fraction: .microseconds, zone: "+00:00")
                return json(200, #"{"status":"healthy","timestamp":"\#(now)"}"#)
            }
        case "/metrics", "/gateway/events":
            guard settings.metrics else { return refuse(404, "nothing is counted (--no-metrics)") }
            // What has to wait is answered by `handle`.
            return request.isReading ? nil : notAllowed(["GET", "HEAD"])
        case "/gateway":
            return only(["GET", "HEAD"], request) {
                Response(status: 308, headers: ["Location": "/gateway/"])
            }
        case "/gateway/":
            guard settings.metrics else { return refuse(404, "there is no page without metrics (--no-metrics)") }
            return only(["GET", "HEAD"], request) { LivePage.response }
        case "/ready":
            return only(["GET", "HEAD"], request) {
                fleet.isReady ? json(200, #"{"ready":true}"#) : json(503, #"{"ready":false}"#)
            }
        case "/gateway/status":
            return only(["GET", "HEAD"], request) { status(request) }
        case let path where path.hasPrefix("/gateway/backends/"):
            return only(["POST"], request) { drain(request) }
        case "/gateway/cache":
            return only(["DELETE"], request) { purge(request) }
        case let path where isOwn(path):
            return refuse(404, "the gateway has no \(path)")
        default:
            return nil
        }
    }

    private func only(_ methods: [String], _ request: Request, _ answer: () -> Response) -> Response {
        methods.contains(request.method) ? answer() : notAllowed(methods)
    }

    private func notAllowed(_ methods: [String]) -> Response {
        refuse(405, "method not allowed", ["Allow": methods.joined(separator: ", ")])
    }

    private func json(_ status: Int, _ text: String) -> Response {
        Response(status: status, contentType: "application/json", text)
    }

    func refuse(_ status: Int, _ message: String, _ fields: Headers = [:]) -> Response {
        var headers: Headers = ["Content-Type": "application/json"]
        headers.append(fields)
        return Response(
            status: status, headers: headers,
            body: Bytes(Dialect.native.body(status: status, message: message, id: "")))
    }

    /// Whether a request comes from this machine, until there are keys. A page in a browser on it does not.
    private func isFromHere(_ request: Request) -> Bool {
        // Behind a proxy on this machine everybody is.
        request.peer.isLoopback && !isForwarded(request) && request.header("origin") == nil
            && Gateway.isLocal(request.header("host"))
    }

    private func isForwarded(_ request: Request) -> Bool {
        request.header("x-forwarded-for") != nil || request.header("forwarded") != nil
            || request.header("via") != nil
    }

    /// Whether it may be a page's in a browser on this machine, whose name has been made to lead here, so that the page
    /// can read what it is told. Source: DNS rebinding.
    private func isDisguised(_ request: Request) -> Bool {
        guard request.peer.isLoopback, let host = request.header("host"), !Gateway.isLocal(host) else { return false }
        // Names without a dot, and addresses, nobody can make lead elsewhere.
        let name = host.prefix { $0 != ":" }
        return !isForwarded(request) && !host.hasPrefix("[") && name.contains(".")
            && !name.allSatisfy { $0.isNumber || $0 == "." } && !name.hasSuffix(".localhost")
    }

    /// Empties the cache, or forgets one model's answers.
    private func purge(_ request: Request) -> Response {
        guard isFromHere(request) else { return refuse(403, "purging is for clients on the gateway's own machine") }
        let query = request.target.drop { $0 != "?" }.dropFirst()
        guard !query.isEmpty else {
            let count = worker.enter { $0.purge() }
            fleet.notices?.note(.notice, "the cache is emptied: \(count) answers are forgotten")
            return json(200, #"{"purged":\#(count)}"#)
        }
        guard query.hasPrefix("model="), !query.contains("&"),
            let name = String(query.dropFirst(6)).percentDecoded(isQuery: true), !name.isEmpty
        else {
            return refuse(400, "unknown query '\(query)'; allowed is model=NAME")
        }
        let count = worker.enter { $0.purge(model: ModelName(name)) }
        fleet.notices?.note(.notice, "answers of \(name.prefix(200)) are forgotten: \(count)")
        return json(200, #"{"purged":\#(count)}"#)
    }

    /// Takes a backend out, or puts it back.
    private func drain(_ request: Request) -> Response {
        guard isFromHere(request) else { return refuse(403, "draining is for clients on the gateway's own machine") }
        let rest = request.path.dropFirst("/gateway/backends/".count)
        guard let slash = rest.lastIndex(of: "/"), ["/drain", "/resume"].contains(rest[slash...]) else {
            return refuse(
                404, "the gateway has no \(request.path); allowed are /gateway/backends/NAME/drain and /resume")
        }
        let name = String(rest[..<slash])
        guard let backend = fleet.backends.firstIndex(where: { $0.name == name }) else {
            let names = fleet.backends.map(\.name).joined(separator: ", ")
            return refuse(404, "there is no backend '\(name)'; there are \(names)")
        }
        fleet.drain(backend, rest[slash...] == "/drain")
        return json(200, fleet.status(of: backend))
    }

    private func status(_ request: Request) -> Response {
        let state = worker.enter { $0.cacheGauges }
        if request.header("accept")?.hasPrefix("text/plain") == true {
            return Response(status: 200, contentType: "text/plain; charset=utf-8", fleet.statusTable(state))
        }
        let body = statuses.bytes(for: 0) { Bytes(fleet.status(state)) }
        return Response(status: 200, headers: ["Content-Type": "application/json"], body: body)
    }
}

// MARK: Metrics, and what the page shows

extension Gateway {
    /// What Prometheus scrapes.
    func exposition(_ request: Request) async -> Response {
        let format = Exposition.Format(accept: request.header("accept"))
        let process = await surroundings?.processFacts()
        let body = expositions.bytes(for: format) { exposition(format, process) }
        return Response(status: 200, headers: ["Content-Type": format.contentType], body: body)
    }

    func exposition(_ format: Exposition.Format, _ process: ProcessFacts? = nil) -> Bytes {
        var gauges = Gauges(version: surroundings?.version ?? "")
        gauges.process = process
        gauges.connections = surroundings?.connections ?? (0, 0)
        gauges.turns = Loop.events.turns
        gauges.queue = (fleet.queue.waiting, fleet.queue.limit)
        gauges.backends = fleet.gauges()
        gauges.loads = fleet.loads()
        gauges.cache = worker.enter { $0.cacheGauges }
        gauges.spans = (tracer.exporter?.exported ?? 0, tracer.exporter?.dropped ?? 0)
        return metrics.exposition(gauges, format)
    }

    /// The page's stream of events, for as long as its client stays.
    func serveEvents(_ request: Request, _ reply: consuming Reply, id: String, at start: Int64) async {
        guard request.method == "GET" else {
            return send(Response(status: 200, headers: Live.headers), request, reply, id: id, at: start)
        }
        guard live.hasRoom(for: request.peer) else {
            let response = refuse(503, "as many watch as may (\(Live.watchersAtMost))", ["Retry-After": "10"])
            return send(response, request, reply, id: id, at: start)
        }
        await live.serve(request.peer, reply)
        finish(Response(status: 200), request, id: id, at: start)
    }

    /// Of what is about the gateway itself.
    func send(_ response: Response, _ request: Request, _ reply: consuming Reply, id: String, at start: Int64) {
        finish(response, request, id: id, at: start)
        reply.send(response)
    }
}

extension Gateway {
    /// Whether a `Host` names this machine to itself; else the name may be anybody's that leads here.
    static func isLocal(_ host: String?) -> Bool {
        guard let host else { return true }
        let colon = host.lastIndex(of: ":").flatMap { host[$0...].contains("]") ? nil : $0 }
        let port = colon.map { host[$0...].dropFirst() } ?? ""
        guard port.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return false }
        let name = host[..<(colon ?? host.endIndex)].lowercased()
        if ["localhost", "[::1]", "unix"].contains(name) { return true }
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}
