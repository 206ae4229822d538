/// Which boxes have which model loaded, as far as their answers tell.
///
/// A box that has to load a model gives the load up when the client whose request began it leaves, and whoever waits
/// for the same model starts it again. So a call that nobody wants any more goes on while it may be loading what
/// others wait for. Source: Ollama's `server/sched.go`, and its issues 8398 and 7408.
struct LoadWatch {
    private struct Place: Hashable {
        let backend: Int
        let model: String
    }

    /// Ollama's default `keep_alive`, nanoseconds: for so long after an answer a model stays loaded.
    private static let keepAlive: UInt64 = 300_000_000_000
    private static let placesAtMost = 10_000

    private var answered: [Place: UInt64] = [:]

    /// Bytes: no model has a longer name.
    private static let nameAtMost = 1024

    /// A box has begun to answer with a model.
    mutating func note(backend: Int, model: String, at now: UInt64) {
        guard model.utf8.count <= LoadWatch.nameAtMost else { return }
        if answered.count >= LoadWatch.placesAtMost { answered.removeAll() }
        answered[Place(backend: backend, model: model)] = now
    }

    /// Whether a call for the model may have to load it.
    func mayLoad(backend: Int, model: String, at now: UInt64) -> Bool {
        guard let last = answered[Place(backend: backend, model: model)] else { return true }
        return now &- last > LoadWatch.keepAlive
    }
}
