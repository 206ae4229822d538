"""Who asks the same at the same time shares one call to the box, from its beginning or from where it is."""

import json
import random
import socket
import threading
import time

import pytest

from boxes import NDJSON, SSE
from caching import (
    CACHEABLE,
    FORMS,
    VECTORS,
    agree,
    cache_status,
    gist,
    hit,
    is_whole,
    missed,
    name,
    post,
    question,
    told,
)
from crowd import answers_of, ask_at_once, ask_one, tally
from dialects import check_error, check_error_object, last_event
from endpoints import steady
from talking import STREAMING
from wire import ask, wait_until

LOOSE = 2.0
"""Seconds: what happens at once is only judged by this, on a shared machine."""
MIB = 1 << 20
STREAM, WHOLE = {"stream": True}, {"stream": False}
USAGE = STREAM | {"stream_options": {"include_usage": True}}


@pytest.fixture
def gateway(keeping_gateway):
    return keeping_gateway


def read_part_with(client, text):
    """Reads until the text has arrived; fails if it does not."""
    while text not in client.answer.body:
        assert client.read_part(), client.answer.body


# MARK: One call for all


@pytest.mark.parametrize(("path", "form"), FORMS, ids=name)
def test_equal_requests_at_once_are_one_call(talk, gateway, path, form):
    clients = ask_at_once(gateway, [(path, question(path) | form)] * 20)
    gateway.take_in(clients)
    talk.call().say("The", " sky").end()
    answers = answers_of(clients)
    assert tally(answers) == {"MISS": 1, "COALESCED": 19}
    assert len({answer.body for answer in answers}) == 1
    assert all(is_whole(path, answer) for answer in answers)
    assert talk.is_silent
    assert hit(gateway, path, question(path) | form).body == answers[0].body


@pytest.mark.parametrize("path", STREAMING)
@pytest.mark.parametrize("first", [STREAM, WHOLE, USAGE], ids=name)
def test_streams_and_whole_answers_share_a_call(talk, gateway, path, first):
    forms = [first, STREAM, WHOLE, STREAM, WHOLE] + ([USAGE] if path.startswith("/v1") else [])
    clients = ask_at_once(gateway, [(path, question(path) | form) for form in forms])
    gateway.take_in(clients)
    talk.call().say("Light", " is", " blue").end()
    answers = answers_of(clients)
    assert talk.is_silent
    assert sorted(map(told, answers)) == ["COALESCED"] * (len(forms) - 1) + ["MISS"]
    for form, answer in zip(forms, answers, strict=True):
        expected = SSE if path.startswith("/v1") else NDJSON
        assert answer.content_type == (expected if form["stream"] else "application/json")
        agree(gist(path, answers[2]), gist(path, answer))
        assert gist(path, answer)["text"] == "Light is blue"
        if path.startswith("/v1") and form is STREAM:
            assert b'"usage"' not in answer.body
    assert answers[1].body == answers[3].body
    assert answers[2].body == answers[4].body


def test_shared_answers_are_what_the_box_itself_says(start_ollama, start_gateway):
    ollama = start_ollama(models="qwen3", first_token="300ms")
    gateway = start_gateway(ollama.address, cache_ttl="1m")
    for path in STREAMING:
        forms = [STREAM, WHOLE] + ([USAGE] if path.startswith("/v1") else [])
        bodies = [question(path, model="qwen3") | form for form in forms]
        ollama.control(reset_counts=True)
        answers = answers_of(ask_at_once(gateway, [(path, body) for body in bodies]))
        assert ollama.calls() == 1
        for body, answer in zip(bodies, answers, strict=True):
            direct = post(ollama, path, body)
            if body["stream"]:
                assert steady(answer.body) == steady(direct.body)
            else:
                assert json.loads(steady(answer.body)) == json.loads(steady(direct.body))


@pytest.mark.parametrize("path", STREAMING)
def test_everyone_sees_the_model_spelled_as_they_asked(talk, gateway, path):
    names = ["llama3.2", "llama3.2:latest", "llama3.2:latest", "llama3.2"]
    forms = [STREAM, STREAM, WHOLE, WHOLE]
    bodies = [question(path, model=model) | form for model, form in zip(names, forms, strict=True)]
    clients = ask_at_once(gateway, [(path, body) for body in bodies])
    gateway.take_in(clients)
    talk.call().say("a", "b").end()
    answers = answers_of(clients)
    assert [gist(path, answer)["model"] for answer in answers] == [[each] for each in names]
    assert answers[1].body.replace(b":latest", b"") == answers[0].body
    assert talk.is_silent


