import TestSupport
import Testing

@testable import Gateway

struct AnswerFuzzTests {
    /// Bytes that a broken answer is likely to have in a wrong place.
    private static let marks = Array("\"\\{}[],:\n\r u0deadnt\u{e9}".utf8) + [0, 0x80, 0xff]

    /// 200,000 in all: what they do is not looked at but for what ``Answers/isWhole(_:form:endpoint:)`` promises.
    @Test(arguments: 0..<4)
    func `no input crashes, and what is whole can be converted`(part: Int) {
        var maker = AnswerMaker(random: SeededGenerator(seed: UInt64(part) + 100))
        let endpoint = [Endpoint.chat, .generate, .chatCompletions, .completions][part]
        var source: [UInt8] = []
        var form = AnswerForm.whole
        var promised = 0
        for round in 0..<50_000 {
            if round % 50 == 0 {
                form = endpoint.isNative ? [.whole, .stream][round / 50 % 2] : AnswerForm.allCases[round / 50 % 3]
                let whole = short(&maker, endpoint, form)
                source = Array((form == .whole ? whole : converted(whole, .whole, form, endpoint) ?? "").utf8)
            }
            var text = source
            for _ in 0...Int.random(in: 0..<3, using: &maker.random) { mutate(&text, &maker.random) }
            text.withUnsafeBytes { promised += check($0, form, endpoint, round) ? 1 : 0 }
        }
        // Else nothing is tested but refusals.
        #expect(promised > 500)
    }

    private func short(_ maker: inout AnswerMaker, _ endpoint: Endpoint, _ form: AnswerForm) -> String {
        while true {
            let whole = maker.whole(endpoint)
            if whole.utf8.count < (form == .whole ? 500 : 300) { return whole }
        }
    }

    private func mutate(_ text: inout [UInt8], _ random: inout SeededGenerator) {
        guard !text.isEmpty else { return }
        let place = Int.random(in: 0..<text.count, using: &random)
        let other = Int.random(in: place..<min(text.count, place + 20), using: &random)
        switch Int.random(in: 0..<5, using: &random) {
        case 0: text[place] = AnswerFuzzTests.marks.randomElement(using: &random) ?? 0
        case 1: text.removeSubrange(place...other)
        case 2: text.insert(contentsOf: text[place...other], at: place)
        case 3: text.swapAt(place, other)
        default: text[place] ^= UInt8(1) << UInt8.random(in: 0..<8, using: &random)
        }
    }

    private func check(
        _ text: UnsafeRawBufferPointer, _ form: AnswerForm, _ endpoint: Endpoint, _ round: Int
    ) -> Bool {
        let isPromised = Answers.isWhole(text, form: form, endpoint: endpoint)
        let other = AnswerForm.allCases[round % 3]
        let model = round % 2 == 0 ? "m" : nil
        let result = Answers.convert(text, from: form, to: other, endpoint: endpoint, model: model)
        if round % 4 == 0 {
            var filter = UsageFilter()
            filter.take(text.part(0..<text.count / 2)) { _ in }
            filter.take(text.part(text.count / 2..<text.count)) { _ in }
            filter.finish { _ in }
            _ = UsageRequest.asking(text)
        }
        guard isPromised, can(form, other, endpoint) else { return false }
        #expect(result.map { Answers.isWhole($0.buffer, form: other, endpoint: endpoint) } == true)
        return true
    }

    /// Whether there is such a conversion; usage, which an answer may lack, apart.
    private func can(_ form: AnswerForm, _ other: AnswerForm, _ endpoint: Endpoint) -> Bool {
        endpoint.isNative ? other != .streamWithUsage : form == .streamWithUsage || form == other
    }
}
