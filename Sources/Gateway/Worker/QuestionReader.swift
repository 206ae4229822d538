import EventLoop
import HTTPCore

/// Reads what a request asks, and hashes what its key is made of.
struct QuestionReader: Sendable {
    let body: Bytes
    let endpoint: Endpoint
    /// The hash of the bytes, if it is known already.
    let raw: Key?
    /// Else nothing is hashed.
    let isCaching: Bool
    let cachesTools: Bool
    let wantsConversation: Bool
    let hash: Hash

    struct Reading: Sendable {
        let question: Question
        /// Of the bytes as they came, and of the canonical form; nil for what the cache has nothing to do with.
        var raw: Key?
        var key: Key?
        /// The request as a box is to be asked it, if that is not as it came.
        var asking: Bytes?
        /// See ``ConversationHash``; 0 if nobody wants to know.
        var conversation: UInt64 = 0
    }

    /// Bytes: larger bodies, and answers, are read elsewhere than on the loop, where they hold nobody up.
    static let readAtOnce = 256 * 1024

    func read() -> Reading {
        var reading = readQuestion()
        if wantsConversation {
            reading.conversation = ConversationHash.of(
                body.buffer, model: reading.question.modelName.description, at: endpoint)
        }
        return reading
    }

    private func readQuestion() -> Reading {
        guard isCaching else { return Reading(question: .routing(body.buffer, for: endpoint)) }
        let question = Question.read(body.buffer, for: endpoint, cachesTools: cachesTools)
        guard case .cacheable(let canonical) = question.content else { return Reading(question: question) }
        // What is kept of a stream needs the numbers of tokens, which nobody may have asked for.
        let asksForUsage = question.form == .stream && !endpoint.isNative
        return Reading(
            question: question.hashed, raw: raw ?? hash(body.buffer).salted(with: endpoint),
            key: hash(canonical.buffer),
            asking: asksForUsage ? UsageRequest.asking(body.buffer) : nil)
    }

    /// The same, on another thread.
    func readElsewhere() async -> Reading { await Loop.elsewhere { read() } }
}
