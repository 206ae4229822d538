import Digests
import EventLoop
import HTTPCore

/// Progress lines, one after the other, and perhaps an error at the end.
@Loop
final class ProgressSource: ChunkSource {
    private let steps: [JSONValue]
    private let failure: String?
    /// Called when all went well, before the last line is told.
    private let done: @Loop () -> Void

    init(_ steps: [JSONValue], failure: String? = nil, done: @escaping @Loop () -> Void = {}) {
        self.steps = steps
        self.failure = failure
        self.done = done
    }

    var count: Int { steps.count }

    func chunk(_ index: Int, to lines: inout Lines) {
        if index == steps.count - 1, failure == nil { done() }
        lines.bytes.append(json: steps[index])
        lines.bytes.append("\n")
        lines.end()
    }

    func end(to lines: inout Lines) {
        if let failure { breakOff(failure, to: &lines) }
    }

    func breakOff(_ message: String, to lines: inout Lines) {
        lines.bytes.append(json: ["error": .string(message)])
        lines.bytes.append("\n")
        lines.end()
    }

    /// What is answered where no stream is wanted: the last line, or the error alone.
    func last(for call: Call) -> Plan {
        if let failure {
            let error: JSONValue = ["error": .string(failure)]
            return call.answer(500, "application/json", error.bytes)
        }
        done()
        return call.answer(200, "application/json", steps.last?.bytes ?? [])
    }
}

/// `/api/pull`, `/api/push` and `/api/create`.
extension Box {
    func pull(_ call: Call) throws -> Plan {
        let fields = try call.fields("PullRequest")
        let model = try fields.string("model")
        let text = try model.isEmpty ? fields.string("name") : model
        guard let name = ModelName(text) else { throw Failure.bad("invalid model name") }
        var steps: [JSONValue] = [["status": "pulling manifest"]]
        if isUnknownToRegistry(name) {
            return progress(
                ProgressSource(steps, failure: "pull model manifest: file does not exist"), for: call, fields)
        }
        let fresh = Model(name, modified: clock.now)
        let isHere = catalogue[name]?.digest == fresh.digest
        for layer in layers(of: name) { steps += layer.steps(alreadyHere: isHere) }
        steps += ["verifying sha256 digest", "writing manifest", "removing unused layers", "success"].map {
            ["status": $0]
        }
        let source = ProgressSource(steps) { [self] in
            if !isHere { catalogue.add(fresh) }
        }
        return progress(source, for: call, fields)
    }

    func push(_ call: Call) throws -> Plan {
        let fields = try call.fields("PushRequest")
        let model = try fields.string("model")
        let text = try model.isEmpty ? fields.string("name") : model
        guard !text.isEmpty else { throw Failure.bad("model is required") }
        var steps: [JSONValue] = [["status": "retrieving manifest"]]
        guard let name = ModelName(text), catalogue[name] != nil else {
            steps.append(["status": "couldn't retrieve manifest"])
            return progress(ProgressSource(steps, failure: "file does not exist"), for: call, fields)
        }
        if name.namespace == "library" {
            let refusal =
                "you are not authorized to push to this namespace, create the model under a namespace you own"
            return progress(ProgressSource(steps, failure: refusal), for: call, fields)
        }
        for layer in layers(of: name) { steps.append(layer.step("pushing", completed: layer.size)) }
        steps += [["status": "pushing manifest"], ["status": "success"]]
        return progress(ProgressSource(steps), for: call, fields)
    }

