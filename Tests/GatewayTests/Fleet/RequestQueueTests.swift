import TestSupport
import Testing

@testable import Gateway

/// Who runs where and who waits, without anybody doing it. With random events: ``FleetModelTests``.
@Suite struct RequestQueueTests {
    @Test func `boxes take turns until all are full, then one waits`() {
        let line = Line(Boxes(3, limit: 2), limit: 2)
        #expect((0..<6).map { _ in line.enter() } == [.box(0), .box(1), .box(2), .box(0), .box(1), .box(2)])
        #expect((0..<3).map { _ in line.enter() } == [.waits, .waits, .full])
        #expect(line.queue.waiting == 2)
        #expect(line.settle() == [], "nothing has changed")
    }

    @Test func `the one that came first is the next`() {
        let line = Line(Boxes(2, limit: 1), limit: 9)
        for _ in 0..<5 { line.enter() }
        #expect([1, 0, 0].map { line.end($0) } == [["3 to 1"], ["4 to 0"], ["5 to 0"]])
        #expect(line.end(0) + line.end(1) == [])
        #expect(line.queue.waiting == 0)
    }

    @Test func `one that has left is passed over, and makes room for another`() {
        let line = Line(Boxes(1, limit: 1), limit: 2)
        #expect((0..<4).map { _ in line.enter() } == [.box(0), .waits, .waits, .full])
        line.queue.leave(2)
        line.queue.leave(2)
        line.queue.leave(77)
        #expect(line.enter() == .waits)
        #expect(line.end(0) == ["3 to 0"])
        line.queue.leave(3)
        #expect(line.end(0) == ["5 to 0"])
        #expect(line.end(0) == [])
    }

