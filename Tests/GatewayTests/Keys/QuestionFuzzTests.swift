import HTTPCore
import TestSupport
import Testing

@testable import Gateway

@Suite struct QuestionFuzzTests {
    static let inputs = 1_000_000

    @Test func `a million inputs are read without a fault, and alike when they are read again`() {
        var mutator = Mutator(seed: 1)
        let endpoints = Endpoint.allCases
        var cacheable = 0
        var reasons: Set<Question.Bypass> = []
        for round in 0..<QuestionFuzzTests.inputs {
            let endpoint = endpoints[round % endpoints.count]
            mutator.next(endpoint)
            let question = Question.read(mutator.bytes, for: endpoint, cachesTools: round & 16 == 0)
            switch question.content {
            case .cacheable: cacheable += 1
            case .bypass(let reason): reasons.insert(reason)
            }
            let again = Question.read(mutator.bytes, for: endpoint, cachesTools: round & 16 == 0)
            if !again.isSame(as: question) { Issue.record("\(mutator.bytes.map { $0 })") }
        }
        // Else the inputs would not say much.
        #expect(cacheable > QuestionFuzzTests.inputs / 10)
        #expect(reasons == Set(Question.Bypass.allCases).subtracting([.depth, .size, .off]))
    }
}

extension Question {
    fileprivate func isSame(as other: Question) -> Bool {
        model == other.model && modelName == other.modelName && form == other.form
            && isDeterministic == other.isDeterministic && bypass == other.bypass && canonical == other.canonical
    }
}
