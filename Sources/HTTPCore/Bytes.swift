import Glibc

/// A block of memory that never changes and never moves: bodies are passed on by reference, to C as well.
public final class Bytes: Sendable {
    // Why nonisolated(unsafe) is safe: the memory is written before `init` ends and freed in `deinit`, never between.
    private nonisolated(unsafe) let memory: UnsafeMutableRawPointer?
    /// In bytes.
    public let count: Int

    public static let empty = Bytes(adopting: nil, count: 0)

    /// Takes over memory that `malloc` or `realloc` returned; it is freed with the last reference.
    init(adopting memory: UnsafeMutableRawPointer?, count: Int) {
        self.memory = memory
        self.count = count
    }

    public convenience init(copying source: UnsafeRawBufferPointer) {
        var buffer = ByteBuffer()
        buffer.append(source)
        let (memory, count) = buffer.release()
        self.init(adopting: memory, count: count)
    }

    public convenience init(_ text: String) {
        var buffer = ByteBuffer()
        buffer.append(text)
        let (memory, count) = buffer.release()
        self.init(adopting: memory, count: count)
    }

    public convenience init(_ array: [UInt8]) {
        var buffer = ByteBuffer()
        array.withUnsafeBytes { buffer.append($0) }
        let (memory, count) = buffer.release()
        self.init(adopting: memory, count: count)
    }

    deinit { free(memory) }

    /// The memory itself: valid for as long as somebody holds on to this object.
    public var buffer: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: memory, count: count) }

    /// The content read as UTF-8, with replacement characters where it is not.
    public var text: String { String(decoding: buffer, as: UTF8.self) }
}

/// A growing block of memory: appended to at the end, consumed from the front, and at last turned into ``Bytes``
/// without a copy.
public struct ByteBuffer: ~Copyable {
    private var memory: UnsafeMutableRawPointer?
    private var capacity = 0
    private var head = 0
    private var tail = 0

    public init() {}

    deinit { free(memory) }

    /// Bytes appended and not yet consumed.
    public var count: Int { tail - head }
    public var isEmpty: Bool { head == tail }

    /// What has not been consumed; valid until the next change.
    public var unread: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: memory.map { UnsafeRawPointer($0) + head }, count: count)
    }

    public mutating func append(_ source: UnsafeRawBufferPointer) {
        guard let start = source.baseAddress, source.count > 0 else { return }
        makeRoom(for: source.count)
        memory.unsafelyUnwrapped.advanced(by: tail).copyMemory(from: start, byteCount: source.count)
        tail += source.count
    }

    public mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    public mutating func append(byte: UInt8) {
        makeRoom(for: 1)
        memory.unsafelyUnwrapped.storeBytes(of: byte, toByteOffset: tail, as: UInt8.self)
        tail += 1
    }

    /// Appends text in ISO-8859-1, as ``Headers`` have it; scalars beyond U+00FF become `?`.
    public mutating func append(latin1 text: String) {
        if text.isPlain { return append(text) }
        let bytes = text.unicodeScalars.map { UInt8(exactly: $0.value) ?? 0x3f }
        bytes.withUnsafeBytes { append($0) }
    }

    /// Drops the first `length` bytes. An emptied buffer gives its memory back when it is large.
    public mutating func consume(_ length: Int) {
        precondition(length <= count)
        head += length
        guard head == tail else { return }
        head = 0
        tail = 0
        if capacity > 16 * 1024 {
            free(memory)
            memory = nil
            capacity = 0
        }
    }

    /// Makes room for this many bytes in all, so that appending them does not reallocate.
    public mutating func reserve(_ total: Int) {
        if total > count { makeRoom(for: total - count) }
    }

    /// Ends the building: the content, without a copy.
    public consuming func finish() -> Bytes {
        let (memory, count) = release()
        return Bytes(adopting: memory, count: count)
    }

    /// Hands the memory (from `malloc`) and its length over; the buffer is empty afterwards.
    mutating func release() -> (UnsafeMutableRawPointer?, Int) {
        if head > 0, let memory { memmove(memory, memory + head, count) }
        // What was reserved and not used goes back; a cache may keep the rest for long.
        if capacity - count > max(64, count / 8), count > 0, let smaller = realloc(memory, count) { memory = smaller }
        let result = (memory, count)
        memory = nil
        (capacity, head, tail) = (0, 0, 0)
        return result
    }

    private mutating func makeRoom(for extra: Int) {
        guard tail + extra > capacity else { return }
        if head > 0, let memory, count + extra <= capacity {
            memmove(memory, memory + head, count)
        } else {
            let wanted = max(count + extra, min(capacity * 2, capacity + 4 * 1024 * 1024), 256)
            if head > 0, let memory { memmove(memory, memory + head, count) }
            guard let grown = realloc(memory, wanted) else { fatalError("out of memory: \(wanted) bytes") }
            memory = grown
            capacity = wanted
        }
        tail -= head
        head = 0
    }
}
