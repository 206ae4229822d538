import TestSupport
import Testing

@testable import Gateway

/// The health of one box, told by probes and calls that nobody makes.
@Suite struct BreakerTests {
    // MARK: Probes

    @Test func `nothing goes to a box before its first probe`() {
        let health = Health()
        #expect(health.state == .starting && !health.takesCalls && !health.takesCallsInNeed)
        #expect(health.probe())
        #expect(health.state == .healthy && health.takesCalls && health.reason == nil)
        #expect(!health.probe(), "nothing has changed")
    }

    @Test func `a failed probe makes it unhealthy, the next good one healthy again`() {
        let health = Health()
        #expect(health.probeFails("timed out"))
        #expect(health.state == .unhealthy && health.reason == "timed out")
        #expect(!health.takesCalls && !health.takesCallsInNeed, "not even in need: the probe knows")
        #expect(!health.probeFails("cannot connect"))
        #expect(health.reason == "cannot connect", "the latest reason is told")
        #expect(health.probe())
        #expect(health.state == .healthy && health.reason == nil)
    }

    @Test func `a probe that began before the last change says nothing`() {
        let health = Health(.healthy)
        let before = health.epoch
        health.fail(health.begin())
        #expect(!health.probe(since: before))
        #expect(health.state == .unhealthy)
        let unhealthy = health.epoch
        health.probe()
        health.succeed(health.begin())
        #expect(!health.probeFails(since: unhealthy))
        #expect(health.state == .healthy)
    }

    // MARK: Calls

