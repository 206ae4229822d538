"""What /metrics says adds up exactly to what the clients did."""

import math
import random
import threading
from collections import Counter
from dataclasses import astuple, dataclass

import pytest

import exposition
from boxes import unused_address
from caching import CACHEABLE, NEVER_KEPT, hit, missed, post, question, told
from crowd import answers_of, ask_at_once, ask_one, tally
from exposition import parse, scrape
from talking import STREAMING
from wire import ask, wait_until

WHOLE = {"stream": False}


@dataclass
class Counts:
    requests: int = 0
    hits: int = 0
    misses: int = 0
    size: int = 0


def counts(gateway):
    families = scrape(gateway)
    return Counts(
        families["ollama_requests_total"].value,
        families["ollama_cache_hits_total"].value,
        families["ollama_cache_misses_total"].value,
        families["ollama_cache_size"].value,
    )


def check_counts(gateway, requests, hits, misses, size):
    """Fails unless the counts are these; the last answer's may come a moment after it."""
    expected = Counts(requests, hits, misses, size)
    wait_until(lambda: astuple(counts(gateway)) >= astuple(expected), f"{expected}, not {counts(gateway)}")
    assert counts(gateway) == expected


def latency(gateway):
    return scrape(gateway)["ollama_request_latency_seconds"]


# MARK: The form


def test_a_fresh_gateway_says_what_it_counts_and_that_it_is_nothing(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, cache_ttl="1m", rate_limit=10)
    families = scrape(gateway)
    kinds = {
        "ollama_requests_total": "counter",
        "ollama_cache_hits_total": "counter",
        "ollama_cache_misses_total": "counter",
        "ollama_cache_size": "gauge",
        "ollama_request_latency_seconds": "histogram",
    }
    assert {name: families[name].kind for name in kinds} == kinds
    assert counts(gateway) == Counts()
    seconds = families["ollama_request_latency_seconds"]
    bounds = list(seconds.buckets)
    assert (bounds[0], bounds[-2], bounds[-1]) == (0.001, 300, math.inf)
    assert 0.5 in bounds
    assert (seconds.count, seconds.sum) == (0, 0)
    # Labels none but the bounds.
    assert {labels and labels[0][0] for _, labels in seconds.samples} == {(), "le"}
    assert all(len(labels) <= 1 for _, labels in seconds.samples)


@pytest.mark.parametrize(
    "bad",
    [
        "a 1\n",
        "# HELP a b\n# TYPE a gauge\na 1",
        "# HELP a b\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a b\n# TYPE a counter\na 1\n",
        "# HELP a b\n# TYPE a gauge\na one\n",
        "# HELP a b\n# TYPE a gauge\na  1\n",
        "# HELP a b\n# TYPE a gauge\n# TYPE a gauge\na 1\n",
        '# HELP a b\n# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n',
        '# HELP a b\n# TYPE a histogram\na_bucket{le="1"} 2\na_sum 1\na_count 2\n',
        "# HELP a b\n# TYPE a gauge\na 1\n# HELP c d\n# TYPE c gauge\na 2\n",
    ],
)
def test_the_parser_of_these_tests_is_strict(bad):
    with pytest.raises(AssertionError):
        parse(bad)


# MARK: The sums


def test_hits_misses_and_entries_add_up(start_ollama, start_gateway):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address, cache_ttl="1m")
    for path in CACHEABLE:
        missed(gateway, path, question(path))
    check_counts(gateway, 7, 0, 7, 7)
    for path in CACHEABLE:
        for _ in range(3):
            hit(gateway, path, question(path))
    for path in STREAMING:
        for stream in (True, False):
            hit(gateway, path, question(path, stream=stream))
    check_counts(gateway, 36, 29, 7, 7)
    for path in NEVER_KEPT:
        assert told(post(gateway, path, question(path))) == "BYPASS"
    missed(gateway, "/api/chat", question("/api/chat"), ("Cache-Control", "no-cache"))
    post(gateway, "/api/chat", question("/api/chat"), ("Cache-Control", "no-store"))
    check_counts(gateway, 40, 29, 11, 7)
    assert ollama.calls() == 11
    assert ask(gateway.address, "DELETE", "/gateway/cache").json == {"purged": 7}
    check_counts(gateway, 40, 29, 11, 0)
    assert latency(gateway).count == 40


def test_those_who_share_a_call_count_as_hits(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, cache_ttl="1m")
    clients = ask_at_once(gateway, [("/api/chat", question("/api/chat", stream=n % 2 == 0)) for n in range(20)])
    gateway.take_in(clients)
    talk.call().say("a").end()
    assert tally(answers_of(clients)) == {"MISS": 1, "COALESCED": 19}
    check_counts(gateway, 20, 19, 1, 1)


def test_without_a_cache_all_are_misses(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address)
    for _ in range(5):
        post(gateway, "/api/chat", question("/api/chat"))
    check_counts(gateway, 5, 0, 5, 0)


def test_errors_of_the_box_are_calls_and_no_entries(start_ollama, start_gateway):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address, cache_ttl="1m")
    ollama.control(fault={"kind": "status", "status": 400, "times": 3})
    for number in range(3):
        assert post(gateway, "/api/chat", question("/api/chat", f"{number}")).status == 400
    ollama.control(fault={"kind": "cut", "after": 3, "times": 1})
    post(gateway, "/api/chat", question("/api/chat"))
    check_counts(gateway, 4, 0, 4, 0)


def test_a_model_that_no_box_has_is_a_request_and_no_call(start_ollama, start_gateway):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address, cache_ttl="1m")
    for number in range(3):
        assert post(gateway, "/api/chat", question("/api/chat", f"{number}", model="nope")).status == 404
    check_counts(gateway, 3, 0, 0, 0)
    assert ollama.calls() == 0


