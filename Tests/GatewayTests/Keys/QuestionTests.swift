import Testing

@testable import Gateway

@Suite struct QuestionTests {
    // MARK: Form

    @Test(arguments: [
        (Endpoint.chat, "", AnswerForm.stream), (.generate, "", .stream), (.chat, #""stream":null"#, .stream),
        (.chat, #""stream":false"#, .whole), (.chat, #""stream_options":{"include_usage":true}"#, .stream),
        (.embed, #""stream":true"#, .whole), (.chatCompletions, "", .whole),
        (.chatCompletions, #""stream":null"#, .whole), (.completions, #""stream":true"#, .stream),
        (.chatCompletions, #""stream":true,"stream_options":{"include_usage":true}"#, .streamWithUsage),
        (.chatCompletions, #""stream":true,"stream_options":{"include_usage":false}"#, .stream),
        (.chatCompletions, #""stream_options":{"include_usage":true}"#, .whole),
        (.messages, #""stream":true"#, .stream), (.responses, "", .whole),
    ])
    func `the form is what the request asks for, else the endpoint's`(
        _ endpoint: Endpoint, _ members: String, _ form: AnswerForm
    ) {
        #expect(Question.read(endpoint.with(members), endpoint).form == form)
    }

    @Test(arguments: [
        (#"{"model":"a","model":"b","stream":true,"stream":false}"#, Question.Bypass.duplicate),
        (#"{"Model":"b","\u0053TREAM":false,"messages":[{}]}"#, .spelling),
        (#"{"model":"b","\#u{17f}tream":false,"messages":[{}]}"#, .spelling),
        (#"{"model":"b","stream":false} {"model":"c"}"#, .malformed),
        (#"{"model":"b","stream":false,"messages":[]}"#, .load),
    ])
    func `model and form are read as Ollama reads them even if the cache is passed by`(
        _ text: String, _ bypass: Question.Bypass
    ) {
        let question = Question.read(text)
        #expect(question.bypass == bypass)
        #expect(question.model == "b")
        #expect(question.form == .whole)
    }

    // MARK: Determinism

    @Test(arguments: [
        (Endpoint.embed, "", true), (.embeddings, "", true), (.openAIEmbeddings, "", true), (.chat, "", false),
        (.chat, #""options":{"temperature":0}"#, true), (.chat, #""options":{"temperature":-0.0}"#, true),
        (.generate, #""options":{"temperature":0.1}"#, false), (.generate, #""options":{"seed":0}"#, true),
        (.chat, #""options":{"seed":-1}"#, false), (.chat, #""options":{"seed":"1"}"#, false),
        (.chat, #""options":{"Seed":1}"#, false), (.chat, #""options":[0]"#, false),
        (.chat, #""temperature":0,"seed":1"#, false), (.chatCompletions, #""temperature":0"#, true),
        (.completions, #""seed":7"#, true), (.completions, #""temperature":null,"seed":-7"#, false),
        (.chatCompletions, #""options":{"temperature":0}"#, false),
    ])
    func `a question is deterministic if it has but one answer`(
        _ endpoint: Endpoint, _ members: String, _ isDeterministic: Bool
    ) {
        #expect(Question.read(endpoint.with(members), endpoint).isDeterministic == isDeterministic)
    }

    // MARK: Bypass

    @Test(
        arguments: Endpoint.cacheable,
        [
            // Names.
            (#""x":1,"x":1"#, Question.Bypass.duplicate), (#""x":1,"\u0078":1"#, .duplicate),
            (#""x":{"y":[{"z":1,"z":2}]}"#, .duplicate), (#""keep_alive":"1m","keep_alive":"1m""#, .duplicate),
            (#""MODEL":"m""#, .spelling), (#""x":1,"X":1"#, .spelling), (#""x":[{"ab":1,"aB":1}]"#, .spelling),
            (#""\#u{212a}eep_alive":0"#, .spelling), (#""\u212aeep_alive":0"#, .spelling),
            // What is not kept.
            (#""keep_alive":0"#, .unload), (#""keep_alive":0.0"#, .unload), (#""keep_alive":-0"#, .unload),
            (#""keep_alive":"0""#, .unload), (#""keep_alive":"0s""#, .unload), (#""keep_alive":"0m0s""#, .unload),
            (#""keep_alive":"-0""#, .unload), (#""keep_alive":0e9"#, .unload), (#""keep_alive":"\u0030""#, .unload),
            (#""tools":[{"type":"function"}]"#, .tools),
            // What Ollama refuses.
            (#""keep_alive":true"#, .malformed), (#""tools":{}"#, .malformed), (#""model":5,"x":1"#, .duplicate),
        ])
    func `what is not to be kept passes the cache by`(
        _ endpoint: Endpoint, _ example: (members: String, bypass: Question.Bypass)
    ) {
        #expect(Question.read(endpoint.with(example.members), endpoint).bypass == example.bypass)
    }

    @Test(arguments: [
        (Endpoint.chat, #""options":{"a":1,"a":2}"#, Question.Bypass.duplicate),
        (.chat, #""options":{"a":null,"a":null}"#, .duplicate), (.chat, #""format":{"a":1,"a":1}"#, .duplicate),
        (.generate, #""format":[{"a":1,"a":1}]"#, .duplicate),
        (.chatCompletions, #""metadata":{"a":{"b":1,"b":1}}"#, .duplicate),
        (.chatCompletions, #""response_format":{"type":"x","type":"text"}"#, .duplicate),
        (.chatCompletions, #""response_format":{"type":"x","Type":"text"}"#, .spelling),
        (.chatCompletions, #""stream_options":{"INCLUDE_USAGE":true}"#, .spelling),
        (.chatCompletions, #""stream_options":{"include_usage":1}"#, .malformed),
        (.chatCompletions, #""reasoning":{"Effort":"low"}"#, .spelling),
        (.chat, #""_debug_render_only":true"#, .debug), (.completions, #""_debug_render_only":true"#, .debug),
        (.chat, #""stream":1"#, .malformed), (.chat, #""options":[]"#, .malformed), (.chat, #""think":1"#, .malformed),
        (.generate, #""system":5"#, .malformed), (.generate, #""raw":0"#, .malformed),
        (.generate, #""images":"a""#, .malformed), (.completions, #""temperature":"0""#, .malformed),
        (.completions, #""seed":true"#, .malformed), (.embed, #""dimensions":"8""#, .malformed),
        (.openAIEmbeddings, #""encoding_format":1"#, .malformed), (.chatCompletions, #""reasoning":"low""#, .malformed),
    ])
    func `each endpoint's fields are looked at`(_ endpoint: Endpoint, _ members: String, _ bypass: Question.Bypass) {
        #expect(Question.read(endpoint.with(members), endpoint).bypass == bypass)
    }

    @Test(arguments: [
        (#"{"Role":"user"}"#, Question.Bypass.spelling), (#"{"role":"user","ROLE":"x"}"#, .spelling),
        (#"{"content":"a","content":"a"}"#, .duplicate), (#"{"content":5}"#, .malformed), ("null", .malformed),
        (#""hi""#, .malformed), (#"{"role":["user"]}"#, .malformed), (#"{"tool_calls":{}}"#, .malformed),
        (#"{"tool_calls":[{"function":{"Arguments":{"b":1,"a":1}}}]}"#, .spelling),
        (#"{"tool_calls":[{"function":{"arguments":{"a":1,"a":1}}}]}"#, .duplicate),
    ])
    func `messages are looked at`(_ message: String, _ bypass: Question.Bypass) {
        for endpoint in [Endpoint.chat, .chatCompletions] {
            let text = #"{"model":"m","messages":[{"content":"a"},\#(message)]}"#
            #expect(Question.read(text, endpoint).bypass == bypass)
        }
    }

    @Test func `without anything asked a request loads or unloads`() {
        for endpoint in Endpoint.cacheable {
            let fields: [String] =
                switch endpoint {
                case .generate, .embeddings, .completions: ["", #","prompt":"""#, #","prompt":null"#]
                case .embed, .openAIEmbeddings: ["", #","input":"""#, #","input":[]"#]
                default: ["", #","messages":[]"#, #","messages":null"#]
                }
            for field in fields {
                #expect(Question.read(#"{"model":"m"\#(field)}"#, endpoint).bypass == .load)
                #expect(Question.read(#"{"model":"m","keep_alive":0\#(field)}"#, endpoint).bypass == .load)
            }
        }
    }

    @Test(arguments: ["5m", "-1s", "+10ms", "01h", "1h0m", "1.5h", ".5m", "100\u{b5}s"])
    func `other times to keep a model are no reason`(_ time: String) {
        #expect(Question.read(Endpoint.chat.with(#""keep_alive":"\#(time)""#)).canonical != nil)
        #expect(Question.read(Endpoint.chat.with(#""keep_alive":-5"#)).canonical != nil)
        #expect(Question.read(Endpoint.chat.with(#""keep_alive":3e2"#)).canonical != nil)
    }

    @Test(arguments: ["-1", "10", "7parsecs", "m", "", "1h 5m", "1.2.3s", "five", "s5"])
    func `a time that Ollama refuses is nobody else's`(_ time: String) {
        #expect(Question.read(Endpoint.chat.with(#""keep_alive":"\#(time)""#)).bypass == .malformed)
        #expect(Question.read(Endpoint.chat.with(#""keep_alive":true"#)).bypass == .malformed)
    }

    @Test func `a request of too many values is not read`() {
        let many = String(repeating: "1,", count: Question.maxValues) + "1"
        #expect(Question.read(Endpoint.chat.with(#""x":[\#(many)]"#)).bypass == .size)
    }

    @Test func `tools are kept on demand only`() {
        let text = Endpoint.chat.with(#""tools":[{"type":"function"}]"#)
        #expect(Question.read(text, cachesTools: false).bypass == .tools)
        #expect(Question.read(text, cachesTools: true).canonical != nil)
    }

    @Test(arguments: [
        "", " ", "null", "[]", "5", "\"x\"", "{", "{}", #"{"model":"m""#, #"{"model":null,"messages":[{}]}"#,
        #"{"messages":[{}]}"#, #"{"model":"","messages":[{}]}"#, #"{"model":" ","messages":[{}]}"#,
        #"{"model":5,"messages":[{}]}"#, #"{"model":"m","messages":{}}"#, #"{"model":"m","messages":"hi"}"#,
        #"{"model":"m","messages":[{}],}"#, #"{"model":"m","messages":[{}]}x"#, #"{"model":"m","messages":[{}]}{}"#,
        "\u{feff}{}", "--boundary",
    ])
    func `what is no request is malformed`(_ text: String) {
        #expect(Question.read(text).bypass == .malformed)
    }

    @Test func `models in the cloud pass the cache by`() {
        for name in ["m:cloud", "m:120b-cloud", "m:CLOUD"] {
            let question = Question.read(#"{"model":"\#(name)","messages":[{"content":"hi"}]}"#)
            #expect(question.bypass == .cloud)
            #expect(question.modelName.isCloud)
        }
    }

    @Test func `endpoints that are not understood pass the cache by`() {
        for endpoint in Endpoint.allCases where !endpoint.isCacheable {
            let question = Question.read(#"{"model":"m","stream":true}"#, endpoint)
            #expect(question.bypass == .endpoint)
            #expect(question.model == "m")
            #expect(Question.read("--boundary\r\n", endpoint).bypass == .endpoint)
        }
    }

    @Test(
        arguments: [
            [0x80], [0xc3], [0xc3, 0x28], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xff],
        ] as [[UInt8]])
    func `text that is not UTF-8 passes the cache by`(_ bytes: [UInt8]) {
        for field in [#""x":""#, #""x":{"y":[""#, #""""#] {
            let start = Array(#"{"model":"m","messages":[{"content":"hi"}],\#(field)"#.utf8)
            let end = field.hasSuffix("[\"") ? #""]}}"# : field == #""""# ? #"":1}"# : #""}"#
            let text = start.dropLast(field == #""""# ? 1 : 0) + bytes + Array(end.utf8)
            #expect(Question.read(Array(text)).bypass == .encoding)
        }
    }

    @Test func `nesting is limited, not followed`() {
        for (open, close) in [("[", "]"), (#"{"a":"#, "}")] {
            for depth in [100, 511] {
                let value = String(repeating: open, count: depth) + "1" + String(repeating: close, count: depth)
                for field in ["x", "format", "metadata", "stop"] {
                    let text = Endpoint.chatCompletions.with("\"\(field)\":\(value)")
                    #expect(Question.read(text, .chatCompletions).canonical != nil)
                }
            }
            let deep = String(repeating: open, count: 512) + "1" + String(repeating: close, count: 512)
            #expect(Question.read(Endpoint.chat.with("\"x\":\(deep)")).bypass == .depth)
            #expect(Question.read(String(repeating: open, count: 100_000)).bypass == .depth)
        }
    }
}
