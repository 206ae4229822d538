"""Each request is of a trace: boxes are told which, and OpenTelemetry's collector, if there is one, gets its spans.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/; OpenTelemetry's semantic conventions for HTTP.
"""

import json
import re
import time
from dataclasses import fields

import pytest

from boxes import silent_address, unused_address
from caching import hit, post, question, told
from collector import CLIENT, SERVER, Collector
from crowd import ask_one
from exposition import scrape
from fleet import PATH, WHOLE, answer_as, cut, fresh, hang, refuse_with
from programs import run
from talking import PROMPT_TOKENS
from wire import Connection, ask, request_bytes, wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"
VALID = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-0([0-3])")
INVALID = {
    "nothing": "",
    "capitals": PARENT.upper(),
    "no trace": f"00-{'0' * 32}-{SPAN}-01",
    "no span": f"00-{TRACE}-{'0' * 16}-01",
    "a version that cannot be": f"ff-{TRACE}-{SPAN}-01",
    "too long": PARENT + "-00",
    "too short": PARENT[:-1],
    "no digits": PARENT.replace("4", "g"),
    "other separators": PARENT.replace("-", "_"),
    "spaces": f"00 -{TRACE}-{SPAN}-01",
}


@pytest.fixture
def start_collector():
    """Starts collectors: settings as keywords."""
    started = []

    def start(**settings):
        started.append(Collector(**settings))
        return started[-1]

    yield start
    for collector in started:
        collector.close()


@pytest.fixture
def collector(start_collector):
    return start_collector()


@pytest.fixture
def traced(collector, start_gateway):
    """Starts a gateway that keeps answers and tells the collector."""
    return lambda *boxes, **settings: start_gateway(
        *(box.address for box in boxes), **{"cache_ttl": "1m", "otlp_endpoint": collector.endpoint} | settings
    )


def context_at(asked):
    """Trace, span and flags of what the box was told."""
    (value,) = asked.headers("traceparent")
    match = VALID.fullmatch(value.decode())
    assert match, value
    return match.groups()


def kinds(spans):
    return sorted(span.kind for span in spans)


def server_span(spans):
    (found,) = [span for span in spans if span.kind == SERVER]
    return found


def client_spans(spans):
    return [span for span in spans if span.kind == CLIENT]


def at_the_end(gateway, collector, count):
    """So many spans: what has not been told is told when the gateway ends."""
    assert gateway.stop() == 0
    assert not collector.errors, collector.errors
    assert len(collector.spans()) == count, collector.spans()
    return collector.spans()


def dropped(gateway):
    return scrape(gateway)["ollama_gateway_spans_dropped_total"].value


def exported(gateway):
    return scrape(gateway)["ollama_gateway_spans_exported_total"].value


# MARK: What boxes are told, without a collector


@pytest.mark.parametrize("path", [PATH, "/v1/messages", "/api/show", "/no/such/path"])
@pytest.mark.parametrize("sent", [PARENT, UNSAMPLED])
def test_a_trace_is_passed_on_as_it_came(box, gateway, path, sent):
    post(gateway, path, question(path), ("traceparent", sent), ("tracestate", "a=1,b=2"), ("tracestate", "c=3"))
    assert box.last.headers("traceparent") == [sent.encode()]
    assert b",".join(box.last.headers("tracestate")).replace(b", ", b",") == b"a=1,b=2,c=3"


@pytest.mark.parametrize("kind", INVALID)
def test_what_is_no_trace_is_replaced_by_a_new_one(box, gateway, kind):
    post(gateway, PATH, fresh(), ("traceparent", INVALID[kind]), ("tracestate", "a=1"))
    trace, _, flags = context_at(box.last)
    assert trace != TRACE and flags == "2"
    # It belonged to what is gone.
    assert box.last.headers("tracestate") == []


