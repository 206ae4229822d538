import EventLoop
import HTTPCore

/// One call to a box, and all who wait for its answer.
///
///     queued ──► sent ──► answering ──► landed
///        └── another ◄┘
///
/// The bytes of the answer go to everyone as they come. While they are recorded, whoever joins late first gets what
/// has been said so far and then follows live; a reader that is slow lags behind the others and is not waited for.
/// What was recorded is what the cache keeps. An answer that is not recorded, or no longer because it is too large,
/// has nobody join it, and its slowest reader holds up the others once it is a mebibyte behind.
///
/// The worker decides when a flight starts, and ends it; this class moves its bytes.
@Loop
final class Flight {
    let endpoint: Endpoint
    /// How the box is asked to answer.
    let form: AnswerForm
    /// The model's name, for what has to do with loading, and as the first who asked spelled it.
    let model: String
    let spelling: String
    /// Where the answer is to be kept; nil if it is not to be.
    let key: Key?
    /// Run by the worker; cancelling it ends the call.
    var task: Task<Void, Never>?
    /// Its place at a backend, while it has one.
    private(set) var lease: Balancer.Lease?
    /// The backends that it has been to.
    private(set) var tried: [Int] = []
    /// Its task was cancelled so that another backend is asked.
    var isBeingMoved = false
    private var ticket: RequestQueue.Ticket?
    /// The backend that it was at last, and its name.
    private(set) var backend: Int?
    private(set) var backendName: String?

    private let request: ClientRequest
    /// The one whose request it is.
    private let first: Call
    private let worker: Worker
    private(set) var header: (status: Int, headers: Headers, length: Int?)?
    var hasLanded = false
    private(set) var isRecording: Bool
    var subscribers: [Subscriber] = []
    private var body: ByteStream?

    /// Bytes of the answer so far.
    private var total = 0
    /// Those of them from `base` on that are still there: all while it is recorded, else what somebody lags behind.
    var log = ByteBuffer()
    private var base = 0
    private var reserved = 0
    /// There was no room for what the slowest has not taken.
    private var isOutOfRoom = false
    /// The answer in one piece: it came so, or it is complete.
    var whole: Bytes?
    /// The end of an answer that is not recorded.
    private var tail = ByteBuffer()
    /// Microseconds that it has waited for places at backends: in all, and for the last.
    private var waited: (all: Int64, last: Int64) = (0, 0)
    private(set) var usage = AnswerUsage()
    private var isUsageRead = false
    /// Pieces in which the answer came, and when the last did, in monotonic nanoseconds.
    private(set) var chunks = 0
    private var lastChunk: UInt64 = 0
    /// The call to a box, for its trace.
    private var call: BackendCall?

    /// - Parameters:
    ///   - key: what the answer is kept under; nil neither records it nor lets anyone join.
    ///   - call: the one that comes first; what goes to the box is its request.
    init(for call: Call, key: Key?, worker: Worker) {
        endpoint = call.endpoint
        model = call.question?.modelName.description ?? ""
        spelling = call.question?.model ?? ""
        self.key = key
        self.worker = worker
        first = call
        isRecording = key != nil
        let request = call.request
        var headers = Forwarding.request(request.headers, peer: request.peer, id: call.id)
        var body = request.body
        var form = call.form
        if key != nil {
            // An answer for everybody depends on nothing that one client says beside its question.
            for name in Flight.notForEverybody { headers.remove(name) }
            if let asking = call.asking {
                form = .streamWithUsage
                body = .bytes(asking)
            }
        }
        self.form = form
        self.request = ClientRequest(
            method: request.method, origin: "", target: request.target, headers: headers, body: body)
    }

    private static let notForEverybody = [
        "accept-encoding", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since",
        "cookie",
    ]

    /// The box's answer is not passed on: another is asked.
    struct PassedOver: Error {}

    /// What it needs of a backend.
    var want: Balancer.Want {
        Balancer.Want(model: model, tried: tried, conversation: first.conversation)
    }

