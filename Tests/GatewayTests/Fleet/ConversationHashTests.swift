import HTTPCore
import Testing

@testable import Gateway

/// Telling conversations apart by how they begin.
@Suite struct ConversationHashTests {
    private func hash(_ body: String, model: String = "m", at endpoint: Endpoint = .chat) -> UInt64 {
        let bytes = Bytes(body)
        return withExtendedLifetime(bytes) { ConversationHash.of(bytes.buffer, model: model, at: endpoint) }
    }

    private func chat(_ messages: String...) -> String { #"{"messages":[\#(messages.joined(separator: ","))]}"# }

    private static let system = #"{"role":"system","content":"Be brief."}"#
    private static let hi = #"{"role":"user","content":"Hi"}"#
    private static let answer = #"{"role":"assistant","content":"Hello."}"#
    private static let more = #"{"role":"user","content":"Tell me more."}"#

    // MARK: What it is made of

    /// Source: FNV-1a with 64 bits, of the bytes and 0xff; computed elsewhere.
    @Test(
        arguments: [
            ("", 0xaf64_724c_8602_eb6e), ("a", 0x089b_c907_b544_c769), ("foobar", 0x3452_4ba7_168a_2c15),
        ] as [(String, UInt64)])
    func `every gateway hashes alike`(text: String, hash: UInt64) {
        #expect(ConversationHash.of(text) == hash)
    }

    @Test func `texts that follow each other are kept apart`() {
        let all = ["12,3", "1,23", "123"].map { texts in
            let parts = texts.split(separator: ",")
            return hash("{\(zip(["\"system\"", "\"prompt\""], parts).map { "\($0):\($1)" }.joined(separator: ","))}")
        }
        #expect(Set(all).count == all.count)
    }

    // MARK: Chat

    @Test func `a conversation that goes on stays the same`() {
        let first = hash(chat(Self.system, Self.hi))
        #expect(first != 0)
        #expect(hash(chat(Self.system, Self.hi, Self.answer, Self.more)) == first)
        #expect(hash(chat(Self.system, Self.hi, Self.answer, Self.hi, Self.answer, Self.more)) == first)
    }

    @Test func `another first word, another system message or another model is another conversation`() {
        let first = hash(chat(Self.system, Self.hi))
        #expect(hash(chat(Self.system, Self.more)) != first)
        #expect(hash(chat(Self.hi)) != first)
        #expect(hash(chat(Self.system, Self.answer, Self.hi)) != first)
        #expect(hash(chat(Self.system, Self.hi), model: "n") != first)
        #expect(hash(#"{"system":"Be long.","messages":[\#(Self.hi)]}"#, at: .messages) != hash(chat(Self.hi)))
    }

    @Test func `how the answer is to be made does not matter`() {
        let first = hash(chat(Self.hi))
        #expect(hash(#"{"stream":true,"messages":[\#(Self.hi)],"options":{"seed":7},"tools":[1]}"#) == first)
    }

    @Test func `of a long text its beginning counts`() {
        func long(_ count: Int, _ end: String) -> String {
            chat(#"{"role":"user","content":"\#(String(repeating: "x", count: count))\#(end)"}"#)
        }
        #expect(hash(long(2000, "a")) == hash(long(2000, "b")))
        #expect(hash(long(900, "a")) != hash(long(900, "b")))
    }

    // MARK: The other endpoints

    @Test(
        arguments: [
            (.generate, #""prompt":"Hi""#), (.completions, #""prompt":["Hi","Ho"]"#), (.responses, #""input":"Hi""#),
            (.responses, #""input":[{"role":"user","content":"Hi"}]"#), (.generate, #""system":"Be brief.""#),
            (.chatCompletions, #""messages":[{"role":"user","content":"Hi"}]"#),
            (.messages, #""messages":[{"role":"user","content":"Hi"}]"#),
        ] as [(Endpoint, String)])
    func `every way to ask a model has its conversations`(endpoint: Endpoint, members: String) {
        let first = hash("{\(members)}", at: endpoint)
        #expect(first != 0)
        #expect(hash("{\"stream\":true,\(members)}", at: endpoint) == first)
        #expect(hash("{\(members.replacing("H", with: "Y").replacing("B", with: "Y"))}", at: endpoint) != first)
    }

    @Test func `embeddings are no conversations`() {
        for endpoint in [Endpoint.embed, .embeddings, .openAIEmbeddings] {
            #expect(hash(#"{"input":"Hi","prompt":"Hi"}"#, at: endpoint) == 0)
        }
    }

    @Test(arguments: ["", "{", "null", "[]", "7", #""messages""#, "{}", #"{"model":"m"}"#, #"{"Messages":[]}"#])
    func `what asks nothing is no conversation`(body: String) {
        #expect(hash(body) == 0)
    }

    @Test(arguments: [
        "[]", "{}", "null", "7", #""Hi""#, "[null]", "[7]", #"["Hi"]"#, "[[]]", #"[{"role":7}]"#, #"[{}]"#,
        #"[{"role":"assistant"}]"#,
    ])
    func `messages of any shape are no harm`(messages: String) {
        #expect(hash(#"{"messages":\#(messages)}"#) != 0)
    }
}