def test_two_traces_are_none(box, gateway):
    post(gateway, PATH, fresh(), ("traceparent", PARENT), ("traceparent", PARENT))
    trace, *_ = context_at(box.last)
    assert trace != TRACE


def test_of_a_version_to_come_what_is_known_is_passed_on(box, gateway):
    post(gateway, PATH, fresh(), ("traceparent", f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"))
    assert context_at(box.last)[:2] == (TRACE, SPAN)


def test_a_request_without_a_trace_gets_one_of_its_own(box, gateway):
    for _ in range(50):
        post(gateway, PATH, fresh(), ("tracestate", "a=1"))
    contexts = [context_at(asked) for asked in box.asked]
    assert len({trace for trace, *_ in contexts}) == len({span for _, span, _ in contexts}) == 50
    # Nobody keeps it; its id is random.
    assert {flags for *_, flags in contexts} == {"2"}
    assert not any(asked.headers("tracestate") for asked in box.asked)


def test_all_tries_of_a_request_are_of_one_trace(start_box, start_gateway):
    boxes = [start_box(refuse_with(503), is_fresh=True), start_box(answer_as("good"))]
    gateway = start_gateway(*(box.address for box in boxes))
    while not boxes[0].asked:
        post(gateway, PATH, fresh(), ("traceparent", PARENT))
    assert context_at(boxes[0].last) == context_at(boxes[1].last) == (TRACE, SPAN, "1")


def test_a_probe_belongs_to_no_trace(start_box, start_gateway):
    seen = []

    def probe(exchange):
        seen.append(exchange.asked)
        box.answer_probe(exchange)

    box = start_box(probe=probe)
    start_gateway(box.address)
    assert seen and not any(asked.headers("traceparent") for asked in seen)


# MARK: The spans of a request


def test_a_request_is_a_span_and_so_is_its_call(talk, talking_box, collector, traced):
    gateway = traced(talking_box)
    begin = time.time_ns()
    body = fresh("/api/chat")
    client = ask_one(gateway, "/api/chat?secret=1", body, ("X-Request-Id", "mine"))
    talk.call().exchange.answer({"done": True, "eval_count": 3, "prompt_eval_count": PROMPT_TOKENS, "message": {}})
    answer = client.read_answer()
    talk.all[0].over.set()
    client.close()
    end = time.time_ns()
    spans = collector.wait_for(2)
    own, (call,) = server_span(spans), client_spans(spans)
    assert own.parent_id is None and call.parent_id == own.span_id and call.trace_id == own.trace_id
    assert (own.trace_id, call.span_id, "3") == context_at(talking_box.last)
    assert begin - 1e6 <= own.start <= call.start <= call.end <= own.end + 1e6 <= end + 2e6
    assert own.name == "POST /api/chat" and call.name == "chat llama3.2:latest"
    name = gateway.backend(talking_box)["name"]
    host, port = talking_box.address.rsplit(":", 1)
    wanted = {
        "http.request.method": "POST", "http.route": "/api/chat", "url.path": "/api/chat", "url.scheme": "http",
        "client.address": "127.0.0.1", "http.response.status_code": 200, "ollama_gateway.request_id": "mine",
        "ollama_gateway.cache": "miss", "ollama_gateway.backend": name, "ollama_gateway.tries": 1,
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "llama3.2:latest",
        "http.response.body.size": len(answer.body),
    }  # fmt: skip
    assert {key: own[key] for key in wanted} == wanted
    assert 0 <= own["ollama_gateway.queue_wait"] <= own["ollama_gateway.time_to_first_byte"] <= own.seconds
    wanted = {
        "http.request.method": "POST", "url.full": f"http://{talking_box.address}/api/chat", "server.address": host,
        "server.port": int(port), "http.response.status_code": 200, "ollama_gateway.backend": name,
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "llama3.2:latest", "gen_ai.provider.name": "ollama",
        "gen_ai.usage.input_tokens": PROMPT_TOKENS, "gen_ai.usage.output_tokens": 3,
    }  # fmt: skip
    assert {key: call[key] for key in wanted} == wanted
    assert not own.is_error and not call.is_error
    # Tokens stand at the call alone: who adds them up counts them once.
    assert own["gen_ai.usage.output_tokens"] is None
    version = re.search(r"ollama-gateway (\S+)", run("ollama-gateway", "--version").stdout)[1]
    assert own.resource["service.name"] == "ollama-gateway" and own.resource["service.version"] == version
    wait_until(lambda: exported(gateway) == 2, "two spans")


def test_the_clients_span_is_the_parent(box, collector, traced):
    box.script = answer_as("good")
    gateway = traced(box)
    post(gateway, PATH, fresh(), ("traceparent", PARENT), ("tracestate", "a=1"))
    spans = at_the_end(gateway, collector, 2)
    own, (call,) = server_span(spans), client_spans(spans)
    assert (own.trace_id, own.parent_id) == (TRACE, SPAN)
    assert (call.trace_id, call.parent_id) == (TRACE, own.span_id)
    assert context_at(box.last) == (TRACE, call.span_id, "1")
    assert box.last.headers("tracestate") == [b"a=1"]


def test_what_its_client_does_not_keep_is_not_told(box, collector, traced):
    box.script = answer_as("good")
    gateway = traced(box)
    post(gateway, PATH, fresh(), ("traceparent", UNSAMPLED))
    assert context_at(box.last) == (TRACE, SPAN, "0")
    hit_body = fresh()
    post(gateway, PATH, hit_body)
    hit(gateway, PATH, hit_body, ("traceparent", UNSAMPLED))
    post(gateway, "/api/show", {"model": "llama3.2"}, ("traceparent", UNSAMPLED))
    assert TRACE not in {span.trace_id for span in at_the_end(gateway, collector, 2)}


def test_failover_is_two_calls_of_one_request(start_box, collector, traced):
    boxes = [start_box(refuse_with(503), is_fresh=True), start_box(answer_as("good"))]
    gateway = traced(*boxes)
    count = 0
    while not boxes[0].asked:
        count += 1
        assert post(gateway, PATH, fresh(), ("X-Request-Id", f"ask-{count}")).status == 200
    names = [gateway.backend(box)["name"] for box in boxes]
    at_the_end(gateway, collector, 2 * count + 1)
    (own,) = [span for span in collector.spans() if span["ollama_gateway.request_id"] == f"ask-{count}"]
    bad, good = collector.children(own)
    assert (bad.kind, good.kind) == (CLIENT, CLIENT) and bad.end <= good.start + 1e6
    assert bad.is_error and bad["error.type"] == "503" and bad["http.response.status_code"] == 503
    assert not good.is_error and good["http.request.resend_count"] == 1 and bad["http.request.resend_count"] is None
    assert not own.is_error and own["ollama_gateway.tries"] == 2
    assert [bad["ollama_gateway.backend"], good["ollama_gateway.backend"]] == names
    assert own["ollama_gateway.backend"] == names[1]
    for box, span in zip(boxes, (bad, good), strict=True):
        assert context_at(box.last) == (own.trace_id, span.span_id, "3")


def test_a_call_that_is_given_up_because_its_box_is_dead_is_an_error(start_box, collector, traced):
    boxes = [start_box(hang), start_box(answer_as("good"))]
    gateway = traced(*boxes, health_interval="1s")
    clients = [ask_one(gateway, PATH, fresh()) for _ in range(2)]
    wait_until(lambda: boxes[0].asked, "a call")
    boxes[0].probe = cut
    for client in clients:
        assert client.read_answer().status == 200
        client.close()
    calls = client_spans(at_the_end(gateway, collector, 5))
    (bad,) = [span for span in calls if span["server.port"] == boxes[0].port]
    # Its client is still there.
    assert bad.is_error and bad["ollama_gateway.client_left"] is None
    assert not any(span.is_error for span in calls if span is not bad)


def test_a_hit_is_a_span_without_a_call(box, collector, traced):
    box.script = answer_as("good")
    gateway = traced(box)
    body = fresh()
    post(gateway, PATH, body)
    # Found by its bytes, and by what it asks.
    hit(gateway, PATH, body, ("X-Request-Id", "hit-1"), ("traceparent", PARENT))
    hit(gateway, PATH, json.dumps(body, indent=2).encode(), ("X-Request-Id", "hit-2"), ("traceparent", PARENT))
    spans = at_the_end(gateway, collector, 4)
    for name in ("hit-1", "hit-2"):
        (own,) = [span for span in spans if span["ollama_gateway.request_id"] == name]
        assert own.kind == SERVER and own["ollama_gateway.cache"] == "hit"
        assert (own.trace_id, own.parent_id) == (TRACE, SPAN)
        assert own["ollama_gateway.backend"] is None and not own.is_error
        assert own["gen_ai.request.model"] == "llama3.2:latest"
    assert len(client_spans(spans)) == 1


def test_who_joins_has_a_span_of_its_own_trace(talk, talking_box, collector, traced):
    gateway = traced(talking_box)
    body = fresh()
    clients = [ask_one(gateway, PATH, body, ("traceparent", PARENT.replace(SPAN, f"{n:016x}"))) for n in (1, 2, 3)]
    gateway.take_in(clients)
    talk.call().say("x").end()
    assert sorted(told(client.read_answer()) for client in clients) == ["COALESCED", "COALESCED", "MISS"]
    for client in clients:
        client.close()
    spans = at_the_end(gateway, collector, 4)
    by_use = {}
    for span in spans:
        by_use.setdefault(span["ollama_gateway.cache"], []).append(span)
    assert len(by_use["coalesced"]) == 2 and len(by_use["miss"]) == 1
    assert {span.parent_id for span in by_use["coalesced"] + by_use["miss"]} == {f"{n:016x}" for n in (1, 2, 3)}
    ((call,),) = [by_use[None]]
    assert call.parent_id == by_use["miss"][0].span_id


@pytest.mark.parametrize(
    "script, status, error",
    [
        (refuse_with(500), 500, "500"),
        (refuse_with(404), 404, "404"),
        (cut, 502, "connectionLost"),
    ],
)
def test_what_goes_wrong_is_told(start_box, collector, traced, script, status, error):
    box = start_box(script, is_fresh=True)
    gateway = traced(box)
    assert post(gateway, PATH, fresh()).status == status
    spans = at_the_end(gateway, collector, 2)
    own, (call,) = server_span(spans), client_spans(spans)
    assert own["http.response.status_code"] == status
    assert call.is_error and call["error.type"] == error
    # Who asks for what there is not has made a mistake; the server has not.
    assert own.is_error == (status >= 500)
    if status >= 500:
        assert own["error.type"] == str(status) and box.address in own.message


def test_an_answer_that_breaks_off_is_an_error_of_both(start_box, collector, traced):
    def broken(exchange):
        exchange.start_stream()
        exchange.chunk(b'{"response":"half","done":false}\n')
        exchange.cut()

    gateway = traced(start_box(broken, is_fresh=True))
    assert not post(gateway, PATH, fresh() | {"stream": True}).complete
    spans = at_the_end(gateway, collector, 2)
    own, (call,) = server_span(spans), client_spans(spans)
    assert own.is_error and call.is_error
    assert own["http.response.status_code"] == call["http.response.status_code"] == 200


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_leaves_is_no_error(talk, talking_box, collector, traced, has_begun):
    gateway = traced(talking_box)
    client = ask_one(gateway, PATH, fresh() | {"stream": True})
    call = talk.call()
    if has_begun:
        call.say("x")
        client.read_head()
    client.close()
    call.wait_for_departure()
    spans = at_the_end(gateway, collector, 2)
    for span in spans:
        assert not span.is_error and span["ollama_gateway.client_left"] is True
    assert server_span(spans)["http.response.status_code"] is None


def test_what_the_gateway_refuses_is_a_span_with_its_reason(talk, talking_box, collector, traced):
    gateway = traced(talking_box, concurrency=1, queue_limit=0, rate_limit=2, rate_window="1h")
    client = ask_one(gateway, PATH, fresh())
    call = talk.call()
    assert post(gateway, PATH, fresh()).status == 503
    assert post(gateway, PATH, fresh()).status == 429
    call.say("x").end()
    client.read_answer()
    client.close()
    at_the_end(gateway, collector, 4)
    by_status = {span["http.response.status_code"]: span for span in collector.spans() if span.kind == SERVER}
    assert set(by_status) == {200, 503, 429}
    assert by_status[503].is_error and by_status[503]["error.type"] == "queue_full"
    assert not by_status[429].is_error


def test_what_asks_no_model_is_traced_too(box, collector, traced):
    gateway = traced(box)
    post(gateway, "/api/show", {"model": "llama3.2"}, ("traceparent", PARENT))
    ask(gateway.address, "GET", "/no/such/path/at-all?key=secret", [("traceparent", PARENT)])
    spans = at_the_end(gateway, collector, 4)
    assert {span.name for span in spans if span.kind == SERVER} == {"POST /api/show", "GET"}
    for asked, path in zip(box.asked, ["/api/show", "/no/such/path/at-all"], strict=True):
        (own,) = [span for span in spans if span.kind == SERVER and span["url.path"] == path]
        (call,) = collector.children(own)
        assert context_at(asked) == (TRACE, call.span_id, "1") and own.parent_id == SPAN


def test_what_only_asks_the_gateway_is_not_traced(box, collector, traced):
    gateway = traced(box)
    for target in ("/health", "/metrics", "/ready", "/gateway/status", "/gateway/", "/"):
        ask(gateway.address, "GET", target, [("traceparent", PARENT)])
    assert gateway.stop() == 0
    assert collector.spans() == []


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("DELETE", "/api/delete", {"model": "mistral"}),
        ("POST", "/api/copy", {"source": "mistral", "destination": "other"}),
        ("POST", "/api/pull", {"model": "mistral", "stream": False}),
        ("POST", PATH, {"model": "mistral", "keep_alive": 0}),
    ],
)
def test_each_call_of_a_request_to_all_boxes_is_a_span(start_box, collector, traced, method, path, body):
    boxes = [start_box(lambda exchange: exchange.answer({"status": "success"}), loaded=["mistral"]) for _ in range(2)]
    gateway = traced(*boxes)
    assert ask(gateway.address, method, path, [("traceparent", PARENT)], body).status == 200
    own = server_span(spans := at_the_end(gateway, collector, 3))
    assert (own.trace_id, own.parent_id) == (TRACE, SPAN)
    # What a box says of its part hangs on what it was told.
    told_of = {context_at(box.last)[1] for box in boxes}
    assert {span.span_id for span in client_spans(spans)} == told_of and len(told_of) == 2
    assert {span.parent_id for span in client_spans(spans)} == {own.span_id}


