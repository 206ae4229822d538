/// The rules of ``FieldKind``: which values are as good as none, and how the others are written.
extension CanonicalForm {
    /// Whether a field says anything that its absence does not. Takes note of what else it says.
    ///
    /// - Throws: `malformed` if Ollama will not take the value.
    mutating func keeps(_ value: JSONNode, as kind: FieldKind) throws(Question.Bypass) -> Bool {
        if value.kind == .null { return !kind.isTyped }
        guard kind.accepted.contains(value.kind) else { throw .malformed }
        switch kind {
        case .text, .role: return !value.isEmptyString
        case .encodingFormat: return !value.isEmptyString && !value.equals("float")
        case .flag: return value.kind == .true
        case .flagOnByDefault: return value.kind == .false
        case .list, .toolCalls: return !value.isEmpty
        case .format: return !value.isEmptyString
        case .count: return !value.raw.elementsEqual("0".utf8)
        case .numberZeroByDefault: return value.double != 0
        case .numberOneByDefault: return value.double != 1
        case .numberOneForZero: return value.double != 1 && value.double != 0
        case .options: return try keepsOptions(value)
        case .responseFormat: return try keepsResponseFormat(value)
        case .prompt, .input, .messages, .nativeMessages:
            findings.asks = !value.isEmptyString && (value.kind == .string || !value.isEmpty)
            return findings.asks
        case .tools:
            findings.hasTools = !value.isEmpty
            return findings.hasTools
        case .model, .stream, .streamOptions, .keepAlive, .debug, .leftOut:
            try look(at: value, as: kind)
            return false
        default: return true
        }
    }

    /// Takes note of a field that is not part of the form.
    private mutating func look(at value: JSONNode, as kind: FieldKind) throws(Question.Bypass) {
        switch kind {
        case .model: findings.hasModel = true
        case .debug: findings.rendersOnly = value.kind == .true
        case .keepAlive:
            // Nobody else is to hear that one client's is wrong.
            guard value.isKeepAlive else { throw .malformed }
            findings.unloads = value.isShortestKeepAlive
        case .streamOptions:
            let start = try gather(value, by: .streamOptions)
            members.removeLast(members.count - start)
            try checkNames(in: value)
        default: try checkNames(in: value)
        }
    }

    private mutating func keepsOptions(_ value: JSONNode) throws(Question.Bypass) -> Bool {
        let start = try gather(value, by: .options)
        let isEmpty = members.count == start
        members.removeLast(members.count - start)
        return !isEmpty
    }

    /// Plain text is what is written without a format.
    private mutating func keepsResponseFormat(_ value: JSONNode) throws(Question.Bypass) -> Bool {
        let start = try gather(value, by: .responseFormat)
        let kept = members.count - start
        let isText = kept == 1 && members[start].kind == .text && members[start].value.equals("text")
        members.removeLast(kept)
        return kept > 0 && !isText
    }

    /// Writes the value of a field that is kept.
    mutating func write(_ value: JSONNode, as kind: FieldKind) throws(Question.Bypass) {
        switch kind {
        case .verbatim, .format, .schema, .list, .tools: try writeVerbatim(value)
        case .input, .stop:
            if value.kind == .string { writer.array(1) }
            try writeVerbatim(value)
        case .messages: try writeMessages(value, by: .message)
        case .nativeMessages: try writeMessages(value, by: .nativeMessage)
        case .role: writer.lowered(value)
        case .toolCalls, .optionalToolCalls: try writeSorted(value, by: .toolCall)
        case .options: try writeObject(value, by: .options)
        case .responseFormat: try writeObject(value, by: .responseFormat)
        case .reasoning: try writeObject(value, by: .reasoning)
        case .number, .numberZeroByDefault, .numberOneByDefault, .numberOneForZero: writeNumber(value)
        case .option where value.kind == .number: writeNumber(value)
        case .integerOption where value.kind == .number: writeInteger(value)
        default: try writeSorted(value, by: .nameless)
        }
    }

