import EventLoop
import HTTPCore

/// A request for words, all checked: what is left is to wait for the model and to say them.
@Loop
struct Work {
    let call: Call
    let inference: Inference
    let demand: Scheduler.Demand
    let script: Script
    let format: any AnswerFormat
    /// The answer if nothing was asked: the model is loaded, that is all.
    var loaded: Plan?

    var arrival: UInt64 { call.arrival }
}

extension Box {
    /// At once if nothing is to be waited for, else as work.
    func plan(_ work: Work) -> Plan {
        if let plan = planNow(work) { return plan }
        return .work { [self] reply in await carryOut(work, reply) }
    }

    /// The shortest way, for answers in one piece that take no time.
    private func planNow(_ work: Work) -> Plan? {
        guard !work.inference.stream || work.loaded != nil, work.call.fault == nil else { return nil }
        guard work.loaded != nil || settings.delay(stream: false, pieces: work.script.count) == 0 else { return nil }
        guard let lease = scheduler.leaseNow(work.demand) else { return nil }
        defer { scheduler.release(lease) }
        counts.finished += 1
        if let loaded = work.loaded { return loaded }
        return whole(work, lease, began: EventLoop.monotonicNanoseconds())
    }

    private func whole(_ work: Work, _ lease: Lease, began: UInt64) -> Plan {
        let source = AnswerSource(work, lease, began: began, counts: counts)
        source.begin(firstToken: min(began &+ settings.firstToken, EventLoop.monotonicNanoseconds()))
        let broken = work.call.fault?.kind == .silentEnd ? work.call.fault?.after : nil
        return work.call.answer(200, work.format.wholeContentType, source.whole(pieces: broken))
    }

    private func carryOut(_ work: Work, _ reply: consuming Reply) async {
        let lease: Lease
        do {
            lease = try await scheduler.lease(work.demand)
        } catch is QueueFull {
            return await work.call.answer(.queueFull).carryOut(reply)
        } catch {
            counts.cancelled += 1
            return
        }
        // Given back when the answer is written or its client has left, whichever comes first.
        defer { scheduler.release(lease) }
        if let loaded = work.loaded {
            counts.finished += 1
            return await loaded.carryOut(reply)
        }
        let began = EventLoop.monotonicNanoseconds()
        let delay = settings.delay(stream: work.inference.stream, pieces: work.script.count)
        do {
            if delay > 0 { try await Loop.sleep(for: .nanoseconds(Int64(clamping: delay))) }
        } catch {
            counts.cancelled += 1
            return
        }
        if work.inference.stream {
            await stream(work, lease, began: began, reply)
        } else {
            await deliver(whole(work, lease, began: began), for: work.call, reply)
        }
    }

    private func stream(_ work: Work, _ lease: Lease, began: UInt64, _ reply: consuming Reply) async {
        let source = AnswerSource(work, lease, began: began, counts: counts)
        source.begin(firstToken: EventLoop.monotonicNanoseconds())
        var headers = work.call.headers(work.format.contentType)
        if work.call.endpoint == .responses || work.call.endpoint == .messages {
            headers.append("Cache-Control", "no-cache")
        }
        let writer = reply.stream(status: 200, headers: headers)
        await play(source, to: writer, for: work.call)
    }

    /// Plays a stream to its end and counts how it ended.
    func play(_ source: any ChunkSource, to writer: any ResponseWriter, for call: Call) async {
        do {
            try await PacedStream(source, to: writer, interval: settings.interval, fault: call.fault).play()
            counts.finished += 1
        } catch {
            counts.cancelled += 1
        }
    }
}