def test_nothing_of_what_is_said_is_in_a_span(start_ollama, collector, traced):
    secret = "Kryptonite"
    gateway = traced(start_ollama())
    bodies = [
        (PATH, {"model": "llama3.2", "prompt": secret, "system": secret} | WHOLE),
        (PATH, {"model": "nope", "prompt": secret}),
        ("/api/chat", {"model": "llama3.2", "messages": [{"role": "user", "content": secret}]}),
        ("/v1/messages", {"model": "mistral", "messages": [{"role": "user", "content": secret}], "max_tokens": 5}),
        ("/api/show", {"model": secret + " no name"}),
    ]
    for path, body in bodies:
        post(gateway, f"{path}?key={secret}", body, ("Authorization", secret), ("Cookie", secret))
    assert gateway.stop() == 0
    spans = collector.spans()
    assert len(spans) >= 2 * len(bodies) - 1
    for span in spans:
        assert all(secret not in str(getattr(span, each.name)) for each in fields(span)), span


# MARK: A collector that is not as it should be


def ask_often(gateway, body, count):
    """For what is kept, many times on one connection."""
    with Connection(gateway.address) as client:
        for start in range(0, count, 100):
            client.send(request_bytes("POST", PATH, (), body) * min(100, count - start))
            for _ in range(min(100, count - start)):
                assert told(client.read_answer()) == "HIT"


