import HTTPCore

/// How a request failed by a backend's fault, and what that says of the backend.
struct Fault: Sendable {
    /// What it was, for metrics.
    enum Kind: String, CaseIterable, Sendable {
        case connect, timeout, lost, tls, resolve, invalid
        /// 429 or 503: it has too much to do.
        case busy
        /// Another status that says that it failed.
        case status
        case probe

        var label: String { "reason=\"\(rawValue)\"" }

        /// Nil for what is our own doing.
        init?(_ error: TransportError) {
            switch error.kind {
            case .resolve: self = .resolve
            case .connect: self = .connect
            case .connectTimeout, .firstByteTimeout, .idleTimeout: self = .timeout
            case .tls: self = .tls
            case .connectionLost: self = .lost
            case .badAnswer: self = .invalid
            case .local: return nil
            }
        }
    }

    let kind: Kind
    /// Why the backend is not well; nil if it is, and only asks to be left alone.
    var reason: String?
    /// Whether another request may be tried there in need, before a probe: it would not wait long for the same.
    var mayBeTried = true
    /// For so long the backend wants to be left alone.
    var rest = Duration.zero

    /// Statuses after which another backend may do better.
    static let passedOver: Set<Int> = [429, 502, 503, 504]

    private static let restAtMost = 300

    /// What an answer's status says; nil if it is no fault of the backend's. A 500 is the model's, or the request's:
    /// Ollama has no other word for them.
    init?(status: Int, headers: Headers, at now: Int64) {
        guard status == 429 || (status > 501 && status < 600) else { return nil }
        if status != 429 { reason = "it answers \(status)" }
        let rest = headers["retry-after"].flatMap { Fault.seconds($0, at: now) }
        kind = status == 429 || status == 503 ? .busy : .status
        // Without a word on how long: a second, as for a first failure.
        self.rest = .seconds(rest ?? (status == 429 ? 1 : 0))
    }

    /// What it says that no answer began; nil if that is our own doing.
    init?(_ error: TransportError) {
        guard !error.answerBegan, let kind = Kind(error) else { return nil }
        self.kind = kind
        reason = Failure.words(for: error)
        mayBeTried = error.kind != .firstByteTimeout && error.kind != .idleTimeout && error.kind != .connectTimeout
    }

    /// Source: RFC 9110 section 10.2.3.
    /// - Parameter now: microseconds since 1970.
    static func seconds(_ retryAfter: String, at now: Int64) -> Int? {
        let isNumber = !retryAfter.isEmpty && retryAfter.utf8.allSatisfy { (0x30...0x39).contains($0) }
        if isNumber { return min(Int(retryAfter) ?? restAtMost, restAtMost) }
        guard let then = Timestamp.microseconds(ofHTTPDate: retryAfter) else { return nil }
        return min(max(0, Int((then - now) / 1_000_000)), restAtMost)
    }
}
