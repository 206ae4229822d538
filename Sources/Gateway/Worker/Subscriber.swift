import EventLoop
import HTTPCore

/// One of those who wait for a flight's answer: its client, how far it has got, and how it wants the answer.
@Loop
final class Subscriber {
    enum Ending {
        case finished
        case failed(Failure)
    }

    let call: Call
    /// Unused until the answer begins.
    private var reply: Reply?
    private var writer: (any ResponseWriter)?
    /// Takes out what the cache asked for and the client did not.
    private var filter: UsageFilter?
    /// How its stream is ended if it breaks off; nil for a body that cannot say, or whose length was promised.
    private var tail: StreamTail?
    /// Its place in the flight's list.
    var index = 0
    /// Bytes of the flight's answer that it has taken.
    var offset = 0
    private(set) var isPaused = false
    private(set) var isOver = false
    /// What is to come once it has taken all.
    var ending: Ending?
    private var over: Signal?

    init(_ call: Call, _ reply: consuming Reply, over: Signal) {
        self.call = call
        self.reply = consume reply
        self.over = over
    }

    /// Whether its answer has begun.
    var hasBegun: Bool { reply == nil }
    /// Whether it takes the flight's bytes as they come.
    var follows: Bool { writer != nil && !isOver }

    // MARK: An answer in one piece

    func send(_ response: Response) {
        guard let reply = reply.take() else { return }
        call.send(response, reply)
        finish()
    }

    func refuse(_ failure: Failure) {
        call.record.note(failure)
        send(call.response(to: failure))
    }

    /// Gives the right to answer back: somebody else has to.
    func handBack() {
        guard !isOver else { return }
        isOver = true
        over?.fire()
    }

    /// What was handed back, once.
    func takeReply() -> Reply? { reply.take() }

    // MARK: An answer bit by bit

    /// Begins to follow the flight.
    /// - Parameters:
    ///   - withoutUsage: takes out the numbers of tokens that the client did not ask for.
    ///   - drained: called when the client takes more after a pause.
    func follow(
        status: Int, headers: Headers, length: Int?, withoutUsage: Bool,
        drained: @escaping @Loop (Subscriber) -> Void
    ) {
        guard let reply = reply.take() else { return }
        call.record.status = status
        let length = withoutUsage ? nil : length
        if length == nil { tail = StreamTail(contentType: headers["content-type"], path: call.endpoint.rawValue) }
        if withoutUsage { filter = UsageFilter() }
        let writer = reply.stream(status: status, headers: headers, length: length)
        // A circle, which the end of the writer breaks.
        writer.onDrain = { [self] in
            guard isPaused else { return }
            isPaused = false
            drained(self)
        }
        self.writer = writer
    }

    /// Passes on the flight's next bytes.
    func write(_ chunk: UnsafeRawBufferPointer) {
        offset += chunk.count
        guard var filter = filter.take() else { return put(chunk) }
        filter.take(chunk) { put($0) }
        self.filter = consume filter
    }

    private func put(_ bytes: UnsafeRawBufferPointer) {
        guard let writer else { return }
        call.record.bytes += bytes.count
        tail?.note(bytes)
        switch writer.write(bytes) {
        case .more: break
        case .pause: isPaused = true
        case .stop: isOver = true  // Its task is being cancelled.
        }
    }

    /// Ends the body: properly, or with an error of the stream's own form and never a proper end.
    func end(_ ending: Ending) {
        guard let writer, !isOver else { return }
        switch ending {
        case .finished:
            if var filter = filter.take() { filter.finish { put($0) } }
            writer.finish()
        case .failed(let failure):
            call.record.note(failure)
            if let last = tail?.error(failure, id: call.id) { _ = writer.write(Bytes(last)) }
            writer.abort()
        }
        finish()
    }

    private func finish() {
        isOver = true
        writer = nil
        over?.fire()
        over = nil
    }

    // MARK: Leaving

    /// The client has left, or the gateway is ending.
    func leave(_ failure: Failure) {
        guard !isOver || !hasBegun || writer != nil else { return }
        call.record.note(failure)
        if failure.status == Failure.clientLeft {
            writer?.abort()
            reply = nil
        } else if writer != nil {
            end(.failed(failure))
        } else {
            send(call.response(to: failure))
        }
        isOver = true
        writer = nil
    }
}
