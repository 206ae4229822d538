/// A whole answer in the pieces that make a stream of it: thinking, text, tool calls, in the order in which a model
/// comes to them.
struct AnswerPieces {
    enum Kind { case thinking, text, calls }

    struct Piece {
        let kind: Kind
        /// What a string has between its quotation marks, or an array between its brackets.
        let content: UnsafeRawBufferPointer
        /// Elements of an array; nil if there are none.
        var logprobs: UnsafeRawBufferPointer?
    }

    /// A chunk repeats what stands around the text. Where that is longer than any name that Ollama allows makes it,
    /// the text stays in one piece, lest the stream become many times as long as the answer.
    static let maxFrame = 1024

    let thinking: UnsafeRawBufferPointer
    let text: UnsafeRawBufferPointer
    let calls: UnsafeRawBufferPointer
    let logprobs: JSONNode?
    /// In bytes: what a chunk has besides its content.
    let frame: Int

    init(text: JSONNode?, thinking: JSONNode?, calls: JSONNode?, logprobs: JSONNode?, frame: Int) {
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        self.text = text?.escaped ?? nothing
        self.thinking = thinking?.escaped ?? nothing
        self.calls = calls?.inside ?? nothing
        self.logprobs = logprobs.flatMap { $0.isEmpty ? nil : $0 }
        self.frame = frame
    }

    func each(_ body: (Piece) -> Void) {
        if let logprobs, frame <= AnswerPieces.maxFrame, walk(thinking, text, logprobs, { _ in }) {
            walk(thinking, text, logprobs, body)
        } else {
            cut(thinking, .thinking, body)
            eachOfText(body)
        }
        if !calls.isEmpty { body(Piece(kind: .calls, content: calls)) }
    }

    private func eachOfText(_ body: (Piece) -> Void) {
        guard let logprobs else { return cut(text, .text, body) }
        let nothing = text.part(0..<0)
        if frame <= AnswerPieces.maxFrame, walk(nothing, text, logprobs, { _ in }) {
            walk(nothing, text, logprobs, body)
        } else if text.isEmpty {
            body(Piece(kind: .text, content: nothing, logprobs: logprobs.inside))
        } else {
            // They belong to tokens that we cannot find: all of them go with the first piece.
            cut(text, .text, logprobs: logprobs.inside, body)
        }
    }

    private func cut(
        _ text: UnsafeRawBufferPointer, _ kind: Kind, logprobs: UnsafeRawBufferPointer? = nil, _ body: (Piece) -> Void
    ) {
        if frame > AnswerPieces.maxFrame, !text.isEmpty {
            return body(Piece(kind: kind, content: text, logprobs: logprobs))
        }
        var logprobs = logprobs
        for content in TextCuts(text) {
            body(Piece(kind: kind, content: content, logprobs: logprobs))
            logprobs = nil
        }
    }

    /// Takes one token after the other off the thinking and then the text.
    ///
    /// - Returns: whether the tokens are just those, and each may stand alone.
    @discardableResult
    private func walk(
        _ thinking: UnsafeRawBufferPointer, _ text: UnsafeRawBufferPointer, _ logprobs: JSONNode,
        _ body: (Piece) -> Void
    ) -> Bool {
        var isThinking = !thinking.isEmpty
        var place = 0
        for entry in logprobs.elements {
            guard let token = entry["token"], token.kind == .string else { return false }
            let content = token.escaped
            if isThinking, place == thinking.count { (isThinking, place) = (false, 0) }
            let source = isThinking ? thinking : text
            guard source.holds(content, at: place), TextCuts.canCut(source, at: place) else { return false }
            place += content.count
            body(Piece(kind: isThinking ? .thinking : .text, content: content, logprobs: entry.raw))
        }
        return isThinking ? place == thinking.count && text.isEmpty : place == text.count
    }
}
