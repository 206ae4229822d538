import EventLoop

/// All that a model is going to say, piece by piece, decided before it begins.
struct Script {
    enum Piece {
        case thinking(Token)
        case text(Token)
        case call(ToolCall)
    }

    private enum Source {
        /// Words without end.
        case words
        /// Just these tokens.
        case tokens([Token])
        case call(ToolCall)
    }

    let seed: Seed
    /// Pieces in all; thinking comes first.
    let count: Int
    let reason: String
    private let thinkingCount: Int
    private let source: Source
    private let stamps: Bool

    /// - Parameters:
    ///   - tokens: how many tokens an answer has unless the request wants fewer.
    ///   - stamps: each token is the box's monotonic time when it is made, instead of a word.
    init(_ inference: Inference, thinks: Bool, seed: Seed, tokens: Int, stamps: Bool) {
        self.seed = seed
        self.stamps = stamps
        let limit = inference.tokenLimit ?? .max
        thinkingCount = thinks ? min(max(2, tokens / 4), limit) : 0
        let rest = limit - thinkingCount

        var reason = "stop"
        var length: Int
        if let tool = Script.called(by: inference) {
            source = .call(ToolCall(tool, seed: seed))
            length = min(1, rest)
        } else if let format = inference.format {
            let answer = format.object.map { Example.object(of: $0, seed: seed) } ?? Example.plain(seed: seed)
            let pieces = Script.split(JSONValue.object(answer).text)
            source = .tokens(pieces)
            length = pieces.count
        } else {
            source = .words
            length = tokens
        }
        if length > rest {
            length = rest
            reason = "length"
        }
        if !stamps, case .words = source, let stopped = Script.stop(inference.stops, seed: seed, length: length) {
            length = stopped
            reason = "stop"
        }
        count = thinkingCount + length
        self.reason = reason
    }

    func piece(_ index: Int) -> Piece {
        if index < thinkingCount {
            // Other words than the answer's: from the far end of the seed's numbers.
            return .thinking(stamps ? Script.stamp() : Vocabulary.token(index, of: thinkingSeed))
        }
        if case .call(let call) = source { return .call(call) }
        if stamps { return .text(Script.stamp()) }
        if case .tokens(let tokens) = source { return .text(tokens[index - thinkingCount]) }
        return .text(Vocabulary.token(index - thinkingCount, of: seed))
    }

    /// What a model would count; a call of a tool is more than one token, although it comes in one piece.
    func tokenCount(of pieces: Int) -> Int {
        guard case .call(let call) = source, pieces == count else { return pieces }
        return pieces + call.arguments.members.count * 6 + 12
    }

    private var thinkingSeed: Seed {
        var other = seed
        other.mix(9)
        return other
    }

    // MARK: Deciding

    /// The first tool, if the user's last words name one.
    private static func called(by inference: Inference) -> Tool? {
        guard let tool = inference.tools.first(where: { inference.question.contains($0.name) }) else { return nil }
        return tool.name.isEmpty ? nil : tool
    }

    /// Tokens before the first stop sequence; nil if none occurs.
    private static func stop(_ stops: [String], seed: Seed, length: Int) -> Int? {
        guard !stops.isEmpty else { return nil }
        var text = ""
        for index in 0..<min(length, 10_000) {
            text += Vocabulary.token(index, of: seed).text
            if stops.contains(where: text.contains) { return index }
        }
        return nil
    }

    /// JSON comes in short pieces too.
    private static func split(_ text: String) -> [Token] {
        var pieces: [Token] = []
        var rest = Substring(text)
        while !rest.isEmpty {
            pieces.append(Token(String(rest.prefix(4))))
            rest = rest.dropFirst(4)
        }
        return pieces
    }

    private static func stamp() -> Token { Token("\(EventLoop.monotonicNanoseconds()) ") }
}

/// A model calling a tool.
struct ToolCall {
    let id: String
    let name: String
    let arguments: JSONObject

    init(_ tool: Tool, seed: Seed) {
        let letters = Array("abcdefghijklmnopqrstuvwxyz0123456789")
        id = "call_" + (0..<8).map { String(letters[Int(seed.number(100 + $0) % 36)]) }.joined()
        name = tool.name
        arguments = Example.object(of: tool.schema, seed: seed)
    }
}
