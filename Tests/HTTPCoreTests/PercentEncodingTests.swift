import Testing

@testable import HTTPCore

@Suite struct PercentEncodingTests {
    @Test(arguments: [
        ("", ""), ("abc", "abc"), ("%41", "A"), ("a%2fb%2Fc", "a/b/c"), ("llama3.2%3Alatest", "llama3.2:latest"),
        ("a+b", "a b"), ("a%2Bb", "a+b"), ("%c3%a9", "é"), ("é", "é"), ("%25", "%"), ("%2541", "%41"), ("%00", "\0"),
    ])
    func `text is read as it was meant`(written: String, meant: String) {
        #expect(written.percentDecoded(isQuery: true) == meant)
    }

    @Test(arguments: ["%", "%4", "a%", "%zz", "%4z", "%z4", "%%41", "%-1", "% 1", "%ff", "%c3", "%c3%28", "%ed%a0%80"])
    func `what is no text is none`(written: String) {
        #expect(written.percentDecoded(isQuery: true) == nil)
    }

    @Test func `a plus is a space in a query only`() {
        #expect("a+b%20c".percentDecoded(isQuery: false) == "a+b c")
        #expect("a+b%20c".percentDecoded(isQuery: true) == "a b c")
    }

    @Test func `every byte of ASCII can be written`() {
        for byte in 0..<128 as Range<UInt8> {
            let digits = String(byte, radix: 16)
            #expect(
                "%\(digits.count == 1 ? "0" : "")\(digits)".percentDecoded(isQuery: true) == String(UnicodeScalar(byte))
            )
        }
    }
}