def test_different_requests_are_different_calls(talk, gateway):
    clients = ask_at_once(gateway, [("/api/chat", question("/api/chat", f"question {n}")) for n in range(10)])
    calls = [talk.call() for _ in range(10)]
    for call in calls:
        call.say(call.question).end()
    answers = answers_of(clients)
    assert tally(answers) == {"MISS": 10}
    assert [gist("/api/chat", answer)["text"] for answer in answers] == [f"question {n}" for n in range(10)]


def test_the_same_question_on_two_endpoints_is_two_calls(talk, gateway):
    clients = ask_at_once(gateway, [(path, question(path)) for path in CACHEABLE])
    for _ in CACHEABLE:
        talk.call().say("x").end()
    assert tally(answers_of(clients)) == {"MISS": len(CACHEABLE)}


def test_a_client_that_wants_nothing_stored_has_a_call_of_its_own(talk, gateway):
    body = question("/api/chat")
    with ask_one(gateway, "/api/chat", body) as client:
        shared = talk.call()
        with ask_one(gateway, "/api/chat", body, ("Cache-Control", "no-store")) as other:
            talk.call().say("other").end()
            answer = other.read_answer()
            assert (told(answer), gist("/api/chat", answer)["text"]) == ("BYPASS", "other")
        shared.say("shared").end()
        answer = client.read_answer()
        assert (told(answer), gist("/api/chat", answer)["text"]) == ("MISS", "shared")
    assert gist("/api/chat", hit(gateway, "/api/chat", body))["text"] == "shared"


def test_a_client_that_only_wants_what_is_kept_does_not_ask_the_box(talk, gateway):
    answer = post(gateway, "/api/chat", question("/api/chat"), ("Cache-Control", "only-if-cached"))
    check_error(answer, "/api/chat", 504)
    assert talk.is_silent


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_what_goes_past_the_cache_is_not_shared(talk, gateway, path):
    clients = ask_at_once(gateway, [(path, question(path))] * 3)
    for _ in clients:
        talk.call().say("x").end()
    answers = answers_of(clients)
    assert tally(answers) == {"BYPASS": 3}
    assert len({answer.body for answer in answers}) == 3


@pytest.mark.parametrize("path", STREAMING)
def test_a_thousand_equal_requests_at_once_are_one_call(talk, gateway, figures, path):
    forms = [STREAM, WHOLE] * 500
    bodies = {False: question(path) | WHOLE, True: question(path) | STREAM}
    begin = time.monotonic()
    clients = ask_at_once(gateway, [(path, bodies[form["stream"]]) for form in forms])
    gateway.take_in(clients, limit=30)
    asked = time.monotonic()
    call = talk.call()
    call.say(*(f"word {number} " for number in range(32))).end()
    answers = answers_of(clients)
    figures(
        f"1,000 equal requests to {path}: asked in {asked - begin:.2f} s,"
        f" answered from one call in {time.monotonic() - asked:.2f} s"
    )
    assert talk.is_silent and len(talk.all) == 1
    assert tally(answers) == {"MISS": 1, "COALESCED": 999}
    streams, wholes = answers[::2], answers[1::2]
    assert all(is_whole(path, answer) for answer in answers)
    assert len({answer.body for answer in streams}) == 1
    assert len({answer.body for answer in wholes}) == 1
    assert {answer.content_type for answer in wholes} == {"application/json"}
    agree(gist(path, streams[0]), gist(path, wholes[0]))
    assert gist(path, wholes[0])["text"] == "".join(call.said)
    assert hit(gateway, path, bodies[True]).body == streams[0].body
    assert hit(gateway, path, bodies[False]).body == wholes[0].body


def test_a_thousand_requests_of_all_forms_and_spellings_to_a_simulated_box_are_one_call(start_ollama, start_gateway):
    """Some come before the first word, some amid the answer, some behind it."""
    ollama = start_ollama(tokens=64, first_token="100ms", interval="5ms")
    gateway = start_gateway(ollama.address, cache_ttl="1m")
    path = "/api/generate"
    names = ("llama3.2", "llama3.2:latest")
    bodies = [question(path, model=model) | form for model in names for form in (STREAM, WHOLE)]
    answers = answers_of(ask_at_once(gateway, [(path, body) for body in bodies * 250]))
    assert ollama.calls() == 1
    counted = tally(answers)
    assert counted["MISS"] == 1 and set(counted) <= {"MISS", "COALESCED", "HIT"}
    for number in range(4):
        assert len({answer.body for answer in answers[number::4]}) == 1
    gists = [gist(path, answer) for answer in answers[:4]]
    assert [each.pop("model") for each in gists] == [[body["model"]] for body in bodies]
    assert gists.count(gists[0]) == 4


