/// The paths at which Ollama makes a model work: those that are limited, queued and, but for some, cached.
package enum Endpoint: String, CaseIterable, Sendable {
    case generate = "/api/generate"
    case chat = "/api/chat"
    case embed = "/api/embed"
    case embeddings = "/api/embeddings"
    case chatCompletions = "/v1/chat/completions"
    case completions = "/v1/completions"
    case openAIEmbeddings = "/v1/embeddings"
    case responses = "/v1/responses"
    case messages = "/v1/messages"
    case transcriptions = "/v1/audio/transcriptions"

    /// Its place in `allCases`.
    var index: Int {
        switch self {
        case .generate: 0
        case .chat: 1
        case .embed: 2
        case .embeddings: 3
        case .chatCompletions: 4
        case .completions: 5
        case .openAIEmbeddings: 6
        case .responses: 7
        case .messages: 8
        case .transcriptions: 9
        }
    }

    /// Whether its answers can be kept: those of the others depend on more than the request, or are not understood.
    var isCacheable: Bool {
        switch self {
        case .responses, .messages, .transcriptions: false
        default: true
        }
    }

    /// Whether an answer may come as a stream; the embeddings have one form only.
    var streams: Bool {
        switch self {
        case .generate, .chat, .chatCompletions, .completions: true
        default: false
        }
    }

    /// What Ollama does when a request says nothing of `stream`.
    var streamsByDefault: Bool { self == .generate || self == .chat }

    /// Ollama's own API: a stream is lines of JSON. Else OpenAI's: a stream is server-sent events.
    var isNative: Bool { rawValue.hasPrefix("/api/") }
}

/// How an answer is written.
package enum AnswerForm: UInt8, CaseIterable, Sendable {
    /// One JSON object.
    case whole
    /// Lines or events.
    case stream
    /// Events, and one with the numbers of tokens before the last (`stream_options.include_usage`); `/v1` only.
    case streamWithUsage

    /// What Ollama says of it.
    func contentType(of endpoint: Endpoint) -> String {
        switch (self, endpoint.isNative) {
        case (.whole, true): "application/json; charset=utf-8"
        case (.whole, false): "application/json"
        case (_, true): "application/x-ndjson"
        case (_, false): "text/event-stream"
        }
    }
}
