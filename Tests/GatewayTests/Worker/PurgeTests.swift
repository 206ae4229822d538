import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// `DELETE /gateway/cache`.
@Suite(.timeLimit(.minutes(1))) struct PurgeTests {
    init() { LoopThread.start() }

    private static let here = PeerAddress.ipv4(0x7f00_0001)

    @Loop private func purge(_ rig: WorkerRig, _ query: String = "", from peer: PeerAddress = here) -> Response? {
        rig.gateway.answer(request("DELETE", "/gateway/cache" + query, peer: peer))
    }

    @Loop private func filled() async throws -> WorkerRig {
        let rig = try WorkerRig()
        await rig.fill(Said.chat, with: Said.lines)
        await rig.fill(Said.ask("", "other"), with: Said.lines)
        await rig.fill(Said.ask("", model: "M:latest", "third"), with: Said.lines)
        await rig.fill(Said.ask(model: "n/m"), with: Said.lines)
        #expect(rig.metric("ollama_cache_size") == "4")
        return rig
    }

    @Test @Loop func `everything goes, and is asked for anew`() async throws {
        let rig = try await filled()
        let response = try #require(purge(rig))
        #expect(response.status == 200)
        #expect(response.headers["content-type"] == "application/json")
        #expect(response.body.text == #"{"purged":4}"#)
        #expect(rig.metric("ollama_cache_size") == "0")
        #expect(purge(rig)?.body.text == #"{"purged":0}"#)
        let again = await rig.fill(Said.chat, with: Said.lines)
        #expect(again.cache == "MISS")
        #expect(await rig.ask(Said.chat).cache == "HIT")
    }

    @Test(arguments: [
        ("m", 3), ("M", 3), ("m%3Alatest", 3), ("library/m", 3), ("n%2Fm", 1), ("n/m:latest", 1), ("x", 0), ("+m+", 3),
    ])
    @Loop func `one model's answers go, however it is spelled`(name: String, count: Int) async throws {
        let rig = try await filled()
        #expect(purge(rig, "?model=" + name)?.body.text == #"{"purged":\#(count)}"#)
        #expect(rig.metric("ollama_cache_size") == "\(4 - count)")
    }

    @Test(arguments: ["?x", "?model=", "?model", "?model=%", "?Model=m", "?x=1&model=m"])
    @Loop func `a query that is not understood purges nothing`(query: String) async throws {
        let rig = try await filled()
        let response = try #require(purge(rig, query))
        #expect(response.status == 400)
        #expect(try decode(NativeError.self, response.body.text).error.contains("allowed is model=NAME"))
        #expect(rig.metric("ollama_cache_size") == "4")
    }

    @Test(arguments: [
        (here, 200), (.ipv4(0x7fff_ffff), 200), (.ipv6(0, 1), 200), (.local, 200), (.ipv4(0xc0a8_0001), 403),
        (.ipv6(0, 2), 403), (.ipv4(0x8000_0001), 403),
    ])
    @Loop func `only this machine may`(peer: PeerAddress, status: Int) async throws {
        let rig = try WorkerRig()
        #expect(purge(rig, from: peer)?.status == status)
    }

    @Test(arguments: [
        ("Host", "localhost", 200), ("Host", "LOCALHOST:8080", 200), ("Host", "127.0.0.1:8080", 200),
        ("Host", "[::1]:8080", 200), ("Host", "gateway:8080", 403), ("Host", "127.attacker.example", 403),
        ("Host", "127.0.0.1.evil.example:80", 403), ("Host", "127.", 403), ("Host", "127.0.0.256", 403),
        ("Host", "[::1]evil", 403), ("Host", "[::1", 403), ("Host", "localhost:evil", 403), ("Host", "", 403),
        ("Origin", "http://localhost", 403), ("X-Forwarded-For", "127.0.0.1", 403), ("Forwarded", "for=x", 403),
        ("Via", "1.1 proxy", 403),
    ])
    @Loop func `only who asks it directly, and by a name of its own, may`(
        name: String, value: String, status: Int
    ) async throws {
        let rig = try WorkerRig()
        for (method, path) in [("DELETE", "/gateway/cache"), ("POST", "/gateway/backends/a/drain")] {
            let asked = request(method, path, headers: [name: value], peer: Self.here)
            #expect(rig.gateway.answer(asked)?.status == status)
        }
    }

    @Test @Loop func `other methods are told what is allowed`() async throws {
        let rig = try WorkerRig()
        for method in ["GET", "POST", "PUT"] {
            let response = try #require(rig.gateway.answer(request(method, "/gateway/cache", peer: Self.here)))
            #expect(response.status == 405)
            #expect(response.headers["allow"] == "DELETE")
        }
        #expect(rig.gateway.answer(request("DELETE", "/gateway/other", peer: Self.here))?.status == 404)
    }

    @Test @Loop func `an answer that is on its way when the cache is purged is served and not kept`() async throws {
        for (query, kept) in [("", "0"), ("?model=M", "0"), ("?model=n", "1")] {
            let rig = try WorkerRig()
            let stream = await rig.ask(Said.chat)
            let whole = await rig.ask(Said.chatWhole)
            rig.calls[0].answer(200, Said.line("Hel"))
            await quiet()
            _ = purge(rig, query)
            // Who asks now is to have what is so now.
            let later = await rig.ask(Said.chat)
            #expect(rig.calls.count == (kept == "0" ? 2 : 1))
            rig.calls[0].body.push(Said.line("lo") + Said.last())
            rig.calls[0].body.stream.finish()
            await stream.end()
            await whole.end()
            #expect(stream.body == Said.lines)
            #expect(try Reading.text(whole.body) == "Hello")
            #expect(rig.metric("ollama_cache_size") == kept)
            later.leave()
            await later.end()
        }
    }
}
