import Digests
import Testing

@Suite("SHA-256")
struct SHA256Tests {
    /// Source: FIPS 180-4, the examples of NIST's Cryptographic Standards and Guidelines.
    static let known: [(String, String)] = [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
    ]

    @Test("the digest of a known text is the published one", arguments: known)
    func knownAnswers(text: String, digest: String) {
        #expect(SHA256.hash(text).description == digest)
    }

    @Test("a million letters give the published digest, whatever the chunks they come in", arguments: [1, 7, 64, 4096])
    func chunks(size: Int) {
        let letters = [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000)
        var hash = SHA256()
        letters.withUnsafeBytes { bytes in
            for start in stride(from: 0, to: bytes.count, by: size) {
                hash.update(UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + size, bytes.count)]))
            }
        }
        let digest = hash.finalize()
        #expect(digest.description == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    }

    @Test("an empty chunk changes nothing")
    func emptyChunk() {
        var hash = SHA256()
        hash.update(UnsafeRawBufferPointer(start: nil, count: 0))
        let digest = hash.finalize()
        #expect(digest == SHA256.hash(""))
    }

    @Test("a hash that is dropped half-way is harmless")
    func dropped() {
        var hash = SHA256()
        [UInt8](repeating: 1, count: 100).withUnsafeBytes { hash.update($0) }
    }
}

@Suite("Digest")
struct DigestTests {
    @Test("hexadecimal of either case reads back as the same digest")
    func hexadecimal() {
        let digest = SHA256.hash("abc")
        #expect(Digest(hex: digest.description) == digest)
        #expect(Digest(hex: digest.description.uppercased()) == digest)
    }

    @Test(
        "what is not 64 hexadecimal digits is no digest",
        arguments: ["", "ba78", String(repeating: "g", count: 64), String(repeating: "0", count: 65)]
    )
    func notHexadecimal(text: String) {
        #expect(Digest(hex: text) == nil)
    }

    @Test("equal digests are one key of a dictionary, different ones are two")
    func keys() {
        let digests = Set([SHA256.hash("a"), SHA256.hash("a"), SHA256.hash("b")])
        #expect(digests.count == 2)
    }

    @Test("the bytes are those the digits say")
    func bytes() {
        let first = SHA256.hash("abc").withUnsafeBytes { Array($0.prefix(4)) }
        #expect(first == [0xba, 0x78, 0x16, 0xbf])
    }
}