# MARK: Late joiners


@pytest.mark.parametrize("path", STREAMING)
def test_who_comes_late_gets_what_was_said_and_then_follows(talk, gateway, path):
    body = question(path) | STREAM
    clients = [ask_one(gateway, path, body)]
    call = talk.call()
    for words in ("first ", "second ", "third ", "fourth "):
        call.say(words)
        for client in clients:
            if not client.answer:
                client.read_head()
            read_part_with(client, words.encode())
        late = ask_one(gateway, path, body)
        late.read_head()
        # Before the box says any more.
        read_part_with(late, words.encode())
        assert b"first " in late.answer.body
        clients.append(late)
    call.end()
    answers = [client.read_rest() for client in clients]
    for client in clients:
        client.close()
    assert len({answer.body for answer in answers}) == 1
    assert tally(answers) == {"MISS": 1, "COALESCED": 4}
    assert is_whole(path, answers[0])
    assert talk.is_silent


@pytest.mark.parametrize("path", STREAMING)
def test_who_wants_it_whole_may_come_late(talk, gateway, path):
    with ask_one(gateway, path, question(path) | STREAM) as first:
        call = talk.call().say("a", "b")
        first.read_head()
        read_part_with(first, b"b")
        with ask_one(gateway, path, question(path) | WHOLE) as late:
            gateway.take_in([late])
            call.say("c").end()
            whole, stream = late.read_answer(), first.read_rest()
    assert (told(stream), told(whole)) == ("MISS", "COALESCED")
    agree(gist(path, stream), gist(path, whole))
    assert gist(path, whole)["text"] == "abc"
    assert talk.is_silent


@pytest.mark.parametrize("path", STREAMING)
def test_a_stream_may_join_a_whole_answer_in_the_making(talk, gateway, path):
    with ask_one(gateway, path, question(path) | WHOLE) as first:
        call = talk.call().say("a", "b")
        with ask_one(gateway, path, question(path) | STREAM) as late:
            gateway.take_in([late])
            call.say("c").end()
            stream, whole = late.read_answer(), first.read_answer()
    assert (told(whole), told(stream)) == ("MISS", "COALESCED")
    agree(gist(path, stream), gist(path, whole))
    assert gist(path, stream)["text"] == "abc"
    assert is_whole(path, stream)
    assert talk.is_silent


@pytest.mark.parametrize("at", [0, 1, 10, 100, 1000])
def test_a_word_whose_bytes_are_still_coming_is_not_doubled_for_who_joins(talk, gateway, at):
    """A joiner comes when half a line is there."""
    body = question("/api/generate")
    with ask_one(gateway, "/api/generate", body) as first:
        call = talk.call()
        call.say(*"x" * at)
        line = call._line("second")
        call.send(line[:40])
        assert gateway.is_healthy()
        with ask_one(gateway, "/api/generate", body) as late:
            gateway.take_in([late])
            call.send(line[40:])
            call.said.append("second")
            call.end()
            one, other = first.read_answer(), late.read_answer()
    assert one.body == other.body
    assert gist("/api/generate", other)["text"] == "x" * at + "second"


def test_a_reader_that_stalls_does_not_hold_up_the_others(talk, gateway):
    body = question("/api/generate")
    stalled = ask_one(gateway, "/api/generate", body, receive_buffer=65536)
    with stalled, ask_one(gateway, "/api/generate", body) as other:
        gateway.take_in([other])
        call = talk.call()
        threading.Thread(target=lambda: (call.say(*["x" * 10_000] * 300), call.end()), daemon=True).start()
        quick = other.read_answer()
        assert is_whole("/api/generate", quick)
        assert len(gist("/api/generate", quick)["text"]) == 3_000_000
        assert stalled.read_answer().body == quick.body
    assert talk.is_silent


