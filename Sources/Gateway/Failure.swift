import HTTPCore

/// What went wrong, as the client is told: the one place where errors become HTTP.
struct Failure: Error {
    /// nginx's number for a client that closed its connection; it is logged and never sent.
    static let clientLeft = 499

    let status: Int
    let message: String
    /// In whole seconds: when it is worth another try.
    var retryAfter: Int?
    /// Why the gateway refused the request; nil if it did not.
    private(set) var refusal: Refusal?
    /// Told as Ollama would have: under `/v1` it writes a line feed behind an error.
    private var isOllamas = false

    init(status: Int, message: String, retryAfter: Int? = nil, _ refusal: Refusal? = nil) {
        self.status = status
        self.message = message
        self.retryAfter = retryAfter
        self.refusal = refusal
    }

    static let left = Failure(status: clientLeft, message: "the client left")
    static let ending = Failure(status: 503, message: "the gateway is shutting down", .stopping)

    /// No backend has the model, in Ollama's words. Source: `server/routes.go`, where embeddings have their own.
    init(unknownModel name: String, at endpoint: Endpoint) {
        self.init(
            status: 404,
            message: endpoint.isEmbedding
                ? "model \"\(name)\" not found, try pulling it first" : "model '\(name)' not found", .unknownModel)
        isOllamas = true
    }

    /// The same, where it is the model itself that was asked for.
    init(noModel name: ModelName) {
        self.init(status: 404, message: "model '\(name)' not found", .unknownModel)
        isOllamas = true
    }

    /// What the server turns away.
    init(_ problem: RequestProblem) {
        let refusal: Refusal? =
            switch problem {
            case .malformed, .unsupportedTransferCoding: .malformed
            case .bodyTooLarge: .tooLarge
            case .tooSlow: .tooSlow
            case .unanswered: nil
            }
        self.init(status: problem.status, message: problem.message, refusal)
    }

    /// - Parameter backend: its name.
    init(_ error: any Error, backend: String) {
        switch error {
        case let error as TransportError:
            status = error.kind == .firstByteTimeout ? 504 : error.kind == .local ? 500 : 502
            message = "backend \(backend): \(Failure.words(for: error))"
        case is CancellationError, is ClientLeft:
            self = .left
        default:
            status = 500
            message = "internal error: \(error)"
        }
    }

    static func words(for error: TransportError) -> String {
        let kind =
            switch error.kind {
            case .resolve: "name not known"
            case .connect: "cannot connect"
            case .connectTimeout: "cannot connect in time"
            case .tls: "no trusted TLS connection"
            case .connectionLost: error.answerBegan ? "connection lost amid the answer" : "connection lost"
            case .firstByteTimeout, .idleTimeout: "timed out"
            case .badAnswer: "the answer is not HTTP"
            case .local: "the request cannot be sent"
            }
        return error.message.isEmpty ? kind : "\(kind) (\(error.message))"
    }

    /// The answer to a request for `path`, in the words of the API that the path belongs to.
    func response(to path: String, id: String, adding fields: Headers = [:]) -> Response {
        let dialect = Dialect(path: path)
        let isLine = isOllamas && dialect != .native
        var headers: Headers = [
            "Content-Type": isLine ? "application/json" : "application/json; charset=utf-8", "X-Request-Id": id,
        ]
        if let retryAfter { headers.append("Retry-After", String(retryAfter)) }
        headers.append(fields)
        let body = dialect.body(status: status, message: message, id: id)
        return Response(status: status, headers: headers, body: Bytes(isLine ? body + "\n" : body))
    }
}

/// The three APIs, each with its own form of an error. Source: Ollama's `openai` and `anthropic`
/// packages, `NewError`.
enum Dialect {
    case native, openAI, anthropic

    init(path: String) {
        if path == "/v1/messages" || path.hasPrefix("/v1/messages/") {
            self = .anthropic
        } else if path == "/v1" || path.hasPrefix("/v1/") {
            self = .openAI
        } else {
            self = .native
        }
    }

    func body(status: Int, message: String, id: String) -> String {
        let message = JSONText.quoted(message)
        switch self {
        case .native:
            return #"{"error":\#(message)}"#
        case .openAI:
            let type =
                switch status {
                case 400: "invalid_request_error"
                case 404: "not_found_error"
                case 429: "rate_limit_error"
                default: "api_error"
                }
            let code = status == 429 ? #""rate_limit_exceeded""# : "null"
            return #"{"error":{"message":\#(message),"type":"\#(type)","param":null,"code":\#(code)}}"#
        case .anthropic:
            let type =
                switch status {
                case 400: "invalid_request_error"
                case 404: "not_found_error"
                case 413: "request_too_large"
                case 429: "rate_limit_error"
                case 503: "overloaded_error"
                default: "api_error"
                }
            let id = JSONText.quoted(id)
            return #"{"type":"error","error":{"type":"\#(type)","message":\#(message)},"request_id":\#(id)}"#
        }
    }
}

/// Text as JSON has it.
public enum JSONText {
    /// With quotation marks around it. Source: RFC 8259 section 7.
    public static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case "\u{0}"..."\u{1f}", "\u{7f}"..."\u{9f}", "\u{2028}", "\u{2029}":
                result += escaped(UInt16(scalar.value))
            // What would turn the line around, or hide in it.
            case _ where scalar.value > 0x7f && scalar != "\u{200d}" && scalar.properties.generalCategory == .format:
                for unit in String(scalar).utf16 { result += escaped(unit) }
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    private static func escaped(_ unit: UInt16) -> String {
        let digits = String(unit, radix: 16)
        return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    }
}
