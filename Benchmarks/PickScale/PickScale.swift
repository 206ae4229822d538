import Gateway
import Glibc

/// Measures how long it takes to pick a backend, take a place there, note the answer and give the place back, among 3,
/// 100 and 1,000 backends, in each way of balancing. Lines of `name value unit`.
@main
enum PickScale {
    private static let models = 20

    static func main() {
        let chosen = CommandLine.arguments.dropFirst().compactMap { Int($0) }
        for backends in chosen.isEmpty ? [3, 100, 1000] : chosen {
            for mode in Gateway.Balance.allCases { measure(mode, backends) }
        }
    }

    private static func measure(_ mode: Gateway.Balance, _ backends: Int) {
        var balancer = fleet(of: backends, mode)
        var running: [Balancer.Lease] = []
        let rounds = 20_000_000 / (backends + 10)
        // Half of the places are taken, as in a fleet that has something to do.
        for round in 0..<2 * backends { step(&balancer, &running, round, ending: false) }
        var times: [Double] = []
        for _ in 0..<5 {
            let start = processorNanoseconds()
            for round in 0..<rounds { step(&balancer, &running, round, ending: true) }
            times.append(Double(processorNanoseconds() - start) / Double(rounds))
        }
        report("pick_\(mode.rawValue)", backends, times.sorted()[2])
    }

    private static func step(_ balancer: inout Balancer, _ running: inout [Balancer.Lease], _ round: Int, ending: Bool)
    {
        let want = Balancer.Want(model: "model-\(round % models):latest", conversation: UInt64(round) | 1)
        guard case .run(let lease) = balancer.pick(for: want, at: UInt64(round)) else {
            fatalError("nobody to serve round \(round)")
        }
        _ = balancer.answered(lease, isGood: true)
        running.append(lease)
        if ending {
            let place = round &* 7919 % running.count
            running.swapAt(place, running.count - 1)
            balancer.end(running.removeLast())
        }
    }

    private static func fleet(of count: Int, _ mode: Gateway.Balance) -> Balancer {
        var balancer = Balancer((0..<count).map { BackendState(name: "box\($0)", limit: 4) }, mode: mode)
        let listings = (0..<models).map { number in
            Listing(
                name: "model-\(number):latest", shown: "model-\(number)", digest: "\(number)", modified: 0, json: "{}")
        }
        for backend in 0..<count {
            balancer.list(listings, at: backend)
            _ = balancer.probed(backend, since: 0)
            balancer.loaded(listings.map(\.digest), at: backend)
        }
        return balancer
    }

    private static func processorNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    private static func report(_ name: String, _ backends: Int, _ nanoseconds: Double) {
        print("\(name.split(separator: "-").joined(separator: "_"))_\(backends)", nanoseconds.rounded(), "ns")
        fflush(nil)
    }
}
