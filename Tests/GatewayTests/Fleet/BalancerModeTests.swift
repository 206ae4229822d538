import TestSupport
import Testing

@testable import Gateway

/// Which of the boxes that can serve a request gets it.
@Suite struct BalancerModeTests {
    // MARK: Round robin

    @Test func `boxes take turns, whatever they run or have loaded`() {
        let boxes = Boxes(3)
        boxes.loaded(["m"], at: 1)
        #expect((0..<9).map { _ in boxes.start() } == [0, 1, 2, 0, 1, 2, 0, 1, 2])
    }

    @Test func `models take turns of their own`() {
        let boxes = Boxes(2, models: ["m"])
        boxes.list(["m", "n"], at: 0)
        boxes.list(["m", "n"], at: 1)
        var places: [String: [Boxes.Place]] = [:]
        for model in ["m", "n", "n", "m", "m", "n", "m", "n"] { places[model, default: []].append(boxes.start(model)) }
        #expect(places["m"] == [0, 1, 0, 1])
        #expect(places["n"] == [1, 0, 1, 0], "not at the same box at the same time")
    }

    @Test func `each has its share by weight`() {
        let boxes = Boxes(3, weights: [1, 3, 2])
        let places = boxes.startAndEnd(60)
        #expect(places.counts(3) == [10, 30, 20])
    }

    @Test func `a box that comes back does not get what it has missed`() {
        let boxes = Boxes(3)
        _ = boxes.startAndEnd(3)
        boxes.probeFails(1)
        #expect(boxes.startAndEnd(20).count { $0 == 1 } == 0)
        #expect(boxes.probe(1))
        let places = boxes.startAndEnd(9)
        #expect(places.counts(3) == [3, 3, 3])
    }

    @Test func `the rotation stays strict when boxes go`() {
        let boxes = Boxes(9)
        #expect(boxes.startAndEnd(1) == [0])
        for box in 2..<9 { boxes.probeFails(box) }
        #expect(boxes.startAndEnd(6) == [1, 0, 1, 0, 1, 0])
    }

    // MARK: Least loaded

    @Test func `the one that runs the fewest is the next`() {
        let boxes = Boxes(3, .leastLoaded)
        for box in 0..<3 { boxes.loaded(["m"], at: box) }
        #expect((0..<6).map { _ in boxes.start() }.counts(3) == [2, 2, 2])
        boxes.end(1)
        boxes.end(2)
        boxes.end(2)
        #expect(boxes.start() == 2, "none here, one there, two elsewhere")
        #expect([boxes.start(), boxes.start()].counts(3) == [0, 1, 1])
    }

    @Test func `equally busy ones take turns`() {
        let boxes = Boxes(3, .leastLoaded)
        for box in 0..<3 { boxes.loaded(["m"], at: box) }
        #expect(boxes.startAndEnd(6) == [0, 1, 2, 0, 1, 2])
    }

    @Test func `a heavier one may run more`() {
        let boxes = Boxes(2, .leastLoaded, weights: [1, 3])
        for box in 0..<2 { boxes.loaded(["m"], at: box) }
        for _ in 0..<12 { boxes.start() }
        #expect(boxes.balancer.backends.map(\.running) == [3, 9])
    }

    // MARK: What is loaded

    @Test(arguments: [.leastLoaded, .affinity] as [Gateway.Balance])
    func `a box that has the model loaded is better than one that runs less`(mode: Gateway.Balance) {
        let boxes = Boxes(3, mode, limit: 4)
        boxes.loaded(["m"], at: 2)
        #expect((0..<4).map { boxes.start(talk: UInt64($0)) } == [2, 2, 2, 2])
        #expect([0, 1].contains(boxes.start()), "before one waits, another loads it")
    }

    @Test(arguments: [.leastLoaded, .affinity] as [Gateway.Balance])
    func `a call that begins makes its model loaded there, before it is`(mode: Gateway.Balance) {
        let boxes = Boxes(3, mode)
        let first = boxes.start(talk: 1)
        #expect((0..<5).map { _ in boxes.start(talk: 2) } == Array(repeating: first, count: 5))
    }

    @Test func `a model is loaded where nothing is`() {
        let boxes = Boxes(3, .leastLoaded, models: ["m", "n", "o"])
        boxes.loaded(["n"], at: 0)
        boxes.loaded(["n"], at: 2)
        #expect(boxes.start() == 1)
    }

    @Test func `else where the least is lost by it`() {
        let boxes = Boxes(4, .leastLoaded, models: ["m", "a", "b", "c"])
        boxes.loaded(["a"], at: 0)
        boxes.loaded(["b", "c"], at: 1)
        boxes.loaded(["b"], at: 2)
        boxes.loaded(["c"], at: 3)
        #expect(boxes.start() != 0, "only there is what no other box has")
        boxes.end(boxes.calls[0].backend)
        boxes.loaded(["a", "b"], at: 0)
        boxes.loaded(["b", "c"], at: 1)
        boxes.loaded(["a", "c"], at: 2)
        boxes.loaded(["x", "y"], at: 3)
        #expect(boxes.start() != 3)
    }

