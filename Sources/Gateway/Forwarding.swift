import EventLoop
import HTTPCore

/// Which header fields pass through the gateway, and which it adds.
/// Source: RFC 9110 section 7.6.1; Ollama's `server/routes.go` on `Origin` and `Host`.
enum Forwarding {
    /// Said between neighbours, never passed on.
    private static let hopByHop = [
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade",
    ]

    /// Not for the box: it gets its own `Host` and length; the gateway has answered `Expect`; and Ollama refuses
    /// origins it does not know, while it is the gateway that browsers talk to.
    private static let notForTheBox = hopByHop + ["host", "content-length", "expect", "origin"]

    private static let notForTheClient = hopByHop + ["content-length"]

    /// A client's request as a box gets it.
    /// - Parameter trace: of the call.
    @Loop
    static func request(
        _ request: Request, id: String, to backend: Backend, mayBeRepeated: Bool, _ trace: TraceContext?
    ) -> ClientRequest {
        var forwarded = ClientRequest(
            method: request.method, origin: backend.origin, target: request.target,
            headers: Forwarding.request(request.headers, peer: request.peer, id: id), body: request.body)
        forwarded.mayBeRepeated = mayBeRepeated
        trace?.name(in: &forwarded.headers)
        return forwarded
    }

    /// What the box gets to see of a client's header.
    static func request(_ headers: Headers, peer: PeerAddress, id: String) -> Headers {
        var result = filtered(headers, without: notForTheBox)
        let via = result.values("x-forwarded-for").filter { !$0.isEmpty } + [peer.description]
        result.set("X-Forwarded-For", via.joined(separator: ", "))
        if result["x-forwarded-proto"] == nil { result.append("X-Forwarded-Proto", "http") }
        if result["x-forwarded-host"] == nil, let host = headers["host"] { result.append("X-Forwarded-Host", host) }
        result.set("X-Request-Id", id)
        return result
    }

    /// What any client gets to see of a box's header.
    static func response(_ headers: Headers) -> Headers { filtered(headers, without: notForTheClient) }

    /// What the client of a request gets to see of a box's header.
    static func response(_ headers: Headers, id: String) -> Headers {
        var result = response(headers)
        if result["x-request-id"] == nil { result.append("X-Request-Id", id) }
        return result
    }

    private static func filtered(_ headers: Headers, without names: [String]) -> Headers {
        let nominated = headers.values("connection").flatMap { value in
            value.split { $0 == "," || $0 == " " || $0 == "\t" }.map(String.init)
        }
        var result = Headers()
        result.reserve(headers.count + 4)
        for field in headers.fields where !contains(names, field.name) && !contains(nominated, field.name) {
            result.append(field.name, field.value)
        }
        return result
    }

    private static func contains(_ names: [String], _ name: String) -> Bool {
        let length = name.utf8.count
        for candidate in names where candidate.utf8.count == length && Headers.same(candidate, name) { return true }
        return false
    }
}
