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
        usage: """
            ollama-gateway [--port <port>] [--backends <list>] [options]
            ollama-gateway status [--url <url>] [--watch]
            """,
        discussion: """
            Point clients (the ollama CLI, ollama-python, openai SDKs, Open WebUI, …) at the gateway instead of at \
            Ollama. The same question asked twice is answered from the cache; other questions wait for a free box.

            Durations are a number with ms, s, m, h or d, such as 500ms or 90m, or of seconds; sizes are a number with KiB, \
            MiB or GiB, or of bytes. Requests to models are those to /api/generate, chat, embed and embeddings, and to \
            their like under /v1.
            """,
        version: "ollama-gateway \(Program.version)", subcommands: [StatusCommand.self])

    @OptionGroup(title: "Listening") var listening: Listening
    @OptionGroup(title: "Backends") var boxes: Boxes
    @OptionGroup(title: "Cache") var cache: CacheOptions
    @OptionGroup(title: "Limits for clients") var clients: Clients
    @OptionGroup(title: "Monitoring") var monitoring: Monitoring
    @OptionGroup(title: "Logs") var logs: Logs

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
        static let cacheMaxBytes = Size(256 << 20)
        static let cacheMaxEntry = Size(4 << 20)
        static let cacheOnly = CacheOnly.all
        static let staleIfError = Span(.zero)
        static let concurrency = 4
        static let queueLimit = 100
        static let queueTimeout = Span(.seconds(300))
        static let rateLimit = 10
        static let rateWindow = Span(.seconds(60))
        static let healthInterval = Span(.seconds(30))
        static let balance = Gateway.Balance.roundRobin
        static let retries = 2
        static let manage = Gateway.Manage.all
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
                "Ollama boxes, separated by commas: host, host:port, http://host:port or https://host/prefix, each perhaps with ;weight=N (its share), ;tier=N (the lowest that can serve does) and ;concurrency=N.",
                Default.backends,
                valueName: "list"), transform: Parse.backends)
        var backends = Default.backends

        @Option(
            help: help(
                "Which of the backends that have the model a request goes to: round-robin (in turn), least-loaded (where the model is loaded and the fewest requests run) or affinity (where the model is loaded and the conversation was before).",
                Default.balance.rawValue, valueName: "way"), transform: Parse.choice(of: Gateway.Balance.self))
        var balance = Default.balance

        @Option(
            help: help(
                "Time between two probes of a backend (GET /api/tags); one that is unhealthy is probed sooner.",
                Default.healthInterval, valueName: "duration"),
            transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var healthInterval = Default.healthInterval

        @Option(
            help: help(
                "Further backends that are asked when one fails before its answer begins.", Default.retries,
                valueName: "number"),
            transform: Parse.integer(0...100))
        var retries = Default.retries

        @Option(
            help: help(
                "Which backends pull, delete and copy go to: all, first (that is healthy) or off (changing models is refused).",
                Default.manage.rawValue, valueName: "backends"), transform: Parse.choice(of: Gateway.Manage.self))
        var manage = Default.manage

        @Option(
            help: help(
                "Requests to models that each backend runs at once; the rest wait. As OLLAMA_NUM_PARALLEL, or a little more.",
                Default.concurrency,
                valueName: "number"),
            transform: Parse.integer(1...100_000))
        var concurrency = Default.concurrency

        @Option(
            help: help(
                "Requests to models that may wait, for all backends together; one more is refused with 503.",
                Default.queueLimit,
                valueName: "number"),
            transform: Parse.integer(0...1_000_000))
        var queueLimit = Default.queueLimit

        @Option(
            help: help(
                "How long one may wait, before it is refused with 503.", Default.queueTimeout, valueName: "duration"),
            transform: Parse.duration(.milliseconds(1) ... .seconds(86_400)))
        var queueTimeout = Default.queueTimeout

        @Option(
            help: help("For name look-up, TCP and TLS together.", Default.connectTimeout, valueName: "duration"),
            transform: Parse.duration(.milliseconds(1) ... .seconds(3600)))
        var connectTimeout = Default.connectTimeout

        @Option(
            help: help(
                "From sending a request to a box to its first byte: its queue, model load and prompt; for an answer that is not streamed, all of it.",
                Default.firstByteTimeout, valueName: "duration"),
            transform: Parse.duration(.milliseconds(1) ... .seconds(86_400)))
        var firstByteTimeout = Default.firstByteTimeout

        @Option(
            help: help("Longest pause within an answer.", Default.idleTimeout, valueName: "duration"),
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
                "Requests to models that one address (IPv6: one /64) may send within a window, hits included; 0: no limit.",
                Default.rateLimit, valueName: "number"),
            transform: Parse.integer(0...1_000_000_000))
        var rateLimit = Default.rateLimit

        @Option(
            help: help("Length of that window.", Default.rateWindow, valueName: "duration"),
            transform: Parse.duration(.seconds(1) ... .seconds(86_400)))
        var rateWindow = Default.rateWindow

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
                "trace, debug, info, notice, warning, error or critical; info writes a line for each request, warning for those that a backend or the gateway failed.",
                Default.logLevel, valueName: "level"), transform: Parse.logLevel)
        var logLevel = Default.logLevel

        @Option(
            help: help(
                "text or json, to standard error.", Default.logFormat, valueName: "format"),
            transform: Parse.choice(of: LogFormat.self))
        var logFormat = Default.logFormat
    }

    struct Monitoring: ParsableArguments {
        @Flag(
            inversion: .prefixedNo,
            help: "Count what happens, for GET /metrics (Prometheus) and the page on /gateway/.")
        var metrics = true

        @Option(
            help: help(
                "OpenTelemetry collector that gets a span for each request and each call to a backend, as JSON over HTTP: http://host:4318; /v1/traces is put behind it.",
                "none", valueName: "url"),
            transform: Parse.collector)
        var otlpEndpoint: String?
    }

    struct CacheOptions: ParsableArguments {
        @Option(
            name: .shortAndLong,
            help: help(
                "How long an answer stays in the cache; 0 turns it off, and single flight with it.",
                Default.cacheTtl, valueName: "duration"),
            transform: Parse.duration(.zero ... .seconds(31_536_000)))
        var cacheTtl = Default.cacheTtl

        @Option(
            help: help(
                "Memory for all answers in the cache, overhead included.", Default.cacheMaxBytes,
                valueName: "size"),
            transform: Parse.size((1 << 20)...(1 << 40)))
        var cacheMaxBytes = Default.cacheMaxBytes

        @Option(
            help: help(
                "Largest answer that is kept; larger ones pass through.", Default.cacheMaxEntry, valueName: "size"),
            transform: Parse.size((1 << 10)...(1 << 40)))
        var cacheMaxEntry = Default.cacheMaxEntry

        @Option(
            help: help(
                "all, or deterministic: only answers to temperature 0 or a fixed seed, and embeddings.",
                Default.cacheOnly, valueName: "answers"), transform: Parse.choice(of: CacheOnly.self))
        var cacheOnly = Default.cacheOnly

        @Flag(help: "Cache answers to requests that offer tools, too.")
        var cacheTools = false

        @Option(
            help: help(
                "How long past --cache-ttl an answer may still serve when a backend cannot be reached.",
                Default.staleIfError,
                valueName: "duration"),
            transform: Parse.duration(.zero ... .seconds(31_536_000)))
        var staleIfError = Default.staleIfError
    }

    private static func help(_ text: String, _ value: some Any, valueName: String? = nil) -> ArgumentHelp {
        let value = (value as? [String])?.joined(separator: ", ") ?? "\(value)"
        return ArgumentHelp("\(text) (default: \(value))", valueName: valueName)
    }

    /// Reads the command line: options, or another command. Or ends the process: with the help or the version (status 0), or with one sentence
    /// about what is wrong (status 64, EX_USAGE).
    static func parseOrEnd() -> any ParsableCommand {
        do {
            var command = try parseAsRoot()
            // What is neither shows the help.
            if !(command is Options || command is StatusCommand) { try command.run() }
            return command
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
        settings.metrics = monitoring.metrics
        settings.otlpEndpoint = monitoring.otlpEndpoint
        settings.rateLimit = clients.rateLimit
        settings.rateWindow = clients.rateWindow.duration
        settings.cache.ttl = cache.cacheTtl.duration
        settings.cache.staleIfError = cache.staleIfError.duration
        settings.cache.maxBytes = cache.cacheMaxBytes.bytes
        settings.cache.maxEntryBytes = cache.cacheMaxEntry.bytes
        settings.cache.onlyDeterministic = cache.cacheOnly == .deterministic
        settings.cache.includesTools = cache.cacheTools
        settings.queue.concurrency = boxes.concurrency
        settings.queue.limit = boxes.queueLimit
        settings.queue.timeout = boxes.queueTimeout.duration
        settings.fleet.healthInterval = boxes.healthInterval.duration
        settings.fleet.balance = boxes.balance
        settings.fleet.retries = boxes.retries
        settings.fleet.manage = boxes.manage
        return settings
    }

    /// What a user should know was set, or was not.
    var summary: String {
        let limit =
            clients.rateLimit == 0
            ? "no rate limit" : "\(clients.rateLimit) requests per \(clients.rateWindow) and address"
        let kept =
            cache.cacheTtl.duration == .zero
            ? "no cache" : "cache \(cache.cacheMaxBytes) for \(cache.cacheTtl)"
        return "\(boxes.balance.rawValue), \(boxes.concurrency) requests at once each; \(kept); \(limit)"
    }

    var addresses: [ListenAddress] {
        listening.host.map { host in
            host.hasPrefix("unix:") ? .unix(path: String(host.dropFirst(5))) : .tcp(host: host, port: listening.port)
        }
    }
}
