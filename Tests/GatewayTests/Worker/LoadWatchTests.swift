import Testing

@testable import Gateway

@Suite struct LoadWatchTests {
    private static let second: UInt64 = 1_000_000_000

    @Test func `a model of which nothing was heard may have to be loaded`() {
        let watch = LoadWatch()
        #expect(watch.mayLoad(backend: 0, model: "m", at: 0))
        #expect(watch.mayLoad(backend: 0, model: "m", at: .max))
    }

    @Test func `an answer tells of one model on one box, for five minutes`() {
        var watch = LoadWatch()
        let start = 7 * Self.second
        watch.note(backend: 1, model: "m", at: start)
        #expect(!watch.mayLoad(backend: 1, model: "m", at: start))
        #expect(!watch.mayLoad(backend: 1, model: "m", at: start + 300 * Self.second))
        #expect(watch.mayLoad(backend: 1, model: "m", at: start + 300 * Self.second + 1))
        #expect(watch.mayLoad(backend: 0, model: "m", at: start))
        #expect(watch.mayLoad(backend: 1, model: "n", at: start))
    }

    @Test func `the next answer counts anew`() {
        var watch = LoadWatch()
        watch.note(backend: 0, model: "m", at: 0)
        watch.note(backend: 0, model: "m", at: 299 * Self.second)
        #expect(!watch.mayLoad(backend: 0, model: "m", at: 599 * Self.second))
    }

    @Test func `of any number of models, it remembers some`() {
        var watch = LoadWatch()
        for number in 0..<30_001 { watch.note(backend: 0, model: "\(number)", at: 5) }
        #expect(!watch.mayLoad(backend: 0, model: "30000", at: 5))
        #expect(watch.mayLoad(backend: 0, model: "0", at: 5))
    }
}