# MARK: Clients that leave


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before the first byte", "amid the stream"])
@pytest.mark.parametrize("form", [STREAM, WHOLE], ids=name)
def test_the_others_get_all_when_the_first_client_leaves(talk, gateway, how, when, form):
    path = "/api/chat"
    first = ask_one(gateway, path, question(path) | STREAM)
    call = talk.call()
    others = ask_at_once(gateway, [(path, question(path) | form), (path, question(path) | STREAM)])
    gateway.take_in(others)
    if when == "amid the stream":
        call.say("one ")
        first.read_head()
        read_part_with(first, b"one ")
    getattr(first, how)()
    for word in ("two ", "three "):
        # Time for the gateway to act on the leaving.
        assert gateway.is_healthy()
        call.say(word)
    assert not call.departed.is_set()
    call.end()
    answers = answers_of(others)
    assert tally(answers) == {"COALESCED": 2}
    for answer in answers:
        assert is_whole(path, answer)
        assert gist(path, answer)["text"] == "".join(call.said)
    assert talk.is_silent
    hit(gateway, path, question(path))


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize(("path", "form"), FORMS, ids=name)
def test_the_call_ends_when_nobody_waits_any_more(talk, gateway, figures, path, form, has_begun, how):
    body = question(path) | form
    clients = ask_at_once(gateway, [(path, body)] * 3)
    gateway.take_in(clients)
    call = talk.call()
    if has_begun:
        call.say("one ", "two ")
    for client in clients[:2]:
        getattr(client, how)()
    for _ in range(3):
        assert gateway.is_healthy()
    assert not call.departed.is_set(), "somebody still waits"
    moment = time.monotonic()
    getattr(clients[2], how)()
    call.wait_for_departure(limit=LOOSE)
    if path == "/api/chat":
        figures(f"the last of three left ({how}): the call had ended after {(time.monotonic() - moment) * 1e3:.1f} ms")
    # Nothing of it was kept.
    with ask_one(gateway, path, body) as again:
        talk.call().say("anew").end()
        answer = again.read_answer()
    assert (told(answer), is_whole(path, answer)) == ("MISS", True)
    assert path in VECTORS or gist(path, answer)["text"] == "anew"


def test_who_comes_when_the_last_one_has_just_left_is_served(talk, gateway):
    path = "/api/chat"
    for number in range(100):
        body = question(path, f"question {number}")
        leaving = ask_one(gateway, path, body)
        call = talk.call().say("a")
        leaving.close()
        with ask_one(gateway, path, body) as coming:
            # It joins the call that is ending, or gets one of its own: never neither.
            wait_until(lambda: call.departed.is_set() or told_head(coming), "one or the other")  # noqa: B023
            if call.departed.is_set():
                call = talk.call().say("a")
            call.say("b").end()
            coming.plug.settimeout(10)
            answer = coming.read_rest() if coming.answer else coming.read_answer()
        assert (answer.status, gist(path, answer)["text"]) == (200, "ab")
    assert talk.is_silent


def told_head(client):
    """The header of the answer, if it has come."""
    if not client.answer:
        client.plug.setblocking(False)
        try:
            if not client.plug.recv(1, socket.MSG_PEEK):
                raise AssertionError("the gateway ended the connection")
        except BlockingIOError:
            return None
        finally:
            client.plug.settimeout(10)
        client.read_head()
    return client.answer


def test_clients_that_leave_at_any_moment_leave_nothing_behind(start_ollama, start_gateway, figures):
    ollama = start_ollama(tokens=6, first_token="2ms", interval="2ms", parallel=64)
    gateway = start_gateway(ollama.address, cache_ttl="1h")
    for path in STREAMING:
        missed(gateway, path, question(path))
    before, memory = gateway.descriptors(), gateway.memory()
    begin = time.monotonic()
    flights, workers = 2000, 8
    errors, outcomes = [], []

    def work(number):
        try:
            chance = random.Random(number)
            for flight in range(number, flights, workers):
                outcomes.append(fly(gateway, flight, chance))
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert len(outcomes) == flights
    wait_until(lambda: ollama.counts()["running"] + ollama.counts()["waiting"] == 0, "the end of all calls", LOOSE)
    counts = ollama.counts()
    assert counts["finished"] + counts["cancelled"] == ollama.calls()
    assert counts["cancelled"] > flights / 50, "hardly any flight was broken off: nothing was tested"
    wait_until(lambda: gateway.descriptors() <= before + 64, "the end of the connections")
    left, stayed, again = (sum(outcome[index] for outcome in outcomes) for index in range(3))
    figures(
        f"{flights} flights in {time.monotonic() - begin:.1f} s: {stayed} clients stayed and {left} left,"
        f" {counts['cancelled']} calls were broken off, {again} flights asked again;"
        f" the gateway grew by {(gateway.memory() - memory) // 1024} KiB"
    )