    @Test func `one that comes again has its old place in the line`() {
        let line = Line(Boxes(1, limit: 1), limit: 9)
        let tickets = (0..<4).map { _ in line.queue.takeTicket() }
        line.enter(ticket: tickets[1])
        for ticket in [tickets[2], tickets[3], tickets[0]] { #expect(line.enter(ticket: ticket) == .waits) }
        #expect((0..<3).flatMap { _ in line.end(0) } == ["1 to 0", "3 to 0", "4 to 0"])
    }

    @Test func `one that was tried elsewhere waits for the other box, and its place does not hold up the rest`() {
        let line = Line(Boxes(2, limit: 1), limit: 9)
        for _ in 0..<2 { line.enter() }
        #expect(line.enter(tried: [0]) == .waits)
        #expect(line.enter() == .waits)
        #expect(line.end(0) == ["4 to 0"])
        #expect(line.end(1) == ["3 to 1"])
    }

    @Test func `who waits for different models gets what becomes free in order of coming`() {
        let boxes = Boxes(2, limit: 1, models: ["m", "n"])
        boxes.list(["m"], at: 0)
        let line = Line(boxes, limit: 9)
        for _ in 0..<2 { line.enter("m") }
        for model in ["n", "m", "n", "m"] { #expect(line.enter(model) == .waits) }
        #expect(line.end(0) == ["4 to 0"], "the third wants what this box does not have")
        #expect(line.end(1) == ["3 to 1"])
        #expect(line.end(1) == ["5 to 1"])
        #expect(line.end(1) == ["6 to 1"])
    }

    @Test func `several boxes that become free at once serve as many`() {
        let line = Line(Boxes(3, limit: 1), limit: 9)
        for box in 0..<3 { line.boxes.balancer.rest(box, until: 5) }
        line.adopt()
        for _ in 0..<5 { #expect(line.enter() == .waits) }
        line.boxes.now = 4
        #expect(line.settle() == [])
        line.boxes.now = 5
        #expect(line.settle() == ["1 to 0", "2 to 1", "3 to 2"])
    }

    @Test func `nobody waits for what cannot come`() {
        let line = Line(Boxes(2, limit: 1), limit: 9)
        for _ in 0..<2 { line.enter() }
        #expect(line.enter(tried: [0]) == .waits)
        #expect(line.enter(tried: [0, 1]) == .refused(.unavailable))
        #expect(line.enter() == .waits)
        line.queue.balancer.probeFails(1)
        #expect(line.settle() == ["3 is refused"], "the other can wait for the first box")
        line.queue.balancer.probeFails(0)
        #expect(line.settle() == ["5 is refused"])
        #expect(line.enter() == .refused(.unavailable) && line.queue.waiting == 0)
    }

    @Test func `who waits for a model that turns out to be nowhere is told so`() {
        let line = Line(Boxes(1), limit: 9)
        line.queue.balancer.probing(0, true)
        #expect(line.enter("o") == .waits)
        line.queue.balancer.probing(0, false)
        #expect(line.settle() == ["1 is refused: unknown"])
    }

    @Test func `a box in recovery serves one, and all when that went well`() {
        let line = Line(Boxes(1, limit: 3), limit: 9)
        line.enter()
        line.fail(0)
        line.queue.balancer.probing(0, true)
        for _ in 0..<3 { line.enter() }
        #expect(line.queue.waiting == 2, "one is tried in need")
        #expect(line.answer(0) == ["3 to 0", "4 to 0"])
    }

    @Test func `a place that is given back by a call nobody waits for is free`() {
        let line = Line(Boxes(1, limit: 1), limit: 0)
        #expect([line.enter(), line.enter()] == [.box(0), .full])
        #expect(line.end(0) == [])
        #expect(line.enter() == .box(0))
    }

    @Test func `tickets are never the same again`() {
        let line = Line(Boxes(1), limit: 0)
        #expect((0..<5).map { _ in line.queue.takeTicket() } == [1, 2, 3, 4, 5])
    }

    @Test func `ten thousand in one line are served in order, and any of them may leave`() {
        let line = Line(Boxes(1, limit: 1), limit: 10_000)
        for _ in 0..<10_001 { line.enter() }
        #expect(line.enter() == .full)
        var random = SeededGenerator(seed: 1)
        let gone = Set((0..<5000).map { _ in UInt64.random(in: 2...10_001, using: &random) })
        gone.forEach { line.queue.leave($0) }
        let stayed = (2...10_001).filter { !gone.contains($0) }
        #expect(stayed.first { line.end(0) != ["\($0) to 0"] } == nil)
        #expect(line.queue.waiting == 0)
    }
}

/// A queue and the calls that run, and in words what comes of them. Requests are known by their tickets.
private final class Line {
    let boxes: Boxes
    var queue: RequestQueue
    private var running: [Balancer.Lease] = []

    init(_ boxes: Boxes, limit: Int) {
        self.boxes = boxes
        queue = RequestQueue(boxes.balancer, limit: limit)
    }

    enum Entry: Equatable { case box(Int), waits, full, refused(Balancer.Refusal) }

    /// What was done to the boxes holds for the queue.
    func adopt() { queue.balancer = boxes.balancer }

    @discardableResult
    func enter(_ model: String = "m", tried: [Int] = [], ticket: UInt64? = nil) -> Entry {
        let ticket = ticket ?? queue.takeTicket()
        switch queue.enter(boxes.want(model, tried: tried), ticket, at: boxes.now) {
        case .run(let lease):
            running.append(lease)
            return .box(lease.backend)
        case .wait: return .waits
        case .full: return .full
        case .refuse(let refusal): return .refused(refusal)
        }
    }

    func settle() -> [String] {
        queue.settle(at: boxes.now).map { turn in
            switch turn.outcome {
            case .success(let lease):
                running.append(lease)
                return "\(turn.ticket) to \(lease.backend)"
            case .failure(.unavailable): return "\(turn.ticket) is refused"
            case .failure(.unknownModel): return "\(turn.ticket) is refused: unknown"
            }
        }
    }

    private func call(_ box: Int) -> Int? {
        let place = running.firstIndex { $0.backend == box }
        #expect(place != nil, "nothing runs on box \(box)")
        return place
    }

    func end(_ box: Int) -> [String] {
        guard let place = call(box) else { return [] }
        queue.balancer.end(running.remove(at: place))
        return settle()
    }

    @discardableResult
    func fail(_ box: Int) -> [String] {
        guard let place = call(box) else { return [] }
        _ = queue.balancer.failed(running[place], "connection lost", mayBeTriedInNeed: true)
        return end(box)
    }

    func answer(_ box: Int) -> [String] {
        guard let place = call(box) else { return [] }
        _ = queue.balancer.answered(running[place], isGood: true)
        return settle()
    }
}

extension Balancer {
    fileprivate mutating func probeFails(_ box: Int) {
        _ = probeFailed(box, since: backends[box].breaker.epoch, "timed out")
    }
}
