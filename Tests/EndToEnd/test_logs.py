"""The log: one line for each request, in text or JSON, with all that is known of it and nothing of what was said."""

import json
import os
import re
import subprocess
import threading
import time
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caching import hit, post, question
from crowd import ask_one
from exposition import scrape
from fleet import PATH, WHOLE, answer_as, cut, fresh, refuse_with
from programs import binary
from questions import TOOLS
from talking import PROMPT_TOKENS
from wire import Connection, Ended, ask, request_bytes, wait_until

BOTH = pytest.mark.parametrize("log_format", ["text", "json"])
TEXT = re.compile(
    r"(?P<time>\S+) (?P<level>[a-z]+) (?P<client>\S+) (?P<method>\S+) (?P<path>\S+) (?P<status>\d{3}) (?P<bytes>\d+)B"
    r" (?P<duration_ms>\d+\.\d{3})ms(?: queue=(?P<queue_ms>\d+\.\d{3})ms)?(?: first=(?P<first_byte_ms>\d+\.\d{3})ms)?"
    r"(?: model=(?P<model>\S+))?(?: tokens=(?P<prompt_tokens>\d+)\+(?P<completion_tokens>\d+))?"
    r"(?: backend=(?P<backend>\S+))?(?: tries=(?P<tries>\d+))?(?: cache=(?P<cache>[A-Z]+))?"
    r"(?: bypass=(?P<bypass>[a-z-]+))?(?: trace=(?P<trace_id>[0-9a-f]{32}))? id=(?P<id>\S+)"
    r'(?: error=(?P<error>"(?:[^"\\]|\\.)*"))?'
)
NUMBERS = {"status", "bytes", "duration_ms", "queue_ms", "first_byte_ms", "prompt_tokens", "completion_tokens", "tries"}
ALWAYS = {"time", "level", "client", "method", "path", "status", "bytes", "duration_ms", "id"}
SOMETIMES = {
    "queue_ms", "first_byte_ms", "model", "prompt_tokens", "completion_tokens", "backend", "tries", "cache", "bypass",
    "trace_id", "error",
}  # fmt: skip


# MARK: Reading it


def read_text(line):
    match = TEXT.fullmatch(line)
    if not match:
        return None
    found = {name: text for name, text in match.groupdict().items() if text is not None}
    if "error" in found:
        found["error"] = json.loads(found["error"])
    return {name: float(text) if name in NUMBERS else text for name, text in found.items()}


def read_json(line):
    found = json.loads(line, object_pairs_hook=once_each)
    assert set(found) >= {"time", "level", "message"}, line
    if found["message"] != "request":
        return None
    del found["message"]
    assert ALWAYS <= set(found) <= ALWAYS | SOMETIMES, line
    assert all(type(found[name]) in (int, float) for name in NUMBERS & set(found)), line
    return found


def once_each(pairs):
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def records(gateway):
    """Of all requests so far, whole lines only."""
    lines = gateway.log.split("\n")[:-1]
    return [found for line in lines if (found := read_json(line) if line.startswith("{") else read_text(line))]


def record(gateway, identifier):
    """Of the request of this id, once it is there."""

    def found():
        return [each for each in records(gateway) if each["id"] == identifier]

    (one,) = wait_until(found, f"the line of {identifier}")
    return one


def named(identifier):
    return "X-Request-Id", identifier


@pytest.fixture
def start(start_gateway):
    """Starts a gateway that keeps answers and logs in a format."""
    return lambda log_format, *boxes, **settings: start_gateway(
        *(box.address for box in boxes), **{"cache_ttl": "1m", "log_format": log_format} | settings
    )


# MARK: What is in a line