    private mutating func writeObject(_ value: JSONNode, by table: FieldTable) throws(Question.Bypass) {
        try writeMembers(from: try gather(value, by: table))
    }

    private mutating func writeMessages(_ list: JSONNode, by table: FieldTable) throws(Question.Bypass) {
        writer.array(list.count)
        for message in list.elements {
            guard message.kind == .object else { throw .malformed }
            try writeObject(message, by: table)
        }
    }

    /// What is beyond the range of `float64` stays as it is written.
    private mutating func writeNumber(_ value: JSONNode) {
        if let number = value.double { writer.double(number) } else { writer.digits(value) }
    }

    /// Ollama cuts off what is behind the point; what it makes of numbers too large for an `int` is undefined.
    private mutating func writeInteger(_ value: JSONNode) {
        guard let number = value.double, number.magnitude < 0x1p63 else { return writer.digits(value) }
        writer.double(number.rounded(.towardZero))
    }
}

extension FieldKind {
    /// Whether Go decodes the value into a type of which `null` leaves it as it was.
    fileprivate var isTyped: Bool { self != .unknown && self != .verbatim }

    /// What Ollama takes, `null` aside.
    fileprivate var accepted: ValueKinds {
        switch self {
        case .model, .prompt, .text, .optionalText, .role, .encodingFormat: .string
        case .input, .content: [.string, .array]
        case .flag, .optionalFlag, .flagOnByDefault, .stream, .debug: .bool
        case .think: [.bool, .string]
        case .count, .optionalInteger, .number, .numberZeroByDefault, .numberOneByDefault, .numberOneForZero: .number
        case .keepAlive: [.number, .string]
        case .messages, .nativeMessages, .list, .toolCalls, .optionalToolCalls, .tools: .array
        case .schema, .responseFormat, .reasoning, .options, .streamOptions: .object
        case .unknown, .verbatim, .element, .stop, .format, .option, .integerOption, .leftOut: .any
        }
    }
}

/// A set of kinds of values.
private struct ValueKinds: OptionSet {
    let rawValue: UInt8

    static let string = ValueKinds(.string)
    static let number = ValueKinds(.number)
    static let array = ValueKinds(.array)
    static let object = ValueKinds(.object)
    static let bool: ValueKinds = [ValueKinds(.true), ValueKinds(.false)]
    static let any = ValueKinds(rawValue: .max)

    init(rawValue: UInt8) { self.rawValue = rawValue }
    private init(_ kind: JSONNode.Kind) { rawValue = 1 << kind.rawValue }

    func contains(_ kind: JSONNode.Kind) -> Bool { rawValue & 1 << kind.rawValue != 0 }
}

extension JSONNode {
    /// Whether a `keep_alive` means that the model is to go at once: less than a second, which older versions of
    /// Ollama cut off to 0, or a duration in which no digit but 0 occurs.
    var isShortestKeepAlive: Bool {
        if let seconds = double { return seconds >= 0 && seconds < 1 }
        guard let duration = string else { return false }
        return !duration.utf8.contains { (0x31...0x39).contains($0) }
    }

    /// Whether a `keep_alive` is one: a number of seconds, or a duration as Go writes it. Source: time.ParseDuration.
    fileprivate var isKeepAlive: Bool {
        guard let duration = string else { return kind == .number }
        var rest = duration.utf8[...]
        if rest.first == UInt8(ascii: "-") || rest.first == UInt8(ascii: "+") { rest.removeFirst() }
        if rest.elementsEqual("0".utf8) { return true }
        if rest.isEmpty { return false }
        while !rest.isEmpty {
            let number = rest.prefix { (0x30...0x39).contains($0) || $0 == UInt8(ascii: ".") }
            rest = rest[number.endIndex...]
            let digits = number.filter { $0 != UInt8(ascii: ".") }.count
            guard digits > 0, number.count - digits <= 1,
                let unit = ["ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h"].first(where: {
                    rest.starts(with: $0.utf8) && ($0 != "m" || !rest.starts(with: "ms".utf8))
                })
            else { return false }
            rest = rest.dropFirst(unit.utf8.count)
        }
        return true
    }
}
