"""Whatever names clients make up, and how many: the metrics stay as large as their contract lets them be."""

import random
import re
import string
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from boxes import MODELS
from caching import CACHEABLE, question
from exposition import parse, scrape
from fleet import PATH
from programs import INFERENCE
from wire import Connection, ask, request_bytes

MIB = 1 << 20
COUNT = 10_000
AT_A_TIME = 50
"""Requests that are sent on a connection before their answers are read."""
OTHER_ROUTES = 18
USES = ["none", "hit", "stale", "coalesced", "miss", "bypass"]
RESULTS = ["hit", "coalesced", "answered", "refused", "failed", "cancelled"]
MODELS_AT_MOST = 100
SECONDS, SPEEDS, TURNS = 18, 15, 14
"""Buckets of the histograms."""
NASTY = ['"', "\\", "\n", "\u2028", "\x1b[31m", "{", "}", ",", "#", " ", "é", "漢", "\U0001f600", "\x7f", "%00", "'"]


def series_at_most(backends, models, codes):
    """How many series the contract allows: for so many backends, models with a name of their own and statuses."""
    of = lambda buckets: buckets + 2  # noqa: E731
    models += 1
    routes = len(INFERENCE) + OTHER_ROUTES
    totals = 4 + of(SECONDS)
    requests = routes * codes * len(USES) + models * len(RESULTS) + 11 + 2
    times = len(INFERENCE) * len(USES) * of(SECONDS) + models * (2 * of(SECONDS) + of(SPEEDS)) + of(SECONDS)
    tokens = 3 * models
    each = 8 + 9 + 4 + 1 + 1 + of(SECONDS) + models
    others = 5 + 5 + 2 + 4 + of(TURNS) + 1 + 6
    return totals + requests + times + tokens + backends * each + others


def size(gateway):
    """Series of a scrape, and its bytes."""
    answer = ask(gateway.address, "GET", "/metrics")
    assert answer.status == 200 and answer.complete
    families = parse(answer.body.decode())
    return sum(len(family.samples) for family in families.values()), len(answer.body)


def check_size(gateway, backends, models, codes):
    series, count = size(gateway)
    most = series_at_most(backends, models, codes)
    assert series <= most, (series, most)
    assert count <= 200 * most, (count, most)
    return series, count


def texts(gateway):
    """All values of labels, by label."""
    found = {}
    for family in scrape(gateway).values():
        for _, labels in family.samples:
            for name, value in labels:
                found.setdefault(name, set()).add(value)
    return found


def fire(gateway, requests, connections=4):
    """Sends all of (method, target, fields, body), many at a time. Returns how often each status came."""

    def share(number):
        found = Counter()
        own = requests[number::connections]
        with Connection(gateway.address, limit=30) as client:
            for start in range(0, len(own), AT_A_TIME):
                batch = own[start : start + AT_A_TIME]
                client.send(b"".join(request_bytes(*each) for each in batch))
                for method, *_ in batch:
                    answer = client.read_answer(method)
                    assert answer.complete
                    found[answer.status] += 1
        return found

    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(share, range(connections)), Counter())


def check_memory(gateway, step):
    """Fails if the second and third time cost memory that the first had not cost already."""
    step()
    before = gateway.memory()
    for _ in range(2):
        step()
    assert gateway.memory() - before < 4 * MIB, (before, gateway.memory())


def model_names(chance, count):
    def one(number):
        parts = [chance.choice(NASTY) for _ in range(3)] + [f"m{number}", chance.choice(["", ":tag", "x" * 200])]
        chance.shuffle(parts)
        return "".join(parts)

    return [one(number) for number in range(count)]


def check_labels(gateway, *marks):
    """Fails if anything in the labels comes from a client."""
    found = texts(gateway)
    assert found["route"] <= {*INFERENCE, "/", "/api/tags", "/metrics", "/gateway", "/health", "other"} | {
        name for name in found["route"] if re.fullmatch(r"/(api|v1)/[a-z/]+(\{(digest|model)\})?", name)
    }
    assert len(found["route"]) <= len(INFERENCE) + OTHER_ROUTES
    assert found.get("model", set()) <= {f"{name}:latest" for name in MODELS} | {"other"}
    assert all(re.fullmatch(r"[1-5]\d\d", code) for code in found["code"])
    assert found["cache"] <= set(USES) and found.get("key", {"anonymous"}) == {"anonymous"}
    for name, values in found.items():
        for value in values:
            assert value.isascii() and value.isprintable() and not any(mark in value for mark in marks), (name, value)


