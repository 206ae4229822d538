import HTTPCore

/// Makes one answer to `/api/pull` of the answers of several boxes: the lines that a single Ollama would write, the
/// last of which is `success` only if all boxes have succeeded.
///
/// A layer has come as far as on the box that is last with it, and a stage has begun when the last box has come to
/// it. A box that fails holds up nobody; at the end the client is told of it, in the box's words.
///
///     var merge = PullMerge(backends: ["one:11434", "two:11434"])
///     client.write(merge.take(chunk, from: 0))            // for every part of a body, as it comes
///     client.write(merge.ended(0, failure: nil))          // for every body, or in its place
///     if merge.isOver { client.finish() }
///
/// It decides and does nothing. Its memory is bounded, whatever the boxes send.
struct PullMerge {
    enum Outcome: Equatable {
        case success
        /// Which boxes have failed, and why: the text of the `error`.
        case failed(String)
    }

    /// In bytes: a box with a longer line has failed.
    static let maxLine = 1024 * 1024
    /// Layers beyond these are not told of.
    static let maxLayers = 1000

    private var boxes: [PullBox]
    private var layers: [PullLayer] = []
    private var places: [String: Int] = [:]
    /// Told by a box before its first layer, and to the client at once, if that was before the first layer of all.
    private var early: [String] = []
    private var stages = PullStages()

    /// - Parameter backends: what they are called, in the order in which they are numbered. At least one.
    init(backends: [String]) {
        precondition(!backends.isEmpty)
        boxes = backends.map(PullBox.init)
    }

    /// Takes the next part of a box's body, cut anywhere, and returns the lines that the client is to have now, perhaps
    /// none. The last line is among them if this box was the last one and has said how it ended.
    mutating func take(_ chunk: UnsafeRawBufferPointer, from index: Int) -> ByteBuffer {
        var lines = ByteBuffer()
        var start = 0
        while boxes[index].isPulling, let end = chunk.lineFeed(from: start) {
            heed(boxes[index].line(endingWith: chunk.part(start..<end)), of: index, to: &lines)
            start = end + 1
        }
        if boxes[index].isPulling, let failure = boxes[index].keep(chunk.part(start..<chunk.count)) {
            heed(failure, of: index, to: &lines)
        }
        return lines
    }

    /// A box's body has ended, or there was none. It does no harm to say so of a box that has said how it ended.
    ///
    /// - Parameter failure: why it broke off, or why there was none, without the box's name; nil if it ended as it
    ///   should, which is still a failure if it did not say `success`.
    /// - Returns: the lines that the client is to have now; the last one is among them if this box was the last one.
    mutating func ended(_ index: Int, failure: String?) -> ByteBuffer {
        var lines = ByteBuffer()
        if boxes[index].isPulling, failure == nil { heed(boxes[index].unendedLine, of: index, to: &lines) }
        if boxes[index].isPulling {
            heed(.failure(failure ?? "the stream ended without success"), of: index, to: &lines)
        }
        return lines
    }

    /// Whether the last line has been returned.
    var isOver: Bool { !boxes.contains(where: \.isPulling) }

    /// Whether a box is out, by its own word or because it made no sense.
    func hasFailed(_ index: Int) -> Bool { !boxes[index].isInPlay }

    /// How it ended; nil before that.
    var outcome: Outcome? {
        guard isOver else { return nil }
        return boxes.allSatisfy(\.isInPlay) ? .success : .failed(reasons)
    }

    // MARK: What a box says

    private mutating func heed(_ line: PullLine, of index: Int, to lines: inout ByteBuffer) {
        switch line {
        case .layer(let layer): heed(layer, of: index, to: &lines)
        case .stage(let text): heed(stage: text, of: index, to: &lines)
        case .success: end(index, .succeeded, to: &lines)
        case .failure(let reason): end(index, .failed(reason.clipped(to: PullLine.maxReason)), to: &lines)
        case .nothing: break
        }
    }

    private mutating func heed(_ layer: PullLine.Layer, of index: Int, to lines: inout ByteBuffer) {
        boxes[index].hasLayers = true
        guard !boxes[index].isPastLayers, let place = place(of: layer) else { return }
        layers[place].total = max(layers[place].total, layer.total)
        layers[place].completed[index] = layer.completed
        layers[place].tell(boxes, to: &lines)
    }

    private mutating func place(of layer: PullLine.Layer) -> Int? {
        if let place = places[layer.digest] { return place }
        guard layers.count < PullMerge.maxLayers else { return nil }
        places[layer.digest] = layers.count
        layers.append(PullLayer(first: layer, completed: Array(repeating: 0, count: boxes.count)))
        return layers.count - 1
    }

    private mutating func heed(stage text: String, of index: Int, to lines: inout ByteBuffer) {
        if boxes[index].isEarly(text) { return heed(early: text, to: &lines) }
        guard text != PullBox.firstStage else { return }
        let before = boxes[index]
        boxes[index].isPastLayers = true
        if !early.contains(text), let (place, isNew) = stages.place(text, after: before.passed) {
            if isNew {
                for box in boxes.indices where boxes[box].passed > place { boxes[box].passed += 1 }
            }
            boxes[index].passed = max(boxes[index].passed, place + 1)
        }
        if boxes[index].passed != before.passed || !before.isPastLayers { tell(to: &lines) }
    }

