import TestSupport
import Testing

@testable import Gateway

/// Which boxes a request may go to, and when it waits. Which of them gets it: ``BalancerModeTests``.
@Suite struct BalancerTests {
    // MARK: In every mode

    @Test(arguments: Gateway.Balance.allCases)
    func `a request goes only to a box that has the model`(mode: Gateway.Balance) {
        let boxes = Boxes(3, mode)
        boxes.list(["n"], at: 0)
        boxes.list(["m", "n"], at: 2)
        boxes.loaded(["m"], at: 0)
        #expect(Set(boxes.startAndEnd(6, "m", talk: 7)).isSubset(of: [1, 2]))
        #expect(Set(boxes.startAndEnd(6, "n", talk: 7)).isSubset(of: [0, 2]))
        #expect(boxes.start("o") == .refused(.unknownModel))
    }

    @Test(arguments: Gateway.Balance.allCases)
    func `what any box can do goes to any`(mode: Gateway.Balance) {
        let boxes = Boxes(2, mode, limit: 1)
        boxes.list([], at: 1)
        #expect(Set([boxes.start(""), boxes.start("")]) == [0, 1])
        #expect(boxes.start("") == .waits)
    }

    @Test(arguments: Gateway.Balance.allCases)
    func `a full box is passed over, and when all are full one waits`(mode: Gateway.Balance) {
        let boxes = Boxes(3, mode, limit: 2)
        let places = (0..<6).map { _ in boxes.start() }
        #expect(places.counts(3) == [2, 2, 2])
        #expect(boxes.start() == .waits)
        boxes.end(1)
        #expect(boxes.start() == 1)
        #expect(boxes.balancer.backends.map(\.running) == [2, 2, 2])
    }

    @Test(arguments: Gateway.Balance.allCases)
    func `no box is asked twice`(mode: Gateway.Balance) {
        let boxes = Boxes(3, mode)
        #expect(boxes.start(tried: [0, 2]) == 1)
        #expect(boxes.start(tried: [1]) != 1)
        #expect(boxes.start(tried: [0, 1, 2]) == .refused(.unavailable))
        #expect(boxes.start("", tried: [0, 1]) == 2)
    }

    @Test func `full ones that were tried are not worth waiting for`() {
        let boxes = Boxes(2, limit: 1)
        boxes.start()
        boxes.start()
        #expect(boxes.start(tried: [0]) == .waits)
        #expect(boxes.start(tried: [0, 1]) == .refused(.unavailable))
    }

    @Test(arguments: Gateway.Balance.allCases)
    func `the lowest tier that can serve does`(mode: Gateway.Balance) {
        let boxes = Boxes(4, mode, limit: 1, tiers: [3, 1, 2, 2])
        boxes.loaded(["m"], at: 0)
        #expect(boxes.start() == 1, "whatever is loaded elsewhere")
        #expect(Set([boxes.start(), boxes.start()]) == [2, 3])
        #expect(boxes.start() == 0)
        boxes.end(1)
        #expect(boxes.start() == 1)
    }

    @Test(arguments: Gateway.Balance.allCases)
    func `nothing goes to a box that is unhealthy, drained or rests`(mode: Gateway.Balance) {
        let boxes = Boxes(4, mode)
        for box in 0..<4 { boxes.loaded(["m"], at: box) }
        boxes.probeFails(0)
        #expect(boxes.drain(1))
        boxes.balancer.rest(2, until: 1)
        #expect(boxes.startAndEnd(4) == [3, 3, 3, 3])
        #expect(boxes.drain(1, false))
        boxes.now = 1
        #expect(Set(boxes.startAndEnd(12)) == [1, 2, 3])
        #expect(boxes.probe(0))
        #expect(Set(boxes.startAndEnd(16)) == [0, 1, 2, 3])
    }

    // MARK: Waiting, and not

