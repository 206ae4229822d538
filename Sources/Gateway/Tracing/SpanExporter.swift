import EventLoop
import HTTPCore

/// Sends spans to a collector of OpenTelemetry's, in batches and one batch at a time.
///
/// Whoever hands over a span is never held up: it is put in a row, and when the row is full it is dropped and counted.
/// A batch leaves when there are enough for one, or a second after the first span came. A collector that is busy or
/// away is asked again, ever later, a few times; then the batch is dropped and the next has its turn.
///
///     take → row → batch → JSON, on another thread → POST → taken, tried again, or dropped
@Loop
final class SpanExporter {
    /// Spans of which the collector has said that it has them.
    private(set) var exported = 0
    /// Spans that are lost: the row was full, the collector did not want them, or was away.
    private(set) var dropped = 0

    /// Spans that wait for their batch.
    nonisolated static let waitingAtMost = 2048
    nonisolated static let batchAtMost = 512
    /// OpenTelemetry's own libraries wait for 5 s. Who looks for the request that they have just sent should not have to
    /// wait, and a crash should not take more with it; it costs one small request a second.
    nonisolated static let batchAfter = Duration.seconds(1)
    nonisolated static let timeout = Duration.seconds(10)
    nonisolated static let triesAtMost = 5
    /// A collector that wants to be left alone for longer is asked before that; the row is full long since.
    nonisolated static let pauseAtMost = Duration.seconds(60)
    /// Between two warnings, in nanoseconds: one that goes and comes again is not worth a line each time.
    nonisolated static let quiet: UInt64 = 60_000_000_000
    /// For what is left at the end.
    nonisolated static let endAfter = Duration.seconds(2)
    /// Bytes of an answer.
    private nonisolated static let answerAtMost = 64 << 10

    /// Does something once, after a while; what it returns takes that back.
    typealias Later = @Loop (Duration, @escaping @Loop () -> Void) -> @Loop () -> Void

    private let origin: String
    private let service: OTLP.Service
    private let transport: any Transport
    private let now: @Loop () -> UInt64
    private let clock: WallClock
    private let notices: (any Notices)?
    private let later: Later

    private var waiting: [Span] = []
    /// When the first of them came, in monotonic nanoseconds.
    private var firstCame: UInt64 = 0
    /// Takes the next look at the row back.
    private var cancelLook: (@Loop () -> Void)?
    private var isExporting = false
    private var exporting: Task<Void, Never>?
    /// The request under way, and the pause before the next.
    private var sending: Task<Void, Never>?
    private var pausing: Signal?
    /// No more spans are taken, no more pauses made; and then not even tries.
    private var isEnding = false
    private var isOver = false

    /// There is a warning out that is not taken back yet.
    private var isInTrouble = false
    private var lastWarning: UInt64?
    private var droppedBefore = 0
    private var hasToldOfRejections = false

    /// - Parameters:
    ///   - endpoint: the collector's address, perhaps with a path: `http://host:4318`, as in
    ///     `OTEL_EXPORTER_OTLP_ENDPOINT`. `/v1/traces` is put behind it.
    ///   - now: nanoseconds that never go back.
    ///   - version: of this program.
    init(
        endpoint: String, transport: any Transport, now: @escaping @Loop () -> UInt64 = { Loop.events.now },
        clock: @escaping WallClock, notices: (any Notices)? = nil, version: String,
        later: @escaping Later = SpanExporter.onLoop
    ) {
        var origin = endpoint[...]
        while origin.hasSuffix("/") { origin = origin.dropLast() }
        self.origin = String(origin)
        service = OTLP.Service(version: version)
        self.transport = transport
        self.now = now
        self.clock = clock
        self.notices = notices
        self.later = later
    }

    static func onLoop(_ delay: Duration, _ action: @escaping @Loop () -> Void) -> @Loop () -> Void {
        let timer = Loop.events.schedule(after: delay, action)
        return { Loop.events.cancel(timer) }
    }

    // MARK: The row

    /// Whether a span would be taken; if not, that counts as one that is dropped, and it need not be made.
    func hasRoom() -> Bool {
        if waiting.count < SpanExporter.waitingAtMost, !isEnding { return true }
        dropped += 1
        return false
    }

    /// Takes a span that has ended.
    func take(_ span: Span) {
        guard waiting.count < SpanExporter.waitingAtMost, !isEnding else { return dropped += 1 }
        waiting.append(span)
        if waiting.count == 1 { firstCame = now() }
        // Not in the middle of a request's work: in the loop's next round.
        if !isExporting, waiting.count == 1 || waiting.count == SpanExporter.batchAtMost { lookLater() }
    }

    private func lookLater() {
        cancelLook?()
        let waited = Duration.nanoseconds(Int64(clamping: now() &- firstCame))
        let delay = waiting.count < SpanExporter.batchAtMost ? max(.zero, SpanExporter.batchAfter - waited) : .zero
        cancelLook = later(delay) { [weak self] in self?.export() }
    }

