import EventLoop
import Gateway
import Glibc
import HTTPServer

/// What the gateway shows of its process.
@Loop
final class ProcessSurroundings: Surroundings {
    let version = Program.version
    /// Set while there is one. Not weakly: that would make every other reference to it dearer.
    var server: HTTPServer?

    var connections: (open: Int, most: Int) { (server?.openConnections ?? 0, server?.maxConnections ?? 0) }

    func processFacts() async -> ProcessFacts? { await Loop.elsewhere { ProcessSurroundings.readFacts() } }

    /// Source: proc(5), getrusage(2), getrlimit(2).
    private nonisolated static func readFacts() -> ProcessFacts? {
        guard let stat = contents(of: "/proc/self/stat"), let system = contents(of: "/proc/stat") else { return nil }
        // The name of the program, in parentheses, may have anything in it.
        let fields = (stat.lastIndex(of: ")").map { stat[$0...].dropFirst() } ?? "").split(separator: " ")
        guard fields.count > 21, let started = Int(fields[19]) else { return nil }
        let bootTime = system.split(separator: "\n").first { $0.hasPrefix("btime ") }.flatMap { Int($0.dropFirst(6)) }
        let ticks = max(1, sysconf(Int32(_SC_CLK_TCK)))
        var facts = ProcessFacts()
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        facts.cpuMicroseconds = microseconds(usage.ru_utime) + microseconds(usage.ru_stime)
        facts.virtualBytes = Int(fields[20]) ?? 0
        facts.residentBytes = (Int(fields[21]) ?? 0) * sysconf(Int32(_SC_PAGESIZE))
        facts.startMicroseconds = (bootTime ?? 0) * 1_000_000 + started * 1_000_000 / ticks
        facts.openDescriptors = countOfDescriptors()
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        facts.maxDescriptors = Int(clamping: limit.rlim_cur)
        return facts
    }

    private nonisolated static func microseconds(_ time: timeval) -> Int {
        Int(time.tv_sec) * 1_000_000 + Int(time.tv_usec)
    }

    private nonisolated static func countOfDescriptors() -> Int {
        guard let folder = opendir("/proc/self/fd") else { return 0 }
        defer { closedir(folder) }
        var count = 0
        while readdir(folder) != nil { count += 1 }
        // Without `.`, `..`, and the one that is being read.
        return max(0, count - 3)
    }

    private nonisolated static func contents(of path: String) -> String? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var all: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(file, &part, part.count)
            guard count > 0 else { return String(decoding: all, as: UTF8.self) }
            all += part[..<count]
        }
    }
}