    /// Whether it is about a model that a backend must have.
    var isOfNamedModel: Bool { first.question?.modelName.isValid == true && !isOfCloudModel }
    /// Whether ollama.com runs its model, by its name.
    var isOfCloudModel: Bool { first.question?.modelName.isCloud == true }

    /// Its place in the order in which requests came: the first it took.
    func takeTicket(from fleet: Fleet) -> RequestQueue.Ticket {
        let taken = ticket ?? fleet.queue.takeTicket()
        ticket = taken
        return taken
    }

    /// - Parameter wait: microseconds.
    func takes(_ lease: Balancer.Lease, after wait: Int64) {
        self.lease = lease
        waited = (waited.all + wait, wait)
        backend = lease.backend
        tried = (tried + [lease.backend]).sorted()
    }

    func givesBack(to fleet: Fleet) {
        guard let lease else { return }
        self.lease = nil
        fleet.end(lease)
    }

    /// Whether somebody who asks the same may wait for this answer.
    var isJoinable: Bool { isRecording && !isOutdated && !hasLanded && (header.map { $0.status == 200 } ?? true) }

    var hasSubscribers: Bool { !subscribers.isEmpty }
    /// The worker counts it among those that wait for their model.
    var isWaitingForModel = false
    /// The cache was purged meanwhile of what this would be kept with.
    var isOutdated = false

    // MARK: Those who wait

    /// Serves a call from this flight and returns when that is over.
    /// - Parameters:
    ///   - isEnding: whether it is the gateway that ends when the task is cancelled, and not the client.
    ///   - begin: called when the call has joined; starts the flight if this is its first.
    /// - Returns: the right to answer, if this flight's answer cannot be turned into what the client wants.
    func serve(
        _ call: Call, _ reply: consuming Reply, isEnding: @Loop () -> Bool, begin: @Loop () -> Void = {}
    ) async -> Reply? {
        let reply = Pass(reply)
        var subscriber: Subscriber?
        do {
            try await Signal.wait { signal in
                guard let reply = reply.take() else { return }
                let joining = Subscriber(call, reply, over: signal)
                subscriber = joining
                joining.index = subscribers.count
                subscribers.append(joining)
                if header == nil {
                    worker.enter { $0.waits(self) }
                } else {
                    admit(joining)
                    // The box may be waiting for readers that have stalled, and this one takes more.
                    settle()
                }
                if !Task.isCancelled { begin() }
            }
        } catch {
            subscriber?.leave(isEnding() ? Failure.ending : Failure.left)
        }
        guard let subscriber else { return nil }
        remove(subscriber)
        return subscriber.takeReply()
    }

    private func remove(_ subscriber: Subscriber) {
        // Those that are left then follow what lies in memory, and nobody waits for them.
        if hasLanded { return }
        let last = subscribers.removeLast()
        if last !== subscriber {
            subscribers[subscriber.index] = last
            last.index = subscriber.index
        }
        if subscribers.isEmpty { return worker.enter { $0.abandoned(self) } }
        // It may have been the one that the others waited for.
        settle()
    }

    /// The answer has begun: whoever wants it as it comes gets it from here on.
    private func admit(_ subscriber: Subscriber) {
        guard let header, !subscriber.isOver else { return }
        subscriber.call.answerBegan(at: backendName, tries: tried.count)
        if header.status >= 500, let backendName {
            subscriber.call.record.error = "backend \(backendName): it answers \(header.status)"
        }
        subscriber.call.record.note(usage)
        guard let passing = passes(to: subscriber.call) else { return }
        let headers = subscriber.call.headers(from: header.headers)
        if let whole, passing == .asItIs {
            return subscriber.send(Response(status: header.status, headers: headers, body: whole))
        }
        subscriber.follow(
            status: header.status, headers: headers, length: header.length,
            withoutUsage: passing == .withoutUsage
        ) { [self] in
            catchUp($0)
            settle()
        }
        catchUp(subscriber)
    }

    private enum Passing { case asItIs, withoutUsage }

