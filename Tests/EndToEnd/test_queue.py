"""Each box works on so many requests at a time; the others wait in line at the gateway, and not for ever."""

import re
import threading
import time

import openai
import pytest

from boxes import NDJSON
from caching import CACHEABLE, NEVER_KEPT, gist, hit, is_whole, post, question, told
from crowd import answers_of, ask_at_once, ask_one, tally
from dialects import check_error
from talking import STREAMING, Talk, compact
from wire import ask, wait_until

LOOSE = 2.0
"""Seconds: what happens at once is only judged by this, on a shared machine."""
INFERENCE = [*CACHEABLE, *NEVER_KEPT]


@pytest.fixture
def start(talking_box, start_gateway):
    """Starts a gateway in front of the talking box that keeps answers."""
    return lambda **settings: start_gateway(talking_box.address, **({"cache_ttl": "1m"} | settings))


def line_up(gateway, path, texts, **fields):
    """Asks one after the other, each when the gateway has the one before. Returns the connections."""
    clients = []
    for text in texts:
        clients.append(ask_one(gateway, path, question(path, text) | fields))
        gateway.take_in(clients[-1:])
    return clients


def let_pass(talk, count, limit=10):
    """Ends the next calls one by one, as they come; returns what they asked."""
    asked = []
    for _ in range(count):
        call = talk.call(limit)
        asked.append(call.question)
        call.say(call.question).end()
    return asked


def check_busy(answer, path):
    """Fails unless the client is told to come again."""
    check_error(answer, path, 503)
    assert re.fullmatch(rb"[1-9]\d*", answer.headers("Retry-After")[0]), answer.fields
    assert len(answer.headers("Retry-After")) == 1


# MARK: So many at a time


@pytest.mark.parametrize("concurrency", [1, 2, 7])
def test_a_box_gets_no_more_requests_at_a_time_than_it_may(talk, start, concurrency):
    gateway = start(concurrency=concurrency)
    clients = ask_at_once(gateway, [("/api/chat", question("/api/chat", f"question {n}")) for n in range(20)])
    gateway.take_in(clients)
    running = [talk.call() for _ in range(concurrency)]
    for _ in range(20 - concurrency):
        assert gateway.is_healthy()
        assert talk.is_silent
        running.pop(0).say("x").end()
        # The place that is free is taken at once.
        running.append(talk.call())
    for call in running:
        call.say("x").end()
    assert tally(answers_of(clients)) == {"MISS": 20}


def test_a_gateway_that_is_told_nothing_runs_four_at_a_time(talk, start):
    gateway = start(concurrency=None, queue_limit=None)
    clients = ask_at_once(gateway, [("/api/chat", question("/api/chat", f"question {n}")) for n in range(10)])
    gateway.take_in(clients)
    calls = [talk.call() for _ in range(4)]
    assert gateway.is_healthy()
    assert talk.is_silent
    for call in calls:
        call.say("x").end()
    let_pass(talk, 6)
    answers_of(clients)


@pytest.mark.parametrize("path", INFERENCE)
def test_every_endpoint_that_asks_a_model_waits_its_turn(talk, start, path):
    gateway = start(concurrency=1)
    clients = line_up(gateway, path, ["one", "two"])
    first = talk.call()
    assert gateway.is_healthy()
    assert talk.is_silent
    first.say("x").end()
    assert let_pass(talk, 1) == ["two"]
    assert all(answer.status == 200 for answer in answers_of(clients))


def test_with_one_at_a_time_the_box_is_asked_in_the_order_of_arrival(talk, start):
    gateway = start(concurrency=1)
    paths = INFERENCE * 3
    texts = [f"question {number}" for number in range(len(paths))]
    clients = []
    for path, text in zip(paths, texts, strict=True):
        clients += line_up(gateway, path, [text])
    asked, most = [], 0
    for _ in texts:
        call = talk.call()
        most = max(most, len(talk.running))
        asked.append(call.question)
        call.say("x").end()
    assert (asked, most) == (texts, 1)
    for path, answer in zip(paths, answers_of(clients), strict=True):
        assert answer.status == 200
        assert told(answer) == ("BYPASS" if path in NEVER_KEPT else "MISS")