def usual_time(gateway, count=150):
    """Seconds that so many requests take, hits and misses."""
    begin = time.monotonic()
    for number in range(count):
        assert post(gateway, PATH, fresh() if number % 2 else question(PATH) | WHOLE).status == 200
    return time.monotonic() - begin


@pytest.mark.parametrize("ailment", ["down", "hangs", "silent", "503", "400", "nonsense"])
def test_a_collector_that_does_not_do_its_work_slows_nobody(box, start_box, start_collector, start_gateway, ailment):
    box.script = answer_as("good")
    usual = usual_time(start_gateway(box.address, cache_ttl="1m"))
    keeper = None
    match ailment:
        case "down":
            address, keeper = unused_address()
        case "silent":
            address, keeper = silent_address()
        case "nonsense":
            address = start_box(lambda exchange: (exchange.send(b"SSH-2.0\r\n"), exchange.cut())).address
        case _:
            ill = start_collector()
            address = ill.endpoint.removeprefix("http://")
            if ailment == "hangs":
                ill.hold()
            else:
                ill.status = int(ailment)
    gateway = start_gateway(box.address, cache_ttl="1m", otlp_endpoint=f"http://{address}")
    # It has been asked, in vain, before the second half.
    assert usual_time(gateway) < 4 * usual + 1
    if ailment in ("hangs", "503", "400"):
        wait_until(lambda: ill.asked, "the first batch")
    else:
        wait_until(lambda: "spans do not reach" in gateway.log or ailment == "silent", "a warning")
    assert usual_time(gateway) < 4 * usual + 1
    families = scrape(gateway)
    assert families["ollama_gateway_model_requests_total"].by().total() == 300
    assert exported(gateway) == 0
    begin = time.monotonic()
    assert gateway.stop() == 0
    # Two seconds for what is left.
    assert time.monotonic() - begin < 4
    assert len(re.findall("spans do not reach", gateway.log)) <= 1
    del keeper


