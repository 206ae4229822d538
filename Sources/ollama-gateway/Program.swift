import Digests
import EventLoop
import Gateway
import Glibc
import HTTPClient
import HTTPServer
import Logging

/// Wires the parts together and runs them until a signal comes.
@main
enum Program {
    static let version = "0.1.0"

    static func main() {
        let command = Options.parseOrEnd()
        guard let options = command as? Options else {
            (command as? StatusCommand)?.show()
            exit(0)
        }
        let descriptors = raiseDescriptorLimit()

        let output = LogOutput(format: options.logs.logFormat)
        LoggingSystem.bootstrap { _ in LineLogHandler(output: output, logLevel: options.logs.logLevel) }
        let log = Logger(label: "ollama-gateway")

        Task { @Loop in
            do {
                try await serve(options, descriptors, log, output)
                finish(0, output)
            } catch {
                log.critical("\(error)")
                finish(1, output)
            }
        }
        Loop.events.run()
    }

    @Loop
    private static func serve(
        _ options: Options, _ descriptors: Int, _ log: Logger, _ output: LogOutput
    ) async throws {
        let client = try HTTPClient(options: options.client)
        let surroundings = ProcessSurroundings()
        let gateway = Gateway(
            backends: options.boxes.backends.list, transport: client, settings: options.gateway,
            hash: { bytes in SHA256.hash(bytes).withUnsafeBytes { Key(bytes: $0) } },
            clock: { LogOutput.now() },
            log: AccessLogLines(output: output, level: options.logs.logLevel), alarm: HealthTimer(),
            notices: NoticeLines(log: log), surroundings: surroundings)
        var limits = options.server
        // Clients must not use up what calls to the boxes need.
        let connectionsAtMost = max(1, descriptors - max(64, descriptors / 8))
        if limits.maxConnections > connectionsAtMost {
            log.notice("at most \(connectionsAtMost) connections: the system allows \(descriptors) descriptors")
            limits.maxConnections = connectionsAtMost
        }
        let server = try HTTPServer(handler: gateway, limits: limits)
        surroundings.server = server
        defer {
            surroundings.server = nil
            server.close()
        }
        for address in options.addresses {
            let bound = try server.listen(on: address)
            log.notice("listening on \(bound)")
        }
        log.notice("ollama-gateway \(version) in front of \(options.boxes.backends); \(options.summary)")
        gateway.start()

        let signal = try await nextSignal()
        gateway.drain()
        // What has just been ended is not waited for.
        try await Loop.sleep(for: .milliseconds(5))
        let name = signal == SIGINT ? "SIGINT" : "SIGTERM"
        let patience = options.listening.drainTimeout
        let running = server.runningAnswers
        log.notice(
            running == 0
                ? "\(name): stopping"
                : "\(name): waiting up to \(patience) for \(running) running answers; a second signal ends at once")
        let cut = await server.drain(within: patience.duration) { gateway.isEnding = true }
        await gateway.stop()
        client.close()
        if cut > 0 { log.warning("cut off after \(patience) (--drain-timeout): \(cut) connections") }
        log.notice("stopped")
    }

    /// Waits for SIGTERM or SIGINT. A second one ends the process at once.
    @Loop
    private static func nextSignal() async throws -> Int32 {
        var caught: Int32 = 0
        try await Signal.wait { arrived in
            Loop.events.onSignals([SIGTERM, SIGINT]) { number in
                if caught != 0 {
                    LogOutput.complain("a second signal: ended at once")
                    _exit(128 + number)
                }
                caught = number
                arrived.fire()
            }
        }
        return caught
    }

    @Loop
    private static func finish(_ status: Int32, _ output: LogOutput) {
        output.flush()
        exit(status)
    }

    /// Two descriptors a request: take as many as the system lets us have.
    private static func raiseDescriptorLimit() -> Int {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return Int(clamping: limit.rlim_cur)
    }
}

extension HTTPClient: Transport {}
