/// The API's path that a request is about, without what clients make up.
struct Route: Hashable, Sendable {
    /// Its place in ``names``.
    let index: Int

    /// Those of ``Endpoint`` first, in its order.
    static let names: [String] =
        Endpoint.allCases.map(\.rawValue) + [
            "/", "/api/tags", "/api/ps", "/api/show", "/api/version", "/api/pull", "/api/push", "/api/create",
            "/api/copy", "/api/delete", "/api/blobs/{digest}", "/v1/models", "/v1/models/{model}",
        ] + ownNames + ["other"]
    private static let ownNames = ["/health", "/ready", "/metrics", "/gateway"]
    private static let indices = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })

    static let other = Route(index: names.count - 1)

    private init(index: Int) { self.index = index }

    init(_ endpoint: Endpoint) { index = endpoint.index }

    /// - Parameter path: without a query.
    init(path: String) {
        let name =
            switch path {
            case let path where path.hasPrefix("/gateway/"): "/gateway"
            case let path where path.hasPrefix("/v1/models/"): "/v1/models/{model}"
            case let path where path.hasPrefix("/api/blobs/"): "/api/blobs/{digest}"
            default: path
            }
        index = Route.indices[name] ?? Route.other.index
    }

    var name: String { Route.names[index] }
    /// What a model is asked for there; nil if none is.
    var endpoint: Endpoint? { isInference ? Endpoint.allCases[index] : nil }
    /// Whether a model is to answer.
    var isInference: Bool { index < Endpoint.allCases.count }
    /// Whether it is about the gateway itself.
    var isOwn: Bool { (Route.own..<Route.other.index).contains(index) }
    private static let own = names.count - 1 - ownNames.count
}

/// How the cache was used, as metrics tell it.
enum CacheLabel: Int, CaseIterable {
    case none, hit, stale, coalesced, miss, bypass

    init(_ use: CacheUse?) {
        self =
            switch use {
            case nil: .none
            case .hit(let ttl): ttl < 0 ? .stale : .hit
            case .coalesced: .coalesced
            case .miss, .request, .unsatisfied: .miss
            case .bypass: .bypass
            }
    }
}

/// What became of a request to a model.
enum Outcome: Int, CaseIterable {
    case hit, coalesced, answered, refused, failed, cancelled

    init(_ record: AccessRecord) {
        self =
            switch (record.status, record.use) {
            case _ where record.hasLeft: .cancelled
            // It asked for nothing else.
            case _ where record.refusal == .notCached: .refused
            case (500..., _): .failed
            case (400..., _): .refused
            case (_, .hit): .hit
            case _ where record.error != nil: .failed
            case (_, .coalesced): .coalesced
            default: .answered
            }
    }
}

/// Why a request was refused.
enum Refusal: String, CaseIterable, Sendable {
    case rateLimit = "rate_limit"
    case queueFull = "queue_full"
    case queueTimeout = "queue_timeout"
    case noBackend = "no_backend"
    case unknownModel = "unknown_model"
    case tooLarge = "too_large"
    case malformed
    case tooSlow = "too_slow"
    case notCached = "not_cached"
    case forbidden
    case stopping

    /// Whether nothing was done for the request, so that it says nothing of how long requests take.
    var isBeforehand: Bool {
        switch self {
        case .rateLimit, .malformed, .tooLarge, .tooSlow: true
        default: false
        }
    }
}

/// Models have small numbers: at most ``atMost`` of them, and 0 for all others, so that clients cannot make series.
struct ModelLabels {
    typealias Number = Int

    static let atMost = 100
    static let other = 0

    private(set) var names = ["other"]
    private var numbers: [String: Number] = [:]

    /// - Parameters:
    ///   - name: as ``ModelName`` writes it.
    ///   - isKnown: whether it is a model that a backend has; asked only if it has no number yet.
    mutating func number(of name: String, isKnown: () -> Bool) -> Number {
        if let number = numbers[name] { return number }
        guard names.count <= ModelLabels.atMost, !name.isEmpty, isKnown() else { return ModelLabels.other }
        names.append(name)
        numbers[name] = names.count - 1
        return names.count - 1
    }
}

/// What is remembered of an answer that is sent again and again: its model, and its tokens.
struct AnswerNote {
    let raw: UInt64

    init(raw: UInt64) { self.raw = raw }

    init(model: ModelLabels.Number, _ usage: AnswerUsage) {
        let most = (1 << 24) - 1
        raw = UInt64(model) << 48 | UInt64(min(usage.prompt, most)) << 24 | UInt64(min(usage.completion, most))
    }

    var model: ModelLabels.Number { Int(raw >> 48) }
    var promptTokens: Int { Int(raw >> 24 & 0xff_ffff) }
    var completionTokens: Int { Int(raw & 0xff_ffff) }
}
