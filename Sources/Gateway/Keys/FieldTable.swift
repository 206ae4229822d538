/// What the fields of an object mean: by which rule each is compared.
struct FieldTable: Sendable {
    private struct Field: Sendable {
        let name: StaticString
        let prefix: UInt64
        let kind: FieldKind
    }

    /// In the order of their prefixes, to be searched by halves.
    private let fields: [Field]
    /// The rule for all other names.
    private let others: FieldKind
    /// Whether Go decodes the object into a `struct`, whose names it finds in any case; a `map` has them exactly.
    let ignoresCase: Bool

    init(
        others: FieldKind = .unknown, ignoresCase: Bool = true, _ fields: KeyValuePairs<StaticString, FieldKind>
    ) {
        self.others = others
        self.ignoresCase = ignoresCase
        self.fields =
            fields.map { name, kind in
                Field(name: name, prefix: MemberName(UnsafeRawBufferPointer(name)).prefix, kind: kind)
            }
            .sorted { $0.prefix < $1.prefix }
    }

    /// The rule for a name.
    func kind(of name: MemberName) throws(Question.Bypass) -> FieldKind {
        var (low, high) = (0, fields.count)
        while low < high {
            let middle = (low + high) / 2
            if fields[middle].prefix < name.prefix { low = middle + 1 } else { high = middle }
        }
        while low < fields.count, fields[low].prefix == name.prefix {
            if MemberName.compare(name, MemberName(UnsafeRawBufferPointer(fields[low].name))) == 0 {
                return fields[low].kind
            }
            low += 1
        }
        if ignoresCase, !name.isPlain, fields.contains(where: { name.bytes.folds(to: $0.name) }) { throw .spelling }
        return others
    }
}

/// The rule by which a field is compared: what it must be, what of it equals its absence, and how it is written.
///
/// `null` equals absence, but for those that are not typed.
enum FieldKind: Sendable {
    /// A field we do not know, nor perhaps this Ollama, but perhaps the next: any value, none equal to absence.
    case unknown
    /// Any value in the order in which it is written, `null` included.
    case verbatim
    /// What has no name because it stands in an array; never in a table.
    case element

    // What is to be asked.
    case model
    /// Text; without it nothing is asked.
    case prompt
    /// Text or list, one text being a list of one; without it nothing is asked.
    case input
    /// `input`'s like in native chats and in those of `/v1`.
    case nativeMessages, messages

    // Go's `string`: "" is absent. Go's `*string`: it is not.
    case text, optionalText
    /// Text in any case.
    case role
    /// Text, "" not being absent, or a list of parts.
    case content
    /// Text; "float" is absent.
    case encodingFormat

    // Go's `bool`: false is absent. `*bool`: it is not, or true is.
    case flag, optionalFlag, flagOnByDefault

    // Go's `int`, `*int`: 1.0 is none, so digits are compared. 0 is absent, or is not.
    case count, optionalInteger

    // Go's floating-point numbers, and which of them are absent.
    case number, numberZeroByDefault, numberOneByDefault, numberOneForZero

    // Lists: [] is absent, or is not.
    case list, toolCalls, optionalToolCalls
    case stop
    case tools

    /// Of any shape, in the order in which it is written; "" is absent.
    case format
    /// An object in the order in which it is written.
    case schema
    case responseFormat
    case reasoning
    /// True, false or text.
    case think

    /// Ollama's `options`: nothing in it is absent.
    case options
    /// In `options`: numbers are `float64`; those of the second have what is behind the point cut off.
    case option, integerOption

    // What is not part of a question, but is looked at.
    case stream, streamOptions, keepAlive, debug
    /// What cannot change an answer.
    case leftOut
}