    private mutating func heed(early text: String, to lines: inout ByteBuffer) {
        guard layers.isEmpty, early.count < PullStages.maxCount, !early.contains(text) else { return }
        early.append(text)
        lines.appendStatus(text)
    }

    private mutating func end(_ index: Int, _ state: PullBox.State, to lines: inout ByteBuffer) {
        boxes[index].end(state)
        // Nobody is to see full bars only because nobody is left to fill them.
        if boxes.contains(where: \.isInPlay) { tell(to: &lines) }
        switch outcome {
        case .success: lines.appendStatus("success")
        case .failed(let reasons): lines.append(#"{"error":\#(JSONText.quoted(reasons))}"# + "\n")
        case nil: break
        }
    }

    /// Tells the client what has changed now that a box has left its layers, come to a stage, or ended.
    private mutating func tell(to lines: inout ByteBuffer) {
        for place in layers.indices { layers[place].tell(boxes, to: &lines) }
        let reached = boxes.lazy.filter(\.isInPlay).map { $0.isPulling ? $0.passed : .max }.min()
        stages.tell(upTo: reached ?? 0, to: &lines)
    }

    // MARK: What the client is told of failures

    private var reasons: String {
        var reasons: [(words: String, names: [String])] = []
        for box in boxes {
            guard let words = box.reason else { continue }
            if let place = reasons.firstIndex(where: { $0.words == words }) {
                reasons[place].names.append(box.name)
            } else {
                reasons.append((words, [box.name]))
            }
        }
        let places = reasons.map { "\($0.names.joined(separator: ", ")): \($0.words)" }
        let succeeded = boxes.filter(\.isInPlay).map(\.name).joined(separator: ", ")
        if !succeeded.isEmpty {
            return "pull failed on \(places.joined(separator: "; on ")); it succeeded on \(succeeded)"
        }
        guard reasons.count == 1 else { return places.joined(separator: "; ") }
        return boxes.count == 1
            ? reasons[0].words : "\(reasons[0].words) (on \(reasons[0].names.joined(separator: ", ")))"
    }
}

/// How far a box has come.
private struct PullBox {
    enum State: Equatable { case pulling, succeeded, failed(String) }

    /// What each box says before anything else.
    static let firstStage = "pulling manifest"

    let name: String
    private(set) var state = State.pulling
    var hasLayers = false
    /// Whether all layers are there, since the box has gone on to what comes behind them.
    var isPastLayers = false
    /// How many of the stages it has come to, or left out.
    var passed = 0
    /// The beginning of a line.
    private var rest: [UInt8] = []

    init(name: String) { self.name = name }

    var isPulling: Bool { state == .pulling }
    /// Why it failed; nil if it has not.
    var reason: String? { if case .failed(let words) = state { words } else { nil } }
    var isInPlay: Bool { reason == nil }

    mutating func end(_ state: State) {
        self.state = state
        isPastLayers = isInPlay
        rest = []
    }

    /// Whether a stage comes before the layers: the first one, and what we do not know if the box has none yet.
    func isEarly(_ stage: String) -> Bool {
        if hasLayers || isPastLayers { return false }
        return !PullStages.known.contains(stage)
    }

    /// A line has come to its end.
    mutating func line(endingWith part: UnsafeRawBufferPointer) -> PullLine {
        if let failure = tooLong(with: part) { return failure }
        let start = rest
        rest = []
        let line = start.isEmpty ? PullLine(part) : (start + part).withUnsafeBytes { PullLine($0) }
        return line ?? .failure("a line of its answer is not a JSON object")
    }

    /// Keeps the beginning of a line, or what follows it; returns a failure if that is too long.
    mutating func keep(_ part: UnsafeRawBufferPointer) -> PullLine? {
        if let failure = tooLong(with: part) { return failure }
        rest.append(contentsOf: part)
        return nil
    }

    private func tooLong(with part: UnsafeRawBufferPointer) -> PullLine? {
        rest.count + part.count <= PullMerge.maxLine ? nil : .failure("a line of its answer is longer than 1 MiB")
    }

    /// What stands behind the last line's end. Where a line was cut, there is nothing.
    var unendedLine: PullLine { rest.withUnsafeBytes { PullLine($0) } ?? .nothing }
}

/// How far a layer has come everywhere.
private struct PullLayer {
    /// As the first box has told of it.
    let first: PullLine.Layer
    /// In bytes, the most that a box has said.
    var total = 0
    /// In bytes, by box; 0 where it has not told of the layer.
    var completed: [Int]
    private var told: (total: Int, completed: Int)?

    init(first: PullLine.Layer, completed: [Int]) {
        self.first = first
        self.completed = completed
    }

    /// Tells the client of it, if that is news. What has been told is never taken back, whatever a box does.
    mutating func tell(_ boxes: [PullBox], to lines: inout ByteBuffer) {
        var least = total
        for (box, completed) in zip(boxes, completed) where box.isInPlay && !box.isPastLayers {
            least = min(least, completed)
        }
        let news = (total: total, completed: max(least, told?.completed ?? 0))
        if let told, told == news { return }
        told = news
        first.write(total: news.total, completed: news.completed, to: &lines)
    }
}

extension String {
    fileprivate func clipped(to count: Int) -> String {
        let kept = unicodeScalars.prefix(count)
        return kept.endIndex == unicodeScalars.endIndex ? self : String(kept) + "…"
    }
}
