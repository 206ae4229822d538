import EventLoop

/// What a box has done, for `/control`.
@Loop
final class Counts {
    /// By method and route: `POST /api/chat`.
    private(set) var requests: [String: Int] = [:]
    /// Requests that hang by a fault: they hold no slot, but they run.
    var hanging = 0
    /// Answers of models, pulls and uploads that came to an end of the box's making.
    var finished = 0
    /// Those whose client left before.
    var cancelled = 0
    var bytesReceived = 0
    var tokensSent = 0

    /// Paths that do not exist are counted too, up to a point.
    private static let maxRoutes = 1000

    func count(_ method: String, _ pattern: String) {
        let key = method + " " + pattern
        guard requests.count < Counts.maxRoutes || requests[key] != nil else { return }
        requests[key, default: 0] += 1
    }

    func reset() {
        requests = [:]
        finished = 0
        cancelled = 0
        bytesReceived = 0
        tokensSent = 0
    }
}