@pytest.mark.parametrize("cache_ttl", [0, "1m"])
def test_a_crowd_never_exceeds_what_the_box_may_have(start_box, start_gateway, cache_ttl):
    lock, full, running, most = threading.Lock(), threading.Event(), 0, 0

    def script(exchange):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
        # The first are not done before the box has all that it may have.
        assert full.wait(10)
        exchange.start_stream(NDJSON)
        for number in range(3):
            exchange.chunk(compact({"model": "llama3.2", "response": str(number), "done": False}) + b"\n")
        # Before the last byte: what follows it may come before the lock is had.
        with lock:
            running -= 1
        exchange.chunk(compact({"model": "llama3.2", "response": "", "done": True, "done_reason": "stop"}) + b"\n")
        exchange.end_stream()

    box = start_box(script)
    gateway = start_gateway(box.address, cache_ttl=cache_ttl, concurrency=3, queue_limit=1000)
    path = "/api/generate"
    answers = answers_of(ask_at_once(gateway, [(path, question(path, f"question {n}")) for n in range(500)]))
    assert all(is_whole(path, answer) for answer in answers)
    assert len(box.asked) == 500
    assert most == 3


def test_what_asks_no_model_does_not_wait(talk, talking_box, start):
    gateway = start(concurrency=1, queue_limit=1)
    clients = line_up(gateway, "/api/chat", ["one", "two"])
    first = talk.call()
    # The box is asked these at once, while the line is full.
    talking_box.script = lambda exchange: exchange.answer({"models": []})
    for method, target in [("GET", "/api/tags"), ("GET", "/api/ps"), ("GET", "/v1/models"), ("POST", "/api/show")]:
        assert ask(gateway.address, method, target, body={} if method == "POST" else None).status == 200
    for target in ("/health", "/metrics", "/"):
        assert ask(gateway.address, "GET", target).status == 200
    talking_box.script = talk
    first.say("x").end()
    let_pass(talk, 1)
    answers_of(clients)


@pytest.mark.parametrize("how", ["refused", "cut", "cut amid", "silent"])
def test_a_call_that_fails_makes_way(talk, start, how):
    gateway = start(concurrency=1, first_byte_timeout="1s")
    clients = line_up(gateway, "/api/chat", ["one", "two"])
    call = talk.call()
    match how:
        case "refused":
            call.refuse(500, "out of memory")
        case "cut":
            call.cut()
        case "cut amid":
            call.say("one ").cut()
    assert let_pass(talk, 1) == ["two"]
    broken, good = answers_of(clients)
    assert not is_whole("/api/chat", broken)
    assert is_whole("/api/chat", good)


@pytest.mark.parametrize("cache_ttl", [0, "1m"])
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_leaves_makes_way(talk, start, has_begun, cache_ttl):
    gateway = start(concurrency=1, cache_ttl=cache_ttl)
    clients = line_up(gateway, "/api/chat", ["one"])
    # Of another model: a load that others wait for is not broken off.
    clients += line_up(gateway, "/api/chat", ["two"], model="mistral")
    call = talk.call()
    if has_begun:
        call.say("one ")
    clients[0].close()
    call.wait_for_departure(limit=LOOSE)
    assert let_pass(talk, 1, limit=LOOSE) == ["two"]
    assert is_whole("/api/chat", clients[1].read_answer())
    clients[1].close()


# MARK: So many in line


@pytest.mark.parametrize("path", INFERENCE)
def test_who_finds_the_line_full_is_told_to_come_again(talk, start, path):
    gateway = start(concurrency=1, queue_limit=3)
    clients = line_up(gateway, path, [f"question {n}" for n in range(4)])
    for _ in range(2):
        begin = time.monotonic()
        check_busy(post(gateway, path, question(path, "one more")), path)
        assert time.monotonic() - begin < LOOSE
    # As soon as there is room, it is taken in.
    let_pass(talk, 1)
    wait_until(lambda: len(talk.all) == 2, "the next call")
    late = line_up(gateway, path, ["late"])
    check_busy(post(gateway, path, question(path, "one more")), path)
    assert let_pass(talk, 4) == ["question 1", "question 2", "question 3", "late"]
    assert all(answer.status == 200 for answer in answers_of(clients + late))
    assert len(talk.all) == 5


def test_a_crowd_beyond_the_limit_is_turned_away_and_not_one_more(talk, start):
    gateway = start(concurrency=2, queue_limit=10)
    path = "/api/chat"
    clients = ask_at_once(gateway, [(path, question(path, f"question {n}")) for n in range(100)])
    gateway.take_in(clients)
    let_pass(talk, 12)
    answers = answers_of(clients)
    served = [answer for answer in answers if answer.status == 200]
    assert len(served) == 12 == len(talk.all)
    for answer in answers:
        if answer.status != 200:
            check_busy(answer, path)


