"""Clients and boxes count what they do, through thick and thin, and every counter of the gateway agrees with them."""

import itertools
import math
import os
import random
import select
import threading
import time
from collections import Counter

import pytest

from boxes import JSON
from caching import CACHEABLE, NEVER_KEPT, VECTORS, cache_status, missed, post, question, told
from crowd import ask_one
from exposition import scrape
from fleet import PATH, answer_as, cut, fresh, refuse_with
from programs import INFERENCE
from talking import PROMPT_TOKENS, STREAMING, Call
from wire import Connection, ask, wait_until

SEED = int(os.environ.get("COUNTERS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
CLIENTS = 9
RATE_LIMIT = 190
"""Requests to models of each client's address: one of them wants more."""
BOX_SAYS = b"said the box"
MODELS = ["llama3.2", "mistral", "qwen3"]


# MARK: What is counted


class Books:
    """What clients have seen and boxes have done."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests = Counter()
        """By route, status and use of the cache."""
        self.results = Counter()
        """By model and result."""
        self.refused = Counter()
        self.left = Counter()
        self.timed = Counter()
        """Those whose duration counts, by route and use of the cache."""
        self.begun = Counter()
        """Answers of boxes that have begun, by model."""
        self.saved = Counter()
        self.stored = 0
        self.forwarded = 0
        self.prompt = Counter()
        self.completion = Counter()
        self.failures = Counter()
        """By box and reason."""
        self.retried = Counter()
        """Calls at each box that another had seen before."""
        self.seen = set()

    def note(self, path, body, answer, sent="", is_inference=True):
        """An answer to a client. `sent` is what is known of the request beforehand: how a box would fail it."""
        use = use_of(answer)
        with self.lock:
            self.requests[route(path), str(answer.status), use] += 1
            # Who asks whether the gateway is ready is answered, whatever the answer.
            reason = refusal(answer) if path != "/ready" else None
            self.refused[reason] += 1
            if not is_inference:
                return
            # What is over the limit is not read.
            model = "other" if reason == "rate_limit" else label(body)
            self.results[model, result(answer, use)] += 1
            if reason not in BEFOREHAND:
                self.timed[route(path), use] += 1
            if use in ("none", "hit", "stale"):
                return
            has_begun = answer.status == 200 or BOX_SAYS in answer.body or (sent == "broken" and reason is None)
            self.begun[model] += has_begun
            if use != "coalesced":
                # A connection that is lost is a call, too.
                self.forwarded += has_begun or answer.status == 502
                self.stored += use == "miss" and answer.status == 200 and answer.complete

    def note_saved(self, path, body, answer):
        if answer.status == 200 and use_of(answer) in ("hit", "stale", "coalesced"):
            with self.lock:
                self.saved[label(body)] += words_of(path, body)

    def note_departure(self, path, body, phase, use):
        with self.lock:
            self.requests[route(path), "499", use] += 1
            self.results[label(body), "cancelled"] += 1
            self.left[phase] += 1
            self.timed[route(path), use] += 1
            self.begun[label(body)] += phase == "answering"
            self.forwarded += 1

    def note_tokens(self, model, prompt, completion):
        with self.lock:
            self.prompt[f"{model}:latest"] += prompt
            self.completion[f"{model}:latest"] += completion


# Nothing was done for those that were refused so: they say nothing of how long requests take.
BEFOREHAND = {"rate_limit", "malformed", "too_large", "too_slow"}


def use_of(answer):
    word = (answer.header("X-Cache") or "none").lower()
    return "stale" if word == "hit" and cache_status(answer)["ttl"] < 0 else word


def label(body):
    """A model as the metrics name it."""
    model = body.get("model") if isinstance(body, dict) else None
    return f"{model}:latest" if model in [*MODELS, "nomic-embed-text"] else "other"


def route(path):
    path = path.split("?")[0]
    for prefix, name in (("/v1/models/", "/v1/models/{model}"), ("/api/blobs/", "/api/blobs/{digest}")):
        if path.startswith(prefix):
            return name
    known = ["/", "/api/tags", "/api/show", "/api/version", "/api/pull", "/v1/models", "/health", "/ready"]
    return path if path in [*INFERENCE, *known] else "other"


def result(answer, use):
    if refusal(answer) == "not_cached":
        return "refused"
    if answer.status >= 500:
        return "failed"
    if answer.status >= 400:
        return "refused"
    if use in ("hit", "stale"):
        return "hit"
    if not answer.complete:
        return "failed"
    return "coalesced" if use == "coalesced" else "answered"


def refusal(answer):
    """Why the gateway refused a request; None if it did not."""
    if answer.status < 400 or BOX_SAYS in answer.body:
        return None
    if answer.status == 503:
        words = {b"--queue-limit": "queue_full", b"--queue-timeout": "queue_timeout"}
        return next((reason for text, reason in words.items() if text in answer.body), "no_backend")
    reasons = {429: "rate_limit", 413: "too_large", 404: "unknown_model", 403: "forbidden", 408: "too_slow"}
    reasons |= {504: "not_cached", 400: "malformed"}
    return reasons.get(answer.status)


def words_of(path, body):
    """How many tokens the answer to a question has: as many as its number wants."""
    if path in VECTORS:
        return 0
    return 1 + sum(text_of(body).encode()) % 4


def text_of(body):
    if "messages" in body:
        return body["messages"][-1]["content"]
    return body.get("prompt", body.get("input"))


# MARK: The boxes


class Boxes:
    """The script of several boxes. A question that begins with the name of a fault is failed by the first box that
    gets it, or by all: `503`, `504`, `429`, `cut`, `broken`, `500`, `all503`; `hang` is never answered, and `stall`
    not to its end. Calls come on connections of their own: none is taken for the end of an idle one."""

    def __init__(self, books):
        self.books = books
        self.numbers = itertools.count()
        self.tries = Counter()
        self.arrived = set()
        self.received = Counter()
        """Calls by box, and those of them that ask a model."""
        self.inference = Counter()

    def script(self, name):
        return lambda exchange: self.answer(name, exchange)

    def answer(self, name, exchange):
        close_after(exchange)
        asked = exchange.asked
        is_inference = asked.method == "POST" and asked.target in INFERENCE
        with self.books.lock:
            self.received[name] += 1
            self.inference[name] += is_inference
            if is_inference:
                identifier = asked.header("X-Request-Id")
                self.books.retried[name] += identifier in self.books.seen
                self.books.seen.add(identifier)
        if not is_inference:
            return exchange.answer({"ok": True})
        try:
            call = Call(exchange, next(self.numbers))
        except ValueError:
            return refuse_with(400, message="said the box")(exchange)
        self.treat(name, call)

    def treat(self, name, call):
        text = call.question
        fault, _, _ = text.partition(" ")
        with self.books.lock:
            self.tries[text] += 1
            is_first = self.tries[text] == 1
            self.arrived.add(text)
        if fault == "slow":
            time.sleep(0.02)
        if fault == "500":
            return call.refuse(500, "said the box")
        if fault in ("hang", "stall"):
            return self.never_end(call, fault)
        if fault in FAULTS and (is_first or fault.startswith("all")):
            return self.fail(name, call, fault)
        self.speak(call)

    def fail(self, name, call, fault):
        with self.books.lock:
            self.books.failures[name, FAULTS[fault]] += 1
        if fault == "broken":
            call.send(b'{"half')
        if fault in ("cut", "broken"):
            return call.exchange.cut()
        status = int(fault.removeprefix("all"))
        fields = ["Retry-After: 0"] if status == 429 else []
        refuse_with(status, *fields, message="said the box")(call.exchange)

    def never_end(self, call, fault):
        if fault == "stall":
            call.say("first")
        call.attend()

    def speak(self, call):
        if call.path in NEVER_KEPT:
            usage = {"input_tokens": 5, "output_tokens": words_of(call.path, call.body)}
            self.books.note_tokens(call.body["model"], *usage.values())
            return call.exchange.answer({"id": "x", "usage": usage}, content_type=JSON)
        if call.path not in STREAMING:
            self.books.note_tokens(call.body["model"], 8 if call.path != "/api/embeddings" else 0, 0)
        else:
            call.say(*(f"word{number} " for number in range(words_of(call.path, call.body))))
            if call.path.startswith("/api/") or not call.streams or (call.body.get("stream_options")):
                self.books.note_tokens(call.body["model"], PROMPT_TOKENS, len(call.said))
        call.end()


FAULTS = {
    "503": "busy", "all503": "busy", "429": "busy", "504": "status", "cut": "lost", "broken": "lost",
}  # fmt: skip
"""What a fault counts as."""


def close_after(exchange):
    """Has the connection end with the answer, and say so beforehand."""
    head, answer = exchange.head, exchange.answer
    exchange.head = lambda *fields, **rest: head("Connection: close", *fields, **rest)
    exchange.answer = lambda body=b"", *fields, **rest: answer(body, "Connection: close", *fields, **rest)
    exchange.closing = True


# MARK: The clients


class Client(threading.Thread):
    """Asks this and that, as its chance will have it, from an address of its own."""

    def __init__(self, gateway, number, count, books, boxes, stage):
        super().__init__(daemon=True)
        self.gateway, self.count, self.books, self.boxes = gateway, count, books, boxes
        self.source = f"127.0.1.{number + 1}"
        self.name = f"{stage}/{number}"
        self.chance = random.Random(f"{SEED}/{self.name}")
        self.error = None

    def run(self):
        try:
            for turn in range(self.count):
                self.turn(f"{self.name}/{turn}")
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def turn(self, unique):
        kinds = [self.common] * 70 + [self.faulty] * 4 + [self.leave_early, self.leave_amid] * 2
        kinds += [self.refused] * 5 + [self.other] * 5
        self.chance.choice(kinds)(unique)

    def question(self, path, text):
        body = question(path, text)
        if path not in VECTORS:
            body["model"] = self.chance.choice(MODELS)
        if path in STREAMING:
            body["stream"] = self.chance.random() < 0.5
        return body

    def ask(self, path, body, *fields, sent="", saves=True):
        answer = ask(self.gateway.address, "POST", path, fields, body, source=self.source, limit=30)
        self.books.note(path, body, answer, sent)
        if saves:
            self.books.note_saved(path, body, answer)
        return answer

    def common(self, unique):
        """What others ask too, about now or a while ago: a miss, a hit, or in company."""
        chance = self.chance.random()
        stage, _, turn = unique.split("/")
        topic = max(0, int(turn) // 4 - self.chance.choice([0, 0, 0, 0, 1, 2]))
        path = CACHEABLE[topic % len(CACHEABLE)] if chance < 0.95 else self.chance.choice(NEVER_KEPT)
        body = self.question(path, f"{['slow', 'quick'][topic % 2]} {stage} {topic}")
        field = self.chance.choice(["no-cache", "no-store", "max-age=1000", "max-age=1000"])
        self.ask(path, body, *([("Cache-Control", field)] if chance < 0.15 else []))

    def faulty(self, unique):
        """One that a box fails, or all of them."""
        fault = self.chance.choice([*FAULTS, "500"])
        path = self.chance.choice(STREAMING)
        body = self.question(path, f"{fault} {unique}")
        answer = self.ask(path, body, sent=fault)
        if fault in ("503", "504", "429", "cut") and answer.status == 200:
            assert answer.complete

    def leave_early(self, unique):
        """Leaves when a box has the request, before its answer."""
        path = self.chance.choice([*STREAMING, *NEVER_KEPT])
        self.depart(path, self.question(path, f"hang {unique}"), "waiting")

    def leave_amid(self, unique):
        """Leaves after the first word."""
        path = self.chance.choice(STREAMING)
        self.depart(path, self.question(path, f"stall {unique}") | {"stream": True}, "answering")

    def depart(self, path, body, phase):
        with ask_one(self.gateway, path, body, source=self.source, limit=30) as client:
            until = time.monotonic() + 20
            while not select.select([client.plug], [], [], 0.002)[0]:
                if phase == "waiting" and text_of(body) in self.boxes.arrived:
                    return self.books.note_departure(path, body, phase, use_at(path))
                assert time.monotonic() < until, "neither an answer nor a call"
            client.read_head()
            if client.answer.status == 200:
                assert phase == "answering"
                client.read_body(1)
                return self.books.note_departure(path, body, phase, use_at(path))
            self.books.note(path, body, client.read_rest())

    def refused(self, unique):
        """What the gateway does not take."""
        path = self.chance.choice(CACHEABLE)
        body = self.question(path, f"quick {unique}")
        match self.chance.randrange(4):
            case 0:
                self.ask(path, body | {"model": "nope"})
            case 1:
                self.ask(path, body, ("Cache-Control", "only-if-cached"))
            case 2:
                self.ask(path, b'{"model": "llama3.2", "prompt": no JSON', saves=False)
            case 3:
                self.ask(path, b" " * 70_000, saves=False)

    def other(self, unique):
        """What asks no model."""
        method, path, body = self.chance.choice(OTHERS)
        answer = ask(self.gateway.address, method, path.format(unique), (), body, source=self.source)
        assert answer.complete
        self.books.note(path, body, answer, is_inference=False)


def use_at(path):
    """How the cache is used for a question that nobody has asked."""
    return "bypass" if path in NEVER_KEPT else "miss"


OTHERS = [
    ("GET", "/", None),
    ("HEAD", "/", None),
    ("GET", "/health", None),
    ("GET", "/ready", None),
    ("GET", "/api/tags", None),
    ("GET", "/api/version", None),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/llama3.2", None),
    ("POST", "/api/show", {"model": "llama3.2"}),
    ("POST", "/api/pull", {"model": "llama3.2"}),
    ("POST", "/no/such/path/{}", {}),
    ("GET", "/no/such/path/{}?model=llama3.2", None),
]


# MARK: The run


class Run:
    """A gateway that changes no models, three boxes, and what they and the clients count."""

    def __init__(self, start_box, start_gateway):
        self.start_box = start_box
        self.books = Books()
        self.boxes = Boxes(self.books)
        self.running = [self.open(name) for name in "abc"]
        self.gateway = start_gateway(
            *(box.address for box in self.running), cache_ttl="1h", concurrency=1, queue_limit=3, queue_timeout="5s",
            rate_limit=RATE_LIMIT, rate_window="1h", max_body="64KiB", manage="off", body_timeout="1s",
            log_level="notice",
        )  # fmt: skip
        self.names = {self.gateway.backend(box)["name"]: name for name, box in zip("abc", self.running, strict=True)}
        self.before = scrape(self.gateway)

    def open(self, name, port=0):
        return self.start_box(self.boxes.script(name), is_fresh=True, loaded=[*MODELS, "nomic-embed-text"], port=port)

    def stage(self, number, count):
        """So many requests of each client but the first, which wants more than it may have. Looks at the metrics
        meanwhile."""
        books, boxes = self.books, self.boxes
        clients = [
            Client(self.gateway, each, count + (each == 0) * (RATE_LIMIT // 3), books, boxes, f"stage {number}")
            for each in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        earlier = self.before
        while any(client.is_alive() for client in clients):
            earlier = never_less(earlier, scrape(self.gateway))
        for client in clients:
            client.join()
            if client.error:
                raise client.error

    def cure(self):
        """Returns when all boxes are well: those that failed a call have to show it with another."""
        patient = Client(self.gateway, 99, 0, self.books, self.boxes, "cure")

        def are_well():
            states = self.gateway.states()
            if "recovering" in states:
                patient.ask(PATH, fresh())
            return set(states) == {"healthy"}

        wait_until(are_well, "health")

    def rest(self):
        """Waits until nothing happens any more, and returns the metrics."""
        wait_until(lambda: gauges(self.gateway) == AT_REST, "rest")
        wait_until(self.has_counted, f"{sum(self.books.requests.values())} requests", limit=5)
        return scrape(self.gateway)

    def has_counted(self):
        mine = ("/metrics", "/gateway")
        families = scrape(self.gateway)
        counted = families["ollama_gateway_requests_total"].by("route")
        return sum(n for name, n in counted.items() if name not in mine) >= sum(self.books.requests.values())


def never_less(earlier, later):
    """Fails if a counter has gone down. Returns the later."""
    for name, family in earlier.items():
        if family.kind != "gauge":
            for sample, value in family.samples.items():
                assert later[name].samples[sample] >= value, sample
    return later


AT_REST = {"running": 0, "waiting": 0, "queue_depth": 0, "connections": 1}


def gauges(gateway):
    families = scrape(gateway)
    sums = {
        name: sum(families[f"ollama_gateway_backend_{name}"].samples.values()) for name in ("running", "waiting")
    }
    return sums | {name: families[f"ollama_gateway_{name}"].value for name in ("queue_depth", "connections")}


def check(run, families):
    """Fails unless every counter is what clients and boxes have counted."""
    books, boxes = run.books, run.boxes

    def counted(name, *labels, of=""):
        return families[f"ollama_gateway_{name}"].by(*labels, of=of)

    requests = counted("requests_total", "route", "code", "cache")
    assert {key: n for key, n in requests.items() if key[0] not in ("/metrics", "/gateway")} == +books.requests
    assert counted("model_requests_total", "model", "result") == +books.results
    assert set(counted("model_requests_total", "key")) == {"anonymous"}
    assert counted("refused_total", "reason") == Counter({k: n for k, n in books.refused.items() if k and n})
    assert counted("cancelled_total", "phase") == +books.left
    assert counted("request_duration_seconds", "route", "cache", of="_count") == +books.timed
    assert counted("time_to_first_byte_seconds", "model", of="_count") == +books.begun
    assert counted("saved_tokens_total", "model") == +books.saved
    assert counted("prompt_tokens_total", "model") == +books.prompt
    assert counted("completion_tokens_total", "model") == +books.completion
    assert families["ollama_gateway_cache_stores_total"].value == books.stored
    joins = sum(n for (_, _, use), n in books.requests.items() if use == "coalesced")
    assert families["ollama_gateway_single_flight_joins_total"].value == joins
    check_boxes(run, counted)
    check_totals(run, families)


def check_boxes(run, counted):
    """Of each backend."""
    books, boxes = run.books, run.boxes
    named = lambda counter: Counter({run.names[name]: n for name, n in counter.items()})  # noqa: E731
    picks = named(counted("backend_picks_total", "backend"))
    told_of = counted("backend_failures_total", "backend", "reason")
    failures = Counter({(run.names[name], reason): n for (name, reason), n in told_of.items()})
    connects = Counter({name: n for (name, reason), n in failures.items() if reason == "connect"})
    probes = {key for key in failures if key[1] == "probe"}
    assert picks - connects == +boxes.received and sum((picks - connects).values()) == sum(boxes.received.values())
    assert set(connects) | {name for name, _ in probes} <= {"c"}, failures
    others = Counter({key: n for key, n in failures.items() if key[1] not in ("connect", "probe")})
    assert others == +books.failures
    calls = len(books.seen)
    retried = named(counted("backend_retries_total", "backend"))
    # Of a call that was refused its box knows nothing, and so the next knows not that it is not the first.
    assert not books.retried - retried, (retried, books.retried)
    assert sum(retried.values()) == sum(boxes.inference.values()) + sum(connects.values()) - calls
    waits = sum(counted("queue_wait_seconds", of="_count").values())
    assert waits == sum(boxes.inference.values()) + sum(connects.values())


def check_totals(run, families):
    """The five that stand from before."""
    books = run.books
    all_requests = sum(n for (path, _, _), n in books.requests.items() if path in INFERENCE)
    shared = ("hit", "coalesced")
    hits = sum(n for (_, status, use), n in books.requests.items() if use in shared and status == "200")
    assert families["ollama_requests_total"].value == all_requests == sum(books.results.values())
    assert families["ollama_cache_hits_total"].value == hits
    assert families["ollama_cache_misses_total"].value == books.forwarded == len(books.seen)
    assert families["ollama_request_latency_seconds"].count == sum(books.timed.values())
    entries = families["ollama_cache_size"].value
    assert entries == families["ollama_gateway_cache_entries"].value > 0
    gone = sum(families["ollama_gateway_cache_evictions_total"].samples.values())
    assert books.stored == entries + gone


def test_every_counter_is_exact_after_a_random_run_with_all_that_can_go_wrong(start_box, start_gateway, figures):
    print(f"COUNTERS_SEED={SEED}")
    run = Run(start_box, start_gateway)
    run.stage(1, 60)
    check(run, run.rest())
    # One box goes, which nobody suspects, and comes again.
    last = run.running[2]
    run.cure()
    last.close()
    run.stage(2, 40)
    run.open("c", last.port)
    run.gateway.await_state(last, "healthy", "recovering")
    run.stage(3, 60)
    families = run.rest()
    check(run, families)
    books = run.books
    figures(f"{sum(books.requests.values())} random requests, seed {SEED}: {dict(sum_by(books.requests, 2))}")
    # It was worth it.
    assert sum(books.requests.values()) > 1300
    wanted = {"hit", "miss", "coalesced", "bypass", "none"}
    assert wanted <= set(sum_by(books.requests, 2)) and set(books.left) == {"waiting", "answering"}
    assert {"rate_limit", "unknown_model", "too_large", "not_cached", "forbidden", "queue_full"} <= set(books.refused)
    assert families["ollama_gateway_backend_failures_total"].by("reason")["connect"] > 0
    # When all is forgotten, all that was stored has gone.
    purged = ask(run.gateway.address, "DELETE", "/gateway/cache").json["purged"]
    after = scrape(run.gateway)
    evictions = after["ollama_gateway_cache_evictions_total"].by("reason")
    assert evictions["purged"] == purged == families["ollama_cache_size"].value
    assert sum(evictions.values()) == books.stored and after["ollama_cache_size"].value == 0


def sum_by(counter, part):
    found = Counter()
    for key, count in counter.items():
        found[key[part]] += count
    return found


# MARK: The catalogue

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, math.inf]
SPEEDS = [1, 2.5, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, math.inf]
TURNS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, math.inf]
REASONS = [
    "rate_limit", "queue_full", "queue_timeout", "no_backend", "unknown_model", "too_large", "malformed", "too_slow",
    "not_cached", "forbidden", "stopping",
]  # fmt: skip
FAILURES = ["connect", "timeout", "lost", "tls", "resolve", "invalid", "busy", "status", "probe"]
STATES = ["healthy", "unhealthy", "recovering", "drained"]
CATALOGUE = {
    "requests_total": ("counter", ["route", "code", "cache"], None),
    "model_requests_total": ("counter", ["model", "key", "result"], None),
    "refused_total": ("counter", ["reason"], {(reason,) for reason in REASONS}),
    "cancelled_total": ("counter", ["phase"], {("waiting",), ("answering",)}),
    "request_duration_seconds": (SECONDS, ["route", "cache"], None),
    "time_to_first_byte_seconds": (SECONDS, ["model"], None),
    "queue_wait_seconds": (SECONDS, [], {()}),
    "chunk_gap_seconds": (SECONDS, ["backend"], None),
    "backend_first_byte_seconds": (SECONDS, ["backend"], None),
    "model_load_seconds": (SECONDS, ["model"], None),
    "tokens_per_second": (SPEEDS, ["model"], None),
    "prompt_tokens_total": ("counter", ["model", "key"], None),
    "completion_tokens_total": ("counter", ["model", "key"], None),
    "saved_tokens_total": ("counter", ["model"], None),
    "backend_up": ("gauge", ["backend"], {("B",)}),
    "backend_drained": ("gauge", ["backend"], {("B",)}),
    "backend_running": ("gauge", ["backend"], {("B",)}),
    "backend_limit": ("gauge", ["backend"], {("B",)}),
    "backend_waiting": ("gauge", ["backend"], {("B",)}),
    "backend_models": ("gauge", ["backend"], {("B",)}),
    "backend_picks_total": ("counter", ["backend"], {("B",)}),
    "backend_retries_total": ("counter", ["backend"], {("B",)}),
    "backend_loads_total": ("counter", ["backend"], {("B",)}),
    "backend_failures_total": ("counter", ["backend", "reason"], {("B", reason) for reason in FAILURES}),
    "backend_state_changes_total": ("counter", ["backend", "state"], {("B", state) for state in STATES}),
    "backend_model_loaded": ("gauge", ["backend", "model"], None),
    "backend_probe_seconds": ("gauge", ["backend"], {("B",)}),
    "cache_entries": ("gauge", [], {()}),
    "cache_bytes": ("gauge", [], {()}),
    "cache_max_bytes": ("gauge", [], {()}),
    "cache_stores_total": ("counter", [], {()}),
    "cache_evictions_total": ("counter", ["reason"], {("size",), ("expired",), ("purged",), ("replaced",)}),
    "single_flight_joins_total": ("counter", [], {()}),
    "queue_depth": ("gauge", [], {()}),
    "queue_limit": ("gauge", [], {()}),
    "connections": ("gauge", [], {()}),
    "max_connections": ("gauge", [], {()}),
    "event_loop_lag_seconds": (TURNS, [], {()}),
    "spans_exported_total": ("counter", [], {()}),
    "spans_dropped_total": ("counter", [], {()}),
    "build_info": ("gauge", ["version"], None),
}
"""What each is: its kind, or the bounds of its buckets; its labels; and those of its series that are there from the
start, all of them where they are known beforehand, or None."""


def counted(gateway, name, *labels, of=""):
    return scrape(gateway)[f"ollama_gateway_{name}"].by(*labels, of=of)


def series(family, labels):
    """Values of the labels of each series, and fails if there are others."""
    found = set()
    for name, own in family.samples:
        if not name.endswith(("_sum", "_count")) or family.kind != "histogram":
            found.add(tuple(dict(own)[label] for label in labels))
            assert {label for label, _ in own} - {"le"} == set(labels), (name, own)
    return found


def test_all_that_the_catalogue_promises_is_there_from_the_start_and_nothing_else(talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, cache_ttl="1m")
    families = scrape(gateway)
    own = {name for name in families if name.startswith("ollama_gateway_")}
    assert own == {f"ollama_gateway_{name}" for name in CATALOGUE}
    backend = gateway.backend(talking_box)["name"]
    for name, (kind, labels, known) in CATALOGUE.items():
        family = families[f"ollama_gateway_{name}"]
        assert family.kind == ("histogram" if isinstance(kind, list) else kind), name
        if known is not None:
            known = {tuple(backend if value == "B" else value for value in values) for values in known}
            assert series(family, labels) == known, name
        # Its box has been found well, and it was asked how it is.
        if family.kind == "counter" and name != "requests_total":
            assert sum(family.samples.values()) == (name == "backend_state_changes_total"), (name, family.samples)


def test_what_comes_later_has_the_labels_and_buckets_of_the_catalogue(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama().address, cache_ttl="1m")
    body = fresh(stream=True)
    for _ in range(2):
        assert post(gateway, PATH, body).status == 200
    wait_until(lambda: counted(gateway, "backend_model_loaded").total() == 1, "the loaded model")
    families = scrape(gateway)
    for name, (kind, labels, _) in CATALOGUE.items():
        family = families[f"ollama_gateway_{name}"]
        assert series(family, labels), name
        if isinstance(kind, list):
            bounds = {dict(own)["le"] for full, own in family.samples if full.endswith("_bucket")}
            assert sorted(float(bound.replace("+Inf", "inf")) for bound in bounds) == kind, name


# MARK: One thing at a time


def await_counts(gateway, expected, name, *labels, of=""):
    """Waits until a family is this, and fails if it is something else: the last count may come after the answer."""
    wait_until(lambda: counted(gateway, name, *labels, of=of).total() >= sum(expected.values()), f"{name}: {expected}")
    assert counted(gateway, name, *labels, of=of) == Counter(expected)


def test_the_gauges_tell_who_runs_and_who_waits_and_the_counters_how_that_ends(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, concurrency=1, queue_limit=2, queue_timeout="1s")
    runs, leaves, waits = (ask_one(gateway, PATH, fresh()) for _ in range(3))
    gateway.take_in([runs, leaves, waits])
    wait_until(lambda: gauges(gateway) == {"running": 1, "waiting": 2, "queue_depth": 2, "connections": 4}, "a line")
    families = scrape(gateway)
    assert families["ollama_gateway_queue_limit"].value == 2
    assert list(families["ollama_gateway_backend_limit"].samples.values()) == [1]
    assert post(gateway, PATH, fresh()).status == 503
    leaves.close()
    wait_until(lambda: gauges(gateway) == {"running": 1, "waiting": 1, "queue_depth": 1, "connections": 3}, "one less")
    assert waits.read_answer().status == 503
    talk.call().say("x").end()
    assert runs.read_answer().status == 200
    for client in (runs, waits):
        client.close()
    wait_until(lambda: gauges(gateway) == AT_REST, "rest")
    await_counts(gateway, {"queue_full": 1, "queue_timeout": 1}, "refused_total", "reason")
    await_counts(gateway, {"waiting": 1}, "cancelled_total", "phase")
    await_counts(gateway, {"answered": 1, "cancelled": 1, "failed": 2}, "model_requests_total", "result")
    # Of those that had a place in the end.
    assert scrape(gateway)["ollama_gateway_queue_wait_seconds"].count == 1
    assert counted(gateway, "backend_picks_total").total() == len(talking_box.asked) == 1


def test_those_who_leave_are_counted_by_whether_their_answer_had_begun(talk, talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, cache_ttl="1m")
    early, late = (ask_one(gateway, PATH, fresh() | {"stream": True}) for _ in range(2))
    calls = {call.question: call for call in (talk.call(), talk.call())}
    assert len(calls) == 2
    list(calls.values())[1].say("x")
    # Which of them is whose is for the clients to see.
    select.select([early.plug, late.plug], [], [], 10)
    next(client for client in (early, late) if select.select([client.plug], [], [], 0)[0]).read_head()
    for client in (early, late):
        client.close()
    await_counts(gateway, {"waiting": 1, "answering": 1}, "cancelled_total", "phase")
    requests = counted(gateway, "requests_total", "route", "code", "cache")
    assert requests[PATH, "499", "miss"] == 2


def silence(exchange):
    exchange.wait_for_departure()


def nonsense(exchange):
    exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    exchange.cut()


def half(exchange):
    exchange.start_stream()
    exchange.chunk(b'{"half')
    exchange.cut()


@pytest.mark.parametrize(
    "reason, script",
    [
        ("timeout", silence),
        ("lost", cut),
        ("lost", half),
        ("invalid", nonsense),
        ("busy", refuse_with(503)),
        ("busy", refuse_with(429)),
        ("status", refuse_with(502)),
        ("status", refuse_with(504)),
        ("", refuse_with(500)),
        ("", refuse_with(404)),
    ],
)
def test_each_failure_of_a_box_has_its_reason(start_box, start_gateway, reason, script):
    box = start_box(script, is_fresh=True)
    gateway = start_gateway(box.address, first_byte_timeout="300ms", cache_ttl="1m")
    post(gateway, PATH, fresh())
    await_counts(gateway, {reason: 1} if reason else {}, "backend_failures_total", "reason")
    assert counted(gateway, "backend_picks_total").total() == len(box.asked) == 1
    assert counted(gateway, "backend_retries_total").total() == 0


@pytest.mark.parametrize("kind", ["probe", "connect", "resolve", "tls"])
def test_a_box_that_cannot_be_reached_fails_its_probes(start_box, start_gateway, kind):
    box = start_box(is_fresh=True)
    address = {"resolve": "no-such-box.invalid:1", "tls": f"https://{box.address}"}.get(kind, box.address)
    if kind == "probe":
        box.close()
    gateway = start_gateway(address, connect_timeout="500ms")
    if kind == "connect":
        box.close()
        assert post(gateway, PATH, fresh()).status == 502
    failures = wait_until(lambda: counted(gateway, "backend_failures_total", "reason"), "a failure")
    # A probe is a probe, whatever is wrong.
    assert failures[kind if kind == "connect" else "probe"] >= 1
    assert counted(gateway, "backend_state_changes_total", "state")["unhealthy"] == 1
    assert sum(scrape(gateway)["ollama_gateway_backend_up"].samples.values()) == 0
    if kind != "connect":
        assert post(gateway, PATH, fresh()).status == 503
        await_counts(gateway, {"no_backend": 1}, "refused_total", "reason")


def test_what_http_does_not_allow_and_what_comes_too_slowly_is_refused_by_name(box, start_gateway):
    gateway = start_gateway(box.address, max_body="1KiB", body_timeout="1s", header_timeout="1s")
    heads = [
        (400, b"POST /api/chat HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}"),
        (400, b"GET /api/tags HTTP/1.1\r\n\r\n"),
        (501, b"POST /api/chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (413, b"POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n"),
        (408, b"POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"),
    ]
    for status, head in heads:
        with Connection(gateway.address) as client:
            client.send(head)
            assert client.read_head().status == status
    await_counts(gateway, {"malformed": 3, "too_large": 1, "too_slow": 1}, "refused_total", "reason")
    statuses = counted(gateway, "requests_total", "route", "code")
    assert {code for route, code in statuses if route == "/api/chat"} == {"400", "501", "413", "408"}
    families = scrape(gateway)
    assert families["ollama_requests_total"].value == 4
    assert families["ollama_gateway_model_requests_total"].by("model", "result") == {
        ("other", "refused"): 3,
        ("other", "failed"): 1,
    }
    assert box.asked == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT"])
def test_a_request_to_a_model_is_one_everywhere_or_nowhere(box, start_gateway, method):
    gateway = start_gateway(box.address)
    post(gateway, "/api/chat", question("/api/chat", stream=False))
    assert ask(gateway.address, method, "/api/chat").complete
    wait_until(lambda: counted(gateway, "requests_total", "route")["/api/chat"] == 2, "two requests")
    families = scrape(gateway)
    assert families["ollama_requests_total"].value == 1
    assert families["ollama_gateway_model_requests_total"].by().total() == 1
    assert families["ollama_request_latency_seconds"].count == 1


def test_an_answer_past_its_time_is_stale(start_box, start_gateway):
    box = start_box(answer_as("kept"), is_fresh=True)
    gateway = start_gateway(box.address, cache_ttl="1s", stale_if_error="1h")
    body = fresh()
    missed(gateway, PATH, body)
    box.close()

    def is_stale():
        answer = post(gateway, PATH, body)
        return told(answer) == "HIT" and cache_status(answer)["ttl"] < 0

    wait_until(is_stale, "the end of its time")
    requests = counted(gateway, "requests_total", "code", "cache")
    assert requests["200", "stale"] == 1 and requests["200", "miss"] == 1
    families = scrape(gateway)
    assert families["ollama_cache_hits_total"].value == requests["200", "hit"] + 1
    results = families["ollama_gateway_model_requests_total"].by("result")
    assert results == {"answered": 1, "hit": requests["200", "hit"] + 1}


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("DELETE", "/api/delete", {"model": "mistral"}),
        ("POST", "/api/copy", {"source": "mistral", "destination": "other"}),
        ("POST", "/api/pull", {"model": "mistral", "stream": False}),
        ("POST", PATH, {"model": "mistral", "keep_alive": 0}),
    ],
)
def test_what_goes_to_all_boxes_is_a_call_to_each(start_box, start_gateway, method, path, body):
    boxes = [start_box(lambda exchange: exchange.answer({"status": "success"}), loaded=["mistral"]) for _ in range(2)]
    gateway = start_gateway(*(box.address for box in boxes))
    assert ask(gateway.address, method, path, body=body).status == 200
    picks = counted(gateway, "backend_picks_total", "backend")
    assert sorted(picks.values()) == [len(box.asked) for box in boxes] == [1, 1]
    assert counted(gateway, "backend_retries_total").total() == 0


def test_the_models_of_a_box_and_what_it_loads_are_told(start_ollama, start_gateway):
    ollama = start_ollama(models="llama3.2,mistral", load_time="50ms")
    gateway = start_gateway(ollama.address)
    assert counted(gateway, "backend_models").total() == 2
    assert counted(gateway, "backend_model_loaded").total() == 0
    for _ in range(3):
        assert post(gateway, PATH, fresh()).status == 200
    backend = gateway.backend(ollama)["name"]
    await_counts(gateway, {(backend, "llama3.2:latest"): 1}, "backend_model_loaded", "backend", "model")
    assert counted(gateway, "backend_loads_total", "backend") == {backend: 1}
    assert counted(gateway, "model_load_seconds", "model", of="_count") == {"llama3.2:latest": 3}
    seconds = counted(gateway, "model_load_seconds", of="_sum").total()
    assert 0.05 <= seconds < 1
    assert counted(gateway, "tokens_per_second", "model", of="_count") == {"llama3.2:latest": 3}
    assert counted(gateway, "chunk_gap_seconds", "backend", of="_count").total() == 0
    assert post(gateway, PATH, fresh() | {"stream": True}).status == 200
    assert 0 < counted(gateway, "chunk_gap_seconds", "backend", of="_count")[backend] <= 9


def test_a_box_that_is_taken_out_by_hand_is_drained_and_not_up(box, start_box, start_gateway):
    gateway = start_gateway(box.address, start_box().address)
    name = gateway.backend(box)["name"]

    def told_of():
        return [counted(gateway, f"backend_{each}", "backend")[name] for each in ("up", "drained")]

    assert told_of() == [1, 0]
    assert ask(gateway.address, "POST", f"/gateway/backends/{name}/drain").status == 200
    assert told_of() == [0, 1]
    assert counted(gateway, "backend_state_changes_total", "backend", "state")[name, "drained"] == 1
    assert ask(gateway.address, "POST", f"/gateway/backends/{name}/resume").status == 200
    assert told_of() == [1, 0]


def test_without_a_line_a_model_that_no_box_has_is_still_not_found(talking_box, start_gateway):
    gateway = start_gateway(talking_box.address, queue_limit=0)
    for _ in range(3):
        assert post(gateway, PATH, fresh() | {"model": "nope"}).status == 404
    await_counts(gateway, {"unknown_model": 3}, "refused_total", "reason")
