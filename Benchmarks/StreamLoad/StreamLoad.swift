import ArgumentParser
import EventLoop
import Glibc

/// Opens many streams of `POST /api/generate` at a steady rate, keeps them all open for a while, and tells how late
/// each chunk came.
///
/// A box started with `--stamp` writes the time into each token; both sides read the same CLOCK_MONOTONIC.
@main
struct StreamLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stream-load",
        abstract: "Hold many streams open and measure how late their chunks are.",
        discussion: """
            The window of measurement opens when every stream has had its first chunk (or has failed). Standard error \
            then says `measuring`, and `measured` at its end; standard output gets one JSON object. Only boxes on \
            loopback addresses are loaded.
            """
    )

    @Option(help: "IPv4 loopback address of the server.")
    var host = "127.0.0.1"

    @Option(help: "Port of the server.")
    var port: UInt16

    @Option(help: "Path to POST to.")
    var path = "/api/generate"

    @Option(help: "Model to ask for.")
    var model = "llama3.2"

    @Option(help: "Streams to hold open (1 - 50000).")
    var streams = 1000

    @Option(help: "Streams opened a second (1 - 20000).")
    var openRate = 500

    @Option(help: "Seconds after which opening is given up (1 - 300).")
    var openTimeout = 60

    @Option(help: "Seconds to measure (1 - 300).")
    var seconds = 10

    func validate() throws {
        try check("--streams", streams, 1...50_000)
        try check("--open-rate", openRate, 1...20_000)
        try check("--open-timeout", openTimeout, 1...300)
        try check("--seconds", seconds, 1...300)
        guard loopbackAddress != nil else {
            throw ValidationError("--host must be an IPv4 loopback address (127.x.x.x), not \(host)")
        }
        guard (path + model).utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != 0x22 && $0 != 0x5c }) else {
            throw ValidationError("--path and --model take printable ASCII without quotes, backslashes and spaces")
        }
    }

    func run() throws {
        raiseDescriptorLimit()
        guard let address = loopbackAddress else { return }
        let plan = Load.Plan(
            address: address, request: request, streams: streams, openRate: openRate,
            openTimeout: .seconds(openTimeout), window: .seconds(seconds))
        Loop.onLoop { Load(plan).start() }
        Loop.events.run()
    }

    private func check(_ option: String, _ value: Int, _ allowed: ClosedRange<Int>) throws {
        guard allowed.contains(value) else {
            throw ValidationError("\(option) must be \(allowed.lowerBound) to \(allowed.upperBound), not \(value)")
        }
    }

    private var loopbackAddress: sockaddr_in? {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else { return nil }
        return UInt32(bigEndian: address.sin_addr.s_addr) >> 24 == 127 ? address : nil
    }

    private var request: [UInt8] {
        let body = #"{"model":"\#(model)","prompt":"Count the seconds, one by one.","stream":true}"#
        let head = """
            POST \(path) HTTP/1.1\r
            Host: \(host):\(port)\r
            Content-Type: application/json\r
            Content-Length: \(body.utf8.count)\r
            \r

            """
        return Array((head + body).utf8)
    }

    private func raiseDescriptorLimit() {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}
