import HTTPCore

/// What one line of a box's answer to `/api/pull` says. Source: Ollama, `api/types.go`, `ProgressResponse`.
enum PullLine: Equatable {
    case layer(Layer)
    /// What the box is about to do, where that is not the coming of one layer.
    case stage(String)
    case success
    /// Nothing will come of it, and why: in the box's words, or in ours if it is not an answer.
    case failure(String)
    /// No news for a client.
    case nothing

    /// How far a layer has come.
    struct Layer: Equatable {
        /// `pulling` and twelve digits, as Ollama writes it.
        let status: String
        let digest: String
        /// In bytes, 0 where the box does not say.
        let total: Int
        let completed: Int
    }

    /// In bytes: a status or digest that is longer is no news. Ollama's have at most 71.
    static let maxText = 512
    /// In Unicode scalars: what is kept of the reason for a failure.
    static let maxReason = 1024

    /// Reads a line, which need not be ended; nil if it is not a JSON object.
    init?(_ line: UnsafeRawBufferPointer) {
        if line.isBlank {
            self = .nothing
            return
        }
        let said = try? JSONDocument.read(line, maxValues: 1000) { root in
            root.kind == .object ? PullLine(root) : nil
        }
        guard let said else { return nil }
        self = said
    }

    private init(_ root: JSONNode) {
        // An empty error is none, to Go's client and to Python's.
        if let error = root["error"], error.kind != .null, !error.isEmptyString {
            self = .failure(error.string ?? String(decoding: error.raw, as: UTF8.self))
            return
        }
        guard let status = root["status"]?.pullText else {
            self = .nothing
            return
        }
        guard let digest = root["digest"], digest.kind != .null, !digest.isEmptyString else {
            self = status == "success" ? .success : .stage(status)
            return
        }
        let layer = digest.pullText.map { digest in
            Layer(
                status: status, digest: digest, total: root["total"]?.byteCount ?? 0,
                completed: root["completed"]?.byteCount ?? 0)
        }
        self = layer.map(PullLine.layer) ?? .nothing
    }
}

extension PullLine.Layer {
    /// The same layer with other numbers. Those that are 0 are left out, as Ollama does.
    func write(total: Int, completed: Int, to lines: inout ByteBuffer) {
        lines.append(#"{"status":\#(JSONText.quoted(status)),"digest":\#(JSONText.quoted(digest))"#)
        if total > 0 { lines.append(#","total":\#(total)"#) }
        if completed > 0 { lines.append(#","completed":\#(completed)"#) }
        lines.append("}\n")
    }
}

/// The stages behind the layers, in an order in which every box may have come to them.
struct PullStages {
    /// Those whose order is known. A box may leave some out, and know others.
    static let known = ["verifying sha256 digest", "writing manifest", "removing unused layers"]
    /// More than these are not remembered.
    static let maxCount = 100

    private var texts: [String] = []
    /// How many of them the client has been told: always the first ones.
    private var told = 0

    /// Where a stage stands that a box has come to after the first `passed` ones. A new one is put in there, and
    /// those behind it move up by one; nil if it is not remembered.
    mutating func place(_ text: String, after passed: Int) -> (index: Int, isNew: Bool)? {
        if let index = texts.firstIndex(of: text) { return (index, false) }
        let rank = PullStages.known.firstIndex(of: text)
        let lowest = rank.flatMap { rank in texts.lastIndex { self.rank($0) ?? rank < rank } }.map { $0 + 1 } ?? 0
        let highest = rank.flatMap { rank in texts.firstIndex { self.rank($0) ?? rank > rank } } ?? texts.count
        let index = min(max(lowest, passed), highest)
        guard texts.count < PullStages.maxCount, index >= told else { return nil }
        texts.insert(text, at: index)
        return (index, true)
    }

    /// Tells the client of those among the first `reached` that it has not been told.
    mutating func tell(upTo reached: Int, to lines: inout ByteBuffer) {
        while told < min(reached, texts.count) {
            lines.appendStatus(texts[told])
            told += 1
        }
    }

    private func rank(_ text: String) -> Int? { PullStages.known.firstIndex(of: text) }
}

extension ByteBuffer {
    mutating func appendStatus(_ text: String) { append(#"{"status":\#(JSONText.quoted(text))}"# + "\n") }
}

extension JSONNode {
    /// A string that is not too long to be kept.
    fileprivate var pullText: String? { escaped.count <= PullLine.maxText ? string : nil }

    /// A number of bytes; nil for what is none.
    fileprivate var byteCount: Int? { double.flatMap { Int(exactly: $0) }.map { max(0, $0) } }
}
