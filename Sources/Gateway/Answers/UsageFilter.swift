import HTTPCore

/// Takes the usage out of a live `/v1` stream whose client did not ask for it; we did, for the cache.
///
/// The event that is there for the usage only is left out, the `usage` of other events is cut, all else is passed on
/// byte for byte. What has come of an event that is not complete waits. One object serves one stream.
struct UsageFilter: ~Copyable {
    /// In bytes: what an event may have before it is passed on as it is.
    static let maxEvent = 1024 * 1024

    /// The beginning of an event.
    private var pending = ByteBuffer()
    private var end = EventEnd()
    /// Whether the event that goes on is too large to be looked at.
    private var isPassing = false

    init() {}

    /// Takes the next part of the body; `emit` is called with what to pass on, at once and in order.
    mutating func take(_ chunk: UnsafeRawBufferPointer, _ emit: (UnsafeRawBufferPointer) -> Void) {
        /// What has been passed on, what may be, and where the event begins that is being read.
        var passed = 0
        var start = 0
        while let next = end.find(in: chunk, from: start) {
            if isPassing {
                isPassing = false
            } else if pending.isEmpty {
                filter(chunk.part(start..<next)) { kept in
                    if passed < start { emit(chunk.part(passed..<start)) }
                    passed = next
                    kept.forEach(emit)
                }
            } else {
                pending.append(chunk.part(start..<next))
                passed = next
                emitPending(emit)
            }
            start = next
        }
        keep(chunk, passed: passed, start: start, emit)
    }

    /// The body has ended: what waits is passed on as it is.
    mutating func finish(_ emit: (UnsafeRawBufferPointer) -> Void) {
        if !pending.isEmpty { emit(pending.unread) }
        pending = ByteBuffer()
    }

    /// Passes on what is complete, and keeps the beginning of an event from `start` on.
    private mutating func keep(
        _ chunk: UnsafeRawBufferPointer, passed: Int, start: Int, _ emit: (UnsafeRawBufferPointer) -> Void
    ) {
        let rest = chunk.count - start
        if rest > 0, !isPassing, pending.count + rest > UsageFilter.maxEvent {
            isPassing = true
            finish(emit)
        }
        let ready = isPassing ? chunk.count : start
        if passed < ready { emit(chunk.part(passed..<ready)) }
        if ready < chunk.count { pending.append(chunk.part(ready..<chunk.count)) }
    }

    private mutating func emitPending(_ emit: (UnsafeRawBufferPointer) -> Void) {
        var isWhole = true
        filter(pending.unread) { kept in
            isWhole = false
            kept.forEach(emit)
        }
        if isWhole { emit(pending.unread) }
        pending.consume(pending.count)
    }

    /// Calls `change` with what is left of an event, if that is not all of it.
    private func filter(_ event: UnsafeRawBufferPointer, _ change: ([UnsafeRawBufferPointer]) -> Void) {
        guard event.count <= UsageFilter.maxEvent, event.mayTellUsage else { return }
        var events = AnswerEvents(event)
        guard let found = events.next(), !found.isStrange, let data = found.data else { return }
        let json = event.part(data)
        switch try? JSONDocument.read(json, UsageMember.init(in:)) {
        case nil, .absent: return
        case .wholeEvent: change([])
        case .range(let range):
            change([
                event.part(0..<data.lowerBound + range.lowerBound),
                event.part(data.lowerBound + range.upperBound..<event.count),
            ])
        }
    }
}

/// Finds where events end, in a body that comes in parts.
private struct EventEnd {
    /// What the line has had so far.
    private enum Line { case nothing, carriageReturn, something }
    private var line = Line.nothing

    /// Where the first event ends that ends at or behind `start`, its blank line included.
    mutating func find(in chunk: UnsafeRawBufferPointer, from start: Int) -> Int? {
        var position = start
        while position < chunk.count {
            let byte = chunk[position]
            if line == .something {
                guard let end = chunk.lineFeed(from: position) else { return nil }
                position = end + 1
                line = .nothing
                continue
            }
            position += 1
            if byte == UInt8(ascii: "\n") {
                line = .nothing
                return position
            }
            line = byte == UInt8(ascii: "\r") && line == .nothing ? .carriageReturn : .something
        }
        return nil
    }
}

extension UnsafeRawBufferPointer {
    /// Whether `"usage"` stands in it: cheaper than to read it as JSON, and true of few events.
    fileprivate var mayTellUsage: Bool {
        let word: StaticString = "\"usage\""
        let length = word.utf8CodeUnitCount
        guard count >= length else { return false }
        var place = 0
        while place + length <= count {
            if self[place] == UInt8(ascii: "\""), self[place + 1] == UInt8(ascii: "u"),
                part(place..<place + length).equals(word)
            {
                return true
            }
            place += 1
        }
        return false
    }
}
