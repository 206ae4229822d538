/// Reads one streamed answer, byte by byte and just as far as a load tool needs: the status, the chunks of
/// `Transfer-Encoding: chunked` (RFC 9112, section 7.1), and in the NDJSON inside them the time stamps and the end.
///
/// Pure decision: what it is fed may be split anywhere, and nothing is allocated or copied.
struct AnswerScanner {
    enum Failure: Error {
        /// An answer other than 200.
        case status
        /// Not a chunked HTTP/1.1 answer.
        case malformed
    }

    private enum Place {
        case statusLine, header, size, sizeRest, data, dataEnd, trailer, end
    }

    private static let key = StaticString(#""response":""#)
    private static let last = StaticString(#""done":true"#)

    private var place = Place.statusLine
    private var status = 0
    /// Bytes of the line read so far; in a chunk's size line, digits.
    private var column = 0
    private var remaining = 0
    private var keyMatched = 0
    private var lastMatched = 0
    private var stamp: UInt64 = 0

    /// The last chunk has been read; what follows would be another answer.
    var ended: Bool { place == .end }
    /// Some of the body has come.
    private(set) var content = false
    /// A line with `"done":true` was among what was read.
    private(set) var done = false

    /// Reads on; `onStamp` is called with each token's time stamp, in nanoseconds.
    mutating func scan(_ bytes: UnsafeRawBufferPointer, onStamp: (UInt64) -> Void) throws(Failure) {
        var index = 0
        while index < bytes.count {
            if place == .data {
                let end = min(bytes.count, index + remaining)
                content = true
                scanContent(UnsafeRawBufferPointer(rebasing: bytes[index..<end]), onStamp)
                remaining -= end - index
                index = end
                if remaining == 0 { place = .dataEnd }
            } else {
                try scanFraming(bytes[index])
                index += 1
            }
        }
    }

    private mutating func scanFraming(_ byte: UInt8) throws(Failure) {
        switch place {
        case .statusLine:
            if column >= 9, column < 12 { status = status * 10 + Int(byte) - 0x30 }
            if try endsLine(byte) { place = .header }
        case .header:
            if try endsLine(byte, ifEmpty: .size), place == .size, status != 200 { throw .status }
        case .size:
            guard let digit = Self.hexDigit(byte) else {
                guard column > 0 else { throw .malformed }
                place = .sizeRest
                return try scanFraming(byte)
            }
            column += 1
            remaining = remaining << 4 | digit
            guard remaining < 1 << 30 else { throw .malformed }
        case .sizeRest:
            if byte == 0x0a {
                column = 0
                place = remaining > 0 ? .data : .trailer
            }
        case .dataEnd:
            guard byte == 0x0d || byte == 0x0a else { throw .malformed }
            if byte == 0x0a { place = .size }
        case .trailer:
            _ = try endsLine(byte, ifEmpty: .end)
        case .data, .end:
            throw .malformed
        }
    }

    /// Counts the bytes of a line; at its end says so, and moves on if nothing was in it.
    private mutating func endsLine(_ byte: UInt8, ifEmpty next: Place? = nil) throws(Failure) -> Bool {
        guard byte == 0x0a else {
            if byte != 0x0d { column += 1 }
            guard column < 16_384 else { throw .malformed }
            return false
        }
        if column == 0, let next { place = next }
        column = 0
        return true
    }

    private mutating func scanContent(_ bytes: UnsafeRawBufferPointer, _ onStamp: (UInt64) -> Void) {
        let key = UnsafeBufferPointer(start: Self.key.utf8Start, count: Self.key.utf8CodeUnitCount)
        let last = UnsafeBufferPointer(start: Self.last.utf8Start, count: Self.last.utf8CodeUnitCount)
        for byte in bytes {
            if keyMatched == key.count {
                let digit = byte &- 0x30
                if digit < 10 {
                    stamp = stamp &* 10 &+ UInt64(digit)
                    continue
                }
                if stamp > 0 { onStamp(stamp) }
                stamp = 0
                keyMatched = 0
            }
            // After a mismatch only a quote can begin a match anew: neither pattern repeats its own beginning.
            keyMatched = byte == key[keyMatched] ? keyMatched + 1 : (byte == 0x22 ? 1 : 0)
            lastMatched = byte == last[lastMatched] ? lastMatched + 1 : (byte == 0x22 ? 1 : 0)
            if lastMatched == last.count {
                done = true
                lastMatched = 0
            }
        }
    }

    private static func hexDigit(_ byte: UInt8) -> Int? {
        switch byte {
        case 0x30...0x39: Int(byte) - 0x30
        case 0x41...0x46: Int(byte) - 0x41 + 10
        case 0x61...0x66: Int(byte) - 0x61 + 10
        default: nil
        }
    }
}
