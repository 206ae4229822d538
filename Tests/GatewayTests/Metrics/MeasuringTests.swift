import EventLoop
import HTTPCore
import TestSupport
import Testing

@testable import Gateway

/// How long things took, and how much was written.
@Suite(.timeLimit(.minutes(1))) struct MeasuringTests {
    init() { LoopThread.start() }

    @Loop private func finish(_ call: BoxCall) {
        call.answer(200, Said.lines)
        call.body.stream.finish()
    }

    /// The next turn of the loop.
    @Loop private func turn() async {
        try? await Signal.wait { signal in _ = Loop.events.schedule(after: .zero) { signal.fire() } }
        await quiet()
    }

    // MARK: How long it took

    @Test @Loop func `waits, first bytes and durations are measured`() async throws {
        let rig = try WorkerRig { $0.queue.concurrency = 1 }
        let first = await rig.ask(Said.ask("", "x"))
        rig.pass(seconds: 1)
        let second = await rig.ask(Said.ask("", "y"))
        let joined = await rig.ask(Said.ask("", "y"))
        rig.pass(seconds: 2)
        rig.calls[0].answer(200, Said.line("Hel"))
        await quiet()
        rig.pass(seconds: 3)
        rig.calls[0].body.push(Said.last())
        rig.calls[0].body.stream.finish()
        await first.end()
        rig.pass(seconds: 4)
        finish(rig.calls[1])
        for asked in [second, joined] { await asked.end() }
        let sums = [
            "ollama_gateway_queue_wait_seconds": "5",
            #"ollama_gateway_time_to_first_byte_seconds{model="m:latest"}"#: "\(3 + 9 + 9)",
            #"ollama_gateway_request_duration_seconds{route="/api/chat",cache="miss"}"#: "\(6 + 9)",
            #"ollama_gateway_request_duration_seconds{route="/api/chat",cache="coalesced"}"#: "9",
            "ollama_request_latency_seconds": "\(6 + 9 + 9)",
        ]
        for (name, sum) in sums {
            let parts = name.split(separator: "{", maxSplits: 1)
            let labels = parts.count > 1 ? "{\(parts[1])" : ""
            #expect(rig.metric("\(parts[0])_sum\(labels)") == sum, "\(name)")
        }
        #expect(rig.metric("ollama_gateway_queue_wait_seconds_count") == "2")
        #expect(rig.metric(#"ollama_gateway_backend_first_byte_seconds_count{backend="a"}"#) == "2")
        #expect(rig.metric(#"ollama_gateway_queue_wait_seconds_bucket{le="0.001"}"#) == "1")
    }

    @Test @Loop func `gaps lie between the pieces of an answer, and what comes at once is one piece`() async throws {
        let rig = try WorkerRig(backends: ["http://a", "http://b"])
        let gaps = #"ollama_gateway_chunk_gap_seconds_count{backend="a"}"#
        let asked = await rig.ask(Said.chat)
        rig.calls[0].answer(200)
        for _ in 0..<5 {
            for _ in 0..<3 { rig.calls[0].body.push(Said.line("x")) }
            await turn()
        }
        #expect(rig.metric(gaps) == "4")
        rig.calls[0].body.push(Said.last())
        rig.calls[0].body.stream.finish()
        await asked.end()
        #expect(rig.metric(gaps) == "5")
        await rig.fill(Said.ask("", "x"), with: Said.whole)
        #expect(!rig.gateway.exposition(.text).text.contains(#"chunk_gap_seconds_count{backend="b"}"#))
    }

    // MARK: Tokens

    @Test @Loop func `tokens are counted once for each call, and saved by all others`() async throws {
        let rig = try WorkerRig()
        let numbers =
            #""total_duration":1,"load_duration":1500000000,"prompt_eval_count":7,"eval_count":100,"#
            + #""eval_duration":4000000000"#
        let last = #"{"model":"m","message":{"role":"assistant","content":""},"done":true,\#(numbers)}"# + "\n"
        let all = [
            await rig.ask(Said.chat), await rig.ask(Said.chat), await rig.ask(Said.chatWhole), await rig.ask(Said.chat),
        ]
        all[0].leave()
        rig.calls[0].answer(200, Said.line("x") + last)
        rig.calls[0].body.stream.finish()
        for asked in all { await asked.end() }
        _ = await rig.ask(Said.chat)
        _ = await rig.ask(Said.chatWhole)
        let tokens = #"_tokens_total{model="m:latest",key="anonymous"}"#
        #expect(rig.metric("ollama_gateway_prompt" + tokens) == "7")
        #expect(rig.metric("ollama_gateway_completion" + tokens) == "100")
        #expect(rig.metric(#"ollama_gateway_saved_tokens_total{model="m:latest"}"#) == "500")
        #expect(rig.metric(#"ollama_gateway_tokens_per_second_sum{model="m:latest"}"#) == "25")
        #expect(rig.metric(#"ollama_gateway_model_load_seconds_sum{model="m:latest"}"#) == "1.500000")
        #expect(rig.metric(#"ollama_gateway_tokens_per_second_count{model="m:latest"}"#) == "1")
        #expect(rig.rig.log.records.compactMap(\.completionTokens) == [Int](repeating: 100, count: 5))
        // What fails, and what nobody waits for, is no work that a backend has told of.
        let fails = await rig.ask(Said.ask("", "y"))
        rig.calls[1].answerWhole(#"{"error":"no","total_duration":1,"prompt_eval_count":9,"eval_count":9}"#, 500)
        await fails.end()
        let leaves = await rig.ask(Said.ask("", "z"))
        rig.calls[2].answer(200, Said.line("x"))
        await quiet()
        leaves.leave()
        await leaves.end()
        #expect(rig.metric("ollama_gateway_completion" + tokens) == "100")
        // All of it had come when the last client left.
        let late = await rig.ask(Said.ask("", "w"))
        rig.calls[3].answer(200, Said.line("x") + last)
        await quiet()
        late.leave()
        await late.end()
        await quiet()
        #expect(rig.metric("ollama_gateway_completion" + tokens) == "200")
    }
}
