import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Clients that come while an answer is under way.
@Suite(.timeLimit(.minutes(1))) struct JoinTests {
    init() { LoopThread.start() }

    @Test @Loop func `who comes late hears what was said, and then what is being said`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        let late = await rig.ask(Said.chat)
        #expect(late.client.events == ["stream 200", "write " + Said.line("Hel")])
        rig.calls[0].body.push(Said.line("lo"))
        #expect(late.body == Said.line("Hel") + Said.line("lo"))
        let later = await rig.ask(Said.chat)
        #expect(later.client.events == ["stream 200", "write " + Said.line("Hel") + Said.line("lo")])
        rig.calls[0].body.push(Said.last())
        rig.calls[0].body.stream.finish()
        for asked in [first, late, later] {
            await asked.end()
            #expect(asked.body == Said.lines)
            #expect(asked.client.events.last == "finish")
        }
        #expect(rig.calls.count == 1)
    }

    @Test(arguments: 0...3)
    @Loop func `whenever they come, in whichever form and spelling, all read the same`(moment: Int) async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        var joined: [Asked] = []
        let join: @Loop () async -> Void = {
            joined.append(await rig.ask(Said.chat))
            joined.append(await rig.ask(Said.chatWhole))
            joined.append(await rig.ask(Said.ask(model: "M")))
            joined.append(await rig.ask(Said.ask(#","stream":false"#, model: "M:latest")))
        }
        if moment == 0 { await join() }
        rig.calls[0].answer()
        await quiet()
        for (number, piece) in [Said.line("Hel"), Said.line("lo"), Said.last()].enumerated() {
            rig.calls[0].body.push(piece)
            if moment == number + 1 { await join() }
        }
        rig.calls[0].body.stream.finish()
        await first.end()
        for (asked, model) in zip(joined, ["m", "m", "M", "M:latest"]) {
            await asked.end()
            #expect(try Reading.text(asked.body) == "Hello")
            #expect(asked.body.contains(#""model":"\#(model)""#))
            #expect(asked.body.split(separator: "\n").allSatisfy { $0.contains(#""model":"\#(model)""#) })
            #expect(asked.cache == "COALESCED")
        }
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `in a stream of v1 each reads of the usage what it asked for`() async throws {
        let rig = try WorkerRig()
        let path = "/v1/chat/completions"
        let without = Said.ask(#","stream":true"#)
        let with = Said.ask(#","stream":true,"stream_options":{"include_usage":true}"#)
        let first = await rig.ask(without, at: path)
        let second = await rig.ask(with, at: path)
        rig.calls[0].answer(200, Said.delta("Hel"), type: "text/event-stream")
        await quiet()
        #expect(first.body == Said.delta("Hel"))
        let third = await rig.ask(without, at: path)
        let fourth = await rig.ask(with, at: path)
        let whole = await rig.ask(Said.ask(), at: path)
        // In pieces that end anywhere.
        let rest = Said.delta("lo") + Said.finish + Said.usage + Said.done
        for piece in rest.utf8.map({ String(decoding: [$0], as: UTF8.self) }) { rig.calls[0].body.push(piece) }
        rig.calls[0].body.stream.finish()
        for asked in [first, second, third, fourth, whole] { await asked.end() }
        #expect(first.body == Said.events)
        #expect(third.body == Said.events)
        #expect(second.body == Said.eventsWithUsage)
        #expect(fourth.body == Said.eventsWithUsage)
        #expect(whole.body.contains(#""content":"Hello""#))
        #expect(whole.body.contains(#""total_tokens":3"#))
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `who asks for usage first is joined by who does not`() async throws {
        let rig = try WorkerRig()
        let path = "/v1/chat/completions"
        let first = await rig.ask(Said.ask(#","stream":true,"stream_options":{"include_usage":true}"#), at: path)
        let second = await rig.ask(Said.ask(#","stream":true"#), at: path)
        rig.calls[0].answer(200, Said.eventsWithUsage, type: "text/event-stream")
        rig.calls[0].body.stream.finish()
        await first.end()
        await second.end()
        #expect(first.body == Said.eventsWithUsage)
        #expect(second.body == Said.events)
        #expect(rig.calls.count == 1)
    }

    @Test @Loop func `who joins an answer of told length that is filtered is told no length`() async throws {
        let rig = try WorkerRig()
        let path = "/v1/chat/completions"
        let first = await rig.ask(Said.ask(#","stream":true,"stream_options":{"include_usage":true}"#), at: path)
        let second = await rig.ask(Said.ask(#","stream":true"#), at: path)
        let length = Said.eventsWithUsage.utf8.count
        rig.calls[0].answer(200, Said.delta("Hel"), type: "text/event-stream", length: length)
        await quiet()
        rig.calls[0].body.push(String(Said.eventsWithUsage.dropFirst(Said.delta("Hel").count)))
        rig.calls[0].body.stream.finish()
        await first.end()
        await second.end()
        #expect(first.client.length == length)
        #expect(second.client.length == nil)
        #expect(second.body == Said.events)
    }

    @Test @Loop func `and reads an error if it breaks off`() async throws {
        let rig = try WorkerRig()
        let path = "/v1/chat/completions"
        let first = await rig.ask(Said.ask(#","stream":true,"stream_options":{"include_usage":true}"#), at: path)
        let second = await rig.ask(Said.ask(#","stream":true"#), at: path)
        rig.calls[0].answer(200, Said.delta("Hel"), type: "text/event-stream", length: 5000)
        await quiet()
        rig.calls[0].body.push("data: {")
        rig.calls[0].body.stream.finish(
            TransportError(kind: .connectionLost, answerBegan: true, isRetrySafe: false, message: ""))
        await first.end()
        await second.end()
        #expect(first.body == Said.delta("Hel") + "data: {")
        #expect(second.body.hasPrefix(Said.delta("Hel") + #"data: {"error":{"message":"backend a: connection lost"#))
        #expect(first.client.events.last == "abort" && second.client.events.last == "abort")
    }

    @Test @Loop func `nobody joins an answer that is too large to be kept`() async throws {
        let rig = try WorkerRig { $0.cache.maxEntryBytes = 300 }
        let first = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        let late = await rig.ask(Said.chat)
        #expect(rig.calls.count == 1)
        // Beyond what may be kept.
        rig.calls[0].body.push(Said.line(String(repeating: "x", count: 300)))
        await quiet()
        // Who needs all of it has a call of its own now.
        #expect(rig.calls.count == 2)
        let later = await rig.ask(Said.chat)
        #expect(rig.calls.count == 2)
        rig.calls[0].body.push(Said.last())
        rig.calls[0].body.stream.finish()
        rig.calls[1].answerWhole(Said.whole)
        for asked in [first, whole, late, later] { await asked.end() }
        #expect(first.body == Said.line("Hel") + Said.line(String(repeating: "x", count: 300)) + Said.last())
        #expect(late.body == first.body)
        #expect(first.isWhole && late.isWhole)
        #expect(whole.body == Said.whole)
        #expect(whole.cache == "MISS")
        // It joined the call that was made for the whole.
        #expect(try Reading.text(later.body) == "Hello")
        #expect(later.cache == "COALESCED")
        #expect(rig.metric("ollama_cache_misses_total") == "2")
    }

    @Test(arguments: [-1, 0, 1])
    @Loop func `an answer may be as large as it may be, to the byte`(excess: Int) async throws {
        let rig = try WorkerRig { $0.cache.maxEntryBytes = Said.lines.utf8.count - excess }
        await rig.fill(Said.chat, with: Said.lines)
        #expect(rig.metric("ollama_cache_size") == (excess > 0 ? "0" : "1"))
    }

    @Test @Loop func `a body too large to be read at once is read elsewhere, and kept like any other`() async throws {
        let rig = try WorkerRig()
        let text = String(repeating: "long ", count: 60_000)
        let first = await rig.ask(Said.ask("", text))
        #expect(await eventually { rig.calls.count == 1 })
        rig.calls[0].answer(200, Said.lines)
        rig.calls[0].body.stream.finish()
        await first.end()
        let again = await rig.ask(Said.ask(#","stream":false"#, text))
        await again.end()
        #expect(again.cache == "HIT")
        #expect(try Reading.text(again.body) == "Hello")
    }
}
