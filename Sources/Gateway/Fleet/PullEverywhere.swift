import EventLoop
import HTTPCore

/// One pull at several backends, whose progress its client sees as one.
@Loop
final class PullEverywhere {
    private let request: Request
    private let id: String
    private let backends: [Int]
    /// Whether the client wants to see the progress.
    private let streams: Bool
    private let gateway: Gateway
    private var merge: PullMerge
    private var reply: Reply?
    private var writer: (any ResponseWriter)?
    private var bodies: [Int: ByteStream] = [:]
    private var isPaused = false
    private var last = ByteBuffer()
    /// What backends refused it with, before any word of progress.
    private var refusals: [Failure] = []
    private var record: AccessRecord

    init(
        _ request: Request, id: String, at start: Int64, _ backends: [Int], streams: Bool, _ trace: RequestTrace?,
        _ gateway: Gateway
    ) {
        self.request = request
        self.id = id
        self.backends = backends
        self.streams = streams
        self.gateway = gateway
        merge = PullMerge(backends: backends.map { gateway.fleet.backends[$0].name })
        record = AccessRecord(of: request, id: id, at: start, trace)
        record.goes(to: backends.map { gateway.fleet.backends[$0].name })
    }

    func run(_ reply: consuming Reply) async -> AccessRecord {
        self.reply = consume reply
        do {
            try await FanOut.forEach(backends) { await self.pull(at: $0) }
            await finish()
        } catch {
            leave()
        }
        record.duration = gateway.clock() - record.start
        return record
    }

    private func pull(at backend: Int) async {
        guard let place = backends.firstIndex(of: backend) else { return }
        var failure: String?
        gateway.metrics.countPick(of: backend, isRetry: false)
        let box = gateway.fleet.backends[backend]
        var (context, call) = gateway.tracer.begin(request, at: box, number: 1, of: record.trace, at: gateway.clock())
        var problem: (any Error)?
        do {
            let answer = try await gateway.transport.send(
                Forwarding.request(request, id: id, to: box, mayBeRepeated: false, context))
            call?.status = answer.status
            if answer.status < 300 {
                begin(answer.headers)
                bodies[place] = answer.body
                try await answer.body.forward { [self] chunk in
                    hear(merge.take(chunk, from: place))
                    // One that has failed may have more to say, and nobody listens.
                    return merge.hasFailed(place) ? .stop : isPaused ? .pause : .more
                }
            } else {
                let body = try await answer.body.collect(limit: 1 << 20, expecting: answer.length)
                let words = FanOut.words(of: body, answer.status)
                refusals.append(Failure(status: answer.status, message: words))
                failure = words
            }
        } catch {
            problem = error
            failure = FanOut.failure(error, backend, gateway.fleet).message
        }
        if let call { gateway.tracer.note(call, of: record.trace, at: gateway.clock(), problem) }
        bodies[place] = nil
        hear(merge.ended(place, failure: failure))
    }

    /// The last word waits until what it says is known to the fleet.
    private func hear(_ lines: consuming ByteBuffer) {
        if merge.isOver { last.append(lines.unread) } else { pass(lines.unread) }
    }

    private func begin(_ headers: Headers) {
        guard streams, let reply = reply.take() else { return }
        record.status = 200
        record.firstByte = gateway.clock() - record.start
        let headers = Forwarding.response(headers, id: id)
        let writer = reply.stream(status: 200, headers: headers, length: nil)
        writer.onDrain = { [self] in
            isPaused = false
            for body in Array(bodies.values) { body.resume() }
        }
        self.writer = writer
    }

    private func pass(_ lines: UnsafeRawBufferPointer) {
        guard let writer, !lines.isEmpty else { return }
        record.bytes += lines.count
        if writer.write(lines) == .pause { isPaused = true }
    }

    private func finish() async {
        await gateway.fleet.probeAfresh(backends)
        pass(last.unread)
        if case .failed(let message) = merge.outcome { record.error = message }
        if let writer {
            writer.finish()
        } else if let reply = reply.take() {
            let response = response
            record.note(response)
            reply.send(response)
        }
        writer = nil
    }

    /// For who wants no progress, or where there was none.
    private var response: Response {
        guard case .failed(let message) = merge.outcome else {
            return Response(status: 200, contentType: "application/json", #"{"status":"success"}"#)
        }
        let statuses = Set(refusals.map(\.status))
        let status = refusals.count == backends.count && statuses.count == 1 ? statuses.first ?? 500 : 500
        return Failure(status: status, message: message).response(to: request.path, id: id)
    }

    private func leave() {
        let failure = gateway.isEnding ? Failure.ending : .left
        record.note(failure)
        if let writer {
            if !record.hasLeft { _ = writer.write(Bytes(#"{"error":\#(JSONText.quoted(failure.message))}"# + "\n")) }
            writer.abort()
        } else if !record.hasLeft, let reply = reply.take() {
            let response = failure.response(to: request.path, id: id)
            record.note(response)
            reply.send(response)
        }
        writer = nil
        reply = nil
    }
}
