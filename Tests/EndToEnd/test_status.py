"""Who looks after the boxes sees what the gateway knows of them, and can take one out of service and back."""

import re
import signal
import socket
import subprocess
import time
from urllib.parse import quote

import pytest

from boxes import unused_address
from caching import missed, question
from crowd import answers_of, ask_at_once, ask_one
from dialects import check_error
from fleet import PATH, answer_as, asked, changes, cut, fresh, is_up, ready, shares
from programs import binary, run
from talking import Talk
from wire import ask, wait_until

SOON = 4.0
FIELDS = {
    "name": str, "url": str, "state": str, "models": list, "loaded": list, "running": int, "limit": int, "weight": int,
    "tier": int,
}  # fmt: skip


@pytest.fixture
def boxes(start_box):
    return [start_box(answer_as(name)) for name in "abc"]


@pytest.fixture
def gateway(boxes, start_gateway):
    return start_gateway(*(box.address for box in boxes), health_interval="1s", cache_ttl="1m", concurrency=7)


# MARK: As JSON


def test_the_status_tells_all_of_each_box(start_ollama, start_gateway):
    boxes = [start_ollama(models="llama3.2,qwen3"), start_ollama(models="mistral")]
    address, keeper = unused_address()
    with keeper:
        gateway = start_gateway(f"{boxes[0].address};weight=2;concurrency=5", f"{boxes[1].address};tier=2", address)
        status = gateway.status()
    assert set(status) >= {"uptime", "ready", "balance", "backends", "conflicts", "queue", "cache"}
    assert 0 <= status["uptime"] < 30 and status["ready"] is True
    assert (status["balance"], status["conflicts"]) == ("round-robin", [])
    for backend in status["backends"]:
        for name, kind in FIELDS.items():
            assert isinstance(backend[name], kind), (name, backend)
        assert {"since", "reason", "latency", "version"} <= set(backend)
    one, two, dead = status["backends"]
    assert [each["state"] for each in (one, two, dead)] == ["healthy", "healthy", "unhealthy"]
    assert [each["url"].rstrip("/") for each in (one, two, dead)] == [
        f"http://{each}" for each in (boxes[0].address, boxes[1].address, address)
    ]
    assert len({each["name"] for each in (one, two, dead)}) == 3
    assert sorted(map(name_of, one["models"])) == ["llama3.2:latest", "qwen3:latest"]
    assert [name_of(model) for model in two["models"]] == ["mistral:latest"]
    assert (one["weight"], one["limit"], one["tier"], two["weight"], two["tier"]) == (2, 5, 1, 1, 2)
    assert (one["version"], one["running"], one["loaded"]) == ("0.33.0", 0, [])
    assert 0 < one["latency"] < 5
    assert dead["reason"] and not one["reason"]
    assert set(status["queue"]) >= {"waiting", "limit"}


def name_of(model):
    """A model in the status: its name, or an object that has it."""
    return model if isinstance(model, str) else model["name"]


def test_the_status_follows_what_happens(start_box, start_gateway):
    talk = Talk()
    box = start_box(talk)
    gateway = start_gateway(box.address, concurrency=2, queue_limit=9, cache_ttl="1m", cache_max_bytes="1MiB")
    clients = ask_at_once(gateway, [("/api/chat", fresh("/api/chat")) for _ in range(5)])
    gateway.take_in(clients)
    status = gateway.status()
    assert (status["backends"][0]["running"], status["backends"][0]["limit"]) == (2, 2)
    assert status["queue"] == {"waiting": 3, "limit": 9}
    assert status["cache"] == {"entries": 0, "bytes": 0, "max_bytes": 1 << 20}
    for _ in clients:
        talk.call().say("x").end()
    answers_of(clients)
    status = gateway.status()
    assert (status["backends"][0]["running"], status["queue"]["waiting"]) == (0, 0)
    assert status["cache"]["entries"] == 5 and 0 < status["cache"]["bytes"] < 1 << 20


def test_the_status_tells_what_is_loaded_soon_after_it_is(start_ollama, start_gateway):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address)
    assert ask(gateway.address, "POST", PATH, body=fresh(model="mistral")).status == 200
    wait_until(lambda: "mistral" in str(gateway.backend(ollama)["loaded"]), "the loaded model", limit=2)


def test_a_state_has_a_beginning(gateway, boxes):
    before = gateway.backend(boxes[0])["since"]
    assert gateway.backend(boxes[0])["since"] == before
    boxes[0].probe = cut
    assert gateway.await_state(boxes[0], "unhealthy", limit=SOON)["since"] != before
    assert gateway.backend(boxes[1])["state"] == "healthy"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_status_can_only_be_read(gateway, boxes, method):
    answer = ask(gateway.address, method, "/gateway/status", body=b"")
    assert answer.status == 405 and "GET" in answer.header("Allow")
    assert asked(boxes) == [0, 0, 0]


