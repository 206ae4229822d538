import HTTPCore
import Testing

@Suite struct BytesTests {
    @Test func `bytes copy what they are made of`() {
        var source: [UInt8] = [1, 2, 3]
        let bytes = Bytes(source)
        source[0] = 9
        #expect(bytes.count == 3)
        #expect(array(bytes) == [1, 2, 3])
        let copied = source.withUnsafeBytes { Bytes(copying: $0) }
        #expect(array(copied) == [9, 2, 3])
    }

    @Test(arguments: ["", "a", "Ollama is running", "grüße – 你好 🦙", String(repeating: "x", count: 100_000)])
    func `text comes back as it was`(text: String) {
        let bytes = Bytes(text)
        #expect(bytes.count == text.utf8.count)
        #expect(bytes.text == text)
    }

    @Test func `what is not UTF-8 is read with replacement characters`() {
        #expect(Bytes([0x61, 0xff, 0x62]).text == "a\u{fffd}b")
    }

    @Test func `no bytes are no bytes, however they are made`() {
        for empty in [Bytes.empty, Bytes(""), Bytes([]), Bytes(copying: UnsafeRawBufferPointer(start: nil, count: 0))] {
            #expect(empty.count == 0)
            #expect(empty.buffer.isEmpty)
            #expect(empty.text == "")
        }
    }

    @Test func `many bytes at once keep to themselves`() {
        let all = (0..<1_000).map { number in Bytes("\(number):" + String(repeating: "y", count: number)) }
        for (number, bytes) in all.enumerated() {
            #expect(bytes.text == "\(number):" + String(repeating: "y", count: number))
        }
    }
}

private func array(_ bytes: Bytes) -> [UInt8] {
    // The pointer is good for as long as the object is, and no longer.
    withExtendedLifetime(bytes) { Array(bytes.buffer) }
}
