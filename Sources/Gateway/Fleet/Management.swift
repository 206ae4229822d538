import EventLoop
import HTTPCore

/// Requests that change which models the backends have: where each goes.
///
/// A pull goes to every backend that is well; deleting and copying to every one that has the model; pushing, creating
/// one, and the uploads for that, to one backend, the same for one client.
@Loop
final class Management {
    enum Change { case pull, delete, copy, push, create, blob }

    /// What the body says.
    private struct Wish {
        /// As ``ModelName`` writes it; "" if there is none.
        var model = ""
        var streams = true
    }

    private struct Home {
        let backend: Int
        /// In monotonic nanoseconds.
        var lastUsed: UInt64
    }

    private let manage: Gateway.Manage
    private var homes: [PeerAddress: Home] = [:]
    private static let homesAtMost = 1000
    /// Nanoseconds: for so long after its last request a client's uploads are looked for where they went.
    private static let homeLasts: UInt64 = 3_600_000_000_000

    init(_ manage: Gateway.Manage) { self.manage = manage }

    /// What a request is to change; nil for what changes nothing.
    func change(of request: Request) -> Change? {
        switch (request.method, request.path) {
        case ("POST", "/api/pull"): .pull
        case ("DELETE", "/api/delete"): .delete
        case ("POST", "/api/copy"): .copy
        case ("POST", "/api/push"): .push
        case ("POST", "/api/create"): .create
        case (_, let path) where path.hasPrefix("/api/blobs/"): .blob
        default: nil
        }
    }

    /// Sees to a request to its end.
    /// - Parameter start: when it came.
    func handle(
        _ change: Change, _ request: Request, _ reply: consuming Reply, id: String, at start: Int64,
        _ trace: RequestTrace?, _ gateway: Gateway
    ) async -> AccessRecord {
        let fleet = gateway.fleet
        var record = AccessRecord(of: request, id: id, at: start, trace)
        let wish = wish(of: request)
        record.model = wish.model.isEmpty ? nil : wish.model
        let backends = manage == .off ? [] : await backends(for: change, wish.model, of: request.peer, fleet)
        guard let first = backends.first else {
            let failure =
                manage == .off
                ? Failure(status: 403, message: "this gateway changes no models (--manage off)", .forbidden)
                : fleet.unavailable(change == .delete || change == .copy ? wish.model : "")
            record.end(failure, failure.response(to: request.path, id: id), reply, at: gateway.clock())
            return record
        }
        let changesModels = change != .push && change != .blob
        if changesModels { backends.forEach { fleet.changing[$0, default: 0] += 1 } }
        defer { if changesModels { changed(backends, fleet) } }
        if change == .pull, manage == .all { noteLeftOut(wish.model, fleet) }
        let others = change == .delete || change == .copy ? othersThatHave(wish.model, fleet) : []
        if backends.count > 1 || !others.isEmpty {
            if change == .pull {
                let pull = PullEverywhere(
                    request, id: id, at: start, backends, streams: wish.streams, trace, gateway)
                var pulled = await pull.run(reply)
                pulled.model = record.model
                return pulled
            }
            await everywhere(request, reply, &record, id, backends, others, gateway)
            return record
        }
        let relay = Relay(request, id: id, at: start, to: .backend(first), trace, gateway: gateway)
        await relay.run(reply)
        var relayed = relay.record
        relayed.model = record.model
        return relayed
    }

    /// Whoever pulls should know where the model will be missing.
    private func noteLeftOut(_ model: String, _ fleet: Fleet) {
        let left = fleet.backends.indices.filter { !fleet.queue.balancer.backends[$0].isServing }
        guard !left.isEmpty else { return }
        let names = left.map { "\(fleet.backends[$0].name) (\(fleet.state(of: $0)))" }.joined(separator: ", ")
        fleet.notices?.note(.warning, "pull of \(model) leaves out \(names)")
    }

    /// Backends that list a model and cannot be asked, with why.
    private func othersThatHave(_ model: String, _ fleet: Fleet) -> [FanOut.Answer] {
        guard manage == .all else { return [] }
        let versions = fleet.queue.balancer.directory.entries[model]?.versions ?? []
        return versions.map(\.backend).filter { !fleet.queue.balancer.backends[$0].isServing }.map { backend in
            let message = "it is \(fleet.state(of: backend))"
            return FanOut.Answer(backend: backend, outcome: .failure(Failure(status: 503, message: message)))
        }
    }

    private func changed(_ backends: [Int], _ fleet: Fleet) {
        Loop.task {
            await fleet.probeAfresh(backends)
            // Not before: who asks meanwhile has to wait for that.
            for backend in backends {
                let others = fleet.changing[backend, default: 1] - 1
                fleet.changing[backend] = others > 0 ? others : nil
            }
        }
    }

    // MARK: Where

