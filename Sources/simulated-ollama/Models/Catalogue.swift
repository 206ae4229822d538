import EventLoop

/// The models a box has, and the blobs it was sent.
@Loop
final class Catalogue {
    private var models: [String: Model] = [:]
    /// Digests of uploaded blobs; their bytes are not kept.
    var blobs: Set<String> = []

    init(_ models: [Model]) {
        for model in models { add(model) }
    }

    var isEmpty: Bool { models.isEmpty }

    subscript(name: ModelName) -> Model? { models[name.key] }

    func add(_ model: Model) { models[model.name.key] = model }

    /// False if there is no such model.
    func remove(_ name: ModelName) -> Bool { models.removeValue(forKey: name.key) != nil }

    /// Newest first, as `/api/tags` lists them; by name where the second is the same.
    var newestFirst: [Model] {
        models.values.sorted {
            ($1.modified.seconds, $0.name.display) < ($0.modified.seconds, $1.name.display)
        }
    }
}
