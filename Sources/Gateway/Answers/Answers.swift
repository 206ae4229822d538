import HTTPCore

/// Answers as they are written: whether one is complete, and how it reads in another form.
///
/// A cache keeps an answer in the form in which it came and hands it out in the form that is asked for. All of it is
/// done on the text: strings are joined and cut as they are written, escapes and all, and whatever is not understood
/// stays as it is. Time and memory are linear in the text; no input, however broken, does more than get a no.
enum Answers {
    /// Whether this is an answer to its end, without an error, and not the mere loading or unloading of a model: one
    /// that may be kept. Every such answer can be converted.
    ///
    /// - Parameters:
    ///   - bytes: all of the body.
    ///   - form: the form that was asked for; ``AnswerForm/streamWithUsage`` wants its usage event to be there.
    static func isWhole(_ bytes: UnsafeRawBufferPointer, form: AnswerForm, endpoint: Endpoint) -> Bool {
        do {
            switch (endpoint, form) {
            case (.generate, .whole), (.chat, .whole):
                try NativePart.checkWhole(bytes, endpoint)
            case (.generate, .stream), (.chat, .stream):
                try NativePart.checkStream(bytes, endpoint)
            case (.completions, .whole), (.chatCompletions, .whole):
                try OpenAIPart.checkWhole(bytes, endpoint)
            case (.completions, _), (.chatCompletions, _):
                try OpenAIPart.checkStream(bytes, endpoint, wantsUsage: form == .streamWithUsage)
            case (.embed, .whole): try checkVectors(bytes, "embeddings")
            case (.embeddings, .whole): try checkVectors(bytes, "embedding")
            case (.openAIEmbeddings, .whole): try checkVectors(bytes, "data")
            default: return false
            }
            return true
        } catch {
            return false
        }
    }

    /// The same answer in another form, or in the same under another model's name.
    ///
    /// Nil if it cannot be done: what is not understood or not finished, a stream without usage into what tells it,
    /// and a form that the endpoint does not have.
    ///
    /// - Parameter model: if given, stands for the `model` of every line, event or object that has one.
    static func convert(
        _ bytes: UnsafeRawBufferPointer, from: AnswerForm, to form: AnswerForm, endpoint: Endpoint, model: String?
    ) -> Bytes? {
        if from == form, model == nil { return Bytes(copying: bytes) }
        guard endpoint.isCacheable else { return nil }
        return try? rewrite(bytes, from, form, endpoint, model)
    }

    private static func rewrite(
        _ bytes: UnsafeRawBufferPointer, _ from: AnswerForm, _ form: AnswerForm, _ endpoint: Endpoint, _ model: String?
    ) throws -> Bytes {
        let edit = AnswerEdit(model: model, dropsUsage: from == .streamWithUsage && form == .stream)
        if from == .whole, form == .whole { return try edit.whole(bytes) }
        guard endpoint.streams else { throw NotAnAnswer() }
        switch (from, form, endpoint.isNative) {
        case (.stream, .stream, true):
            return try edit.lines(bytes)
        case (.stream, .stream, false), (.streamWithUsage, .stream, false), (.streamWithUsage, .streamWithUsage, false):
            return try edit.events(bytes)
        case (.stream, .whole, true):
            return try NativeJoin.whole(of: bytes, endpoint, model: model)
        case (.streamWithUsage, .whole, false):
            return try OpenAIJoin.whole(of: bytes, endpoint, model: model)
        case (.whole, .stream, true):
            return try NativeSplit.stream(of: bytes, endpoint, model: model)
        case (.whole, .stream, false), (.whole, .streamWithUsage, false):
            return try OpenAISplit.stream(of: bytes, endpoint, withUsage: form == .streamWithUsage, model: model)
        default: throw NotAnAnswer()
        }
    }

    /// A list with nothing in it is what a request without input gets, which only loads the model.
    private static func checkVectors(_ bytes: UnsafeRawBufferPointer, _ name: StaticString) throws {
        try JSONDocument.read(bytes) { root in
            try root.refuseError()
            guard let list = try root.member(name, .array), !list.isEmpty else { throw NotAnAnswer() }
        }
    }
}

/// What does not read as an answer, or is not finished: thrown within ``Answers``, a no to those outside.
struct NotAnAnswer: Error {}

extension JSONNode {
    /// A member that must be of this kind if it is there; null is as good as none, as it is to Go.
    func member(_ name: StaticString, _ kind: Kind) throws -> JSONNode? {
        guard let value = self[name], value.kind != .null else { return nil }
        guard value.kind == kind else { throw NotAnAnswer() }
        return value
    }

    /// What does not even begin like an answer, or tells of an error.
    func refuseError() throws {
        guard kind == .object, self["error"] == nil else { throw NotAnAnswer() }
    }

    /// What stands between an array's brackets: its elements and the commas, without outer white space.
    var inside: UnsafeRawBufferPointer {
        var first: Int?
        var last = 0
        for element in elements {
            if first == nil { first = element.range.lowerBound - range.lowerBound }
            last = element.range.upperBound - range.lowerBound
        }
        return first.map { raw.part($0..<last) } ?? UnsafeRawBufferPointer(start: nil, count: 0)
    }

    /// Whether a model was only loaded or unloaded. Source: Ollama, `llm/server.go`, `DoneReason`.
    var isNoAnswer: Bool { equals("load") || equals("unload") }
}
