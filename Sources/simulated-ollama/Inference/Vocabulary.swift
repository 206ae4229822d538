/// One token of an answer.
struct Token: Sendable {
    let text: String
    /// As it stands inside a JSON string.
    let escaped: [UInt8]

    init(_ text: String) {
        self.text = text
        var escaped: [UInt8] = []
        escaped.append(escaping: text)
        self.escaped = escaped
    }
}

/// The words a simulated model knows. Some are there to trip up whoever passes them on: several bytes to a letter,
/// several letters to a sign, quotes, and what Go escapes.
enum Vocabulary {
    private static let words: [String] =
        """
        the sky is blue because light of short waves scatters more in air than light long and at noon sun looks white \
        while evening turns it red since its way through dust and water grows each colour has own length every \
        molecule bends a little clouds drift over hills rivers carry sand toward sea birds follow wind small fires \
        warm houses where people read old letters about distant towns engines hum under streets lamps go on one by \
        one nobody counts them yet someone writes down how many there were and why answer changes with season \
        première naïve façade Größe Δt 東京 空 🙂 👩‍🚀 — R&D <b> "so" \\ a/b
        """
        .split(separator: " ").map(String.init)

    /// Each word within a sentence, at its start, and at its end.
    private static let inside = words.map { Token(" " + $0) }
    private static let opening = words.map { Token(" " + capitalised($0)) }
    private static let closing = words.map { Token(" " + $0 + ".") }
    private static let first = words.map { Token(capitalised($0)) }
    private static let paragraph = words.map { Token("\n\n" + capitalised($0)) }

    /// The `index`th token of the text that belongs to `seed`: sentences of seven to twelve words, a paragraph every
    /// four sentences.
    static func token(_ index: Int, of seed: Seed) -> Token {
        let word = Int(truncatingIfNeeded: seed.number(index) % UInt64(inside.count))
        let length = 7 + Int(truncatingIfNeeded: seed.value % 6)
        if index == 0 { return first[word] }
        switch index % length {
        case 0: return index % (4 * length) == 0 ? paragraph[word] : opening[word]
        case length - 1: return closing[word]
        default: return inside[word]
        }
    }

    /// A plain word, for values in JSON.
    static func word(_ index: Int, of seed: Seed) -> String {
        words[Int(truncatingIfNeeded: seed.number(index) % 60)]
    }

    private static func capitalised(_ word: String) -> String {
        word.prefix(1).uppercased() + word.dropFirst()
    }
}
