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

    /// What holds when an option is not given.
    enum Default {
        static let port = 8080
        static let host = ["127.0.0.1"]
        static let drainTimeout = Span(.seconds(30))
        static let backends = BackendList([.local])
        static let connectTimeout = Span(.seconds(5))
        static let firstByteTimeout = Span(.seconds(600))
        static let idleTimeout = Span(.seconds(120))
        static let maxBody = Size(64 << 20)
        static let maxHeader = Size(16 << 10)
        static let maxConnections = 16_384
        static let maxConnectionsPerClient = 0
        static let headerTimeout = Span(.seconds(30))
        static let bodyTimeout = Span(.seconds(30))
        static let clientIdleTimeout = Span(.seconds(120))
        static let logLevel = Logger.Level.info
        static let logFormat = LogFormat.text
        static let cacheTtl = Span(.seconds(30))
        static let rateLimit = 10
        static let rateWindow = Span(.seconds(60))
        static let healthInterval = Span(.seconds(30))
    }

    struct Listening: ParsableArguments {
        @Option(
            name: .shortAndLong, help: help("Port to listen on; 0 takes a free one.", Default.port),
            transform: Parse.integer(0...65535))
        var port = Default.port

        @Option(
            help: help(
                "Address to listen on: a name, an address, or unix:/path. May be given several times.", Default.host,
                valueName: "address"), transform: Parse.listenHost)
        var host = Default.host

        @Option(
            help: help(
                "How long running answers may take to finish after SIGTERM or SIGINT.", Default.drainTimeout,
                valueName: "duration"),
            transform: Parse.duration(.zero ... .seconds(86_400)))
        var drainTimeout = Default.drainTimeout
    }

    struct Boxes: ParsableArguments {
        @Option(
            name: .shortAndLong,
            help: help(
                "Ollama boxes, separated by commas: host, host:port, http://host:port or https://host/prefix.",
                Default.backends,
                valueName: "list"), transform: Parse.backends)
        var backends = Default.backends

        @Option(
            help: help("For name look-up, TCP and TLS together.", Default.connectTimeout, valueName: "duration"),
            transform: Parse.duration(.milliseconds(1) ... .seconds(3600)))
        var connectTimeout = Default.connectTimeout

        @Option(
            help: help(
                "From a request's end to the answer's first byte: queueing, model load and prompt included.",
                Default.firstByteTimeout, valueName: "duration"),
            transform: Parse.duration(.milliseconds(1) ... .seconds(86_400)))
        var firstByteTimeout = Default.firstByteTimeout

        @Option(
            help: help("Silence amid an answer.", Default.idleTimeout, valueName: "duration"),
            transform: Parse.duration(.milliseconds(1) ... .seconds(86_400)))
        var idleTimeout = Default.idleTimeout

        @Option(
            help: help(
                "PEM file of certificate authorities to trust for https backends.", "the system's", valueName: "file"),
            transform: Parse.certificates)
        var backendCa: String?
    }

    struct Clients: ParsableArguments {
        @Option(
            help: help(
                "Largest request body; uploads to /api/blobs may be larger.", Default.maxBody, valueName: "size"),
            transform: Parse.size(1...(1 << 40)))
        var maxBody = Default.maxBody

        @Option(
            help: help("Largest request header.", Default.maxHeader, valueName: "size"),
            transform: Parse.size(4096...(1 << 20)))
        var maxHeader = Default.maxHeader

        @Option(
            help: help("Open connections; further ones wait.", Default.maxConnections, valueName: "number"),
            transform: Parse.integer(1...1_000_000))
        var maxConnections = Default.maxConnections

        @Option(
            help: help(
                "Open connections from one address, 0 for any number; further ones are closed.",
                Default.maxConnectionsPerClient, valueName: "number"),
            transform: Parse.integer(0...1_000_000))
        var maxConnectionsPerClient = Default.maxConnectionsPerClient

        @Option(
            help: help("For a new connection to send its first header.", Default.headerTimeout, valueName: "duration"),
            transform: Parse.duration(.seconds(1) ... .seconds(3600)))
        var headerTimeout = Default.headerTimeout

        @Option(
            help: help(
                "For a request body to arrive, plus one second for each KiB of it.", Default.bodyTimeout,
                valueName: "duration"),
            transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var bodyTimeout = Default.bodyTimeout

        @Option(
            help: help(
                "Between two requests, and for a client that takes or sends no byte.", Default.clientIdleTimeout,
                valueName: "duration"),
            transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var clientIdleTimeout = Default.clientIdleTimeout
    }

    struct Logs: ParsableArguments {
        @Option(
            help: help(
                "trace, debug, info, notice, warning, error or critical; info and below write an access line a request.",
                Default.logLevel, valueName: "level"), transform: Parse.logLevel)
        var logLevel = Default.logLevel

        @Option(
            help: help(
                "text or json, to standard error.", Default.logFormat, valueName: "format"), transform: Parse.logFormat)
        var logFormat = Default.logFormat
    }

    struct Planned: ParsableArguments {
        @Option(
            name: .shortAndLong,
            help: help(
                "How long an answer stays in the cache; 0 turns it off.", Default.cacheTtl, valueName: "duration"),
            transform: Parse.duration(.zero ... .seconds(31_536_000)))
        var cacheTtl = Default.cacheTtl

        @Option(
            help: help(
                "Requests a client may send within a window; 0 for any number.", Default.rateLimit, valueName: "number"),
            transform: Parse.integer(0...1_000_000_000))
        var rateLimit = Default.rateLimit

        @Option(
            help: help("Length of that window.", Default.rateWindow, valueName: "duration"),
            transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var rateWindow = Default.rateWindow

        @Option(
            help: help("Time between two probes of a backend.", Default.healthInterval, valueName: "duration"),
            transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var healthInterval = Default.healthInterval
    }

    private static func help(_ text: String, _ value: some Any, valueName: String? = nil) -> ArgumentHelp {
        let value = (value as? [String])?.joined(separator: ", ") ?? "\(value)"
        return ArgumentHelp("\(text) (default: \(value))", valueName: valueName)
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
