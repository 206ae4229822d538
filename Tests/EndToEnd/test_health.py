"""A sick box is found out and left alone, a well one never is, and one that recovers is let in with care."""

import re
import signal
import threading
import time

import pytest

from boxes import ScriptedBox, silent_address, unused_address
from caching import post, question
from crowd import answers_of, ask_at_once, ask_one
from dialects import check_error
from fleet import (
    PATH,
    answer_as,
    asked,
    changes,
    cut,
    fresh,
    hang,
    is_up,
    once,
    ready,
    refuse_with,
    reset,
    shares,
    who_answers,
)
from programs import Gateway
from talking import Talk
from wire import Connection, ask, wait_until

SOON = 4.0
"""Seconds: an interval of 1 s, a time-out of 1 s, jitter, and a shared machine."""
WELL = ("healthy", "recovering")


def send_tags(body):
    """A script for probes: this body as the list of models, and the usual answer to the other probes."""
    return lambda box: lambda exchange: (
        exchange.answer(body) if exchange.asked.target.endswith("/api/tags") else box.answer_probe(exchange)
    )


def refuse_tags(status):
    def script(exchange):
        exchange.answer({"models": []}, status=status)

    return lambda box: script


SICKNESSES = {
    "500": refuse_tags("500 Internal Server Error"),
    "503": refuse_tags("503 Service Unavailable"),
    "404": refuse_tags("404 Not Found"),
    "401": refuse_tags("401 Unauthorized"),
    "a redirect": refuse_tags("302 Found"),
    "no JSON": send_tags(b"Ollama is running"),
    "half of the JSON": send_tags(b'{"models":[{"name":"llama3.2'),
    "nothing": send_tags(b""),
    "no models": send_tags(b'{"data":[]}'),
    "models that are no list": send_tags(b'{"models":{}}'),
    "a list": send_tags(b"[]"),
    "no HTTP": lambda box: lambda exchange: (exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n"), exchange.cut()),
    "a cut": lambda box: cut,
    "a reset": lambda box: reset,
    "silence": lambda box: hang,
}


# MARK: Probes


class Watched:
    """Two gateways and what they did for some seconds; the boxes of the one are well and probed each second, of the
    other's some are not."""

    SECONDS = 7.5

    def __init__(self):
        self.seconds = [ScriptedBox(answer_as("well")) for _ in range(2)]
        self.well, self.hung = ScriptedBox(answer_as("well")), ScriptedBox(answer_as("hung"), probe=None)
        self.hung.script = hang
        self.dead = ScriptedBox(answer_as("dead"))
        self.dead.probe = refuse_tags("500 Internal Server Error")(self.dead)
        self.boxes = [*self.seconds, self.well, self.hung, self.dead]
        self.begin = time.monotonic()
        every_second = Gateway(*(box.address for box in self.seconds), health_interval="1s", waits=False)
        usual = Gateway(self.well.address, self.hung.address, self.dead.address, health_interval=None, waits=False)
        self.given_up = None
        while time.monotonic() < self.begin + Watched.SECONDS:
            # It is the course of time that is looked at.
            time.sleep(0.02)
            if not self.given_up and usual.state(self.hung) == "unhealthy":
                self.given_up = time.monotonic() - self.begin
        self.states = usual.states()
        self.hung.errors.clear()
        for program in (every_second, usual):
            assert program.stop() == 0
        for box in self.boxes:
            box.close()

    @staticmethod
    def moments(box, what):
        return [moment for moment, target in box.probed if target == f"/api/{what}"]

    @staticmethod
    def gaps(box, what="tags"):
        moments = Watched.moments(box, what)
        return [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]


@pytest.fixture(scope="module")
def watched():
    return Watched()


def test_every_box_is_probed_at_the_start_and_then_each_interval(watched):
    for box in watched.seconds:
        assert {target for _, target in box.probed} == {"/api/tags", "/api/ps", "/api/version"}
        assert box.probed[0][0] - watched.begin < 1
        gaps = watched.gaps(box)
        assert 5 <= len(gaps) <= 11, gaps
        assert all(0.5 < gap < 1.8 for gap in gaps), gaps
    # With the usual interval, the start is all there is.
    assert len(watched.moments(watched.well, "tags")) == 1


def test_what_is_loaded_is_looked_at_more_often(watched):
    moments = watched.moments(watched.well, "ps")
    assert 2 <= len(moments) <= 3
    assert 3.5 < moments[1] - moments[0] < 6.5


def test_a_sick_box_is_probed_at_once_and_then_ever_more_seldom(watched):
    gaps = watched.gaps(watched.dead)
    assert 0.4 < gaps[0] < 1.8, gaps
    assert 2 <= len(gaps) <= 4, gaps
    assert all(later > 1.3 * earlier for earlier, later in zip(gaps, gaps[1:], strict=False)), gaps
    assert watched.states == ["healthy", "unhealthy", "unhealthy"]


def test_a_probe_without_an_answer_is_given_up_after_five_seconds(watched):
    assert watched.given_up and 4.5 < watched.given_up < 7


def test_every_sickness_is_found_out_and_every_recovery_too(start_box, start_gateway):
    well = start_box(answer_as("well"))
    sick = {name: start_box(answer_as(name)) for name in SICKNESSES}
    gateway = start_gateway(well.address, *(box.address for box in sick.values()), health_interval="1s")
    assert set(gateway.states()) == {"healthy"}
    for name, box in sick.items():
        box.probe = SICKNESSES[name](box)

    def states():
        return {name: gateway.state(box) for name, box in sick.items()}

    wait_until(lambda: set(states().values()) == {"unhealthy"}, "the finding of all", limit=SOON)
    reasons = {name: gateway.backend(box)["reason"] for name, box in sick.items()}
    assert all(isinstance(reason, str) and reason and "\n" not in reason for reason in reasons.values()), reasons
    assert "500" in reasons["500"] and "404" in reasons["404"]
    assert gateway.state(well) == "healthy"
    assert shares(gateway, 20) == {"well": 20}
    for box in sick.values():
        box.probe = box.answer_probe
    wait_until(lambda: set(states().values()) <= set(WELL), "the recovery of all", limit=SOON)
    assert shares(gateway, 200).keys() == {"well", *sick}
    assert set(gateway.states()) == {"healthy"}
    assert not any(backend["reason"] for backend in gateway.status()["backends"])


def test_a_box_that_is_gone_is_found_out_and_found_again(start_box, start_gateway):
    boxes = [start_box(answer_as(name)) for name in "ab"]
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    boxes[0].close()
    assert gateway.await_state(boxes[0], "unhealthy", limit=SOON)["reason"]
    assert shares(gateway, 10) == {"b": 10}
    back = start_box(answer_as("a"), port=boxes[0].port)
    gateway.await_state(back, *WELL, limit=SOON)
    assert shares(gateway, 10) == {"a": 5, "b": 5}


@pytest.mark.parametrize("kind", ["refused", "silent", "no such name"])
def test_a_box_that_was_never_there_gets_no_request(start_box, start_gateway, kind):
    well = start_box(answer_as("well"))
    address, keeper = {"refused": unused_address, "silent": silent_address}.get(
        kind, lambda: ("no-such-box.invalid:11434", None)
    )()
    gateway = start_gateway(well.address, address, health_interval="1s")
    assert gateway.states() == ["healthy", "unhealthy"]
    assert shares(gateway, 10) == {"well": 10}
    del keeper


def test_a_process_that_is_stopped_is_found_out_and_goes_on_later(start_ollama, start_gateway):
    boxes = [start_ollama() for _ in range(2)]
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    boxes[0].signal(signal.SIGSTOP)
    try:
        gateway.await_state(boxes[0], "unhealthy", limit=SOON)
        begin = time.monotonic()
        for _ in range(20):
            assert post(gateway, PATH, fresh()).status == 200
        assert time.monotonic() - begin < 2
    finally:
        boxes[0].signal(signal.SIGCONT)
    gateway.await_state(boxes[0], *WELL, limit=SOON)
    for _ in range(20):
        assert post(gateway, PATH, fresh()).status == 200
    assert boxes[0].calls() == 10


def test_requests_wait_for_the_first_probes(start_box, start_gateway):
    go_on = threading.Event()
    box = start_box(answer_as("well"))
    box.probe = lambda exchange: (go_on.wait(10), box.answer_probe(exchange))
    gateway = start_gateway(box.address, waits=False)
    assert gateway.is_healthy()
    assert (gateway.states(), ready(gateway)) == (["starting"], 503)
    clients = ask_at_once(gateway, [(PATH, fresh()) for _ in range(5)])
    gateway.take_in(clients)
    assert not box.asked
    go_on.set()
    assert [answer.status for answer in answers_of(clients)] == [200] * 5
    assert (gateway.states(), ready(gateway)) == (["healthy"], 200)


EARLY = [
    ("GET", "/api/status", None),
    ("GET", "/api/tags", None),
    ("GET", "/api/ps", None),
    ("GET", "/api/version", None),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/llama3.2", None),
    ("POST", "/api/show", {"model": "llama3.2"}),
    ("POST", "/api/pull", {"model": "llama3.2"}),
    ("POST", "/api/push", {"model": "llama3.2"}),
    ("POST", "/api/copy", {"source": "llama3.2", "destination": "y"}),
    ("POST", "/api/create", {"model": "y", "from": "x"}),
    ("DELETE", "/api/delete", {"model": "x"}),
    ("POST", "/api/blobs/sha256-" + "0" * 64, b"a blob"),
    ("POST", "/api/generate", {"model": "llama3.2", "keep_alive": 0}),
    ("POST", "/api/chat", {}),
]


def test_whatever_it_is_waits_for_the_first_probes(start_box, start_gateway):
    go_on = threading.Event()
    box = start_box(answer_as("well"))
    box.probe = lambda exchange: (go_on.wait(10), box.answer_probe(exchange))
    gateway = start_gateway(box.address, waits=False)
    clients = [Connection(gateway.address) for _ in EARLY]
    for client, (method, target, body) in zip(clients, EARLY, strict=True):
        client.request(method, target, body=body)
    gateway.take_in(clients)
    go_on.set()
    statuses = {target: answer.status for (_, target, _), answer in zip(EARLY, answers_of(clients), strict=True)}
    assert set(statuses.values()) == {200}, statuses


# MARK: Each change is told


def test_each_change_is_a_line_of_the_log_and_a_count(start_box, start_gateway):
    boxes = [start_box(answer_as(name)) for name in "ab"]
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    assert [is_up(gateway, box) for box in boxes] == [1, 1]
    before = len(gateway.log.splitlines())
    for turn in (1, 2):
        boxes[0].probe = refuse_tags("500 Internal Server Error")(boxes[0])
        gateway.await_state(boxes[0], "unhealthy", limit=SOON)
        assert [is_up(gateway, box) for box in boxes] == [0, 1]
        assert changes(gateway, boxes[0], "unhealthy") == turn
        boxes[0].probe = boxes[0].answer_probe
        gateway.await_state(boxes[0], *WELL, limit=SOON)
        shares(gateway, 4)
        gateway.await_state(boxes[0], "healthy")
        assert [is_up(gateway, box) for box in boxes] == [1, 1]
        assert changes(gateway, boxes[0], "healthy") == turn + 1
    assert (changes(gateway, boxes[1], "healthy"), changes(gateway, boxes[1], "unhealthy")) == (1, 0)
    lines = [line for line in gateway.log.splitlines()[before:] if "warning" in line or "notice" in line]
    assert ["unhealthy" in line for line in lines] == [True, False] * 2, lines
    assert all(boxes[0].address in line and "healthy" in line for line in lines), lines


def test_the_gateway_is_ready_while_one_box_is_well(start_box, start_gateway):
    boxes = [start_box(answer_as(name)) for name in "ab"]
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    for well in (2, 1, 0):
        assert ready(gateway) == (200 if well else 503)
        assert gateway.is_healthy(), "that is another question"
        if well:
            boxes[well - 1].probe = cut
            gateway.await_state(boxes[well - 1], "unhealthy", limit=SOON)
    answer = ask(gateway.address, "GET", "/ready")
    assert (answer.status, answer.complete) == (503, True)
    boxes[1].probe = boxes[1].answer_probe
    wait_until(lambda: ready(gateway) == 200, "readiness", limit=SOON)
    for box in boxes:
        assert not box.asked


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/api/embed"])
def test_when_all_boxes_are_down_the_client_is_told_which_and_why(start_box, start_gateway, path):
    boxes = [start_box(answer_as(name)) for name in "ab"]
    for box in boxes:
        box.probe = refuse_tags("500 Internal Server Error")(box)
    gateway = start_gateway(*(box.address for box in boxes))
    answer = post(gateway, path, fresh(path))
    message = check_error(answer, path, 503)
    assert re.fullmatch(r"[1-9]\d*", answer.header("Retry-After"))
    for box in boxes:
        assert gateway.backend(box)["name"] in message
    assert "500" in message
    assert not boxes[0].asked and not boxes[1].asked


# MARK: What traffic tells


def two(start_box, start_gateway, script, **settings):
    """A box that does this once, a well one, and a gateway in front that has to find out by itself: no probe will
    come for a while. Returns them with the first box asked."""
    bad, good = start_box(once(script, answer_as("bad"))), start_box(answer_as("good"))
    gateway = start_gateway(bad.address, good.address, **settings)
    wait_until(lambda: who_answers(gateway) and bad.asked, "the first box's turn")
    return gateway, bad, good


@pytest.mark.parametrize("kind", ["refused", "silence", "502", "503", "504"])
def test_a_box_that_fails_a_request_is_left_alone(start_box, start_gateway, kind):
    settings = {"first_byte_timeout": "500ms"} if kind == "silence" else {}
    if kind == "refused":
        bad, good = start_box(), start_box(answer_as("good"))
        gateway = start_gateway(bad.address, good.address)
        bad.close()
        assert shares(gateway, 2) == {"good": 2}
    else:
        gateway, bad, good = two(start_box, start_gateway, hang if kind == "silence" else refuse_with(kind), **settings)
    backend = gateway.backend(bad)
    assert backend["state"] == "unhealthy" and backend["reason"]
    count = len(bad.asked)
    assert shares(gateway, 10) == {"good": 10}
    assert (len(bad.asked), gateway.state(good)) == (count, "healthy")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 422, 499, 500])
