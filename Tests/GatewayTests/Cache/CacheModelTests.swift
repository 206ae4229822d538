import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Random operations on ``Cache`` and on ``NaiveCache``, compared after each.
@Suite struct CacheModelTests {
    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
    func `a cache does what a dictionary and an array would, within its budget`(seed: UInt64) {
        let trial = Trial(seed: seed)
        for step in 0..<60_000 {
            trial.step()
            if step % 200 == 0 { trial.compareAll() }
            if trial.failures > 0 { break }
        }
        trial.compareAll()
        #expect(trial.failures == 0)
        #expect(trial.rawHits > 300, "aliases are of use")
        #expect(trial.evicted > 1000)
    }

    final class Trial {
        let maxBytes: Int
        var cache: Cache
        var model = NaiveCache()
        var random: SeededGenerator
        var now: UInt64 = 0
        var reserved: [Int] = []
        var failures = 0
        var rawHits = 0

        init(seed: UInt64) {
            random = SeededGenerator(seed: seed)
            maxBytes = [60_000, 150_000, 300_000, 600_000, 1_000_000][Int(seed % 5)]
            cache = Cache(
                maxBytes: maxBytes, maxEntryBytes: 40_000, ttl: NaiveCache.ttl,
                staleFor: NaiveCache.lifetime - NaiveCache.ttl, maxReady: 20)
        }

        func step() {
            // In bursts: now and then much of what there is expires at once.
            now += Int.random(in: 0..<10_000, using: &random) == 0 ? 700 : UInt64.random(in: 0..<10, using: &random) / 9
            // The lower, the more often.
            let number = Int.random(in: 0...Int.random(in: 0..<maxBytes / 200, using: &random), using: &random)
            switch Int.random(in: 0..<10_000, using: &random) {
            case 0..<3000: store(number)
            case 3000..<5000: lookUp(number)
            case 5000..<5500: lookUpStale(number)
            case 5500..<7000: learn(number)
            case 7000..<9000: lookUpRaw(number * 2 + Int.random(in: 0..<2, using: &random))
            case 9000..<9400: keep(number)
            case 9400..<9500: reserve()
            case 9500..<9800: release()
            case 9800..<9997: sweep(limit: Int.random(in: 0..<200, using: &random))
            case 9997: purge(nil)
            default: purge(name())
            }
            check(cache.bytes <= maxBytes, "over budget")
            check(cache.slots.used == model.entries.count, "count")
            check(
                cache.slots.oldest == Page.none ? model.order.isEmpty : oldestKey == model.order.first.map(Key.number))
        }

        var evicted: Int { cache.removals.evicted }
        var oldestKey: Key? { cache.slots[cache.slots.oldest].pointee.key }

        func check(_ holds: Bool, _ what: String = "order", line: Int = #line) {
            if holds { return }
            failures += 1
            Issue.record("\(what), line \(line)")
        }

        func name() -> String { "model\(Int.random(in: 0..<5, using: &random))" }

        /// Lets the model lose as many of its oldest as the cache did, and sees that this was necessary.
        func follow() {
            var last = 0
            while model.entries.count > cache.slots.used, let oldest = model.order.first {
                check(cache.slots.find(.number(oldest)) == nil, "the oldest goes first")
                last = model.entries[oldest].map { Cache.cost(of: $0.payload) } ?? 0
                // With it may have gone finished responses, and the name of its model.
                last += 3 * 2100 + 200
                model.remove(oldest)
            }
            if last > 0 { check(cache.bytes + last + 2 * Cache.bytesPerPage > maxBytes, "evicted without need") }
        }

        func store(_ number: Int) {
            let isLarge = Int.random(in: 0..<500, using: &random) == 0
            let length = Int.random(in: 0..<(isLarge ? 50_000 : 300), using: &random)
            let payload = Bytes([UInt8](repeating: 0x61, count: length))
            let form = AnswerForm.allCases.randomElement(using: &random) ?? .whole
            let modelName = name()
            let stored = cache.store(.number(number), payload, form: form, endpoint: .chat, model: modelName, at: now)
            if length > 40_000 { check(!stored, "too large") }
            let least =
                Cache.cost(of: payload) + reserved.reduce(0, +) + Cache.bytesPerPage + ModelTable.cost(of: modelName)
            check(stored == (length <= 40_000 && least <= maxBytes), "stored")
            if stored { model.store(number, payload, form, modelName, at: now) }
            follow()
            if stored { compare(number) }
        }