    private func backends(for change: Change, _ model: String, of peer: PeerAddress, _ fleet: Fleet) async -> [Int] {
        let well = fleet.backends.indices.filter { fleet.queue.balancer.backends[$0].isServing }
        var found: [Int]
        switch change {
        case .pull: found = well
        case .delete, .copy:
            found = await fleet.holders(of: model)
            // It says in its own words that there is no such model.
            if found.isEmpty, fleet.isNowhere(model) { found = Array(well.prefix(1)) }
        case .push:
            let home = home(of: peer, well, fleet)
            let holders = await fleet.holders(of: model)
            found = holders.contains { $0 == home } || holders.isEmpty ? home.map { [$0] } ?? [] : [holders[0]]
        case .create, .blob: found = home(of: peer, well, fleet).map { [$0] } ?? []
        }
        return manage == .first ? Array(found.prefix(1)) : found
    }

    /// Where a client's uploads go: where its last ones went, else to the first that is well.
    private func home(of peer: PeerAddress, _ well: [Int], _ fleet: Fleet) -> Int? {
        let time = fleet.now()
        let known = homes[peer].flatMap { time &- $0.lastUsed < Management.homeLasts ? $0.backend : nil }
        guard let backend = known.flatMap({ well.contains($0) ? $0 : nil }) ?? well.first else { return nil }
        if homes.count >= Management.homesAtMost, homes[peer] == nil,
            let oldest = homes.min(by: { $0.value.lastUsed < $1.value.lastUsed })
        {
            homes[oldest.key] = nil
        }
        homes[peer] = Home(backend: backend, lastUsed: time)
        return backend
    }

    /// The model that a request's body names, as ``ModelName`` writes it; "" if it names none.
    func model(of request: Request) -> String { wish(of: request).model }

    private func wish(of request: Request) -> Wish {
        guard case .bytes(let body) = request.body, body.count <= QuestionReader.readAtOnce else { return Wish() }
        let wish = try? JSONDocument.read(body.buffer) { root in
            var wish = Wish()
            var (model, name, source) = ("", "", "")
            for (member, value) in root.members {
                if member.folds(to: "model") { model = value.string ?? model }
                if member.folds(to: "name") { name = value.string ?? name }
                if member.folds(to: "source") { source = value.string ?? source }
                if member.folds(to: "stream") { wish.streams = value.bool ?? wish.streams }
            }
            wish.model = ModelName(!model.isEmpty ? model : !name.isEmpty ? name : source).description
            return wish
        }
        return wish ?? Wish()
    }

    // MARK: Everywhere

    /// - Parameter others: that should be asked and cannot be.
    private func everywhere(
        _ request: Request, _ reply: consuming Reply, _ record: inout AccessRecord, _ id: String, _ backends: [Int],
        _ others: [FanOut.Answer], _ gateway: Gateway
    ) async {
        let fleet = gateway.fleet
        record.goes(to: backends.map { fleet.backends[$0].name })
        guard let answers = try? await FanOut.send(request, id: id, to: backends, record.trace, gateway) else {
            return record.cut(reply, request, isEnding: gateway.isEnding, at: gateway.clock())
        }
        // Whoever asks next is to find it done.
        await fleet.probeAfresh(backends)
        let all = (answers + others).sorted { $0.backend < $1.backend }
        let response = FanOut.response(to: request.path, id: id, all, fleet)
        record.end(all.lazy.compactMap(\.problem).first, response, reply, at: gateway.clock())
    }
}

extension Fleet {
    /// The backends that are well and list a model, whichever it is that they mean by the name.
    func holders(of model: String) async -> [Int] {
        if !model.isEmpty, queue.balancer.directory.entries[model] == nil {
            await probesEnd(looksAgain(for: Balancer.Want(model: model), .unknownModel))
        }
        return (queue.balancer.directory.entries[model]?.versions ?? []).map(\.backend)
            .filter { queue.balancer.backends[$0].isServing }
    }

    /// Whether a model that nobody is known to have may be at a backend that has never said what it has.
    func mayBeElsewhere(_ model: String) -> Bool {
        queue.balancer.directory.entries[model] == nil
            && backends.indices.contains { backend in
                queue.balancer.directory.listings[backend] == nil && !queue.balancer.backends[backend].isDrained
            }
    }

    /// Whether every backend has said what it has, and none has a model.
    func isNowhere(_ model: String) -> Bool {
        queue.balancer.directory.entries[model] == nil && !mayBeElsewhere(model)
    }

    /// The backends that are well and have a model loaded, as they said a second ago at most.
    func backends(thatHaveLoaded model: String) async -> [Int] {
        await askWhatRuns(at: backends.indices)
        return (queue.balancer.directory.entries[model]?.versions ?? []).filter { version in
            queue.balancer.backends[version.backend].isServing
                && queue.balancer.backends[version.backend].hasLoaded(version.listing.digest)
        }.map(\.backend)
    }
}
