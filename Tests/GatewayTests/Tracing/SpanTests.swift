import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What a span tells, and what it does not.
@Suite struct SpanTests {
    static let context = TraceContext.make(sampled: true)

    private func request(
        method: String = "POST", target: String = "/api/chat", route: String? = "/api/chat",
        endpoint: Endpoint? = .chat,
        model: String? = "llama3.2:latest", status: Int = 200, cache: String? = "MISS", backend: String? = "box:1",
        tries: Int = 1, errorType: String? = nil, error: String? = nil
    ) -> Span {
        Span.request(
            Self.context, parent: 7, start: 1_770_050_836_414_524, duration: 1_500_000, id: "mine", method: method,
            target: target, route: route, client: "192.0.2.1", endpoint: endpoint, model: model, status: status,
            cache: cache, backend: backend, tries: tries, queueWait: 250_000, firstByte: 500_000, bytes: 4711,
            errorType: errorType, error: error)
    }

    private func attempt(
        backend: String = "http://box:1", target: String = "/api/chat", number: Int = 1, endpoint: Endpoint? = .chat,
        model: String? = "llama3.2:latest", status: Int? = 200, clientLeft: Bool = false, errorType: String? = nil,
        error: String? = nil
    ) throws -> Span {
        Span.attempt(
            Self.context, parent: 9, start: 1_000_000, duration: 2, method: "POST", target: target,
            backend: try Backend(backend), number: number, endpoint: endpoint, model: model, status: status,
            queueWait: 1, firstByte: 2, inputTokens: 26, outputTokens: 298, clientLeft: clientLeft,
            errorType: errorType, error: error)
    }

