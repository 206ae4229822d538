import ArgumentParser

/// The command line.
struct Arguments: ParsableArguments {
    @Option(help: "Address to listen on.")
    var host = "127.0.0.1"

    @Option(help: "Port to listen on; 0 takes a free one and says which.")
    var port = 11434

    @Option(help: "The box's name, as /control tells it.")
    var name = "box"

    @Option(
        help: ArgumentHelp(
            """
            Models the box has, separated by commas. What one can do goes by its name: *embed* and *minilm* give \
            vectors, qwen3*, deepseek-r1*, gpt-oss* and *think* think, codellama* and *coder* take a suffix, llava* \
            and *vision* see; llama2*, gemma* and phi* take no tools. Behind an @ may stand a version, as in \
            llama3.2@old: a model of the same name with another digest; a pull replaces it by the registry's.
            """, valueName: "a,b,c"))
    var models = "llama3.2,mistral,nomic-embed-text"

    @Option(help: ArgumentHelp("Tokens per answer, unless the request wants fewer.", valueName: "n"))
    var tokens = 32

    @Option(help: ArgumentHelp("From having a slot to the first token.", valueName: "time"))
    var firstToken = Span(milliseconds: 50)

    @Option(help: ArgumentHelp("Between two tokens; 0 writes them as fast as they are taken.", valueName: "time"))
    var interval = Span(milliseconds: 20)

    @Option(help: ArgumentHelp("A cold load of a model; one model is loaded at a time.", valueName: "time"))
    var loadTime = Span(milliseconds: 0)

    @Option(
        help: ArgumentHelp("Requests that one model works on at a time; further ones wait in line.", valueName: "n"))
    var parallel = 1

    @Option(help: ArgumentHelp("Requests that may wait for a model to be loaded; further get 503.", valueName: "n"))
    var maxQueue = 512

    @Option(help: ArgumentHelp("Models loaded at a time.", valueName: "n"))
    var maxLoaded = 3

    @Option(help: ArgumentHelp("How long a model stays loaded after its last request.", valueName: "time"))
    var keepAlive = Span(milliseconds: 300_000)

    @Flag(help: "Make each token the box's CLOCK_MONOTONIC time in nanoseconds, followed by a space.")
    var stamp = false

    @Option(
        help: ArgumentHelp(
            """
            A fault to begin with, as POST /control takes it under "fault", e.g. '{"kind":"cut","after":3,"times":1}'. \
            Kinds: \(Fault.Kind.allCases.map(\.rawValue).joined(separator: ", ")).
            """, valueName: "json"))
    var fault: String?

    func validate() throws {
        guard (0...65_535).contains(port) else { throw ValidationError("--port is \(port); allowed are 0 to 65535.") }
        guard tokens >= 0 else { throw ValidationError("--tokens is \(tokens); allowed are 0 and more.") }
        guard parallel >= 1 else { throw ValidationError("--parallel is \(parallel); allowed are 1 and more.") }
        guard maxQueue >= 0 else { throw ValidationError("--max-queue is \(maxQueue); allowed are 0 and more.") }
        guard maxLoaded >= 1 else { throw ValidationError("--max-loaded is \(maxLoaded); allowed are 1 and more.") }
        _ = try modelsOfTheBox()
        _ = try parsedFault()
    }

    func modelsOfTheBox() throws -> [Model] {
        try models.split(separator: ",").map { text in
            let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard let name = ModelName(parts[0]) else {
                throw ValidationError(
                    "--models has \"\(text)\", which is no name of a model ([namespace/]model[:tag][@version]).")
            }
            return Model(name, version: parts.count == 2 ? parts[1] : "")
        }
    }

    func settings() throws -> Settings {
        Settings(
            name: name, tokens: tokens, firstToken: firstToken.nanoseconds, interval: interval.nanoseconds,
            loadTime: loadTime.nanoseconds, parallel: parallel, maxQueue: maxQueue, maxLoaded: maxLoaded,
            keepAlive: .nanoseconds(keepAlive.nanoseconds), stamps: stamp, fault: try parsedFault())
    }

    private func parsedFault() throws -> Fault? {
        guard var text = fault else { return nil }
        do {
            let value = try text.withUTF8 { try JSONParser.parse(UnsafeRawBufferPointer($0)) }
            return try Fault(value)
        } catch let problem as JSONProblem {
            throw ValidationError("--fault is not understood: \(problem.message).")
        }
    }
}

/// A time span on the command line: `500ms`, `5s`, `10m`, `1h`, or plain seconds.
struct Span: ExpressibleByArgument, CustomStringConvertible {
    let nanoseconds: UInt64

    init(milliseconds: UInt64) { nanoseconds = milliseconds * 1_000_000 }

    init?(argument: String) {
        let digits = argument.prefix { $0.isNumber || $0 == "." }
        let units: [String: Double] = ["ms": 1e6, "s": 1e9, "": 1e9, "m": 60e9, "h": 3600e9]
        guard let number = Double(digits), let unit = units[String(argument.dropFirst(digits.count))],
            number * unit < 1e18
        else { return nil }
        nanoseconds = UInt64(number * unit)
    }

    var description: String {
        let milliseconds = nanoseconds / 1_000_000
        if milliseconds == 0 { return "0" }
        if milliseconds % 60_000 == 0 { return "\(milliseconds / 60_000)m" }
        return milliseconds % 1000 == 0 ? "\(milliseconds / 1000)s" : "\(milliseconds)ms"
    }

    var defaultValueDescription: String { description }
}
