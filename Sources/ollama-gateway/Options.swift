import ArgumentParser
import EventLoop
import Gateway
import Glibc
import HTTPClient
import HTTPServer
import Logging

/// The command line: each setting with its name, unit, default and bounds, once.
struct Options: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ollama-gateway",
        abstract: "A gateway between applications and Ollama boxes.",
        usage: "ollama-gateway [--port <port>] [--backends <list>] [options]",
        discussion: """
            Point clients (the ollama CLI, ollama-python, openai SDKs, Open WebUI, …) at the gateway instead of at \
            Ollama; every call goes through unchanged, streaming included.

            Durations are written 500ms, 5s, 10m or 2h, or as seconds; sizes 1000, 64KiB, 64MiB or 2GiB.
            """,
        version: "ollama-gateway \(Program.version)")

    @OptionGroup(title: "Listening") var listening: Listening
    @OptionGroup(title: "Backends") var boxes: Boxes
    @OptionGroup(title: "Limits for clients") var clients: Clients
    @OptionGroup(title: "Logs") var logs: Logs
    @OptionGroup(title: "Checked now, used by features to come") var planned: Planned

    struct Listening: ParsableArguments {
        @Option(name: .shortAndLong, help: "Port to listen on; 0 takes a free one.", transform: Parse.integer(0...65535))
        var port = 8080

        @Option(
            help: .init(
                "Address to listen on: a name, an address, or unix:/path. May be given several times.",
                valueName: "address"), transform: Parse.listenHost)
        var host = ["127.0.0.1"]

        @Option(
            help: "How long running answers may take to finish after SIGTERM or SIGINT.",
            transform: Parse.duration(.zero ... .seconds(86_400)))
        var drainTimeout = Span(.seconds(30))
    }

    struct Boxes: ParsableArguments {
        @Option(
            name: .shortAndLong,
            help: .init(
                "Ollama boxes, separated by commas: host, host:port, http://host:port or https://host/prefix.",
                valueName: "list"), transform: Parse.backends)
        var backends = try! BackendList("localhost:11434")  // A literal; read by the tests.

        @Option(help: "For name look-up, TCP and TLS together.", transform: Parse.duration(.milliseconds(1) ... .seconds(3600)))
        var connectTimeout = Span(.seconds(5))

        @Option(
            help: "From a request's end to the answer's first byte: queueing, model load and prompt included.",
            transform: Parse.duration(.milliseconds(1) ... .seconds(86_400)))
        var firstByteTimeout = Span(.seconds(600))

        @Option(help: "Silence amid an answer.", transform: Parse.duration(.milliseconds(1) ... .seconds(86_400)))
        var idleTimeout = Span(.seconds(120))

        @Option(
            help: .init("PEM file of certificate authorities to trust for https backends.", valueName: "file"),
            transform: Parse.readableFile)
        var backendCa: String?
    }

    struct Clients: ParsableArguments {
        @Option(help: "Largest request body; uploads to /api/blobs may be larger.", transform: Parse.size(1...(1 << 40)))
        var maxBody = Size(64 << 20)

        @Option(help: "Largest request header.", transform: Parse.size(4096...(1 << 20)))
        var maxHeader = Size(16 << 10)

        @Option(help: "Open connections; further ones wait.", transform: Parse.integer(1...1_000_000))
        var maxConnections = 16_384

        @Option(
            help: "Open connections from one address, 0 for any number; further ones are closed.",
            transform: Parse.integer(0...1_000_000))
        var maxConnectionsPerClient = 0

        @Option(
            help: "For a new connection to send its first header.", transform: Parse.duration(.seconds(1) ... .seconds(3600)))
        var headerTimeout = Span(.seconds(30))

        @Option(
            help: "For a request body to arrive, plus one second for each KiB of it.",
            transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var bodyTimeout = Span(.seconds(30))

        @Option(
            help: "Between two requests, and for a client that takes or sends no byte.",
            transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var clientIdleTimeout = Span(.seconds(120))
    }

    struct Logs: ParsableArguments {
        @Option(help: .init("trace, debug, info, notice, warning, error or critical; below info: no access lines.", valueName: "level"), transform: Parse.logLevel)
        var logLevel = Logger.Level.info

        @Option(help: .init("text or json, to standard error.", valueName: "format"), transform: Parse.logFormat)
        var logFormat = LogFormat.text
    }

    struct Planned: ParsableArguments {
        @Option(
            name: .shortAndLong, help: "How long an answer stays in the cache; 0 turns it off.",
            transform: Parse.duration(.zero ... .seconds(31_536_000)))
        var cacheTtl = Span(.seconds(30))

        @Option(help: "Requests a client may send within a window; 0 for any number.", transform: Parse.integer(0...1_000_000_000))
        var rateLimit = 10

        @Option(help: "Length of that window.", transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var rateWindow = Span(.seconds(60))

        @Option(help: "Time between two probes of a backend.", transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var healthInterval = Span(.seconds(30))
    }

    /// Reads the command line, or ends the process: with the help or the version (status 0), or with one sentence
    /// about what is wrong (status 64, EX_USAGE).
    static func parseOrEnd() -> Options {
        do {
            guard let options = try parseAsRoot() as? Options else { throw CleanExit.helpRequest() }
            return options
        } catch {
            guard exitCode(for: error) != .success else { exit(withError: error) }
            LogOutput.complain("ollama-gateway: \(message(for: error))\nSee 'ollama-gateway --help'.")
            Glibc.exit(EX_USAGE)
        }
    }
}

// MARK: What the parts of the program get

extension Options {
    var client: HTTPClient.Options {
        var options = HTTPClient.Options()
        options.connectTimeout = boxes.connectTimeout.duration
        options.firstByteTimeout = boxes.firstByteTimeout.duration
        options.idleTimeout = boxes.idleTimeout.duration
        options.certificateAuthorities = boxes.backendCa
        return options
    }

    var server: HTTPServer.Limits {
        var limits = HTTPServer.Limits()
        limits.maxConnections = clients.maxConnections
        limits.maxConnectionsPerPeer = clients.maxConnectionsPerClient
        limits.headerBytes = clients.maxHeader.bytes
        limits.headerTimeout = clients.headerTimeout.duration
        limits.bodyTimeout = clients.bodyTimeout.duration
        limits.idleTimeout = clients.clientIdleTimeout.duration
        return limits
    }

    var gateway: Gateway.Settings {
        var settings = Gateway.Settings()
        settings.maxBody = clients.maxBody.bytes
        return settings
    }

    var addresses: [ListenAddress] {
        listening.host.map { host in
            host.hasPrefix("unix:") ? .unix(path: String(host.dropFirst(5))) : .tcp(host: host, port: listening.port)
        }
    }
}
