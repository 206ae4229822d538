import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// Clients that do not take what they are given.
@Suite(.timeLimit(.minutes(1))) struct BackPressureTests {
    init() { LoopThread.start() }

    @Loop private func drain(_ asked: Asked, _ flow: Flow = .more) {
        asked.client.flow = flow
        asked.client.onDrain?()
    }

    @Test @Loop func `the only reader holds the box up, and lets it go on`() async throws {
        let rig = try WorkerRig()
        let only = await rig.ask(Said.chat, flow: .pause)
        rig.calls[0].answer()
        await quiet()
        let body = rig.calls[0].body
        for number in 1...20 {
            #expect(body.push(Said.line("\(number)")) == .pause)
            #expect(body.resumes == number - 1)
            drain(only, .pause)
            #expect(body.resumes == number)
        }
        only.client.flow = .more
        #expect(body.push(Said.last()) == .more)
        body.stream.finish()
        await only.end()
        #expect(only.body == (1...20).map { Said.line("\($0)") }.joined() + Said.last())
        #expect(await rig.ask(Said.chat).cache == "HIT")
    }

    @Test @Loop func `one of several holds up nobody, and misses nothing`() async throws {
        let rig = try WorkerRig()
        let slow = await rig.ask(Said.chat, flow: .pause)
        let fast = await rig.ask(Said.chat)
        rig.calls[0].answer()
        await quiet()
        let body = rig.calls[0].body
        #expect(body.push(Said.line("Hel")) == .more)
        #expect(body.push(Said.line("lo")) == .more)
        #expect(body.push(Said.last()) == .more)
        body.stream.finish()
        await fast.end()
        #expect(fast.body == Said.lines)
        #expect(slow.body == Said.line("Hel"))
        #expect(!slow.isWhole)
        // It is kept already, while one still reads.
        #expect(await rig.ask(Said.chat).cache == "HIT")
        drain(slow)
        await slow.end()
        #expect(slow.body == Said.lines)
        #expect(slow.client.events.last == "finish")
    }

    @Test @Loop func `all of them together do, until one goes on or leaves`() async throws {
        let rig = try WorkerRig()
        let one = await rig.ask(Said.chat, flow: .pause)
        let two = await rig.ask(Said.chat, flow: .pause)
        rig.calls[0].answer()
        await quiet()
        let body = rig.calls[0].body
        #expect(body.push(Said.line("a")) == .pause)
        drain(one, .pause)
        #expect(body.resumes == 1)
        #expect(body.push(Said.line("b")) == .pause)
        // Whoever joins has room.
        let three = await rig.ask(Said.chat)
        #expect(three.body == Said.line("a") + Said.line("b"))
        for asked in [one, two] {
            asked.leave()
            await asked.end()
        }
        #expect(body.resumes == 2)
        three.client.flow = .pause
        #expect(body.push(Said.last()) == .pause)
        body.stream.finish()
        await three.end()
        #expect(three.client.events.last == "finish")
    }

    @Test @Loop func `the box does not wait for a reader while somebody wants all of it`() async throws {
        let rig = try WorkerRig()
        let slow = await rig.ask(Said.chat, flow: .pause)
        let whole = await rig.ask(Said.chatWhole)
        rig.calls[0].answer()
        await quiet()
        #expect(rig.calls[0].body.push(Said.line("Hel")) == .more)
        rig.calls[0].body.push(Said.line("lo") + Said.last())
        rig.calls[0].body.stream.finish()
        await whole.end()
        #expect(try Reading.text(whole.body) == "Hello")
        drain(slow)
        await slow.end()
        #expect(slow.body == Said.lines)
    }

    @Test @Loop func `when the one who wants all of it leaves, the reader holds the box up again`() async throws {
        let rig = try WorkerRig()
        let slow = await rig.ask(Said.chat, flow: .pause)
        let whole = await rig.ask(Said.chatWhole)
        rig.calls[0].answer()
        await quiet()
        #expect(rig.calls[0].body.push(Said.line("Hel")) == .more)
        whole.leave()
        await whole.end()
        #expect(rig.calls[0].body.push(Said.line("lo")) == .pause)
        drain(slow)
        #expect(slow.body == Said.line("Hel") + Said.line("lo"))
        #expect(rig.calls[0].body.resumes == 1)
        rig.calls[0].body.push(Said.last())
        rig.calls[0].body.stream.finish()
        await slow.end()
        #expect(slow.body == Said.lines)
    }

    @Test @Loop func `in an answer that is not recorded nobody may be more than so far behind`() async throws {
        let rig = try WorkerRig { $0.cache.maxEntryBytes = 200 }
        let slow = await rig.ask(Said.chat, flow: .pause)
        let fast = await rig.ask(Said.chat)
        rig.calls[0].answer()
        await quiet()
        let body = rig.calls[0].body
        #expect(body.push(Said.line("a")) == .more)
        // Nothing is recorded from the first of these on.
        let long = Said.line(String(repeating: "x", count: 65_536))
        for _ in 0..<15 { #expect(body.push(long) == .more) }
        // It catches up, and falls behind again.
        drain(slow)
        #expect(slow.body == fast.body)
        slow.client.flow = .pause
        for _ in 0..<16 { #expect(body.push(long) == .more) }
        #expect(slow.client.events.last != "abort")
        // The first of them it has, the others together are more than a mebibyte.
        #expect(body.push(long) == .more)
        await slow.end()
        #expect(slow.body.hasSuffix(long + #"{"error":"the answer was read too slowly to be shared"}"# + "\n"))
        #expect(slow.client.events.last == "abort")
        // Alone, a reader may take its time.
        fast.client.flow = .pause
        #expect(body.push(long) == .pause)
        for _ in 0..<20 { #expect(body.push(long) == .pause) }
        drain(fast)
        #expect(body.resumes == 1)
        #expect(body.push(Said.last()) == .more)
        body.stream.finish()
        await fast.end()
        #expect(fast.body.utf8.count == (Said.line("a") + Said.last()).utf8.count + 53 * long.utf8.count)
        #expect(fast.client.events.last == "finish")
        #expect(rig.metric("ollama_cache_size") == "0")
    }

    @Test @Loop func `where the cache has no room for what one lags behind, the box waits`() async throws {
        let rig = try WorkerRig {
            $0.cache.maxEntryBytes = 200
            $0.cache.maxBytes = 0
        }
        let slow = await rig.ask(Said.chat, flow: .pause)
        let fast = await rig.ask(Said.chat)
        rig.calls[0].answer()
        await quiet()
        let body = rig.calls[0].body
        // Both share a call; with no room to record, it is not recorded from its first byte on.
        #expect(body.push(Said.line("a")) == .more)
        #expect(body.push(Said.line("b")) == .pause)
        #expect(fast.body == Said.line("a") + Said.line("b"))
        drain(slow)
        #expect(slow.body == fast.body)
        #expect(body.resumes == 1)
        #expect(body.push(Said.last()) == .more)
        body.stream.finish()
        await fast.end()
        await slow.end()
        #expect(slow.body == fast.body)
    }

    @Test @Loop func `an answer that nobody shares goes at its reader's pace`() async throws {
        let rig = try WorkerRig()
        let asked = await rig.ask(Said.chat, headers: ["Cache-Control": "no-store"], flow: .pause)
        rig.calls[0].answer()
        await quiet()
        #expect(rig.calls[0].body.push("a") == .pause)
        drain(asked)
        #expect(rig.calls[0].body.resumes == 1)
        #expect(rig.calls[0].body.push("b") == .more)
        rig.calls[0].body.stream.finish()
        await asked.end()
        #expect(asked.body == "ab")
    }

    @Test @Loop func `what a slow reader has not read survives the end, good or bad`() async throws {
        for error in [nil, TransportError(kind: .idleTimeout, answerBegan: true, isRetrySafe: false, message: "")] {
            let rig = try WorkerRig()
            let slow = await rig.ask(Said.chat, flow: .pause)
            let fast = await rig.ask(Said.chat)
            rig.calls[0].answer()
            await quiet()
            for piece in [Said.line("Hel"), Said.line("lo"), Said.last()] { rig.calls[0].body.push(piece) }
            rig.calls[0].body.stream.finish(error)
            await fast.end()
            #expect(slow.body == Said.line("Hel"))
            drain(slow)
            await slow.end()
            #expect(slow.body == fast.body)
            #expect(slow.body.hasPrefix(Said.lines))
            #expect(slow.client.events.last == (error == nil ? "finish" : "abort"))
        }
    }

    @Test @Loop func `a late reader of much takes it in steps that it has room for`() async throws {
        let rig = try WorkerRig()
        let first = await rig.ask(Said.chat)
        rig.calls[0].answer()
        await quiet()
        let line = Said.line(String(repeating: "x", count: 10_000))
        for _ in 0..<40 { rig.calls[0].body.push(line) }
        let late = await rig.ask(Said.chat, flow: .pause)
        var steps = 1
        #expect(late.client.text.utf8.count == 65_536)
        while late.body != first.body, steps < 20 {
            drain(late, .pause)
            steps += 1
        }
        #expect(steps == 7)
        drain(late)
        rig.calls[0].body.push(Said.last())
        rig.calls[0].body.stream.finish()
        await first.end()
        await late.end()
        #expect(late.body == first.body)
    }
}
