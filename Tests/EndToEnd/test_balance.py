"""Which box gets a request: one that has the model and room, in turn, by load, or where the conversation was."""

import itertools
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from boxes import JSON, unused_address
from caching import question
from crowd import answers_of, ask_at_once, ask_one
from dialects import check_error
from fleet import PATH, answer_as, asked, cut, fresh, shares, who_answers
from talking import Talk
from wire import Connection, ask, wait_until

MODES = ["round-robin", "least-loaded", "affinity"]
SOON = 4.0
WHOLE = {"stream": False}


@pytest.fixture
def signing(start_box):
    """Starts boxes that sign with these names, and have the models that are given for each, or all."""

    def start(names="abc", **models):
        return [start_box(answer_as(name), **({"models": models[name]} if name in models else {})) for name in names]

    return start


@pytest.fixture
def talking(start_box):
    """Starts so many talking boxes, all of which have llama3.2 loaded. Returns their talks and the boxes."""

    def start(count):
        talks = [Talk() for _ in range(count)]
        return talks, [start_box(talk, loaded=["llama3.2"]) for talk in talks]

    return start


def ask_and_hold(gateway, talks, count):
    """Asks so many new questions, each when the one before is at a box. Returns the clients; the calls run on."""
    clients = []
    for _ in range(count):
        before = sum(len(talk.all) for talk in talks)
        clients.append(ask_one(gateway, "/api/chat", fresh("/api/chat")))
        wait_until(lambda: sum(len(talk.all) for talk in talks) == before + 1, "the call")  # noqa: B023
    return clients


def end_all(talks, clients):
    for talk in talks:
        for call in talk.running:
            call.say("x").end()
    assert [answer.status for answer in answers_of(clients)] == [200] * len(clients)


# MARK: In turn


def test_nine_requests_to_three_boxes_are_three_each(signing, start_gateway):
    boxes = signing()
    boxes[1].loaded = ["llama3.2"]
    gateway = start_gateway(*(box.address for box in boxes), balance=None)
    turns = [who_answers(gateway) for _ in range(9)]
    assert Counter(turns) == {"a": 3, "b": 3, "c": 3}
    # Strictly in turn, wherever it begins.
    assert turns[:3] == turns[3:6] == turns[6:]
    assert gateway.status()["balance"] == "round-robin"


def test_nine_requests_at_once_are_three_each(talking, start_gateway):
    talks, boxes = talking(3)
    gateway = start_gateway(*(box.address for box in boxes), concurrency=4)
    clients = ask_at_once(gateway, [("/api/chat", fresh("/api/chat")) for _ in range(9)])
    wait_until(lambda: sum(asked(boxes)) == 9, "nine calls")
    assert asked(boxes) == [3, 3, 3]
    end_all(talks, clients)


def test_the_turn_goes_on_when_a_box_leaves_and_comes_back(signing, start_gateway):
    boxes = signing()
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    boxes[0].probe = cut
    gateway.await_state(boxes[0], "unhealthy", limit=SOON)
    assert shares(gateway, 10) == {"b": 5, "c": 5}
    boxes[0].probe = boxes[0].answer_probe
    gateway.await_state(boxes[0], "healthy", "recovering", limit=SOON)
    assert shares(gateway, 9) == {"a": 3, "b": 3, "c": 3}


def test_the_turn_is_kept_for_each_model(signing, start_gateway):
    """Boxes that lack a model do not make those that have it change places."""
    boxes = signing("abcd", c=["llama3.2", "mistral"], d=["mistral"], a=["llama3.2"], b=["llama3.2"])
    gateway = start_gateway(*(box.address for box in boxes))
    assert shares(gateway, 60) == {"a": 20, "b": 20, "c": 20}
    assert shares(gateway, 10, model="mistral") == {"c": 5, "d": 5}
    for _ in range(30):
        who_answers(gateway)
        who_answers(gateway, model="mistral")
    requests = asked(boxes)
    assert requests[0] == requests[1] == 30 and requests[2] + requests[3] == 70


# MARK: Weights and tiers


