import EventLoop

/// A model at work on one request: times what it does and says what its script has.
@Loop
final class AnswerSource: ChunkSource {
    private let script: Script
    private let format: any AnswerFormat
    private let counts: Counts
    private let alternatives: Int?
    private var metrics: Metrics
    /// Monotonic nanoseconds: the request came; it had a slot; its first token was there.
    private let arrival: UInt64
    private let began: UInt64
    private var firstToken: UInt64

    init(_ work: Work, _ lease: Lease, began: UInt64, counts: Counts) {
        script = work.script
        format = work.format
        alternatives = work.inference.logprobs
        arrival = work.arrival
        self.began = began
        firstToken = began
        self.counts = counts
        metrics = Metrics()
        metrics.promptTokens = work.inference.promptTokens
        metrics.load = max(lease.assignedAt &- arrival, 1)
    }

    var count: Int { script.count }

    /// To be called when the delay before the first token is over.
    func begin(firstToken: UInt64) { self.firstToken = firstToken }

    func chunk(_ index: Int, to lines: inout Lines) {
        let piece = script.piece(index)
        format.write(piece, logprobs: logprobs(piece, index), to: &lines)
        counts.tokensSent += 1
    }

    func end(to lines: inout Lines) { format.end(script.reason, measured(), to: &lines) }

    func breakOff(_ message: String, to lines: inout Lines) { format.breakOff(message, to: &lines) }

    /// All at once.
    /// - Parameter pieces: how many of them; fewer than all leave the answer without a reason to have ended.
    func whole(pieces: Int? = nil) -> [UInt8] {
        var answer = Answer()
        for index in 0..<min(pieces ?? script.count, script.count) {
            let piece = script.piece(index)
            switch piece {
            case .thinking(let token): answer.thinking += token.text
            case .text(let token): answer.content += token.text
            case .call(let call): answer.calls.append(call)
            }
            if let logprobs = logprobs(piece, index) { answer.logprobs.append(logprobs) }
            counts.tokensSent += 1
        }
        if pieces == nil {
            answer.reason = script.reason
            answer.metrics = measured()
        }
        return format.whole(answer)
    }

    private func measured() -> Metrics {
        let now = EventLoop.monotonicNanoseconds()
        metrics.tokens = script.tokenCount(of: script.count)
        metrics.total = max(now &- arrival, 1)
        metrics.promptEvaluation = max(firstToken &- began, 1)
        metrics.evaluation = max(now &- firstToken, 1)
        return metrics
    }

    private func logprobs(_ piece: Script.Piece, _ index: Int) -> [UInt8]? {
        guard let alternatives else { return nil }
        switch piece {
        case .text(let token), .thinking(let token):
            return Logprobs.entry(token.text, index: index, seed: script.seed, alternatives: alternatives)
        case .call:
            return nil
        }
    }
}
