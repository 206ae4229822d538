/// What a model's answer says of the work it was: it stands at the answer's end, whatever its form.
///
/// Source: Ollama's `api/types.go`, `Metrics` (nanoseconds); OpenAI's and Anthropic's `usage`.
struct AnswerUsage: Equatable, Sendable {
    var prompt = 0
    var completion = 0
    /// Nanoseconds that writing the completion took, and that the model took to be loaded; 0 if it does not say.
    var writing = 0
    var loading = 0

    /// Bytes from the end in which it is looked for, first and if it is not there.
    static let tail = 512
    private static let farTail = 64 * 1024

    init() {}

    /// Whether the answer says nothing of it.
    var isEmpty: Bool { self == AnswerUsage() }

    /// - Parameter answer: all of it, or at least its end.
    init(endOf answer: UnsafeRawBufferPointer) {
        read(answer.suffix(AnswerUsage.tail))
        // Ollama puts tool calls and logprobs behind it.
        if isEmpty, answer.count > AnswerUsage.tail { read(answer.suffix(AnswerUsage.farTail)) }
    }

    private mutating func read(_ part: Slice<UnsafeRawBufferPointer>) {
        let end = UnsafeRawBufferPointer(rebasing: part)
        var before: UInt8 = 0
        var place = 0
        var hasBegun = false
        while place < end.count {
            let byte = end[place]
            place += 1
            // One within a text has a backslash before it, so that no text reads like one of these.
            if byte == UInt8(ascii: "\""), before != UInt8(ascii: "\\") {
                let member = UnsafeRawBufferPointer(rebasing: end[place...])
                if AnswerUsage.begins(member) {
                    (self, hasBegun) = (AnswerUsage(), true)
                } else if hasBegun {
                    read(member: member)
                }
            }
            before = byte
        }
    }

    /// Whether the numbers follow; a tool's arguments may have members of the same names before them.
    private static func begins(_ member: UnsafeRawBufferPointer) -> Bool {
        if starts(member, with: "total_duration\":") { return true }
        return value(of: "done\":", in: member)?.first == UInt8(ascii: "t")
            || value(of: "usage\":", in: member)?.first == UInt8(ascii: "{")
    }

    private mutating func read(member: UnsafeRawBufferPointer) {
        func number(_ name: StaticString) -> Int? {
            AnswerUsage.value(of: name, in: member).map(AnswerUsage.number)
        }
        func take(_ value: inout Int, _ most: Int, _ found: Int?) {
            // The first behind where they begin: what follows may be a tool's.
            if let found, value == 0 { value = min(found, most) }
        }
        let (tokens, nanoseconds) = (AnswerUsage.tokensAtMost, AnswerUsage.nanosecondsAtMost)
        switch member.first {
        case UInt8(ascii: "p"):
            take(&prompt, tokens, number("prompt_eval_count\":") ?? number("prompt_tokens\":"))
        case UInt8(ascii: "e"):
            take(&completion, tokens, number("eval_count\":"))
            take(&writing, nanoseconds, number("eval_duration\":"))
        case UInt8(ascii: "c"): take(&completion, tokens, number("completion_tokens\":"))
        case UInt8(ascii: "l"): take(&loading, nanoseconds, number("load_duration\":"))
        case UInt8(ascii: "i"): take(&prompt, tokens, number("input_tokens\":"))
        case UInt8(ascii: "o"): take(&completion, tokens, number("output_tokens\":"))
        default: break
        }
    }

    /// Boxes may say what they like.
    private static let tokensAtMost = 1_000_000_000
    private static let nanosecondsAtMost = 1_000_000_000_000_000

    private static func starts(_ member: UnsafeRawBufferPointer, with name: StaticString) -> Bool {
        let count = name.utf8CodeUnitCount
        return member.count > count && (0..<count).allSatisfy { member[$0] == name.utf8Start[$0] }
    }

    private static func value(
        of name: StaticString, in member: UnsafeRawBufferPointer
    ) -> Slice<UnsafeRawBufferPointer>? {
        starts(member, with: name) ? member[name.utf8CodeUnitCount...].drop { $0 == 0x20 } : nil
    }

    private static func number(_ text: Slice<UnsafeRawBufferPointer>) -> Int {
        var number = 0
        for byte in text.prefix(18) {
            guard (0x30...0x39).contains(byte) else { break }
            number = number * 10 + Int(byte - 0x30)
        }
        return number
    }

    /// Millionths of tokens a second; nil if it does not say.
    var speed: Int? {
        guard completion > 0, writing > 0 else { return nil }
        return Int(min(Double(completion) * 1e15 / Double(writing), 1e12))
    }
}
