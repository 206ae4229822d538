import EventLoop
import HTTPCore

/// Sees whether an answer is whole, and how it is written.
struct WholenessCheck: Sendable {
    let answer: Bytes
    /// How the box was asked to write it.
    let asked: AnswerForm
    let endpoint: Endpoint

    func form() -> AnswerForm? {
        // A box that was asked for the numbers of tokens may not know of them.
        let forms = asked == .streamWithUsage ? [asked, .stream] : [asked]
        return forms.first { Answers.isWhole(answer.buffer, form: $0, endpoint: endpoint) }
    }

    /// The same, on another thread.
    func formElsewhere() async -> AnswerForm? { await Loop.elsewhere { form() } }
}
