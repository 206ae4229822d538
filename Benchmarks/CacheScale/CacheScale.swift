import Gateway
import Glibc
import HTTPCore

/// Measures the cache at 10 to 1,000,000 entries: time per hit and per store, the longest single store, and the memory
/// that an entry takes beside its payload, by its own account and by the kernel's. Lines of `name value unit`.
@main
enum CacheScale {
    private static let payloadLength = 256

    static func main() {
        let chosen = CommandLine.arguments.dropFirst().compactMap { Int($0) }
        for entries in chosen.isEmpty ? [10, 1000, 100_000, 1_000_000] : chosen { measureInChild(entries) }
    }

    /// In a process of its own: memory that an earlier cache gave back would hide what this one takes.
    private static func measureInChild(_ entries: Int) {
        let child = fork()
        precondition(child >= 0, "cannot fork")
        if child == 0 {
            measure(entries)
            exit(0)
        }
        var status: Int32 = 0
        waitpid(child, &status, 0)
        precondition(status == 0, "the measurement of \(entries) entries failed")
    }

    private static func measure(_ entries: Int) {
        let keys = (0..<2 * entries).map(key)
        let raws = (0..<entries).map { key($0 + (1 << 40)) }
        let template = [UInt8](repeating: 0x61, count: payloadLength)
        let order = (0..<max(entries, 1_000_000)).shuffled().map { $0 % entries }

        // A first cache, so that what a program needs for any is not counted.
        var small = Cache(maxBytes: 1 << 20, maxEntryBytes: 1 << 20, ttl: .max)
        _ = fill(&small, keys[..<10], template)
        for key in raws[..<10] where small.lookUp(raw: key, at: 0) != nil { fatalError("learned nothing") }

        let before = residentBytes()
        var cache = Cache(maxBytes: 8 << 30, maxEntryBytes: 1 << 20, ttl: .max)
        let filling = fill(&cache, keys[..<entries], template)
        for (raw, key) in zip(raws, keys) { cache.learn(raw: raw, key: key, form: .whole) }
        let resident = residentBytes() - before
        let payload = entries * payloadLength

        report("store_growing", entries, filling.mean, "ns")
        report("store_growing_p9999", entries, filling.p9999, "ns")
        report("store_growing_longest", entries, filling.longest, "ns")
        report("overhead_resident", entries, Double(resident - payload) / Double(entries), "B/entry")
        report("overhead_accounted", entries, Double(cache.bytes - payload) / Double(entries), "B/entry")
        report("accounted_of_resident", entries, Double(cache.bytes) / Double(resident) * 100, "%")
        report("hit_by_raw_key", entries, hits(&cache, order.map { raws[$0] }), "ns")
        report("hit_by_key", entries, hits(&cache, byKey: order.map { keys[$0] }), "ns")

        // As full as this by the budget: each further store evicts.
        var full = Cache(maxBytes: cache.bytes, maxEntryBytes: 1 << 20, ttl: .max)
        _ = fill(&full, keys[..<entries], template)
        let evicting = fill(&full, keys[entries...], template)
        report("store_evicting", entries, evicting.mean, "ns")
        report("store_evicting_p9999", entries, evicting.p9999, "ns")
        report("store_evicting_longest", entries, evicting.longest, "ns")
        report("evictions", entries, Double(full.removals.evicted), "")
        report("purge", entries, processorTime { _ = cache.purge() }, "ns")
        var slowestSweep = 0.0
        while cache.unsweptCount > 0 {
            slowestSweep = max(slowestSweep, processorTime { cache.sweep(at: 0, limit: 100) })
        }
        report("sweep_of_100_longest", entries, slowestSweep, "ns")
    }

    private struct Times {
        var mean = 0.0
        var p9999 = 0.0
        var longest = 0.0
    }

    private static func fill(_ cache: inout Cache, _ keys: ArraySlice<Key>, _ template: [UInt8]) -> Times {
        var times: [Double] = []
        times.reserveCapacity(keys.count)
        for key in keys {
            let payload = Bytes(template)
            times.append(
                processorTime { _ = cache.store(key, payload, form: .whole, endpoint: .chat, model: "m", at: 0) })
        }
        times.sort()
        let asking = (0..<1000).map { _ in processorTime {} }.reduce(0, +) / 1000
        return Times(
            mean: times.reduce(0, +) / Double(times.count) - asking,
            p9999: times[min(times.count - 1, times.count * 9999 / 10000)],
            longest: times.last ?? 0)
    }

    private static func hits(_ cache: inout Cache, _ raws: [Key]) -> Double {
        var found = 0
        let time = elapsed { for raw in raws where cache.lookUp(raw: raw, at: 1) != nil { found += 1 } }
        // A few aliases are pushed out of their set by others.
        precondition(found * 100 >= raws.count * 90, "only \(found) hits")
        return time / Double(raws.count)
    }

    private static func hits(_ cache: inout Cache, byKey keys: [Key]) -> Double {
        var found = 0
        let time = elapsed { for key in keys where cache.lookUp(key, at: 1) != nil { found += 1 } }
        precondition(found == keys.count, "only \(found) hits")
        return time / Double(keys.count)
    }

    /// As random as a SHA-256 and much faster to make.
    private static func key(_ number: Int) -> Key {
        var state = UInt64(number) &* 0x9e37_79b9_7f4a_7c15
        let words = (0..<4).map { _ -> UInt64 in
            state &+= 0x9e37_79b9_7f4a_7c15
            var mixed = (state ^ (state >> 30)) &* 0xbf58_476d_1ce4_e5b9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
            return mixed ^ (mixed >> 31)
        }
        return words.withUnsafeBytes { Key(bytes: $0) }
    }

    private static func elapsed(_ work: () -> Void) -> Double {
        let start = nanoseconds()
        work()
        return Double(nanoseconds() - start)
    }

    /// Without the time that other processes had the processor, but with half a microsecond for asking.
    private static func processorTime(_ work: () -> Void) -> Double {
        let start = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
        work()
        return Double(nanoseconds(CLOCK_THREAD_CPUTIME_ID) - start)
    }

    private static func nanoseconds(_ clock: clockid_t = CLOCK_MONOTONIC) -> UInt64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    private static func residentBytes() -> Int {
        guard let file = fopen("/proc/self/statm", "r") else { fatalError("no /proc") }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 128)
        fgets(&line, 128, file)
        let pages = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            .split(separator: " ").dropFirst().first.flatMap { Int($0) }
        return (pages ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
    }

    private static func report(_ name: String, _ entries: Int, _ value: Double, _ unit: String) {
        let rounded = (value * 10).rounded() / 10
        print("\(name)_\(entries)", rounded, unit)
        fflush(nil)
    }
}