    private func export() {
        cancelLook?()
        cancelLook = nil
        guard !isExporting, !waiting.isEmpty else { return }
        isExporting = true
        exporting = Loop.task {
            repeat { await self.deliver(self.nextBatch()) } while self.hasNextBatch
            self.isExporting = false
            if !self.waiting.isEmpty, !self.isEnding { self.lookLater() }
        }
    }

    private var hasNextBatch: Bool {
        !isOver && (isEnding ? !waiting.isEmpty : waiting.count >= SpanExporter.batchAtMost)
    }

    private func nextBatch() -> [Span] {
        firstCame = now()
        var batch: [Span] = []
        swap(&batch, &waiting)
        if batch.count > SpanExporter.batchAtMost {
            waiting = Array(batch[SpanExporter.batchAtMost...])
            batch.removeSubrange(SpanExporter.batchAtMost...)
        }
        return batch
    }

    // MARK: The end

    /// Sends what there is, for two seconds at most; what is left then is dropped, as are spans that come later.
    func stop() async {
        isEnding = true
        let cancel = later(SpanExporter.endAfter) { [weak self] in self?.giveUp() }
        defer { cancel() }
        pausing?.fire()
        export()
        await exporting?.value
        dropped += waiting.count
        waiting = []
    }

    private func giveUp() {
        isOver = true
        sending?.cancel()
    }

    // MARK: A batch

    private func deliver(_ batch: [Span]) async {
        let service = service
        let body = await Loop.elsewhere { OTLP.body(batch, of: service) }
        for number in 1...SpanExporter.triesAtMost where !isOver {
            switch await send(body) {
            case .taken(let rejected, let message):
                return taken(batch.count, rejected: min(rejected, batch.count), message)
            case .refused(let why):
                failed(why)
                return dropped += batch.count
            case .again(let why, let after):
                failed(why)
                if number < SpanExporter.triesAtMost { await pause(after: number, wish: after) }
            }
        }
        dropped += batch.count
    }

    /// 1, 2, 4 and 8 s, or a bit less: gateways that lose their collector together come back one by one.
    /// - Parameter wish: the collector's: not before that.
    private func pause(after number: Int, wish: Duration?) async {
        // There is no time left for it to come back.
        guard !isEnding else { return isOver = true }
        let usual = Duration.seconds(1 << (number - 1)) * Double.random(in: 0.8...1)
        var cancel: (@Loop () -> Void)?
        defer { cancel?() }
        try? await Signal.wait { signal in
            pausing = signal
            cancel = later(min(max(wish ?? .zero, usual), SpanExporter.pauseAtMost)) { signal.fire() }
        }
        pausing = nil
    }

    private func send(_ body: Bytes) async -> OTLP.Outcome {
        var outcome = OTLP.Outcome.again(why: "no answer in time", after: nil)
        let task = Loop.task { if let known = await self.ask(body) { outcome = known } }
        let cancel = later(SpanExporter.timeout) { task.cancel() }
        defer { cancel() }
        sending = task
        await task.value
        sending = nil
        return outcome
    }

    /// - Returns: nil if it was cancelled.
    private func ask(_ body: Bytes) async -> OTLP.Outcome? {
        let request = ClientRequest(
            method: "POST", origin: origin, target: OTLP.path,
            headers: [
                "Content-Type": "application/json", "Accept": "application/json",
                "User-Agent": "\(OTLP.Service.name)/\(service.version)",
            ], body: .bytes(body))
        do {
            let answer = try await transport.send(request)
            // The status says what has become of the spans, whatever comes behind it.
            let said = try? await answer.body.collect(limit: SpanExporter.answerAtMost, expecting: answer.length)
            return OTLP.outcome(status: answer.status, headers: answer.headers, body: said, at: clock())
        } catch is CancellationError {
            return nil
        } catch {
            return .again(why: (error as? TransportError).map(Failure.words) ?? "\(error)", after: nil)
        }
    }

    // MARK: What people are told

    private func taken(_ count: Int, rejected: Int, _ message: String?) {
        exported += count - rejected
        dropped += rejected
        if isInTrouble {
            isInTrouble = false
            notices?.note(.notice, "spans reach \(origin) again; \(dropped - droppedBefore) were lost")
        }
        guard rejected > 0 || message != nil, !hasToldOfRejections else { return }
        hasToldOfRejections = true
        let words = message.map { ": \($0)" } ?? ""
        notices?.note(.warning, "\(origin) did not take \(rejected) of \(count) spans\(words); this is not told again")
    }

    private func failed(_ why: String) {
        let time = now()
        guard !isInTrouble, lastWarning.map({ time &- $0 >= SpanExporter.quiet }) ?? true else { return }
        (isInTrouble, lastWarning, droppedBefore) = (true, time, dropped)
        notices?.note(.warning, "spans do not reach \(origin): \(why)")
    }
}
