import EventLoop
import HTTPCore

/// The trace that a request is a part of.
struct RequestTrace: Sendable {
    /// Of the request's own span if that is exported; else what its client sent, or one made up for the boxes.
    let context: TraceContext
    /// The client's span; nil if there is none.
    let parent: UInt64?
    let isExported: Bool

    /// What a call to a box is told.
    func makeCall() -> TraceContext { isExported ? context.child() : context }

    /// For logs: of a trace that others know of, too.
    var knownID: String? { isExported || parent != nil ? context.traceID.description : nil }
}

/// Follows requests into the boxes: each belongs to a trace, and its spans go to a collector if there is one.
@Loop
final class Tracer {
    let exporter: SpanExporter?
    /// Asking the system for each id would be a system call each.
    private var random = SplitMix64(state: .random(in: .min ... .max))

    init(_ exporter: SpanExporter?) { self.exporter = exporter }

    /// The trace of a request: its client's, if that has one, whose word on whether it is kept counts.
    func trace(of request: Request) -> RequestTrace {
        guard let received = TraceContext(request.headers) else {
            let context = TraceContext.make(sampled: exporter != nil, using: &random)
            return RequestTrace(context: context, parent: nil, isExported: exporter != nil)
        }
        let isExported = exporter != nil && received.isSampled
        return RequestTrace(
            context: isExported ? received.child() : received, parent: received.spanID, isExported: isExported)
    }

    /// A request is over.
    func note(_ record: AccessRecord) {
        guard let exporter, let trace = record.trace, trace.isExported, exporter.hasRoom() else { return }
        exporter.take(
            .request(
                trace.context, parent: trace.parent, start: record.start, duration: record.duration, id: record.id,
                method: record.method, target: record.target,
                route: record.route == .other ? nil : record.route.name, client: record.peer,
                endpoint: record.route.endpoint, model: record.model, status: record.status, hasLeft: record.hasLeft,
                cache: record.use.map { "\(CacheLabel($0))" }, backend: record.backend, tries: record.tries,
                queueWait: record.queueWait, firstByte: record.firstByte, bytes: record.bytes,
                errorType: record.refusal?.rawValue, error: record.error))
    }

    /// A call to a box begins, with a client's request as it came.
    /// - Returns: what the box is told of it, and the call if it is to be told of at its end.
    func begin(
        _ request: Request, at backend: Backend, number: Int, of trace: RequestTrace?, at now: @autoclosure () -> Int64
    ) -> (context: TraceContext?, call: BackendCall?) {
        guard let trace else { return (nil, nil) }
        let context = trace.makeCall()
        guard trace.isExported else { return (context, nil) }
        return (
            context,
            BackendCall(
                context: context, start: now(), method: request.method, target: request.target, backend: backend,
                number: number)
        )
    }

    /// A call to a box is over.
    func note(
        _ call: BackendCall, of trace: RequestTrace?, at end: Int64, usage: AnswerUsage = AnswerUsage(),
        _ problem: (any Error)?
    ) {
        guard let exporter, let trace, trace.isExported, exporter.hasRoom() else { return }
        let error = problem as? TransportError
        exporter.take(
            .attempt(
                call.context, parent: trace.context.spanID, start: call.start, duration: end - call.start,
                method: call.method, target: call.target, backend: call.backend, number: call.number,
                endpoint: call.endpoint, model: call.model, status: call.status, queueWait: call.queueWait,
                firstByte: call.firstByte, inputTokens: usage.isEmpty ? nil : usage.prompt,
                outputTokens: usage.isEmpty ? nil : usage.completion,
                clientLeft: problem is CancellationError || problem is ClientLeft,
                errorType: error?.kind.rawValue, error: error.map(Failure.words)))
    }
}

/// A call to a box, as a trace tells of it; times are microseconds.
struct BackendCall: Sendable {
    let context: TraceContext
    /// Since 1970.
    let start: Int64
    let method: String
    let target: String
    let backend: Backend
    /// 1 for a request's first.
    let number: Int
    var endpoint: Endpoint?
    var model: String?
    var queueWait: Int64?
    var firstByte: Int64?
    /// Nil if no answer came.
    var status: Int?

    /// Its answer has begun.
    mutating func answered(_ status: Int, at now: Int64) {
        self.status = status
        firstByte = now - start
    }
}
