"""Each client may ask so much in so long a time; what is beyond is refused, and nothing else is."""

import re
import time
from collections import Counter

import anthropic
import ollama as ollama_client
import openai
import pytest

from caching import CACHEABLE, NEVER_KEPT, hit, missed, post, question, told
from crowd import answers_of, ask_at_once, assemble
from dialects import check_error
from endpoints import CHAT, MESSAGES
from wire import ask, request_bytes, wait_until

SENTENCE = "Rate limit exceeded. Try again later."
INFERENCE = [*CACHEABLE, *NEVER_KEPT]


def figures_of(answer, window):
    """What the answer says of the limit, the remainder and the seconds to a new beginning."""
    found = []
    for name in ("Limit", "Remaining", "Reset"):
        (value,), (twin,) = answer.headers(f"RateLimit-{name}"), answer.headers(f"X-RateLimit-{name}")
        assert value == twin, name
        assert re.fullmatch(rb"\d+", value), (name, value)
        found.append(int(value))
    assert 0 <= found[2] <= window
    return tuple(found)


def check_refused(answer, path, window):
    """Fails unless the answer refuses in the words of the path's API and tells when to come again."""
    assert check_error(answer, path, 429) == SENTENCE
    if path.startswith("/api/"):
        assert answer.body.strip() == b'{"error":"Rate limit exceeded. Try again later."}'
    if path == "/v1/messages":
        assert answer.json["error"]["type"] == "rate_limit_error"
    (seconds,) = answer.headers("Retry-After")
    assert re.fullmatch(rb"\d+", seconds) and 1 <= int(seconds) <= window
    assert figures_of(answer, window)[1] == 0


def wait_out(begin, window):
    """Waits until so many seconds have passed since `begin`: it is time that is tested."""
    wait_until(lambda: time.monotonic() > begin + window + 0.05, "time", limit=window + 10)


@pytest.mark.parametrize("path", INFERENCE)
def test_so_many_requests_pass_and_the_next_is_refused(start_ollama, start_gateway, path):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address, cache_ttl="1m", rate_limit=5)
    for left in (4, 3, 2, 1, 0):
        answer = post(gateway, path, question(path))
        assert answer.status == 200
        assert figures_of(answer, 60)[:2] == (5, left)
        assert answer.headers("Retry-After") == []
    asked = ollama.calls()
    for _ in range(3):
        check_refused(post(gateway, path, question(path, "More?")), path, 60)
    assert ollama.calls() == asked


def test_a_gateway_that_is_told_nothing_lets_ten_requests_a_minute_pass(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, rate_limit=None)
    answers = [post(gateway, "/api/chat", CHAT) for _ in range(11)]
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert figures_of(answers[0], 60)[:2] == (10, 9)
    assert 50 <= figures_of(answers[10], 60)[2] <= 60


def test_without_a_limit_nothing_is_said_of_one(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, rate_limit=0)
    for _ in range(30):
        answer = post(gateway, "/api/chat", CHAT)
        assert answer.status == 200
    assert not [name for name, _ in answer.fields if b"ratelimit" in name.lower()]


def test_hits_and_misses_and_errors_all_count_and_say_so(start_ollama, start_gateway):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address, cache_ttl="1m", rate_limit=9, concurrency=1)
    path = "/api/chat"
    answers = [
        missed(gateway, path, question(path)),
        hit(gateway, path, question(path)),
        hit(gateway, path, question(path) | {"stream": False}),
        post(gateway, path, question(path), ("Cache-Control", "no-store")),
        post(gateway, path, question(path, model="nope")),
        post(gateway, path, question(path, "uncached"), ("Cache-Control", "only-if-cached")),
        post(gateway, path, b"not JSON"),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 504, 400]
    ollama.stop()
    answers.append(post(gateway, path, question(path, "Is anybody there?")))
    assert answers[-1].status in (502, 503)
    answers.append(hit(gateway, path, question(path)))
    assert [figures_of(answer, 60)[1] for answer in answers] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    check_refused(post(gateway, path, question(path)), path, 60)


def test_requests_that_share_a_call_all_count(start_ollama, start_gateway):
    ollama = start_ollama(first_token="300ms")
    gateway = start_gateway(ollama.address, cache_ttl="1m", rate_limit=5)
    answers = answers_of(ask_at_once(gateway, [("/api/chat", question("/api/chat"))] * 8))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 3
    assert sorted(figures_of(answer, 60)[1] for answer in answers if answer.status == 200) == [0, 1, 2, 3, 4]
    assert ollama.calls() == 1


def test_the_limit_stands_before_the_line(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, rate_limit=3, concurrency=1, queue_limit=1)
    path = "/api/chat"
    clients = ask_at_once(gateway, [(path, question(path, text)) for text in ("one", "two")])
    gateway.take_in(clients)
    busy = post(gateway, path, question(path, "three"))
    check_error(busy, path, 503)
    assert figures_of(busy, 60)[1] == 0
    check_refused(post(gateway, path, question(path, "four")), path, 60)
    for _ in clients:
        talk.call().say("x").end()
    assert [answer.status for answer in answers_of(clients)] == [200, 200]


def test_what_asks_no_model_is_never_limited(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, rate_limit=1)
    assert post(gateway, "/api/chat", CHAT).status == 200
    assert post(gateway, "/api/chat", CHAT).status == 429
    for _ in range(30):
        for target in ("/", "/health", "/metrics", "/api/tags", "/api/ps", "/api/version", "/v1/models"):
            answer = ask(gateway.address, "GET", target)
            assert answer.status == 200
        assert ask(gateway.address, "DELETE", "/gateway/cache").status == 200
        assert ask(gateway.address, "POST", "/api/show", body={"model": "llama3.2"}).status == 200
    # And it is not counted: that was the limit of those that are.
    check_refused(post(gateway, "/api/chat", CHAT), "/api/chat", 60)


