import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What the boxes have said, to hold against what the clients have read.
struct Facts {
    /// By the call's number, how many words its answer has.
    var words: [Int] = []
    /// Questions of which an answer ended properly and too early.
    var early: Set<String> = []
}

/// A client of the storm, with what it has asked.
@Loop final class Visitor {
    private static let models = ["m", "M", "m:latest", "n"]
    private static let paths = ["/api/chat", "/v1/chat/completions"]
    private static let forms = [
        "", #","stream":true"#, #","stream":false"#, #","stream":true,"stream_options":{"include_usage":true}"#,
    ]
    /// Every question in every form: two paths, two texts.
    static let questions = 2 * 2 * models.count * forms.count

    private let asked: Asked
    private let text: String
    private let model: String
    private let path: String
    private var hasLeft = false
    private var ended = false

    convenience init(_ gateway: Gateway, _ random: inout SeededGenerator) {
        let directive = ["no-cache", "no-store", "only-if-cached", "max-age=5"].randomElement(using: &random) ?? ""
        let says = Int.random(in: 0..<4, using: &random) == 0
        self.init(
            gateway, asking: Int.random(in: 0..<Visitor.questions, using: &random), directive: says ? directive : nil,
            flow: Int.random(in: 0..<5, using: &random) == 0 ? .pause : .more)
    }

    /// One that wants only what is kept.
    convenience init(_ gateway: Gateway, asking number: Int) {
        self.init(gateway, asking: number, directive: "only-if-cached", flow: .more)
    }

    private init(_ gateway: Gateway, asking number: Int, directive: String?, flow: Flow) {
        path = Visitor.paths[number % 2]
        text = "q\(number / 2 % 2)"
        model = Visitor.models[number / 4 % Visitor.models.count]
        let body = Said.ask(Visitor.forms[number / 4 / Visitor.models.count], model: model, text)
        asked = Asked(
            request(
                "POST", path, headers: directive.map { ["Cache-Control": $0] } ?? [:], body: .bytes(Bytes(body))),
            gateway, flow: flow)
        guard let task = asked.task else {
            ended = true
            return
        }
        Loop.task { [weak self] in
            await task.value
            self?.ended = true
        }
    }

    var isDone: Bool { ended }

    func leave() {
        hasLeft = true
        asked.leave()
    }

    func drain(_ flow: Flow) {
        guard !hasLeft else { return }
        asked.client.flow = flow
        asked.client.onDrain?()
    }

