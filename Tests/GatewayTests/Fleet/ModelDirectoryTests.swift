import TestSupport
import Testing

@testable import Gateway

/// Which boxes have which models.
@Suite struct ModelDirectoryTests {
    // MARK: Lists

    @Test func `before the first list nothing is known`() {
        let directory = Directory(2)
        #expect(!directory.it.isKnown && directory.names == [] && directory.it.listed == [])
        #expect(directory.list([], at: 1) == [])
        #expect(directory.it.isKnown, "a box without models is known, too")
    }

    @Test func `a model is at all boxes that list it, in the order of the boxes`() {
        let directory = Directory(4)
        directory.list(["m", "n"], at: 2)
        directory.list(["m"], at: 0)
        directory.list(["n", "m"], at: 3)
        #expect(directory.boxes("m") == [0, 2, 3])
        #expect(directory.boxes("n") == [2, 3])
        #expect(directory.boxes("o") == [])
        #expect(directory.it.conflicts.isEmpty)
    }

    @Test func `a box whose list no longer has a model does not have it`() {
        let directory = Directory(2)
        directory.list(["m", "n"], at: 0)
        directory.list(["m"], at: 1)
        #expect(directory.list(["n"], at: 0) == [], "another has it still")
        #expect(directory.boxes("m") == [1])
        #expect(directory.list([], at: 1) == ["m"])
        #expect(directory.names == ["n"])
        #expect(directory.list(["m", "n"], at: 1) == [], "a name that is new displaces nothing")
    }

    @Test func `of a name that stands twice in one list the first counts`() {
        let directory = Directory(1)
        directory.list(["m=1", "m=2"], at: 0)
        #expect(directory.digest("m") == "1" && directory.boxes("m") == [0])
        #expect(directory.it.conflicts.isEmpty)
    }

    @Test func `only another list is a change`() {
        let directory = Directory(2)
        directory.list(["m@1"], at: 0)
        let version = directory.it.version
        directory.list(["m@1"], at: 0)
        #expect(directory.it.version == version)
        directory.list(["m@2"], at: 0)
        #expect(directory.it.version > version)
        let later = directory.it.version
        directory.list([], at: 1)
        #expect(directory.it.version > later, "the first list of a box, even an empty one")
    }

    @Test func `all models are listed once, the newest first, as the box with the newest word on them has it`() {
        let directory = Directory(3)
        directory.list(["a@5", "b@9"], at: 0)
        directory.list(["c@5", "a@7"], at: 1)
        directory.list(["d@8", "a@6"], at: 2)
        #expect(directory.it.listed.map { "\($0.name)@\($0.modified)" } == ["b@9", "d@8", "a@7", "c@5"])
        directory.list(["e@5", "f@5"], at: 2)
        #expect(directory.it.listed.map(\.name) == ["b", "a", "c", "e", "f"], "equally new ones by name")
    }

    // MARK: Conflicts

    @Test func `a name is the model that the most boxes have, and the others do not count`() {
        let directory = Directory(3)
        directory.list(["m=1@9"], at: 0)
        directory.list(["m=2@1"], at: 1)
        #expect(directory.digest("m") == "1")
        #expect(directory.list(["m=2@1"], at: 2) == ["m"])
        #expect(directory.digest("m") == "2" && directory.boxes("m") == [1, 2])
        #expect(directory.it.conflicts.map(\.name) == ["m"])
        #expect(directory.it.entries["m"]?.versions.map(\.backend) == [0, 1, 2])
        #expect(directory.list(["m=2@1"], at: 0) == [], "the last has come round")
        #expect(directory.boxes("m") == [0, 1, 2] && directory.it.conflicts.isEmpty)
    }

