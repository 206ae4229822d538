/// How likely the model found its words: made up, but the same for the same answer.
enum Logprobs {
    /// The entry for one token, with `alternatives` others it might have said.
    static func entry(_ text: String, index: Int, seed: Seed, alternatives: Int) -> [UInt8] {
        var bytes: [UInt8] = [UInt8(ascii: "{")]
        let likely = Int(seed.number(index + 1_000_000) % 5000) + 1
        append(text, likely, to: &bytes)
        if alternatives > 0 {
            bytes.append(#","top_logprobs":"#)
            var list: [[UInt8]] = []
            for rank in 0..<alternatives {
                let word = rank == 0 ? text : " " + Vocabulary.word(index * 31 + rank, of: seed)
                var one: [UInt8] = [UInt8(ascii: "{")]
                append(word, likely + rank * 4000, to: &one)
                one.append(UInt8(ascii: "}"))
                list.append(one)
            }
            bytes.append(list: list)
        }
        bytes.append(UInt8(ascii: "}"))
        return bytes
    }

    /// - Parameter likely: the negative logarithm in ten-thousandths.
    private static func append(_ text: String, _ likely: Int, to bytes: inout [UInt8]) {
        bytes.append(#""token":"#)
        bytes.append(quoting: text)
        bytes.append(#","logprob":-"#)
        bytes.append(decimal: likely / 10_000)
        bytes.append(".")
        bytes.append(verbatim: String(String(10_000 + likely % 10_000).dropFirst()))
        bytes.append(#","bytes":["#)
        for (index, byte) in text.utf8.enumerated() {
            if index > 0 { bytes.append(UInt8(ascii: ",")) }
            bytes.append(decimal: Int(byte))
        }
        bytes.append("]")
    }
}
