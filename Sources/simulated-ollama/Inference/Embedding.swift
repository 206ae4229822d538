/// A vector for a text: the same text has the same one on every box, other texts others.
///
/// Numbers have seven decimals, so that they are written without rounding: what is read is what was meant.
struct Embedding {
    /// In ten-millionths.
    private(set) var parts: [Int32]

    private static let unit = 10_000_000.0

    /// - Parameter length: numbers in the vector.
    init(_ text: String, digest: String, length: Int) {
        var seed = Seed()
        seed.mix(digest)
        seed.mix(text)
        parts = []
        parts.reserveCapacity(length)
        for index in 0..<length {
            // Between -2 and 2.
            parts.append(Int32(truncatingIfNeeded: Int64(seed.number(index) % 40_000_001) - 20_000_000))
        }
    }

    /// Of length 1, after dropping all but the first `dimensions` numbers.
    func normalised(dimensions: Int?) -> Embedding {
        var result = self
        if let dimensions, dimensions > 0, dimensions < parts.count { result.parts = Array(parts[..<dimensions]) }
        var sum = 0.0
        for part in result.parts { sum += Double(part) * Double(part) }
        let scale = Embedding.unit / max(sum.squareRoot(), 1)
        for index in result.parts.indices {
            result.parts[index] = Int32((Double(result.parts[index]) * scale).rounded())
        }
        return result
    }

    /// A JSON array.
    func append(to bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: "["))
        for (index, part) in parts.enumerated() {
            if index > 0 { bytes.append(UInt8(ascii: ",")) }
            Embedding.append(Int(part), to: &bytes)
        }
        bytes.append(UInt8(ascii: "]"))
    }

    /// Shortest form: no zeros at the end.
    private static func append(_ part: Int, to bytes: inout [UInt8]) {
        if part < 0 { bytes.append(UInt8(ascii: "-")) }
        let size = part.magnitude
        bytes.append(decimal: Int(size / 10_000_000))
        var fraction = size % 10_000_000
        guard fraction > 0 else { return }
        var digits = 7
        while fraction % 10 == 0 {
            fraction /= 10
            digits -= 1
        }
        bytes.append(UInt8(ascii: "."))
        var divisor: UInt = 1
        for _ in 1..<digits { divisor *= 10 }
        while divisor > 0 {
            bytes.append(0x30 + UInt8(fraction / divisor % 10))
            divisor /= 10
        }
    }

    /// 32-bit floats, the lowest byte first, in base 64.
    var base64: [UInt8] {
        var raw: [UInt8] = []
        raw.reserveCapacity(parts.count * 4)
        for part in parts {
            withUnsafeBytes(of: Float(Double(part) / Embedding.unit).bitPattern.littleEndian) {
                raw.append(contentsOf: $0)
            }
        }
        return Base64.encode(raw)
    }
}

enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func encode(_ bytes: [UInt8]) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var word: UInt32 = 0
            for index in 0..<3 { word = word << 8 | (index < group.count ? UInt32(group[start + index]) : 0) }
            for index in 0..<4 {
                let isPadding = index > group.count
                text.append(isPadding ? UInt8(ascii: "=") : alphabet[Int(word >> (18 - 6 * UInt32(index)) & 63)])
            }
        }
        return text
    }
}