def fly(gateway, number, chance):
    """One flight: some clients ask the same, some of them leave. Returns how many left, how many stayed, and whether
    the box had to be asked again by the one who came last."""
    path = chance.choice(STREAMING)
    text = f"flight {number}"
    forms = [STREAM, WHOLE, *([USAGE] if path.startswith("/v1") else [])]
    clients = [
        ask_one(gateway, path, question(path, text) | chance.choice(forms), limit=20)
        for _ in range(chance.randint(1, 4))
    ]
    moments = sorted(chance.uniform(0, 0.02) for _ in clients)
    leaving = [client for client in clients if chance.random() < 0.6]
    begin = time.monotonic()
    for moment, client in zip(moments, leaving, strict=False):
        # The moments are what is tested.
        time.sleep(max(0, begin + moment - time.monotonic()))
        client.reset() if chance.random() < 0.5 else client.close()
    said = []
    for client in clients:
        if client not in leaving:
            answer = client.read_answer()
            client.close()
            said.append(answer)
    # Whatever happened, it is answered whole, and from the cache if somebody else was.
    last = post(gateway, path, question(path, text) | chance.choice(forms), limit=20)
    if said:
        assert told(last) == "HIT", (text, last.fields)
    for answer in (*said, last):
        assert is_whole(path, answer), (text, answer)
        agree(gist(path, last), gist(path, answer))
    assert len(gist(path, last)["text"]) > 5
    assert hit(gateway, path, question(path, text) | WHOLE, limit=20)
    return len(leaving), len(said), told(last) == "MISS"


# MARK: A model that is being loaded


@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions"])
def test_a_load_that_others_wait_for_is_not_broken_off_with_its_client(start_ollama, start_gateway, path):
    ollama = start_ollama(load_time="1500ms")
    gateway = start_gateway(ollama.address, cache_ttl="1m")
    first = ask_one(gateway, path, question(path, "one"))
    wait_until(lambda: ollama.counts()["loads"] == 1, "the load")
    with ask_one(gateway, path, question(path, "two")) as second:
        wait_until(lambda: ollama.counts()["waiting"] == 2, "the second request")
        first.close()
        answer = second.read_answer()
    assert is_whole(path, answer)
    assert ollama.counts()["loads"] == 1
    wait_until(lambda: ollama.counts()["running"] == 0, "the end of all calls")


def test_a_load_that_others_queue_for_is_not_broken_off_either(start_ollama, start_gateway):
    """They wait at the gateway, for the box has its fill."""
    ollama = start_ollama(load_time="1500ms")
    gateway = start_gateway(ollama.address, cache_ttl="1m", concurrency=1)
    first = ask_one(gateway, "/api/chat", question("/api/chat", "one"))
    wait_until(lambda: ollama.counts()["loads"] == 1, "the load")
    with ask_one(gateway, "/api/chat", question("/api/chat", "two")) as second:
        gateway.take_in([second])
        first.close()
        assert is_whole("/api/chat", second.read_answer())
    assert ollama.counts()["loads"] == 1
    wait_until(lambda: ollama.counts()["running"] == 0, "the end of all calls")


def test_a_load_that_nobody_else_waits_for_ends_with_its_client(start_ollama, start_gateway):
    ollama = start_ollama(load_time="60s")
    gateway = start_gateway(ollama.address, cache_ttl="1m")
    client = ask_one(gateway, "/api/chat", question("/api/chat"))
    wait_until(lambda: ollama.counts()["loads"] == 1, "the load")
    client.close()
    wait_until(lambda: ollama.counts()["cancelled"] == 1, "the end of the load", limit=LOOSE)
    assert ollama.counts()["waiting"] == 0


# MARK: Flights that fail


def fail_all(talk, gateway, path, form, fail):
    """Ten clients share a call that `fail(call)` ends. Returns their answers; the next who asks is served."""
    body = question(path) | form
    clients = ask_at_once(gateway, [(path, body)] * 10)
    gateway.take_in(clients)
    fail(talk.call())
    answers = answers_of(clients)
    assert talk.is_silent
    with ask_one(gateway, path, body) as again:
        talk.call().say("well again").end()
        answer = again.read_answer()
    assert (told(answer), is_whole(path, answer)) == ("MISS", True)
    return answers