def test_an_answer_that_blames_the_request_or_the_model_marks_no_box(start_box, start_gateway, status):
    box = start_box(refuse_with(status))
    gateway = start_gateway(box.address)
    for _ in range(5):
        assert post(gateway, PATH, fresh()).status == status
    assert (gateway.states(), changes(gateway, box, "unhealthy")) == (["healthy"], 0)


def test_a_box_that_wants_to_be_left_alone_is_not_sick(start_box, start_gateway):
    busy, good = start_box(refuse_with(429, "Retry-After: 30")), start_box(answer_as("good"))
    gateway = start_gateway(busy.address, good.address)
    assert shares(gateway, 10) == {"good": 10}
    assert (gateway.states(), len(busy.asked)) == (["healthy", "healthy"], 1)


@pytest.mark.parametrize("amid", [False, True])
def test_clients_that_leave_mark_no_box(talk, talking_box, start_gateway, amid):
    gateway = start_gateway(talking_box.address)
    for number in range(5):
        client = ask_one(gateway, "/api/chat", question("/api/chat", f"{number}"))
        call = talk.call()
        if amid:
            call.say("one ")
            client.read_head()
        client.close()
        call.wait_for_departure()
    assert (gateway.states(), changes(gateway, talking_box, "unhealthy")) == (["healthy"], 0)