@BOTH
def test_a_miss_and_a_hit_tell_all_that_is_known_of_them(talk, talking_box, start, log_format):
    gateway = start(log_format, talking_box)
    begin = time.time()
    body = fresh()
    client = ask_one(gateway, PATH, body, named("the-miss"))
    talk.call().say("a", "b", "c").end()
    answer = client.read_answer()
    client.close()
    found = record(gateway, "the-miss")
    end = time.time()
    wanted = {
        "level": "info", "client": "127.0.0.1", "method": "POST", "path": PATH, "status": 200,
        "bytes": len(answer.body), "model": "llama3.2:latest", "prompt_tokens": PROMPT_TOKENS, "completion_tokens": 3,
        "backend": gateway.backend(talking_box)["name"], "cache": "MISS", "id": "the-miss",
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert "error" not in found and "bypass" not in found and found.get("tries", 1) == 1
    written = datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    assert begin - 0.001 <= written <= end
    assert 0 <= found.get("queue_ms", 0) <= found["first_byte_ms"] <= found["duration_ms"] <= (end - begin) * 1e3
    again = hit(gateway, PATH, body, named("the-hit"))
    found = record(gateway, "the-hit")
    wanted |= {"cache": "HIT", "id": "the-hit", "bytes": len(again.body)}
    del wanted["backend"]
    assert {name: found[name] for name in wanted} == wanted
    assert not {"backend", "queue_ms", "first_byte_ms", "error"} & set(found)


@BOTH
def test_every_way_to_have_an_answer_is_told(talk, talking_box, start, log_format):
    gateway = start(log_format, talking_box, concurrency=1, queue_limit=1, rate_limit=9, rate_window="1h")
    body = question("/v1/chat/completions", stream=True)
    first = ask_one(gateway, "/v1/chat/completions", body, named("first"))
    joined = ask_one(gateway, "/v1/chat/completions", body | WHOLE, named("joined"))
    call = talk.call().say("a")
    gateway.take_in([first, joined])
    queued = ask_one(gateway, PATH, fresh(), named("queued"))
    gateway.take_in([queued])
    waits_since = time.monotonic()
    assert post(gateway, PATH, fresh(), named("full")).status == 503
    wait_until(lambda: scrape(gateway)["ollama_gateway_queue_depth"].value == 1, "the line")
    waited = (time.monotonic() - waits_since) * 1e3
    call.say("b").end()
    talk.call().end()
    for name, client in (("first", first), ("joined", joined), ("queued", queued)):
        answer = client.read_answer()
        assert answer.status == 200, (name, answer)
        assert record(gateway, name)["bytes"] == len(answer.body)
    # Tokens are told although the client has not asked for them.
    assert record(gateway, "first")["completion_tokens"] == 2
    assert record(gateway, "joined")["cache"] == "COALESCED" and record(gateway, "joined")["completion_tokens"] == 2
    found = record(gateway, "queued")
    assert waited <= found["queue_ms"] <= found["first_byte_ms"]
    found = record(gateway, "full")
    assert (found["status"], found["level"], found["cache"]) == (503, "warning", "MISS")
    assert "--queue-limit" in found["error"] and "backend" not in found
    tools = ask_one(gateway, "/api/chat", question("/api/chat", tools=TOOLS, stream=False), named("tools"))
    talk.call().say("x").end()
    assert tools.read_answer().status == 200
    found = record(gateway, "tools")
    assert (found["cache"], found["bypass"]) == ("BYPASS", "tools")
    assert post(gateway, PATH, fresh() | {"model": "nope"}, named("unknown")).status == 404
    found = record(gateway, "unknown")
    assert (found["status"], found["level"], found["model"]) == (404, "info", "nope:latest")
    assert found["error"] == "model 'nope' not found"
    assert post(gateway, PATH, fresh(), named("old"), ("Cache-Control", "only-if-cached")).status == 504
    assert record(gateway, "old")["status"] == 504
    for number in range(8):
        if post(gateway, PATH, fresh() | {"model": "nope"}, named(f"rate-{number}")).status == 429:
            break
    found = record(gateway, f"rate-{number}")
    assert (found["status"], found["level"]) == (429, "info") and "Rate limit" in found["error"]
    assert "cache" not in found and "backend" not in found
    for client in (first, joined, queued, tools):
        client.close()


@BOTH
def test_failover_is_told_with_the_box_that_answered_and_the_tries(start_box, start, log_format):
    boxes = [start_box(refuse_with(503), is_fresh=True), start_box(answer_as("good"))]
    gateway = start(log_format, *boxes)
    while not boxes[0].asked:
        answer = post(gateway, PATH, fresh(), named(f"ask-{len(boxes[1].asked)}"))
        assert answer.status == 200
    found = record(gateway, f"ask-{len(boxes[1].asked) - 1}")
    assert (found["tries"], found["backend"]) == (2, gateway.backend(boxes[1])["name"])
    assert (found["status"], found["level"]) == (200, "info")


@BOTH
def test_what_fails_is_a_warning_that_says_why(start_box, start, log_format):
    box = start_box(is_fresh=True)
    gateway = start(log_format, box)
    name = gateway.backend(box)["name"]

    def broken(exchange):
        exchange.start_stream()
        exchange.chunk(b'{"response":"half","done":false}\n')
        exchange.cut()

    for script, stream, status, words in [
        (refuse_with(500), False, 500, f"backend {name}: it answers 500"),
        (broken, True, 200, f"backend {name}: connection lost amid the answer"),
        (refuse_with(502), False, 502, f"backend {name}: it answers 502"),
    ]:
        box.script = script
        answer = post(gateway, PATH, fresh() | {"stream": stream}, named(f"fails-{status}"))
        assert answer.status == status
        found = record(gateway, f"fails-{status}")
        assert (found["status"], found["level"]) == (status, "warning")
        assert found["error"].startswith(words), found
    box.script = cut
    assert ask(gateway.address, "POST", "/api/show", [named("show")], {"model": "x"}).status in (502, 503)
    assert record(gateway, "show")["level"] == "warning"
    box.close()
    gateway.await_state(box, "unhealthy")
    wait_until(lambda: post(gateway, PATH, fresh()).status == 503, "a refusal")
    assert post(gateway, PATH, fresh(), named("none")).status == 503
    found = record(gateway, "none")
    assert found["level"] == "warning" and "cannot connect" in found["error"] and name in found["error"]


@BOTH
def test_clients_that_leave_are_told_as_499(talk, talking_box, start, log_format):
    gateway = start(log_format, talking_box)
    early = ask_one(gateway, PATH, fresh(), named("early"))
    talk.call()
    early.close()
    found = record(gateway, "early")
    assert (found["status"], found["bytes"], found["level"], found["error"]) == (499, 0, "info", "the client left")
    assert found["model"] == "llama3.2:latest" and "first_byte_ms" not in found
    late = ask_one(gateway, PATH, fresh() | {"stream": True}, named("late"))
    talk.call().say("x")
    late.read_head()
    late.read_body(1)
    late.close()
    found = record(gateway, "late")
    assert (found["status"], found["level"]) == (499, "info") and found["bytes"] > 0 and "first_byte_ms" in found


@BOTH
def test_what_is_no_request_is_told_as_far_as_it_goes(box, start, log_format):
    gateway = start(log_format, box, max_body="1KiB")
    with Connection(gateway.address) as client:
        client.send(b"POST /api/chat HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-Request-Id: two\r\n\r\n")
        assert client.read_answer().status == 400
    assert "Host" in record(gateway, "two")["error"]
    answer = post(gateway, "/api/chat", b" " * 2000, named("large"))
    assert answer.status == 413
    found = record(gateway, "large")
    assert (found["status"], found["bytes"], found["method"]) == (413, len(answer.body), "POST")
    assert ask(gateway.address, "HEAD", "/api/tags", [named("head")]).status == 200
    assert (record(gateway, "head")["bytes"], record(gateway, "head")["method"]) == (0, "HEAD")


@BOTH
def test_the_trace_that_a_client_names_is_told(box, start, log_format):
    gateway = start(log_format, box)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    fields = [("traceparent", f"00-{trace}-00f067aa0ba902b7-00"), named("traced")]
    post(gateway, PATH, fresh(), *fields)
    assert record(gateway, "traced")["trace_id"] == trace
    post(gateway, PATH, fresh(), named("untraced"))
    assert "trace_id" not in record(gateway, "untraced")


# MARK: Which there are

OWN = [
    ("GET", "/health", 200),
    ("HEAD", "/health", 200),
    ("GET", "/ready", 200),
    ("GET", "/metrics", 200),
    ("GET", "/gateway", 308),
    ("GET", "/gateway/", 200),
    ("GET", "/gateway/status", 200),
    ("GET", "/gateway/nope", 404),
]
CHANGES = [
    ("DELETE", "/gateway/cache"),
    ("POST", "/gateway/backends/{}/drain"),
    ("POST", "/gateway/backends/{}/resume"),
]


@BOTH
@pytest.mark.parametrize("log_level", ["info", "debug"])
def test_who_only_asks_how_the_gateway_is_leaves_no_line_but_for_debugging(box, start, log_format, log_level):
    gateway = start(log_format, box, log_level=log_level)
    for number, (method, target, status) in enumerate(OWN):
        assert ask(gateway.address, method, target, [named(f"own-{number}")]).status == status
    assert ask(gateway.address, "GET", "/api/tags", [named("other")]).status == 200
    record(gateway, "other")
    told_of = {each["id"]: each for each in records(gateway) if each["id"].startswith("own-")}
    if log_level == "info":
        assert not told_of
        return
    for number, (method, target, status) in enumerate(OWN):
        found = told_of[f"own-{number}"]
        assert (found["method"], found["path"], found["status"]) == (method, target, status)
        assert found["level"] == "debug"


@BOTH
def test_who_changes_something_of_the_gateway_leaves_a_line(box, start, log_format):
    gateway = start(log_format, box)
    name = gateway.backend(box)["name"]
    for number, (method, target) in enumerate(CHANGES):
        assert ask(gateway.address, method, target.format(name), [named(f"change-{number}")]).status == 200
    ask(gateway.address, "GET", "/api/tags", [named("other")])
    record(gateway, "other")
    told_of = [(each["method"], each["path"], each["level"]) for each in records(gateway) if "change-" in each["id"]]
    assert told_of == [(method, target.format(name), "info") for method, target in CHANGES]


@BOTH
def test_at_warning_only_what_failed_is_told(start_box, start, log_format):
    box = start_box(answer_as("good"))
    gateway = start(log_format, box, log_level="notice")
    assert post(gateway, PATH, fresh(), named("good")).status == 200
    assert post(gateway, PATH, fresh() | {"model": "nope"}, named("refused")).status == 404
    box.script = refuse_with(500)
    assert post(gateway, PATH, fresh(), named("bad")).status == 500
    record(gateway, "bad")
    assert [each["id"] for each in records(gateway)] == ["bad"]


# MARK: What must not be in a line

BIDI = "\u202e\u2066\u200b\ufeff\u00ad"
MODELS = [
    "a\nforged", "a\r\n2026-01-01T00:00:00.000Z info 127.0.0.1 GET /forged 200 0B 0.000ms id=forged", 'q"uote',
    "back\\", "a b=c id=forged", "\x1b[31mred", "\u2028\u2029\x85\x7f\x00", BIDI, "é漢\U0001f600", "<6>x",
    '","status":200,"x":"', 'nope error="" id=forged', "\\u{20}",
]  # fmt: skip


def check_clean(text):
    """Fails if there is anything that ends a line, or speaks to a terminal, or changes the order of letters."""
    strange = {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    lines = text.split("\n")
    assert not strange, {f"U+{ord(char):04X}": next(line for line in lines if char in line) for char in strange}


@BOTH
def test_a_name_of_a_model_cannot_break_a_line_nor_forge_one(box, start, log_format):
    gateway = start(log_format, box)
    before = len(gateway.log.splitlines())
    for number, model in enumerate(MODELS):
        for path in (PATH, "/v1/chat/completions", "/api/show", "/api/pull"):
            body = question(path, model=model, stream=False)
            assert post(gateway, path, body, named(f"nasty-{number}{path}")).complete
    count = 4 * len(MODELS)
    wait_until(lambda: len(records(gateway)) >= count, "the lines")
    identifiers = [each["id"] for each in records(gateway)]
    assert len(set(identifiers)) == len(identifiers) == count
    assert all(each["id"].startswith("nasty-") and each["client"] == "127.0.0.1" for each in records(gateway))
    # Pulls of what cannot be pulled may be told of beside.
    assert len(gateway.log.splitlines()) - before <= count + len(MODELS)
    for line in gateway.log.splitlines():
        assert log_format == "text" or json.loads(line)
    assert not re.search(r"(^|\n)(<6>|2026-01-01)", gateway.log)
    check_clean(gateway.log)


@BOTH
def test_a_target_or_a_header_cannot_either(box, start, log_format):
    gateway = start(log_format, box)
    targets = [
        b"/a%0Aforged", b"/a\x1b[31m", b"/a\x85b", "/\u202e\u2028é".encode(), b"/a'\"b", b"/a\\u{20}", b"/%00%1b",
        b"/" + b"x" * 8000, b"/a?id=forged\x07",
    ]  # fmt: skip
    for number, target in enumerate(targets):
        for field in (b"X-Request-Id: a b", b"X-Request-Id: \xe2\x80\xae", b"User-Agent: \x1b", b"X-Request-Id: ok"):
            with Connection(gateway.address) as client:
                client.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n")
                try:
                    client.read_answer()
                except Ended:
                    pass
    post(gateway, PATH, fresh(), named("last"))
    record(gateway, "last")
    lines = gateway.log.split("\n")[:-1]
    if log_format == "json":
        assert all(json.loads(line) for line in lines)
    else:
        assert all(read_text(line) for line in lines if "/a" in line or "/x" in line)
    assert "forged" not in [each["id"] for each in records(gateway)]
    check_clean(gateway.log)


@BOTH
def test_a_name_of_any_length_is_no_line_of_any_length(box, start, log_format):
    gateway = start(log_format, box)
    for path in (PATH, "/api/chat", "/v1/embeddings", "/api/show", "/api/delete"):
        body = question(path, model="x" * 500_000, stream=False)
        method = "DELETE" if path == "/api/delete" else "POST"
        answer = ask(gateway.address, method, path, [named(f"long{path}")], body)
        assert answer.complete
        record(gateway, f"long{path}")
    assert max(map(len, gateway.log.splitlines())) < 20_000


@BOTH
def test_nothing_of_what_is_said_is_in_the_log(start_ollama, start, log_format):
    secret = "Kryptonite"
    ollama = start_ollama(tokens=3)
    gateway = start(log_format, ollama, log_level="trace", concurrency=1, max_body="64KiB")
    messages = [{"role": "system", "content": secret}, {"role": "user", "content": secret, "images": [secret]}]
    bodies = [
        (PATH, {"model": "llama3.2", "prompt": secret, "system": secret, "suffix": secret, "template": secret}),
        (PATH, {"model": "nope", "prompt": secret}),
        ("/api/chat", {"model": "llama3.2", "messages": messages, "tools": [{"type": secret}]}),
        ("/api/embed", {"model": "nomic-embed-text", "input": [secret]}),
        ("/v1/chat/completions", {"model": "mistral", "messages": messages[:1], "user": secret}),
        ("/v1/responses", {"model": "mistral", "input": secret}),
        ("/v1/messages", {"model": "mistral", "messages": [{"role": "user", "content": secret}], "max_tokens": 5}),
        ("/api/create", {"model": "new", "from": "mistral", "system": secret}),
    ]
    sent = [(path, json.dumps(body).encode()) for path, body in bodies]
    sent += [(path, body[:-3]) for path, body in sent] + [(PATH, secret.encode()), (PATH, secret.encode() * 10_000)]
    for path, body in sent * 2:
        post(gateway, path, body, ("Authorization", f"Bearer {secret}"), ("Cookie", secret), ("User-Agent", secret))
    ollama.control(fault={"kind": "cut", "after": 1, "times": 2})
    for path, body in sent[:2]:
        post(gateway, path, body, ("Cache-Control", "no-store"))
    assert gateway.stop() == 0
    assert len([each for each in records(gateway) if each["level"] != "debug"]) == 2 * len(sent) + 2
    assert secret not in gateway.log


# MARK: To the journal


class Logged:
    """A gateway whose standard error is a file or a pipe, and whose environment says that it is the journal."""

    def __init__(self, box, log_format, kind, journal):
        self.file = None
        if kind == "file":
            self.file = open(journal["path"], "w+b")  # noqa: SIM115
            descriptor = self.file.fileno()
        else:
            self.reader, descriptor = os.pipe()
        status = os.fstat(descriptor)
        told_of = {"this": f"{status.st_dev}:{status.st_ino}", "other": f"{status.st_dev}:{status.st_ino + 1}"}
        environment = {name: text for name, text in os.environ.items() if name != "JOURNAL_STREAM"}
        if journal["stream"] != "none":
            environment["JOURNAL_STREAM"] = told_of.get(journal["stream"], journal["stream"])
        words = ["--port=0", f"--backends={box.address}", f"--log-format={log_format}", "--log-level=debug"]
        self.process = subprocess.Popen([binary("ollama-gateway"), *words], stderr=descriptor, env=environment)
        self.bytes = b""
        if not self.file:
            os.close(descriptor)
            self.thread = threading.Thread(target=self.drain)
            self.thread.start()

    def drain(self):
        while got := os.read(self.reader, 65536):
            self.bytes += got
        os.close(self.reader)

    @property
    def log(self):
        return (Path(self.file.name).read_bytes() if self.file else self.bytes).decode()

    @property
    def address(self):
        return wait_until(lambda: re.search(r'listening on http://([^\s"]+)', self.log), "listening")[1]

    def end(self):
        self.process.terminate()
        assert self.process.wait(10) == 0
        if self.file:
            self.file.close()
        else:
            self.thread.join()
        return self.log.splitlines()


@BOTH
@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("stream", ["this", "other", "none", "", "1:2:3", "x"])
def test_lines_for_the_journal_begin_with_their_level_and_others_do_not(start_box, tmp_path, kind, stream, log_format):
    box = start_box(refuse_with(500))
    logged = Logged(box, log_format, kind, {"stream": stream, "path": tmp_path / "log"})
    assert post(logged, PATH, fresh(), named("bad")).status == 500
    assert ask(logged.address, "GET", "/api/show", [named("also-bad")]).status == 500
    assert post(logged, PATH, fresh() | {"model": "a\n<0>nope"}, named("nasty")).status == 500
    assert post(logged, PATH, fresh() | {"model": "nope"}, named("good")).status == 404
    assert ask(logged.address, "GET", "/health", [named("own")]).status == 200
    lines = logged.end()
    if stream != "this":
        assert not any(line.startswith("<") for line in lines)
        return
    levels = {"debug": 7, "info": 6, "notice": 5, "warning": 4}
    for line in lines:
        number, rest = re.fullmatch(r"<([0-7])>(.*)", line).groups()
        level = json.loads(rest)["level"] if log_format == "json" else rest.split(" ")[1]
        assert int(number) == levels[level], line
    read = {"json": read_json, "text": read_text}[log_format]
    found = {each["id"]: each["level"] for line in lines if (each := read(line[3:]))}
    assert found == {
        "bad": "warning", "also-bad": "warning", "nasty": "warning", "good": "info", "own": "debug",
    }  # fmt: skip


def test_lines_come_whole_however_many_write_them(box, start_gateway):
    gateway = start_gateway(box.address, log_format="json")
    with Connection(gateway.address) as client:
        for start_at in range(0, 2000, 200):
            client.send(
                b"".join(request_bytes("GET", f"/log/{n}", [named(f"n-{n}")]) for n in range(start_at, start_at + 200))
            )
            for _ in range(200):
                assert client.read_answer().status == 200
    wait_until(lambda: gateway.log.count("/log/") >= 2000, "the lines")
    assert {each["id"] for each in records(gateway)} == {f"n-{n}" for n in range(2000)}