    @Test func `while boxes start, one waits for what they have`() {
        let boxes = Boxes(1)
        let states = (0..<2).map { BackendState(name: "box\($0)", limit: 1) }
        boxes.balancer = Balancer(states, mode: .roundRobin)
        #expect(boxes.start() == .waits)
        #expect(boxes.start("") == .waits)
        boxes.list(["m"], at: 0)
        #expect(boxes.start() == .waits)
        #expect(boxes.probe(0))
        #expect(boxes.start() == 0)
        #expect(boxes.start("n") == .waits, "the other may have it")
        boxes.probeFails(1)
        #expect(boxes.start("n") == .refused(.unavailable), "it may still have it: it has never said")
        #expect(boxes.drain(1))
        #expect(boxes.start("n") == .refused(.unknownModel))
        #expect(boxes.drain(1, false))
        boxes.list([], at: 1)
        #expect(boxes.start("n") == .refused(.unknownModel))
    }

    @Test func `one waits for a box that rests, until it does no more`() {
        let boxes = Boxes(1)
        boxes.balancer.rest(0, until: 5)
        #expect(boxes.start() == .waits)
        boxes.now = 5
        #expect(boxes.start() == 0)
    }

    @Test func `nobody waits for a box that is unhealthy or drained, unless it is being probed`() {
        let boxes = Boxes(1)
        boxes.probeFails(0)
        #expect(boxes.start() == .refused(.unavailable))
        boxes.balancer.probing(0, true)
        #expect(boxes.start() == .waits)
        #expect(boxes.drain(0))
        #expect(boxes.start() == .refused(.unavailable))
        #expect(boxes.start("") == .refused(.unavailable))
    }

    @Test func `a model that nobody lists is waited for while somebody well is asked`() {
        let boxes = Boxes(2)
        boxes.probeFails(1)
        #expect(boxes.start("o") == .refused(.unknownModel))
        boxes.balancer.probing(0, true)
        #expect(boxes.start("o") == .waits)
        boxes.balancer.probing(0, false)
        boxes.probeFails(0)
        #expect(boxes.start("o") == .refused(.unavailable), "who knows what they have")
    }

    @Test func `whether there is another box does not depend on whether it is full`() {
        let boxes = Boxes(3, limit: 1)
        boxes.start()
        boxes.start()
        boxes.probeFails(2)
        #expect(boxes.balancer.hasAnother(for: boxes.want(tried: [0]), at: 0))
        #expect(!boxes.balancer.hasAnother(for: boxes.want(tried: [0, 1]), at: 0))
        #expect(!boxes.balancer.hasAnother(for: boxes.want("o"), at: 0))
        #expect(boxes.balancer.hasAnother(for: boxes.want("", tried: [1]), at: 0))
        boxes.balancer.rest(0, until: 9)
        #expect(!boxes.balancer.hasAnother(for: boxes.want(tried: [1]), at: 8))
        #expect(boxes.balancer.hasAnother(for: boxes.want(tried: [1]), at: 9))
    }

    // MARK: Trials

    @Test(arguments: Gateway.Balance.allCases)
    func `a recovering box gets one request, however many come`(mode: Gateway.Balance) {
        let boxes = Boxes(1, mode)
        boxes.start()
        #expect(boxes.fail(0))
        #expect(boxes.probe(0))
        #expect(boxes.balancer.backends[0].breaker.state == .recovering)
        #expect([boxes.start(), boxes.start(), boxes.start()] == [0, .waits, .waits])
        #expect(boxes.answer(0).changed)
        #expect([boxes.start(), boxes.start()] == [0, 0])
    }

    @Test(arguments: Gateway.Balance.allCases)
    func `in need a box is tried that failed a call, once nobody takes any`(mode: Gateway.Balance) {
        let boxes = Boxes(3, mode, limit: 1)
        boxes.list([], at: 2)
        for place in [boxes.start(), boxes.start()] {
            guard case .box(let box) = place else { continue }
            boxes.fail(box)
        }
        #expect(boxes.start(tried: [0]) == 1, "nobody else")
        #expect(boxes.start() == .waits, "what becomes of one trial is soon known, and better than a second")
        #expect(boxes.balancer.hasAnother(for: boxes.want(tried: [0]), at: 0))
        #expect(boxes.balancer.hasAnother(for: boxes.want(tried: [1]), at: 0), "in need")
        boxes.fail(1)
        #expect([boxes.start(), boxes.start()] == [0, .waits])
        #expect(boxes.answer(0).changed)
        #expect(boxes.start() == .waits, "now there is one that takes calls, and it is full")
        boxes.end(0)
        #expect(boxes.start() == 0)
    }

