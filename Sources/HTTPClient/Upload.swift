import EventLoop
import HTTPCore

/// A body on its way up: bytes come from a stream when they like, libcurl fetches them when it likes.
@Loop
final class Upload {
    enum Piece {
        case bytes(Int)
        /// Nothing now; the producer calls when there is.
        case nothingYet
        case end
        /// The producer broke off: the body must not look complete.
        case broken
    }

    private enum State { case flowing, ended, broken }

    private static let highWater = 256 * 1024

    private let source: ByteStream
    private let hasMore: @Loop () -> Void
    private var waiting = ByteBuffer()
    private var state = State.flowing
    private var holdsBack = false

    /// Takes from `source` at once; `hasMore` is called with each arrival and at the end.
    init(_ source: ByteStream, hasMore: @escaping @Loop () -> Void) {
        self.source = source
        self.hasMore = hasMore
        Loop.task { [self] in
            do {
                try await source.forward { [self] in take($0) }
                state = .ended
            } catch {
                state = .broken
            }
            hasMore()
        }
    }

    private func take(_ chunk: UnsafeRawBufferPointer) -> Flow {
        waiting.append(chunk)
        hasMore()
        holdsBack = waiting.count >= Upload.highWater
        return holdsBack ? .pause : .more
    }

    func read(into room: UnsafeMutableRawBufferPointer) -> Piece {
        if waiting.isEmpty {
            switch state {
            case .flowing: return .nothingYet
            case .ended: return .end
            case .broken: return .broken
            }
        }
        let count = min(room.count, waiting.count)
        room.copyMemory(from: UnsafeRawBufferPointer(rebasing: waiting.unread[..<count]))
        waiting.consume(count)
        if holdsBack && waiting.count < Upload.highWater / 2 {
            holdsBack = false
            // Not from inside libcurl: what comes of it may call libcurl.
            Loop.events.atEndOfTurn { [source] in source.resume() }
        }
        return .bytes(count)
    }

    /// Whether more may come.
    var isFlowing: Bool { state == .flowing }

    /// The server wants no more of it.
    func stop() {
        if state == .flowing { source.cancel() }
    }
}
