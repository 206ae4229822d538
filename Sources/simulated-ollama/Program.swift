import ArgumentParser
import EventLoop
import Glibc
import HTTPCore
import HTTPServer

@main
struct SimulatedOllama: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulated-ollama",
        abstract: "A box that behaves like an Ollama server, without models or GPUs.",
        discussion: """
            It speaks Ollama's endpoints, native and /v1, with Ollama's errors, queue and pace. What it says is made \
            up of words drawn from the request: the same request gives the same words. It writes "listening on" and \
            its address to standard error when it is ready.

            GET /control tells what it has done; POST /control takes a JSON object with any of tokens, first_token_ms, \
            interval_ms, load_ms, parallel, max_queue, fault and reset_counts; DELETE /control puts everything back.

            Time spans are 500ms, 5s, 10m, 1h, or plain seconds.
            """)

    @OptionGroup var arguments: Arguments

    func run() throws {
        let settings = try arguments.settings()
        let models = try arguments.modelsOfTheBox()
        let address = ListenAddress.tcp(host: arguments.host, port: arguments.port)
        allowManyDescriptors()
        signal(SIGPIPE, SIG_IGN)
        let service = Service()
        // Blocks the signals, and must come before there is any other thread.
        Loop.events.onSignals([SIGINT, SIGTERM]) { _ in service.stop() }
        Task(executorPreference: Loop.events) { @Loop in service.start(settings, models, on: address) }
        Loop.events.run()
    }

    /// A descriptor for each of thousands of connections.
    private func allowManyDescriptors() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}

/// The box and the server in front of it, from start to stop.
@Loop
private final class Service {
    private var server: HTTPServer?

    nonisolated init() {}

    func start(_ settings: Settings, _ models: [Model], on address: ListenAddress) {
        let box = Box(settings, models: models)
        do {
            let server = try HTTPServer(handler: box)
            self.server = server
            let bound = try server.listen(on: address)
            let names = models.map(\.name.display).joined(separator: ", ")
            say("info", "listening on \(bound) as \(settings.name), with \(names.isEmpty ? "no models" : names)")
        } catch {
            say("error", "\(error)")
            exit(1)
        }
    }

    /// As Ollama does it: at once.
    func stop() {
        server?.close()
        Loop.events.stop()
    }

    private func say(_ level: String, _ text: String) {
        let line = Array("\(WallClock().now.text) \(level) \(text)\n".utf8)
        _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