def test_what_the_gateway_does_not_know_of_itself_reaches_no_box(gateway, boxes):
    for method, target in [
        ("POST", "/gateway"),
        ("GET", "/gateway/nope"),
        ("POST", "/gateway/backends"),
        ("POST", "/gateway/backends/a/b/c"),
        ("POST", f"/gateway/backends/{gateway.backend(boxes[0])['name']}/explode"),
    ]:
        assert ask(gateway.address, method, target, body=b"" if method == "POST" else None).status in (404, 405), target
    assert asked(boxes) == [0, 0, 0]


# MARK: As a table


def check_table(text, gateway):
    """Fails unless each box has a line of its own with its state, and below the table why it is not well."""
    table, _, below = text.partition("\n\n")
    for backend in gateway.status()["backends"]:
        (line,) = [line for line in table.splitlines() if backend["name"] in line]
        assert re.search(rf"\b{backend['state']}\b", line), line
        reason = f"{backend['name']} is {backend['state']}: {backend['reason']}\n"
        assert reason in below if backend["reason"] else backend["name"] not in below, below
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 400


def test_the_status_is_a_table_for_those_who_prefer_text(gateway, boxes):
    boxes[0].probe = cut
    gateway.await_state(boxes[0], "unhealthy", limit=SOON)
    answer = ask(gateway.address, "GET", "/gateway/status", [("Accept", "text/plain")])
    assert (answer.status, answer.content_type) == (200, "text/plain")
    check_table(answer.body.decode(), gateway)


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html, application/json", ""])
def test_others_get_it_as_json(gateway, accept):
    answer = ask(gateway.address, "GET", "/gateway/status", [("Accept", accept)])
    assert (answer.status, answer.content_type) == (200, "application/json")


def test_the_program_prints_the_table_of_a_gateway_that_runs(gateway):
    done = run("ollama-gateway", "status", "--url", gateway.url)
    assert (done.returncode, done.stderr) == (0, "")
    check_table(done.stdout, gateway)


def test_the_program_says_when_there_is_no_gateway():
    address, keeper = unused_address()
    with keeper:
        done = run("ollama-gateway", "status", "--url", f"http://{address}")
    assert done.returncode not in (0, 64) and done.stdout == ""
    assert address in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["nonsense://x", "", "http://"])
def test_the_program_does_not_take_any_url(url):
    done = run("ollama-gateway", "status", f"--url={url}")
    assert done.returncode == 64 and "--url" in done.stderr


def test_the_program_keeps_the_table_up_to_date_until_it_is_told_to_end(gateway, boxes):
    words = [binary("ollama-gateway"), "status", "--watch", "--url", gateway.url]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = []
    try:
        while not any("healthy" in line for line in seen):
            seen.append(process.stdout.readline())
            assert seen[-1], process.stderr.read()
        boxes[0].probe = cut
        gateway.await_state(boxes[0], "unhealthy", limit=SOON)
        begin = time.monotonic()
        while "unhealthy" not in seen[-1]:
            seen.append(process.stdout.readline())
            assert seen[-1] and time.monotonic() - begin < 10
        assert boxes[0].address in seen[-1]
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert status in (0, 130, -signal.SIGINT)


# MARK: Out of service and back


def order(gateway, box, what):
    """Drains or resumes a box."""
    name = gateway.backend(box)["name"]
    return ask(gateway.address, "POST", f"/gateway/backends/{name}/{what}", body=b"")


def test_a_drained_box_gets_nothing_new_until_it_is_resumed(gateway, boxes):
    assert order(gateway, boxes[0], "drain").status == 200
    wait_until(lambda: gateway.state(boxes[0]) == "drained", "the end of the draining", limit=2)
    assert shares(gateway, 10) == {"b": 5, "c": 5}
    # Its probes go on and do not bring it back.
    count = len(boxes[0].probed)
    wait_until(lambda: len(boxes[0].probed) > count + 1, "another probe")
    assert gateway.state(boxes[0]) == "drained"
    assert shares(gateway, 2) == {"b": 1, "c": 1}
    assert order(gateway, boxes[0], "resume").status == 200
    gateway.await_state(boxes[0], "healthy", limit=SOON)
    assert shares(gateway, 9) == {"a": 3, "b": 3, "c": 3}
    assert changes(gateway, boxes[0], "drained") == 1


