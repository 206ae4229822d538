import EventLoop
import Glibc
import HTTPCore

/// Who may ask: what Ollama allows browsers (CORS), and which names it answers to.
enum Origins {
    enum Verdict {
        /// Go on, and add these header fields to the answer.
        case admitted([Headers.Field])
        /// This is the whole answer: a refusal without a word, or leave to go on.
        case answered(status: Int, [Headers.Field])
    }

    @Loop
    static func judge(_ request: Request) -> Verdict {
        let host = request.headers["Host"] ?? ""
        var added: [Headers.Field] = []
        if let origin = request.headers["Origin"], origin != "http://" + host, origin != "https://" + host {
            guard isAllowed(origin) else { return .answered(status: 403, []) }
            added = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
            if request.method == "OPTIONS" { return .answered(status: 204, added + preflight) }
        }
        switch judge(host: host) {
        case .address: return .admitted(added)
        case .name where request.method == "OPTIONS": return .answered(status: 204, added)
        case .name: return .admitted(added)
        case .foreign: return .answered(status: 403, [])
        }
    }

    // MARK: Origins

    private static func isAllowed(_ origin: String) -> Bool {
        if ["app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"].contains(where: origin.hasPrefix) {
            return true
        }
        for scheme in ["http://", "https://"] where origin.hasPrefix(scheme) {
            let rest = origin.dropFirst(scheme.count)
            let name = rest.prefix { $0 != ":" }
            return ["localhost", "127.0.0.1", "0.0.0.0"].contains(name)
        }
        return false
    }

    private static let preflight: [Headers.Field] = [
        ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
        (
            "Access-Control-Allow-Headers",
            "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,"
                + "X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,"
                + "X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,"
                + "X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout"
        ),
        ("Access-Control-Max-Age", "43200"),
    ]

    // MARK: Hosts

    private enum Host { case address, name, foreign }

    /// What a server that listens on a loopback address makes of the name it is called by.
    private static func judge(host: String) -> Host {
        let name = withoutPort(host).lowercased()
        if isLocalAddress(name) { return .address }
        let isLocal =
            name.isEmpty || name == "localhost"
            || [".localhost", ".local", ".internal"].contains(where: name.hasSuffix) || name == ownName
        return isLocal ? .name : .foreign
    }

    private static func withoutPort(_ host: String) -> String {
        if host.hasPrefix("[") { return String(host.dropFirst().prefix { $0 != "]" }) }
        guard host.utf8.count(where: { $0 == UInt8(ascii: ":") }) == 1 else { return host }
        return String(host.prefix { $0 != ":" })
    }

    /// Loopback, private or unspecified.
    private static func isLocalAddress(_ text: String) -> Bool {
        if text == "127.0.0.1" { return true }
        var v4 = in_addr()
        if inet_pton(AF_INET, text, &v4) == 1 {
            let address = UInt32(bigEndian: v4.s_addr)
            return address == 0 || address >> 24 == 127 || address >> 24 == 10 || address >> 20 == 0xac1
                || address >> 16 == 0xc0a8
        }
        var v6 = in6_addr()
        guard inet_pton(AF_INET6, text, &v6) == 1 else { return false }
        let bytes = withUnsafeBytes(of: v6) { Array($0) }
        return bytes[0] & 0xfe == 0xfc || (bytes[..<15].allSatisfy { $0 == 0 } && bytes[15] <= 1)
    }

    private static let ownName: String = {
        var bytes = [CChar](repeating: 0, count: 256)
        guard gethostname(&bytes, bytes.count - 1) == 0 else { return "" }
        return String(decoding: bytes.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self).lowercased()
    }()
}
