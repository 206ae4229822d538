import EventLoop
import HTTPCore

/// One request on its way through the box, and what its answers have in common.
@Loop
struct Call {
    let request: Request
    let endpoint: Endpoint
    /// In monotonic nanoseconds.
    let arrival: UInt64
    /// What a fault does to the answer; nil for all but a few.
    var fault: Fault?
    /// For browsers.
    let added: [Headers.Field]

    var dialect: Dialect { endpoint.dialect }

    /// The body of the request, if it was collected.
    var body: UnsafeRawBufferPointer {
        if case .bytes(let bytes) = request.body { return bytes.buffer }
        return UnsafeRawBufferPointer(start: nil, count: 0)
    }

    /// The body as a JSON object. Throws a ``Failure`` in Ollama's words.
    func fields(_ type: String) throws(Failure) -> Fields {
        do {
            return try Fields(body, as: type)
        } catch .empty {
            // The `/v1` endpoints pass Go's word on.
            throw Failure(status: 400, message: dialect == .native ? "missing request body" : "EOF", isEarly: true)
        } catch {
            throw Failure(status: 400, message: error.message, isEarly: true)
        }
    }

    func headers(_ contentType: String?) -> Headers {
        var headers = Headers()
        headers.reserve(2 + added.count)
        if let contentType { headers.append("Content-Type", contentType) }
        for field in added { headers.append(field.name, field.value) }
        return headers
    }

    func answer(_ status: Int, _ contentType: String?, _ body: [UInt8]) -> Plan {
        let headers = headers(contentType)
        if request.method == "HEAD" {
            return .send(Response(status: status, headers: headers, declaredLength: body.count))
        }
        let response = Response(status: status, headers: headers, body: Bytes(body))
        return body.count > Plan.countedLength ? .chunked(response) : .send(response)
    }

    func answer(json value: JSONValue) -> Plan { answer(200, "application/json; charset=utf-8", value.bytes) }

    func answer(_ failure: Failure) -> Plan {
        answer(failure.status, dialect.contentType(of: failure), dialect.body(of: failure))
    }
}

/// How a request is going to be answered.
enum Plan {
    case send(Response)
    /// Longer than Go's server measures: sent in chunks, of which it makes one.
    case chunked(Response)
    /// Something that takes time.
    case work(@Loop (consuming Reply) async -> Void)

    /// Up to here Go's server waits for a body's end and declares its length. Source: net/http,
    /// bufferBeforeChunkingSize.
    static let countedLength = 2048

    @Loop
    func carryOut(_ reply: consuming Reply) async {
        switch self {
        case .send(let response):
            reply.send(response)
        case .chunked(let response):
            let writer = reply.stream(status: response.status, headers: response.headers)
            _ = writer.write(response.body.buffer)
            writer.finish()
        case .work(let work):
            await work(reply)
        }
    }

    /// The answer if it is known at once.
    var response: Response? {
        switch self {
        case .send(let response), .chunked(let response): response
        case .work: nil
        }
    }
}