def test_ten_thousand_models_that_no_box_has_are_one(start_ollama, start_gateway, figures):
    gateway = start_gateway(start_ollama(models=",".join(MODELS)).address, cache_ttl="1m", log_level="notice")
    chance = random.Random(1)

    def step():
        names = model_names(chance, COUNT // 3)
        requests = []
        for number, name in enumerate(names):
            path = CACHEABLE[number % len(CACHEABLE)]
            requests.append(("POST", path, (), question(path, "why", model=name)))
        statuses = fire(gateway, requests)
        assert set(statuses) <= {400, 404}, statuses

    check_memory(gateway, step)
    assert set(scrape(gateway)["ollama_gateway_model_requests_total"].by("model")) == {"other"}
    check_labels(gateway, "m1", "tag", "xx")
    figures(f"/metrics after {COUNT} models: %d series, %d bytes" % check_size(gateway, 1, 0, 2))


def test_ten_thousand_paths_are_one(box, start_gateway, figures):
    gateway = start_gateway(box.address, log_level="notice")
    chance = random.Random(2)
    alphabet = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@%/"

    def path(number):
        text = "".join(chance.choices(alphabet, k=chance.randrange(1, 60))).replace("%", "%25")
        start = chance.choice(["/", "/api/", "/v1/", "/api/blobs/", "/v1/models/", "/gateway/", "//", "/metrics/"])
        return f"{start}{text}{number}?{text}"

    def step():
        requests = [("GET", path(number), (), None) for number in range(COUNT // 3)]
        statuses = fire(gateway, requests)
        assert set(statuses) <= {200, 404}, statuses
        # Nobody looks at them, and they would add up.
        box.asked.clear()

    check_memory(gateway, step)
    routes = set(scrape(gateway)["ollama_gateway_requests_total"].by("route"))
    assert routes <= {"other", "/gateway", "/api/blobs/{digest}", "/v1/models/{model}", "/metrics"}
    check_labels(gateway, "%25", "?")
    figures(f"/metrics after {COUNT} paths: %d series, %d bytes" % check_size(gateway, 1, 0, 2))


def test_methods_that_nobody_knows_are_no_series(box, start_gateway):
    gateway = start_gateway(box.address, log_level="notice")
    chance = random.Random(3)
    methods = ["".join(chance.choices(string.ascii_letters + "-_!", k=chance.randrange(1, 20))) for _ in range(300)]
    for method in [*methods, "get", "Post", "PROPFIND", "M-SEARCH", "TRACE", "OPTIONS", "CONNECT", "PRI"]:
        for target in (PATH, "/metrics"):
            # Some are refused with the connection.
            with Connection(gateway.address) as client:
                client.request(method, target)
                assert client.read_head().status in (200, 400, 404, 405, 501), method
    check_labels(gateway, *[method for method in methods if len(method) > 8])
    # Only a POST asks a model.
    assert not scrape(gateway)["ollama_gateway_model_requests_total"].by("model")
    check_size(gateway, 1, 0, 5)


def test_headers_of_any_kind_are_no_series_and_cost_nothing(box, start_gateway):
    gateway = start_gateway(box.address, cache_ttl="1m", log_level="notice")
    chance = random.Random(4)
    fields = [
        "X-Request-Id", "traceparent", "tracestate", "User-Agent", "Authorization", "X-Api-Key", "X-Forwarded-For",
        "Host", "Accept", "Content-Type", "Cookie", "Origin", "Referer",
    ]  # fmt: skip

    def request(number):
        own = []
        for field in chance.sample(fields, 4):
            mark = f"mark{number}"
            if field == "traceparent" and chance.random() < 0.5:
                mark = f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01"
            own.append((field, mark + chance.choice(["", '"', "\\", "\t", "}", "\xe9", "x" * 200])))
        path, body = chance.choice([(PATH, question(PATH)), ("/api/show", {"model": "llama3.2"})])
        return "POST", path, own, body

    def step():
        statuses = fire(gateway, [request(number) for number in range(1500)])
        # A host that no host can be is refused.
        assert set(statuses) <= {200, 400}, statuses
        assert statuses[200] > 1000
        box.asked.clear()

    check_memory(gateway, step)
    check_labels(gateway, "mark", "00-")
    check_size(gateway, 1, 1, 2)


def test_of_more_models_than_a_hundred_the_first_have_names(start_box, start_gateway):
    models = [f"model{number}" for number in range(300)]
    box = start_box(lambda exchange: exchange.answer({"done": True, "done_reason": "stop"}), models=models)
    gateway = start_gateway(box.address, log_level="notice")
    statuses = fire(gateway, [("POST", PATH, (), question(PATH, model=name, stream=False)) for name in models])
    assert statuses == {200: 300}
    requests = scrape(gateway)["ollama_gateway_model_requests_total"].by("model")
    assert len(requests) == MODELS_AT_MOST + 1
    assert requests["other"] == 300 - MODELS_AT_MOST
    assert set(requests.values()) == {1, 200}
    # And so it stays.
    fire(gateway, [("POST", PATH, (), question(PATH, model=name, stream=False)) for name in models[::-1]])
    assert set(scrape(gateway)["ollama_gateway_model_requests_total"].by("model")) == set(requests)
    check_size(gateway, 1, MODELS_AT_MOST, 1)


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "new\nline", "é漢", "a b", "x" * 1000])
def test_a_box_that_lists_strange_names_does_not_break_the_page(start_box, start_gateway, name):
    box = start_box(lambda exchange: exchange.answer({"done": True}), models=["llama3.2", name], loaded=[name])
    gateway = start_gateway(box.address)
    for model in (name, "llama3.2"):
        assert ask(gateway.address, "POST", PATH, body=question(PATH, model=model, stream=False)).status < 500
    # Both are read strictly.
    check_size(gateway, 1, 2, 2)
    requests = scrape(gateway)["ollama_gateway_model_requests_total"].by("model")
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    assert set(requests) <= {"other", "llama3.2:latest", f"{escaped}:latest"}
    assert requests["llama3.2:latest"] == 1 and requests.total() == 2


def test_names_of_backends_are_labels_as_they_are_written(box, start_gateway):
    gateway = start_gateway(f"http://{box.address}/pre%22fix;weight=2", waits=False)
    (backend,) = gateway.status()["backends"]
    families = scrape(gateway)
    for name in ("up", "drained", "running", "picks_total", "failures_total"):
        samples = families[f"ollama_gateway_backend_{name}"].samples
        assert {dict(labels)["backend"] for _, labels in samples} == {backend["name"]}
