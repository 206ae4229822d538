import Digests
import EventLoop
import HTTPCore

enum Blob {
    /// `sha256:` or `sha256-` and 64 hexadecimal digits.
    static func isDigest(_ text: String) -> Bool {
        guard text.hasPrefix("sha256:") || text.hasPrefix("sha256-") else { return false }
        return Digest(hex: text.dropFirst(7)) != nil
    }
}

/// `/api/blobs/:digest`: uploads of any size, hashed as they come and not kept.
extension Box {
    func blob(_ name: String, _ call: Call) -> Plan {
        guard Blob.isDigest(name) else { return call.answer(.bad("invalid digest format")) }
        let digest = "sha256:" + name.dropFirst(7)
        let isHere = catalogue.blobs.contains(digest)
        if call.request.method == "HEAD" {
            guard !isHere else { return call.answer(200, nil, []) }
            return call.answer(Failure(status: 404, message: "blob \"\(name)\" not found"))
        }
        if isHere { return call.answer(200, nil, []) }
        return .work { [self] reply in await upload(digest, named: name, call, reply) }
    }

    private func upload(_ digest: String, named name: String, _ call: Call, _ reply: consuming Reply) async {
        let hash = RunningHash()
        if case .stream(let body, _) = call.request.body {
            do {
                try await body.forward { [counts] chunk in
                    counts.bytesReceived += chunk.count
                    hash.update(chunk)
                    return .more
                }
            } catch {
                counts.cancelled += 1
                return
            }
        }
        counts.finished += 1
        let actual = "sha256:\(hash.finish())"
        guard actual == digest.lowercased() else {
            let message = "digest mismatch, expected \"\(name)\", got \"\(actual)\""
            return await call.answer(.bad(message)).carryOut(reply)
        }
        catalogue.blobs.insert(digest)
        await call.answer(201, nil, []).carryOut(reply)
    }
}

/// A hash that a closure can feed.
@Loop
private final class RunningHash {
    private var hash: SHA256? = SHA256()

    func update(_ chunk: UnsafeRawBufferPointer) { hash?.update(chunk) }

    func finish() -> Digest {
        guard let hash = hash.take() else { preconditionFailure("a hash is finished once") }
        return hash.finalize()
    }
}
