import HTTPCore

/// Questions, and what boxes say to them.
enum Said {
    static let chat = ask()
    static let chatWhole = ask(#","stream":false"#)

    static func ask(_ more: String = "", model: String = "m", _ text: String = "hi") -> String {
        #"{"model":"\#(model)","messages":[{"role":"user","content":"\#(text)"}]\#(more)}"#
    }

    static func line(_ text: String, model: String = "m") -> String {
        #"{"model":"\#(model)","created_at":"t","message":{"role":"assistant","content":"\#(text)"},"done":false}"#
            + "\n"
    }
    static func last(_ model: String = "m") -> String {
        #"{"model":"\#(model)","created_at":"t","message":{"role":"assistant","content":""},"done":true,"#
            + #""done_reason":"stop","total_duration":5,"eval_count":2}"# + "\n"
    }
    /// A stream of `/api/chat`.
    static let lines = line("Hel") + line("lo") + last()
    /// The same in one piece.
    static let whole =
        #"{"model":"m","created_at":"t","message":{"role":"assistant","content":"Hello"},"done":true,"done_reason":"stop","total_duration":5,"eval_count":2}"#

    static func event(_ json: String) -> String { "data: \(json)\n\n" }
    static func delta(_ text: String) -> String {
        event(
            #"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","system_fingerprint":"f","choices":[{"index":0,"delta":{"role":"assistant","content":"\#(text)"},"finish_reason":null}]}"#
        )
    }
    static let finish = event(
        #"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","system_fingerprint":"f","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#
    )
    static let usage = event(
        #"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","system_fingerprint":"f","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#
    )
    static let done = "data: [DONE]\n\n"
    /// Streams of `/v1/chat/completions`.
    static let events = delta("Hel") + delta("lo") + finish + done
    static let eventsWithUsage = delta("Hel") + delta("lo") + finish + usage + done
    static let completion =
        #"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","system_fingerprint":"f","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#
}

/// What a client reads out of an answer of `/api/chat`, in either form.
struct Reading: Decodable {
    struct Message: Decodable { let content: String }
    let model: String
    let message: Message
    let done: Bool

    /// The text of a stream or of one object; nil if it has no proper end.
    static func text(_ body: String) throws -> String? {
        let parts = try body.split(separator: "\n").map { try decode(Reading.self, $0) }
        return parts.last?.done == true ? parts.map(\.message.content).joined() : nil
    }
}
