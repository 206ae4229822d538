import Testing

@testable import Gateway

/// A balancer and the calls that it has begun. Boxes are numbers and calls are known by the box that they run on, the
/// oldest first.
final class Boxes {
    var balancer: Balancer
    var now: UInt64 = 0
    private(set) var calls: [Balancer.Lease] = []

    static let second: UInt64 = 1_000_000_000

    /// Boxes that are well and have the same models.
    /// - Parameter models: as ``Listing/init(_:)`` reads them.
    init(
        _ count: Int, _ mode: Gateway.Balance = .roundRobin, limit: Int = 1000, limits: [Int] = [], weights: [Int] = [],
        tiers: [Int] = [], models: [String] = ["m"]
    ) {
        let states = (0..<count).map { box in
            BackendState(
                name: "box\(box):11434", weight: weights.isEmpty ? 1 : weights[box],
                tier: tiers.isEmpty ? 1 : tiers[box], limit: limits.isEmpty ? limit : limits[box])
        }
        balancer = Balancer(states, mode: mode)
        for box in 0..<count {
            // One after another: whose rounds begin where depends on the order in which names come.
            for count in 1...max(models.count, 1) { list(Array(models.prefix(count)), at: box) }
            _ = probe(box)
        }
    }

    /// Where a request goes.
    enum Place: Hashable, ExpressibleByIntegerLiteral {
        case box(Int)
        case waits
        case refused(Balancer.Refusal)

        init(integerLiteral box: Int) { self = .box(box) }
    }

    func want(_ model: String = "m", tried: [Int] = [], talk: UInt64 = 0) -> Balancer.Want {
        Balancer.Want(model: model, tried: tried, conversation: talk)
    }

    /// A request comes, and begins if it can.
    @discardableResult
    func start(_ model: String = "m", tried: [Int] = [], talk: UInt64 = 0) -> Place {
        switch balancer.pick(for: want(model, tried: tried, talk: talk), at: now) {
        case .run(let lease):
            calls.append(lease)
            return .box(lease.backend)
        case .wait: return .waits
        case .refuse(let refusal): return .refused(refusal)
        }
    }

    /// Requests come one after another, each when the one before is over.
    func startAndEnd(_ count: Int, _ model: String = "m", talk: UInt64 = 0) -> [Place] {
        (0..<count).map { _ in
            let place = start(model, talk: talk)
            if case .box(let box) = place {
                answer(box)
                end(box)
            }
            return place
        }
    }

    /// A call that runs there.
    func call(_ box: Int) throws -> Balancer.Lease {
        try #require(calls.first { $0.backend == box }, "nothing runs on box \(box)")
    }

    @discardableResult
    func answer(_ box: Int, isGood: Bool = true) -> (changed: Bool, loaded: Bool) {
        guard let call = try? call(box) else { return (false, false) }
        return balancer.answered(call, isGood: isGood)
    }

    func end(_ box: Int) {
        guard let call = try? call(box) else { return }
        balancer.end(call, at: now)
        calls.remove(at: calls.firstIndex { $0.backend == box } ?? 0)
    }

    @discardableResult
    func fail(_ box: Int, _ reason: String = "connection lost", mayBeTriedInNeed: Bool = true) -> Bool {
        guard let call = try? call(box) else { return false }
        defer { end(box) }
        return balancer.failed(call, reason, mayBeTriedInNeed: mayBeTriedInNeed)
    }

    /// A probe is well.
    func probe(_ box: Int) -> Bool { balancer.probed(box, since: balancer.backends[box].breaker.epoch) }

    @discardableResult
    func probeFails(_ box: Int) -> Bool {
        balancer.probeFailed(box, since: balancer.backends[box].breaker.epoch, "timed out")
    }

    func drain(_ box: Int, _ isDrained: Bool = true) -> Bool { balancer.drain(box, isDrained) }

    func list(_ models: [String], at box: Int) { balancer.list(models.map { Listing($0) }, at: box) }

    /// What a box says in `/api/ps`, as digests.
    func loaded(_ digests: [String], at box: Int, askedAt time: UInt64 = .max) {
        balancer.loaded(digests, at: box, askedAt: time)
    }

    func loads(_ box: Int) -> [String] { balancer.backends[box].loads.map(\.digest) }

    /// Names that stand for another model since this was asked last, in order.
    var displaced: [String] {
        defer { balancer.displaced = [] }
        return balancer.displaced.sorted()
    }
}

extension [Boxes.Place] {
    /// How many went to each box.
    func counts(_ boxes: Int) -> [Int] { (0..<boxes).map { box in count { $0 == .box(box) } } }
}

extension Listing {
    /// `m` is a model of this name, whose digest is the name too. `m=d` has the digest `d`; `m=d@5` is from five
    /// microseconds after 1970.
    init(_ text: String) {
        let parts = text.split(separator: "@")
        let words = parts[0].split(separator: "=")
        self.init(
            name: String(words[0]), shown: String(words[0]), digest: String(words[words.count - 1]),
            modified: parts.count > 1 ? Int64(parts[1]) ?? 0 : 0, json: "{}")
    }
}
