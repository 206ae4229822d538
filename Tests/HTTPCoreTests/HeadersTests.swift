import HTTPCore
import Testing

@Suite struct HeadersTests {
    @Test func `names are found whatever their case`() {
        let headers: Headers = ["Content-Type": "application/json", "X-REQUEST-ID": "7"]
        #expect(headers["content-type"] == "application/json")
        #expect(headers["CONTENT-TYPE"] == "application/json")
        #expect(headers["x-Request-Id"] == "7")
        #expect(headers["content-typ"] == nil)
        #expect(headers["content-type "] == nil)
        #expect(headers[""] == nil)
    }

    @Test func `only letters have a case`() {
        // 0x20 apart like A and a, and names that a hurried comparison takes for the same.
        for (a, b) in [
            ("@", "`"), ("[", "{"), ("\\", "|"), ("]", "}"), ("^", "~"), ("_", "\u{7f}"), ("X-1", "X-\u{11}"),
        ] {
            #expect(!Headers.same(a, b), "\(a) is not \(b)")
            #expect(!Headers.same(b, a), "\(b) is not \(a)")
        }
        #expect(!Headers.same("À", "à"), "beyond ASCII nothing is folded")
        #expect(Headers.same("À", "À"))
        for letter in UInt8(ascii: "A")...UInt8(ascii: "Z") {
            let (upper, lower) = (Unicode.Scalar(letter), Unicode.Scalar(letter + 0x20))
            #expect(Headers.same(String(upper), String(lower)))
        }
    }

    @Test func `sameness over all pairs of ASCII is Unicode's own`() {
        for a in UInt8(0)..<128 {
            for b in UInt8(0)..<128 {
                let (a, b) = (String(Unicode.Scalar(a)), String(Unicode.Scalar(b)))
                let same = Headers.same(a, b)
                if same != (a.lowercased() == b.lowercased()) {
                    Issue.record("\(a.debugDescription) \(b.debugDescription)")
                }
            }
        }
    }

    @Test func `fields keep their order, their spelling and their duplicates`() {
        var headers = Headers([("Set-Cookie", "a=1"), ("Date", "today")])
        headers.append("set-cookie", "b=2")
        headers.append("Set-Cookie", "a=1")
        #expect(headers.fields.map(\.name) == ["Set-Cookie", "Date", "set-cookie", "Set-Cookie"])
        #expect(headers.values("SET-COOKIE") == ["a=1", "b=2", "a=1"])
        #expect(headers["set-cookie"] == "a=1", "the first one")
        #expect(headers.count == 4)
        #expect(headers.values("absent") == [])
    }

    @Test func `a literal keeps its duplicates`() {
        let headers: Headers = ["Via": "1.1 a", "via": "1.1 b"]
        #expect(headers.values("Via") == ["1.1 a", "1.1 b"])
    }

    @Test func `set puts one value in the place of all`() {
        var headers: Headers = ["Via": "1.1 a", "Host": "box", "via": "1.1 b"]
        headers.set("VIA", "1.1 c")
        #expect(headers.values("via") == ["1.1 c"])
        #expect(headers["Host"] == "box")
        #expect(headers.count == 2)
        headers.set("New", "value")
        #expect(headers["new"] == "value")
    }

    @Test func `remove takes all of a name and nothing else`() {
        var headers: Headers = ["A": "1", "B": "2", "a": "3", "AB": "4"]
        headers.remove("a")
        #expect(headers.fields.map(\.name) == ["B", "AB"])
        headers.remove("absent")
        #expect(headers.count == 2)
    }

    @Test func `reserving room changes nothing that is seen`() {
        var headers: Headers = ["A": "1"]
        headers.reserve(100)
        #expect(headers.count == 1)
        #expect(headers["A"] == "1")
    }
}

/// Header values are bytes; text is only how they are held.
@Suite struct Latin1Tests {
    @Test func `all 256 byte values come back as they were`() {
        let bytes = (0...255).map { UInt8($0) }
        #expect(roundTrip(bytes) == bytes)
        for byte in bytes { #expect(roundTrip([byte]) == [byte]) }
    }

    @Test func `a byte is one scalar`() {
        let text = [UInt8]([0x41, 0xe9, 0xff]).withUnsafeBytes { String(latin1: $0) }
        #expect(Array(text.unicodeScalars.map(\.value)) == [0x41, 0xe9, 0xff])
    }

    @Test func `UTF-8 bytes come back as they were, though nobody read them as UTF-8`() {
        let bytes = Array("grüße 🦙".utf8)
        #expect(roundTrip(bytes) == bytes)
    }

    @Test func `a carriage return and a line feed stay two bytes`() {
        #expect(roundTrip([0x0d, 0x0a]) == [0x0d, 0x0a])
        #expect(roundTrip([0xe9, 0x0d, 0x0a]) == [0xe9, 0x0d, 0x0a])
    }

    @Test func `what has no byte of its own becomes a question mark`() {
        #expect(lent("aé€🦙b") == [0x61, 0xe9, 0x3f, 0x3f, 0x62])
        #expect(lent("e\u{301}") == [0x65, 0x3f])
    }

    @Test func `the C string ends in a zero`() {
        for text in ["", "plain", "é"] {
            #expect(text.withLatin1CString { $0[text.unicodeScalars.count] } == 0)
        }
    }

    private func roundTrip(_ bytes: [UInt8]) -> [UInt8] {
        lent(bytes.withUnsafeBytes { String(latin1: $0) })
    }

    /// The bytes lent, as many as the text has scalars: the text may hold zeros.
    private func lent(_ text: String) -> [UInt8] {
        let count = text.unicodeScalars.count
        return text.withLatin1CString { Array(UnsafeRawBufferPointer(start: $0, count: count)) }
    }
}
