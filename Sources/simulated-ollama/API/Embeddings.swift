import EventLoop
import HTTPCore

/// A request for vectors, all checked.
@Loop
struct EmbeddingWork {
    let call: Call
    let demand: Scheduler.Demand
    /// None only loads the model.
    let texts: [String]
    var dimensions: Int?
    let format: EmbeddingsFormat
}

/// `/api/embed`, `/api/embeddings` and `/v1/embeddings`.
extension Box {
    func embed(_ call: Call) throws -> Plan {
        let fields = try call.fields("EmbedRequest")
        let name = try fields.string("model")
        let model = try find(name, nameless: .missing(""), missing: notPulled(name))
        return plan(
            EmbeddingWork(
                call: call, demand: try demand(model, fields), texts: try texts(fields["input"]),
                dimensions: try fields.int("dimensions"), format: .native(model: name)))
    }

    func embeddings(_ call: Call) throws -> Plan {
        let fields = try call.fields("EmbeddingRequest")
        let name = try fields.string("model")
        let prompt = try fields.string("prompt")
        let model = try find(name, nameless: .bad("model is required"), missing: notPulled(name))
        return plan(
            EmbeddingWork(
                call: call, demand: try demand(model, fields), texts: prompt.isEmpty ? [] : [prompt], format: .single))
    }

    func openAIEmbeddings(_ call: Call) throws -> Plan {
        let fields = try call.fields("EmbedRequest")
        let name = try fields.string("model")
        let encoding = try fields.string("encoding_format")
        guard ["", "float", "base64"].contains(encoding.lowercased()) else {
            throw early("Invalid value for 'encoding_format' = \(encoding). Supported values: ['float', 'base64'].")
        }
        guard let input = fields["input"], input.array?.isEmpty != true else { throw early("invalid input") }
        let model = try find(name, nameless: .missing(""), missing: notPulled(name))
        let texts = try texts(input)
        return plan(
            EmbeddingWork(
                call: call, demand: try demand(model, fields), texts: texts.isEmpty ? [""] : texts,
                dimensions: try fields.int("dimensions"),
                format: .openAI(model: name, base64: encoding.lowercased() == "base64")))
    }

    // MARK: Reading

    private func notPulled(_ name: String) -> Failure {
        Failure(status: 404, message: "model \"\(name)\" not found, try pulling it first")
    }

    private func demand(_ model: Model, _ fields: Fields) throws -> Scheduler.Demand {
        let options = try fields.object("options")?.object ?? JSONObject()
        if let problem = ModelOptions.problem(in: options) { throw Failure(status: 500, message: problem) }
        return Scheduler.Demand(
            model: model, options: RunnerOptions(options, over: model.recipe.parameters, shift: nil),
            keepAlive: try fields["keep_alive"].map { try KeepAlive($0) })
    }

    private func texts(_ input: JSONValue?) throws(Failure) -> [String] {
        switch input {
        case nil: return []
        case .string(let text)?: return text.isEmpty ? [] : [text]
        case .array(let array)?:
            let texts = array.compactMap(\.string)
            guard texts.count == array.count else { throw .bad("invalid input type") }
            return texts
        default: throw .bad("invalid input type")
        }
    }

    // MARK: Answering

    /// A vector takes as long as reading a prompt.
    private func plan(_ work: EmbeddingWork) -> Plan {
        guard settings.firstToken == 0 || work.texts.isEmpty, work.call.fault == nil,
            let lease = scheduler.leaseNow(work.demand)
        else {
            return .work { [self] reply in await carryOut(work, reply) }
        }
        defer { scheduler.release(lease) }
        counts.finished += 1
        return rendered(work, lease)
    }

    private func carryOut(_ work: EmbeddingWork, _ reply: consuming Reply) async {
        let lease: Lease
        do {
            lease = try await scheduler.lease(work.demand)
        } catch is QueueFull {
            return await work.call.answer(.queueFull).carryOut(reply)
        } catch {
            counts.cancelled += 1
            return
        }
        defer { scheduler.release(lease) }
        do {
            if settings.firstToken > 0, !work.texts.isEmpty {
                try await Loop.sleep(for: .nanoseconds(Int64(clamping: settings.firstToken)))
            }
        } catch {
            counts.cancelled += 1
            return
        }
        await deliver(rendered(work, lease), for: work.call, reply)
    }

    private func rendered(_ work: EmbeddingWork, _ lease: Lease) -> Plan {
        let model = work.demand.model
        let vectors = work.texts.map { text in
            let vector = Embedding(text, digest: model.digest, length: model.family.embeddingLength)
            return work.format.normalises ? vector.normalised(dimensions: work.dimensions) : vector
        }
        var metrics = Metrics()
        metrics.promptTokens = work.texts.reduce(0) { $0 + 2 + $1.utf8.count / 4 }
        metrics.load = max(lease.assignedAt &- work.call.arrival, 1)
        metrics.total = max(EventLoop.monotonicNanoseconds() &- work.call.arrival, 1)
        return work.call.answer(200, work.format.contentType, work.format.body(vectors, metrics))
    }
}
