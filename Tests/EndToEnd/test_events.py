"""The page and its stream of events, and what becomes of them when they are not wanted, read to the last byte."""

import json
import re
import resource
import socket
import threading
import time

import pytest

from caching import hit, post, question
from crowd import ask_one
from dialects import check_error_object
from exposition import read_open_metrics, scrape
from fleet import PATH, WHOLE, answer_as, fresh, refuse_with
from talking import PROMPT_TOKENS
from wire import Connection, ask, request_bytes, wait_until

MIB = 1 << 20
WATCHERS = 32
POLICY = {
    "default-src": "'none'", "style-src": "'unsafe-inline'", "script-src": "'unsafe-inline'", "connect-src": "'self'",
    "img-src": "data:", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
}  # fmt: skip
SAMPLE = {
    "t", "requests", "hits", "errors", "refused", "tokens", "p50", "p95", "p99", "first50", "first95", "waiting",
    "running",
}  # fmt: skip
STATE = {"ready", "uptime", "queue", "cache", "connections", "totals", "backends"}
BACKEND = {
    "name", "state", "since", "reason", "running", "limit", "waiting", "models", "loaded", "latency", "version",
    "weight", "tier", "picks", "failures", "retries",
}  # fmt: skip
REQUEST = {
    "t", "id", "client", "method", "path", "model", "status", "cache", "backend", "tries", "queue", "first",
    "duration", "bytes", "tokens", "error",
}  # fmt: skip


