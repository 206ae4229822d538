import Testing

@testable import Gateway

struct UsageRequestTests {
    private func asking(_ body: String) -> String? { bytes(body) { UsageRequest.asking($0)?.text } }

    @Test(arguments: [
        ("{}", #"{"stream_options":{"include_usage":true}}"#),
        (#" {"a" : 1 } "#, #" {"a" : 1 ,"stream_options":{"include_usage":true}} "#),
        (#"{"stream_options": null,"a":1}"#, #"{"stream_options": {"include_usage":true},"a":1}"#),
        (#"{"stream_options":{}}"#, #"{"stream_options":{"include_usage":true}}"#),
        (#"{"stream_options":{ "x":1}}"#, #"{"stream_options":{"include_usage":true, "x":1}}"#),
        (
            #"{"stream_options":{"include_usage":false,"x":1},"b":"\u0041"}"#,
            #"{"stream_options":{"include_usage":true,"x":1},"b":"\u0041"}"#
        ),
        (#"{"stream_options":{"include_usage": null}}"#, #"{"stream_options":{"include_usage": true}}"#),
        (#"{"stream_options":{"include_usage":true}}"#, #"{"stream_options":{"include_usage":true}}"#),
        (
            #"{"stream_options":null,"stream_options":{}}"#,
            #"{"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}"#
        ),
        (#"{"stream_options":7}"#, #"{"stream_options":7}"#),
    ])
    func `usage is asked for and all else stays`(body: String, expected: String) {
        #expect(asking(body) == expected)
    }

    @Test(arguments: ["", "[]", "1", "{", "{} {}", #"{"a":}"#])
    func `what is no object is left alone`(body: String) {
        #expect(asking(body) == nil)
    }
}