    /// What it was given, in a word; an issue if that is not as it should be.
    func check(_ facts: Facts) throws -> String {
        let events = asked.client.events
        #expect(asked.wasAnsweredAtOnce || asked.client.isReleased)
        if hasLeft, !asked.isWhole { return "left" }
        let status = try #require(asked.status, "nothing was said to \(path) \(text)")
        #expect(asked.isWhole || events.last == "abort", "no end: \(events)")
        if status != 200 {
            #expect([404, 502, 503, 504].contains(status))
            #expect(asked.body.contains("error") || asked.client.text.isEmpty && asked.client.response == nil)
            return String(status)
        }
        let body = Array(asked.body.utf8)
        let isComplete =
            events.last != "abort"
            && (asked.body.contains(#""done":true"#) || asked.body.hasSuffix("[DONE]\n\n")
                || asked.body.contains(#""finish_reason":"stop"}],"usage""#))
        var words = body.values(after: #""content":""#).joined().split(separator: " ")
        // The last may have been cut.
        if !isComplete { words.removeLast(min(2, words.count)) }
        #expect(Set(words).count <= 1, "answers are mixed: \(asked.body)")
        let mark = text + ".\(Visitor.paths.firstIndex(of: path) ?? 9)."
        #expect(words.allSatisfy { $0.hasPrefix(mark) }, "\(mark): \(asked.body)")
        let models = body.values(after: #""model":""#).dropLast(isComplete ? 0 : 1)
        #expect(models.allSatisfy { $0 == model }, "\(model): \(asked.body)")
        if events.last == "abort" {
            #expect(asked.body.contains(#""error""#) || asked.client.headers["content-type"] == "application/json")
            return "cut"
        }
        let call = words.first.flatMap { Int($0.split(separator: ".")[2]) }
        if isComplete {
            #expect(try words.count == facts.words[#require(call)])
            return asked.cache ?? ""
        }
        #expect(facts.early.contains(path + text), "cut, and properly ended: \(asked.body)")
        #expect(asked.cache != "HIT")
        return "early"
    }
}

/// What a box does with one call.
@Loop final class BoxPlayer {
    private enum Fate: CaseIterable { case whole, early, cut, refuse, fail, hang }

    private let call: BoxCall
    private let question: String
    private let fate: Fate
    /// All that it will say.
    private let answer: [UInt8]
    private let isStream: Bool
    private let isNative: Bool
    private var sent = 0
    private var hasBegun = false
    private var hasEnded = false
    /// The resumes that there were when it was told to pause.
    private var pausedAt: Int?

    init(_ call: BoxCall, number: Int, _ random: inout SeededGenerator, _ facts: inout Facts) {
        self.call = call
        let body = call.request.body.text ?? ""
        let path = call.request.target
        isNative = path == "/api/chat"
        let text = body.contains(#""q0""#) ? "q0" : "q1"
        question = path + text
        isStream = body.contains(#""stream":true"#) || isNative && !body.contains(#""stream":false"#)
        let fates: [Fate] = [.whole, .whole, .whole, .whole, .whole, .early, .cut, .refuse, .fail, .hang]
        fate = fates.randomElement(using: &random) ?? .whole
        let count = Int.random(in: 0..<12, using: &random) == 0 ? 45 : Int.random(in: 1...4, using: &random)
        facts.words.append(count)
        let model = Array(body.utf8).values(after: #""model":""#).first ?? ""
        let all = Array(
            BoxPlayer.answer(
                [String](repeating: "\(text).\(isNative ? 0 : 1).\(number)", count: count), model: model,
                isStream: isStream, isNative: isNative, usage: body.contains("include_usage")
            ).utf8)
        let isCut = fate == .early || fate == .cut || fate == .hang
        answer = isCut ? Array(all[..<Int.random(in: 0..<all.count - 12, using: &random)]) : all
    }

    private static func answer(_ words: [String], model: String, isStream: Bool, isNative: Bool, usage: Bool) -> String
    {
        let text =
            switch (isStream, isNative) {
            case (true, true): words.map { Said.line($0 + " ") }.joined() + Said.last()
            case (false, true): Said.whole
            case (true, false):
                words.map { Said.delta($0 + " ") }.joined() + Said.finish + (usage ? Said.usage : "") + Said.done
            case (false, false): Said.completion
            }
        return text.replacing(#""model":"m""#, with: #""model":"\#(model)""#)
            .replacing("Hello", with: words.joined(separator: " "))
    }

    var isOver: Bool { hasEnded || call.isCancelled }
    var hangs: Bool { fate == .hang }
    /// Whether it was told to pause, and not to go on since.
    var isHeldUp: Bool { pausedAt == call.body.resumes && !isOver }

    func move(_ random: inout SeededGenerator, _ facts: inout Facts) {
        advance(Int.random(in: 1...300, using: &random), &facts)
    }

    /// All that is left to do.
    func hurry(_ facts: inout Facts) {
        for _ in 0..<3 { advance(.max, &facts) }
    }

    private func advance(_ most: Int, _ facts: inout Facts) {
        guard !isOver, !isHeldUp else { return }
        if !hasBegun { return begin(&facts) }
        guard sent == answer.count else {
            let end = most < answer.count - sent ? sent + most : answer.count
            let flow = answer[sent..<end].withUnsafeBytes { call.body.stream.push($0) }
            sent = end
            pausedAt = flow == .pause ? call.body.resumes : nil
            return
        }
        end(&facts)
    }

    private func begin(_ facts: inout Facts) {
        hasBegun = true
        if fate == .refuse {
            hasEnded = true
            call.answerWhole(#"{"error":"not found"}"#, 404)
        } else if fate == .fail {
            hasEnded = true
            call.fail(TransportError(kind: .connect, answerBegan: false, isRetrySafe: true, message: ""))
        } else if fate == .whole, !isStream, answer.count % 2 == 0 {
            hasEnded = true
            call.answerWhole(String(decoding: answer, as: UTF8.self))
        } else {
            call.answer(type: !isStream ? "application/json" : isNative ? "application/x-ndjson" : "text/event-stream")
        }
    }

    private func end(_ facts: inout Facts) {
        switch fate {
        case .hang: return
        case .cut:
            call.body.stream.finish(
                TransportError(kind: .connectionLost, answerBegan: true, isRetrySafe: false, message: ""))
        case .early:
            facts.early.insert(question)
            call.body.stream.finish()
        default: call.body.stream.finish()
        }
        hasEnded = true
    }
}

extension [UInt8] {
    /// What stands between `mark` and the next quotation mark, as often as it does.
    fileprivate func values(after mark: String) -> [String] {
        let mark = Array(mark.utf8)
        var found: [String] = []
        var place = 0
        while let start = self[place...].firstIndex(of: mark[0]) {
            place = start + 1
            guard self[start...].starts(with: mark) else { continue }
            let value = self[(start + mark.count)...].prefix { $0 != UInt8(ascii: "\"") }
            // What has no end was cut.
            if value.endIndex < count { found.append(String(decoding: value, as: UTF8.self)) }
            place = value.endIndex
        }
        return found
    }
}