def test_a_model_that_fails_to_load_marks_no_box(start_ollama, start_gateway):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address)
    ollama.control(fault={"kind": "status", "status": 500, "times": 3})
    assert [post(gateway, PATH, fresh()).status for _ in range(4)] == [500, 500, 500, 200]
    assert changes(gateway, ollama, "unhealthy") == 0


def test_the_only_box_is_tried_although_it_failed(start_box, start_gateway):
    box = start_box(once(refuse_with(503), answer_as("well")))
    gateway = start_gateway(box.address)
    assert post(gateway, PATH, fresh()).status == 503
    assert gateway.state(box) == "unhealthy"
    assert shares(gateway, 5) == {"well": 5}
    assert gateway.state(box) == "healthy"


def test_the_only_box_is_tried_by_one_request_at_a_time(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address)
    with ask_one(gateway, "/api/chat", question("/api/chat", "fails")) as client:
        talk.call().refuse(503, "busy")
        assert client.read_answer().status == 503
    clients = ask_at_once(gateway, [("/api/chat", question("/api/chat", f"{n}")) for n in range(5)])
    gateway.take_in(clients)
    trial = talk.call()
    assert gateway.is_healthy()
    assert len(talk.running) == 1
    talking_box.script = lambda exchange: exchange.answer({"done": True})
    trial.say("x").end()
    statuses = [answer.status for answer in answers_of(clients)]
    # Who did not wait for the outcome was told to come again.
    assert statuses.count(200) >= 1 and set(statuses) <= {200, 503}
    assert gateway.state(talking_box) == "healthy"


