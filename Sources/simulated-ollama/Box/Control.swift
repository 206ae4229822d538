import EventLoop
import HTTPCore

/// `/control`, which no Ollama has: how a test steers a box and asks what it has done.
extension Box {
    func control(_ request: Request) -> Plan {
        do {
            switch request.method {
            case "GET": break
            case "POST": try steer(request)
            case "DELETE": resetSettings()
            default: return controlAnswer(405, ["error": "GET, POST or DELETE"])
            }
            return controlAnswer(200, state)
        } catch {
            return controlAnswer(400, ["error": .string((error as? JSONProblem)?.message ?? "\(error)")])
        }
    }

    private func controlAnswer(_ status: Int, _ value: JSONValue) -> Plan {
        .send(Response(status: status, headers: ["Content-Type": "application/json"], body: Bytes(value.bytes)))
    }

    private func steer(_ request: Request) throws {
        guard case .bytes(let body) = request.body else { throw JSONProblem.empty }
        let fields = try Fields(body.buffer, as: "control")
        var changed = settings
        for (name, value) in fields.object.members {
            switch name {
            case "tokens": changed.tokens = max(try fields.int(name) ?? changed.tokens, 0)
            case "first_token_ms": changed.firstToken = try nanoseconds(fields, name)
            case "interval_ms": changed.interval = try nanoseconds(fields, name)
            case "load_ms": changed.loadTime = try nanoseconds(fields, name)
            case "parallel": changed.parallel = max(try fields.int(name) ?? changed.parallel, 1)
            case "max_queue": changed.maxQueue = max(try fields.int(name) ?? changed.maxQueue, 0)
            case "fault": if case .null = value { changed.fault = nil } else { changed.fault = try Fault(value) }
            case "reset_counts": if try fields.bool(name) == true { resetCounts() }
            default: throw JSONProblem("there is no setting \"\(name)\"")
            }
        }
        settings = changed
    }

    private func nanoseconds(_ fields: Fields, _ name: String) throws -> UInt64 {
        UInt64(min(max(try fields.number(name) ?? 0, 0), 1e9) * 1_000_000)
    }

    private var state: JSONValue {
        func milliseconds(_ nanoseconds: UInt64) -> JSONValue { .number((Double(nanoseconds) / 1_000_000).short) }
        func object(_ counts: [String: Int]) -> JSONValue {
            .object(JSONObject(members: counts.sorted { $0.key < $1.key }.map { ($0.key, .integer($0.value)) }))
        }
        return [
            "name": .string(settings.name), "tokens": .integer(settings.tokens),
            "first_token_ms": milliseconds(settings.firstToken), "interval_ms": milliseconds(settings.interval),
            "load_ms": milliseconds(settings.loadTime), "parallel": .integer(settings.parallel),
            "max_queue": .integer(settings.maxQueue), "fault": settings.fault?.json ?? nil,
            "counts": [
                "requests": object(counts.requests),
                "running": .integer(scheduler.running + counts.hanging), "waiting": .integer(scheduler.waiting),
                "finished": .integer(counts.finished), "cancelled": .integer(counts.cancelled),
                "loads": .integer(scheduler.loads.values.reduce(0, +)), "loads_by_model": object(scheduler.loads),
                "bytes_received": .integer(counts.bytesReceived), "tokens_sent": .integer(counts.tokensSent),
                "connections": .integer(OpenConnections.count),
            ],
        ]
    }
}
