import TestSupport
import Testing

@testable import Gateway

/// Who runs where and who waits, without anybody doing it.
@Suite struct RequestQueueTests {
    @Test func `backends take turns until all are full, then one waits`() {
        var queue = RequestQueue(backends: 3, concurrency: 2, limit: 2)
        #expect(queue.slots == 6)
        #expect((0..<6).map { _ in queue.enter() } == [0, 1, 2, 0, 1, 2].map { .run(backend: $0) })
        #expect([queue.enter(), queue.enter(), queue.enter()] == [.wait(1), .wait(2), .full])
        #expect(queue.waiting == 2)
        #expect(queue.running == [2, 2, 2])
    }

    @Test func `the one that came first is the next`() throws {
        var queue = RequestQueue(backends: 2, concurrency: 1, limit: 9)
        for _ in 0..<5 { _ = queue.enter() }
        var order: [RequestQueue.Ticket] = []
        for backend in [1, 0, 0] {
            let released = queue.release(backend: backend)
            let next = try #require(released)
            order.append(next.ticket)
            #expect(next.backend == backend)
        }
        #expect(order == [1, 2, 3])
        #expect([queue.release(backend: 0)?.ticket, queue.release(backend: 1)?.ticket] == [nil, nil])
        #expect(queue.running == [0, 0])
        // Ticket after ticket, never one again.
        #expect([queue.enter(), queue.enter(), queue.enter()] == [.run(backend: 1), .run(backend: 0), .wait(4)])
    }

    @Test func `one that has left is passed over, and makes room for another`() {
        var queue = RequestQueue(backends: 1, concurrency: 1, limit: 2)
        _ = queue.enter()
        #expect([queue.enter(), queue.enter(), queue.enter()] == [.wait(1), .wait(2), .full])
        queue.leave(1)
        queue.leave(1)
        queue.leave(77)
        #expect([queue.enter()] == [.wait(3)])
        #expect([queue.release(backend: 0)?.ticket, queue.release(backend: 0)?.ticket] == [2, 3])
        queue.leave(3)
        #expect(queue.running == [1])
        #expect([queue.release(backend: 0)?.ticket] == [nil])
    }

    @Test func `a full backend is passed over, and takes its turn again`() {
        var queue = RequestQueue(backends: 3, concurrency: 1, limit: 0)
        for _ in 0..<3 { _ = queue.enter() }
        _ = queue.release(backend: 1)
        #expect([queue.enter()] == [.run(backend: 1)])
        _ = queue.release(backend: 0)
        _ = queue.release(backend: 2)
        #expect([queue.enter(), queue.enter(), queue.enter()] == [.run(backend: 2), .run(backend: 0), .full])
    }

    @Test func `backends that are never full get equally much`() {
        var queue = RequestQueue(backends: 3, concurrency: 100, limit: 0)
        for _ in 0..<100 { _ = queue.enter() }
        #expect(queue.running == [34, 33, 33])
    }

    /// What the queue must do, done simply.
    private struct Model {
        var queue: RequestQueue
        var waiting: [RequestQueue.Ticket] = []
        var running: [Int] = []
        var last = -1

        init(_ queue: RequestQueue) { self.queue = queue }

        /// The free backend that comes next in turn.
        func next(_ backends: Int) -> Int? {
            (1...backends).lazy.map { (last + $0) % backends }.first { candidate in
                running.count { $0 == candidate } < queue.concurrency
            }
        }
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func `whatever comes and goes, nobody is lost and no backend has too much`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let backends = Int.random(in: 1...4, using: &random)
        var model = Model(
            RequestQueue(
                backends: backends, concurrency: Int.random(in: 1...3, using: &random),
                limit: [0, 1, 5, 200].randomElement(using: &random) ?? 0))
        let rush = Int.random(in: 3...7, using: &random)
        for step in 0..<5000 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<rush: try enter(&model, backends)
            case rush where !model.waiting.isEmpty:
                let gone = model.waiting.remove(at: Int.random(in: 0..<model.waiting.count, using: &random))
                model.queue.leave(gone)
            default: try release(&model, backends, &random)
            }
            #expect(model.queue.waiting == model.waiting.count)
            for backend in 0..<backends {
                let count = model.running.count { $0 == backend }
                try #require(model.queue.running[backend] == count, "step \(step)")
                try #require(count <= model.queue.concurrency)
            }
            #expect(model.waiting.isEmpty || model.running.count == model.queue.slots)
        }
        while !model.running.isEmpty { try release(&model, backends, &random) }
        #expect(model.waiting.isEmpty)
        #expect(model.queue.waiting == 0)
        #expect(model.queue.running.allSatisfy { $0 == 0 })
    }

    private func enter(_ model: inout Model, _ backends: Int) throws {
        let next = model.next(backends)
        switch model.queue.enter() {
        case .run(let backend):
            try #require(backend == next)
            model.running.append(backend)
            model.last = backend
        case .wait(let ticket):
            try #require(next == nil && model.waiting.count < model.queue.limit)
            model.waiting.append(ticket)
        case .full:
            try #require(next == nil && model.waiting.count == model.queue.limit)
        }
    }

    private func release(_ model: inout Model, _ backends: Int, _ random: inout SeededGenerator) throws {
        guard !model.running.isEmpty else { return }
        let backend = model.running.remove(at: Int.random(in: 0..<model.running.count, using: &random))
        let next = model.queue.release(backend: backend)
        try #require(next?.ticket == model.waiting.first)
        guard let next else { return }
        try #require(next.backend == model.next(backends))
        model.waiting.removeFirst()
        model.running.append(next.backend)
        model.last = next.backend
    }
}
