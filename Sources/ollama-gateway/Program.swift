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
        let options = Options.parseOrEnd()
        raiseDescriptorLimit()

        let output = LogOutput(format: options.logs.logFormat)
        LoggingSystem.bootstrap { _ in LineLogHandler(output: output, logLevel: options.logs.logLevel) }
        let log = Logger(label: "ollama-gateway")

        Task { @Loop in
            do {
                try await serve(options, log, output)
                finish(0, output)
            } catch {
                log.critical("\(error)")
                finish(1, output)
            }
        }
        Loop.events.run()
    }

    @Loop
    private static func serve(_ options: Options, _ log: Logger, _ output: LogOutput) async throws {
        let client = try HTTPClient(options: options.client)
        let gateway = Gateway(
            backends: options.boxes.backends.list, transport: client, settings: options.gateway,
            clock: { LogOutput.now() },
            log: AccessLogLines(output: output, level: options.logs.logLevel))
        let server = try HTTPServer(handler: gateway, limits: options.server)
        defer { server.close() }
        for address in options.addresses {
            let bound = try server.listen(on: address)
            log.notice("listening on \(bound)")
        }
        log.notice("ollama-gateway \(version) in front of \(options.boxes.backends)")

        let signal = try await nextSignal()
        let name = signal == SIGINT ? "SIGINT" : "SIGTERM"
        let patience = options.listening.drainTimeout
        let running = server.runningAnswers
        log.notice(running == 0 ? "\(name)" : "\(name): \(running) running answers may take \(patience) to finish")
        let cut = await server.drain(within: patience.duration) { gateway.isEnding = true }
        client.close()
        if cut > 0 { log.warning("cut after \(patience): \(cut) connections") }
        log.notice("ended")
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
    private static func raiseDescriptorLimit() {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}

extension HTTPClient: Transport {}