def test_who_asks_what_is_already_asked_needs_no_place_in_line(talk, start):
    gateway = start(concurrency=1, queue_limit=1)
    clients = line_up(gateway, "/api/chat", ["one", "two"] + ["one", "two"] * 10)
    check_busy(post(gateway, "/api/chat", question("/api/chat", "three")), "/api/chat")
    assert let_pass(talk, 2) == ["one", "two"]
    answers = answers_of(clients)
    assert tally(answers) == {"MISS": 2, "COALESCED": 20}
    assert [gist("/api/chat", answer)["text"] for answer in answers] == ["one", "two"] * 11


@pytest.mark.parametrize("form", [{"stream": True}, {"stream": False}], ids=["stream", "whole"])
@pytest.mark.parametrize("path", STREAMING)
def test_a_kept_answer_never_waits(talk, start, path, form):
    gateway = start(concurrency=1, queue_limit=1)
    clients = line_up(gateway, path, ["kept"], **form)
    let_pass(talk, 1)
    (first,) = answers_of(clients)
    clients = line_up(gateway, path, ["one", "two"])
    check_busy(post(gateway, path, question(path, "three")), path)
    for _ in range(10):
        assert hit(gateway, path, question(path, "kept") | form, limit=LOOSE).body == first.body
    assert let_pass(talk, 2) == ["one", "two"]
    answers_of(clients)


def test_a_kept_answer_is_quick_while_the_box_is_slow(start_ollama, start_gateway):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address, cache_ttl="1m", concurrency=1)
    path = "/api/chat"
    assert told(post(gateway, path, question(path, "kept"))) == "MISS"
    ollama.control(first_token_ms=5000)
    begin = time.monotonic()
    clients = line_up(gateway, path, ["one", "two"])
    for _ in range(100):
        hit(gateway, path, question(path, "kept"))
    assert time.monotonic() - begin < 4
    for client in clients:
        client.close()


def test_the_openai_client_comes_again_when_it_is_told_to(talk, start):
    gateway = start(concurrency=1, queue_limit=1)
    clients = line_up(gateway, "/api/chat", ["one", "two"])
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.InternalServerError) as raised:
        client.completions.create(model="llama3.2", prompt="three")
    assert raised.value.status_code == 503
    assert int(raised.value.response.headers["Retry-After"]) >= 1
    let_pass(talk, 2)
    answers_of(clients)


# MARK: So long in line


@pytest.mark.parametrize("path", INFERENCE)
def test_who_has_waited_too_long_is_told_to_come_again(talk, start, path):
    gateway = start(concurrency=1, queue_timeout="1s")
    begin = time.monotonic()
    clients = line_up(gateway, path, ["one", "two"])
    running = talk.call()
    answer = clients.pop().read_answer()
    check_busy(answer, path)
    assert 0.8 < time.monotonic() - begin < 8
    # Who runs does not wait, and may take longer.
    running.say("x").end()
    assert [answer.status for answer in answers_of(clients)] == [200]
    assert talk.is_silent and len(talk.all) == 1


def test_all_who_waited_for_the_same_are_told(talk, start):
    gateway = start(concurrency=1, queue_timeout="1s")
    clients = line_up(gateway, "/api/chat", ["one"] + ["two"] * 5)
    running = talk.call()
    for client in clients[1:]:
        check_busy(client.read_answer(), "/api/chat")
        client.close()
    running.say("x").end()
    assert clients[0].read_answer().status == 200
    clients[0].close()
    assert len(talk.all) == 1


def test_those_behind_one_who_waited_too_long_move_up(talk, start):
    gateway = start(concurrency=1, queue_limit=1, queue_timeout="1s")
    clients = line_up(gateway, "/api/chat", ["one", "two"])
    running = talk.call()
    check_busy(clients[1].read_answer(), "/api/chat")
    clients += line_up(gateway, "/api/chat", ["three"])
    running.say("x").end()
    assert let_pass(talk, 1) == ["three"]
    assert clients[2].read_answer().status == clients[0].read_answer().status == 200
    for client in clients:
        client.close()


