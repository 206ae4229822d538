"""Until a client has seen the first byte of an answer, another box may give it; what changes something runs once."""

import random
import threading
import time

import pytest

from boxes import NDJSON
from caching import NEVER_KEPT, VECTORS, is_whole, post, question, told
from crowd import answers_of, ask_at_once, ask_one, tally
from dialects import check_error
from endpoints import CHAT
from fleet import (
    PATH,
    answer_as,
    asked,
    cut,
    fresh,
    hang,
    once,
    refuse_with,
    reset,
    retries,
    shares,
    signed,
    stream_as,
    who_answers,
)
from talking import STREAMING, Talk, compact
from wire import ask, wait_until

INFERENCE = [*STREAMING, *VECTORS, *NEVER_KEPT]


def half_a_header(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/js")
    exchange.cut()


FAILURES = {
    "refused": None,
    "cut": cut,
    "reset": reset,
    "half a header": half_a_header,
    "no HTTP": lambda exchange: (exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n"), exchange.cut()),
    "silence": hang,
    "429": refuse_with(429),
    "502": refuse_with(502),
    "503": refuse_with(503),
    "504": refuse_with(504),
}


@pytest.fixture
def fleet(start_box, start_gateway):
    """Starts so many boxes that fail in this way, a good one last, and a gateway that has found them all well. Returns
    the gateway, those that fail, and the good one."""

    def start(script, count=2, good=True, **settings):
        bad = [start_box(script or hang, is_fresh=True) for _ in range(count)]
        last = [start_box(answer_as("good"))] if good else []
        gateway = start_gateway(*(box.address for box in bad + last), **settings)
        if script is None:
            for box in bad:
                box.close()
        return gateway, bad, *last

    return start


# MARK: Before the first byte


@pytest.mark.parametrize("kind", FAILURES)
def test_a_request_that_a_box_fails_is_answered_by_another(fleet, kind):
    gateway, bad, good = fleet(FAILURES[kind], first_byte_timeout="500ms")
    assert shares(gateway, 6) == {"good": 6}
    assert len(good.asked) == 6
    # Each that failed was asked, but for those that could not be; and none twice for one request.
    tries = sum(asked(bad)) if kind != "refused" else 2
    assert (2 <= tries <= 12 if kind == "429" else tries == 2) and retries(gateway) == tries


@pytest.mark.parametrize("path", INFERENCE)
def test_every_endpoint_that_asks_a_model_is_asked_elsewhere(fleet, path):
    gateway, bad, good = fleet(refuse_with(503), cache_ttl="1m")
    body = fresh(path)
    answer = post(gateway, path, body)
    assert (answer.status, answer.complete) == (200, True)
    assert answer.json["response"] == "good"
    assert told(answer) in ("MISS", "BYPASS")
    assert len(good.asked) == 1 and sum(asked(bad)) <= 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [100, 5_000_000])
def test_the_next_box_gets_the_same_request(fleet, size, framing):
    gateway, bad, good = fleet(refuse_with(503))
    body = compact(fresh(PATH, context=[0], system="x" * size))
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if framing == "chunked" else body
    fields = [("Transfer-Encoding", "chunked")] if framing == "chunked" else []
    fields += [("X-Field", "kept"), ("Authorization", "Bearer x"), ("X-Request-Id", "id-1")]
    for _ in range(3):
        assert ask(gateway.address, "POST", f"{PATH}?a=b", fields, sent).status == 200
    assert (asked(bad), len(good.asked)) == ([1, 1], 3)
    for request in [each for box in (*bad, good) for each in box.asked]:
        assert (request.method, request.target, request.body) == ("POST", f"{PATH}?a=b", body)
        assert [request.header(name) for name in ("X-Field", "Authorization", "X-Request-Id")] == [
            "kept", "Bearer x", "id-1",
        ]  # fmt: skip
        assert request.header("X-Forwarded-For") == "127.0.0.1"
    for box in (*bad, good):
        assert all(request.header("Host") == box.address for request in box.asked)


@pytest.mark.parametrize("kind", ["cut", "503"])
def test_what_asks_no_model_is_asked_elsewhere_too(fleet, kind):
    gateway, bad, good = fleet(FAILURES[kind])
    for _ in range(4):
        answer = ask(gateway.address, "GET", "/api/status")
        assert (answer.status, answer.json["response"]) == (200, "good")
    assert post(gateway, "/api/show", {"model": "llama3.2"}).status == 200


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6])
def test_only_so_many_further_boxes_are_tried_and_none_twice(fleet, count):
    gateway, boxes = fleet(refuse_with(503), count=5, good=False, retries=count)
    assert post(gateway, PATH, fresh()).status == 503
    tries = min(5, 1 + count)
    assert sorted(asked(boxes)) == [0] * (5 - tries) + [1] * tries
    assert retries(gateway) == tries - 1