class Watcher:
    """One who reads the events as they come."""

    def __init__(self, gateway, **options):
        self.connection = Connection(gateway.address, **options)
        self.connection.request("GET", "/gateway/events")
        self.answer = self.connection.read_head()
        self.text = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.connection.close()

    def next(self):
        """The next event: its name and what it says; None at the proper end of the stream."""
        while b"\n\n" not in self.text:
            part = self.connection.read_part()
            if not part:
                assert self.answer.complete and not self.text, f"broken off after {self.text[-100:]!r}"
                return None
            self.text += part
        block, _, self.text = self.text.partition(b"\n\n")
        match = re.fullmatch(rb"event: ([a-z]+)\ndata: ([^\n]*)", block)
        assert match, block
        name, told = match[1].decode(), json.loads(match[2])
        check_event(name, told)
        return name, told

    def until(self, name, condition=lambda _: True, limit=10):
        """What the next event of this name says for which the condition holds."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            event = self.next()
            assert event, f"the end before {name}"
            if event[0] == name and condition(event[1]):
                return event[1]
        raise AssertionError(f"no such {name} within {limit} s")


def check_event(name, told):
    """Fails unless an event is as the page wants it."""
    match name:
        case "hello":
            assert set(told) == {"version", "now", "started", "balance", "interval", "samples", "requests", "state"}
            assert told["interval"] == 1000 and len(told["samples"]) <= 300 and len(told["requests"]) <= 50
            assert 0 < told["started"] <= told["now"]
        case "tick":
            assert set(told) == {"sample", "state"}
        case "requests":
            assert set(told) == {"requests", "more"} and type(told["more"]) is int and told["more"] >= 0
        case _:
            assert (name, told) == ("bye", {})
    for sample in told.get("samples", []) + [told[each] for each in ("sample",) if each in told]:
        assert set(sample) == SAMPLE
    for each in told.get("requests", []):
        assert set(each) == REQUEST
    if "state" in told:
        check_state(told["state"])


def check_state(state):
    assert set(state) == STATE
    assert set(state["queue"]) == {"waiting", "limit"} and set(state["cache"]) == {"entries", "bytes", "max_bytes"}
    assert set(state["totals"]) == {"requests", "hits", "errors", "refused", "tokens", "saved_tokens"}
    for backend in state["backends"]:
        assert set(backend) == BACKEND
        assert backend["state"] in ("starting", "healthy", "unhealthy", "recovering", "draining", "drained")


# MARK: The page


def test_the_page_is_one_file_that_may_do_little(gateway):
    answer = ask(gateway.address, "GET", "/gateway/")
    assert (answer.status, answer.framing, answer.complete) == (200, "length", True)
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.header("Content-Security-Policy").split(";"))
    assert policy == POLICY
    assert answer.header("X-Content-Type-Options") == "nosniff"
    text = answer.body.decode()
    assert text.lower().startswith("<!doctype html>") and "</html>" in text
    # Nothing from elsewhere, in whatever way.
    assert not re.findall(r"\bsrc\s*=\s*[\"']?(?!data:)[^\"'\s>]+", text)
    assert not re.findall(r"<link\b[^>]*href=[\"']?(?!data:)[^\"'\s>]", text)
    # Links are to the gateway's own, wherever it is mounted.
    assert not re.findall(r"href=[\"']?(?:/|[a-z]+://)", text)
    assert not re.findall(r"@import|url\((?!['\"]?(?:data:|#))|\beval\(|innerHTML|\bon[a-z]+=", text)
    assert "events" in text


def test_the_page_has_a_header_without_a_body_too(gateway):
    whole = ask(gateway.address, "GET", "/gateway/")
    head = ask(gateway.address, "HEAD", "/gateway/")
    assert head.status == 200 and head.body == b""
    assert head.header("Content-Length") == whole.header("Content-Length") == str(len(whole.body))
    assert head.header("Content-Security-Policy") == whole.header("Content-Security-Policy")
    events = ask(gateway.address, "HEAD", "/gateway/events")
    assert (events.status, events.content_type, events.body) == (200, "text/event-stream", b"")


def test_without_its_last_slash_the_page_is_elsewhere(box, gateway):
    answer = ask(gateway.address, "GET", "/gateway")
    assert (answer.status, answer.header("Location")) == (308, "/gateway/")
    assert box.asked == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("target", ["/gateway", "/gateway/", "/gateway/events", "/metrics"])
def test_the_page_can_only_be_read(box, gateway, method, target):
    answer = ask(gateway.address, method, target, body=b"" if method != "OPTIONS" else None)
    assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD")
    check_error_object(target, answer.json)
    assert box.asked == []


# MARK: The events


def test_who_watches_is_greeted_and_told_each_second(box, start_gateway):
    gateway = start_gateway(box.address, cache_ttl="1m", balance="affinity", queue_limit=7)
    before = time.time() * 1e3
    with Watcher(gateway) as watcher:
        assert (watcher.answer.status, watcher.answer.header("Content-Type")) == (200, "text/event-stream")
        assert watcher.answer.header("Cache-Control") == "no-cache"
        assert watcher.answer.header("Content-Encoding") is None and watcher.answer.framing == "chunked"
        name, hello = watcher.next()
        assert name == "hello" and hello["balance"] == "affinity"
        assert before - 1 <= hello["now"] <= time.time() * 1e3 + 1
        assert hello["version"] and hello["requests"] == []
        state = hello["state"]
        assert state["ready"] is True and state["queue"] == {"waiting": 0, "limit": 7} and state["connections"] == 1
        (backend,) = state["backends"]
        assert backend["name"] == gateway.backend(box)["name"] and backend["state"] == "healthy"
        assert backend["reason"] is None and backend["models"] == len(box.models) and backend["latency"] > 0
        ticks = [watcher.until("tick") for _ in range(3)]
        times = [tick["sample"]["t"] for tick in ticks]
        assert all(900 <= later - earlier <= 1900 for earlier, later in zip(times, times[1:], strict=False)), times
        assert all(abs(t - time.time() * 1e3) < 6000 for t in times)
        # Nobody asked anything: what the gateway is asked about itself does not count.
        assert {tick["sample"]["requests"] for tick in ticks} == {0}
        assert {tick["sample"]["p50"] for tick in ticks} == {None}
    with Watcher(gateway) as late:
        # Who comes later sees what was.
        assert [sample["t"] for sample in late.next()[1]["samples"]][-3:] >= times


def test_requests_are_shown_as_they_end_and_add_up(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, cache_ttl="1m")
    name = gateway.backend(talking_box)["name"]
    shown = []
    with Watcher(gateway) as watcher:
        watcher.next()
        body = fresh()
        client = ask_one(gateway, PATH, body, ("X-Request-Id", "miss"))
        talk.call().say("a", "b").end()
        answer = client.read_answer()
        client.close()
        hit(gateway, PATH, body, ("X-Request-Id", "hit"))
        unknown = question("/api/chat", model="nope")
        assert post(gateway, "/api/chat?secret=1", unknown, ("X-Request-Id", "no")).status == 404
        ask(gateway.address, "GET", "/health")
        ask(gateway.address, "GET", "/gateway/status")
        while len(shown) < 3:
            shown += watcher.until("requests")["requests"]
        tick = watcher.until("tick", lambda tick: tick["state"]["totals"]["requests"] == 3)
    miss, kept, refused = shown
    wanted = {
        "id": "miss", "client": "127.0.0.1", "method": "POST", "path": PATH, "model": "llama3.2:latest", "status": 200,
        "cache": "MISS", "backend": name, "tries": 1, "bytes": len(answer.body), "tokens": 2, "error": None,
    }  # fmt: skip
    assert {key: miss[key] for key in wanted} == wanted
    assert 0 <= miss["queue"] <= miss["first"] <= miss["duration"] < 10 and abs(miss["t"] - time.time() * 1e3) < 10_000
    assert (kept["id"], kept["cache"], kept["backend"], kept["tokens"]) == ("hit", "HIT", None, 2)
    assert (refused["status"], refused["path"]) == (404, "/api/chat") and "not found" in refused["error"]
    totals = tick["state"]["totals"]
    assert totals == {"requests": 3, "hits": 1, "errors": 0, "refused": 1, "tokens": 2, "saved_tokens": 2}
    backend = tick["state"]["backends"][0]
    assert (backend["picks"], backend["failures"], backend["retries"]) == (1, 0, 0)
    assert tick["sample"]["p50"] == pytest.approx(miss["duration"], abs=1e-6)
    assert tick["sample"]["first50"] == pytest.approx(miss["first"], abs=1e-6)


def test_the_samples_of_a_crowd_add_up_to_what_was_asked(box, start_gateway):
    box.script = answer_as("good")
    gateway = start_gateway(box.address, cache_ttl="1m")
    with Watcher(gateway) as watcher:
        watcher.next()
        body = fresh()
        for number in range(400):
            if number == 200:
                box.script = refuse_with(500)
            post(gateway, PATH, body if number % 2 else fresh())
        ticks, shown, more = [], 0, 0
        while not ticks or ticks[-1]["state"]["totals"]["requests"] < 400 or shown + more < 400:
            name, told = watcher.next()
            if name == "tick":
                ticks.append(told)
            if name == "requests":
                shown += len(told["requests"])
                more += told["more"]
    assert sum(tick["sample"]["requests"] for tick in ticks) == 400
    assert sum(tick["sample"]["hits"] for tick in ticks) == ticks[-1]["state"]["totals"]["hits"]
    assert sum(tick["sample"]["errors"] for tick in ticks) == ticks[-1]["state"]["totals"]["errors"] == 100
    assert shown + more == 400
    # Only so many a second are shown.
    assert shown <= 25 * (len(ticks) + 1)


def test_what_happens_to_a_box_is_shown(start_box, start_gateway):
    boxes = [start_box(), start_box()]
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    names = [gateway.backend(box)["name"] for box in boxes]
    with Watcher(gateway) as watcher:
        boxes[1].close()

        def is_gone(tick):
            return tick["state"]["backends"][1]["state"] == "unhealthy"

        backend = watcher.until("tick", is_gone)["state"]["backends"][1]
        # That a probe failed is no call that has.
        assert "cannot connect" in backend["reason"] and backend["failures"] == 0
        ask(gateway.address, "POST", f"/gateway/backends/{names[0]}/drain")
        tick = watcher.until("tick", lambda tick: tick["state"]["backends"][0]["state"] == "drained")
        assert tick["state"]["ready"] is False


def test_strange_names_do_not_break_the_stream(box, start_gateway):
    gateway = start_gateway(box.address)
    names = ["a\nevent: bye\ndata: {}\n\n", "\r", "\u2028", '"}', "\x00", "</script>", "x" * 100_000]
    shown = []
    with Watcher(gateway) as watcher:
        watcher.next()
        for name in names:
            post(gateway, "/api/generate?prompt=secret", question(PATH, model=name))
            ask(gateway.address, "GET", "/%0a%0d/" + name.encode("unicode_escape").decode()[:900].replace(" ", "%20"))
        # The reader is strict.
        while len(shown) < 2 * len(names):
            shown += watcher.until("requests")["requests"]
    assert not any("secret" in json.dumps(each) for each in shown)
    assert all(len(each["path"]) <= 200 and len(each["model"] or "") <= 200 for each in shown)


def test_nothing_of_what_is_said_is_shown(start_ollama, start_gateway):
    secret = "Kryptonite"
    gateway = start_gateway(start_ollama().address, cache_ttl="1m")
    with Watcher(gateway) as watcher:
        for path in (PATH, "/api/chat", "/v1/chat/completions"):
            post(gateway, path + "?" + secret, question(path, secret), ("Authorization", secret))
        watcher.until("tick", lambda tick: tick["state"]["totals"]["requests"] == 3)
        text = watcher.answer.body
    with Watcher(gateway) as late:
        assert len(late.next()[1]["requests"]) == 3
        assert secret.encode() not in text + late.answer.body


# MARK: Those who watch


def test_so_many_may_watch_and_no_more(gateway):
    watchers = [Watcher(gateway) for _ in range(WATCHERS)]
    assert all(watcher.next()[0] == "hello" for watcher in watchers)
    refused = ask(gateway.address, "GET", "/gateway/events")
    assert refused.status == 503 and int(refused.header("Retry-After")) > 0
    assert str(WATCHERS) in check_error_object("/gateway/events", refused.json)
    # One who leaves makes way.
    watchers.pop().close()

    def has_room():
        with Watcher(gateway) as watcher:
            return watcher.answer.status == 200

    wait_until(has_room, "room")
    assert all(watcher.until("tick") for watcher in watchers)
    for watcher in watchers:
        watcher.close()


def test_those_who_watch_are_told_of_the_end_and_do_not_hold_it_up(box, start_gateway):
    gateway = start_gateway(box.address, drain_timeout="30s")
    watchers = [Watcher(gateway) for _ in range(5)]
    for watcher in watchers:
        watcher.next()
    begin = time.monotonic()
    gateway.signal()
    for watcher in watchers:
        watcher.until("bye")
        assert watcher.next() is None
    assert gateway.wait() == 0
    assert time.monotonic() - begin < 2
    assert "cut off" not in gateway.log
    for watcher in watchers:
        watcher.close()


def test_running_answers_are_finished_although_somebody_watches(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, drain_timeout="30s")
    with Watcher(gateway) as watcher:
        client = ask_one(gateway, PATH, fresh())
        call = talk.call()
        gateway.signal()
        watcher.until("bye")
        assert watcher.next() is None
        call.say("x").end()
        assert client.read_answer().status == 200
        client.close()
    assert gateway.wait() == 0


def stalled(gateway):
    """One who asks for the events and reads none of them. On its way is room for little: segments are small."""
    plug = socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    host, port = gateway.address.split(":")
    plug.connect((host, int(port)))
    plug.sendall(request_bytes("GET", "/gateway/events"))
    return plug


def addresses_of_much(start_box):
    """Of boxes of which there is much to tell each second."""
    boxes = [start_box(answer_as("good"), models=[f"model{n}" for n in range(500)]) for _ in range(8)]
    for box in boxes:
        box.loaded = box.models[:300]
    return [box.address for box in boxes]


def all_from(plug):
    """What there is to read."""
    text = b""
    try:
        while part := plug.recv(1 << 20):
            text += part
    except (BlockingIOError, ConnectionResetError):
        pass
    return text


def test_who_stops_reading_costs_no_memory_and_holds_up_nobody(start_box, start_gateway):
    gateway = start_gateway(*addresses_of_much(start_box), cache_ttl="1m")
    lazy = [stalled(gateway) for _ in range(WATCHERS - 1)]
    with Watcher(gateway) as watcher:
        watcher.next()
        body = question(PATH, model="model1", **WHOLE)
        post(gateway, PATH, body)
        watcher.until("tick")
        before, at = gateway.memory(), watcher.until("tick")["sample"]["t"]
        for _ in range(3):
            for _ in range(100):
                hit(gateway, PATH, body)
            tick = watcher.until("tick")
            assert tick["sample"]["t"] - at < 2500
            at = tick["sample"]["t"]
        assert gateway.memory() - before < 16 * MIB
    ask(gateway.address, "GET", "/health")
    for plug in lazy:
        plug.settimeout(0)
        # It missed some, when what it had not read filled what there is room for.
        assert all_from(plug).count(b"event: tick") < 4
        plug.close()
    wait_until(lambda: scrape(gateway)["ollama_gateway_connections"].value == 1, "their end")


def test_who_stops_reading_does_not_hold_up_the_end(start_box, start_gateway):
    gateway = start_gateway(*addresses_of_much(start_box), drain_timeout="30s")
    plug = stalled(gateway)
    with Watcher(gateway) as watcher:
        # What it is told is more than fits between them.
        for _ in range(3):
            watcher.until("tick")
        begin = time.monotonic()
        gateway.signal()
        watcher.until("bye")
    try:
        assert gateway.wait(5) == 0
        assert time.monotonic() - begin < 5
        # It had not taken all that was there for it.
        assert b"event: bye" not in all_from(plug)
    finally:
        plug.close()


def test_one_who_leaves_is_forgotten(gateway):
    for _ in range(3 * WATCHERS):
        with Watcher(gateway) as watcher:
            assert watcher.answer.status in (200, 503)
    wait_until(lambda: scrape(gateway)["ollama_gateway_connections"].value == 1, "their end")
    with Watcher(gateway) as watcher:
        assert watcher.until("tick")


# MARK: Without


def test_without_metrics_there_is_nothing_to_see_and_all_else_goes_on(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, cache_ttl="1m", no_metrics=True, concurrency=1, queue_limit=1)
    for target in ("/metrics", "/gateway/", "/gateway/events"):
        for method in ("GET", "HEAD"):
            answer = ask(gateway.address, method, target)
            assert answer.status == 404, (method, target)
            if method == "GET":
                assert "--no-metrics" in check_error_object(target, answer.json)
    body = fresh()
    first, joined = ask_one(gateway, PATH, body), ask_one(gateway, PATH, body)
    gateway.take_in([first, joined])
    waiting = ask_one(gateway, PATH, fresh(), ("X-Request-Id", "waits"))
    gateway.take_in([waiting])
    assert post(gateway, PATH, fresh()).status == 503
    talk.call().say("a").end()
    call = talk.call()
    assert call.exchange.asked.header("traceparent")
    call.say("b").end()
    for client in (first, joined, waiting):
        assert client.read_answer().status == 200
        client.close()
    hit(gateway, PATH, body)
    assert gateway.is_healthy() and gateway.status()["cache"]["entries"] == 2
    assert ask(gateway.address, "DELETE", "/gateway/cache").json == {"purged": 2}
    wait_until(lambda: "id=waits" in gateway.log, "the log")
    assert re.search(rf"queue=\S+ first=\S+ model=llama3.2:latest tokens={PROMPT_TOKENS}\+1 .*id=waits", gateway.log)


# MARK: What the metrics look like


@pytest.mark.parametrize(
    "accept, is_open",
    [
        (None, False),
        ("*/*", False),
        ("text/plain", False),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        ("application/json", False),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text", True),
        # What Prometheus sends.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,"
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            True,
        ),
        ("text/plain;version=0.0.4, application/openmetrics-text;q=0.5", False),
        ("APPLICATION/OpenMetrics-Text ; Q=1 , text/plain;q=0.9", True),
        ("application/openmetrics-text;q=0, text/plain", False),
        ("application/openmetrics-text;q=nonsense,,;", False),
    ],
)
def test_the_format_is_the_one_that_is_preferred(gateway, accept, is_open):
    answer = ask(gateway.address, "GET", "/metrics", [("Accept", accept)] if accept else [])
    assert answer.status == 200
    if accept and "nonsense" in accept:
        # Any answer will do.
        is_open = answer.content_type != "text/plain"
    assert answer.content_type == ("application/openmetrics-text" if is_open else "text/plain")
    assert answer.body.endswith(b"\n# EOF\n") == is_open


def test_both_formats_say_the_same(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, cache_ttl="1m")
    for number in range(6):
        post(gateway, PATH, question(PATH, f"{number % 4}", stream=False))
        post(gateway, "/api/chat", question("/api/chat", model=f"nope{number}"))
    text, other = scrape(gateway), read_open_metrics(gateway)
    assert set(text) == set(other)
    # Those move by themselves, or with a scrape.
    moving = re.compile(r"process_.*|.*_event_loop_lag_seconds|.*_backend_probe_seconds|ollama_gateway_requests_total")
    for name, family in text.items():
        assert (family.kind, family.help) == (other[name].kind, other[name].help)
        if not moving.fullmatch(name):
            assert family.samples == other[name].samples, name
    head = ask(gateway.address, "HEAD", "/metrics", [("Accept", "application/openmetrics-text")])
    assert (head.status, head.body) == (200, b"") and head.content_type == "application/openmetrics-text"


def test_the_process_is_shown_as_the_system_sees_it(start_ollama, start_gateway):
    before = time.time()
    gateway = start_gateway(start_ollama().address)
    clients = [Connection(gateway.address) for _ in range(50)]
    gateway.take_in(clients)
    for _ in range(100):
        post(gateway, PATH, fresh())
    cpu_before = gateway.processor_seconds()
    families = scrape(gateway)
    cpu_after = gateway.processor_seconds()
    value = {name: family.value for name, family in families.items() if name.startswith("process_")}
    assert set(value) == {
        "process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes",
        "process_open_fds", "process_max_fds", "process_start_time_seconds",
    }  # fmt: skip
    # The system counts by hundredths.
    assert cpu_before - 0.03 <= value["process_cpu_seconds_total"] <= cpu_after + 0.03 and cpu_before > 0
    assert abs(value["process_resident_memory_bytes"] - gateway.memory()) < 4 * MIB
    pages = int(open(f"/proc/{gateway.pid}/statm").read().split()[0])  # noqa: SIM115
    assert abs(value["process_virtual_memory_bytes"] - pages * resource.getpagesize()) < 64 * MIB
    # The scrape's own connection is open while it counts.
    assert value["process_open_fds"] in (gateway.descriptors(), gateway.descriptors() + 1)
    assert value["process_max_fds"] == resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)[0]
    # Of ticks and whole seconds since the machine was started.
    assert before - 1.1 <= value["process_start_time_seconds"] <= time.time()
    assert families["ollama_gateway_connections"].value == 51
    assert families["ollama_gateway_max_connections"].value > 51
    (build,) = families["ollama_gateway_build_info"].samples.items()
    assert build[1] == 1 and dict(build[0][1])["version"]
    lag = families["ollama_gateway_event_loop_lag_seconds"]
    assert lag.count > 100 and 0 < lag.sum <= cpu_after + 1
    for client in clients:
        client.close()


def test_scrapes_do_not_disturb_those_who_are_served(start_ollama, start_gateway, figures):
    gateway = start_gateway(start_ollama(tokens=30, first_token=0, interval="5ms").address, cache_ttl="1m")
    over, count = threading.Event(), [0]

    def scrape_all_the_time():
        with Connection(gateway.address) as client:
            while not over.is_set():
                client.request("GET", "/metrics")
                assert client.read_answer().complete
                count[0] += 1

    threads = [threading.Thread(target=scrape_all_the_time) for _ in range(2)]
    for thread in threads:
        thread.start()
    body, waits = fresh(), []
    post(gateway, PATH, body)
    try:
        with Connection(gateway.address) as client:
            for _ in range(200):
                begin = time.monotonic()
                client.request("POST", PATH, body=body)
                assert client.read_answer().status == 200
                waits.append(time.monotonic() - begin)
        assert post(gateway, "/api/chat", question("/api/chat", stream=True)).complete
    finally:
        over.set()
        for thread in threads:
            thread.join()
    waits.sort()
    figures(f"a hit while {count[0]} scrapes go on: median {waits[100] * 1e3:.2f} ms, slowest {waits[-1] * 1e3:.1f} ms")
    assert count[0] > 50 and waits[100] < 0.05