def test_what_runs_on_a_box_that_is_drained_is_finished(start_box, start_gateway):
    talk = Talk()
    box, other = start_box(talk), start_box(answer_as("other"))
    gateway = start_gateway(box.address, other.address)
    clients = [ask_one(gateway, "/api/chat", fresh("/api/chat")) for _ in range(2)]
    call = talk.call().say("one ")
    assert order(gateway, box, "drain").status == 200
    assert gateway.state(box) == "draining"
    assert shares(gateway, 6) == {"other": 6}
    call.say("two").end()
    bodies = [answer.body for answer in answers_of(clients)]
    assert any(b"one " in body and b"two" in body for body in bodies)
    gateway.await_state(box, "drained")
    assert len(talk.all) == 1


def test_who_waits_in_line_goes_to_the_boxes_that_are_left(start_box, start_gateway):
    talks = [Talk(), Talk()]
    boxes = [start_box(talk) for talk in talks]
    gateway = start_gateway(*(box.address for box in boxes), concurrency=1)
    clients = ask_at_once(gateway, [("/api/chat", fresh("/api/chat")) for _ in range(4)])
    gateway.take_in(clients)
    wait_until(lambda: asked(boxes) == [1, 1], "two calls")
    assert order(gateway, boxes[0], "drain").status == 200
    talks[0].call().say("x").end()
    for _ in range(3):
        talks[1].call().say("x").end()
    assert [answer.status for answer in answers_of(clients)] == [200] * 4
    assert asked(boxes) == [1, 3]


def test_a_box_is_drained_and_resumed_as_often_as_one_likes(gateway, boxes):
    for what, state in [("drain", "drained"), ("drain", "drained"), ("resume", "healthy"), ("resume", "healthy")]:
        assert order(gateway, boxes[0], what).status == 200
        gateway.await_state(boxes[0], state, limit=SOON)


def test_without_a_box_that_serves_the_gateway_is_not_ready(gateway, boxes):
    missed(gateway, "/api/chat", question("/api/chat"))
    for box in boxes:
        assert order(gateway, box, "drain").status == 200
        gateway.await_state(box, "drained")
    assert ready(gateway) == 503 and not gateway.status()["ready"]
    answer = ask(gateway.address, "POST", "/api/chat", body=fresh("/api/chat"))
    check_error(answer, "/api/chat", 503)
    assert int(answer.header("Retry-After")) >= 1
    assert [is_up(gateway, box) for box in boxes] == [0, 0, 0]
    order(gateway, boxes[1], "resume")
    wait_until(lambda: ready(gateway) == 200, "readiness", limit=SOON)


def test_a_drained_box_that_dies_is_not_resumed_as_well(gateway, boxes):
    order(gateway, boxes[0], "drain")
    gateway.await_state(boxes[0], "drained")
    boxes[0].probe = cut
    count = len(boxes[0].probed)
    wait_until(lambda: len(boxes[0].probed) > count, "a probe")
    order(gateway, boxes[0], "resume")
    gateway.await_state(boxes[0], "unhealthy", limit=SOON)
    # Whatever it was for a moment, nobody paid for it.
    assert shares(gateway, 4) == {"b": 2, "c": 2}


def test_the_name_of_a_box_may_be_percent_encoded(gateway, boxes):
    name = quote(gateway.backend(boxes[0])["name"], safe="")
    assert "%3A" in name
    assert ask(gateway.address, "POST", f"/gateway/backends/{name}/drain", body=b"").status == 200
    gateway.await_state(boxes[0], "drained")


def test_a_box_that_nobody_knows_cannot_be_drained(gateway, boxes):
    for what in ("drain", "resume"):
        answer = ask(gateway.address, "POST", f"/gateway/backends/nope/{what}", body=b"")
        assert answer.status == 404
        assert answer.json["error"]
    assert set(gateway.states()) == {"healthy"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_draining_wants_post(gateway, boxes, method):
    name = gateway.backend(boxes[0])["name"]
    answer = ask(gateway.address, method, f"/gateway/backends/{name}/drain", body=b"" if method == "PUT" else None)
    assert answer.status == 405 and "POST" in answer.header("Allow")
    assert set(gateway.states()) == {"healthy"}


def own_address():
    """An address of this machine that is not its loopback's; None if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        try:
            plug.connect(("192.0.2.1", 9))  # Sends nothing.
        except OSError:
            return None
        address = plug.getsockname()[0]
    return None if address.startswith("127.") else address


def test_only_this_machine_may_drain(start_box, start_gateway):
    address = own_address()
    if not address:
        pytest.skip("no address but the loopback's")
    box = start_box(answer_as("a"))
    gateway = start_gateway(box.address, host="0.0.0.0")
    port = gateway.address.rsplit(":", 1)[1]
    name = gateway.backend(box)["name"]
    answer = ask(f"{address}:{port}", "POST", f"/gateway/backends/{name}/drain", body=b"")
    assert answer.status == 403
    assert gateway.state(box) == "healthy"
    assert ask(f"127.0.0.1:{port}", "POST", f"/gateway/backends/{name}/drain", body=b"").status == 200
