import EventLoop
import Gateway
import Glibc
import Logging
import Synchronization

enum LogFormat: String, CaseIterable, Sendable {
    case text, json
}

/// Where log lines go: standard error, whole lines only.
///
/// Lines that the loop writes are gathered and leave at the end of its turn, in one system call for all of them.
/// Other threads write at once.
final class LogOutput: Sendable {
    let format: LogFormat
    private let gathered = Mutex<[UInt8]>([])

    init(format: LogFormat) { self.format = format }

    /// Takes one line without its end.
    func write(_ line: String) {
        let first = gathered.withLock { bytes in
            let isFirst = bytes.isEmpty
            bytes.append(contentsOf: line.utf8)
            bytes.append(0x0a)
            return isFirst
        }
        if !Loop.events.isCurrent {
            flush()
        } else if first {
            Loop.events.atEndOfTurn { [self] in flush() }
        }
    }

    func flush() {
        LogOutput.put(
            gathered.withLock { bytes in
                let all = bytes
                bytes.removeAll(keepingCapacity: true)
                return all
            })
    }

    /// Says one thing before there is a log.
    static func complain(_ text: String) { put(Array((text + "\n").utf8)) }

    private static func put(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            var rest = bytes
            while rest.count > 0 {
                let count = Glibc.write(STDERR_FILENO, rest.baseAddress, rest.count)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { return }
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
        }
    }

    static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
    }

    /// Without anything that could end the line or speak to a terminal.
    static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { isUnprintable($0) }) else { return text }
        return text.unicodeScalars.map { scalar in
            isUnprintable(scalar) ? "\\u{\(String(scalar.value, radix: 16))}" : String(scalar)
        }.joined()
    }

    private static func isUnprintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: true
        default: false
        }
    }

    static func timestamp(_ microseconds: Int64) -> String {
        Timestamp.utc(microseconds, fraction: .milliseconds, zone: "Z")
    }
}

/// swift-log's side of it.
struct LineLogHandler: LogHandler {
    let output: LogOutput
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        let time = LogOutput.timestamp(LogOutput.now())
        switch output.format {
        case .text:
            let extra = all.map { " \($0.key)=\($0.value)" }.joined()
            output.write("\(time) \(event.level) \(LogOutput.printable("\(event.message)\(extra)"))")
        case .json:
            let extra = all.map { ",\(JSONText.quoted($0.key)):\(JSONText.quoted("\($0.value)"))" }.joined()
            output.write(
                #"{"time":"\#(time)","level":"\#(event.level)","message":\#(JSONText.quoted("\(event.message)"))\#(extra)}"#
            )
        }
    }
}

/// One line for each request that is over.
@Loop
final class AccessLogLines: AccessLog {
    let wants: AccessLogWish
    private let output: LogOutput

    init(output: LogOutput, level: Logger.Level) {
        self.output = output
        wants = level <= .info ? .all : level <= .warning ? .failures : .none
    }

    func record(_ record: AccessRecord) {
        output.write(output.format == .text ? text(record) : json(record))
    }

    private func level(of record: AccessRecord) -> Logger.Level { record.isFailure ? .warning : .info }

    private func text(_ record: AccessRecord) -> String {
        let time = LogOutput.timestamp(record.start + record.duration)
        var line =
            "\(time) \(level(of: record)) \(record.peer) \(plain(record.method)) \(plain(record.target)) \(record.status) \(record.bytes)B"
        line += " \(milliseconds(record.duration))ms"
        if let first = record.firstByte { line += " first=\(milliseconds(first))ms" }
        if let backend = record.backend { line += " backend=\(backend)" }
        if record.tries > 1 { line += " tries=\(record.tries)" }
        if let cache = record.cache { line += " cache=\(cache)" }
        line += " id=\(record.id)"
        if let error = record.error { line += " error=\(JSONText.quoted(error))" }
        return line
    }

    /// Without anything that could end the line or speak to a terminal.
    private func plain(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { !(0x21...0x7e).contains($0.value) }) else { return text }
        return text.unicodeScalars.map { scalar in
            (0x21...0x7e).contains(scalar.value) ? String(scalar) : "\\u{\(String(scalar.value, radix: 16))}"
        }.joined()
    }

    private func json(_ record: AccessRecord) -> String {
        let time = LogOutput.timestamp(record.start + record.duration)
        var line =
            #"{"time":"\#(time)","level":"\#(level(of: record))","message":"request","id":\#(JSONText.quoted(record.id))"#
        line += #","client":"\#(record.peer)","method":\#(JSONText.quoted(record.method))"#
        line += #","target":\#(JSONText.quoted(record.target)),"status":\#(record.status),"bytes":\#(record.bytes)"#
        line += #","duration_ms":\#(milliseconds(record.duration))"#
        if let first = record.firstByte { line += #","first_byte_ms":\#(milliseconds(first))"# }
        if let backend = record.backend { line += #","backend":\#(JSONText.quoted(backend))"# }
        if record.tries > 1 { line += #","tries":\#(record.tries)"# }
        if let cache = record.cache { line += #","cache":"\#(cache)""# }
        if let error = record.error { line += #","error":\#(JSONText.quoted(error))"# }
        return line + "}"
    }

    /// With three digits behind the point.
    private func milliseconds(_ microseconds: Int64) -> String {
        let digits = String(microseconds % 1000)
        return "\(microseconds / 1000).\(String(repeating: "0", count: 3 - digits.count))\(digits)"
    }
}

/// What the gateway has to say beside its requests.
@Loop
final class NoticeLines: Notices {
    private let log: Logger

    init(log: Logger) { self.log = log }

    func note(_ level: NoticeLevel, _ message: String) {
        switch level {
        case .notice: log.notice("\(message)")
        case .warning: log.warning("\(message)")
        }
    }
}
