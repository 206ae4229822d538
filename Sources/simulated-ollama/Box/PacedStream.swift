import EventLoop
import HTTPCore

/// Where the chunks of a streamed answer come from.
@Loop
protocol ChunkSource: AnyObject {
    /// Chunks before the end.
    var count: Int { get }
    func chunk(_ index: Int, to lines: inout Lines)
    /// What comes after the last of them.
    func end(to lines: inout Lines)
    /// What comes instead if something breaks.
    func breakOff(_ message: String, to lines: inout Lines)
}

/// Writes a streamed answer at its pace, one HTTP chunk for each line.
///
/// A chunk is due a fixed time after the one before was due, so that lateness does not add up. Driven by timers and
/// callbacks rather than by awaiting each chunk: a box serves thousands of streams.
@Loop
final class PacedStream {
    private let source: any ChunkSource
    private let writer: any ResponseWriter
    private let interval: UInt64
    private let fault: Fault?

    private var sent = 0
    private var due: UInt64
    private var lines = Lines()
    /// Lines already written.
    private var written = 0
    private var isFull = false
    private var hasEnded = false
    private var timer: Timer?
    private var signal: Signal?

    init(_ source: any ChunkSource, to writer: any ResponseWriter, interval: UInt64, fault: Fault?) {
        self.source = source
        self.writer = writer
        self.interval = interval
        self.fault = fault
        due = Loop.events.now
    }

    /// Returns when all is written; throws ``ClientLeft`` or `CancellationError` when nobody wants it any more.
    func play() async throws {
        defer {
            if let timer { Loop.events.cancel(timer) }
            writer.onDrain = nil
        }
        writer.onDrain = { [weak self] in self?.drained() }
        try await Signal.wait { signal in
            self.signal = signal
            advance()
        }
    }

    /// Written at most in one turn of the loop, so that a fast reader of a long answer does not starve the others.
    private static let burst = 128

    /// Writes what is due.
    private func advance() {
        let limit = sent + PacedStream.burst
        while flush() {
            if hasEnded { return finish() }
            if let fault, sent == min(fault.after, source.count) {
                guard strike(fault) else { return }
            } else if sent == source.count {
                source.end(to: &lines)
                hasEnded = true
            } else if due > Loop.events.now || sent == limit {
                return wait()
            } else {
                source.chunk(sent, to: &lines)
                sent += 1
                due &+= interval
            }
        }
    }

    /// False if nothing more is to be written, for now or for ever.
    private func strike(_ fault: Fault) -> Bool {
        switch fault.kind {
        case .cut:
            writer.abort()
            signal?.fire()
            return false
        case .errorLine:
            source.breakOff(fault.message, to: &lines)
            hasEnded = true
            return true
        case .silentEnd:
            hasEnded = true
            return true
        default:
            return false
        }
    }

    /// Goes on when the next chunk is due, but not in this turn: a timer that is due at once would be.
    private func wait() {
        let delay = max(due, Loop.events.now + 1) - Loop.events.now
        timer = Loop.events.schedule(after: .nanoseconds(Int64(clamping: delay))) { [weak self] in
            self?.timer = nil
            self?.advance()
        }
    }

    /// False if the client takes no more now, or has left.
    private func flush() -> Bool {
        guard !isFull else { return false }
        while written < lines.ends.count {
            let start = written == 0 ? 0 : lines.ends[written - 1]
            let end = lines.ends[written]
            written += 1
            switch lines.bytes.withUnsafeBytes({ writer.write(UnsafeRawBufferPointer(rebasing: $0[start..<end])) }) {
            case .more: continue
            case .pause:
                isFull = true
                return false
            case .stop:
                signal?.fire(ClientLeft())
                return false
            }
        }
        lines.clear()
        written = 0
        return true
    }

    /// A reader that stalls slows the box down; the time is not made up for.
    private func drained() {
        guard isFull else { return }
        isFull = false
        due = max(due, Loop.events.now)
        advance()
    }

    private func finish() {
        writer.finish()
        signal?.fire()
    }
}
