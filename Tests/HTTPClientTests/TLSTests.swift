import EventLoop
import Glibc
import HTTPClient
import HTTPCore
import TestSupport
import Testing

/// https, with certificates and a server of the `openssl` program's.
@Suite(.timeLimit(.minutes(1)), .enabled(if: access("/usr/bin/openssl", X_OK) == 0)) struct TLSTests {
    init() { LoopThread.start() }

    @Test @Loop func `a server is trusted by the authorities given`() async throws {
        let server = try #require(await TLSServer.start(name: "trusted"))
        defer { server.stop() }
        var options = HTTPClient.Options()
        options.certificateAuthorities = server.certificate
        let client = try HTTPClient(options: options)
        defer { client.close() }
        let call = Call(
            ClientRequest(method: "GET", origin: "https://127.0.0.1:\(server.port)", target: "/"), by: client)
        let answer = try await call.header()
        #expect(answer.status == 200)
        #expect(try await answer.body.collect().text.contains("s_server"))
    }

    @Test @Loop func `a server that nobody vouches for is refused`() async throws {
        let server = try #require(await TLSServer.start(name: "server"))
        defer { server.stop() }
        let other = try #require(await TLSServer.start(name: "other"))
        defer { other.stop() }
        for authorities in [nil, other.certificate] {
            var options = HTTPClient.Options()
            options.certificateAuthorities = authorities
            let client = try HTTPClient(options: options)
            defer { client.close() }
            let error = try await Call(
                ClientRequest(method: "POST", origin: "https://127.0.0.1:\(server.port)", target: "/"), by: client
            ).transportError()
            #expect(error.kind == .tls, "\(error)")
            #expect(!error.answerBegan)
            #expect(error.isRetrySafe)
        }
    }

    @Test @Loop func `a certificate for another name is refused`() async throws {
        let server = try #require(await TLSServer.start(name: "elsewhere", subject: "DNS:elsewhere.invalid"))
        defer { server.stop() }
        var options = HTTPClient.Options()
        options.certificateAuthorities = server.certificate
        let client = try HTTPClient(options: options)
        defer { client.close() }
        let error = try await Call(
            ClientRequest(method: "GET", origin: "https://127.0.0.1:\(server.port)", target: "/"), by: client
        ).transportError()
        #expect(error.kind == .tls, "\(error)")
    }

    @Test @Loop func `a server that speaks no TLS is a TLS error`() async throws {
        let script = try Script()
        defer { script.client.close() }
        let call = Call(
            ClientRequest(method: "GET", origin: "https://127.0.0.1:\(script.listener.port)", target: "/"),
            by: script.client)
        let peer = try await script.accept()
        await peer.send("HTTP/1.1 400 Bad Request\r\n\r\n")
        let error = try await call.transportError()
        #expect(error.kind == .tls, "\(error)")
        #expect(error.isRetrySafe)
    }

    @Test @Loop func `authorities that cannot be read are an error of the request`() async throws {
        let server = try #require(await TLSServer.start(name: "unread"))
        defer { server.stop() }
        var options = HTTPClient.Options()
        options.certificateAuthorities = "/no/such/file.pem"
        let client = try HTTPClient(options: options)
        defer { client.close() }
        let error = try await Call(
            ClientRequest(method: "GET", origin: "https://127.0.0.1:\(server.port)", target: "/"), by: client
        ).transportError()
        #expect(error.kind == .tls, "\(error)")
    }
}

/// `openssl s_server` on a free port, with a certificate of its own that vouches for itself.
private struct TLSServer: Sendable {
    let port: Int
    let certificate: String
    private let process: ChildProcess
    private let key: String

    static func start(name: String, subject: String = "IP:127.0.0.1") async -> TLSServer? {
        await onNewThread {
            let path = "/tmp/http-client-tests-\(getpid())-\(name)"
            let (key, certificate) = (path + ".key", path + ".pem")
            ChildProcess([
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-subj", "/CN=\(name)", "-addext", "subjectAltName=\(subject)", "-days", "2",
                "-keyout", key, "-out", certificate,
            ]).wait()
            let process = ChildProcess([
                "openssl", "s_server", "-www", "-accept", "127.0.0.1:0", "-cert", certificate, "-key", key,
            ])
            // It says: ACCEPT 127.0.0.1:40123
            var output = ""
            while let text = process.output() {
                output += text
                guard let line = output.split(separator: "\n").first(where: { $0.hasPrefix("ACCEPT") }),
                    output.hasSuffix("\n"), let port = line.split(separator: ":").last.flatMap({ Int($0) })
                else { continue }
                return TLSServer(port: port, certificate: certificate, process: process, key: key)
            }
            process.end()
            return nil
        }
    }

    func stop() {
        process.end()
        unlink(key)
        unlink(certificate)
    }
}

/// A program started by a test, its output in a pipe.
private struct ChildProcess: Sendable {
    private let identifier: pid_t
    private let reading: Int32

    init(_ arguments: [String]) {
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0, "no descriptors left")
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_RDWR, 0)
        var pointers = arguments.map { strdup($0) } + [nil]
        var identifier: pid_t = 0
        let code = posix_spawnp(&identifier, arguments[0], &actions, nil, &pointers, environ)
        precondition(code == 0, "cannot start \(arguments[0]) (error \(code))")
        posix_spawn_file_actions_destroy(&actions)
        pointers.forEach { free($0) }
        close(ends[1])
        self.identifier = identifier
        reading = ends[0]
    }

    /// The next piece of its output; nil at the end.
    func output() -> String? {
        var bytes = [UInt8](repeating: 0, count: 4096)
        var entry = pollfd(fd: reading, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, RawSocket.patience) > 0 else { return nil }
        let count = read(reading, &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
    }

    func wait() {
        waitpid(identifier, nil, 0)
        close(reading)
    }

    func end() {
        // Not SIGTERM: the test's thread may block it, and its child then does too.
        kill(identifier, SIGKILL)
        wait()
    }
}
