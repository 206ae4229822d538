/// The models of the entries, as small numbers: each name stands once, however many entries it has.
struct ModelTable {
    private struct Model {
        var name: String
        /// Entries that refer to it; a record with none is free.
        var entries = 0
        var isPurged = false
    }

    private var models: [Model] = []
    private var free: [UInt32] = []
    private var numbers: [String: UInt32] = [:]
    /// What the names and the tables take.
    private(set) var bytes = 0
    /// Entries whose model was purged since.
    private(set) var purgedEntries = 0

    /// What interning a name that is not yet known takes, generously.
    static func cost(of name: String) -> Int { name.utf8.count + 192 }

    func cost(of number: UInt32) -> Int { Self.cost(of: models[Int(number)].name) }

    func name(of number: UInt32) -> String { models[Int(number)].name }

    /// The names of all models that have entries.
    var names: [String] { Array(numbers.keys) }

    /// The number of a model that gains an entry.
    mutating func retain(_ name: String) -> UInt32 {
        if let number = numbers[name] {
            models[Int(number)].entries += 1
            return number
        }
        let number = free.popLast() ?? UInt32(models.count)
        let model = Model(name: name, entries: 1)
        if number == models.count { models.append(model) } else { models[Int(number)] = model }
        numbers[name] = number
        bytes += Self.cost(of: name)
        return number
    }

    /// A model loses an entry.
    mutating func release(_ number: UInt32) {
        if models[Int(number)].isPurged { purgedEntries -= 1 }
        models[Int(number)].entries -= 1
        if models[Int(number)].entries == 0 { forget(number) }
    }

    func isPurged(_ number: UInt32) -> Bool { models[Int(number)].isPurged }

    /// Marks all present entries of a model as gone; entries stored from now on get another number.
    /// - Returns: how many there are.
    mutating func purge(_ name: String) -> Int {
        guard let number = numbers.removeValue(forKey: name) else { return 0 }
        models[Int(number)].isPurged = true
        purgedEntries += models[Int(number)].entries
        return models[Int(number)].entries
    }

    /// Marks all present entries as gone.
    mutating func purge() -> Int {
        Array(numbers.keys).reduce(0) { $0 + purge($1) }
    }

    private mutating func forget(_ number: UInt32) {
        let model = models[Int(number)]
        bytes -= Self.cost(of: model.name)
        if !model.isPurged { numbers[model.name] = nil }
        models[Int(number)].name = ""
        free.append(number)
        // With the last model go the tables, which do not shrink by themselves.
        if free.count == models.count { (models, free, numbers) = ([], [], [:]) }
    }
}
