import EventLoop
import HTTPCore

/// What an inference request must get past before anything is done for it: an ordered list of checks, the first
/// refusal wins.
@Loop
struct Admission {
    private let checks: [any AdmissionCheck]

    init(_ checks: [any AdmissionCheck]) { self.checks = checks }

    /// - Returns: header fields for the answer, whatever it will be, and the refusal, if there is one.
    func admit(_ request: Request, at now: UInt64) -> (headers: Headers, refusal: Failure?) {
        var headers = Headers()
        for check in checks {
            if let refusal = check.check(request, at: now, &headers) { return (headers, refusal) }
        }
        return (headers, nil)
    }
}

/// One of the checks.
@Loop
protocol AdmissionCheck: AnyObject {
    /// - Parameters:
    ///   - now: monotonic nanoseconds.
    ///   - headers: header fields of the answer, to add to.
    func check(_ request: Request, at now: UInt64, _ headers: inout Headers) -> Failure?
}

/// So many requests a client address and window.
/// Source: draft-ietf-httpapi-ratelimit-headers-03 for the fields; the `X-` ones are what clients knew before.
@Loop
final class RateLimitCheck: AdmissionCheck {
    private var limit: RateLimit

    init(_ limit: consuming RateLimit) { self.limit = limit }

    func check(_ request: Request, at now: UInt64, _ headers: inout Headers) -> Failure? {
        let verdict = limit.take(request.peer, at: now)
        let (allowed, remaining, reset) = (String(verdict.limit), String(verdict.remaining), String(verdict.resetAfter))
        headers.append("RateLimit-Limit", allowed)
        headers.append("RateLimit-Remaining", remaining)
        headers.append("RateLimit-Reset", reset)
        headers.append("X-RateLimit-Limit", allowed)
        headers.append("X-RateLimit-Remaining", remaining)
        headers.append("X-RateLimit-Reset", reset)
        guard !verdict.admitted else { return nil }
        return Failure(
            status: 429, message: "Rate limit exceeded. Try again later.", retryAfter: verdict.resetAfter, .rateLimit)
    }
}