def test_a_gateway_that_is_told_nothing_tries_two_further_boxes(fleet):
    gateway, boxes = fleet(refuse_with(503), count=5, good=False)
    assert post(gateway, PATH, fresh()).status == 503
    assert sum(asked(boxes)) == 3


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_when_no_box_is_left_the_client_gets_the_last_ones_answer(start_box, start_gateway, path, status):
    boxes = [start_box(refuse_with(status, f"Retry-After: {20 + n}", message=f"box {n}")) for n in range(3)]
    gateway = start_gateway(*(box.address for box in boxes))
    answer = post(gateway, path, fresh(path))
    assert answer.status == status
    assert asked(boxes) == [1, 1, 1]
    number = int(answer.json["error"].split()[-1])
    assert answer.headers("Retry-After") == [b"%d" % (20 + number)]


@pytest.mark.parametrize(("kind", "status"), [("refused", 502), ("cut", 502), ("silence", 504)])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_when_no_box_is_left_and_none_answered_the_client_is_told_so(fleet, path, kind, status):
    gateway, boxes = fleet(FAILURES[kind], good=False, first_byte_timeout="300ms")
    check_error(post(gateway, path, fresh(path)), path, status)
    if kind != "refused":
        assert asked(boxes) == [1, 1]


def test_a_box_that_was_asked_in_vain_holds_no_place_any_more(fleet):
    gateway, bad, good = fleet(once(cut, answer_as("bad")), concurrency=1)
    shares(gateway, 20)
    assert [backend["running"] for backend in gateway.status()["backends"]] == [0, 0, 0]
    assert gateway.status()["queue"]["waiting"] == 0


def test_those_who_share_a_call_share_its_second_try(start_box, start_gateway):
    talks = [Talk(), Talk()]
    boxes = [start_box(talk, is_fresh=True) for talk in talks]
    gateway = start_gateway(*(box.address for box in boxes), cache_ttl="1m")
    body = question("/api/chat")
    clients = ask_at_once(gateway, [("/api/chat", body | {"stream": n % 2 == 0}) for n in range(10)])
    gateway.take_in(clients)
    wait_until(lambda: any(talk.all for talk in talks), "the call")
    first, second = talks if talks[0].all else talks[::-1]
    first.call().cut(reset=True)
    second.call().say("one ", "two").end()
    answers = answers_of(clients)
    assert tally(answers) == {"MISS": 1, "COALESCED": 9}
    assert all(is_whole("/api/chat", answer) for answer in answers)
    assert (len(first.all), len(second.all)) == (1, 1)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_amid_the_second_try_ends_it(start_box, start_gateway, how):
    boxes, departed = [], threading.Event()

    def script(exchange):
        if sum(asked(boxes)) == 1:
            exchange.cut()
        else:
            exchange.wait_for_departure()
            departed.set()

    boxes += [start_box(script, is_fresh=True) for _ in range(3)]
    gateway = start_gateway(*(box.address for box in boxes))
    client = ask_one(gateway, PATH, fresh())
    wait_until(lambda: sum(asked(boxes)) == 2, "the second try")
    getattr(client, how)()
    assert departed.wait(5)
    assert gateway.is_healthy()
    assert sum(asked(boxes)) == 2


