import HTTPCore
import Testing

@testable import Gateway

@Suite struct AliasTests {
    @Test func `bytes that were seen lead to their entry, with the form they ask for`() throws {
        let cache = CacheRig(1 << 20)
        cache.put(1, "hello")
        #expect(cache.entry(raw: 1) == nil)
        cache.learn(1, 1, .stream)
        cache.learn(2, 1, .streamWithUsage)
        let first = try #require(cache.entry(raw: 1))
        let second = try #require(cache.entry(raw: 2))
        #expect(first.entry == second.entry)
        #expect(first.form == .stream && second.form == .streamWithUsage)
    }

    @Test func `an answer replaced by a newer one keeps the bytes that lead to it`() {
        let cache = CacheRig(1 << 20)
        cache.put(1, "old")
        cache.learn(1, 1)
        cache.put(1, "new")
        #expect(cache.text(raw: 1) == "new")
    }

    @Test func `bytes never lead to what took the place of their entry`() {
        let cache = CacheRig(Cache.budget(entries: 1, of: 100))
        let text = String(repeating: "x", count: 100)
        cache.put(1, text)
        cache.learn(1, 1)
        cache.put(2, text)
        #expect(cache.text(raw: 1) == nil)
        cache.put(1, text)
        #expect(cache.text(raw: 1) == nil, "the entry is another, though the key is the same")
    }

    @Test func `bytes do not lead to what is stale`() {
        let cache = CacheRig(1 << 20)
        cache.put(1, "hello", at: 0)
        cache.learn(1, 1)
        #expect(cache.text(raw: 1, at: 59) == "hello")
        #expect(cache.text(raw: 1, at: 60) == nil)
    }

    @Test func `a hit by bytes is a use`() {
        let cache = CacheRig(Cache.budget(entries: 2, of: 100))
        let text = String(repeating: "x", count: 100)
        cache.put(1, text)
        cache.put(2, text)
        cache.learn(1, 1)
        #expect(cache.text(raw: 1) != nil)
        cache.put(3, text)
        #expect(cache.text(1) != nil && cache.text(2) == nil)
    }

    @Test func `any number of aliases fits, the newer ones stay`() {
        let cache = CacheRig(Cache.budget(entries: 1, of: 5))
        cache.put(1, "hello")
        let bytes = cache.bytes
        for number in 0..<10_000 { cache.learn(number, 1) }
        #expect(cache.bytes == bytes)
        #expect(cache.text(raw: 9999) == "hello")
        #expect((0..<10_000).count { cache.text(raw: $0) != nil } == 3 * 128)
    }

    @Test func `nearly all entries are found by their bytes in a large cache`() {
        let cache = CacheRig(1 << 30)
        for number in 0..<20_000 {
            cache.put(number, "\(number)")
            cache.learn(number, number)
        }
        let found = (0..<20_000).count { cache.text(raw: $0) == "\($0)" }
        #expect(found > 18_500)
    }

    @Test func `a page added again knows nothing of what was in it before`() {
        var slots = Slots()
        slots.grow()
        slots.grow()
        let generation = slots[200].pointee.generation
        for number in 0..<256 { _ = slots.add(.number(number), .empty) }
        for number in 0..<256 { slots.find(.number(number)).map { slots.remove($0) } }
        slots.shrink()
        slots.grow()
        let later = slots[200].pointee.generation
        #expect(later > generation)
    }
}

@Suite struct ReadyTests {
    private let response = Response(status: 200)

    @Test func `a finished response is kept with its entry, in each form`() throws {
        let cache = CacheRig(1 << 24)
        cache.put(1, "hello")
        let entry = try #require(cache.entry(1))
        let other = Response(status: 200)
        #expect(cache.response(of: entry, as: .whole) == nil)
        #expect(cache.keep(response, of: entry, as: .whole, extraBytes: 0))
        #expect(cache.keep(other, of: entry, as: .stream, extraBytes: 1000))
        #expect(cache.response(of: entry, as: .whole) === response)
        #expect(cache.response(of: entry, as: .stream) === other)
        #expect(cache.response(of: entry, as: .streamWithUsage) == nil)
        #expect(cache.bytes == Cache.budget(entries: 1, of: 5) + 2 * 1024 + Cache.allocated(1000))
    }

    @Test func `it goes with the entry, and with the answer it was made of`() throws {
        let cache = CacheRig(1 << 24)
        cache.put(1, "old")
        let entry = try #require(cache.entry(1))
        #expect(cache.keep(response, of: entry, as: .whole, extraBytes: 0))
        cache.put(1, "new")
        #expect(cache.response(of: entry, as: .whole) == nil)
        #expect(cache.bytes == Cache.budget(entries: 1, of: 3))
        #expect(cache.keep(response, of: entry, as: .whole, extraBytes: 0))
        #expect(cache.purge() == 1 && cache.sweep(at: 0, limit: 1000) == 1)
        #expect(cache.response(of: entry, as: .whole) == nil)
        #expect(!cache.keep(response, of: entry, as: .whole, extraBytes: 0))
        #expect(cache.readyCount == 0)
    }

    @Test func `one for the same form takes the place of the other, and of its cost`() throws {
        let cache = CacheRig(1 << 24)
        cache.put(1, "hello")
        let entry = try #require(cache.entry(1))
        for _ in 0..<3 { cache.keep(response, of: entry, as: .whole, extraBytes: 500) }
        #expect(cache.bytes == Cache.budget(entries: 1, of: 5) + 1024 + Cache.allocated(500))
    }

    @Test func `others give way to it, but not the entry itself`() throws {
        let text = String(repeating: "x", count: 1000)
        let budget = Cache.budget(entries: 3, of: 1000)
        let cache = CacheRig(budget)
        for number in 1...3 { cache.put(number, text) }
        let entry = try #require(cache.entry(1))
        #expect(cache.keep(response, of: entry, as: .whole, extraBytes: 0))
        #expect(cache.bytes <= budget)
        #expect(cache.text(1) != nil && cache.text(2) == nil && cache.text(3) != nil)
        #expect(!cache.keep(response, of: entry, as: .stream, extraBytes: 1500))
        #expect(cache.text(3) != nil, "what cannot fit evicts nothing")
    }

    @Test func `the hottest keep theirs when there are too many`() throws {
        let cache = CacheRig(1 << 24, maxReady: 8)
        for number in 0..<100 {
            cache.put(number, "hello")
            let entry = try #require(cache.entry(number))
            #expect(cache.keep(response, of: entry, as: .whole, extraBytes: 0))
            let hot = try #require(cache.entry(0))
            #expect(cache.response(of: hot, as: .whole) === response)
            #expect(cache.readyCount == min(number + 1, 8))
        }
        #expect(cache.count == 100)
    }
}