# MARK: Half-open


@pytest.fixture
def half_open(start_box, start_gateway):
    """A box that is to be let in again with care, one that is well, and the gateway."""
    talk = Talk()
    bad, good = start_box(refuse_with(503)), start_box(answer_as("good"))
    gateway = start_gateway(bad.address, good.address, health_interval="1s")
    wait_until(lambda: who_answers(gateway) and bad.asked, "the first box's turn")
    bad.script = talk
    gateway.await_state(bad, "recovering", limit=SOON)
    return gateway, bad, good, talk


def test_a_box_that_recovers_gets_one_request_however_many_wait(half_open):
    gateway, bad, good, talk = half_open
    before = asked([bad, good])
    clients = ask_at_once(gateway, [(PATH, fresh()) for _ in range(20)])
    gateway.take_in(clients)
    trial = talk.call()
    wait_until(lambda: len(good.asked) - before[1] == 19, "the others' answers")
    assert (talk.is_silent, gateway.state(bad)) == (True, "recovering")
    trial.say("bad").end()
    assert [answer.status for answer in answers_of(clients)] == [200] * 20
    assert gateway.state(bad) == "healthy"
    bad.script = answer_as("bad")
    assert shares(gateway, 10) == {"bad": 5, "good": 5}


def test_a_trial_that_fails_costs_nobody_anything(half_open):
    gateway, bad, good, talk = half_open
    clients = ask_at_once(gateway, [(PATH, fresh()) for _ in range(20)])
    gateway.take_in(clients)
    talk.call().refuse(503, "still not well")
    answers = answers_of(clients)
    assert [answer.status for answer in answers] == [200] * 20
    assert all(answer.json["response"] == "good" for answer in answers)
    assert talk.is_silent and gateway.state(bad) == "unhealthy"
    gateway.await_state(bad, "recovering", limit=SOON)


