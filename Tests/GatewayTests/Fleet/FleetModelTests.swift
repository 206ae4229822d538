import Testing

@testable import Gateway

/// Random events through ``RequestQueue``, ``Balancer``, ``Breaker`` and ``ModelDirectory``, and what comes of them
/// compared with ``NaiveFleet``.
@Suite struct FleetModelTests {
    @Test(arguments: 0..<24 as Range<UInt64>)
    func `whatever happens, each goes where it may, waits while it must and is refused only then`(seed: UInt64) {
        let trial = FleetTrial(seed: seed, Gateway.Balance.allCases[Int(seed % 3)])
        trial.run(steps: 5000)
        for (rule, place) in trial.broken where !FleetTrial.Rule.ofTurns.contains(rule) {
            Issue.record("\(rule.rawValue): \(place)")
        }
        let unseen = FleetTrial.Event.allCases.filter { trial.seen[$0] == nil }
        // Turns and homes are seen in fleets in which less happens, and a box alone has nobody to contradict it.
        let notHere: Set<FleetTrial.Event> = [.inTurn, .atHome]
        #expect(notHere.union(trial.naive.boxes.count == 1 ? [.conflicted] : []).isSuperset(of: unseen))
    }

    @Test(arguments: 100..<108 as Range<UInt64>)
    func `while the same boxes can serve, each is picked as often as it weighs`(seed: UInt64) {
        let trial = FleetTrial(seed: seed, .roundRobin, isCalm: true)
        trial.run(steps: 4000)
        for (rule, place) in trial.broken { Issue.record("\(rule.rawValue): \(place)") }
        #expect(trial.seen[.inTurn, default: 0] > 50)
    }

    @Test(arguments: 200..<206 as Range<UInt64>)
    func `a conversation keeps its box, as long as that is one of the best`(seed: UInt64) {
        let trial = FleetTrial(seed: seed, .affinity, isCalm: true)
        trial.run(steps: 4000)
        for (rule, place) in trial.broken { Issue.record("\(rule.rawValue): \(place)") }
        #expect(trial.seen[.atHome, default: 0] > 100)
    }
}