    /// How the box's bytes become those of the client; nil if that has to wait for the last of them.
    private func passes(to call: Call) -> Passing? {
        // An error has one form.
        if header?.status != 200 || key == nil { return .asItIs }
        guard call.question?.model == spelling else { return nil }
        if call.form == form { return .asItIs }
        return form == .streamWithUsage && call.form == .stream ? .withoutUsage : nil
    }

    // MARK: The call

    /// Sends the request, and passes the answer on to its end. Throws what `transport` throws.
    func fly(to backend: Backend, by transport: any Transport) async throws {
        backendName = backend.name
        for subscriber in subscribers {
            subscriber.call.gotPlace(at: backend.name, tries: tried.count, after: waited.all)
        }
        var request = request
        request.origin = backend.origin
        beginCall(&request, at: backend)
        let sent = Loop.events.now
        let answer: ClientResponse
        do {
            answer = try await transport.send(request)
        } catch {
            worker.enter { $0.answerFailed(self, error) }
            throw error
        }
        call?.answered(answer.status, at: worker.fleet.clock())
        // It came in the moment in which it was decided to ask somebody else, or nobody any more.
        if Task.isCancelled {
            answer.body.cancel()
            throw CancellationError()
        }
        do {
            try worker.enter { try $0.answerBegan(self, status: answer.status, headers: answer.headers) }
        } catch {
            answer.body.cancel()
            throw error
        }
        guard !subscribers.isEmpty else {
            answer.body.cancel()
            throw CancellationError()
        }
        let status = answer.status
        header = (status, Forwarding.response(answer.headers), answer.length)
        worker.metrics.countAnswer(of: lease?.backend, after: Loop.events.now &- sent)
        if status == 204 || status == 304 {
            answer.body.cancel()
            whole = .empty
        } else if answer.length != nil, let complete = answer.body.takeComplete() {
            whole = complete
            total = complete.count
            readUsage()
        }
        body = answer.body
        // Whom the box does not know is one client; the others have credentials of their own.
        if status == 401 || status == 403 {
            for subscriber in subscribers where subscriber.call !== first { subscriber.handBack() }
        }
        subscribers.forEach(admit)
        if whole == nil { try await answer.body.forward { [self] in take($0) } }
    }

    private func beginCall(_ request: inout ClientRequest, at backend: Backend) {
        let (context, begun) = worker.tracer.begin(
            first.request, at: backend, number: tried.count, of: first.record.trace, at: worker.fleet.clock())
        context?.name(in: &request.headers)
        call = begun
        call?.endpoint = endpoint
        call?.model = model.isEmpty ? nil : model
        call?.queueWait = waited.last
    }

    /// The call to the box is over.
    func endCall(_ usage: AnswerUsage, _ problem: (any Error)?) {
        guard let call = call.take() else { return }
        let isGivenUp = problem is CancellationError && isBeingMoved
        worker.tracer.note(
            call, of: first.record.trace, at: worker.fleet.clock(), usage: usage, isGivenUp ? Fleet.isDead : problem)
    }

    private func take(_ chunk: UnsafeRawBufferPointer) -> Flow {
        noteChunk()
        if isRecording {
            let mayBeKept = total + chunk.count <= worker.maxEntryBytes
            if mayBeKept, hasRoom(for: chunk.count) { log.append(chunk) } else { stopRecording() }
        }
        if !isRecording {
            if tail.count > AnswerUsage.tail { tail.consume(tail.count - AnswerUsage.tail) }
            tail.append(UnsafeRawBufferPointer(rebasing: chunk.suffix(AnswerUsage.tail)))
        }
        let end = total + chunk.count
        var somebodyLags = false
        for subscriber in subscribers where subscriber.follows {
            if subscriber.offset == total, !subscriber.isPaused {
                subscriber.write(chunk)
            } else {
                somebodyLags = true
            }
        }
        if !isRecording, somebodyLags {
            if log.isEmpty { base = total }
            isOutOfRoom = !hasRoom(for: chunk.count)
            log.append(chunk)
            cutOffLaggards(at: end)
        }
        total = end
        return isHeldUp ? .pause : .more
    }

