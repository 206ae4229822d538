import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// What `Cache-Control` does to hits, and answers that serve beyond their time.
@Suite(.timeLimit(.minutes(1))) struct HitDirectiveTests {
    init() { LoopThread.start() }

    @Test(arguments: [("Cache-Control", "no-cache"), ("Pragma", "no-cache"), ("Cache-Control", "max-age=0")])
    @Loop func `who wants it fresh gets it from the box, and it is kept for the others`(
        name: String, value: String
    ) async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        rig.pass(seconds: 1)
        let fresh = await rig.fill(
            Said.chat, headers: Headers([(name, value)]), with: Said.line("new") + Said.last())
        #expect(fresh.cache == "MISS")
        #expect(fresh.cacheStatus == "ollama-gateway; fwd=request")
        #expect(rig.calls.count == 2)
        let hit = await rig.ask(Said.chat)
        #expect(hit.body == Said.line("new") + Said.last())
        #expect(hit.client.headers["age"] == "0")
    }

    @Test @Loop func `who wants nothing kept gets its own answer, and nothing is kept`() async throws {
        let rig = try WorkerRig()
        let asked = await rig.fill(Said.chat, headers: ["Cache-Control": "no-store"], with: Said.lines)
        #expect(asked.cacheStatus == "ollama-gateway; fwd=bypass; detail=no-store")
        #expect(rig.metric("ollama_cache_size") == "0")
    }

    @Test(arguments: [(4, "MISS"), (5, "HIT"), (6, "HIT")])
    @Loop func `an answer older than the client likes will not do`(maxAge: Int, word: String) async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        rig.pass(seconds: 5)
        let asked = await rig.fill(Said.chat, headers: ["Cache-Control": "max-age=\(maxAge)"], with: Said.lines)
        #expect(asked.cache == word)
    }

    @Test @Loop func `who wants only what is kept is not sent to a box`() async throws {
        let rig = try WorkerRig()
        let only: Headers = ["Cache-Control": "only-if-cached"]
        let miss = await rig.ask(Said.chat, headers: only)
        #expect(miss.client.events == ["send 504"])
        #expect(try decode(NativeError.self, miss.body).error.contains("only-if-cached"))
        #expect(miss.cache == "MISS")
        #expect(rig.calls.count == 0)
        let openAI = await rig.ask(Said.chat, at: "/v1/chat/completions", headers: only)
        #expect(try decode(OpenAIError.self, openAI.body).error.type == "api_error")

        let leader = await rig.ask(Said.chat)
        let joining = await rig.ask(Said.chat, headers: only)
        #expect(joining.client.events == ["send 504"])
        rig.calls[0].answer(200, Said.lines)
        rig.calls[0].body.stream.finish()
        await leader.end()
        let hit = await rig.ask(Said.chat, headers: only)
        #expect(hit.cache == "HIT")
        #expect(hit.body == Said.lines)
        #expect(rig.calls.count == 1)
    }

    // MARK: Stale

    static let unreachable = TransportError(kind: .connect, answerBegan: false, isRetrySafe: true, message: "")

    @Loop private func stale() async throws -> WorkerRig {
        let rig = try WorkerRig { $0.cache.staleIfError = .seconds(60) }
        await rig.fill(Said.chat, with: Said.lines)
        return rig
    }

    @Test @Loop func `an old answer serves while no box can be reached`() async throws {
        let rig = try await stale()
        rig.pass(seconds: 40)
        let stream = await rig.ask(Said.chat)
        let whole = await rig.ask(Said.chatWhole)
        #expect(rig.calls.count == 2)
        rig.calls[1].fail(Self.unreachable)
        await stream.end()
        await whole.end()
        #expect(stream.client.events == ["send 200"])
        #expect(stream.body == Said.lines)
        #expect(stream.cache == "HIT")
        #expect(stream.cacheStatus == "ollama-gateway; hit; ttl=-10")
        #expect(stream.client.headers["age"] == "40")
        #expect(try Reading.text(whole.body) == "Hello")
        #expect(whole.cache == "HIT")
    }

    @Test @Loop func `an answer that is older than that does not`() async throws {
        let rig = try await stale()
        rig.pass(seconds: 90)
        let asked = await rig.ask(Said.chat)
        rig.calls[1].fail(Self.unreachable)
        await asked.end()
        #expect(asked.status == 502)
    }

    @Test(arguments: ["no-cache", "max-age=10"])
    @Loop func `who will not have an old answer gets the error`(directive: String) async throws {
        let rig = try await stale()
        rig.pass(seconds: 40)
        let asked = await rig.ask(Said.chat, headers: ["Cache-Control": directive])
        rig.calls[1].fail(Self.unreachable)
        await asked.end()
        #expect(asked.status == 502)
    }

    @Test @Loop func `a box that answers with an error is heard`() async throws {
        let rig = try await stale()
        rig.pass(seconds: 40)
        let asked = await rig.ask(Said.chat)
        rig.calls[1].answerWhole(#"{"error":"x"}"#, 500)
        await asked.end()
        #expect(asked.status == 500)
    }

    @Test @Loop func `without being allowed to, nothing old is served`() async throws {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        rig.pass(seconds: 40)
        let asked = await rig.ask(Said.chat)
        rig.calls[1].fail(Self.unreachable)
        await asked.end()
        #expect(asked.status == 502)
    }
}
