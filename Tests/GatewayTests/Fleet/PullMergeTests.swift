import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// One answer to `/api/pull` made of several.
@Suite struct PullMergeTests {
    fileprivate static let manifest = #"{"status":"pulling manifest"}"#
    fileprivate static let verifying = #"{"status":"verifying sha256 digest"}"#
    fileprivate static let writing = #"{"status":"writing manifest"}"#
    fileprivate static let removing = #"{"status":"removing unused layers"}"#
    fileprivate static let success = #"{"status":"success"}"#
    fileprivate static let ending = [verifying, writing, removing, success]

    fileprivate static func layer(_ name: Character, _ completed: Int, of total: Int = 100) -> String {
        let digest = String(repeating: name, count: 64)
        let tail = completed > 0 ? #","completed":\#(completed)}"# : "}"
        return #"{"status":"pulling \#(digest.prefix(12))","digest":"sha256:\#(digest)","total":\#(total)"# + tail
    }

    fileprivate static func error(_ words: String) -> String { #"{"error":"\#(words)"}"# }

    /// A merge and what the client has been told.
    fileprivate struct Pull {
        var merge: PullMerge
        var told = ""

        init(_ count: Int) { merge = PullMerge(backends: (1...count).map { "box\($0)" }) }

        mutating func take(_ bytes: some Sequence<UInt8>, from box: Int) -> String {
            let text = Array(bytes).withUnsafeBytes { merge.take($0, from: box - 1).finish().text }
            told += text
            return text
        }

        /// Whole lines from a box; returns those that the client is told.
        @discardableResult mutating func say(_ box: Int, _ lines: String...) -> [String] { say(box, lines) }

        @discardableResult mutating func say(_ box: Int, _ lines: [String]) -> [String] {
            take(lines.map { $0 + "\n" }.joined().utf8, from: box).wholeLines
        }

        @discardableResult mutating func end(_ box: Int, _ failure: String? = nil) -> [String] {
            let text = merge.ended(box - 1, failure: failure).finish().text
            told += text
            return text.wholeLines
        }
    }

    // MARK: When all goes well

    @Test func `what one box says is passed on as it is`() {
        let lines = [Self.manifest, Self.layer("a", 0), Self.layer("a", 30), Self.layer("a", 100)] + Self.ending
        var pull = Pull(1)
        for line in lines { #expect(pull.say(1, line) == [line]) }
        #expect(pull.merge.outcome == .success)
        #expect(pull.end(1) == [])
    }

    @Test func `a layer has come as far as on the box that is last with it`() {
        var pull = Pull(3)
        #expect(pull.say(1, Self.manifest, Self.layer("a", 40)) == [Self.manifest, Self.layer("a", 0)])
        #expect(pull.say(2, Self.manifest, Self.layer("a", 30)) == [])
        #expect(pull.say(3, Self.manifest, Self.layer("a", 50)) == [Self.layer("a", 30)])
        #expect(pull.say(3, Self.layer("a", 60)) == [])
        #expect(pull.say(2, Self.layer("a", 70)) == [Self.layer("a", 40)])
        #expect(pull.say(2, Self.layer("a", 70)) == [])
    }

    @Test func `what has come is not taken back, even if a box begins anew`() {
        var pull = Pull(2)
        pull.say(1, Self.layer("a", 40))
        #expect(pull.say(2, Self.layer("a", 40)) == [Self.layer("a", 40)])
        #expect(pull.say(2, Self.layer("a", 10)) == [])
        #expect(pull.say(2, Self.layer("a", 40), Self.layer("a", 41)) == [])
        #expect(pull.say(1, Self.layer("a", 50)) == [Self.layer("a", 41)])
    }

    @Test func `the total is the largest that a box has said, and no layer has more than that`() {
        var pull = Pull(2)
        #expect(pull.say(1, Self.layer("a", 90, of: 80)) == [Self.layer("a", 0, of: 80)])
        #expect(pull.say(2, Self.layer("a", 90, of: 0)) == [Self.layer("a", 80, of: 80)])
        #expect(pull.say(2, Self.layer("a", 80, of: 100)) == [Self.layer("a", 80)])
        #expect(pull.say(2, Self.layer("a", 90, of: 70)) == [Self.layer("a", 90)])
    }

    @Test func `a stage has begun when the last box has come to it, with all layers full before it`() {
        var pull = Pull(2)
        pull.say(1, Self.manifest, Self.layer("a", 100), Self.layer("b", 98))
        pull.say(2, Self.manifest, Self.layer("a", 100), Self.layer("b", 20))
        #expect(pull.say(1, Self.verifying, Self.writing) == [])
        #expect(pull.say(2, Self.layer("b", 97)) == [Self.layer("b", 97)])
        #expect(pull.say(2, Self.verifying) == [Self.layer("b", 100), Self.verifying])
        #expect(pull.say(1, Self.removing, Self.success) == [])
        #expect(pull.say(2, Self.writing) == [Self.writing])
        #expect(pull.say(2, Self.success) == [Self.removing, Self.success])
    }

    @Test func `a box that has the model already holds up nobody`() {
        var pull = Pull(2)
        let told = pull.say(1, [Self.manifest, Self.layer("a", 100), Self.layer("b", 7, of: 7)] + Self.ending)
        #expect(told == [Self.manifest, Self.layer("a", 0), Self.layer("b", 0, of: 7)])
        #expect(pull.end(1) == [])
        #expect(pull.say(2, Self.manifest, Self.layer("a", 1)) == [Self.layer("a", 1)])
        #expect(pull.say(2, Self.layer("b", 7, of: 7)) == [Self.layer("b", 7, of: 7)])
        #expect(pull.say(2, Self.ending) == [Self.layer("a", 100)] + Self.ending)
    }

    @Test func `the manifest is told of once, however often it is pulled, and not amid the layers`() {
        var pull = Pull(2)
        #expect(pull.say(1, Self.manifest, Self.manifest, Self.layer("a", 10)) == [Self.manifest, Self.layer("a", 0)])
        #expect(pull.say(2, Self.layer("a", 20), Self.manifest) == [Self.layer("a", 10)])
        #expect(pull.say(1, Self.layer("a", 30)) == [Self.layer("a", 20)], "the other is where it was")
    }

    @Test func `layers that only one box has are full when the others are past theirs`() {
        var pull = Pull(2)
        pull.say(1, Self.manifest, Self.layer("a", 50))
        #expect(pull.say(2, Self.manifest, Self.layer("b", 60)) == [Self.layer("b", 0)])
        #expect(pull.say(1, Self.verifying) == [Self.layer("b", 60)])
        #expect(pull.say(1, Self.layer("c", 5)) == [], "it is past them")
        #expect(pull.say(2, Self.verifying) == [Self.layer("a", 100), Self.layer("b", 100), Self.verifying])
    }

    @Test func `stages that we do not know come once, in an order that all boxes agree with`() {
        let (cooling, drying) = (#"{"status":"cooling"}"#, #"{"status":"drying"}"#)
        var pull = Pull(3)
        #expect(pull.say(1, Self.manifest, drying, drying) == [Self.manifest, drying], "before its layers: at once")
        #expect(pull.say(2, Self.manifest, drying, Self.layer("a", 100)) == [Self.layer("a", 0)])
        pull.say(1, [Self.layer("a", 100), Self.verifying, cooling] + Self.ending.dropFirst())
        #expect(pull.say(3, Self.manifest, cooling, Self.layer("a", 100)) == [Self.layer("a", 100)], "too late")
        pull.say(3, Self.verifying, Self.removing)
        #expect(pull.say(2, Self.writing) == [Self.verifying, cooling, Self.writing])
        #expect(pull.say(2, Self.verifying, cooling, Self.manifest, drying) == [])
        #expect(pull.say(2, Self.success) == [Self.removing])
        #expect(pull.end(3).count == 1)
    }

    @Test func `a known stage takes its place among those that a box has run ahead to`() {
        var pull = Pull(2)
        pull.say(1, Self.layer("a", 100), Self.removing)
        pull.say(1, Self.verifying)
        pull.say(2, Self.layer("a", 100))
        #expect(pull.say(2, Self.ending) == Self.ending.dropLast())
        #expect(pull.say(1, Self.success) == [Self.success])
    }

    @Test func `a stage that comes too late for its place is left out`() {
        var pull = Pull(2)
        pull.say(1, Self.removing)
        #expect(pull.say(2, Self.removing, Self.verifying) == [Self.removing])
        #expect(pull.say(1, Self.success) == [])
        #expect(pull.say(2, Self.success) == [Self.success])
    }

    @Test func `fields and objects that we do not know are dropped, blank lines too`() {
        var pull = Pull(1)
        #expect(pull.say(1, #"{"x":[{}], "status" : "pulling manifest", "total": 3}"#) == [Self.manifest])
        #expect(pull.say(1, "", " \r", "{}", #"{"status":3}"#, #"{"error":null,"x":1}"#, #"{"error":""}"#) == [])
        #expect(pull.say(1, #"{"status":"p\u0009\u2028","digest":null}"# + "\r") == [#"{"status":"p\t\u2028"}"#])
        let odd = #"{"status":"s","digest":"d","total":1.5,"completed":-3}"#
        #expect(pull.say(1, odd) == [#"{"status":"s","digest":"d"}"#])
        #expect(!pull.merge.isOver)
    }

    @Test func `a success is one even if its line is not ended`() {
        var pull = Pull(1)
        #expect(pull.take(Self.success.utf8, from: 1) == "")
        #expect(pull.end(1) == [Self.success])
    }

    // MARK: Failures

    @Test func `a box that fails amid the pull leaves it to the others, and is named at the end`() {
        var pull = Pull(3)
        for box in 1...3 { pull.say(box, Self.manifest, Self.layer("a", 10 * box)) }
        #expect(pull.say(1, Self.error("no space left")) == [Self.layer("a", 20)])
        #expect(pull.say(1, Self.layer("a", 90), Self.success) == [], "it has failed")
        pull.say(2, Self.ending)
        #expect(pull.end(2, "too late") == [])
        #expect(pull.say(3, [Self.verifying, Self.writing]) == [Self.layer("a", 100), Self.verifying, Self.writing])
        let message = "pull failed on box1: no space left; it succeeded on box2, box3"
        #expect(pull.say(3, Self.success) == [Self.removing, Self.error(message)])
        #expect(pull.merge.outcome == .failed(message))
    }

    @Test func `what waits for a box goes on when that box fails, and the last failure ends the stream`() {
        var pull = Pull(2)
        pull.say(1, [Self.manifest, Self.layer("a", 100)] + Self.ending)
        let told = pull.end(2, "cannot connect")
        let error = Self.error("pull failed on box2: cannot connect; it succeeded on box1")
        #expect(told == [Self.layer("a", 100)] + Self.ending.dropLast() + [error])
    }

    @Test func `if all fail the stream ends at once, and no bar is filled`() {
        var pull = Pull(2)
        pull.say(1, Self.manifest, Self.layer("a", 10))
        #expect(pull.say(1, Self.error("x")) == [])
        #expect(!pull.merge.isOver && pull.merge.outcome == nil)
        #expect(pull.end(2, "x") == [Self.error("x (on box1, box2)")])
        #expect(pull.merge.isOver)
    }

    @Test(arguments: [
        (["x"], "x"),
        (["x", "x", "x"], "x (on box1, box2, box3)"),
        (["x", "y"], "box1: x; box2: y"),
        (["x", "y", "x"], "box1, box3: x; box2: y"),
        ([nil, "x"], "pull failed on box2: x; it succeeded on box1"),
        (["x", nil, "x"], "pull failed on box1, box3: x; it succeeded on box2"),
        (["x", nil, "y", "x", nil], "pull failed on box1, box4: x; on box3: y; it succeeded on box2, box5"),
    ])
    func `an error says which boxes failed, and why`(reasons: [String?], message: String) {
        var pull = Pull(reasons.count)
        for (index, reason) in reasons.enumerated() {
            pull.say(index + 1, Self.manifest, reason.map(Self.error) ?? Self.success)
        }
        #expect(pull.told.wholeLines == [Self.manifest, Self.error(message)])
    }

    @Test(arguments: [
        (Self.manifest + "\n", nil, "the stream ended without success"),
        ("", nil, "the stream ended without success"),
        (Self.manifest + "\n" + Self.success.dropLast(), nil, "the stream ended without success"),
        (Self.manifest + "\n" + Self.success.dropLast(), "connection lost", "connection lost"),
        (Self.success, "connection lost", "connection lost"),
        ("<html>\n", nil, "a line of its answer is not a JSON object"),
        ("3\n", nil, "a line of its answer is not a JSON object"),
        (Self.success + Self.success + "\n", nil, "a line of its answer is not a JSON object"),
        (
            #"{"status":["# + String(repeating: "1,", count: 1000) + "1]}\n", nil,
            "a line of its answer is not a JSON object"
        ),
        (#"{"error":{"code": 7}}"#, nil, #"{\"code\": 7}"#),
        (#"{"error":"a \"b\"\n","status":"success"}"#, nil, #"a \"b\"\n"#),
    ])
    func `an answer that does not end with success is a failure`(body: String, failure: String?, words: String) {
        var pull = Pull(1)
        _ = pull.take(body.utf8, from: 1)
        pull.end(1, failure)
        #expect(pull.told.wholeLines.last == Self.error(words))
        #expect(pull.told.wholeLines.filter { $0.hasPrefix(#"{"error""#) }.count == 1)
    }

    // MARK: Limits

    @Test(arguments: [61, 4096, 1 << 20, 1 << 22])
    func `a line of one mebibyte is read, a longer one is a failure`(piece: Int) {
        for extra in [0, 1] {
            let line =
                Self.manifest + String(repeating: " ", count: (1 << 20) - Self.manifest.utf8.count + extra) + "\n"
            let bytes = Array(line.utf8)
            var pull = Pull(1)
            for start in stride(from: 0, to: bytes.count, by: piece) {
                _ = pull.take(bytes[start..<min(start + piece, bytes.count)], from: 1)
            }
            let failure = Self.error("a line of its answer is longer than 1 MiB")
            #expect(pull.told.wholeLines == [extra == 0 ? Self.manifest : failure])
        }
    }

    @Test func `a box that goes on for ever is remembered in part, and does no harm to the others`() {
        var pull = Pull(2)
        let long = String(repeating: "s", count: 513)
        let digests = (0..<1200).map { #"{"status":"s","digest":"\#($0)","total":9}"# }
        let stages = (0..<300).map { #"{"status":"stage \#($0)"}"# }
        pull.say(1, [#"{"status":"\#(long)"}"#, #"{"status":"s","digest":"\#(long)","total":9}"#] + digests)
        #expect(pull.told.wholeLines == Array(digests.prefix(1000)))
        #expect(pull.say(1, stages) == [])
        let rest = pull.say(2, Self.success)
        #expect(rest == digests.prefix(1000).map { $0.dropLast() + #","completed":9}"# } + stages.prefix(100))
        let words = String(repeating: "é", count: 1025)
        let message = "pull failed on box1: \(words.dropLast())…; it succeeded on box2"
        #expect(pull.say(1, Self.error(words)) == [Self.error(message)])
    }

    // MARK: Cuts and random runs

    @Test func `it does not matter where a body is cut`() {
        let error = #"{"error":"disk \"é\" full"}"#
        let bodies = [
            ([Self.manifest, Self.layer("a", 50), Self.layer("b", 100)] + Self.ending),
            [Self.manifest, Self.layer("a", 20), "", Self.layer("b", 0), error],
        ].map { Array(($0.joined(separator: "\r\n") + "\n").utf8) }
        func told(cutting box: Int, at cut: Int) -> String {
            var pull = Pull(2)
            for index in 1...2 {
                let cut = index == box ? cut : 0
                _ = pull.take(bodies[index - 1][..<cut], from: index)
                _ = pull.take(bodies[index - 1][cut...], from: index)
                pull.end(index)
            }
            return pull.told
        }
        let whole = told(cutting: 1, at: 0)
        #expect(whole.hasSuffix("it succeeded on box1\"}\n"))
        for box in 1...2 {
            for cut in 0...bodies[box - 1].count { #expect(told(cutting: box, at: cut) == whole, "box \(box), \(cut)") }
        }
    }

    @Test(arguments: 0..<8 as Range<UInt64>)
    func `whatever boxes say in whatever order, the client is told what a simple reckoning tells`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var outcomes: Set<Bool> = []
        for _ in 0..<250 {
            var trial = Trial(&random)
            try trial.run(&random)
            outcomes.insert(trial.pull.merge.outcome == .success)
        }
        #expect(outcomes.count == 2)
    }

    /// A few boxes with random answers in random order; checked at each line.
    fileprivate struct Trial {
        private static let stages = ["verifying sha256 digest", "writing manifest", "removing unused layers"]

        struct Line: Decodable {
            var status: String?
            var error: String?
            var digest: String?
            var total: Int?
            var completed: Int?
        }

        /// What a box has yet to say, and where it is.
        struct Script {
            var lines: [String]
            var failure: String?
            var completed: [String: Int] = [:]
            /// Of the stages it has come to; 3 when it has succeeded.
            var rank = -1
            var hasFailed = false
            var hasEnded = false
            /// Of the next line, how much has been sent ahead of its turn, in the second run.
            var ahead = 0

            var isAtLayers: Bool { !hasFailed && rank < 0 }
        }

        var pull: Pull
        /// The same lines in the same order, in pieces.
        var cut: Pull
        var scripts: [Script]
        var told: [String: Int] = [:]
        var expected: [String: Int] = [:]
        var statuses: [String] = []

        init(_ random: inout SeededGenerator) {
            let count = Int.random(in: 1...4, using: &random)
            let failures = Bool.random(using: &random)
            pull = Pull(count)
            cut = pull
            scripts = (0..<count).map { _ in Script(failing: failures, &random) }
        }

        mutating func run(_ random: inout SeededGenerator) throws {
            while let box = scripts.indices.filter({ !scripts[$0].hasEnded }).randomElement(using: &random) {
                sendAhead(&random)
                try step(box)
            }
            #expect(pull.merge.isOver)
            #expect(pull.told == cut.told)
            let succeeded = scripts.allSatisfy { $0.rank == 3 }
            #expect(pull.merge.outcome == .success || !succeeded)
            #expect(pull.told.wholeLines.last == PullMergeTests.success || !succeeded)
            #expect(pull.told.wholeLines.last?.hasPrefix(#"{"error""#) == !succeeded)
            #expect(Set(statuses).count == statuses.count)
            #expect(pull.say(1, PullMergeTests.manifest) == [] && pull.end(1) == [])
        }

        /// One line of one box, or its end.
        private mutating func step(_ box: Int) throws {
            let wasOver = pull.merge.isOver
            let line = scripts[box].lines.isEmpty ? nil : scripts[box].lines.removeFirst()
            let lines: [String]
            if let line {
                lines = pull.say(box + 1, line)
                _ = cut.take((line + "\n").utf8.dropFirst(scripts[box].ahead), from: box + 1)
                scripts[box].ahead = 0
            } else {
                lines = pull.end(box + 1, scripts[box].failure)
                cut.end(box + 1, scripts[box].failure)
            }
            #expect(lines.isEmpty || !wasOver)
            scripts[box].note(line)
            #expect(pull.merge.isOver == scripts.allSatisfy { $0.hasFailed || $0.rank == 3 })
            reckon()
            for line in lines { try check(line) }
            #expect(told == expected || scripts.allSatisfy(\.hasFailed))
        }

        private mutating func sendAhead(_ random: inout SeededGenerator) {
            for box in scripts.indices {
                guard let line = scripts[box].lines.first else { continue }
                let place = Int.random(in: scripts[box].ahead...line.utf8.count, using: &random)
                let part = line.utf8.prefix(place).dropFirst(scripts[box].ahead)
                #expect(cut.take(part, from: box + 1) == "")
                scripts[box].ahead = place
            }
        }

        /// How far each layer is, by a look at every box.
        private mutating func reckon() {
            for script in scripts { for digest in script.completed.keys { expected[digest, default: 0] += 0 } }
            guard !scripts.allSatisfy(\.hasFailed) else { return }
            for digest in expected.keys {
                let least = scripts.filter(\.isAtLayers).map { $0.completed[digest] ?? 0 }.min() ?? 100
                expected[digest] = max(expected[digest] ?? 0, least)
            }
        }

        private mutating func check(_ text: String) throws {
            let line = try decode(Line.self, text)
            if let digest = line.digest {
                let completed = line.completed ?? 0
                #expect(line.total == 100 && line.completed != 0)
                #expect(told[digest].map { $0 < completed } ?? true, "only what is new, and never less")
                #expect(statuses.allSatisfy { $0 == "pulling manifest" })
                told[digest] = completed
            } else if let status = line.status {
                checkStage(status)
            } else {
                #expect(line.error != nil && pull.told.hasSuffix(text + "\n"))
            }
        }

        private mutating func checkStage(_ status: String) {
            if let rank = Self.stages.firstIndex(of: status) {
                #expect(scripts.allSatisfy { $0.hasFailed || $0.rank >= rank })
                #expect(statuses.compactMap(Self.stages.firstIndex).allSatisfy { $0 < rank })
                #expect(told.values.allSatisfy { $0 == 100 })
            } else if status == "success" {
                #expect(scripts.allSatisfy { $0.rank == 3 })
                #expect(pull.told.hasSuffix(PullMergeTests.success + "\n"))
            } else {
                #expect(status == "pulling manifest" && statuses.isEmpty && told.isEmpty)
            }
            statuses.append(status)
        }
    }
}

extension PullMergeTests.Trial.Script {
    /// A pull of some of four layers; if `failing`, perhaps one that does not end well.
    fileprivate init(failing: Bool, _ random: inout SeededGenerator) {
        lines = [PullMergeTests.manifest]
        for name: Character in ["a", "b", "c", "d"] where Int.random(in: 0..<4, using: &random) > 0 {
            for _ in 0...Int.random(in: 0...3, using: &random) {
                lines.append(PullMergeTests.layer(name, Int.random(in: 0...100, using: &random)))
            }
        }
        lines += PullMergeTests.ending.dropLast().filter { _ in Int.random(in: 0..<5, using: &random) > 0 }
        lines.append(PullMergeTests.success)
        guard failing, Bool.random(using: &random) else { return }
        lines.removeLast(Int.random(in: 1...lines.count, using: &random))
        switch Int.random(in: 0..<4, using: &random) {
        case 0: lines += [PullMergeTests.error("full"), PullMergeTests.success]
        case 1: lines += ["garbage", PullMergeTests.manifest]
        case 2: failure = "connection lost"
        default: break
        }
    }

    /// What a line, or the end of all, makes of the box.
    fileprivate mutating func note(_ line: String?) {
        guard let line else {
            hasEnded = true
            hasFailed = hasFailed || rank < 3
            return
        }
        guard !hasFailed, rank < 3 else { return }
        hasFailed = line == "garbage" || line.hasPrefix(#"{"error""#)
        if let stage = PullMergeTests.ending.firstIndex(of: line) { rank = stage }
        guard let layer = try? decode(PullMergeTests.Trial.Line.self, line), let digest = layer.digest else { return }
        completed[digest] = layer.completed ?? 0
    }
}

extension String {
    /// Its lines; what is not ended is none.
    fileprivate var wholeLines: [String] {
        split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
    }
}
