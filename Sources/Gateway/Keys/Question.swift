import HTTPCore

/// What a request to an inference endpoint asks, as far as routing and the cache want to know.
///
///     let question = Question.read(body.buffer, for: .chat, cachesTools: false)
///     if case .cacheable(let canonical) = question.content { … the key is the SHA-256 of `canonical` … }
///
/// Reading never fails: of a body that cannot be understood it says that the cache is to be passed by. It holds
/// no reference to the body. Any thread may read; nothing recurses, so a small stack is enough.
struct Question: Sendable {
    let endpoint: Endpoint
    /// As written in the request, since Ollama repeats it in the answer; "" if absent.
    let model: String
    let modelName: ModelName
    /// How the client wants the answer written.
    let form: AnswerForm
    private(set) var content: Content
    /// Whether it asks nothing but that the model leave the memory.
    let isUnload: Bool
    /// Whether the same question is meant to have the same answer: embeddings, temperature 0, a given seed.
    let isDeterministic: Bool

    /// A request of more values is not read further. It has room for the longest context there is.
    static let maxValues = 1 << 18

    enum Content: Sendable {
        /// The bytes to hash: equal for two requests exactly when Ollama would answer them alike.
        case cacheable(canonical: Bytes)
        /// The request goes to a box, and its answer is not kept.
        case bypass(Bypass)
    }

    /// Why the cache is passed by; the raw value is what `Cache-Status` says in `detail`.
    ///
    /// Where several hold, the first that is found counts: first of the whole text, then of the top level, then
    /// of what is below.
    enum Bypass: String, CaseIterable, Error, Sendable {
        /// Nothing is kept.
        case off
        /// The answers of this path are not kept.
        case endpoint
        /// Not one JSON object of the shape that Ollama takes, or with something behind it, or without a model.
        case malformed
        /// Nested deeper than ``JSONDocument/maxDepth``.
        case depth
        /// Of more values than ``maxValues``.
        case size
        /// Not UTF-8: Ollama repairs it, and in its own way.
        case encoding
        /// A name twice in one object: Ollama takes the last, or both.
        case duplicate
        /// A field that Ollama knows, in other upper and lower case: it counts for Ollama.
        case spelling = "case"
        /// The model runs at ollama.com.
        case cloud
        /// `_debug_render_only`: the answer is not the model's.
        case debug
        /// Nothing to answer: the request loads a model or, with `keep_alive` 0, unloads it.
        case load
        /// `keep_alive` 0: a hit would leave the model in memory.
        case unload
        /// Agents call tools to learn what is so now.
        case tools
    }

    /// Reads the body of a request in time linear (for objects: n log n) in its length.
    ///
    /// - Parameters:
    ///   - body: All of it, decompressed.
    ///   - cachesTools: Whether questions that offer tools are kept as well.
    static func read(
        _ body: UnsafeRawBufferPointer, for endpoint: Endpoint, cachesTools: Bool
    ) -> Question {
        do {
            return try JSONDocument.read(body, maxValues: maxValues) { root in
                Question(root, of: body, for: endpoint, cachesTools: cachesTools)
            }
        } catch let problem as JSONProblem where problem.kind == .trailing {
            // Ollama reads the first value and lets the rest be. So do we, to know where the request has to go.
            let first = UnsafeRawBufferPointer(rebasing: body[..<problem.offset])
            let envelope = try? JSONDocument.read(first, maxValues: maxValues) { Envelope($0, for: endpoint) }
            return Question(envelope ?? Envelope(for: endpoint), for: endpoint, bypass: .malformed)
        } catch {
            let reason: Bypass =
                switch (error as? JSONProblem)?.kind {
                case .tooDeep: .depth
                case .tooMany: .size
                default: .malformed
                }
            return Question(Envelope(for: endpoint), for: endpoint, bypass: reason)
        }
    }

    /// The same without the bytes to hash, which may be as many as the request's, for when they have been.
    var hashed: Question {
        guard case .cacheable = content else { return self }
        var question = self
        question.content = .cacheable(canonical: .empty)
        return question
    }