    @Test func `a box that is full of calls, one of which has failed, is waited for`() throws {
        let boxes = Boxes(1, limit: 2)
        for _ in 0..<2 { boxes.start() }
        let changed = boxes.balancer.failed(try boxes.call(0), "connection lost", mayBeTriedInNeed: true)
        #expect(changed && boxes.start() == .waits)
        boxes.end(0)
        #expect(boxes.start() == 0)
    }

    @Test func `in need boxes take turns, too`() {
        let boxes = Boxes(3)
        for box in 0..<3 {
            boxes.start(tried: [0, 1, 2].filter { $0 != box })
            boxes.fail(box)
        }
        let places = (0..<6).map { _ in
            let place = boxes.start()
            if case .box(let box) = place { boxes.fail(box) }
            return place
        }
        #expect(places.counts(3) == [2, 2, 2])
    }

    @Test func `in need or not, nothing goes to a box that rests, is drained, is full or was tried`() {
        let boxes = Boxes(1, limit: 2)
        boxes.start()
        boxes.start()
        boxes.fail(0)
        boxes.balancer.rest(0, until: 5)
        #expect(boxes.start() == .refused(.unavailable))
        boxes.now = 5
        #expect(boxes.start(tried: [0]) == .refused(.unavailable))
        #expect(boxes.drain(0))
        #expect(boxes.start() == .refused(.unavailable))
        #expect(boxes.drain(0, false))
        #expect(boxes.start() == 0)
        #expect(boxes.start() == .waits, "for what becomes of the trial")
    }

    @Test func `a full box that is open keeps one from trying another in need`() {
        let boxes = Boxes(2, limit: 1)
        boxes.start()
        boxes.start()
        boxes.fail(0)
        #expect(boxes.start() == .waits)
        boxes.end(1)
        #expect(boxes.start() == 1)
    }

    // MARK: One name, two models

    @Test(arguments: Gateway.Balance.allCases)
    func `a name that means two models goes to the boxes that have the one that counts`(mode: Gateway.Balance) throws {
        let boxes = Boxes(3, mode, models: ["m=1"])
        boxes.list(["m=2"], at: 1)
        #expect(Set(boxes.startAndEnd(9, talk: 3)).isSubset(of: [0, 2]))
        #expect(boxes.displaced == [])
        boxes.probeFails(0)
        boxes.probeFails(2)
        #expect(boxes.displaced == ["m"])
        #expect(boxes.start() == 1)
        #expect(try boxes.call(1).digest == "2")
        #expect(boxes.probe(0))
        #expect(boxes.displaced == ["m"])
        #expect(boxes.start() == 0)
        #expect(boxes.start(tried: [0]) == .refused(.unavailable), "the other has another model")
    }

    @Test func `what a drained box has does not count, and does again when it is back`() {
        let boxes = Boxes(2, models: ["m=1@5"])
        boxes.list(["m=2@9"], at: 1)
        #expect(boxes.displaced == ["m"])
        #expect(boxes.startAndEnd(2) == [1, 1])
        #expect(boxes.drain(1))
        #expect(!boxes.drain(1))
        #expect(boxes.startAndEnd(2) == [0, 0])
        #expect(boxes.drain(1, false))
        #expect(boxes.startAndEnd(2) == [1, 1])
        #expect(boxes.displaced == ["m", "m"])
    }

    @Test func `a model that is gone from all lists is displaced`() {
        let boxes = Boxes(2)
        boxes.list([], at: 0)
        #expect(boxes.displaced == [])
        boxes.list(["n"], at: 1)
        #expect(boxes.displaced == ["m"])
        #expect(boxes.start() == .refused(.unknownModel))
    }
}
