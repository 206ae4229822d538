import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Ten thousand calls with everything going wrong that can, at random moments; the same ones in every run.
@Suite(.timeLimit(.minutes(2))) struct StormTests {
    init() { LoopThread.start() }

    @Test @Loop func `through ten thousand calls nobody is forgotten, nothing is left, nothing broken is kept`()
        async throws
    {
        let storm = try Storm(seed: 1, backends: 3) {
            $0.queue.concurrency = 2
            $0.queue.limit = 4
            $0.cache.maxEntryBytes = 3000
        }
        try await storm.rage(calls: 10_000)
    }

    @Test(arguments: 2..<6 as Range<UInt64>)
    @Loop func `with one box, a small cache and old answers allowed, too`(seed: UInt64) async throws {
        let storm = try Storm(seed: seed, backends: 1) {
            $0.queue.concurrency = 3
            $0.queue.limit = 2
            $0.cache.maxEntryBytes = 3000
            $0.cache.maxBytes = seed % 2 == 0 ? 700_000 : 256 << 20
            $0.cache.staleIfError = .seconds(60)
        }
        try await storm.rage(calls: 500)
    }
}

/// Clients and boxes that do as chance has it.
@Loop private final class Storm {
    private var random: SeededGenerator
    private let rig: WorkerRig
    private let slots: Int
    /// Clients that have been neither answered nor left.
    private var visitors: [Visitor] = []
    private var players: [BoxPlayer] = []
    private var seen = 0
    private var facts = Facts()
    private(set) var outcomes: [String: Int] = [:]

    init(seed: UInt64, backends: Int, _ change: (inout Gateway.Settings) -> Void) throws {
        random = SeededGenerator(seed: seed)
        rig = try WorkerRig(backends: (0..<backends).map { "http://\($0)" }, change)
        slots = rig.gateway.fleet.queue.balancer.backends.map(\.limit).reduce(0, +)
        rig.rig.log.wants = .none
    }

    /// As a task of the loop: one of the test's is resumed by way of another thread each time it has waited.
    func rage(calls: Int) async throws {
        await Loop.task {
            do { try await self.storm(calls: calls) } catch { Issue.record(error) }
        }.value
    }

    private func storm(calls: Int) async throws {
        var rounds = 0
        while rig.calls.count < calls {
            rounds += 1
            try #require(rounds < 100 * calls, "no more calls come: \(rig.calls.count) of \(calls) have")
            for _ in 0..<Int.random(in: 1...4, using: &random) { step() }
            await quiet()
            meetBoxes()
            try part()
        }
        try await calm()
        try await checkRemains()
    }

    private func step() {
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<25: arrive()
        case 25..<30: visitors.randomElement(using: &random)?.leave()
        case 30..<38:
            visitors.randomElement(using: &random)?.drain(Int.random(in: 0..<3, using: &random) == 0 ? .pause : .more)
        case 38: rig.pass(seconds: Double.random(in: 0..<20, using: &random))
        case 39 where Int.random(in: 0..<10, using: &random) == 0: _ = rig.gateway.worker.enter { $0.purge() }
        default: players.randomElement(using: &random)?.move(&random, &facts)
        }
    }

    private func arrive() {
        guard visitors.count < 40 else { return }
        visitors.append(Visitor(rig.gateway, &random))
    }

    /// Calls that have come to the boxes get somebody to answer them; those that are over, let go.
    private func meetBoxes() {
        while seen < rig.calls.count {
            players.append(BoxPlayer(rig.calls[seen], number: seen, &random, &facts))
            seen += 1
        }
        players.removeAll { $0.isOver }
    }

    /// Those who have their answer go.
    private func part() throws {
        for visitor in visitors where visitor.isDone {
            let outcome = try visitor.check(facts)
            outcomes[outcome, default: 0] += 1
        }
        visitors.removeAll { $0.isDone }
    }

    /// No more clients come, all read, and boxes do what they were going to do; who still waits then leaves.
    private func calm() async throws {
        var idle = 0
        while idle < 3 {
            let before = players.count + visitors.count
            for visitor in visitors { visitor.drain(.more) }
            await quiet()
            meetBoxes()
            for player in players {
                #expect(!player.isHeldUp, "a box is held up though everybody reads")
                player.hurry(&facts)
            }
            await quiet()
            meetBoxes()
            try part()
            idle = players.count + visitors.count == before ? idle + 1 : 0
        }
        #expect(visitors.isEmpty || players.contains { $0.hangs }, "somebody was forgotten")
        for visitor in visitors { visitor.leave() }
        await quiet()
        try part()
        meetBoxes()
        #expect(visitors.isEmpty)
        #expect(players.isEmpty, "a call was left running")
    }

    private func checkRemains() async throws {
        let queue = rig.gateway.fleet.queue
        #expect(queue.balancer.backends.allSatisfy { $0.running == 0 })
        #expect(queue.waiting == 0)
        let worker = rig.gateway.worker
        worker.enter { worker in
            #expect(worker.flights.isEmpty)
            #expect(worker.joinable.isEmpty)
            #expect(worker.cache.reserved == 0)
            #expect(worker.waitingForModel.isEmpty)
            #expect(worker.unwanted.isEmpty)
        }
        // What is kept is whole.
        for number in 0..<Visitor.questions {
            let visitor = Visitor(rig.gateway, asking: number)
            await quiet()
            #expect(visitor.isDone)
            #expect(["HIT", "504"].contains(try visitor.check(facts)))
        }
        // Everything happened that was to.
        for outcome in ["HIT", "MISS", "COALESCED", "BYPASS", "left", "cut", "early", "404", "502", "503", "504"] {
            #expect(outcomes[outcome, default: 0] > 0, "\(outcome): \(outcomes)")
        }
    }
}
