"""A collector of OpenTelemetry's: takes spans by OTLP over HTTP, with JSON, and reads them strictly.

Source: https://opentelemetry.io/docs/specs/otlp/, and opentelemetry-proto's `trace.proto`.
"""

import json
import re
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from wire import LIMIT, wait_until

PATH = "/v1/traces"
SERVER, CLIENT = 2, 3
"""Kinds of spans."""


@dataclass(frozen=True)
class Span:
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: int
    start: int
    """Nanoseconds since 1970, as is `end`."""
    end: int
    attributes: dict
    is_error: bool
    message: str | None
    """What was wrong, if anything was and it is told."""
    resource: dict
    """Attributes of the program that tells it."""
    scope: tuple[str, str]
    """Name and version of what has made the span."""

    @property
    def seconds(self):
        return (self.end - self.start) / 1e9

    def __getitem__(self, key):
        """An attribute; None where there is none."""
        return self.attributes.get(key)


class Collector:
    """Listens on a port of its own and keeps the spans of the requests that it takes.

    A test may set what it does with those that come: `status` (other than 200: nothing is kept), `retry_after`,
    `rejects` (spans of each request that it says it did not take, though it keeps them), and `hold`/`release` for
    answers that do not come. What is not as OTLP has it is answered with 400 and raised by `close`.
    """

    def __init__(self, port=0, path=PATH):
        self.path = path
        self.status = 200
        self.retry_after = None
        self.rejects = 0
        self.asked = []
        """The number of spans in each request, those that were not taken among them."""
        self.kept = []
        self.errors = []
        self.plugs = set()
        self.free = threading.Event()
        self.free.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.server.collector = self
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}" + path.removesuffix(PATH)
        """What `--otlp-endpoint` gets."""
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def spans(self, name=None):
        """All spans so far, or those of a name, in the order they came."""
        return [span for span in list(self.kept) if name in (None, span.name)]

    def wait_for(self, count, limit=LIMIT):
        """Waits until there are so many spans, and returns them."""
        wait_until(lambda: self.errors or len(self.kept) >= count, f"{count} spans at the collector", limit)
        assert not self.errors, self.errors
        return self.spans()

    def trace(self, trace_id):
        """The spans of a trace by the time they began; of two at once, the outer one first."""
        return sorted((span for span in self.spans() if span.trace_id == trace_id), key=lambda s: (s.start, -s.end))

    def children(self, parent):
        return [span for span in self.trace(parent.trace_id) if span.parent_id == parent.span_id]

    def hold(self):
        """Lets requests come, and leaves them without an answer."""
        self.free.clear()

    def release(self):
        self.free.set()

    def close(self):
        """Ends all connections, as a collector does that stops; another may take its port."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.free.set()
        for plug in list(self.plugs):
            try:
                plug.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        assert not self.errors, self.errors

    def take(self, body):
        """What is answered to a request: status and JSON."""
        try:
            spans = decode(body)
        except (AssertionError, ValueError, TypeError, LookupError) as error:
            self.errors.append(error)
            return 400, {"code": 3, "message": str(error)}
        self.asked.append(len(spans))
        self.free.wait()
        if self.status != 200:
            return self.status, {"code": 14, "message": "as the test wants it"}
        self.kept += spans
        return 200, {"partialSuccess": {"rejectedSpans": str(self.rejects)} if self.rejects else {}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.collector.plugs.add(self.connection)

    def finish(self):
        self.server.collector.plugs.discard(self.connection)
        super().finish()

    def handle(self):
        try:
            super().handle()
        except OSError:
            # The other side has left; that may be what the test is about.
            pass

    def do_POST(self):
        collector = self.server.collector
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path != collector.path:
            problem, status = f"sent to {self.path}", 404
        elif self.headers.get_all("Content-Type") != ["application/json"]:
            problem, status = f"sent as {self.headers.get_all('Content-Type')}", 415
        else:
            return self.answer(*collector.take(body))
        collector.errors.append(AssertionError(problem))
        self.answer(status, {"message": problem})

    def answer(self, status, told):
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status != 200 and self.server.collector.retry_after is not None:
            self.send_header("Retry-After", str(self.server.collector.retry_after))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def decode(body):
    """The spans of an ExportTraceServiceRequest. Fails at whatever OTLP's JSON does not allow."""
    request = json.loads(body.decode(), object_pairs_hook=members, parse_constant=refuse)
    spans = []
    for resource_spans in fields(request, "resourceSpans")["resourceSpans"]:
        fields(resource_spans, "resource", "scopeSpans", schemaUrl=str)
        resource = attributes(fields(resource_spans["resource"], "attributes")["attributes"])
        assert resource["service.name"], resource
        for scope_spans in resource_spans["scopeSpans"]:
            fields(scope_spans, "scope", "spans", schemaUrl=str)
            scope = fields(scope_spans["scope"], "name", "version")
            scope = text(scope["name"]), text(scope["version"])
            spans += [decode_span(span, resource, scope) for span in scope_spans["spans"]]
    return spans


