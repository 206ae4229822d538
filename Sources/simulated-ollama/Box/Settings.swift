/// How a box behaves. Times are in nanoseconds.
struct Settings: Sendable {
    var name = "box"
    /// Tokens in an answer, unless the request wants fewer.
    var tokens = 32
    /// From having a slot to the first token: the time a model takes to read its prompt.
    var firstToken: UInt64 = 50_000_000
    /// Between two tokens; 0 writes them as fast as they are taken.
    var interval: UInt64 = 20_000_000
    /// A cold load of a model.
    var loadTime: UInt64 = 0
    /// Requests that one model works on at a time.
    var parallel = 1
    /// Requests that may wait for a model to be loaded.
    var maxQueue = 512
    /// Models loaded at a time.
    var maxLoaded = 3
    var keepAlive = KeepAlive.nanoseconds(300_000_000_000)
    /// Tokens are times instead of words.
    var stamps = false
    var fault: Fault?

    /// Before the first byte of an answer: a stream has its first token then, a whole answer all of them.
    func delay(stream: Bool, pieces: Int) -> UInt64 {
        stream ? firstToken : firstToken &+ interval &* UInt64(max(pieces - 1, 0))
    }
}

/// Something that goes wrong on purpose.
struct Fault: Sendable {
    enum Kind: String, CaseIterable, Sendable {
        /// An error instead of an answer.
        case status
        /// No answer at all, and the connection stays open.
        case hangHeader = "hang_header"
        /// The answer stops after some chunks, and the connection stays open.
        case hang
        /// The connection is cut after some chunks.
        case cut
        /// An error amid the stream, told the way Ollama does.
        case errorLine = "error_line"
        /// The stream ends after some chunks as if it were complete, but without its last line.
        case silentEnd = "silent_end"
        /// `/api/tags` takes its time.
        case slowTags = "slow_tags"
        /// `/api/tags` answers with something that is not JSON.
        case garbageTags = "garbage_tags"
    }

    var kind: Kind
    /// The beginning of the paths concerned; nil for all that ask a model for something.
    var path: String?
    /// How many more requests it strikes; nil for all.
    var times: Int?
    /// Chunks of an answer that still come through.
    var after = 0
    var status = 500
    var message: String
    var milliseconds = 3000.0

    func concerns(_ path: String, isInference: Bool) -> Bool {
        switch kind {
        case .slowTags, .garbageTags: path == "/api/tags"
        default: self.path.map(path.hasPrefix) ?? isInference
        }
    }

    /// Reads what `--fault` and `POST /control` take. Throws a sentence.
    init(_ value: JSONValue) throws(JSONProblem) {
        guard let object = value.object else { throw JSONProblem("a fault is a JSON object with a \"kind\"") }
        let kinds = Kind.allCases.map(\.rawValue).joined(separator: ", ")
        guard let kind = object["kind"]?.string.flatMap(Kind.init) else {
            throw JSONProblem("the \"kind\" of a fault is one of \(kinds)")
        }
        let fields = Fields(object, as: "fault")
        self.kind = kind
        path = object["path"]?.string
        times = try fields.int("times")
        after = max(try fields.int("after") ?? 0, 0)
        status = try fields.int("status") ?? 500
        guard (400...599).contains(status) else { throw JSONProblem("the \"status\" of a fault is 400 to 599") }
        let usual =
            status == 503
            ? Failure.queueFull.message : "llama-server process has terminated: CUDA error: out of memory"
        message = object["message"]?.string ?? usual
        milliseconds = max(try fields.number("ms") ?? 3000, 0)
    }

    var json: JSONValue {
        var members: [JSONObject.Member] = [("kind", .string(kind.rawValue))]
        if let path { members.append(("path", .string(path))) }
        if let times { members.append(("times", .integer(times))) }
        members += [
            ("after", .integer(after)), ("status", .integer(status)), ("message", .string(message)),
            ("ms", .number(milliseconds.short)),
        ]
        return .object(JSONObject(members: members))
    }
}

extension Double {
    /// Without `.0` behind a whole number.
    var short: String { Int(exactly: self).map(String.init) ?? description }
}