    @Test func `a healthy box takes any number of calls`() {
        let health = Health(.healthy)
        let passes = (0..<50).map { _ in health.begin() }
        #expect(health.takesCalls && !health.isOnTrial)
        for pass in passes { #expect(!health.succeed(pass)) }
        #expect(health.state == .healthy)
    }

    @Test func `one failed call is enough, and what the others say then is of the past`() {
        let health = Health(.healthy)
        let passes = (0..<4).map { _ in health.begin() }
        #expect(health.fail(passes[0], "connection lost"))
        #expect(health.state == .unhealthy && health.reason == "connection lost")
        #expect(!health.fail(passes[1], "it answers 503"))
        #expect(!health.succeed(passes[2]))
        health.withdraw(passes[3])
        #expect(health.state == .unhealthy && health.reason == "connection lost" && health.failures == 1)
    }

    @Test func `a client that leaves says nothing`() {
        let health = Health(.healthy)
        health.withdraw(health.begin())
        #expect(health.state == .healthy)
    }

    @Test func `after a failed call another may be tried in need, one at a time`() {
        let health = Health(.healthy)
        health.fail(health.begin())
        #expect(!health.takesCalls && health.takesCallsInNeed)
        let trial = health.begin()
        #expect(!health.takesCallsInNeed && health.isOnTrial)
        #expect(!health.fail(trial, "it answers 502"))
        #expect(health.takesCallsInNeed && !health.isOnTrial && health.reason == "it answers 502")
        #expect(health.succeed(health.begin()))
        #expect(health.state == .healthy)
    }

    @Test func `nobody is sent to wait for a second time-out`() {
        let health = Health(.healthy)
        health.fail(health.begin(), "timed out", mayBeTriedInNeed: false)
        #expect(!health.takesCalls && !health.takesCallsInNeed)
    }

    @Test func `once a probe has failed nothing is tried in need`() {
        let health = Health(.healthy)
        health.fail(health.begin())
        health.probeFails()
        #expect(!health.takesCallsInNeed)
        // It is the probe that failed last, and so the next good one is enough.
        health.probe()
        #expect(health.state == .healthy)
    }

    // MARK: Half open

    @Test func `a box that fails calls and answers probes gets one call`() {
        let health = Health(.recovering)
        #expect(health.takesCalls && !health.isOnTrial && health.reason == "connection lost")
        let trial = health.begin()
        #expect(!health.takesCalls && !health.takesCallsInNeed && health.isOnTrial)
        #expect(health.succeed(trial))
        #expect(health.state == .healthy && health.takesCalls && !health.isOnTrial && health.reason == nil)
    }

    @Test func `a trial that fails makes it unhealthy`() {
        let health = Health(.recovering)
        #expect(health.fail(health.begin(), "it answers 503"))
        #expect(health.state == .unhealthy && health.reason == "it answers 503")
    }

    @Test func `a trial whose client leaves makes room for the next`() {
        let health = Health(.recovering)
        health.withdraw(health.begin())
        #expect(health.state == .recovering && health.takesCalls)
        #expect(health.succeed(health.begin()))
    }

    @Test func `without anybody who tries, the next good probe is enough`() {
        let health = Health(.recovering)
        #expect(health.probe())
        #expect(health.state == .healthy)
    }

    @Test func `a trial that takes long is not waited for, if the next probe is well`() {
        let health = Health(.recovering)
        let trial = health.begin()
        #expect(health.probe())
        #expect(health.state == .healthy && !health.isOnTrial)
        #expect(!health.fail(trial), "it says nothing of now")
        #expect(health.state == .healthy)
    }

    @Test func `while a trial runs a bad probe says enough`() {
        let health = Health(.recovering)
        let trial = health.begin()
        #expect(health.probeFails())
        #expect(health.state == .unhealthy)
        #expect(!health.fail(trial), "the probe has said it")
        #expect(health.state == .unhealthy && !health.isOnTrial)
    }

    @Test func `an old trial does not end a new one`() {
        let health = Health(.recovering)
        let old = health.begin()
        health.withdraw(old)
        let new = health.begin()
        health.withdraw(old)
        #expect(health.isOnTrial && !health.takesCalls)
        #expect(health.succeed(new))
    }

    @Test func `a trial begun in need counts, even if a probe was well meanwhile`() {
        let health = Health(.healthy)
        health.fail(health.begin())
        let trial = health.begin()
        health.probe()
        #expect(health.state == .recovering && health.isOnTrial)
        #expect(health.succeed(trial))
        #expect(health.state == .healthy)
    }

    // MARK: Glances

    @Test func `a glance is no trial, and its failure counts`() {
        let health = Health(.recovering)
        let glance = health.breaker.glance()
        #expect(health.takesCalls && !health.isOnTrial)
        let trial = health.begin()
        health.withdraw(glance)
        #expect(health.isOnTrial, "a glance that ends does not end the trial")
        #expect(health.fail(glance, "connection lost"))
        #expect(health.state == .unhealthy)
        health.withdraw(trial)
    }

    // MARK: When the next probe is due

    private static let second: UInt64 = 1_000_000_000

    @Test func `an unhealthy box is probed after 1, 2, 4, … seconds, up to the interval`() {
        let health = Health(.healthy)
        #expect(health.nextProbe() == 30)
        var pauses: [Double] = []
        for _ in 0..<8 {
            health.probeFails()
            pauses.append(health.nextProbe())
        }
        #expect(pauses == [1, 2, 4, 8, 16, 30, 30, 30])
        for _ in 0..<100 { health.probeFails() }
        #expect(health.nextProbe() == 30)
        health.probe()
        #expect(health.nextProbe() == 30)
        health.probeFails()
        #expect(health.nextProbe() == 1, "it begins anew")
    }

    @Test func `failing calls under good probes let the probes come ever later`() {
        let health = Health(.healthy)
        var pauses: [Double] = []
        for _ in 0..<4 {
            health.fail(health.begin())
            pauses.append(health.nextProbe())
            health.probe()
        }
        #expect(pauses == [1, 2, 4, 8])
        health.succeed(health.begin())
        health.fail(health.begin())
        #expect(health.nextProbe() == 1, "a good call makes all well")
    }

    @Test func `an interval of less than a second stays what it is`() {
        let health = Health(.healthy)
        health.probeFails()
        #expect(health.breaker.nextProbe(interval: Self.second / 10, jitter: 0) == Self.second / 10)
    }

    @Test(arguments: [(0.0, 30.0), (0.5, 27.0), (1.0, 24.0), (-3.0, 30.0), (7.0, 24.0)])
    func `jitter takes up to a fifth off`(jitter: Double, seconds: Double) {
        #expect(Health(.healthy).nextProbe(jitter: jitter) == seconds)
    }

    // MARK: Anything in any order

    @Test(arguments: 0..<20 as Range<UInt64>)
    func `whatever happens, a change is told, a trial is alone, and the past says nothing`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let health = Health()
        var calls: [(pass: Breaker.Pass, isTrial: Bool, since: Int)] = []
        for step in 0..<3000 {
            let (state, epoch) = (health.state, health.epoch)
            var since = Int.random(in: 0..<5, using: &random) == 0 ? Int.random(in: 0...epoch, using: &random) : epoch
            var changed = false
            let event = Int.random(in: 0..<10, using: &random)
            switch event {
            case 0..<4:
                let isTrial = state != .healthy && (health.takesCalls || health.takesCallsInNeed)
                try #require(!isTrial || !calls.contains(where: \.isTrial), "step \(step)")
                calls.append((isTrial || state == .healthy ? health.begin() : health.breaker.glance(), isTrial, epoch))
            case 4: changed = health.probe(since: since)
            case 5: changed = health.probeFails("\(step)", since: since)
            default:
                guard let place = calls.indices.randomElement(using: &random) else { continue }
                let call = calls.remove(at: place)
                // The trial counts, although probes may have come in between.
                since = call.isTrial ? epoch : call.since
                if event == 6 {
                    health.withdraw(call.pass)
                } else if event == 7 {
                    changed = health.fail(call.pass, "\(step)", mayBeTriedInNeed: step % 2 == 0)
                    if since == epoch { try #require(health.state == .unhealthy, "step \(step)") }
                } else if call.isTrial || state == .healthy {
                    changed = health.succeed(call.pass)
                    if since == epoch { try #require(health.state == .healthy, "step \(step)") }
                }
            }
            // Then nobody is on trial any more.
            if health.state == .healthy { for place in calls.indices { calls[place].isTrial = false } }
            try #require(changed == (health.state != state), "step \(step)")
            try #require(health.epoch == epoch + (changed ? 1 : 0), "step \(step)")
            try #require(since == epoch || !changed, "step \(step)")
            try #require((health.reason == nil) == (health.state == .healthy || health.state == .starting))
            try #require(!(health.takesCalls && health.takesCallsInNeed), "step \(step)")
            try #require(!(health.isOnTrial && (health.takesCalls || health.takesCallsInNeed)), "step \(step)")
            try #require(health.takesCalls || health.state != .healthy, "step \(step)")
            try #require(health.state != .starting || state == .starting)
        }
    }
}

/// A breaker in a box: `#expect` does not let anybody change what it looks at.
private final class Health {
    var breaker = Breaker()

    init(_ state: Breaker.State = .starting) {
        if state == .starting { return }
        probe()
        if state == .healthy { return }
        fail(begin())
        if state == .unhealthy { return }
        probe()
    }

    var state: Breaker.State { breaker.state }
    var reason: String? { breaker.reason }
    var epoch: Int { breaker.epoch }
    var failures: Int { breaker.failures }
    var takesCalls: Bool { breaker.takesCalls }
    var takesCallsInNeed: Bool { breaker.takesCallsInNeed }
    var isOnTrial: Bool { breaker.isOnTrial }

    func begin() -> Breaker.Pass { breaker.begin() }
    @discardableResult func succeed(_ pass: Breaker.Pass) -> Bool { breaker.succeeded(pass) }
    @discardableResult func probe(since: Int? = nil) -> Bool { breaker.probed(since: since ?? epoch) }
    func withdraw(_ pass: Breaker.Pass) { breaker.withdrew(pass) }

    @discardableResult
    func fail(_ pass: Breaker.Pass, _ reason: String = "connection lost", mayBeTriedInNeed: Bool = true) -> Bool {
        breaker.failed(pass, reason, mayBeTriedInNeed: mayBeTriedInNeed)
    }

    @discardableResult
    func probeFails(_ reason: String = "timed out", since: Int? = nil) -> Bool {
        breaker.probeFailed(since: since ?? epoch, reason)
    }

    /// In seconds, with an interval of 30.
    func nextProbe(jitter: Double = 0) -> Double {
        Double(breaker.nextProbe(interval: 30_000_000_000, jitter: jitter)) / 1e9
    }
}
