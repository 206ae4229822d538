import TestSupport

@testable import Gateway

/// Makes requests that are nearly right: pieces of valid ones, put together by their grammar or against it.
///
/// It works in one block of memory and chooses bytes of one random number, so that a million inputs take seconds
/// even when nothing is optimised.
struct Mutator: ~Copyable {
    private let memory = UnsafeMutableRawPointer.allocate(byteCount: Mutator.capacity, alignment: 8)
    private(set) var count = 0
    private var generator: SeededGenerator
    private var bits: UInt64 = 0

    private static let capacity = 4096

    init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

    deinit { memory.deallocate() }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: memory, count: count) }

    /// One of `bound`.
    private mutating func number(below bound: Int) -> Int {
        if bits < 1 << 24 { bits = generator.next() }
        let number = Int(bits % UInt64(bound))
        bits /= UInt64(bound)
        return number
    }

    /// Makes the next input: a request to `endpoint`, more or less.
    mutating func next(_ endpoint: Endpoint) {
        count = 0
        if number(below: 8) == 0 {
            value(depth: 3)
        } else {
            request(to: endpoint, members: number(below: 4))
        }
        // Most inputs stay as they are.
        if number(below: 3) == 0 { mutate() }
        if number(below: 8) == 0 { mutate() }
    }

    private mutating func request(to endpoint: Endpoint, members: Int) {
        if number(below: 8) == 0 {
            append(Mutator.essentials[number(below: Mutator.essentials.count)])
        } else {
            switch endpoint {
            case .embed, .openAIEmbeddings: append(#"{"model":"m","input":"hi""#)
            case .chat, .chatCompletions: append(#"{"model":"m","messages":[{"role":"user","content":"hi"}]"#)
            default: append(#"{"model":"m","prompt":"hi""#)
            }
        }
        for _ in 0..<members {
            append(",")
            member(depth: 2)
        }
        append("}")
    }

    private mutating func member(depth: Int) {
        if number(below: 3) > 0 { return append(Mutator.members[number(below: Mutator.members.count)]) }
        append(Mutator.names[number(below: Mutator.names.count)])
        append(":")
        value(depth: depth)
    }

    private mutating func value(depth: Int) {
        let shape = number(below: 6)
        guard shape < 2, depth > 0 else { return append(Mutator.values[number(below: Mutator.values.count)]) }
        append(shape == 0 ? "[" : "{")
        for index in 0..<number(below: 4) {
            if index > 0 { append(",") }
            if shape == 0 { value(depth: depth - 1) } else { member(depth: depth - 1) }
        }
        append(shape == 0 ? "]" : "}")
    }

    private mutating func append(_ text: StaticString) {
        guard count + text.utf8CodeUnitCount <= Mutator.capacity else { return }
        (memory + count).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
        count += text.utf8CodeUnitCount
    }

    /// Changes, cuts, doubles or moves some bytes.
    private mutating func mutate() {
        guard count > 0 else { return }
        let place = number(below: count)
        let length = min(number(below: 9) + 1, count - place)
        switch number(below: 5) {
        case 0: (memory + place).storeBytes(of: UInt8(number(below: 256)), as: UInt8.self)
        case 1:
            let mark = Mutator.marks.utf8Start[number(below: Mutator.marks.utf8CodeUnitCount)]
            (memory + place).storeBytes(of: mark, as: UInt8.self)
        case 2: count = place
        case 3:
            (memory + place).copyMemory(from: memory + place + length, byteCount: count - place - length)
            count -= length
        default:
            guard count + length <= Mutator.capacity else { return }
            (memory + place + length).copyMemory(from: memory + place, byteCount: count - place)
            count += length
        }
    }

    private static let marks: StaticString = "{}[]\",:\\ \n-.eE+0123456789utfnx\u{0}"

    private static let essentials: [StaticString] = [
        #"{"model":"m","prompt":"hi""#, #"{"model":"m","input":"hi""#, #"{"model":"m","messages":[{"content":"hi"}]"#,
        #"{"model":"m:cloud","prompt":"hi""#, #"{"model":"M:7b","messages":[{"role":"User","content":["a"]}]"#, "{",
    ]

    private static let members: [StaticString] = [
        #""stream":true"#, #""stream":null"#, #""keep_alive":0"#, #""keep_alive":"5m""#, #""options":{"seed":1}"#,
        #""options":{"temperature":0.0,"num_ctx":4096.5}"#, #""tools":[{"a":1}]"#, #""tools":[]"#,
        #""format":{"b":1,"a":[2]}"#, #""format":"json""#, #""stop":"x""#, #""stop":["x"]"#, #""top_p":1e0"#,
        #""seed":-1"#, #""response_format":{"type":"text"}"#, #""stream_options":{"include_usage":true}"#,
        #""reasoning":{"effort":"low"}"#, #""think":"high""#, #""raw":false"#, #""context":[1,2,3]"#,
        #""metadata":{"a":{"b":1}}"#, #""truncate":true"#, #""dimensions":0"#, #""encoding_format":"float""#,
        #""_debug_render_only":true"#, #""user":"u""#, #""x":{"b":{"d":1},"a":[{}]}"#,
        #""messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"b":1,"a":2}}}]}]"#,
    ]

    private static let names: [StaticString] = [
        #""model""#, #""prompt""#, #""messages""#, #""options""#, #""seed""#, #""MODEL""#, #""\u006dodel""#, #""x""#,
        #""role""#, #""content""#, #""images""#, #""tool_calls""#, #""arguments""#, #""""#, #""ſtream""#, #""\ud800""#,
        #""temperature""#, #""a_name_of_many_letters""#, #""a_name_of_many_numbers""#,
    ]

    private static let values: [StaticString] = [
        "null", "true", "false", "0", "-0.0", "1", "1e400", "0.1", "-7", "12345678901234567890", #""""#, #""a""#,
        #""é\n""#, #""\ud83d\ude00""#, #""\udfff""#, #""\u0000""#, "[]", "{}", " 1 ",
        #""registry.ollama.ai/library/m""#,
    ]
}
