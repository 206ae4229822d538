import TestSupport
import Testing

@testable import Gateway

struct TextCutsTests {
    private func cut(_ text: String) -> [String] {
        bytes(text) { TextCuts($0).map { String(decoding: $0, as: UTF8.self) } }
    }

    @Test(arguments: [
        ("", []), ("The sky is", ["The", " sky", " is"]), ("  two  gaps ", ["  two", "  gaps", " "]),
        (#"end.\n\nNext"#, ["end.", #"\n\nNext"#]), ("antidisestablishment", ["antidisestablish", "ment"]),
        ("東京東京東京東京", ["東京東京東京", "東京"]), (#"123456789012345\u00e9x"#, [#"123456789012345\u00e9"#, "x"]),
        ("123456789012345e\u{301}\u{301}x", ["123456789012345e\u{301}\u{301}", "x"]),
        (#"1234567890123456\ud83d\ude00"#, ["1234567890123456", #"\ud83d\ude00"#]),
        (#"12345678901\ud83d\ude00\ude00"#, [#"12345678901\ud83d\ude00"#, #"\ude00"#]),
        ("12345678901234👩‍🚀👍🏽!", ["12345678901234👩‍🚀", "👍🏽!"]), ("🇩🇪🇫🇷🇮🇹", ["🇩🇪🇫🇷", "🇮🇹"]),
    ])
    func `text is cut before gaps and in long words, never within what belongs together`(text: String, pieces: [String])
    {
        #expect(cut(text) == pieces)
    }

    @Test func `pieces are all of the text, and each can stand alone`() throws {
        var maker = AnswerMaker(random: SeededGenerator(seed: 3))
        for _ in 0..<500 {
            let text = maker.tokens(20).joined()
            let pieces = cut(text)
            #expect(pieces.joined() == text)
            for piece in pieces {
                // Half a surrogate pair would become U+FFFD.
                let decoded = try bytes(#""\#(piece)""#) { text in
                    Result { try JSONDocument.read(text) { $0.string } }
                }.get()
                #expect(decoded?.contains("\u{fffd}") == false)
            }
        }
    }

    @Test func `a token may end between scalars only`() {
        bytes(#"é\ud83d\ude00x"#) { text in
            #expect(TextCuts.canCut(text, at: 2) && TextCuts.canCut(text, at: 14))
            #expect(!TextCuts.canCut(text, at: 1) && !TextCuts.canCut(text, at: 8))
        }
    }
}