# MARK: Leaving the line


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_is_out_of_the_line_at_once(talk, start, how):
    gateway = start(concurrency=1, queue_limit=2)
    path = "/api/chat"
    clients = line_up(gateway, path, ["one", "two", "three"])
    check_busy(post(gateway, path, question(path, "refused")), path)
    getattr(clients[1], how)()
    # Its place is free for another.
    late = []

    def is_taken_in():
        client = ask_one(gateway, path, question(path, "late"))
        gateway.take_in([client])
        client.plug.settimeout(0.1)
        try:
            check_busy(client.read_answer(), path)
            client.close()
            return False
        except TimeoutError:
            client.plug.settimeout(10)
            late.append(client)
            return True

    wait_until(is_taken_in, "a place in the line", limit=LOOSE)
    assert let_pass(talk, 3) == ["one", "three", "late"]
    for client in (clients[0], clients[2], *late):
        assert client.read_answer().status == 200
        client.close()
    assert talk.is_silent and len(talk.all) == 3


def test_a_crowd_that_leaves_the_line_never_reaches_the_box(talk, start):
    gateway = start(concurrency=1, queue_limit=1000)
    clients = line_up(gateway, "/api/chat", ["one"])
    first = talk.call()
    before = gateway.descriptors()
    crowd = ask_at_once(gateway, [("/api/chat", question("/api/chat", f"question {n}")) for n in range(300)])
    gateway.take_in(crowd)
    stays = crowd.pop()
    for client in crowd:
        client.close()
    wait_until(lambda: gateway.descriptors() <= before + 2, "the end of the connections", limit=LOOSE)
    first.say("x").end()
    assert let_pass(talk, 1) == ["question 299"]
    assert stays.read_answer().status == 200
    stays.close()
    answers_of(clients)
    assert talk.is_silent and len(talk.all) == 2


def test_one_of_several_who_wait_for_the_same_may_leave(talk, start):
    gateway = start(concurrency=1)
    clients = line_up(gateway, "/api/chat", ["one", "two", "two", "two"])
    first = talk.call()
    clients[1].close()
    clients[3].reset()
    assert gateway.is_healthy()
    first.say("x").end()
    assert let_pass(talk, 1) == ["two"]
    assert is_whole("/api/chat", clients[2].read_answer())
    assert clients[0].read_answer().status == 200
    for client in clients:
        client.close()
    assert len(talk.all) == 2


# MARK: Several boxes


@pytest.fixture
def two(start_box, start_gateway):
    """Two talking boxes, and what starts a gateway in front of them."""
    talks = [Talk(), Talk()]
    addresses = [start_box(talk).address for talk in talks]
    return talks, lambda **settings: start_gateway(*addresses, **({"cache_ttl": "1m"} | settings))


def test_a_box_that_is_full_is_passed_over(two):
    talks, start = two
    gateway = start(concurrency=1)
    clients = line_up(gateway, "/api/chat", ["slow"])
    wait_until(lambda: any(talk.all for talk in talks), "the first call")
    busy, free = talks if talks[0].all else talks[::-1]
    for number in range(5):
        one = line_up(gateway, "/api/chat", [f"question {number}"])
        assert let_pass(free, 1) == [f"question {number}"]
        answers_of(one)
    let_pass(busy, 1)
    answers_of(clients)
    assert (len(busy.all), len(free.all)) == (1, 5)


def test_boxes_with_room_are_asked_in_turn(two):
    talks, start = two
    gateway = start(concurrency=2)
    for number in range(6):
        clients = line_up(gateway, "/api/chat", [f"question {number}"])
        wait_until(lambda: sum(len(talk.all) for talk in talks) == number + 1, "the call")  # noqa: B023
        let_pass(next(talk for talk in talks if not talk.is_silent), 1)
        answers_of(clients)
    assert [len(talk.all) for talk in talks] == [3, 3]


def test_who_waits_for_two_full_boxes_gets_the_first_that_is_free(two):
    talks, start = two
    gateway = start(concurrency=2, queue_limit=3)
    clients = line_up(gateway, "/api/chat", [f"question {n}" for n in range(7)])
    wait_until(lambda: [len(talk.all) for talk in talks] == [2, 2], "four calls")
    check_busy(post(gateway, "/api/chat", question("/api/chat", "one more")), "/api/chat")
    # All that wait go to the second box, for the first does not end.
    let_pass(talks[1], 2)
    assert sorted(let_pass(talks[1], 3)) == ["question 4", "question 5", "question 6"]
    let_pass(talks[0], 2)
    assert tally(answers_of(clients)) == {"MISS": 7}
    assert [len(talk.all) for talk in talks] == [2, 5]