def test_a_second_try_waits_its_turn(start_box, start_gateway):
    """A box gets no more than it may have, whoever sends it."""
    talk = Talk()
    bad, busy = start_box(cut, is_fresh=True), start_box(talk)
    gateway = start_gateway(f"{bad.address};weight=1", f"{busy.address};concurrency=1")
    first = ask_one(gateway, "/api/chat", question("/api/chat", "first"))
    second = ask_one(gateway, "/api/chat", question("/api/chat", "second"))
    call = talk.call()
    gateway.take_in([first, second])
    wait_until(lambda: bad.asked, "the box that fails")
    assert gateway.is_healthy()
    assert len(talk.running) == 1
    call.say("x").end()
    talk.call().say("x").end()
    assert [answer.status for answer in answers_of([first, second])] == [200, 200]


def test_a_box_that_says_when_to_come_again_is_not_asked_before(start_box, start_gateway):
    bad = start_box(once(refuse_with(503, "Retry-After: 3"), answer_as("bad")))
    good = start_box(answer_as("good"))
    gateway = start_gateway(bad.address, good.address, health_interval="1s")
    wait_until(lambda: who_answers(gateway) and bad.asked, "the first box's turn")
    moment = time.monotonic()

    def is_asked_again():
        return who_answers(gateway) == "bad"

    wait_until(is_asked_again, "the box's next turn")
    assert 2.5 < time.monotonic() - moment < 7


# MARK: What is the client's to hear


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500, 501])
def test_an_answer_that_another_box_would_give_too_is_passed_on(fleet, status):
    gateway, boxes = fleet(refuse_with(status), count=3, good=False)
    for number in range(1, 4):
        answer = post(gateway, PATH, fresh())
        assert (answer.status, answer.json) == (status, {"error": "said the box"})
        assert sum(asked(boxes)) == number
    assert retries(gateway) == 0


@pytest.mark.parametrize("how", ["cut", "reset", "silence"])
@pytest.mark.parametrize("cache_ttl", [0, "1m"])
def test_what_fails_after_the_first_byte_is_not_tried_again(start_box, start_gateway, how, cache_ttl):
    arrived = threading.Event()

    def script(exchange):
        exchange.start_stream(NDJSON)
        exchange.chunk(compact({"response": "one", "done": False}) + b"\n")
        assert arrived.wait(10)
        hang(exchange) if how == "silence" else exchange.cut(reset=how == "reset")

    boxes = [start_box(script) for _ in range(3)]
    gateway = start_gateway(*(box.address for box in boxes), idle_timeout="500ms", cache_ttl=cache_ttl)
    with ask_one(gateway, PATH, fresh(stream=True)) as client:
        client.read_head()
        client.read_body(20)
        arrived.set()
        answer = client.read_rest()
    assert (answer.status, answer.complete) == (200, False)
    assert answer.body.count(b'"one"') == 1
    assert b'"error"' in answer.lines[-1]
    assert sum(asked(boxes)) == 1


def test_a_whole_answer_that_breaks_off_is_not_passed_on_twice(start_box, start_gateway):
    """Half of it may be on its way to the client, or nothing yet."""
    body = compact(signed("x" * 10_000))

    def script(exchange):
        exchange.head("Content-Type: application/json", f"Content-Length: {len(body)}")
        exchange.send(body[:5000])
        exchange.cut()

    bad, good = start_box(script), start_box(answer_as("good"))
    gateway = start_gateway(bad.address, good.address)
    for _ in range(4):
        answer = post(gateway, PATH, fresh())
        if answer.status == 200 and answer.complete:
            assert answer.json["response"] == "good"
        elif answer.status == 200:
            assert body.startswith(answer.body)
        else:
            check_error(answer, PATH, 502)
    assert len(bad.asked) + len(good.asked) <= 8


# MARK: What changes something