def test_shares_follow_the_weights(signing, start_gateway):
    boxes = signing()
    gateway = start_gateway(*(f"{box.address};weight={weight}" for box, weight in zip(boxes, (1, 2, 3), strict=True)))
    assert shares(gateway, 60) == {"a": 10, "b": 20, "c": 30}
    assert [backend["weight"] for backend in gateway.status()["backends"]] == [1, 2, 3]
    # Not in one go: of any six, nobody gets more than its three.
    turns = [who_answers(gateway) for _ in range(24)]
    for start in range(19):
        assert Counter(turns[start : start + 6])["c"] <= 4


def test_what_runs_follows_the_weights(talking, start_gateway):
    talks, boxes = talking(2)
    backends = [f"{boxes[0].address};weight=3", boxes[1].address]
    gateway = start_gateway(*backends, balance="least-loaded", concurrency=100)
    clients = ask_and_hold(gateway, talks, 12)
    assert asked(boxes) == [9, 3]
    assert [backend["running"] for backend in gateway.status()["backends"]] == [9, 3]
    end_all(talks, clients)


@pytest.mark.parametrize("mode", MODES)
def test_a_lower_tier_is_asked_when_the_higher_is_down(signing, start_gateway, mode):
    boxes = signing()
    for box in boxes:
        box.loaded = ["llama3.2"]
    backends = [f"{boxes[0].address};tier=2", f"{boxes[1].address};tier=1", f"{boxes[2].address};tier=3"]
    gateway = start_gateway(*backends, balance=mode, health_interval="1s")
    assert shares(gateway, 10) == {"b": 10}
    boxes[1].probe = cut
    gateway.await_state(boxes[1], "unhealthy", limit=SOON)
    assert shares(gateway, 10) == {"a": 10}
    boxes[1].probe = boxes[1].answer_probe
    gateway.await_state(boxes[1], "healthy", "recovering", limit=SOON)
    assert shares(gateway, 10) == {"b": 10}
    assert [backend["tier"] for backend in gateway.status()["backends"]] == [2, 1, 3]


def test_a_lower_tier_is_asked_when_the_higher_is_full(talking, start_gateway):
    talks, boxes = talking(2)
    gateway = start_gateway(f"{boxes[0].address};tier=2", boxes[1].address, concurrency=2)
    clients = ask_and_hold(gateway, talks, 2)
    assert asked(boxes) == [0, 2]
    clients += ask_and_hold(gateway, talks, 2)
    assert asked(boxes) == [2, 2]
    end_all(talks, clients)


# MARK: Who has the model


