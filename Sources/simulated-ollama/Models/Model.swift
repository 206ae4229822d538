import Digests

/// A model that a box has.
final class Model: Sendable {
    let name: ModelName
    /// Of its manifest, 64 hexadecimal digits. Copies share it; what a model answers hangs on it, not on the name.
    let digest: String
    let family: Family
    let modified: Moment
    /// What `/api/create` added: system prompt, template, parameters, the model it was made from.
    let recipe: Recipe

    struct Recipe: Sendable {
        var parent = ""
        var system = ""
        var template = "{{ .Prompt }}"
        var license = ""
        var parameters = JSONObject()
    }

    /// A model as a registry would deliver it: the same name has the same digest on every box, unless it is of another
    /// version.
    convenience init(_ name: ModelName, version: String = "", modified: Moment? = nil) {
        let digest = SHA256.hash("manifest of \(name.key)" + (version.isEmpty ? "" : " at \(version)"))
        // A day in the spring of 2026, so that lists have an order and equal boxes give equal lists.
        let age = digest.withUnsafeBytes { Int($0.loadUnaligned(as: UInt32.self) % (90 * 86_400)) }
        self.init(
            name: name, digest: digest.description, family: .of(name),
            modified: modified ?? Moment(seconds: 1_772_323_200 + age), recipe: Recipe())
    }

    init(name: ModelName, digest: String, family: Family, modified: Moment, recipe: Recipe) {
        self.name = name
        self.digest = digest
        self.family = family
        self.modified = modified
        self.recipe = recipe
    }

    func copied(to name: ModelName, modified: Moment) -> Model {
        Model(name: name, digest: digest, family: family, modified: modified, recipe: recipe)
    }

    /// What runs when it is loaded; a model made from another runs the other's weights, but not its recipe.
    var runnerKey: String { digest }

    /// The object `details` of `/api/tags`, `/api/ps` and `/api/show`.
    func details(withLengths: Bool) -> JSONValue {
        var details: [JSONObject.Member] = [
            ("parent_model", .string(recipe.parent)),
            ("format", "gguf"),
            ("family", .string(family.architecture)),
            ("families", .array([.string(family.architecture)])),
            ("parameter_size", .string(family.parameterSize)),
            ("quantization_level", .string(family.quantization)),
        ]
        if withLengths {
            details.append(("context_length", .integer(family.contextLength)))
            details.append(("embedding_length", .integer(family.embeddingLength)))
        }
        return .object(JSONObject(members: details))
    }
}
