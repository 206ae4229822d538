/// The content of a JSON string, cut into pieces such as a model's tokens are, still escaped: before a space, and
/// where a word is long. No cut separates what belongs together: an escape, a surrogate pair, the bytes of a scalar,
/// a letter and its accents, the parts of an emoji.
struct TextCuts: Sequence, IteratorProtocol {
    /// In bytes: a piece that has grown to this is ended where that can be done.
    static let limit = 16
    /// Pieces at most, or hardly more: each is written with all that stands around it.
    static let piecesAtMost = 4096

    private let text: UnsafeRawBufferPointer
    /// In bytes: a shorter piece is not ended.
    private let least: Int
    private var position = 0

    init(_ text: UnsafeRawBufferPointer) {
        self.text = text
        least = text.count / TextCuts.piecesAtMost
    }

    mutating func next() -> UnsafeRawBufferPointer? {
        let start = position
        guard start < text.count else { return nil }
        var previous = TextUnit(at: start, in: text, behind: nil)
        position = previous.end
        while position < text.count {
            let unit = TextUnit(at: position, in: text, behind: previous)
            let length = position - start
            let wants = length >= least && (unit.isGap && !previous.isGap || length >= TextCuts.limit)
            if wants, !unit.joinsPrevious, !previous.joinsNext { break }
            previous = unit
            position = unit.end
        }
        return text.part(start..<position)
    }

    /// Whether text may be cut at `place`, where one JSON string's content ends and another's begins: not within a
    /// scalar, be it written in UTF-8 or as two escapes.
    static func canCut(_ text: UnsafeRawBufferPointer, at place: Int) -> Bool {
        guard place > 0, place < text.count else { return true }
        if text[place] & 0xc0 == 0x80 { return false }
        return place < 6 || JSONNode.scalar(in: text, at: place - 6).length == 6
    }
}

/// What stands for one scalar: an escape, or its bytes.
private struct TextUnit {
    let end: Int
    /// White space.
    var isGap = false
    var joinsPrevious = false
    var joinsNext = false
    /// Half a flag, whose other half has not come.
    private var isHalfFlag = false

    init(at start: Int, in text: UnsafeRawBufferPointer, behind previous: TextUnit?) {
        let byte = text[start]
        if byte == UInt8(ascii: "\\") {
            let kind = start + 1 < text.count ? text[start + 1] : 0
            guard kind == UInt8(ascii: "u") else {
                end = min(start + 2, text.count)
                isGap = kind == UInt8(ascii: "n") || kind == UInt8(ascii: "t") || kind == UInt8(ascii: "r")
                return
            }
            let (scalar, length) = JSONNode.scalar(in: text, at: start)
            end = min(start + length, text.count)
            place(scalar, behind: previous)
            return
        }
        if byte < 0x80 {
            end = start + 1
            isGap = byte == 0x20
            return
        }
        // Where it is not UTF-8, whatever follows a first byte stays with it.
        var value = UInt32(byte) & (byte < 0xe0 ? 0x1f : byte < 0xf0 ? 0x0f : 0x07)
        var end = start + 1
        while end < text.count, text[end] & 0xc0 == 0x80 {
            value = value << 6 | UInt32(text[end]) & 0x3f
            end += 1
        }
        self.end = end
        place(end - start <= 4 ? Unicode.Scalar(value) ?? "\u{fffd}" : "\u{fffd}", behind: previous)
    }

    /// A small part of the rules for grapheme clusters (Unicode Standard Annex 29): what models do write.
    private mutating func place(_ scalar: Unicode.Scalar, behind previous: TextUnit?) {
        guard scalar.value >= 0x300 else { return }
        let properties = scalar.properties
        joinsNext = scalar == "\u{200d}"
        joinsPrevious =
            joinsNext || properties.isGraphemeExtend || properties.isEmojiModifier
            || properties.generalCategory == .spacingMark
        if (0x1f1e6...0x1f1ff).contains(scalar.value) {
            joinsPrevious = previous?.isHalfFlag ?? false
            isHalfFlag = !joinsPrevious
        }
    }
}
