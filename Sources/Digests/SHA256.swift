import COpenSSL

/// SHA-256 by OpenSSL's libcrypto, which uses the processor's SHA instructions where there are any.
///
/// At once over what lies in one piece of memory:
///
///     let digest = SHA256.hash(body)
///
/// or over what comes in chunks:
///
///     var hash = SHA256()
///     hash.update(chunk)
///     let digest = hash.finalize()
///
/// Free of isolation: usable on any thread, a value by one of them at a time. libcrypto fails here only when memory
/// is out, which traps.
///
/// Source: EVP_DigestInit(3), EVP_MD_fetch(3).
public struct SHA256: ~Copyable {
    private let context: OpaquePointer

    public init() {
        guard let context = EVP_MD_CTX_new() else { fatalError("out of memory: EVP_MD_CTX") }
        self.context = context
        check(EVP_DigestInit_ex2(context, SHA256.algorithm, nil))
    }

    deinit { EVP_MD_CTX_free(context) }

    /// Takes the next bytes.
    public mutating func update(_ chunk: UnsafeRawBufferPointer) {
        check(EVP_DigestUpdate(context, chunk.baseAddress, chunk.count))
    }

    /// The digest of all that was taken.
    public consuming func finalize() -> Digest {
        withUnsafeTemporaryAllocation(byteCount: Digest.byteCount, alignment: 8) { bytes in
            check(EVP_DigestFinal_ex(context, bytes.baseAddress, nil))
            return Digest(bytes: UnsafeRawBufferPointer(bytes))
        }
    }

    /// The digest of one piece of memory.
    public static func hash(_ bytes: UnsafeRawBufferPointer) -> Digest {
        withUnsafeTemporaryAllocation(byteCount: Digest.byteCount, alignment: 8) { digest in
            check(EVP_Digest(bytes.baseAddress, bytes.count, digest.baseAddress, nil, algorithm, nil))
            return Digest(bytes: UnsafeRawBufferPointer(digest))
        }
    }

    /// The digest of a text in UTF-8.
    public static func hash(_ text: String) -> Digest {
        var text = text
        return text.withUTF8 { hash(UnsafeRawBufferPointer($0)) }
    }

    // Fetched once and kept as long as the process: `EVP_sha256()` would look it up anew for each digest.
    // Why nonisolated(unsafe) is safe: the object never changes, and libcrypto counts its references atomically.
    private nonisolated(unsafe) static let algorithm: OpaquePointer = {
        guard let algorithm = EVP_MD_fetch(nil, "SHA256", nil) else { fatalError("libcrypto offers no SHA-256") }
        return algorithm
    }()
}

private func check(_ result: Int32) {
    precondition(result == 1, "libcrypto failed at a SHA-256")
}
