import FoundationEssentials

/// The three forms of an error, read as a client reads them.
struct NativeError: Decodable {
    let error: String
}

struct OpenAIError: Decodable {
    struct Detail: Decodable {
        let message: String
        let type: String
        let param: String?
        let code: String?
    }
    let error: Detail
}

struct AnthropicError: Decodable {
    struct Detail: Decodable {
        let type: String
        let message: String
    }
    let type: String
    let error: Detail
    let requestID: String

    enum CodingKeys: String, CodingKey {
        case type, error
        case requestID = "request_id"
    }
}

func decode<Value: Decodable>(_ type: Value.Type = Value.self, _ json: some StringProtocol) throws -> Value {
    try JSONDecoder().decode(type, from: Data(json.utf8))
}
