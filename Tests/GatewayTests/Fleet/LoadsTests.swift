import TestSupport
import Testing

@testable import Gateway

/// What a balancer believes a box to have in memory: what it says in `/api/ps`, and what its calls tell.
@Suite struct LoadsTests {
    @Test func `a call to a model of which nothing was heard may be loading it, until it is answered`() throws {
        let boxes = Boxes(1)
        boxes.start()
        #expect(try boxes.balancer.mayBeLoading(boxes.call(0)))
        #expect(boxes.answer(0).loaded)
        #expect(try !boxes.balancer.mayBeLoading(boxes.call(0)))
        boxes.end(0)
        boxes.start()
        #expect(try !boxes.balancer.mayBeLoading(boxes.call(0)), "it stays")
        #expect(!boxes.answer(0).loaded)
    }

    @Test func `one answer tells of one model on one box`() {
        let boxes = Boxes(2, models: ["m", "n"])
        #expect([boxes.start(), boxes.start(), boxes.start(), boxes.start()] == [0, 1, 0, 1])
        boxes.answer(0)
        #expect(!boxes.calls.filter { $0.backend == 0 }.contains { boxes.balancer.mayBeLoading($0) })
        #expect(boxes.calls.filter { $0.backend == 1 }.allSatisfy { boxes.balancer.mayBeLoading($0) })
        while !boxes.calls.isEmpty { boxes.end(boxes.calls[0].backend) }
        for _ in 0..<2 { boxes.start("n") }
        #expect(boxes.calls.allSatisfy { boxes.balancer.mayBeLoading($0) })
    }

    @Test func `an answer that is an error loads nothing`() throws {
        let boxes = Boxes(1)
        boxes.start()
        #expect(!boxes.answer(0, isGood: false).loaded)
        #expect(try boxes.balancer.mayBeLoading(boxes.call(0)))
        boxes.end(0)
        #expect(boxes.loads(0) == [])
    }

    @Test func `what the box says it has loaded is not being loaded`() throws {
        let boxes = Boxes(1, models: ["m", "n"])
        boxes.loaded(["m"], at: 0)
        boxes.start()
        #expect(try !boxes.balancer.mayBeLoading(boxes.call(0)))
        boxes.start("n")
        boxes.loaded(["m", "n"], at: 0)
        #expect(!boxes.calls.contains { boxes.balancer.mayBeLoading($0) })
        #expect(boxes.loads(0) == ["m", "n"])
    }

    @Test func `a box does not say what it is loading, and it counts all the same`() {
        let boxes = Boxes(2, .leastLoaded)
        let first = boxes.start()
        for box in 0..<2 { boxes.loaded([], at: box) }
        #expect(boxes.start() == first)
        #expect(boxes.calls.allSatisfy { boxes.balancer.mayBeLoading($0) })
    }

    @Test func `what a box says no more is gone, unless it runs`() {
        let boxes = Boxes(1, models: ["m", "n", "o"])
        boxes.loaded(["m", "n", "o"], at: 0)
        boxes.start("n")
        boxes.loaded(["o"], at: 0)
        #expect(Set(boxes.loads(0)) == ["n", "o"])
        boxes.answer(0)
        boxes.end(0)
        #expect(Set(boxes.loads(0)) == ["n", "o"])
        boxes.loaded(["o", "", "o"], at: 0)
        #expect(boxes.loads(0) == ["o"])
    }

    @Test func `what a box loaded and used after it was asked is not gone because it did not say so`() {
        let boxes = Boxes(1)
        boxes.now = 5
        boxes.start()
        boxes.answer(0)
        boxes.now = 9
        boxes.end(0)
        boxes.loaded([], at: 0, askedAt: 4)
        boxes.loaded([], at: 0, askedAt: 9)
        #expect(boxes.loads(0) == ["m"])
        boxes.loaded([], at: 0, askedAt: 10)
        #expect(boxes.loads(0) == [])
    }