def test_spans_that_nobody_takes_are_counted_and_told_of_once(box, start_collector, start_gateway):
    box.script = answer_as("good")
    collector = start_collector()
    collector.status = 400
    gateway = start_gateway(box.address, cache_ttl="1m", otlp_endpoint=collector.endpoint)
    for _ in range(2):
        count = dropped(gateway)
        post(gateway, PATH, fresh())
        wait_until(lambda: dropped(gateway) == count + 2, "the loss")
    assert exported(gateway) == 0
    assert gateway.log.count("spans do not reach") == 1
    collector.status = 200
    post(gateway, PATH, fresh())
    wait_until(lambda: exported(gateway) == 2, "two spans")
    assert dropped(gateway) == 4 and "spans reach" in gateway.log


def test_spans_that_a_collector_rejects_are_lost(box, start_collector, start_gateway):
    box.script = answer_as("good")
    collector = start_collector()
    collector.rejects = 1
    gateway = start_gateway(box.address, otlp_endpoint=collector.endpoint)
    post(gateway, PATH, fresh())
    wait_until(lambda: (exported(gateway), dropped(gateway)) == (1, 1), "one and one")


def test_a_collector_that_is_busy_is_asked_again(box, start_collector, start_gateway):
    box.script = answer_as("good")
    collector = start_collector()
    collector.status = 503
    gateway = start_gateway(box.address, otlp_endpoint=collector.endpoint)
    post(gateway, PATH, fresh())
    wait_until(lambda: collector.asked, "the first try")
    collector.status = 200
    assert len(collector.wait_for(2)) == 2
    wait_until(lambda: exported(gateway) == 2, "two spans")
    assert dropped(gateway) == 0