def decode_span(told, resource, scope):
    required = ["traceId", "spanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes"]
    fields(told, *required, parentSpanId=str, traceState=str, flags=int, status=dict)
    status = fields(told.get("status", {}), message=str, code=int)
    code = status.get("code", 0)
    assert code in (0, 1, 2) and (code == 2 or "message" not in status), status
    assert told["kind"] in range(1, 6) and type(told["kind"]) is int, told
    start, end = integer(told["startTimeUnixNano"]), integer(told["endTimeUnixNano"])
    assert 0 < start <= end < 1 << 63, told
    parent = told.get("parentSpanId")
    return Span(
        hexadecimal(told["traceId"], 32), hexadecimal(told["spanId"], 16), parent and hexadecimal(parent, 16),
        text(told["name"]), told["kind"], start, end, attributes(told["attributes"]), code == 2,
        status.get("message"), resource, scope,
    )  # fmt: skip


def attributes(told):
    found = {}
    for attribute in told:
        fields(attribute, "key", "value")
        assert attribute["key"] not in found, f"twice: {attribute['key']}"
        found[text(attribute["key"])] = value(attribute["value"])
    return found


def value(told):
    """An AnyValue."""
    [(kind, said)] = told.items()
    match kind:
        case "stringValue":
            assert type(said) is str, told
            return said
        case "intValue":
            return integer(said)
        case "doubleValue":
            assert type(said) in (int, float), told
            return float(said)
        case "boolValue":
            assert type(said) is bool, told
            return said
        case "arrayValue":
            return [value(element) for element in fields(said, "values")["values"]]
    raise ValueError(f"no value: {told}")


def fields(told, *required, **optional):
    """The object, if it has what is required and nothing beyond what else is allowed, of the types given."""
    assert type(told) is dict, f"no object: {told}"
    missing, unknown = set(required) - set(told), set(told) - set(required) - set(optional)
    assert not missing and not unknown, f"missing {missing}, unknown {unknown}"
    assert all(type(told[name]) is kind for name, kind in optional.items() if name in told), told
    return told


def text(told):
    assert type(told) is str and told, f"no text: {told!r}"
    return told


def integer(told):
    """64 bits, as a string."""
    assert type(told) is str and re.fullmatch(r"-?(0|[1-9]\d*)", told), f"no integer in a string: {told!r}"
    number = int(told)
    assert -(1 << 63) <= number < 1 << 64, told
    return number


def hexadecimal(told, digits):
    assert re.fullmatch(rf"[0-9a-f]{{{digits}}}", told) and set(told) != {"0"}, f"no id: {told!r}"
    return told


def members(pairs):
    assert len(dict(pairs)) == len(pairs), f"a name twice: {pairs}"
    return dict(pairs)


def refuse(constant):
    raise ValueError(f"not JSON: {constant}")
