import Testing

@testable import Gateway

@Suite struct CanonicalFormTests {
    private static let native: [Endpoint] = [.generate, .chat]
    private static let v1: [Endpoint] = [.chatCompletions, .completions]
    private static let options: [Endpoint] = [.generate, .chat, .embed, .embeddings]

    /// What stands beside the essentials; "" is nothing.
    static let alike: [Spellings] = [
        // Form of the text.
        Spellings(Endpoint.cacheable, "\"x\" : [ 1 ,\t{ } ]\r\n", "\"x\":[1,{}]"),
        Spellings(Endpoint.cacheable, #""x":{"a":1,"b":{"c":2,"d":3}}"#, #""x":{"b":{"d":3,"c":2},"a":1}"#),
        Spellings(Endpoint.cacheable, #""x":1,"y":2"#, #""y":2,"x":1"#),
        Spellings(Endpoint.cacheable, #""x":"\u00e9\n\/""#, #""\u0078":"é\u000A/""#),
        Spellings(Endpoint.cacheable, #""x":"\ud83d\ude00""#, #""x":"😀""#),
        Spellings(Endpoint.cacheable, #""x":"\ud800""#, #""x":"\ufffd""#),
        Spellings(Endpoint.cacheable, #""x":"\ud800""#, #""x":"\udfff""#),
        // Not part of a question.
        Spellings(Endpoint.cacheable, #""stream":true,"keep_alive":"5m""#, #""stream":false,"keep_alive":-1"#),
        Spellings(Endpoint.cacheable, "", #""stream":null,"stream_options":null,"keep_alive":null,"tools":null"#),
        Spellings(v1, "", #""stream_options":{"include_usage":true}"#),
        Spellings(v1 + [.openAIEmbeddings], "", #""user":"u","store":true,"metadata":{"a":[1]}"#),
        // Null and zero values.
        Spellings(native, "", #""format":null,"options":null,"think":null,"truncate":null"#),
        Spellings(native, "", #""format":"","options":{},"logprobs":false,"top_logprobs":0,"tools":[]"#),
        Spellings(.generate, "", #""suffix":"","system":"","template":"","raw":false,"images":[],"context":[]"#),
        Spellings(.generate, "", #""suffix":null,"system":null,"template":null,"context":null,"raw":null"#),
        Spellings(native + [.embed], "", #""truncate":true"#),
        Spellings(.embed, "", #""dimensions":0"#),
        Spellings(.openAIEmbeddings, "", #""dimensions":null,"encoding_format":"float""#),
        Spellings(.openAIEmbeddings, "", #""encoding_format":"""#),
        Spellings(native, "", #""_debug_render_only":false"#),
        // Options.
        Spellings(options, #""options":{"seed":1,"top_k":2}"#, #""options":{"top_k":2,"seed":1}"#),
        Spellings(options, #""options":{"temperature":1}"#, #""options":{"temperature":1.0}"#),
        Spellings(options, #""options":{"temperature":1}"#, #""options":{"temperature":10e-1}"#),
        Spellings(options, #""options":{"temperature":0}"#, #""options":{"temperature":-0.0}"#),
        Spellings(options, #""options":{"temperature":0.1}"#, #""options":{"temperature":0.1000000000000000055}"#),
        Spellings(options, #""options":{"num_ctx":4096}"#, #""options":{"num_ctx":4096.7}"#),
        Spellings(options, #""options":{"seed":0}"#, #""options":{"seed":-0.9}"#),
        Spellings(options, "", #""options":{"temperature":null,"made_up":null}"#),
        // OpenAI's defaults.
        Spellings(v1, "", #""temperature":1,"top_p":1.0"#),
        Spellings(v1, "", #""temperature":null,"top_p":null,"seed":null,"stop":null,"max_tokens":null"#),
        Spellings(v1, #""temperature":0.5"#, #""temperature":5e-1"#),
        Spellings(v1, #""stop":"x""#, #""stop":["x"]"#),
        Spellings(.completions, "", #""top_p":0,"presence_penalty":0,"frequency_penalty":-0.0,"suffix":"""#),
        Spellings(.chatCompletions, "", #""response_format":{"type":"text"}"#),
        Spellings(.chatCompletions, "", #""response_format":{"type":"text","json_schema":null}"#),
        Spellings(.chatCompletions, "", #""response_format":null,"reasoning":null,"reasoning_effort":null"#),
        Spellings(
            .chatCompletions, #""response_format":{"type":"json_schema","json_schema":{"schema":{"a":1}}}"#,
            #""response_format":{"json_schema":{"schema":{"a":1}},"type":"json_schema"}"#),
    ]

    @Test(arguments: alike)
    func `spellings that Ollama answers alike have the same form`(_ spellings: Spellings) {
        for endpoint in spellings.endpoints {
            let a = Question.read(endpoint.with(spellings.a), endpoint)
            let b = Question.read(endpoint.with(spellings.b), endpoint)
            #expect(a.canonical != nil && a.canonical == b.canonical, "\(endpoint): \(a.content), \(b.content)")
        }
    }

    static let unlike: [Spellings] = [
        // The match is exact.
        Spellings(Endpoint.cacheable, #""x":"a""#, #""x":"A""#),
        Spellings(Endpoint.cacheable, #""x":"a""#, #""x":" a""#),
        Spellings(Endpoint.cacheable, #""x":"\u00e9""#, #""x":"e\u0301""#),
        Spellings(Endpoint.cacheable, #""x":"K""#, #""x":"\u212a""#),
        Spellings(Endpoint.cacheable, #""x":"a\u0000""#, #""x":"a""#),
        Spellings(Endpoint.cacheable, #""x":1"#, #""x":"1""#),
        Spellings(Endpoint.cacheable, #""x":1"#, #""x":1.0"#),
        Spellings(Endpoint.cacheable, #""x":[1]"#, #""x":1"#),
        Spellings(Endpoint.cacheable, #""x":[1,2]"#, #""x":[2,1]"#),
        Spellings(Endpoint.cacheable, #""x":[[],1]"#, #""x":[[1]]"#),
        Spellings(Endpoint.cacheable, #""x":{"a":[]}"#, #""x":{"a":{}}"#),
        Spellings(Endpoint.cacheable, #""x":"""#, ""),
        Spellings(Endpoint.cacheable, #""x":null"#, ""),
        Spellings(Endpoint.cacheable, #""x":[null]"#, #""x":[]"#),
        Spellings(Endpoint.cacheable, #""ab":"c""#, #""a":"bc""#),
        // Values that count.
        Spellings(native, "", #""shift":false"#),
        Spellings(native, #""shift":true"#, #""shift":false"#),
        Spellings(native + [.embed], "", #""truncate":false"#),
        Spellings(native, "", #""think":false"#),
        Spellings(native, #""think":true"#, #""think":"high""#),
        Spellings(native, #""format":"json""#, ""),
        Spellings(native, #""format":{}"#, ""),
        Spellings(native, #""format":{"a":1,"b":2}"#, #""format":{"b":2,"a":1}"#),
        Spellings(native, #""format":{"a":1}"#, #""format":{"a":1.0}"#),
        Spellings(native, #""format":{"a":null}"#, #""format":{}"#),
        Spellings(native, #""temperature":0"#, ""),
        Spellings(.generate, #""raw":true"#, ""),
        Spellings(.generate, #""images":["QQ=="]"#, ""),
        Spellings(.generate, #""system":"a""#, #""template":"a""#),
        Spellings(.generate, #""context":[1]"#, #""context":[2]"#),
        Spellings(native, #""top_logprobs":1"#, #""top_logprobs":1.0"#),
        Spellings(.embed, #""dimensions":8"#, #""dimensions":8.0"#),
        Spellings(.openAIEmbeddings, #""encoding_format":"base64""#, ""),
        // Options.
        Spellings(options, #""options":{"temperature":0.8}"#, ""),
        Spellings(options, #""options":{"temperature":0.8}"#, #""options":{"Temperature":0.8}"#),
        Spellings(options, #""options":{"temperature":0}"#, #""options":{"temperature":1e-300}"#),
        Spellings(options, #""options":{"temperature":1e999}"#, #""options":{"temperature":1e998}"#),
        Spellings(options, #""options":{"num_ctx":4096}"#, #""options":{"num_ctx":4097}"#),
        Spellings(options, #""options":{"num_ctx":4096}"#, #""options":{"num_ctx":"4096"}"#),
        Spellings(options, #""options":{"num_ctx":1e30}"#, #""options":{"num_ctx":1e31}"#),
        Spellings(options, #""options":{"top_p":0.5}"#, #""options":{"top_p":0.9}"#),
        Spellings(options, #""options":{"stop":[]}"#, ""),
        // OpenAI's.
        Spellings(v1, #""temperature":0"#, ""),
        Spellings(v1, #""max_tokens":1"#, #""max_tokens":1.0"#),
        Spellings(v1, #""seed":0"#, ""),
        Spellings(v1, #""stop":[]"#, ""),
        Spellings(v1, #""stop":["a","b"]"#, #""stop":["ab"]"#),
        Spellings(.chatCompletions, #""top_p":0"#, ""),
        Spellings(.chatCompletions, #""presence_penalty":0"#, ""),
        Spellings(.chatCompletions, #""logprobs":false"#, ""),
        Spellings(.chatCompletions, #""reasoning_effort":"low""#, #""reasoning":{"effort":"low"}"#),
        Spellings(.chatCompletions, #""reasoning":{}"#, ""),
        Spellings(.chatCompletions, #""response_format":{"type":"json_object"}"#, ""),
        Spellings(
            .chatCompletions, #""response_format":{"type":"json_schema","json_schema":{"schema":{"a":1,"b":2}}}"#,
            #""response_format":{"type":"json_schema","json_schema":{"schema":{"b":2,"a":1}}}"#),
        Spellings(native, #""user":"a""#, #""user":"b""#),
        Spellings(v1, #""n":1"#, #""n":2"#),
    ]

    @Test(arguments: unlike)
    func `what may change the answer changes the form`(_ spellings: Spellings) {
        for endpoint in spellings.endpoints {
            let a = Question.read(endpoint.with(spellings.a), endpoint)
            let b = Question.read(endpoint.with(spellings.b), endpoint)
            #expect(a.canonical != nil && b.canonical != nil, "\(endpoint): \(a.content), \(b.content)")
            #expect(a.canonical != b.canonical, "\(endpoint)")
        }
    }

    static let alikeMessages: [Spellings] = [
        Spellings(.chat, #"{"role":"User","content":"a"}"#, #"{"content":"a","role":"user"}"#),
        Spellings(
            .chat, #"{"role":"user","content":"a","images":[],"thinking":""}"#, #"{"role":"user","content":"a"}"#),
        Spellings(.chat, #"{"role":"user","tool_calls":[],"tool_name":null}"#, #"{"role":"user","content":null}"#),
        Spellings(
            .chat, #"{"tool_calls":[{"id":"1","function":{"name":"f","arguments":{"a":1,"b":2}}}]}"#,
            #"{"tool_calls":[{"function":{"arguments":{"a" : 1, "b":2},"name":"f"},"id":"1"}]}"#),
        Spellings(.chatCompletions, #"{"role":"user","content":"a","name":""}"#, #"{"role":"user","content":"a"}"#),
        Spellings(
            .chatCompletions, #"{"content":[{"type":"text","text":"a"}]}"#,
            #"{"content":[{"text":"a","type":"text"}]}"#),
    ]

    @Test(arguments: alikeMessages)
    func `messages that say the same have the same form`(_ spellings: Spellings) {
        let forms = [spellings.a, spellings.b].map { message in
            Question.read(#"{"model":"m","messages":[\#(message)]}"#, spellings.endpoints[0]).canonical
        }
        #expect(forms[0] != nil && forms[0] == forms[1])
    }

    static let unlikeMessages: [Spellings] = [
        Spellings([.chat, .chatCompletions], #"{"content":"a"}"#, #"{"content":"A"}"#),
        Spellings([.chat, .chatCompletions], #"{"content":"a"},{"content":"b"}"#, #"{"content":"ab"}"#),
        Spellings([.chat, .chatCompletions], #"{"content":"a"},{"content":"b"}"#, #"{"content":"b"},{"content":"a"}"#),
        Spellings([.chat, .chatCompletions], #"{"content":"a"}"#, #"{"content":"a","x":null}"#),
        Spellings(.chatCompletions, #"{"role":"User","content":"a"}"#, #"{"role":"user","content":"a"}"#),
        Spellings(.chatCompletions, #"{"content":""}"#, #"{}"#),
        Spellings(.chatCompletions, #"{"tool_calls":[]}"#, #"{}"#),
        Spellings(.chatCompletions, #"{"content":"a"}"#, #"{"content":[{"type":"text","text":"a"}]}"#),
        Spellings(
            [.chat, .chatCompletions], #"{"tool_calls":[{"function":{"arguments":{"a":1,"b":2}}}]}"#,
            #"{"tool_calls":[{"function":{"arguments":{"b":2,"a":1}}}]}"#),
        Spellings(.chat, #"{"images":["QQ=="]}"#, #"{"images":["QR=="]}"#),
    ]

    @Test(arguments: unlikeMessages)
    func `messages that say something else have another form`(_ spellings: Spellings) {
        for endpoint in spellings.endpoints {
            let forms = [spellings.a, spellings.b].map { messages in
                Question.read(#"{"model":"m","messages":[\#(messages)]}"#, endpoint).canonical
            }
            #expect(forms[0] != nil && forms[1] != nil && forms[0] != forms[1])
        }
    }

    @Test func `one input is a list of one`() {
        for endpoint in [Endpoint.embed, .openAIEmbeddings] {
            let forms = [#""x""#, #"["x"]"#, #"["x","x"]"#, #"[["x"]]"#].map { input in
                Question.read(#"{"model":"m","input":\#(input)}"#, endpoint).canonical
            }
            #expect(forms[0] != nil && forms[0] == forms[1])
            #expect(Set(forms).count == 3)
        }
    }

    @Test func `the order of tools and of what is in them is kept`() {
        let forms = [
            #"[{"type":"function","function":{"name":"f","parameters":{"a":{},"b":{}}}}]"#,
            #"[{"type":"function","function":{"name":"f","parameters":{"b":{},"a":{}}}}]"#,
            #"[{"function":{"name":"f","parameters":{"a":{},"b":{}}},"type":"function"}]"#,
        ].map { tools in
            Question.read(Endpoint.chat.with(#""tools":\#(tools)"#), .chat, cachesTools: true).canonical
        }
        #expect(!forms.contains(nil))
        #expect(Set(forms).count == 3)
    }

    @Test func `endpoints never share a form`() {
        let text = #"{"model":"m","prompt":"p","input":"p","messages":[{"content":"p"}]}"#
        let forms = Endpoint.cacheable.map { Question.read(text, $0).canonical }
        #expect(!forms.contains(nil))
        #expect(Set(forms).count == Endpoint.cacheable.count)
    }

    @Test func `no letter moves from one field to the next`() {
        let forms = [("ab", "c"), ("a", "bc"), ("abc", " ")].map { model, prompt in
            Question.read(#"{"model":"\#(model)","prompt":"\#(prompt)"}"#, .generate).canonical
        }
        #expect(!forms.contains(nil))
        #expect(Set(forms).count == 3)
    }

    @Test(arguments: ["m", "M:latest", " m ", "library/m", "registry.ollama.ai/Library/m:LATEST", "m:local"])
    func `names of one model are alike`(_ name: String) {
        let plain = Question.read(Endpoint.chat.with("")).canonical
        let other = Question.read(#"{"model":"\#(name)","messages":[{"role":"user","content":"hi"}]}"#)
        #expect(other.canonical == plain)
        #expect(other.model == name)
    }
}
