import Glibc

/// What a run has counted.
struct Results {
    var started = 0
    var neverStarted = 0
    var openAtEnd = 0
    var bytes = 0
    var windowNanoseconds: UInt64 = 0
    var lateness = Histogram()

    private var complete = 0
    private var incomplete = 0
    private var connect = 0
    private var cut = 0
    private var status = 0
    private var malformed = 0

    mutating func count(_ reason: LoadStream.End) {
        switch reason {
        case .complete: complete += 1
        case .incomplete: incomplete += 1
        case .connect: connect += 1
        case .cut: cut += 1
        case .status: status += 1
        case .malformed: malformed += 1
        }
    }

    /// One line of JSON. Chunks, bytes and lateness are those of the window; all else is of the whole run.
    func json(asked: Int) -> String {
        let errors = incomplete + connect + cut + status + malformed
        return """
            {"streams":\(asked),"started":\(started),"open_at_end":\(openAtEnd),"complete":\(complete),\
            "errors":\(errors),"error_kinds":{"incomplete":\(incomplete),"connect":\(connect),"cut":\(cut),\
            "status":\(status),"malformed":\(malformed)},"window_ms":\(windowNanoseconds / 1_000_000),\
            "chunks":\(lateness.count),"bytes":\(bytes),"lateness_us":{"p50":\(microseconds(0.5)),\
            "p90":\(microseconds(0.9)),"p99":\(microseconds(0.99)),"max":\(lateness.largest / 1000)},\
            "own_cpu_ms":\(Self.cpuMilliseconds)}
            """
    }

    private func microseconds(_ share: Double) -> UInt64 { lateness.quantile(share) / 1000 }

    private static var cpuMilliseconds: Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000
            + Int(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000
    }
}
