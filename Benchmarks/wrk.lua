-- The request of the benchmarks, its body given after `--`, and wrk's summary as one line of JSON (times in
-- microseconds).

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init(arguments)
    wrk.body = arguments[1]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'summary {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"not_2xx":%d,"broken":%d}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
