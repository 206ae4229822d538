import EventLoop
import Glibc

/// The whole run: opens the streams, opens the window once all are under way, sums up, stops the loop.
@Loop
final class Load {
    struct Plan: Sendable {
        let address: sockaddr_in
        let request: [UInt8]
        let streams: Int
        let openRate: Int
        let openTimeout: Duration
        let window: Duration
    }

    private enum Phase {
        case opening, measuring, measured
    }

    let plan: Plan
    /// What all streams receive into, one after another.
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)

    private var phase = Phase.opening
    private var streams: [ObjectIdentifier: LoadStream] = [:]
    private var opened = 0
    private var openingSince: UInt64 = 0
    private var windowSince: UInt64 = 0
    private var results = Results()

    init(_ plan: Plan) {
        self.plan = plan
    }

    func start() {
        openingSince = EventLoop.monotonicNanoseconds()
        Loop.events.schedule(after: plan.openTimeout) { self.measure() }
        openDue()
    }

    /// Opens what is due by now, a millisecond's worth at a time: streams opened together would tick together.
    private func openDue() {
        guard phase == .opening else { return }
        let elapsed = EventLoop.monotonicNanoseconds() - openingSince
        let due = min(plan.streams, Int(Double(elapsed) * 1e-9 * Double(plan.openRate)) + 1, opened + 64)
        while opened < due {
            opened += 1
            let stream = LoadStream(self)
            streams[ObjectIdentifier(stream)] = stream
            stream.open(plan.address)
        }
        if opened < plan.streams { Loop.events.schedule(after: .milliseconds(1)) { self.openDue() } }
    }

    // MARK: What the streams report

    func received(bytes: Int) {
        if phase == .measuring { results.bytes += bytes }
    }

    func received(stamp: UInt64, at now: UInt64) {
        if phase == .measuring { results.lateness.record(now > stamp ? now - stamp : 0) }
    }

    func streamStarted() {
        results.started += 1
        measureIfAllStarted()
    }

    func streamEnded(_ stream: LoadStream, _ reason: LoadStream.End) {
        streams[ObjectIdentifier(stream)] = nil
        results.count(reason)
        if !stream.started { results.neverStarted += 1 }
        measureIfAllStarted()
        if phase == .measuring, streams.isEmpty { finish() }
    }

    // MARK: The window

    private func measureIfAllStarted() {
        if results.started + results.neverStarted == plan.streams { measure() }
    }

    private func measure() {
        guard phase == .opening else { return }
        phase = .measuring
        windowSince = EventLoop.monotonicNanoseconds()
        report("measuring \(streams.count) streams")
        Loop.events.schedule(after: plan.window) { self.finish() }
        if streams.isEmpty { finish() }
    }

    private func finish() {
        guard phase == .measuring else { return }
        phase = .measured
        results.windowNanoseconds = EventLoop.monotonicNanoseconds() - windowSince
        results.openAtEnd = streams.count
        report("measured")
        for stream in streams.values { stream.close() }
        streams.removeAll()
        print(results.json(asked: plan.streams))
        Loop.events.stop()
    }

    private func report(_ line: String) {
        let line = line + "\n"
        _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    }
}
