import EventLoop
import HTTPCore

/// What is counted for `GET /metrics`. All labels come from bounded sets: ``Route``, ``ModelLabels``, the backends that
/// are configured, and the cases of a few enums.
@Loop
final class Metrics {
    /// Else nothing is counted but what costs nothing, and nothing is shown.
    let isOn: Bool
    /// Requests to the inference endpoints, refused ones too.
    var requests = 0
    /// Answered without a call of their own.
    var hits = 0
    /// Forwarded to a box.
    var misses = 0

    /// What the gateway answered, by route, status and use of the cache.
    private(set) var answers: [Answered: Int] = [:]
    /// Hits, which are most, by endpoint.
    private(set) var plainHits = [Int](repeating: 0, count: Endpoint.allCases.count)
    /// Of requests to models, by endpoint and use of the cache.
    private(set) var durations = [Histogram](
        repeating: Histogram(), count: Endpoint.allCases.count * CacheLabel.allCases.count)
    private(set) var refusals = [Refusal: Int]()
    private(set) var cancelled = (waiting: 0, answering: 0)
    private(set) var models = [ModelMetrics()]
    private(set) var modelLabels = ModelLabels()
    private(set) var queueWait = Histogram()
    var joins = 0
    var stores = 0
    var backends: [BackendMetrics] = []
    /// Bytes of the exposition that was made last.
    var lastSize = 64 * 1024
    /// Tokens that boxes have written, as far as that is seen while they write.
    private(set) var tokensSeen = 0

    struct Answered: Hashable {
        let route: Route
        let status: Int
        let cache: CacheLabel

        var order: (Int, Int, Int) { (route.index, status, cache.rawValue) }
    }

    struct ModelMetrics {
        /// Requests by ``Outcome``.
        var outcomes = [Int](repeating: 0, count: Outcome.allCases.count)
        var firstByte = Histogram()
        var loading = Histogram()
        var speed = Histogram(.tokensPerSecond)
        var promptTokens = 0
        var completionTokens = 0
        var savedTokens = 0
    }

    struct BackendMetrics {
        let label: String
        /// How often it has come into each state.
        var changes: [String: Int] = [:]
        /// Calls sent there, and those of them that another backend had failed.
        var picks = 0
        var retries = 0
        var failures = [Fault.Kind: Int]()
        /// Models that it had to load for a call.
        var loads = 0
        var chunkGap = Histogram()
        /// From sending a call to the first byte of its answer.
        var firstByte = Histogram()

        init(name: String) { label = Exposition.label("backend", name) }
    }

    nonisolated init(isOn: Bool = true) { self.isOn = isOn }

    // MARK: What happens

    /// A request is over.
    func count(_ record: AccessRecord) {
        guard isOn else { return }
        count(record.route, record.status, CacheLabel(record.use))
        if let refusal = record.refusal { refusals[refusal, default: 0] += 1 }
        if record.hasLeft {
            if record.bytes == 0 { cancelled.waiting += 1 } else { cancelled.answering += 1 }
        }
        guard record.isInference else { return }
        let outcome = Outcome(record)
        models[record.modelLabel].outcomes[outcome.rawValue] += 1
        if record.use?.isHit == true, record.status < 400 {
            models[record.modelLabel].savedTokens += record.completionTokens ?? 0
        }
        if let firstByte = record.firstByte { models[record.modelLabel].firstByte.observe(Int(firstByte)) }
        if record.refusal?.isBeforehand != true { observe(record.route, CacheLabel(record.use), record.duration) }
    }

    func count(_ route: Route, _ status: Int, _ cache: CacheLabel = .none) {
        guard isOn else { return }
        answers[
            Answered(route: route, status: (100..<600).contains(status) ? status : 599, cache: cache), default: 0] += 1
    }

    /// A request was answered from the cache at once.
    func countHit(at endpoint: Endpoint, _ note: AnswerNote, microseconds: Int64) {
        hits += 1
        guard isOn else { return }
        plainHits[endpoint.index] += 1
        models[note.model].outcomes[Outcome.hit.rawValue] += 1
        models[note.model].savedTokens += note.completionTokens
        observe(Route(endpoint), .hit, microseconds)
    }

    private func observe(_ route: Route, _ cache: CacheLabel, _ microseconds: Int64) {
        durations[route.index * CacheLabel.allCases.count + cache.rawValue].observe(Int(microseconds))
    }

    /// A box has answered, and says how much work it was.
    func count(_ usage: AnswerUsage, model: ModelLabels.Number, seen chunks: Int) {
        tokensSeen += max(0, usage.completion - chunks)
        guard isOn, !usage.isEmpty else { return }
        models[model].promptTokens += usage.prompt
        models[model].completionTokens += usage.completion
        if usage.loading > 0 { models[model].loading.observe(usage.loading / 1000) }
        if let speed = usage.speed { models[model].speed.observe(speed) }
    }

    /// A box has sent a piece of an answer.
    /// - Parameter gap: microseconds since the one before; nil for the first.
    func countChunk(at backend: Int, gap: Int?) {
        tokensSeen += 1
        if isOn, let gap { backends[backend].chunkGap.observe(gap) }
    }

    /// A call has got its place at a backend after so many microseconds.
    func observe(queueWait: Int64) { if isOn { self.queueWait.observe(Int(queueWait)) } }

    /// A call goes to a backend.
    /// - Parameter isRetry: whether another has failed it.
    func countPick(of backend: Int, isRetry: Bool) {
        backends[backend].picks += 1
        if isRetry { backends[backend].retries += 1 }
    }

    /// A backend has begun to answer a call after so many nanoseconds.
    func countAnswer(of backend: Int?, after nanoseconds: UInt64) {
        if isOn, let backend { backends[backend].firstByte.observe(Int(nanoseconds / 1000)) }
    }

    func countFailure(of backend: Int, _ kind: Fault.Kind) { backends[backend].failures[kind, default: 0] += 1 }

    /// The number of a model.
    func label(of model: String, isKnown: () -> Bool) -> ModelLabels.Number {
        let number = modelLabels.number(of: model, isKnown: isKnown)
        if number == models.count { models.append(ModelMetrics()) }
        return number
    }
}