    /// Reads only what must be known of every request, for when nothing is kept.
    static func routing(_ body: UnsafeRawBufferPointer, for endpoint: Endpoint) -> Question {
        let envelope = try? JSONDocument.read(body, maxValues: maxValues) { Envelope($0, for: endpoint) }
        return Question(envelope ?? Envelope(for: endpoint), for: endpoint, bypass: .off)
    }

    private init(_ root: JSONNode, of body: UnsafeRawBufferPointer, for endpoint: Endpoint, cachesTools: Bool) {
        let envelope = Envelope(root, for: endpoint)
        self.endpoint = endpoint
        model = envelope.model
        modelName = ModelName(envelope.model)
        form = envelope.form
        isUnload = envelope.isUnload
        isDeterministic = Question.isDeterministic(root, for: endpoint)
        guard endpoint.isCacheable else {
            content = .bypass(.endpoint)
            return
        }
        do throws(Bypass) {
            guard body.isUTF8 else { throw .encoding }
            content = .cacheable(
                canonical: try CanonicalForm.write(
                    root, of: endpoint, model: modelName, capacity: body.count + 64, cachesTools: cachesTools))
        } catch {
            content = .bypass(error)
        }
    }

    private init(_ envelope: Envelope, for endpoint: Endpoint, bypass: Bypass) {
        self.endpoint = endpoint
        model = envelope.model
        modelName = ModelName(envelope.model)
        form = envelope.form
        isUnload = envelope.isUnload
        isDeterministic = endpoint.isEmbedding
        content = .bypass(endpoint.isCacheable ? bypass : .endpoint)
    }

    /// Native requests say it in `options`; at their top level `temperature` and `seed` mean nothing to Ollama.
    private static func isDeterministic(_ root: JSONNode, for endpoint: Endpoint) -> Bool {
        if endpoint.isEmbedding { return true }
        guard endpoint.isCacheable, let options = endpoint.isNative ? root["options"] : root else { return false }
        if options["temperature"]?.double == 0 { return true }
        guard let seed = options["seed"]?.double else { return false }
        return seed.rounded(.towardZero) >= 0
    }
}

/// What must be known of every request, whatever is wrong with it: read the way Go does, names in any case and
/// the last of several.
private struct Envelope {
    var model = ""
    var form: AnswerForm
    var isUnload = false

    init(for endpoint: Endpoint) { form = endpoint.streamsByDefault ? .stream : .whole }

    init(_ root: JSONNode, for endpoint: Endpoint) {
        self.init(for: endpoint)
        var streams = endpoint.streamsByDefault
        var wantsUsage = false
        var (asks, keepsNothing) = (false, false)
        for (name, value) in root.members {
            if name.folds(to: "model") {
                model = value.string ?? model
            } else if name.folds(to: "stream") {
                streams = value.bool ?? streams
            } else if name.folds(to: "stream_options") {
                for (name, value) in value.members where name.folds(to: "include_usage") {
                    wantsUsage = value.bool ?? wantsUsage
                }
            } else if name.folds(to: "prompt") || name.folds(to: "messages") {
                asks = asks || (value.kind == .string ? !value.isEmptyString : !value.isEmpty)
            } else if name.folds(to: "keep_alive") {
                keepsNothing = value.isShortestKeepAlive
            }
        }
        isUnload = (endpoint == .generate || endpoint == .chat) && keepsNothing && !asks
        if !streams || endpoint.isEmbedding {
            form = .whole
        } else {
            form = wantsUsage && !endpoint.isNative ? .streamWithUsage : .stream
        }
    }
}

extension Endpoint {
    /// Whether it turns text into numbers: the same into the same, and never as a stream.
    var isEmbedding: Bool { self == .embed || self == .embeddings || self == .openAIEmbeddings }
}

extension UnsafeRawBufferPointer {
    /// Whether the bytes are well-formed UTF-8 (RFC 3629: no surrogates, nothing overlong).
    var isUTF8: Bool {
        withMemoryRebound(to: UInt8.self) { bytes in
            (try? UTF8Span(validating: bytes.span)) != nil
        }
    }
}