    @Test func `of models that equally many have the newest counts, and of equally new ones always the same`() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let directory = Directory(4)
            for box in order { directory.list([["m=1@3", "m=2@7", "m=1@5", "m=2@1"][box]], at: box) }
            #expect(directory.digest("m") == "2")
            for box in order { directory.list([["m=1@7", "m=2@7", "m=1@1", "m=2@1"][box]], at: box) }
            #expect(directory.digest("m") == "2" && directory.boxes("m") == [1, 3])
        }
    }

    @Test func `what no box has that is up does not count while another has one`() {
        let directory = Directory(3)
        for box in 0..<3 { directory.list([box == 2 ? "m=2" : "m=1"], at: box) }
        #expect(directory.digest("m") == "1", "none is up: the most")
        #expect(directory.set(2, isUp: true) == ["m"])
        #expect(directory.digest("m") == "2" && directory.boxes("m") == [2])
        #expect(directory.set(0, isUp: true) == ["m"], "one that is up is enough")
        #expect(directory.boxes("m") == [0, 1])
        #expect(directory.set(0, isUp: false) == ["m"])
        #expect(directory.set(0, isUp: false) == [], "nothing new")
    }

    @Test func `boxes that come and go displace nothing where all have the same`() {
        let directory = Directory(2)
        for box in 0..<2 { directory.list(["m", "n=\(box)"], at: box) }
        #expect(directory.digest("n") == "1")
        #expect(directory.set(0, isUp: true) == ["n"])
        #expect(directory.set(1, isUp: true) == ["n"])
        #expect(directory.boxes("m") == [0, 1])
    }

    @Test func `what is told of a name is told of the model that counts`() {
        let directory = Directory(3)
        for (box, model) in ["m=1@3", "m=2@9", "m=1@5"].enumerated() { directory.list([model], at: box) }
        #expect(directory.it.entries["m"]?.listing == Listing("m=1@5"))
    }

    // MARK: What is loaded

    @Test func `a candidate is loaded if its box has the digest loaded, whatever its name there`() {
        let directory = Directory(2)
        for box in 0..<2 { directory.list(["m=1", "n=1", "o"], at: box) }
        directory.load(["1"], at: 1)
        #expect(directory.loaded("m") == [1] && directory.loaded("n") == [1] && directory.loaded("o") == [])
        directory.load(["o"], at: 1)
        #expect(directory.loaded("m") == [] && directory.loaded("o") == [1])
    }

    @Test func `a model that takes over a name brings with it where it is loaded`() {
        let directory = Directory(2)
        directory.list(["m=1"], at: 0)
        directory.load(["2"], at: 1)
        directory.list(["m=2@1"], at: 1)
        #expect(directory.boxes("m") == [1] && directory.loaded("m") == [1])
    }

    // MARK: Turns

    @Test func `the first round begins where it is said, and goes on from there`() {
        let directory = Directory(3)
        for box in 0..<3 { directory.list(["m"], at: box) }
        #expect(directory.turns("m", among: [0, 1, 2], 2, startingAt: 4) == [1, 2])
        #expect(directory.turns("m", among: [0, 1, 2], 4, startingAt: 7) == [0, 1, 2, 0])
    }

    @Test func `a new list does not begin the round anew`() {
        let directory = Directory(3)
        for box in 0..<3 { directory.list(["m"], at: box) }
        var picked = directory.turns("m", among: [0, 1, 2], 2)
        directory.list(["m@1", "n"], at: 1)
        picked += directory.turns("m", among: [0, 1, 2], 1)
        #expect(picked.sorted() == [0, 1, 2])
    }

    @Test func `each has its turn as often as it weighs, and nobody for long at a stretch`() {
        let directory = Directory(3)
        for box in 0..<3 { directory.list(["m"], at: box) }
        directory.weights = [5, 1, 1]
        let picked = directory.turns("m", among: [0, 1, 2], 70)
        #expect([0, 1, 2].map { box in picked.count { $0 == box } } == [50, 10, 10])
        for start in 0..<63 { #expect((4...6).contains(picked[start..<start + 7].count { $0 == 0 })) }
    }

    @Test func `who alone could be picked owes the others nothing`() {
        let directory = Directory(3)
        for box in 0..<3 { directory.list(["m"], at: box) }
        #expect(directory.turns("m", among: [1], 50) == Array(repeating: 1, count: 50))
        let picked = directory.turns("m", among: [0, 1, 2], 9)
        #expect([0, 1, 2].map { box in picked.count { $0 == box } } == [3, 3, 3])
    }

    @Test func `of two that are left neither makes up for turns that others had`() {
        let directory = Directory(20)
        for box in 0..<20 { directory.list(["m"], at: box) }
        let before = directory.turns("m", among: Array(0..<20), 1)
        let other = (before[0] + 1) % 20
        let picked = directory.turns("m", among: [before[0], other].sorted(), 6)
        #expect(picked == [other, before[0], other, before[0], other, before[0]])
    }

    // MARK: Anything in any order

    @Test(arguments: 0..<10 as Range<UInt64>)
    func `whatever is listed, a directory says what counting would`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let count = Int.random(in: 1...5, using: &random)
        let directory = Directory(count)
        var lists: [[String: Listing]] = Array(repeating: [:], count: count)
        var isUp = Array(repeating: false, count: count)
        for step in 0..<600 {
            let before = chosen(lists, isUp)
            let box = Int.random(in: 0..<count, using: &random)
            let displaced: [String]
            if Int.random(in: 0..<3, using: &random) == 0 {
                isUp[box].toggle()
                displaced = directory.set(box, isUp: isUp[box])
            } else {
                var models: [String] = []
                for name in ["a", "b", "c"] where Bool.random(using: &random) {
                    let (digest, time) = (Int.random(in: 0..<3, using: &random), Int.random(in: 0..<4, using: &random))
                    models.append("\(name)=\(digest)@\(time)")
                }
                lists[box] = Dictionary(uniqueKeysWithValues: models.map { ($0.prefix(1).description, Listing($0)) })
                displaced = directory.list(models, at: box)
            }
            let after = chosen(lists, isUp)
            try #require(directory.names == after.keys.sorted(), "step \(step)")
            for (name, digest) in after {
                try #require(directory.digest(name) == digest, "step \(step)")
                let boxes = lists.indices.filter { lists[$0][name]?.digest == digest }
                try #require(directory.boxes(name) == boxes, "step \(step)")
                let isConflicted = lists.contains { $0[name].map { $0.digest != digest } ?? false }
                try #require(directory.it.entries[name]?.isConflicted == isConflicted)
            }
            try #require(displaced == before.keys.filter { after[$0] != before[$0] }.sorted(), "step \(step)")
        }
    }

    /// What each name stands for.
    private func chosen(_ lists: [[String: Listing]], _ isUp: [Bool]) -> [String: String] {
        var result: [String: String] = [:]
        for name in Set(lists.flatMap(\.keys)) {
            let digests = Set(lists.compactMap { $0[name]?.digest })
            result[name] = digests.max { isBefore($0, $1, lists.map { $0[name] }, isUp) }
        }
        return result
    }

    private func isBefore(_ a: String, _ b: String, _ listings: [Listing?], _ isUp: [Bool]) -> Bool {
        func claim(_ digest: String) -> [Int64] {
            let boxes = listings.indices.filter { listings[$0]?.digest == digest }
            let newest = boxes.compactMap { listings[$0]?.modified }.max() ?? 0
            return [boxes.contains { isUp[$0] } ? 1 : 0, Int64(boxes.count), newest]
        }
        return claim(a) == claim(b) ? a < b : claim(a).lexicographicallyPrecedes(claim(b))
    }
}