def test_more_spans_than_can_wait_are_dropped_and_nothing_else(box, start_collector, start_gateway):
    box.script = answer_as("good")
    collector = start_collector()
    collector.hold()
    gateway = start_gateway(box.address, cache_ttl="1h", otlp_endpoint=collector.endpoint)
    body = fresh()
    post(gateway, PATH, body)
    wait_until(lambda: collector.asked, "the first batch")
    before = gateway.memory()
    ask_often(gateway, body, 4000)
    assert dropped(gateway) > 1500
    assert gateway.memory() - before < 16 << 20
    collector.release()
    assert gateway.stop() == 0
    spans = collector.spans()
    assert 2048 <= len(spans) < 4002 and len({span.span_id for span in spans}) == len(spans)


def test_what_has_not_been_told_yet_is_told_at_the_end(talk, talking_box, collector, traced):
    gateway = traced(talking_box, drain_timeout="5s")
    client = ask_one(gateway, PATH, fresh())
    call = talk.call()
    gateway.signal()
    wait_until(lambda: "waiting up to" in gateway.log, "the drain")
    call.say("x").end()
    assert client.read_answer().status == 200
    client.close()
    assert gateway.wait() == 0
    assert kinds(collector.spans()) == [SERVER, CLIENT]


def test_spans_come_in_batches_and_each_once(box, collector, traced):
    box.script = answer_as("good")
    gateway = traced(box)
    body = fresh()
    post(gateway, PATH, body)
    ask_often(gateway, body, 1200)
    assert gateway.stop() == 0
    spans = collector.spans()
    assert len(spans) == len({span.span_id for span in spans}) == 1202
    assert max(collector.asked) <= 512 and len(collector.asked) < 20


