import HTTPCore

// What a trace tells of a request and of the calls to backends: nothing of what was said in it, and no query strings.
// Source: OpenTelemetry's semantic conventions for HTTP spans (stable) and for generative AI (in development).

extension Span {
    /// Every name of an attribute.
    enum Key: String, Sendable {
        case method = "http.request.method"
        case originalMethod = "http.request.method_original"
        case resends = "http.request.resend_count"
        case statusCode = "http.response.status_code"
        case bodySize = "http.response.body.size"
        case route = "http.route"
        case scheme = "url.scheme"
        case path = "url.path"
        case url = "url.full"
        case clientAddress = "client.address"
        case serverAddress = "server.address"
        case serverPort = "server.port"
        case errorType = "error.type"

        case operation = "gen_ai.operation.name"
        case provider = "gen_ai.provider.name"
        case model = "gen_ai.request.model"
        case inputTokens = "gen_ai.usage.input_tokens"
        case outputTokens = "gen_ai.usage.output_tokens"

        case requestID = "ollama_gateway.request_id"
        /// `hit`, `stale`, `coalesced`, `miss`, `bypass`.
        case cache = "ollama_gateway.cache"
        /// By its name.
        case backend = "ollama_gateway.backend"
        /// Backends that were asked.
        case tries = "ollama_gateway.tries"
        /// In seconds.
        case queueWait = "ollama_gateway.queue_wait"
        /// In seconds.
        case firstByte = "ollama_gateway.time_to_first_byte"
        /// It did not wait for the end.
        case clientLeft = "ollama_gateway.client_left"
    }

    /// A request, from its coming to the end of its answer.
    ///
    /// Tokens stand at the calls: who adds them up over a trace, or over all, counts each once.
    ///
    /// - Parameters:
    ///   - context: its own; `parent` is the span id in what the client sent.
    ///   - start: microseconds since 1970; all other times are microseconds, too.
    ///   - target: as it came; the query is left out here.
    ///   - route: from a small set: the path of an endpoint, with `{placeholders}`; nil for what has none.
    ///   - status: as it was sent; ``Failure/clientLeft`` if the client was gone first.
    ///   - hasLeft: whether it was, where a box may have said the same of somebody else.
    ///   - errorType: from a small set; nil for the status itself.
    ///   - error: what went wrong, if it was not the client's fault.
    static func request(
        _ context: TraceContext, parent: UInt64?, start: Int64, duration: Int64, id: String, method: String,
        target: String, route: String?, client: String, endpoint: Endpoint? = nil, model: String? = nil, status: Int,
        hasLeft: Bool? = nil, cache: String? = nil, backend: String? = nil, tries: Int = 0, queueWait: Int64? = nil,
        firstByte: Int64? = nil, bytes: Int, errorType: String? = nil, error: String? = nil
    ) -> Span {
        let known = Span.known(method)
        let name = route.map { "\(known ?? "HTTP") \($0)" } ?? known ?? "HTTP"
        var span = Span(.server, name, context, parent: parent, start: start, duration: duration)
        span.tell(method: method)
        span.tell(.scheme, "http")
        span.tell(.path, target.withoutQuery)
        span.tell(.route, route)
        span.tell(.clientAddress, client)
        span.tell(.requestID, id)
        span.tell(endpoint, model)
        span.tell(.cache, cache?.lowercased())
        span.tell(.backend, backend)
        if tries > 0 { span.tell(.tries, tries) }
        span.tell(.queueWait, microseconds: queueWait)
        span.tell(.firstByte, microseconds: firstByte)
        span.tell(.bodySize, bytes)
        guard !(hasLeft ?? (status == Failure.clientLeft)) else {
            span.tell(.clientLeft, true)
            return span
        }
        span.tell(.statusCode, status)
        // What a client did wrong is no error of this server's.
        if status >= 500 {
            span.fail(errorType ?? String(status), error)
        } else if status < 400, let error {
            span.fail(errorType ?? "_OTHER", error)
        }
        return span
    }

    /// A call to a backend, made for a request. It may be one of several.
    /// - Parameters:
    ///   - context: its own, which the backend was told; `parent` is the request's span.
    ///   - start: microseconds since 1970, when it was sent; all other times are microseconds, too.
    ///   - number: 1 for the request's first call.
    ///   - status: nil if no answer came.
    ///   - clientLeft: whether it was ended because nobody waits for it any more, which is no failure.
    ///   - errorType: from a small set, if it failed; nil for the status itself.
    ///   - error: what went wrong, if something did.
    static func attempt(
        _ context: TraceContext, parent: UInt64?, start: Int64, duration: Int64, method: String, target: String,
        backend: Backend, number: Int, endpoint: Endpoint? = nil, model: String? = nil, status: Int?,
        queueWait: Int64? = nil, firstByte: Int64? = nil, inputTokens: Int? = nil, outputTokens: Int? = nil,
        clientLeft: Bool = false, errorType: String? = nil, error: String? = nil
    ) -> Span {
        var name = Span.known(method) ?? "HTTP"
        if let endpoint { name = [endpoint.operation, model].compactMap { $0 }.joined(separator: " ") }
        var span = Span(.client, clipped(name), context, parent: parent, start: start, duration: duration)
        span.tell(method: method)
        span.tell(.url, backend.origin + target.withoutQuery)
        let (host, port) = backend.server
        span.tell(.serverAddress, host)
        span.tell(.serverPort, port)
        span.tell(.backend, backend.name)
        if number > 1 { span.tell(.resends, number - 1) }
        span.tell(endpoint, model)
        if endpoint != nil { span.tell(.provider, "ollama") }
        span.tell(.inputTokens, inputTokens)
        span.tell(.outputTokens, outputTokens)
        span.tell(.queueWait, microseconds: queueWait)
        span.tell(.firstByte, microseconds: firstByte)
        span.tell(.statusCode, status)
        if clientLeft {
            span.tell(.clientLeft, true)
        } else if let status, status >= 400 {
            span.fail(errorType ?? String(status), error)
        } else if status == nil || error != nil {
            span.fail(errorType ?? "_OTHER", error)
        }
        return span
    }

    private mutating func tell(method: String) {
        tell(.method, Span.known(method) ?? "_OTHER")
        if Span.known(method) == nil { tell(.originalMethod, method) }
    }

    private mutating func tell(_ endpoint: Endpoint?, _ model: String?) {
        tell(.operation, endpoint?.operation)
        tell(.model, model)
    }

    /// Others are no names: anybody can make up as many as they like.
    private static func known(_ method: String) -> String? {
        switch method {
        case "GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE": method
        default: nil
        }
    }
}

extension Endpoint {
    /// What OpenTelemetry calls it; it has no word for transcriptions.
    var operation: String {
        switch self {
        case .chat, .chatCompletions, .responses, .messages: "chat"
        case .generate, .completions: "text_completion"
        case .embed, .embeddings, .openAIEmbeddings: "embeddings"
        case .transcriptions: "transcription"
        }
    }
}

extension Backend {
    /// Host, without the brackets of an IPv6 address, and port.
    var server: (host: String, port: Int) {
        let isSecure = origin.hasPrefix("https:")
        let authority = origin.dropFirst(isSecure ? 8 : 7).prefix { $0 != "/" }
        let colon = authority.lastIndex(of: ":").flatMap { authority[$0...].contains("]") ? nil : $0 }
        let host = authority[..<(colon ?? authority.endIndex)]
        let port = colon.flatMap { Int(authority[$0...].dropFirst()) } ?? (isSecure ? 443 : 80)
        return (String(host.hasPrefix("[") ? host.dropFirst().dropLast() : host), port)
    }
}