    func create(_ call: Call) throws -> Plan {
        let fields = try call.fields("CreateRequest")
        let model = try fields.string("model")
        let text = try model.isEmpty ? fields.string("name") : model
        guard let name = ModelName(text) else { throw Failure.bad("invalid model name") }
        var recipe = Model.Recipe()
        recipe.system = try fields.string("system")
        recipe.parameters = try fields.object("parameters")?.object ?? JSONObject()
        recipe.license = fields["license"]?.string ?? ""
        let template = try fields.string("template")
        if !template.isEmpty { recipe.template = template }

        let from = try fields.string("from")
        let files = try fields.object("files")?.object.members ?? []
        var family = Family.of(name)
        var seed = "model \(recipe.system) \(JSONValue.object(recipe.parameters).text) \(recipe.template)"
        var steps: [JSONValue] = []
        if !from.isEmpty {
            guard let parent = ModelName(from) else { throw Failure.bad("invalid model name") }
            guard let base = catalogue[parent] else {
                return progress(
                    ProgressSource(
                        [["status": "pulling manifest"]], failure: "pull model manifest: file does not exist"),
                    for: call, fields)
            }
            family = base.family
            recipe.parent = base.name.display
            seed += base.digest
            steps.append(["status": .string("using existing layer sha256:\(base.digest)")])
        } else if !files.isEmpty {
            for file in files {
                let digest = file.value.string ?? ""
                guard Blob.isDigest(digest) else { throw Failure.bad("invalid digest format") }
                guard catalogue.blobs.contains(digest) else {
                    throw Failure.bad("blob \"\(digest)\" not found")
                }
                seed += digest
                steps += [["status": "parsing GGUF"], ["status": .string("using existing layer \(digest)")]]
            }
        } else {
            throw Failure.bad("neither 'from' or 'files' was specified")
        }
        let digest = SHA256.hash(seed).description
        steps += [
            ["status": .string("creating new layer sha256:\(SHA256.hash("config " + seed))")],
            ["status": "writing manifest"], ["status": "success"],
        ]
        let source = ProgressSource(steps) { [self] in
            catalogue.add(Model(name: name, digest: digest, family: family, modified: clock.now, recipe: recipe))
        }
        return progress(source, for: call, fields)
    }

    // MARK: In common

    /// Names that no registry knows, so that a failed pull can be tried.
    private func isUnknownToRegistry(_ name: ModelName) -> Bool {
        let model = name.model.lowercased()
        return ["missing", "nope", "nonexistent", "does-not-exist", "unknown"].contains(where: model.hasPrefix)
    }

    private func progress(_ source: ProgressSource, for call: Call, _ fields: Fields) -> Plan {
        let streams = (try? fields.bool("stream")) ?? true
        if !streams, settings.interval == 0, call.fault == nil {
            counts.finished += 1
            return source.last(for: call)
        }
        return .work { [self] reply in
            if streams {
                let writer = reply.stream(status: 200, headers: call.headers("application/x-ndjson"))
                return await play(source, to: writer, for: call)
            }
            do {
                try await Loop.sleep(for: .nanoseconds(Int64(clamping: settings.interval &* UInt64(source.count))))
            } catch {
                counts.cancelled += 1
                return
            }
            await deliver(source.last(for: call), for: call, reply)
        }
    }

    /// The files that a model comes in.
    private func layers(of name: ModelName) -> [Layer] {
        let sizes = [Family.of(name).size, 1_429, 11_356, 487]
        return sizes.enumerated().map { index, size in
            Layer(digest: SHA256.hash("layer \(index) of \(name.key)").description, size: size)
        }
    }
}

/// One file of a model on its way.
private struct Layer {
    let digest: String
    /// In bytes.
    let size: Int

    /// From the first word of it to the last.
    func steps(alreadyHere: Bool) -> [JSONValue] {
        guard !alreadyHere else { return [step("pulling", completed: size)] }
        let parts = size > 1_000_000 ? [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] : [0.0, 1.0]
        return parts.map { step("pulling", completed: Int(Double(size) * $0)) }
    }

    func step(_ verb: String, completed: Int) -> JSONValue {
        var members: [JSONObject.Member] = [
            ("status", .string("\(verb) \(digest.prefix(12))")), ("digest", .string("sha256:" + digest)),
            ("total", .integer(size)),
        ]
        if completed > 0 { members.append(("completed", .integer(completed))) }
        return .object(JSONObject(members: members))
    }
}
