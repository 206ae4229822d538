import EventLoop
import Gateway
import Logging

/// One line for each request that is over.
@Loop
final class AccessLogLines: AccessLog {
    let wants: AccessLogWish
    private let output: LogOutput

    init(output: LogOutput, level: Logger.Level) {
        self.output = output
        wants = level <= .debug ? .all : level <= .info ? .requests : level <= .warning ? .failures : .none
    }

    func record(_ record: AccessRecord) {
        output.write(output.format == .text ? text(record) : json(record), level(of: record))
    }

    private func level(of record: AccessRecord) -> Logger.Level {
        record.isFailure ? .warning : record.isOwn ? .debug : .info
    }

    private func text(_ record: AccessRecord) -> String {
        let time = LogOutput.timestamp(record.start + record.duration)
        var line =
            "\(time) \(level(of: record)) \(record.peer) \(plain(record.method)) \(plain(path(of: record))) \(record.status) \(record.bytes)B"
        line += " \(milliseconds(record.duration))ms"
        if let queue = record.queueWait, queue > 0 { line += " queue=\(milliseconds(queue))ms" }
        if let first = record.firstByte { line += " first=\(milliseconds(first))ms" }
        if let model = record.model { line += " model=\(plain(model))" }
        if let tokens = record.completionTokens { line += " tokens=\(record.promptTokens ?? 0)+\(tokens)" }
        if let backend = record.backend { line += " backend=\(backend)" }
        if record.tries > 1 { line += " tries=\(record.tries)" }
        if let cache = record.cache { line += " cache=\(cache)" }
        if let reason = record.bypass { line += " bypass=\(reason)" }
        if let trace = record.traceID { line += " trace=\(trace)" }
        line += " id=\(record.id)"
        if let error = record.error { line += " error=\(JSONText.quoted(error))" }
        return line
    }

    /// The journal, and others, cut long lines in two.
    private func path(of record: AccessRecord) -> String {
        record.path.utf8.count > 1000 ? String(record.path.unicodeScalars.prefix(1000)) + "…" : record.path
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
        line += #","path":\#(JSONText.quoted(path(of: record))),"status":\#(record.status),"bytes":\#(record.bytes)"#
        line += #","duration_ms":\#(milliseconds(record.duration))"#
        if let queue = record.queueWait { line += #","queue_ms":\#(milliseconds(queue))"# }
        if let first = record.firstByte { line += #","first_byte_ms":\#(milliseconds(first))"# }
        if let model = record.model { line += #","model":\#(JSONText.quoted(model))"# }
        if let tokens = record.completionTokens {
            line += #","prompt_tokens":\#(record.promptTokens ?? 0),"completion_tokens":\#(tokens)"#
        }
        if let backend = record.backend { line += #","backend":\#(JSONText.quoted(backend))"# }
        if record.tries > 0 { line += #","tries":\#(record.tries)"# }
        if let cache = record.cache { line += #","cache":"\#(cache)""# }
        if let reason = record.bypass { line += #","bypass":"\#(reason)""# }
        if let trace = record.traceID { line += #","trace_id":"\#(trace)""# }
        if let error = record.error { line += #","error":\#(JSONText.quoted(error))"# }
        return line + "}"
    }

    /// With three digits behind the point.
    private func milliseconds(_ microseconds: Int64) -> String {
        let digits = String(microseconds.magnitude % 1000)
        return "\(microseconds / 1000).\(String(repeating: "0", count: 3 - digits.count))\(digits)"
    }
}
