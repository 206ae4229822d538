import HTTPCore
import Testing

@testable import Gateway

@Suite struct CacheTests {
    private let text = String(repeating: "x", count: 100)

    @Test func `an answer comes back as it was stored`() throws {
        let cache = CacheRig(1 << 20)
        let payload = Bytes("hello")
        let stored = cache.cache.store(
            .number(1), payload, form: .stream, endpoint: .generate, model: "m", at: 7)
        #expect(stored)
        let entry = try #require(cache.entry(1, at: 8))
        let contents = try #require(cache.contents(of: entry))
        #expect(contents.payload === payload)
        #expect(contents.form == .stream)
        #expect(contents.endpoint == .generate)
        #expect(contents.storedAt == 7)
        #expect(cache.entry(2, at: 8) == nil)
        #expect(cache.count == 1)
    }

    @Test func `an empty cache takes nothing and finds nothing`() {
        let cache = CacheRig(1 << 20)
        #expect(cache.bytes == 0)
        #expect(cache.entry(1) == nil)
        #expect(cache.entry(raw: 1) == nil)
        cache.learn(1, 1)
        #expect(cache.sweep(at: 0, limit: 10) == 0)
        #expect(cache.purge() == 0)
    }

    @Test func `a budget of nothing stores nothing`() {
        for budget in [0, 1, Cache.budget(entries: 1, of: 5) - 1] {
            let cache = CacheRig(budget)
            #expect(!cache.put(1, "hello"))
            #expect(cache.bytes == 0)
        }
        let cache = CacheRig(Cache.budget(entries: 1, of: 5))
        #expect(cache.put(1, "hello"))
    }

    @Test func `what is larger than an entry may be is not stored, and what was there stays`() {
        let cache = CacheRig(1 << 20, maxEntryBytes: 5)
        #expect(cache.put(1, "hello"))
        #expect(!cache.put(1, "hello!"))
        #expect(cache.text(1) == "hello")
    }

    @Test func `what is larger than the budget is not stored, and evicts nothing`() {
        let cache = CacheRig(Cache.budget(entries: 2, of: 100))
        #expect(cache.put(1, text) && cache.put(2, text))
        #expect(!cache.put(3, String(repeating: "y", count: 1000)))
        #expect(cache.count == 2)
    }

    @Test func `the least recently used goes first`() {
        let cache = CacheRig(Cache.budget(entries: 3, of: 100))
        for number in 1...3 { cache.put(number, text) }
        #expect(cache.text(1) != nil)
        cache.put(4, text)
        #expect(cache.text(2) == nil)
        #expect(cache.text(1) != nil && cache.text(3) != nil && cache.text(4) != nil)
        #expect(cache.removals.evicted == 1)
    }

    @Test func `a newer answer replaces an older one and is as new as it looks`() {
        let cache = CacheRig(Cache.budget(entries: 2, of: 100))
        cache.put(1, "old", at: 0)
        cache.put(2, text, at: 0)
        cache.put(1, "new", model: "m", at: 50)
        #expect(cache.count == 2)
        #expect(cache.text(1, at: 109) == "new")
        #expect(cache.removals.replaced == 1)
        cache.put(3, text, at: 50)
        #expect(cache.text(2, at: 50) == nil, "the replaced entry is the more recently used")
        #expect(cache.text(1, at: 50) == "new")
    }

    @Test func `replacing by something larger evicts others, never the entry itself`() {
        let cache = CacheRig(Cache.budget(entries: 3, of: 100))
        for number in 1...3 { cache.put(number, text) }
        #expect(cache.put(1, String(repeating: "y", count: 300)))
        #expect(cache.count == 1)
        #expect(cache.text(1)?.count == 300)
    }

    @Test func `an entry is fresh for the time to live and may be served stale for a while more`() {
        let cache = CacheRig(1 << 20)
        cache.put(1, "hello", at: 100)
        #expect(cache.text(1, at: 159) == "hello")
        #expect(cache.text(1, at: 160) == nil)
        #expect(cache.staleText(1, at: 219) == "hello")
        #expect(cache.text(1, at: 100) == "hello")
        #expect(cache.staleText(1, at: 220) == nil)
        #expect(cache.count == 0, "what will never be served again goes when it is found")
        #expect(cache.removals.expired == 1)
    }