@pytest.mark.parametrize("status", [400, 404, 500, 503])
@pytest.mark.parametrize(("path", "form"), FORMS, ids=name)
def test_everyone_is_told_the_boxes_own_error(talk, gateway, path, form, status):
    answers = fail_all(talk, gateway, path, form, lambda call: call.refuse(status, "out of memory"))
    assert {check_error(answer, path, status) for answer in answers} == {"out of memory"}
    assert len({answer.body for answer in answers}) == 1
    assert tally(answers) == {"MISS": 1, "COALESCED": 9}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("path", "form"), FORMS, ids=name)
def test_everyone_is_told_that_the_box_broke_off(talk, gateway, path, form, reset):
    answers = fail_all(talk, gateway, path, form, lambda call: call.cut(reset))
    assert len({check_error(answer, path, 502) for answer in answers}) == 1


@pytest.mark.parametrize("path", STREAMING)
def test_everyone_is_told_that_a_stream_broke_off(talk, gateway, path):
    bodies = [question(path) | form for form in (STREAM, WHOLE)]
    clients = ask_at_once(gateway, [(path, body) for body in bodies * 5])
    gateway.take_in(clients)
    call = talk.call().say("one ", "two ")
    assert gateway.is_healthy()
    call.cut()
    answers = answers_of(clients)
    for answer in answers[::2]:
        assert answer.status == 200
        assert not answer.complete, "the body has a clean end"
        assert b"one " in answer.body
        last = json.loads(answer.lines[-1]) if path.startswith("/api/") else last_event(answer.body)
        assert check_error_object(path, last)
        assert not is_whole(path, answer)
    for answer in answers[1::2]:
        check_error(answer, path, 502)
    assert talk.is_silent
    with ask_one(gateway, path, bodies[0]) as again:
        talk.call().say("well again").end()
        assert told(again.read_answer()) == "MISS"


def test_everyone_is_told_of_an_error_amid_the_stream(talk, gateway):
    path = "/api/chat"
    clients = ask_at_once(gateway, [(path, question(path) | form) for form in [STREAM, WHOLE] * 3])
    gateway.take_in(clients)
    call = talk.call().say("one ")
    call.send(b'{"error":"out of memory"}\n')
    call.end_abruptly()
    answers = answers_of(clients)
    for answer in answers[::2]:
        assert (answer.status, answer.lines[-1]) == (200, b'{"error":"out of memory"}')
    for answer in answers[1::2]:
        assert "out of memory" in check_error(answer, path, 500, 502)
    with ask_one(gateway, path, question(path)) as again:
        talk.call().say("well again").end()
        assert told(again.read_answer()) == "MISS"


@pytest.mark.parametrize("form", [STREAM, WHOLE], ids=name)
def test_everyone_is_told_that_the_box_says_nothing(talk, talking_box, start_gateway, form):
    gateway = start_gateway(talking_box.address, cache_ttl="1m", first_byte_timeout="1s")
    path = "/v1/chat/completions"
    answers = fail_all(talk, gateway, path, form, lambda call: call.wait_for_departure())
    assert len({check_error(answer, path, 504) for answer in answers}) == 1


def test_everyone_gets_an_answer_that_ends_without_its_last_words(talk, gateway):
    path = "/api/chat"
    answers = fail_all(talk, gateway, path, STREAM, lambda call: call.say("one ").end_abruptly())
    assert len({answer.body for answer in answers}) == 1
    assert not is_whole(path, answers[0]) and b"one " in answers[0].body


def test_a_failed_refresh_leaves_what_was_kept(talk, gateway):
    path, body = "/api/chat", question("/api/chat")
    with ask_one(gateway, path, body) as client:
        talk.call().say("kept").end()
        assert told(client.read_answer()) == "MISS"
    with ask_one(gateway, path, body, ("Cache-Control", "no-cache")) as client:
        talk.call().refuse(500, "out of memory")
        answer = client.read_answer()
        check_error(answer, path, 500)
        assert cache_status(answer)["fwd"] == "request"
    assert gist(path, hit(gateway, path, body))["text"] == "kept"


def test_what_is_kept_is_found_while_other_calls_run(talk, gateway):
    with ask_one(gateway, "/api/chat", question("/api/chat")) as client:
        talk.call().say("kept").end()
        assert told(client.read_answer()) == "MISS"
    waiting = ask_at_once(gateway, [("/api/chat", question("/api/chat", f"other {n}")) for n in range(50)])
    gateway.take_in(waiting)
    hit(gateway, "/api/chat", question("/api/chat"))
    for _ in waiting:
        talk.call().say("x").end()
    assert tally(answers_of(waiting)) == {"MISS": 50}
    assert ask(gateway.address, "GET", "/health").status == 200
