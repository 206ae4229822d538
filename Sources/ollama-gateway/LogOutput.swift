import Dispatch
import EventLoop
import Gateway
import Glibc
import Logging
import Synchronization

enum LogFormat: String, CaseIterable, Sendable {
    case text, json
}

/// Where log lines go: standard error, whole lines only. Where that is systemd's journal, each begins with its level.
///
/// Lines that the loop writes are gathered until the end of its turn, and a thread of their own writes them: whoever
/// does not read standard error holds up no request. What it does not read in time is dropped, and that is told.
///
/// Source: sd-daemon(3) for the levels, systemd.exec(5) for `JOURNAL_STREAM`.
final class LogOutput: Sendable {
    private struct Waiting {
        var bytes: [UInt8] = []
        /// Lines for which there was no room.
        var dropped = 0
        var isBeingWritten = false
    }

    let format: LogFormat
    private let isJournal: Bool
    private let waiting = Mutex(Waiting())
    private let writer = DispatchQueue(label: "log")

    /// Bytes that wait to be written.
    private static let waitingAtMost = 4 << 20

    init(format: LogFormat) {
        self.format = format
        isJournal = LogOutput.errorsGoTo(journal: getenv("JOURNAL_STREAM").map { String(cString: $0) })
    }

    /// - Parameter journal: device and inode of the journal's stream.
    private static func errorsGoTo(journal: String?) -> Bool {
        var file = stat()
        guard let journal, fstat(STDERR_FILENO, &file) == 0 else { return false }
        return journal == "\(file.st_dev):\(file.st_ino)"
    }

    private static func prefix(_ level: Logger.Level) -> String {
        switch level {
        case .critical: "<2>"
        case .error: "<3>"
        case .warning: "<4>"
        case .notice: "<5>"
        case .info: "<6>"
        case .debug, .trace: "<7>"
        }
    }

    /// Takes one line without its end.
    func write(_ line: String, _ level: Logger.Level) {
        let isFirst = waiting.withLock { waiting in
            guard waiting.bytes.count + line.utf8.count < LogOutput.waitingAtMost else {
                waiting.dropped += 1
                return false
            }
            if isJournal { waiting.bytes.append(contentsOf: LogOutput.prefix(level).utf8) }
            waiting.bytes.append(contentsOf: line.utf8)
            waiting.bytes.append(0x0a)
            defer { waiting.isBeingWritten = true }
            return !waiting.isBeingWritten
        }
        guard isFirst else { return }
        if Loop.events.isCurrent {
            Loop.events.atEndOfTurn { [self] in startWriting() }
        } else {
            startWriting()
        }
    }

    /// Nonisolated: Dispatch runs it on a thread of its own.
    private nonisolated func startWriting() {
        writer.async { [self] in
            while let bytes = next() { LogOutput.put(bytes) }
        }
    }

    private nonisolated func next() -> [UInt8]? {
        waiting.withLock { waiting in
            guard !waiting.bytes.isEmpty || waiting.dropped > 0 else {
                waiting.isBeingWritten = false
                return nil
            }
            var bytes = waiting.bytes
            if waiting.dropped > 0 {
                let words = "log lines dropped, as nobody reads them: \(waiting.dropped)"
                bytes += Array((isJournal ? LogOutput.prefix(.warning) : "").utf8) + Array((line(words) + "\n").utf8)
            }
            waiting.bytes.removeAll(keepingCapacity: bytes.count <= 65_536)
            waiting.dropped = 0
            return bytes
        }
    }

    private nonisolated func line(_ words: String) -> String {
        let time = LogOutput.timestamp(LogOutput.now())
        return format == .text
            ? "\(time) warning \(words)" : #"{"time":"\#(time)","level":"warning","message":"\#(words)"}"#
    }

    /// Waits until all is written, for a second at most.
    func flush() {
        let written = DispatchSemaphore(value: 0)
        startWriting()
        writer.async { written.signal() }
        _ = written.wait(timeout: .now() + 1)
    }

    /// Says one thing before there is a log.
    static func complain(_ text: String) { put(Array((text + "\n").utf8)) }

    private static func put(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            var rest = bytes
            while rest.count > 0 {
                let count = Glibc.write(STDERR_FILENO, rest.baseAddress, rest.count)
                if count < 0 && errno == EINTR { continue }
                if count < 0 && errno == EAGAIN {
                    // Somebody else has made it so.
                    var descriptor = pollfd(fd: STDERR_FILENO, events: Int16(POLLOUT), revents: 0)
                    _ = poll(&descriptor, 1, 1000)
                    continue
                }
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
            output.write("\(time) \(event.level) \(LogOutput.printable("\(event.message)\(extra)"))", event.level)
        case .json:
            let extra = all.map { ",\(JSONText.quoted($0.key)):\(JSONText.quoted("\($0.value)"))" }.joined()
            output.write(
                #"{"time":"\#(time)","level":"\#(event.level)","message":\#(JSONText.quoted("\(event.message)"))\#(extra)}"#,
                event.level)
        }
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
