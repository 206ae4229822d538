import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// A stream that breaks off, cut at every offset there is.
@Suite struct StreamTailTests {
    private static let lines = """
        {"model":"m","message":{"content":"Thé"},"done":false}
        {"model":"m","message":{"content":" sky"},"done":false}
        {"model":"m","done":true}

        """
    private static let data = """
        data: {"choices":[{"delta":{"content":"Thé"}}]}

        : a comment

        data: {"choices":[]}

        data: [DONE]


        """
    private static let named = """
        event: message_start
        data: {"type":"message_start"}

        event: content_block_delta
        data: {"type":"content_block_delta"}


        """

    private let failure = Failure(status: 502, message: "backend box:1: \"gone\"\n")

    /// What a client receives of a stream cut after `count` bytes, having come in pieces of at most `size`.
    private func received(_ stream: String, cutAfter count: Int, piece size: Int, type: String, path: String) throws
        -> String
    {
        let bytes = Array(stream.utf8.prefix(count))
        var tail = StreamTail(contentType: type, path: path)
        bytes.withUnsafeBytes { bytes in
            for start in stride(from: 0, to: count, by: size) {
                tail.note(UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + size, count)]))
            }
            tail.note(UnsafeRawBufferPointer(start: nil, count: 0))
        }
        return String(decoding: bytes, as: UTF8.self) + (try #require(tail.error(failure, id: "i-1")))
    }

    @Test(arguments: [1, 2, 3, 1000])
    func `an error in a stream of lines is the last line, whole, and no line is empty`(piece: Int) throws {
        for cut in 0...Self.lines.utf8.count {
            let text = try received(
                Self.lines, cutAfter: cut, piece: piece, type: "application/x-ndjson", path: "/api/chat")
            #expect(text.hasSuffix("\n"))
            let lines = text.dropLast().split(separator: "\n", omittingEmptySubsequences: false)
            #expect(lines.allSatisfy { !$0.isEmpty }, "cut after \(cut)")
            #expect(try decode(NativeError.self, try #require(lines.last)).error == failure.message, "cut after \(cut)")
            #expect(lines.filter { $0.hasPrefix(#"{"error""#) }.count == 1)
        }
    }

    @Test(arguments: [1, 2, 3, 1000], [false, true])
    func `an error in a stream of events is an event of its own`(piece: Int, crlf: Bool) throws {
        let stream = crlf ? Self.data.withCRLF : Self.data
        let whole = events(stream)
        for cut in 0...stream.utf8.count {
            let text = try received(
                stream, cutAfter: cut, piece: piece, type: "text/event-stream", path: "/v1/chat/completions")
            let found = events(text)
            let last = try #require(found.last)
            #expect(last.name == "", "cut after \(cut)")
            #expect(try decode(OpenAIError.self, last.data).error.message == failure.message, "cut after \(cut)")
            // At most one event was cut; those before it are as they were.
            #expect(Array(found.dropLast(2)) == Array(whole.prefix(max(0, found.count - 2))), "cut after \(cut)")
        }
    }

    @Test(arguments: [1, 2, 3, 1000], [false, true])
    func `an error in Anthropic's stream is an event of the name error`(piece: Int, crlf: Bool) throws {
        let stream = crlf ? Self.named.withCRLF : Self.named
        for cut in 0...stream.utf8.count {
            let text = try received(
                stream, cutAfter: cut, piece: piece, type: "text/event-stream; charset=utf-8", path: "/v1/messages")
            let last = try #require(events(text).last)
            #expect(last.name == "error", "cut after \(cut)")
            let error = try decode(AnthropicError.self, last.data)
            #expect(error.error.message == failure.message)
            #expect(error.requestID == "i-1")
        }
    }

    @Test func `behind whole lines and events nothing is put but the error`() throws {
        let line = try received(
            Self.lines, cutAfter: Self.lines.utf8.count, piece: 9, type: "application/x-ndjson", path: "/")
        #expect(line == Self.lines + #"{"error":"backend box:1: \"gone\"\n"}"# + "\n")
        let event = try received(
            Self.data, cutAfter: Self.data.utf8.count, piece: 9, type: "text/event-stream", path: "/")
        #expect(event == Self.data + #"data: {"error":"backend box:1: \"gone\"\n"}"# + "\n\n")
    }

    @Test(arguments: [
        "application/x-ndjson", "application/x-ndjson; charset=utf-8", "Application/X-NDJSON ;x=y", "text/event-stream",
        "TEXT/EVENT-STREAM;charset=utf-8", "text/event-stream ; charset=utf-8",
    ])
    func `a stream is known by its type, whatever its parameters`(type: String) {
        #expect(StreamTail(contentType: type, path: "/api/chat").error(failure, id: "i") != nil)
    }

    @Test(arguments: [
        nil, "", ";", "application/json", "text/plain", "application/x-ndjsonx", "application/octet-stream",
    ])
    func `a body of any other type cannot carry an error`(type: String?) {
        #expect(StreamTail(contentType: type, path: "/api/chat").error(failure, id: "i") == nil)
    }

    // MARK: A reader of events

    private struct Event: Equatable {
        var name = ""
        var data = ""
    }

    /// Events as a browser has them; what is not ended by an empty line is none. Source: HTML, section 9.2.6.
    private func events(_ text: String) -> [Event] {
        var result: [Event] = []
        var event = Event()
        var lines = text.withLF.split(separator: "\n", omittingEmptySubsequences: false)
        lines.removeLast()
        for line in lines {
            if line.isEmpty {
                if !event.data.isEmpty { result.append(event) }
                event = Event()
            } else if line.hasPrefix("data: ") {
                event.data += line.dropFirst(6)
            } else if line.hasPrefix("event: ") {
                event.name = String(line.dropFirst(7))
            }
        }
        return result
    }
}

extension String {
    /// By bytes: to Swift, a carriage return and a line feed are one character.
    fileprivate var withCRLF: String {
        String(decoding: utf8.flatMap { $0 == 0x0a ? [0x0d, 0x0a] : [$0] }, as: UTF8.self)
    }

    fileprivate var withLF: String { String(decoding: utf8.filter { $0 != 0x0d }, as: UTF8.self) }
}