def test_refused_requests_are_requests_and_neither_hits_nor_misses(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, cache_ttl="1m", rate_limit=5, concurrency=1, queue_limit=1)
    path = "/api/chat"
    clients = ask_at_once(gateway, [(path, question(path, text)) for text in ("one", "two")])
    gateway.take_in(clients)
    assert post(gateway, path, question(path, "three")).status == 503
    assert post(gateway, path, question(path, "four"), ("Cache-Control", "only-if-cached")).status == 504
    for _ in clients:
        talk.call().say("x").end()
    answers_of(clients)
    hit(gateway, path, question(path, "two"))
    for _ in range(4):
        assert post(gateway, path, question(path, "two")).status == 429
    check_counts(gateway, 9, 1, 2, 2)
    # The refused took no time, and may be left out of it.
    assert latency(gateway).count in (9, 5, 3)


def test_a_client_that_left_is_a_request(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, cache_ttl="1m")
    client = ask_one(gateway, "/api/chat", question("/api/chat"))
    call = talk.call()
    client.close()
    call.wait_for_departure()
    check_counts(gateway, 1, 0, 1, 0)


def test_what_asks_no_model_does_not_count(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, cache_ttl="1m")
    for method, target in [
        ("GET", "/"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/api/tags"),
        ("GET", "/v1/models"),
        ("GET", "/api/version"),
        ("GET", "/no/such/path"),
        ("DELETE", "/gateway/cache"),
    ]:
        ask(gateway.address, method, target)
    ask(gateway.address, "POST", "/api/show", body={"model": "llama3.2"})
    assert counts(gateway) == Counts()
    assert latency(gateway).count == 0


def test_the_metrics_are_there_when_no_box_is(start_gateway):
    address, keeper = unused_address()
    with keeper:
        gateway = start_gateway(address, cache_ttl="1m")
        assert post(gateway, "/api/chat", question("/api/chat")).status == 503
        wait_until(lambda: counts(gateway).requests == 1, "the count")
        assert (counts(gateway).hits, counts(gateway).size) == (0, 0)


def test_only_the_entries_that_are_left_are_counted(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, cache_ttl="1s")
    for number in range(5):
        missed(gateway, "/api/chat", question("/api/chat", f"{number}"))
    # Asked again when its time is over, an answer takes the old one's place.
    wait_until(
        lambda: all(told(post(gateway, "/api/chat", question("/api/chat", f"{n}"))) == "HIT" for n in range(5))
        and counts(gateway).size == 5,
        "five entries",
    )
    assert counts(gateway).size <= 5


# MARK: The times


def test_the_time_of_an_answer_is_that_to_its_end(start_ollama, start_gateway):
    ollama = start_ollama(tokens=7, first_token="100ms", interval="100ms")
    gateway = start_gateway(ollama.address, cache_ttl="1m")
    for stream in (True, False):
        missed(gateway, "/api/chat", question("/api/chat", f"{stream}", stream=stream))
    for _ in range(10):
        hit(gateway, "/api/chat", question("/api/chat", "True"))
    wait_until(lambda: latency(gateway).count == 12, "twelve times")
    seconds = latency(gateway)
    assert seconds.buckets[0.5] == 10
    assert 1.2 < seconds.sum < 10


def test_the_sums_are_exact_after_a_random_crowd(start_ollama, start_gateway, figures):
    ollama = start_ollama(tokens=3, first_token="3ms", parallel=64)
    gateway = start_gateway(ollama.address, cache_ttl="1h", rate_limit=1500, rate_window="1h", concurrency=2)
    done, errors = Counter(), []
    lock = threading.Lock()

    def work(number):
        chance = random.Random(number)
        try:
            for _ in range(250):
                path = chance.choice([*CACHEABLE, *NEVER_KEPT])
                body = question(path, f"question {chance.randrange(40)}")
                if chance.random() < 0.1:
                    body["model"] = "nope"
                field = ("Cache-Control", "no-cache" if chance.random() < 0.1 else "max-age=1000")
                answer = post(gateway, path, body, field, limit=30)
                assert answer.status in (200, 404, 429) and answer.complete
                with lock:
                    # What is not there is no call, and neither is what is refused.
                    done[told(answer) if answer.status == 200 else f"{answer.status}"] += 1
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        # Whoever looks meanwhile sees a whole page and no sum that shrinks or is too large.
        seen = counts(gateway)
        assert seen.hits + seen.misses <= seen.requests <= 2000
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    figures(f"2,000 random requests of 8 clients: {dict(done)}")
    assert done["429"] == 500 and done.total() == 2000
    wait_until(lambda: counts(gateway).requests == 2000, "all counted")
    seen = counts(gateway)
    assert seen.hits == done["HIT"] + done["COALESCED"]
    assert seen.misses == done["MISS"] + done["BYPASS"] == ollama.calls()
    assert ask(gateway.address, "DELETE", "/gateway/cache").json["purged"] == seen.size


def test_scraping_is_quick_and_does_not_grow(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, cache_ttl="1m")
    before = set(scrape(gateway))
    for number in range(100):
        post(gateway, "/api/chat", question("/api/chat", f"{number}", model=f"model{number}"))
    after = scrape(gateway)
    assert set(after) == before
    samples = sum(len(family.samples) for family in after.values())
    # Names that clients make up do not become series.
    assert samples < 200
    assert not any("model99" in str(labels) for family in after.values() for _, labels in family.samples)
    assert exposition.scrape(gateway)
