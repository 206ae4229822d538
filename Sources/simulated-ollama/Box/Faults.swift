import EventLoop
import HTTPCore

extension Box {
    /// The fault that strikes this request, if one does; it is used up by that.
    func takeFault(for path: String, isInference: Bool) -> Fault? {
        guard let fault = settings.fault, fault.concerns(path, isInference: isInference) else { return nil }
        if let times = fault.times {
            guard times > 0 else { return nil }
            settings.fault?.times = times - 1
        }
        return fault
    }

    /// Never answers. Returns when the client has left.
    func hang(_ reply: consuming Reply) async {
        counts.hanging += 1
        try? await Signal.wait { _ in }
        counts.hanging -= 1
        counts.cancelled += 1
        _ = consume reply
    }

    /// A plan that was made without regard to the call's fault, with what the fault does to its answer. Plans that
    /// take time look after the fault themselves.
    func damaged(_ plan: Plan, for call: Call) -> Plan {
        guard let response = plan.response, response.status == 200 else { return plan }
        switch call.fault?.kind {
        case .errorLine?:
            return call.answer(Failure(status: 500, message: call.fault?.message ?? ""))
        case .cut?, .hang?:
            return .work { [self] reply in
                counts.hanging += 1
                await deliver(plan, for: call, reply)
                counts.hanging -= 1
            }
        default:
            return plan
        }
    }

    /// Sends an answer in one piece that took its time, as the call's fault will have it, and counts it.
    func deliver(_ plan: Plan, for call: Call, _ reply: consuming Reply) async {
        switch (call.fault?.kind, plan.response) {
        case (.cut?, let response?):
            sendHalf(of: response, call, reply).abort()
            counts.finished += 1
        case (.hang?, let response?):
            let writer = sendHalf(of: response, call, reply)
            try? await Signal.wait { _ in }
            withExtendedLifetime(writer) { counts.cancelled += 1 }
        default:
            counts.finished += 1
            await damaged(plan, for: call).carryOut(reply)
        }
    }

    /// The header and half of the body; with a fault after chunk 0 the header only.
    private func sendHalf(of response: Response, _ call: Call, _ reply: consuming Reply) -> any ResponseWriter {
        let body = response.body.buffer
        let writer = reply.stream(status: response.status, headers: response.headers, length: body.count)
        if call.fault?.after != 0 { _ = writer.write(UnsafeRawBufferPointer(rebasing: body[..<(body.count / 2)])) }
        return writer
    }
}