def test_a_collector_may_have_a_prefix(box, start_collector, start_gateway):
    box.script = answer_as("good")
    collector = start_collector(path="/otlp/v1/traces")
    gateway = start_gateway(box.address, otlp_endpoint=collector.endpoint + "/")
    post(gateway, PATH, fresh())
    assert len(collector.wait_for(2)) == 2


@pytest.mark.parametrize(
    "endpoint",
    [
        "localhost:4318", "http://", "http://a:99999", "http://a:0", "http://user:word@a", "http://a/v1/traces",
        "http://a/v1/traces/", "http://a?x=1", "grpc://a:4317", "http://a b", "http://a;weight=2", "http://[::1",
        "http://a,http://b", "ftp://a", "//a", "http://a#b",
    ],
)  # fmt: skip
def test_an_address_that_no_collector_can_have_stops_the_start(endpoint):
    done = run("ollama-gateway", "--port=0", f"--otlp-endpoint={endpoint}")
    assert done.returncode == 64 and done.stdout == ""
    sentence, _ = done.stderr.splitlines()
    assert "--otlp-endpoint" in sentence and endpoint in sentence and len(sentence) < 300
    # It says what is wrong with it, or what would not be.
    assert re.search(r"allowed is|has |contains|opens|/v1/traces is put behind it", sentence.partition(">': ")[2])


@pytest.mark.parametrize("endpoint", ["http://localhost:4318", "http://127.0.0.1:1/prefix", "https://[::1]:4318"])
def test_an_address_that_a_collector_can_have_is_taken(box, start_gateway, endpoint):
    gateway = start_gateway(box.address, otlp_endpoint=endpoint)
    assert gateway.is_healthy()