    /// What comes of a stream in one turn of the loop is one piece.
    private func noteChunk() {
        let now = Loop.events.now
        guard form != .whole, header?.status == 200, now != lastChunk, let lease else { return }
        let gap = chunks > 0 ? Int((now &- lastChunk) / 1000) : nil
        worker.metrics.countChunk(at: lease.backend, gap: gap)
        chunks += 1
        lastChunk = now
    }

    /// Finds out what the box says, at the end of its answer, of the work it was.
    func readUsage() {
        guard header?.status == 200, !isUsageRead else { return }
        isUsageRead = true
        usage = AnswerUsage(endOf: whole?.buffer ?? (isRecording ? log.unread : tail.unread))
    }

    /// Whether the box has to wait: for everybody, or, where nothing is recorded, for who lags too far behind.
    private var isHeldUp: Bool {
        if !isRecording, !log.isEmpty, isOutOfRoom || log.count >= Flight.lagAtMost { return true }
        var someFollow = false
        for subscriber in subscribers where !subscriber.isOver {
            // Somebody who takes more, or who waits for the whole.
            guard subscriber.follows, subscriber.isPaused else { return false }
            someFollow = true
        }
        return someFollow
    }

    /// Bytes that one reader may be behind the others of an answer that is not recorded.
    private static let lagAtMost = 1024 * 1024

    /// Who cannot keep up with an answer that is not recorded must not hold up the others.
    private func cutOffLaggards(at end: Int) {
        guard subscribers.count > 1, log.count >= Flight.lagAtMost else { return }
        for subscriber in subscribers where subscriber.follows && end - subscriber.offset >= Flight.lagAtMost {
            subscriber.end(.failed(Failure(status: 503, message: "the answer was read too slowly to be shared")))
        }
        settle()
    }

    private static let catchUpStep = 64 * 1024

    func catchUp(_ subscriber: Subscriber) {
        while subscriber.follows, !subscriber.isPaused, subscriber.offset < total {
            let recorded = whole?.buffer ?? log.unread
            let start = subscriber.offset - base
            let end = min(start + Flight.catchUpStep, recorded.count)
            guard start >= 0, start < end else { return }
            subscriber.write(UnsafeRawBufferPointer(rebasing: recorded[start..<end]))
        }
        if let ending = subscriber.ending, subscriber.offset == total { subscriber.end(ending) }
    }

    /// After somebody has moved or left: what nobody needs goes, and the box goes on if it may.
    private func settle() {
        if !isRecording, whole == nil, !log.isEmpty {
            let slowest = subscribers.lazy.filter(\.follows).map(\.offset).min() ?? total
            log.consume(min(max(0, slowest - base), log.count))
            base = slowest
            if log.isEmpty { isOutOfRoom = false }
        }
        if !hasLanded, !isHeldUp { body?.resume() }
    }

    // MARK: Recording

    private static let reserveStep = 16 * 1024

    private func hasRoom(for count: Int) -> Bool {
        let needed = log.count + count - reserved
        guard needed > 0 else { return true }
        let step = max(needed, Flight.reserveStep)
        guard worker.enter({ $0.reserve(step) }) else { return false }
        reserved += step
        return true
    }

    /// Keeps nothing from here on; who needs all of it has to ask for itself.
    private func stopRecording() {
        isRecording = false
        worker.enter { $0.forget(self) }
        for subscriber in subscribers where !subscriber.hasBegun { subscriber.handBack() }
        settle()
    }

    /// Bytes reserved, which are given back by this.
    func giveBack() -> Int {
        defer { reserved = 0 }
        return reserved
    }
}

/// Carries a right to answer into a closure that runs once.
@Loop
private final class Pass {
    private var reply: Reply?

    init(_ reply: consuming Reply) { self.reply = consume reply }

    func take() -> Reply? { reply.take() }
}
