import EventLoop
import HTTPCore

/// How a flight ends: what is kept of it, and what those get who could not follow.
extension Flight {
    /// The answer, if it was recorded to its end; whether it is one to keep has to be seen.
    func recorded() -> Bytes? {
        guard isRecording, let header, header.status == 200 else { return nil }
        if whole == nil {
            var complete = ByteBuffer()
            swap(&complete, &log)
            whole = complete.finish()
        }
        return whole
    }

    /// A copy of what is recorded, if it is not too much and may be all there is to come.
    func recordedSoFar() -> Bytes? {
        guard isRecording, whole == nil, !log.isEmpty, log.count <= QuestionReader.readAtOnce,
            log.unread.last == 0x0a || log.unread.last == UInt8(ascii: "}"), header?.status == 200
        else { return nil }
        return Bytes(copying: log.unread)
    }

    /// Hashes of requests, bytes as they came, that ask for what this flight has asked.
    var spellings: [(raw: Key, form: AnswerForm)] {
        subscribers.compactMap { subscriber in
            guard let raw = subscriber.call.raw, subscriber.call.question?.model == spelling else { return nil }
            return (raw, subscriber.call.form)
        }
    }

    /// Nothing more comes: everybody is told how it ended.
    /// - Parameters:
    ///   - failure: why there is no more, if that is not as it should be.
    ///   - written: how the answer is written, if it is whole and can be turned into other forms.
    ///   - instead: an answer for those who would otherwise be refused.
    func land(_ failure: Failure?, written: AnswerForm?, instead: @Loop (Call) -> Response? = { _ in nil }) {
        guard !hasLanded else { return }
        hasLanded = true
        var turned = Turned()
        for subscriber in subscribers where !subscriber.isOver {
            subscriber.call.record.note(usage)
            if subscriber.follows {
                subscriber.ending = failure.map { .failed($0) } ?? .finished
                catchUp(subscriber)
            } else if let failure, !subscriber.hasBegun, header == nil || header?.status == 200 {
                if let response = instead(subscriber.call) {
                    subscriber.send(response)
                } else {
                    subscriber.refuse(failure)
                }
            } else {
                turn(subscriber, written, &turned)
            }
        }
    }

    /// What has been made of an answer for those who wanted it otherwise: each is made once.
    private struct Turned {
        struct Writing: Hashable {
            let form: AnswerForm
            /// How the model is spelled; nil if as the box has it.
            let model: String?
        }

        var made: [Writing: Bytes] = [:]
    }

    /// Gives somebody the whole answer in another form than it came in.
    private func turn(_ subscriber: Subscriber, _ written: AnswerForm?, _ turned: inout Turned) {
        let call = subscriber.call
        if written == nil, let error = endingError() {
            let headers = call.headers(from: ["Content-Type": AnswerForm.whole.contentType(of: endpoint)])
            return subscriber.send(Response(status: 500, headers: headers, body: error))
        }
        guard let written, let whole, let header else { return subscriber.handBack() }
        let writing = Turned.Writing(
            form: call.form, model: call.question.flatMap { $0.model == spelling ? nil : $0.model })
        let bytes =
            turned.made[writing]
            ?? Answers.convert(
                whole.buffer, from: written, to: writing.form, endpoint: endpoint, model: writing.model)
        guard let bytes else { return subscriber.handBack() }
        turned.made[writing] = bytes
        var headers = header.headers
        headers.set("Content-Type", call.form.contentType(of: endpoint))
        subscriber.send(Response(status: 200, headers: call.headers(from: headers), body: bytes))
    }

    /// The error that a stream was ended with: to who asked for no stream it would have been the answer.
    private func endingError() -> Bytes? {
        guard let bytes = whole?.buffer, header?.status == 200 else { return nil }
        // Behind the last line feed that has something behind it.
        let end = bytes.lastIndex { $0 != 0x0a && $0 != 0x0d }.map { $0 + 1 } ?? 0
        let start = bytes[..<end].lastIndex(of: 0x0a).map { $0 + 1 } ?? 0
        var line = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
        if !endpoint.isNative {
            guard line.starts(with: "data:".utf8) else { return nil }
            line = UnsafeRawBufferPointer(rebasing: line[5...]).withoutBlanks
        }
        let isError = (try? JSONDocument.read(line) { $0["error"] != nil }) ?? false
        return isError ? Bytes(copying: line) : nil
    }
}