@pytest.mark.parametrize("mode", MODES)
def test_a_request_goes_only_to_a_box_that_has_the_model(signing, start_gateway, mode):
    boxes = signing("abc", a=["llama3.2", "qwen3"], b=["llama3.2", "mistral:7b"], c=["me/mine:v1"])
    gateway = start_gateway(*(box.address for box in boxes), balance=mode)
    assert shares(gateway, 8, at_once=4, model="qwen3").keys() == {"a"}
    assert shares(gateway, 8, at_once=4, model="mistral:7b").keys() == {"b"}
    assert shares(gateway, 8, at_once=4, model="me/mine:v1").keys() == {"c"}
    assert shares(gateway, 8, at_once=4).keys() <= {"a", "b"}
    for path in ("/api/chat", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/api/embed"):
        assert who_answers(gateway, path, model="qwen3") == "a"


@pytest.mark.parametrize(
    "spelled",
    [
        "qwen3", "qwen3:latest", "QWEN3", "library/qwen3", "registry.ollama.ai/library/qwen3:latest", " qwen3 ",
        "Qwen3:LATEST",
    ],  # fmt: skip
)
def test_a_model_is_found_however_it_is_spelled(signing, start_gateway, spelled):
    boxes = signing("abc", a=["llama3.2"], b=["Qwen3"], c=["llama3.2"])
    gateway = start_gateway(*(box.address for box in boxes))
    assert shares(gateway, 4, model=spelled) == {"b": 4}


NOT_FOUND = {
    "/api/generate": "model 'nope' not found",
    "/api/chat": "model 'nope' not found",
    "/api/embed": 'model "nope" not found, try pulling it first',
    "/api/embeddings": 'model "nope" not found, try pulling it first',
    "/v1/chat/completions": "model 'nope' not found",
    "/v1/completions": "model 'nope' not found",
    "/v1/embeddings": 'model "nope" not found, try pulling it first',
    "/v1/responses": "model 'nope' not found",
    "/v1/messages": "model 'nope' not found",
}


@pytest.mark.parametrize("path", NOT_FOUND)
def test_a_model_that_no_box_has_is_not_found_and_no_box_is_asked(signing, start_gateway, start_ollama, path):
    boxes = signing()
    gateway = start_gateway(*(box.address for box in boxes))
    body = question(path, model="nope")
    answer = ask(gateway.address, "POST", path, body=body)
    assert check_error(answer, path, 404) == NOT_FOUND[path]
    assert answer.content_type == JSON
    assert asked(boxes) == [0, 0, 0]
    # In the very words of a box.
    direct = ask(start_ollama().address, "POST", path, body=body)
    if path != "/v1/messages":  # Each of its errors has an id.
        assert (answer.status, answer.body.strip()) == (direct.status, direct.body.strip())
    assert answer.header("Content-Type").split(";")[0] == direct.header("Content-Type").split(";")[0]


def test_a_model_that_a_box_may_have_that_was_never_heard_of_is_not_said_to_be_unknown(signing, start_gateway):
    address, keeper = unused_address()
    with keeper:
        gateway = start_gateway(signing("a")[0].address, address)
        answer = ask(gateway.address, "POST", PATH, body=fresh(model="nope"))
        assert address in check_error(answer, PATH, 503)
        assert int(answer.header("Retry-After")) >= 1
        assert shares(gateway, 3) == {"a": 3}


def test_a_model_that_came_to_a_box_since_is_found(signing, start_gateway):
    """Before it says no, the gateway looks again; but not at every request."""
    boxes = signing("ab", a=["llama3.2"], b=["llama3.2"])
    gateway = start_gateway(*(box.address for box in boxes))
    assert ask(gateway.address, "POST", PATH, body=fresh(model="qwen3")).status == 404
    boxes[1].models.append("qwen3")

    def is_found():
        answer = ask(gateway.address, "POST", PATH, body=fresh(model="qwen3"))
        assert answer.status == 200 or check_error(answer, PATH, 404)
        return answer.status == 200

    begin = time.monotonic()
    wait_until(is_found, "the model", limit=SOON)
    looks = len([target for _, target in boxes[0].probed if target == "/api/tags"])
    assert looks <= 3 + (time.monotonic() - begin) / 2
    assert shares(gateway, 5, model="qwen3") == {"b": 5}


def test_who_asks_for_what_no_box_has_does_not_keep_the_boxes_busy(signing, start_gateway):
    (box,) = signing("a")
    gateway = start_gateway(box.address)
    begin = time.monotonic()
    for number in range(100):
        assert ask(gateway.address, "POST", PATH, body=fresh(model=f"nope{number}")).status == 404
    looks = len([target for _, target in box.probed if target == "/api/tags"])
    assert looks <= 2 + (time.monotonic() - begin) / 2


@pytest.mark.parametrize(
    "model", ["", "a b", "x" * 200, "../etc", "a:b:c", None, 5, "gpt-oss:120b-cloud", "qwen3:cloud"]
)
def test_what_is_no_name_of_a_model_is_for_a_box_to_judge(signing, start_gateway, model):
    boxes = signing()
    gateway = start_gateway(*(box.address for box in boxes))
    assert shares(gateway, 6, model=model) == {"a": 2, "b": 2, "c": 2}


UNREADABLE = {
    "no JSON": ("/api/generate", [], b'{"model":'),
    "no body": ("/api/chat", [], b""),
    "compressed": ("/api/chat", [("Content-Encoding", "zstd")], b"\x28\xb5\x2f\xfd" + b"x" * 20),
    "a form": ("/v1/audio/transcriptions", [("Content-Type", "multipart/form-data; boundary=x")], b"--x--\r\n"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", UNREADABLE)
def test_what_the_gateway_cannot_read_is_for_a_box_to_judge(signing, start_gateway, case, mode):
    boxes = signing("ab", a=["llama3.2"], b=[])
    gateway = start_gateway(*(box.address for box in boxes), balance=mode)
    path, fields, body = UNREADABLE[case]
    answers = [ask(gateway.address, "POST", path, fields, body) for _ in range(4)]
    turns = Counter(answer.json["response"] for answer in answers)
    assert turns == {"a": 2, "b": 2} if mode == "round-robin" else turns.total() == 4
    assert all(asked.body == body for box in boxes for asked in box.asked)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_a_model_whose_boxes_are_all_down_is_unavailable(signing, start_gateway, path):
    boxes = signing("abc", a=["qwen3"], b=["llama3.2"], c=["qwen3", "llama3.2"])
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    for box in (boxes[0], boxes[2]):
        box.probe = cut
    for box in (boxes[0], boxes[2]):
        gateway.await_state(box, "unhealthy", limit=SOON)
    answer = ask(gateway.address, "POST", path, body=question(path, model="qwen3"))
    message = check_error(answer, path, 503)
    assert int(answer.header("Retry-After")) >= 1
    names = [gateway.backend(box)["name"] for box in boxes]
    assert names[0] in message and names[2] in message and names[1] not in message
    assert shares(gateway, 4) == {"b": 4}
    assert ask(gateway.address, "POST", path, body=question(path, model="nope")).status == 404


# MARK: Who has room


@pytest.mark.parametrize("mode", MODES)
def test_a_full_box_is_passed_over_for_a_free_one(talking, start_gateway, mode):
    talks, boxes = talking(3)
    limits = (1, 2, 3)
    backends = [f"{box.address};concurrency={limit}" for box, limit in zip(boxes, limits, strict=True)]
    gateway = start_gateway(*backends, balance=mode, concurrency=50)
    assert [backend["limit"] for backend in gateway.status()["backends"]] == [1, 2, 3]
    # One conversation: affinity would have it all at one box.
    same = question("/api/chat")
    clients = []
    for number in range(6):
        clients.append(ask_one(gateway, "/api/chat", same | {"options": {"seed": number}}))
        wait_until(lambda: sum(asked(boxes)) == number + 1, "the call")  # noqa: B023
    assert asked(boxes) == [1, 2, 3]
    late = ask_one(gateway, "/api/chat", same | {"options": {"seed": 99}})
    gateway.take_in([late])
    wait_until(lambda: gateway.status()["queue"]["waiting"] == 1, "the line")
    # Whichever is the first with room.
    talks[1].all[0].say("x").end()
    wait_until(lambda: asked(boxes) == [1, 3, 3], "the last call")
    end_all(talks, [*clients, late])


def test_who_waits_for_one_model_does_not_hold_up_another(start_box, start_gateway):
    talks = [Talk(), Talk()]
    boxes = [start_box(talks[0], models=["llama3.2"]), start_box(talks[1], models=["mistral"])]
    gateway = start_gateway(*(box.address for box in boxes), concurrency=1)
    clients = [ask_one(gateway, "/api/chat", fresh("/api/chat")) for _ in range(3)]
    gateway.take_in(clients)
    wait_until(lambda: asked(boxes) == [1, 0], "the first call")
    # Two wait in line for llama3.2, and the box of the other model is free.
    with ask_one(gateway, "/api/chat", fresh("/api/chat", model="mistral")) as other:
        talks[1].call().say("x").end()
        assert other.read_answer().status == 200
    for _ in clients:
        talks[0].call().say("x").end()
    assert [answer.status for answer in answers_of(clients)] == [200] * 3


# MARK: By load


def test_the_box_with_the_least_to_do_is_asked_and_ties_take_turns(talking, start_gateway):
    talks, boxes = talking(3)
    gateway = start_gateway(*(box.address for box in boxes), balance="least-loaded", concurrency=10)
    clients = ask_and_hold(gateway, talks, 6)
    assert asked(boxes) == [2, 2, 2]
    for call in talks[1].running:
        call.say("x").end()
    wait_until(lambda: gateway.backend(boxes[1])["running"] == 0, "the end of two")
    clients += ask_and_hold(gateway, talks, 2)
    assert asked(boxes) == [2, 4, 2]
    end_all(talks, clients)
    # When nobody has anything to do, not always the same one gets it.
    for box in boxes:
        box.script = answer_as("x")
    before = asked(boxes)
    shares(gateway, 30)
    assert all(after - earlier >= 8 for earlier, after in zip(before, asked(boxes), strict=True))


def test_shares_follow_the_speeds_of_the_boxes(start_ollama, start_gateway, figures):
    delays = (40, 40, 80)
    boxes = [start_ollama(first_token=f"{delay}ms", interval=0, parallel=64) for delay in delays]
    for box in boxes:
        ask(box.address, "POST", PATH, body=fresh())
        box.control(reset_counts=True)
    gateway = start_gateway(*(box.address for box in boxes), balance="least-loaded", concurrency=64)
    body = fresh()

    def work(number):
        with Connection(gateway.address, limit=30) as client:
            for turn in range(1000 // 20):
                client.request("POST", PATH, body=body | {"prompt": f"{number}/{turn}"})
                assert client.read_answer().status == 200

    begin = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))
    calls = [box.calls() for box in boxes]
    figures(f"1,000 requests, one box half as fast: {calls} in {time.monotonic() - begin:.1f} s (aim 400, 400, 200)")
    assert sum(calls) == 1000
    for count, fair in zip(calls, (400, 400, 200), strict=True):
        assert abs(count - fair) <= 0.15 * fair, calls


# MARK: Who has it loaded


@pytest.mark.parametrize("mode", ["least-loaded", "affinity"])
def test_a_box_that_has_the_model_loaded_goes_before_one_that_has_not(signing, start_gateway, mode):
    boxes = signing()
    boxes[1].loaded = ["llama3.2"]
    boxes[2].loaded = ["mistral"]
    gateway = start_gateway(*(box.address for box in boxes), balance=mode)
    assert shares(gateway, 10) == {"b": 10}
    assert shares(gateway, 10, model="mistral") == {"c": 10}
    # And of those that have to load it, the one that has nothing to lose.
    assert who_answers(gateway, model="qwen3") == "a"


@pytest.mark.parametrize("mode", ["least-loaded", "affinity"])
def test_a_model_that_is_loaded_where_there_is_no_room_is_loaded_elsewhere(talking, start_gateway, mode):
    talks, boxes = talking(2)
    boxes[1].loaded = []
    gateway = start_gateway(*(box.address for box in boxes), balance=mode, concurrency=2)
    clients = ask_and_hold(gateway, talks, 3)
    assert asked(boxes) == [2, 1]
    end_all(talks, clients)


HOLDERS = {"m1": [0], "m2": [0, 1], "m3": [0, 1, 2], "m4": [3], "m5": [3, 4]}


def sequences():
    """Sequences of models, of which each can have a box of its own if the first are placed with care."""
    rest = list(HOLDERS) * 8
    random.Random(4).shuffle(rest)
    return {
        "in order": ["m1", "m2", "m3", "m4", "m5"] * 4,
        "one after the other": [model for model in HOLDERS for _ in range(5)],
        "at random, once they have their places": [*HOLDERS, *rest],
        "some never": ["m2", "m2", "m5", "m2", "m5"] * 3,
    }


@pytest.mark.parametrize("mode", ["least-loaded", "affinity"])
@pytest.mark.parametrize("order", sequences())
def test_no_model_is_loaded_more_often_than_it_must_be(start_ollama, start_gateway, mode, order):
    held = [[model for model in HOLDERS if box in HOLDERS[model]] for box in range(5)]
    boxes = [start_ollama(models=",".join(models), max_loaded=1, load_time="20ms", tokens=2) for models in held]
    gateway = start_gateway(*(box.address for box in boxes), balance=mode)
    sequence = sequences()[order]
    for model in sequence:
        assert ask(gateway.address, "POST", PATH, body=fresh(model=model)).status == 200
    counts = [box.counts() for box in boxes]
    assert sum(count["loads"] for count in counts) == len(set(sequence)), [count["loads_by_model"] for count in counts]
    for models, count in zip(held, counts, strict=True):
        assert set(count["loads_by_model"]) <= {f"{model}:latest" for model in models}
        assert count["finished"] == count["requests"].get(f"POST {PATH}", 0), "a box was asked for what it has not"


@pytest.mark.parametrize("mode", MODES)
def test_a_mixed_crowd_never_asks_a_box_for_what_it_has_not(start_ollama, start_gateway, mode):
    held = [[model for model in HOLDERS if box in HOLDERS[model]] for box in range(5)]
    boxes = [start_ollama(models=",".join(models), max_loaded=1, load_time="5ms", tokens=2) for models in held]
    gateway = start_gateway(*(box.address for box in boxes), balance=mode, concurrency=2)
    models = list(itertools.islice(itertools.cycle(HOLDERS), 200))
    random.Random(1).shuffle(models)

    def one(model):
        return ask(gateway.address, "POST", PATH, body=fresh(model=model), limit=30).status

    with ThreadPoolExecutor(10) as pool:
        assert Counter(pool.map(one, models)) == {200: 200}
    counts = [box.counts() for box in boxes]
    assert sum(count["finished"] for count in counts) == 200
    assert all(count["waiting"] == count["running"] == 0 for count in counts)


# MARK: Where the conversation was


def conversation(number, turns):
    """The messages of a conversation after so many turns."""
    messages = [{"role": "system", "content": f"You are assistant {number}. " + "Be brief. " * 20}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Question {turn} of {number}: why? " + "Tell me. " * 10})
        messages.append({"role": "assistant", "content": f"Because of {turn}."})
    return messages[:-1]


@pytest.fixture
def affine(signing, start_gateway):
    """A gateway that keeps conversations where they are, and its three boxes, which have the model loaded."""

    def start(**settings):
        boxes = signing()
        for box in boxes:
            box.loaded = ["llama3.2", "mistral"]
        return start_gateway(*(box.address for box in boxes), balance="affinity", **settings), boxes

    return start


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_conversation_stays_with_its_box(affine, path):
    gateway, boxes = affine()

    def turn(number, turns):
        body = {"model": "llama3.2", "messages": conversation(number, turns), "stream": False}
        return ask(gateway.address, "POST", path, body=body).json["response"]

    first = [turn(number, 1) for number in range(30)]
    for turns in range(2, 6):
        assert [turn(number, turns) for number in range(30)] == first
    # And they are not all at one box.
    assert len(set(first)) == 3 and min(Counter(first).values()) >= 3, Counter(first)


def test_a_conversation_with_a_full_box_goes_to_another(start_box, start_gateway):
    talks = [Talk() for _ in range(2)]
    boxes = [start_box(talk, loaded=["llama3.2"]) for talk in talks]
    gateway = start_gateway(*(box.address for box in boxes), balance="affinity", concurrency=1)

    def turn(turns):
        return ask_one(gateway, "/api/chat", {"model": "llama3.2", "messages": conversation(1, turns)} | WHOLE)

    with turn(1) as client:
        wait_until(lambda: sum(asked(boxes)) == 1, "the call")
        home, away = talks if talks[0].all else talks[::-1]
        home.call().say("x").end()
        assert client.read_answer().status == 200
    with turn(2) as client:
        busy = home.call()
        # It does not wait for its box while another has nothing to do.
        with turn(3) as other:
            away.call().say("x").end()
            assert other.read_answer().status == 200
        busy.say("x").end()
        assert client.read_answer().status == 200


def test_a_conversation_whose_box_is_down_goes_on_elsewhere(affine):
    gateway, boxes = affine(health_interval="1s")

    def turn(turns):
        body = {"model": "llama3.2", "messages": conversation(1, turns)} | WHOLE
        return ask(gateway.address, "POST", "/api/chat", body=body).json["response"]

    home = turn(1)
    box = boxes["abc".index(home)]
    box.probe = cut
    gateway.await_state(box, "unhealthy", limit=SOON)
    other = turn(2)
    assert other != home
    assert [turn(turns) for turns in (3, 4, 5)] == [other] * 3