    @Test func `sweeping frees what has expired, a few slots at a time`() {
        let cache = CacheRig(1 << 20)
        for number in 0..<100 { cache.put(number, "hello", at: number < 50 ? 0 : 100) }
        #expect(cache.sweep(at: 119, limit: 1000) == 0)
        var freed = 0
        for _ in 0..<16 {
            let now = cache.sweep(at: 120, limit: 8)
            #expect(now <= 8)
            freed += now
        }
        #expect(freed == 50)
        #expect(cache.count == 50)
        #expect(cache.removals.expired == 50)
    }

    @Test func `purging makes everything a miss at once and sweeping frees it`() {
        let cache = CacheRig(1 << 20)
        for number in 0..<300 { cache.put(number, "hello") }
        #expect(cache.purge() == 300)
        #expect(cache.count == 0)
        cache.put(5, "again")
        #expect(cache.text(5) == "again")
        #expect(cache.text(6) == nil)
        while cache.unsweptCount > 0 { cache.sweep(at: 0, limit: 64) }
        #expect(cache.bytes == Cache.budget(entries: 1, of: 5))
        #expect(cache.text(5) == "again")
        #expect(cache.removals == .init(purged: 300, replaced: 1))
    }

    @Test func `purging a model leaves the others`() {
        let cache = CacheRig(1 << 20)
        cache.put(1, "one", model: "a")
        cache.put(2, "two", model: "b")
        cache.put(3, "three", model: "a")
        #expect(cache.purge(model: "a") == 2)
        #expect(cache.purge(model: "a") == 0)
        #expect(cache.purge(model: "c") == 0)
        cache.put(3, "newer", model: "a")
        #expect(cache.text(1) == nil)
        #expect(cache.text(2) == "two")
        #expect(cache.text(3) == "newer")
        #expect(cache.purge(model: "a") == 1)
    }

    @Test func `what is reserved counts, and entries give way to it`() {
        let budget = Cache.budget(entries: 3, of: 100)
        let cache = CacheRig(budget)
        for number in 1...3 { cache.put(number, text) }
        #expect(cache.reserve(100))
        #expect(cache.count == 2 && cache.text(1) == nil)
        #expect(cache.bytes <= budget)
        #expect(!cache.reserve(budget))
        #expect(!cache.reserve(.max))
        #expect(cache.count == 2, "what cannot fit evicts nothing")
        cache.release(100)
        #expect(cache.put(4, text) && cache.count == 3)
    }

    @Test func `the name of a model counts, once`() {
        let cache = CacheRig(1 << 20)
        let name = String(repeating: "m", count: 10_000)
        cache.put(1, "hello", model: name)
        cache.put(2, "hello", model: name)
        #expect(cache.bytes == Cache.budget(entries: 2, of: 5, model: name))
        #expect(!cache.put(3, "hello", model: String(repeating: "m", count: 1 << 20)))
    }

    @Test func `a cache that shrinks gives its tables back and keeps what is in it`() {
        let cache = CacheRig(8 << 20)
        for number in 0..<10_000 { cache.put(number, "\(number)") }
        for number in 0..<10_000 { cache.learn(number, number) }
        let large = String(repeating: "x", count: 1 << 20)
        for number in 10_000..<10_007 { cache.put(number, large) }
        #expect(cache.count > 1000 && cache.count < 5000)
        let count = cache.count
        #expect((0..<10_007).count { cache.text($0) != nil } == count)
        for number in 0..<10_000 {
            if let found = cache.text(raw: number) { #expect(found == "\(number)") }
        }
        for number in 10_007..<10_010 { cache.put(number, large) }
        #expect(cache.capacity <= 2 * cache.count + 2 * Int(Page.size))
    }

    @Test func `times past the end of time are far away, not past`() {
        let cache = CacheRig(1 << 20, ttl: .max - 1, staleFor: .max)
        cache.put(1, "hello", at: 10)
        #expect(cache.text(1, at: .max - 2) == "hello")
        #expect(cache.text(1, at: 5) == "hello", "an entry from the future is new")
    }
}
