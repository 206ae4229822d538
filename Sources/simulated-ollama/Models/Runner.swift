import EventLoop

/// The settings that a loaded model is loaded with: a request that wants others makes it load again.
struct RunnerOptions: Hashable, Sendable {
    private static let integers: [(name: String, usual: Int)] = [
        ("num_ctx", 4096), ("num_batch", 512), ("num_gpu", -1), ("main_gpu", 0), ("num_thread", 0),
        ("draft_num_predict", 0),
    ]

    private var numbers: [Int]
    private var mapsMemory: Bool?
    private var shifts: Bool

    /// - Parameter options: a request's `options`, over the parameters of the model's own recipe.
    init(_ options: JSONObject, over recipe: JSONObject, shift: Bool?) {
        numbers = RunnerOptions.integers.map { option in
            ((options[option.name] ?? recipe[option.name])?.double).map { Int(max(-1e9, min($0, 1e9))) }
                ?? option.usual
        }
        mapsMemory = (options["use_mmap"] ?? recipe["use_mmap"])?.bool
        shifts = shift ?? true
    }

    var contextLength: Int { numbers[0] }
}

/// A loaded model: how many requests it works on, who waits for it, and when it goes.
@Loop
final class Runner {
    let model: Model
    let options: RunnerOptions
    /// Requests that hold a slot.
    var running = 0
    /// Requests that wait for one, first come first served, and without bound, as in Ollama.
    var waiters: [Scheduler.Waiter] = []
    var keepAlive: KeepAlive
    /// When it is unloaded if nobody wants it, in the loop's time; nil while it has never been idle.
    private(set) var expiry: UInt64?
    /// It makes room for another, or for itself with other options: it takes nobody new.
    var isRetiring = false
    private var timer: Timer?

    init(_ model: Model, options: RunnerOptions, keepAlive: KeepAlive) {
        self.model = model
        self.options = options
        self.keepAlive = keepAlive
    }

    var isIdle: Bool { running == 0 && waiters.isEmpty }

    /// Starts the clock that ends in `expired`. The timer is left standing when the model is used again and looks
    /// at the expiry anew when it fires: requests come far more often than models go.
    func becameIdle(expired: @escaping @Loop () -> Void) {
        guard case .nanoseconds(let length) = keepAlive else {
            expiry = .max
            return
        }
        expiry = Loop.events.now &+ length
        startTimer(expired)
    }

    private func startTimer(_ expired: @escaping @Loop () -> Void) {
        guard timer == nil, let expiry, expiry != .max else { return }
        timer = Loop.events.schedule(after: .nanoseconds(Int64(clamping: expiry &- min(expiry, Loop.events.now)))) {
            [weak self] in
            guard let self else { return }
            timer = nil
            guard let expiry = self.expiry, expiry > Loop.events.now || !isIdle else { return expired() }
            if isIdle { startTimer(expired) }
        }
    }

    func stop() {
        if let timer { Loop.events.cancel(timer) }
        timer = nil
    }
}