    @Test func `a request is told by its conventional names`() {
        let span = request()
        #expect(span.name == "POST /api/chat")
        #expect(span.kind == .server)
        #expect(span.context == Self.context)
        #expect(span.parent == 7)
        #expect(span.start == 1_770_050_836_414_524_000)
        #expect(span.end == 1_770_050_837_914_524_000)
        #expect(span.status == .unset)
        #expect(
            span.told == [
                "http.request.method=POST", "url.scheme=http", "url.path=/api/chat", "http.route=/api/chat",
                "client.address=192.0.2.1", "ollama_gateway.request_id=mine", "gen_ai.operation.name=chat",
                "gen_ai.request.model=llama3.2:latest", "ollama_gateway.cache=miss", "ollama_gateway.backend=box:1",
                "ollama_gateway.tries=1", "ollama_gateway.queue_wait=0.25", "ollama_gateway.time_to_first_byte=0.5",
                "http.response.body.size=4711", "http.response.status_code=200",
            ])
    }

    @Test func `what is not known of a request is not told`() {
        let span = Span.request(
            Self.context, parent: nil, start: 1, duration: 2, id: "x", method: "GET", target: "/", route: nil,
            client: "unix", status: 200, bytes: 17)
        #expect(span.name == "GET")
        #expect(span.parent == nil)
        #expect(
            span.told == [
                "http.request.method=GET", "url.scheme=http", "url.path=/", "client.address=unix",
                "ollama_gateway.request_id=x", "http.response.body.size=17", "http.response.status_code=200",
            ])
    }

    @Test func `a call is told by its conventional names`() throws {
        let span = try attempt()
        #expect(span.name == "chat llama3.2:latest")
        #expect(span.kind == .client)
        #expect(span.parent == 9)
        #expect(span.start == 1_000_000_000)
        #expect(span.end == 1_000_002_000)
        #expect(span.status == .unset)
        #expect(
            span.told == [
                "http.request.method=POST", "url.full=http://box:1/api/chat", "server.address=box", "server.port=1",
                "ollama_gateway.backend=box:1", "gen_ai.operation.name=chat", "gen_ai.request.model=llama3.2:latest",
                "gen_ai.provider.name=ollama", "gen_ai.usage.input_tokens=26", "gen_ai.usage.output_tokens=298",
                "ollama_gateway.queue_wait=1e-06", "ollama_gateway.time_to_first_byte=2e-06",
                "http.response.status_code=200",
            ])
    }

    @Test func `a call that asks no model has the method for a name`() throws {
        let span = try attempt(target: "/api/show", endpoint: nil, model: nil)
        #expect(span.name == "POST")
        #expect(!span.told.contains { $0.hasPrefix("gen_ai.operation") || $0.hasPrefix("gen_ai.provider") })
    }

    @Test func `a call after another that failed says so`() throws {
        #expect(!(try attempt(number: 1).told.contains { $0.hasPrefix("http.request.resend_count") }))
        #expect(try attempt(number: 3).told.contains("http.request.resend_count=2"))
    }

    @Test(arguments: ["/api/chat?key=secret", "/api/chat?", "/api/chat?a?b"])
    func `no query is told`(target: String) throws {
        #expect(request(target: target).told.contains("url.path=/api/chat"))
        #expect(try attempt(target: target).told.contains("url.full=http://box:1/api/chat"))
    }

    @Test(arguments: ["BREW", "get", ""]) func `a method that anybody made up names nothing`(method: String) {
        let span = request(method: method, route: nil)
        #expect(span.name == "HTTP")
        #expect(span.told.starts(with: ["http.request.method=_OTHER", "http.request.method_original=\(method)"]))
        #expect(request(method: method).name == "HTTP /api/chat")
    }

    @Test(
        arguments: [
            (200, nil, nil, .unset, nil),
            (404, nil, "no such model", .unset, nil),
            (429, "rate_limit", "too many", .unset, nil),
            (500, nil, nil, .error(""), "500"),
            (503, "queue_full", "the queue is full", .error("the queue is full"), "queue_full"),
            (502, nil, "cannot connect", .error("cannot connect"), "502"),
            (200, "lost", "connection lost amid the answer", .error("connection lost amid the answer"), "lost"),
            (200, nil, "broken", .error("broken"), "_OTHER"),
        ] as [(Int, String?, String?, Span.Status, String?)])
    func `a request is an error if it failed on this side of the client`(
        code: Int, type: String?, error: String?, status: Span.Status, told: String?
    ) {
        let span = request(status: code, errorType: type, error: error)
        #expect(span.status == status)
        #expect(span.told.last { $0.hasPrefix("error.type=") } == told.map { "error.type=\($0)" })
        #expect(span.told.contains("http.response.status_code=\(code)"))
    }

    @Test func `a client that has left is told as that, and no error`() throws {
        let span = request(status: Failure.clientLeft, error: "the client left")
        #expect(span.status == .unset)
        #expect(span.told.last == "ollama_gateway.client_left=true")
        #expect(!span.told.contains { $0.hasPrefix("http.response.status_code") })
        let call = try attempt(status: nil, clientLeft: true, error: "the client left")
        #expect(call.status == .unset)
        #expect(call.told.last == "ollama_gateway.client_left=true")
    }

    @Test(
        arguments: [
            (404, nil, nil, .error(""), "404"), (503, "busy", "busy", .error("busy"), "busy"),
            (nil, "connect", "cannot connect", .error("cannot connect"), "connect"),
            (nil, nil, nil, .error(""), "_OTHER"),
            (200, "lost", "connection lost", .error("connection lost"), "lost"),
        ] as [(Int?, String?, String?, Span.Status, String)])
    func `a call is an error if there is no good answer`(
        code: Int?, type: String?, error: String?, status: Span.Status, told: String
    ) throws {
        let span = try attempt(status: code, errorType: type, error: error)
        #expect(span.status == status)
        #expect(span.told.last == "error.type=\(told)")
    }

    @Test(arguments: [
        ("box", "box", 11434), ("http://box", "box", 80), ("https://box/p", "box", 443),
        ("https://box:8443", "box", 8443),
        ("[::1]:5", "::1", 5), ("http://[fe80::1%25eth0]", "fe80::1%25eth0", 80), ("https://[::1]/a:b", "::1", 443),
        ("192.0.2.1:80", "192.0.2.1", 80),
    ])
    func `a backend's address is told as host and port`(text: String, host: String, port: Int) throws {
        let server = try Backend(text).server
        #expect(server.host == host)
        #expect(server.port == port)
    }

    @Test(arguments: Endpoint.allCases) func `every endpoint has an operation`(endpoint: Endpoint) {
        #expect(["chat", "text_completion", "embeddings", "transcription"].contains(endpoint.operation))
        #expect((endpoint.operation == "embeddings") == endpoint.isEmbedding)
    }

    @Test func `texts are cut to a bearable length, between two characters`() throws {
        #expect(Span.clipped(String(repeating: "x", count: 1024)).utf8.count == 1024)
        for (character, size) in [("x", 1), ("é", 2), ("€", 3), ("😀", 4)] {
            for offset in 0..<4 {
                let text = String(repeating: "a", count: offset) + String(repeating: character, count: 2000)
                let clipped = Span.clipped(text)
                #expect(text.utf8.starts(with: clipped.utf8))
                #expect((1025 - size...1024).contains(clipped.utf8.count))
                #expect(clipped.unicodeScalars.last == character.unicodeScalars.first)
            }
        }
        let long = String(repeating: "m", count: 1 << 20)
        let call = try attempt(model: long, status: 500, error: long)
        #expect(call.name.utf8.count == 1024)
        #expect(call.told.allSatisfy { $0.utf8.count < 1100 })
        #expect(call.status == .error(String(repeating: "m", count: 1024)))
    }

    @Test func `a clock that goes back makes no span that ends before it begins`() {
        let span = Span(.server, "x", Self.context, parent: nil, start: -5, duration: -7)
        #expect(span.start == 0)
        #expect(span.end == 0)
    }
}

extension Span {
    /// Its attributes as `key=value`.
    var told: [String] {
        attributes.map { attribute in
            switch attribute.value {
            case .string(let text): "\(attribute.key.rawValue)=\(text)"
            case .int(let number): "\(attribute.key.rawValue)=\(number)"
            case .double(let number): "\(attribute.key.rawValue)=\(number)"
            case .bool(let fact): "\(attribute.key.rawValue)=\(fact)"
            }
        }
    }
}
