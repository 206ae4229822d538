import Glibc
import HTTPCore
import TestSupport
import Testing

@Suite struct ByteBufferTests {
    @Test func `a new buffer is empty`() {
        let buffer = ByteBuffer()
        #expect(buffer.isEmpty == true)
        #expect(buffer.count == 0)
        #expect(buffer.unread.count == 0)
        #expect(buffer.finish().count == 0)
    }

    @Test func `what is appended is unread until it is consumed`() {
        var buffer = ByteBuffer()
        buffer.append("hello ")
        buffer.append("wörld")
        #expect(String(decoding: buffer.unread, as: UTF8.self) == "hello wörld")
        buffer.consume(6)
        #expect(String(decoding: buffer.unread, as: UTF8.self) == "wörld")
        buffer.consume(6)
        #expect(buffer.isEmpty == true)
        buffer.append("again")
        #expect(buffer.finish().text == "again")
    }

    @Test func `appending nothing changes nothing`() {
        var buffer = ByteBuffer()
        buffer.append("")
        buffer.append(UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(buffer.isEmpty == true)
        buffer.append("x")
        buffer.append("")
        #expect(buffer.count == 1)
    }

    @Test func `a buffer emptied by reading, or only reserved, finishes as no bytes`() {
        var consumed = ByteBuffer()
        consumed.append("abc")
        consumed.consume(3)
        #expect(consumed.finish().count == 0)
        var reserved = ByteBuffer()
        reserved.reserve(1 << 20)
        #expect(reserved.finish().count == 0)
    }

    @Test func `within what was reserved, appending moves nothing`() {
        var buffer = ByteBuffer()
        buffer.append("a")
        buffer.reserve(100_000)
        let place = buffer.unread.baseAddress
        for _ in 1..<100_000 { buffer.append("a") }
        #expect(buffer.unread.baseAddress == place)
        #expect(buffer.count == 100_000)
    }

    @Test func `finishing hands the memory over without a copy`() {
        var buffer = ByteBuffer()
        buffer.append(String(repeating: "z", count: 5_000))
        let place = buffer.unread.baseAddress
        #expect(buffer.finish().buffer.baseAddress == place)
    }

    @Test(arguments: 1...20)
    func `a buffer is what an array of bytes would be`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var buffer = ByteBuffer()
        var model: [UInt8] = []
        // Small steps for some seeds, for others so large that the buffer grows, shrinks and gives memory back.
        let step = [8, 300, 5_000, 40_000][Int(seed % 4)]
        let noise = (0..<step + 251).map { UInt8($0 % 251) }
        for _ in 0..<500 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                let start = Int.random(in: 0..<251, using: &random)
                let chunk = noise[start..<start + Int.random(in: 0...step, using: &random)]
                chunk.withUnsafeBytes { buffer.append($0) }
                model += chunk
            case 5..<9:
                let length = Int.random(in: 0...min(step, model.count), using: &random)
                buffer.consume(length)
                model.removeFirst(length)
            case 9 where Bool.random(using: &random):
                buffer.consume(model.count)
                model = []
            default:
                buffer.reserve(Int.random(in: 0...(2 * step), using: &random))
            }
            #expect(buffer.count == model.count)
            #expect(buffer.isEmpty == model.isEmpty)
            #expect(same(buffer.unread, model))
        }
        let bytes = buffer.finish()
        withExtendedLifetime(bytes) { #expect(same(bytes.buffer, model)) }
    }

    private func same(_ bytes: UnsafeRawBufferPointer, _ model: [UInt8]) -> Bool {
        guard bytes.count == model.count else { return false }
        guard let start = bytes.baseAddress else { return true }
        return model.withUnsafeBytes { $0.baseAddress.map { memcmp($0, start, bytes.count) == 0 } ?? true }
    }
}
