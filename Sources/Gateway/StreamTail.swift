import HTTPCore

/// How a stream that breaks off is ended so that its reader learns of it: with an error in the stream's own form,
/// on a line of its own.
struct StreamTail {
    private enum Form { case lines, events }

    private let form: Form?
    private let path: String
    private var last: (UInt8, UInt8) = (0x0a, 0x0a)

    init(contentType: String?, path: String) {
        let type = (contentType ?? "").prefix { $0 != ";" && $0 != " " && $0 != "\t" }.lowercased()
        form =
            type == "application/x-ndjson" ? .lines : type == "text/event-stream" ? .events : nil
        self.path = path
    }

    /// Remembers how far the last line has got.
    mutating func note(_ chunk: UnsafeRawBufferPointer) {
        guard let end = chunk.last else { return }
        last = (chunk.count > 1 ? chunk[chunk.count - 2] : last.1, end)
    }

    /// What to write before breaking off; nil if the body is of a kind that cannot say.
    func error(_ failure: Failure, id: String) -> String? {
        let dialect = Dialect(path: path)
        let body = dialect.body(status: failure.status, message: failure.message, id: id)
        switch form {
        case .lines:
            return (last.1 == 0x0a ? "" : "\n") + body + "\n"
        case .events:
            let gap = last.1 != 0x0a ? "\n\n" : last.0 != 0x0a ? "\n" : ""
            return gap + (dialect == .anthropic ? "event: error\n" : "") + "data: \(body)\n\n"
        case nil:
            return nil
        }
    }
}