    @Test func `a call that ends without having loaded its model tells that`() throws {
        let boxes = Boxes(1)
        for _ in 0..<3 { boxes.start() }
        let told = try (0..<2).map { _ in
            let call = try boxes.call(0)
            boxes.end(0)
            return boxes.balancer.mayBeLoading(call)
        }
        #expect(told == [true, true], "one waits for it still")
        let wasNotLoaded = boxes.balancer.end(try boxes.call(0), at: 0)
        #expect(wasNotLoaded && boxes.loads(0) == [])
    }

    @Test func `of ever so many loaded models a hundred count`() {
        let boxes = Boxes(1)
        boxes.loaded((0..<1000).map { "\($0)" }, at: 0)
        #expect(boxes.loads(0) == (0..<100).map { "\($0)" })
    }

    @Test func `a load makes what is idle give way, and what runs not`() {
        let boxes = Boxes(1, models: ["m", "n", "o"])
        boxes.loaded(["m", "n"], at: 0)
        boxes.start("n")
        boxes.start("o")
        #expect(boxes.loads(0) == ["n", "o"])
        boxes.loaded(["m", "n"], at: 0)
        #expect(Set(boxes.loads(0)) == ["m", "n", "o"], "it had room")
    }

    @Test func `a load that its only client leaves is none`() {
        let boxes = Boxes(1)
        boxes.start()
        boxes.start()
        boxes.end(0)
        #expect(boxes.loads(0) == ["m"], "one waits for it still")
        boxes.end(0)
        #expect(boxes.loads(0) == [])
    }

    @Test func `aliases of a model are loaded together`() {
        let boxes = Boxes(2, .leastLoaded, models: ["m=1", "alias=1"])
        let first = boxes.start("m")
        #expect(boxes.start("alias") == first)
        #expect(boxes.calls.map { boxes.balancer.mayBeLoading($0) } == [true, true])
    }

    @Test func `a call to nobody knows what may be loading anything`() throws {
        let boxes = Boxes(1)
        boxes.start("")
        #expect(try boxes.balancer.mayBeLoading(boxes.call(0)))
        #expect(!boxes.answer(0).loaded)
        boxes.end(0)
        #expect(boxes.loads(0) == [])
    }

    @Test func `a visit takes no place, loads nothing and does not make a box well`() {
        let boxes = Boxes(1, limit: 1)
        boxes.start()
        boxes.fail(0)
        #expect(boxes.probe(0))
        let visit = boxes.balancer.visit(0, at: 0)
        #expect(!visit.takesPlace && visit.digest.isEmpty && boxes.balancer.backends[0].running == 0)
        let told = boxes.balancer.answered(visit, isGood: true)
        #expect(!told.changed && !told.loaded)
        #expect(boxes.balancer.backends[0].breaker.state == .recovering)
        let changed = boxes.balancer.failed(visit, "connection lost", mayBeTriedInNeed: true)
        boxes.balancer.end(visit)
        #expect(changed && boxes.balancer.backends[0].breaker.state == .unhealthy)
        #expect(boxes.balancer.backends[0].running == 0)
    }

    @Test func `what would be lost is what no other box has, and when it was used last`() {
        let boxes = Boxes(3, models: ["m", "n", "o"])
        boxes.loaded(["m", "n"], at: 0)
        boxes.loaded(["n"], at: 1)
        #expect(boxes.balancer.backends.map(\.loss.models) == [1, 0, 0])
        boxes.now = 7
        #expect(boxes.start("n", tried: [1, 2]) == 0)
        #expect(boxes.balancer.backends.map(\.loss.lastUsed) == [7, 0, 0])
        boxes.loaded(["m"], at: 2)
        #expect(boxes.balancer.backends.map(\.loss.models) == [0, 0, 0])
        boxes.loaded([], at: 1)
        #expect(boxes.balancer.backends.map(\.loss.models) == [1, 0, 0])
    }
}
