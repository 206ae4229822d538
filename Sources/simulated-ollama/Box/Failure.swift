import HTTPCore

/// A request that gets an error for an answer, in Ollama's words.
struct Failure: Error {
    var status: Int
    var message: String
    /// Found before the request was handed on to the native endpoint that the `/v1` paths end in: Ollama writes such
    /// errors a little differently.
    var isEarly = false
    /// Cloud models: where to sign in.
    var signIn: String?

    static let queueFull = Failure(
        status: 503, message: "server busy, please try again.  maximum pending requests exceeded")

    static func missing(_ name: String) -> Failure { Failure(status: 404, message: "model '\(name)' not found") }

    static func bad(_ message: String) -> Failure { Failure(status: 400, message: message) }

    static let cloud = Failure(
        status: 401, message: "unauthorized", signIn: "https://ollama.com/connect?name=simulated&key=none")
}

/// Whose errors an endpoint speaks.
enum Dialect: Sendable {
    case native
    case openAI
    case anthropic

    func contentType(of failure: Failure) -> String {
        self == .native || failure.isEarly ? "application/json; charset=utf-8" : "application/json"
    }

    func body(of failure: Failure) -> [UInt8] {
        var members: [JSONObject.Member] = []
        if let signIn = failure.signIn {
            members = [("error", .string(failure.message)), ("signin_url", .string(signIn))]
            return JSONValue.object(JSONObject(members: members)).bytes
        }
        switch self {
        case .native:
            members = [("error", .string(failure.message))]
        case .openAI:
            members = [
                (
                    "error",
                    [
                        "message": .string(failure.message), "type": .string(openAIType(failure.status)),
                        "param": nil, "code": nil,
                    ]
                )
            ]
        case .anthropic:
            members = [
                ("type", "error"),
                ("error", ["type": .string(anthropicType(failure.status)), "message": .string(failure.message)]),
                ("request_id", .string("req_" + Dialect.randomDigits())),
            ]
        }
        let bytes = JSONValue.object(JSONObject(members: members)).bytes
        return self == .native || failure.isEarly ? bytes : bytes + [UInt8(ascii: "\n")]
    }

    private func openAIType(_ status: Int) -> String {
        switch status {
        case 400: "invalid_request_error"
        case 404: "not_found_error"
        default: "api_error"
        }
    }

    private func anthropicType(_ status: Int) -> String {
        switch status {
        case 400: "invalid_request_error"
        case 401: "authentication_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 429: "rate_limit_error"
        case 503, 529: "overloaded_error"
        default: "api_error"
        }
    }

    /// 24 hexadecimal digits.
    private static func randomDigits() -> String {
        String((0..<2).map { _ in String(UInt64.random(in: .min ... .max) | 1 << 63, radix: 16) }.joined().prefix(24))
    }
}