def test_every_endpoint_draws_on_the_same_limit(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, rate_limit=len(INFERENCE))
    for left, path in enumerate(reversed(INFERENCE)):
        assert figures_of(post(gateway, path, question(path)), 60)[1] == len(INFERENCE) - 1 - left
    for path in (*INFERENCE, "/v1/audio/transcriptions"):
        check_refused(post(gateway, path, question(path)), path, 60)


def test_each_address_has_a_limit_of_its_own(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, rate_limit=3, host="127.0.0.1")
    for last in range(2, 12):
        source = f"127.0.0.{last}"
        statuses = [post(gateway, "/api/chat", CHAT, source=source).status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
    assert post(gateway, "/api/chat", CHAT).status == 200


def test_a_client_cannot_say_that_it_is_another(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, rate_limit=2)
    forged = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Real-IP", "192.0.2.2"),
        ("Forwarded", "for=192.0.2.3"),
        ("X-Forwarded-For", "192.0.2.4, 192.0.2.5"),
    ]
    assert [post(gateway, "/api/chat", CHAT, field).status for field in forged] == [200, 200, 429, 429]


def test_a_thousand_requests_at_once_are_let_pass_to_exactly_the_limit(start_ollama, start_gateway, figures):
    window = 5
    ollama = start_ollama()
    gateway = start_gateway(ollama.address, cache_ttl="1h", rate_limit=100, rate_window=f"{window}s")
    message = request_bytes("POST", "/api/chat", (), question("/api/chat") | {"stream": False})
    for turn in ("the first window", "the next"):
        clients = assemble(gateway, 1000)
        begin = time.monotonic()
        for client in clients:
            client.send(message)
        sent = time.monotonic() - begin
        answers = answers_of(clients)
        end = time.monotonic()
        statuses = Counter(answer.status for answer in answers)
        figures(
            f"1,000 requests at once, limit 100, {turn}: {dict(statuses)};"
            f" sent in {sent:.2f} s, answered in {end - begin:.2f} s"
        )
        assert end - begin < window, "too slow a machine for this window"
        assert statuses == {200: 100, 429: 900}
        passed = [figures_of(answer, window)[1] for answer in answers if answer.status == 200]
        assert sorted(passed) == list(range(100))
        for answer in answers:
            if answer.status == 429:
                check_refused(answer, "/api/chat", window)
        wait_out(end, window)
    assert ollama.calls() == 1


def test_two_crowds_from_two_addresses_do_not_take_from_each_other(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, cache_ttl="1h", rate_limit=50)
    requests = [("/api/chat", question("/api/chat"))] * 120
    crowds = [ask_at_once(gateway, requests, source) for source in ("127.0.0.2", "127.0.0.3")]
    for crowd in crowds:
        assert Counter(answer.status for answer in answers_of(crowd)) == {200: 50, 429: 70}


def test_who_comes_again_when_told_to_passes(start_ollama, start_gateway):
    window = 2
    gateway = start_gateway(start_ollama().address, rate_limit=2, rate_window=f"{window}s")
    for _ in range(3):
        begin = time.monotonic()
        assert [post(gateway, "/api/chat", CHAT).status for _ in range(2)] == [200, 200]
        refused = post(gateway, "/api/chat", CHAT)
        told_at = time.monotonic()
        check_refused(refused, "/api/chat", window)
        assert told_at - begin < 1, "too slow a machine for this window"
        wait_out(told_at, int(refused.header("Retry-After")))


def test_refused_requests_do_not_count(start_ollama, start_gateway):
    """Who asks all the time still passes when the window is over."""
    window = 2
    gateway = start_gateway(start_ollama().address, rate_limit=2, rate_window=f"{window}s")
    begin = time.monotonic()
    assert [post(gateway, "/api/chat", CHAT).status for _ in range(2)] == [200, 200]
    wait_until(lambda: post(gateway, "/api/chat", CHAT).status == 200, "the end of the window")
    assert window - 0.5 < time.monotonic() - begin < window + 3


def test_a_refused_upload_leaves_the_connection_in_order(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, rate_limit=1)
    (client,) = assemble(gateway, 1)
    with client:
        big = question("/api/chat", "x" * 100_000)
        for status in (200, 429, 429):
            client.request("POST", "/api/chat", body=big)
            assert client.read_answer().status == status
        client.request("GET", "/health")
        assert client.read_answer().status == 200


def test_the_clients_raise_what_they_raise_when_a_limit_is_reached(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, rate_limit=1)
    assert told(post(gateway, "/api/chat", CHAT)) == "BYPASS"
    with pytest.raises(ollama_client.ResponseError) as raised:
        ollama_client.Client(host=gateway.url).chat(**CHAT)
    assert (raised.value.status_code, raised.value.error) == (429, SENTENCE)
    with pytest.raises(openai.RateLimitError) as raised:
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0).chat.completions.create(**CHAT)
    assert raised.value.body["message"] == SENTENCE
    with pytest.raises(anthropic.RateLimitError) as raised:
        anthropic.Anthropic(base_url=gateway.url, api_key="none", max_retries=0).messages.create(**MESSAGES)
    assert raised.value.body["error"] == {"type": "rate_limit_error", "message": SENTENCE}