CHANGES = {
    "pull": ("POST", "/api/pull", {"model": "x"}),
    "pull, whole": ("POST", "/api/pull", {"model": "x", "stream": False}),
    "push": ("POST", "/api/push", {"model": "me/x"}),
    "create": ("POST", "/api/create", {"model": "y", "from": "x"}),
    "copy": ("POST", "/api/copy", {"source": "x", "destination": "y"}),
    "delete": ("DELETE", "/api/delete", {"model": "x"}),
    "blob": ("POST", "/api/blobs/sha256-" + "0" * 64, b"a blob"),
}


@pytest.mark.parametrize("kind", ["cut", "reset", "silence", "503"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_something_is_never_sent_to_a_box_twice(fleet, change, kind):
    gateway, boxes = fleet(FAILURES[kind], count=3, good=False, first_byte_timeout="300ms")
    method, path, body = CHANGES[change]
    answer = ask(gateway.address, method, path, body=body)
    if answer.status == 200:
        # A stream that has begun tells of it in its last line.
        assert "error" in answer.lines[-1].decode(), answer.body
    else:
        assert answer.status >= 500
    everywhere = change.split(",")[0] in ("pull", "copy", "delete")
    assert asked(boxes) == [1, 1, 1] if everywhere else sum(asked(boxes)) == 1
    assert retries(gateway) == 0


# MARK: Many at once


def test_a_crowd_is_served_while_boxes_fail_at_random(start_box, start_gateway, figures):
    chance, lock = random.Random(7), threading.Lock()

    def script(name):
        def answer(exchange):
            with lock:
                drawn = chance.random()
            if drawn < 0.02:
                exchange.cut(reset=drawn < 0.01)
            elif drawn < 0.04:
                refuse_with(503)(exchange)
            else:
                stream_as(name)(exchange)

        return answer

    names = "abcd"
    boxes = [start_box(script(name)) for name in names] + [start_box(stream_as("e"))]
    gateway = start_gateway(*(box.address for box in boxes), retries=4, health_interval="1s")
    answers = []
    for _ in range(10):
        requests = [(PATH, fresh(stream=True)) for _ in range(60)]
        answers += answers_of(ask_at_once(gateway, requests))
    assert [answer.status for answer in answers] == [200] * 600
    assert all(is_whole(PATH, answer) and len(answer.lines) == 2 for answer in answers)
    tried = sum(asked(boxes))
    figures(f"600 requests to five boxes, four of them flaky: {tried} calls, {retries(gateway):.0f} retries")
    # Some were sent again to the same box, for the connection that broke had been idle.
    assert 600 + retries(gateway) <= tried < 700


def test_a_keep_alive_connection_that_died_with_its_box_is_no_failure(start_box, start_gateway):
    """The box restarts between two requests: the second finds its connection broken and gets a new one."""
    boxes = [start_box(answer_as(name)) for name in "ab"]
    gateway = start_gateway(*(box.address for box in boxes))
    for _ in range(10):
        shares(gateway, 2)
        boxes[0].hang_up()
    assert gateway.states() == ["healthy", "healthy"]


def test_the_crash_of_a_box_costs_its_waiting_requests_nothing(start_ollama, start_gateway):
    boxes = [start_ollama(first_token="400ms") for _ in range(2)]
    gateway = start_gateway(*(box.address for box in boxes))
    clients = ask_at_once(gateway, [("/api/chat", CHAT | {"stream": n % 2 == 0}) for n in range(12)])
    wait_until(lambda: boxes[0].counts()["running"] == 6, "the calls")
    boxes[0].process.kill()
    boxes[0].wait()
    boxes[0].process.returncode = 0  # It was meant to.
    answers = answers_of(clients)
    assert [(answer.status, answer.complete) for answer in answers] == [(200, True)] * 12


def test_an_answer_is_not_held_back_to_be_safe(start_box, start_gateway):
    """Failover must not cost a stream its pace."""
    arrived = threading.Event()
    box = start_box(stream_as("one", before=lambda: arrived.wait(10)))
    gateway = start_gateway(box.address)
    with ask_one(gateway, PATH, fresh(stream=True)) as client:
        client.read_head()
        client.read_body(20)
        arrived.set()
        assert is_whole(PATH, client.read_rest())
