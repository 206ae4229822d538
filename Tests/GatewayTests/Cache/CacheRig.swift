import HTTPCore
import TestSupport

@testable import Gateway

extension Key {
    /// A key that is the same for the same number, and as random as a SHA-256.
    static func number(_ number: Int) -> Key {
        var generator = SeededGenerator(seed: UInt64(bitPattern: Int64(number)) &* 0x2545_f491_4f6c_dd1d)
        return [generator.next(), generator.next(), generator.next(), generator.next()].withUnsafeBytes {
            Key(bytes: $0)
        }
    }

    /// The key of the bytes of a request, as distinct from the keys of requests.
    static func raw(_ number: Int) -> Key { .number(-1 - number) }
}

extension Cache {
    /// What a cache with one page takes when it is full of so many entries.
    static func budget(entries: Int, of length: Int, model: String = "m") -> Int {
        bytesPerPage + ModelTable.cost(of: model) + entries * (allocated(length) + 48)
    }
}

/// A cache in a box: `#expect` cannot look into what is not copyable.
final class CacheRig {
    var cache: Cache

    /// An entry lives for 60 nanoseconds, and may be served stale for 60 more.
    init(_ maxBytes: Int, maxEntryBytes: Int = 1 << 20, maxReady: Int = 4096, ttl: UInt64 = 60, staleFor: UInt64 = 60) {
        cache = Cache(
            maxBytes: maxBytes, maxEntryBytes: maxEntryBytes, ttl: ttl, staleFor: staleFor, maxReady: maxReady)
    }

    var count: Int { cache.count }
    var bytes: Int { cache.bytes }
    var removals: Cache.Removals { cache.removals }
    var readyCount: Int { cache.readyCount }
    var unsweptCount: Int { cache.unsweptCount }
    var capacity: Int { Int(cache.slots.capacity) }

    @discardableResult
    func put(_ number: Int, _ text: String, model: String = "m", at now: UInt64 = 0) -> Bool {
        cache.store(.number(number), Bytes(text), form: .whole, endpoint: .chat, model: model, at: now)
    }

    func entry(_ number: Int, at now: UInt64 = 0) -> Cache.Entry? { cache.lookUp(.number(number), at: now) }

    func entry(raw number: Int, at now: UInt64 = 0) -> (entry: Cache.Entry, form: AnswerForm)? {
        cache.lookUp(raw: .raw(number), at: now)
    }

    /// The text stored under a number, if it is fresh.
    func text(_ number: Int, at now: UInt64 = 0) -> String? { text(of: entry(number, at: now)) }

    func text(raw number: Int, at now: UInt64 = 0) -> String? { text(of: entry(raw: number, at: now)?.entry) }

    func staleText(_ number: Int, at now: UInt64) -> String? { text(of: cache.lookUpStale(.number(number), at: now)) }

    func contents(of entry: Cache.Entry) -> Cache.Contents? { cache.contents(of: entry) }

    func learn(_ raw: Int, _ number: Int, _ form: AnswerForm = .whole) {
        cache.learn(raw: .raw(raw), key: .number(number), form: form)
    }

    @discardableResult
    func keep(_ response: Response, of entry: Cache.Entry, as form: AnswerForm, extraBytes: Int) -> Bool {
        cache.keep(response, of: entry, as: form, extraBytes: extraBytes)
    }

    func response(of entry: Cache.Entry, as form: AnswerForm) -> Response? { cache.response(of: entry, as: form) }
    func reserve(_ bytes: Int) -> Bool { cache.reserve(bytes) }
    func release(_ bytes: Int) { cache.release(bytes) }
    func purge() -> Int { cache.purge() }
    func purge(model: String) -> Int { cache.purge(model: model) }

    @discardableResult
    func sweep(at now: UInt64, limit: Int) -> Int { cache.sweep(at: now, limit: limit) }

    private func text(of entry: Cache.Entry?) -> String? { entry.flatMap { cache.contents(of: $0)?.payload.text } }
}