/// A directory in a box, and what the boxes have loaded.
private final class Directory {
    var it: ModelDirectory
    var weights: [Int]
    private var loads: [[String]]

    init(_ count: Int) {
        it = ModelDirectory(backends: count)
        weights = Array(repeating: 1, count: count)
        loads = Array(repeating: [], count: count)
    }

    var names: [String] { it.entries.keys.sorted() }

    /// Returns what is displaced, in order.
    @discardableResult
    func list(_ models: [String], at box: Int) -> [String] {
        it.list(models.map { Listing($0) }, at: box) { self.loads[$0].contains($1) }.sorted()
    }

    func set(_ box: Int, isUp: Bool) -> [String] { it.set(box, isUp: isUp) { self.loads[$0].contains($1) }.sorted() }

    func load(_ digests: [String], at box: Int) {
        loads[box] = digests
        it.refreshLoaded(at: box) { digests.contains($0) }
    }

    func digest(_ name: String) -> String? { it.entries[name]?.digest }
    func boxes(_ name: String) -> [Int] { it.entries[name]?.candidates.all.map(\.backend) ?? [] }

    func loaded(_ name: String) -> [Int] {
        it.entries[name]?.candidates.all.filter(\.isLoaded).map(\.backend) ?? []
    }

    /// Whose turn it is, time after time; places are boxes here.
    func turns(_ name: String, among boxes: [Int], _ count: Int, startingAt start: Int = 0) -> [Int] {
        (0..<count).map { _ in
            let places = boxes.map { Int32($0) }
            return it.entries[name]?.candidates.takeTurn(among: places, startingAt: start) { self.weights[$0] } ?? -1
        }
    }
}
