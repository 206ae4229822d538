/// The lines of a text, one after the other; the last one need not be ended.
struct AnswerLines: Sequence, IteratorProtocol {
    private let text: UnsafeRawBufferPointer
    /// Behind the line that was returned last, its end included.
    private(set) var position: Int

    init(_ text: UnsafeRawBufferPointer, from position: Int = 0) {
        self.text = text
        self.position = position
    }

    /// Where the next line stands, without LF or CRLF.
    mutating func next() -> Range<Int>? {
        guard position < text.count else { return nil }
        let start = position
        guard let end = text.lineFeed(from: start) else {
            position = text.count
            return start..<position
        }
        position = end + 1
        return start..<(end > start && text[end - 1] == UInt8(ascii: "\r") ? end - 1 : end)
    }
}

/// One event of a stream. Source: the HTML standard, section 9.2.
struct AnswerEvent {
    /// All of it, from its first line up to and with the blank one.
    var range: Range<Int>
    /// What its `data` field says.
    var data: Range<Int>?
    /// Whether the blank line was there; a reader ignores an event that has none.
    var isComplete = false
    /// Whether it is named `error`.
    var isError = false
    /// Whether it has what Ollama never writes and we do not put together: data on several lines, unknown fields.
    var isStrange = false

    /// Whether it says that no more will follow.
    func isLast(in text: UnsafeRawBufferPointer) -> Bool {
        data.map { text.part($0).equals("[DONE]") } ?? false
    }
}

/// The events of a text, comments and blank lines included: together they are all of it.
struct AnswerEvents: Sequence, IteratorProtocol {
    private let text: UnsafeRawBufferPointer
    private var lines: AnswerLines

    init(_ text: UnsafeRawBufferPointer) {
        self.text = text
        lines = AnswerLines(text)
    }

    mutating func next() -> AnswerEvent? {
        let start = lines.position
        guard start < text.count else { return nil }
        var event = AnswerEvent(range: start..<start)
        while let line = lines.next() {
            if line.isEmpty {
                event.isComplete = true
                break
            }
            read(line, into: &event)
        }
        event.range = start..<lines.position
        return event
    }

    private func read(_ line: Range<Int>, into event: inout AnswerEvent) {
        let content = text.part(line)
        guard content[0] != UInt8(ascii: ":") else { return }
        let colon = content.firstIndex(of: UInt8(ascii: ":")) ?? content.count
        var value = colon < content.count ? colon + 1 : colon
        if value < content.count, content[value] == 0x20 { value += 1 }
        let name = content.part(0..<colon)
        if name.equals("data") {
            event.isStrange = event.isStrange || event.data != nil
            event.data = line.lowerBound + value..<line.upperBound
        } else if name.equals("event") {
            event.isError = content.part(value..<content.count).equals("error")
        } else if !name.equals("id") && !name.equals("retry") {
            event.isStrange = true
        }
    }
}

extension UnsafeRawBufferPointer {
    /// A part of it, counted from zero.
    func part(_ range: Range<Int>) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: self[range]) }

    func equals(_ other: StaticString) -> Bool {
        guard count == other.utf8CodeUnitCount else { return false }
        for index in 0..<count where self[index] != other.utf8Start[index] { return false }
        return true
    }

    /// Whether `other` stands at `place`.
    func holds(_ other: UnsafeRawBufferPointer, at place: Int) -> Bool {
        guard other.count <= count - place else { return false }
        return part(place..<place + other.count).elementsEqual(other)
    }

    /// Whether there is nothing but white space, as JSON knows it.
    var isBlank: Bool { allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0d || $0 == 0x0a } }

    /// Where the first line feed from `start` on is. It looks at eight bytes at a time.
    func lineFeed(from start: Int) -> Int? {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let highs: UInt64 = 0x8080_8080_8080_8080
        var position = start
        while position + 8 <= count {
            let word = loadUnaligned(fromByteOffset: position, as: UInt64.self) ^ (ones &* 0x0a)
            if (word &- ones) & ~word & highs != 0 { break }
            position += 8
        }
        while position < count {
            if self[position] == 0x0a { return position }
            position += 1
        }
        return nil
    }
}