    @Test func `of what is lost anyway, what was used longest ago`() {
        let boxes = Boxes(3, .leastLoaded, models: ["m", "a", "b", "c"])
        for (box, model) in [(1, "b"), (0, "a"), (2, "c")] {
            boxes.loaded([model], at: box)
            boxes.now += Boxes.second
            #expect(boxes.start(model) == .box(box))
            boxes.answer(box)
            boxes.end(box)
        }
        #expect(boxes.start() == 1)
    }

    @Test func `and a box that can serve fewer other models`() {
        let boxes = Boxes(3, .leastLoaded)
        boxes.list(["m", "a", "b"], at: 0)
        boxes.list(["m", "a"], at: 1)
        boxes.list(["m", "a", "b", "c"], at: 2)
        #expect(boxes.start() == 1)
    }

    @Test func `a model that runs on no other box is not driven out while there is another way`() {
        let boxes = Boxes(3, .leastLoaded, models: ["a", "b", "c"])
        var loads = 0
        for model in ["a", "b", "c", "a", "a", "b", "c", "c", "b", "a"] {
            guard case .box(let box) = boxes.start(model) else { continue }
            if boxes.answer(box).loaded { loads += 1 }
            boxes.end(box)
        }
        #expect(loads == 3)
    }

    // MARK: Affinity

    @Test func `a conversation stays where it is, and others go elsewhere`() {
        let boxes = Boxes(4, .affinity)
        for box in 0..<4 { boxes.loaded(["m"], at: box) }
        var homes: [Boxes.Place] = []
        for talk in 1...200 as ClosedRange<UInt64> {
            let places = boxes.startAndEnd(3, talk: talk &* 0x9e37_79b9_7f4a_7c15)
            #expect(Set(places).count == 1)
            homes += places.prefix(1)
        }
        #expect(homes.counts(4).allSatisfy { (30...70).contains($0) })
    }

    @Test func `a heavier box has more conversations`() {
        let boxes = Boxes(2, .affinity, weights: [1, 3])
        for box in 0..<2 { boxes.loaded(["m"], at: box) }
        let homes = (1...400).map { boxes.startAndEnd(1, talk: ConversationHash.of("talk \($0)"))[0] }
        #expect((70...130).contains(homes.counts(2)[0]))
    }

    @Test func `when a box goes only its own conversations move, and they come back`() {
        let boxes = Boxes(4, .affinity)
        for box in 0..<4 { boxes.loaded(["m"], at: box) }
        func homes() -> [Boxes.Place] {
            (1...100).flatMap { boxes.startAndEnd(1, talk: ConversationHash.of("talk \($0)")) }
        }
        let before = homes()
        boxes.probeFails(2)
        let without = homes()
        let moved = zip(before, without).filter { $0 != $1 }
        #expect(moved.allSatisfy { $0.0 == 2 } && !without.contains(2))
        #expect(Set(moved.map(\.1)) == [0, 1, 3], "and not all to one")
        #expect(boxes.probe(2))
        #expect(homes() == before)
    }

    @Test func `a conversation leaves a box that runs two more than another`() {
        let boxes = Boxes(2, .affinity)
        for box in 0..<2 { boxes.loaded(["m"], at: box) }
        guard case .box(let home) = boxes.start(talk: 5) else { return }
        #expect(boxes.start(talk: 5) == .box(home))
        #expect(boxes.start(talk: 5) == .box(1 - home))
        #expect(boxes.start(talk: 5) == .box(home), "two here, one there")
        #expect(boxes.start(talk: 5) == .box(1 - home))
        for _ in 0..<2 { boxes.end(home) }
        #expect(boxes.start(talk: 5) == .box(home))
    }

    @Test func `what is no conversation goes where the fewest run`() {
        let boxes = Boxes(3, .affinity)
        for box in 0..<3 { boxes.loaded(["m"], at: box) }
        #expect((0..<6).map { _ in boxes.start() }.counts(3) == [2, 2, 2])
    }

    @Test(arguments: ["of another tier", "full", "tried"])
    func `a box that is less busy and cannot serve is no reason to leave`(why: String) {
        let boxes = Boxes(
            3, .affinity, limits: [9, 9, why == "full" ? 1 : 9], tiers: why == "of another tier" ? [1, 1, 2] : [])
        for box in 0..<3 { boxes.loaded(["m"], at: box) }
        guard case .box(let home) = boxes.start(tried: [2], talk: 5) else { return }
        boxes.end(home)
        #expect(boxes.start(tried: [0, 1]) == 2)
        // Two more on both of the others than on that one.
        for box in [0, 1, 0, 1, 0, 1] { #expect(boxes.start(tried: [1 - box, 2]) == .box(box)) }
        #expect(boxes.start(tried: why == "tried" ? [2] : [], talk: 5) == .box(home))
    }
}