        func lookUp(_ number: Int) {
            let expected = model.lookUp(number, within: NaiveCache.ttl, at: now)
            let found = cache.lookUp(.number(number), at: now)
            check(found.flatMap { cache.contents(of: $0) }?.payload === expected?.payload, "look-up")
        }

        func lookUpStale(_ number: Int) {
            let expected = model.lookUp(number, within: NaiveCache.lifetime, at: now)
            let found = cache.lookUpStale(.number(number), at: now)
            check(found.flatMap { cache.contents(of: $0) }?.payload === expected?.payload, "stale look-up")
        }

        func learn(_ number: Int) {
            let raw = number * 2 + Int.random(in: 0..<2, using: &random)
            let form = AnswerForm.allCases.randomElement(using: &random) ?? .whole
            cache.learn(raw: .raw(raw), key: .number(number), form: form)
            if let entry = model.entries[number] {
                model.aliases[raw] = .init(number: number, identity: entry.identity, form: form)
            }
        }

        func lookUpRaw(_ raw: Int) {
            let used = cache.slots.used
            let found = cache.lookUp(raw: .raw(raw), at: now)
            guard let alias = model.target(of: raw) else { return check(found == nil, "an alias of nothing") }
            guard let found else {
                // Forgotten, or too old; in the latter case the entry may have been dropped.
                if cache.slots.used < used { check(model.isDead(alias.number, at: now), "dropped alive") }
                if cache.slots.used < used { model.remove(alias.number) }
                return
            }
            rawHits += 1
            let expected = model.lookUp(alias.number, within: NaiveCache.ttl, at: now)
            check(found.form == alias.form, "form")
            check(cache.contents(of: found.entry)?.payload === expected?.payload, "raw look-up")
        }

        func keep(_ number: Int) {
            guard model.lookUp(number, within: NaiveCache.ttl, at: now) != nil,
                let entry = cache.lookUp(.number(number), at: now)
            else { return _ = cache.lookUp(.number(number), at: now) }
            let form = AnswerForm.allCases.randomElement(using: &random) ?? .whole
            let response = Response(status: 200)
            if let present = cache.response(of: entry, as: form) {
                check(present === model.entries[number]?.responses[form], "response")
            }
            let extra = Int.random(in: 0..<1000, using: &random)
            let isKept = cache.keep(response, of: entry, as: form, extraBytes: extra)
            follow()
            guard isKept else { return }
            model.entries[number]?.responses[form] = response
            let again = cache.lookUp(.number(number), at: now)
            check(again.flatMap { cache.response(of: $0, as: form) } === response, "kept response")
        }

        func reserve() {
            let isLarge = Int.random(in: 0..<20, using: &random) == 0
            let bytes = Int.random(in: 0..<maxBytes / (isLarge ? 2 : 30), using: &random)
            let fits = bytes + reserved.reduce(0, +) + Cache.bytesPerPage <= maxBytes
            check(cache.reserve(bytes) == fits, "reserved")
            if fits { reserved.append(bytes) }
            follow()
        }

        func release() {
            while let bytes = reserved.popLast() { cache.release(bytes) }
        }

        func sweep(limit: Int) {
            let freed = cache.sweep(at: now, limit: limit)
            check(freed <= limit, "sweep")
            let gone = model.order.filter { cache.slots.find(.number($0)) == nil }
            check(gone.count == freed, "swept")
            for number in gone {
                check(model.isDead(number, at: now), "swept alive")
                model.remove(number)
            }
        }

        func purge(_ name: String?) {
            let count = name.map { cache.purge(model: $0) } ?? cache.purge()
            check(count == model.purge(model: name), "purged")
        }

        func compareAll() {
            check(cache.count == model.count, "count without purged")
            for number in model.order { compare(number) }
            var payloads = 0
            for entry in model.entries.values { payloads += Cache.cost(of: entry.payload) }
            check(cache.payloadBytes == payloads, "accounting")
            check(Int(cache.slots.capacity) <= 2 * cache.slots.used + 2 * Int(Page.size), "too many free slots")
        }

        func compare(_ number: Int) {
            let entry = model.entries[number]
            guard let slot = cache.slots.find(.number(number)) else { return check(false, "missing") }
            check(cache.slots[slot].pointee.payload === entry?.payload, "payload")
            check(cache.slots[slot].pointee.form == entry?.form, "form")
            check(cache.slots[slot].pointee.storedAt == entry?.storedAt, "time")
        }
    }
}
