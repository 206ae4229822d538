import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// One record a request, with what is known of it.
@Suite(.timeLimit(.minutes(1))) struct AccessRecordTests {
    init() { LoopThread.start() }

    @Test @Loop func `a forwarded request is recorded when it is over`() async throws {
        let clock = Clock()
        let body = Body()
        let log = RecordedLog()
        let box = Box { _ in
            clock.now += 1500
            return body.answer(201)
        }
        let gateway = Gateway(
            backends: [try Backend("box:7/p")], transport: box, hash: testHash, clock: { clock.now }, log: log)
        gateway.fleet.isWell(0)
        let start = clock.now
        let client = Client()
        let asked = request(
            "POST", "/api/chat?x=1", headers: ["X-Request-Id": "mine"], peer: .ipv6(0x2001_0db8_0000_0000, 1))
        let task = Loop.task { await gateway.handle(asked, Reply(port: client)) }
        clock.now += 2500
        body.push("thé")
        body.push("!")
        #expect(log.records.isEmpty)
        body.stream.finish()
        await task.value

        #expect(log.records.count == 1)
        let record = try #require(log.records.first)
        #expect(record.start == start)
        #expect(record.id == "mine")
        #expect(record.peer == "2001:db8::1")
        #expect(record.method == "POST")
        #expect(record.target == "/api/chat?x=1")
        #expect(record.status == 201)
        #expect(record.backend == "box:7/p")
        #expect(record.bytes == 5)
        #expect(record.firstByte == 1500)
        #expect(record.duration == 4000)
        #expect(record.error == nil)
    }

    @Test @Loop func `an answer that leaves whole is recorded with its size`() async throws {
        let rig = try Rig { _ in Body("thé").answer(length: 4) }
        await rig.handle(request())
        #expect(rig.log.records.map(\.bytes) == [4])
        #expect(rig.log.records.map(\.firstByte) == [0])
        #expect(rig.log.records.map(\.peer) == ["192.0.2.1"])
    }

    @Test(arguments: [
        ("GET", "/", 200, 17), ("HEAD", "/", 200, 0), ("GET", "/health", 200, 67), ("HEAD", "/health", 200, 0),
        ("POST", "/health", 405, 30),
    ])
    @Loop func `an answer of the gateway's own is recorded without a box`(
        method: String, target: String, status: Int, bytes: Int
    ) throws {
        let rig = try Rig()
        let response = try #require(rig.gateway.answer(request(method, target, headers: ["X-Request-Id": "mine"])))
        #expect(rig.log.records.count == 1)
        let record = try #require(rig.log.records.first)
        #expect(record.start == rig.clock.now)
        #expect(record.id == "mine")
        #expect([record.method, record.target] == [method, target])
        #expect(record.status == status)
        #expect(record.bytes == bytes)
        #expect(method == "HEAD" || record.bytes == response.body.count)
        #expect(record.backend == nil)
        #expect(record.firstByte == nil)
    }

    @Test @Loop func `a request that is not answered at once is not recorded yet`() throws {
        let rig = try Rig()
        #expect(rig.gateway.answer(request()) == nil)
        #expect(rig.log.records.isEmpty)
    }

    @Test @Loop func `a refusal is recorded with its reason`() throws {
        let rig = try Rig()
        _ = rig.gateway.refusal(
            of: request("POST", "/api/chat", headers: ["X-Request-Id": "mine"]), for: .bodyTooLarge(limit: 5))
        let record = try #require(rig.log.records.first)
        #expect(record.id == "mine")
        #expect(record.status == 413)
        #expect(record.error == RequestProblem.bodyTooLarge(limit: 5).message)
        #expect(record.backend == nil)
    }

    @Test @Loop func `a log that is off gets no records`() async throws {
        let rig = try Rig { _ in Body("").answer(length: 0) }
        rig.log.wants = .none
        await rig.handle(request())
        _ = rig.gateway.answer(request("GET", "/"))
        _ = rig.gateway.refusal(of: nil, for: .tooSlow)
        #expect(rig.log.records.isEmpty)
        #expect(rig.client.events == ["send 200"])
    }
}