def test_nobody_is_refused_while_a_trial_may_still_go_well(start_box, start_gateway):
    """Not even when the other boxes have nothing but refusals."""
    talk = Talk()
    recovers, refuses = start_box(refuse_with(503)), start_box(refuse_with(503))
    gateway = start_gateway(recovers.address, refuses.address, health_interval="1s")
    assert post(gateway, PATH, fresh()).status == 503
    assert gateway.states() == ["unhealthy"] * 2
    recovers.script = talk
    gateway.await_state(recovers, "recovering", limit=SOON)
    clients = ask_at_once(gateway, [(PATH, fresh()) for _ in range(6)])
    gateway.take_in(clients)
    trial = talk.call()
    for _ in range(10):
        assert gateway.is_healthy()
    recovers.script = answer_as("well")
    trial.say("x").end()
    assert [answer.status for answer in answers_of(clients)] == [200] * 6


def test_a_trial_whose_client_leaves_decides_nothing_and_is_not_the_last(half_open):
    gateway, bad, good, talk = half_open
    clients = ask_at_once(gateway, [(PATH, fresh()) for _ in range(4)])
    trial = talk.call()
    for client in clients:
        client.close()
    trial.wait_for_departure()
    assert gateway.state(bad) in WELL
    bad.script = answer_as("bad")
    wait_until(lambda: "bad" in shares(gateway, 2), "another trial")
    gateway.await_state(bad, "healthy")


# MARK: Calls that wait at a box that dies


def test_calls_that_wait_at_a_hung_box_move_on_when_it_is_found_out(start_ollama, start_gateway):
    boxes = [start_ollama(first_token="300ms") for _ in range(2)]
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    boxes[0].signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        clients = ask_at_once(gateway, [("/api/chat", fresh("/api/chat", stream=n % 2 == 0)) for n in range(10)])
        answers = answers_of(clients)
        assert time.monotonic() - begin < SOON
        assert [(answer.status, answer.complete) for answer in answers] == [(200, True)] * 10
        assert boxes[1].calls() == 10
        assert gateway.state(boxes[0]) == "unhealthy"
        # They are no longer counted where they were.
        assert gateway.backend(boxes[0])["running"] == 0
    finally:
        boxes[0].signal(signal.SIGCONT)


def test_a_stream_that_runs_at_a_box_whose_probe_fails_goes_on(start_box, start_gateway, talk):
    box, other = start_box(talk), start_box(answer_as("other"))
    gateway = start_gateway(box.address, other.address, health_interval="1s")
    clients = ask_at_once(gateway, [("/api/chat", question("/api/chat", f"{n}")) for n in range(2)])
    call = talk.call().say("one ")
    box.probe = cut
    gateway.await_state(box, "unhealthy", limit=SOON)
    call.say("two ").end()
    bodies = [answer.body for answer in answers_of(clients)]
    assert any(b"one " in body and b"two " in body for body in bodies), bodies
