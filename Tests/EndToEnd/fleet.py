"""Several boxes behind one gateway: boxes that sign what they say, and who of them answers how often."""

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from boxes import NDJSON
from caching import post, question
from exposition import scrape
from talking import STREAMING, compact
from wire import ask

PATH = "/api/generate"
WHOLE = {"stream": False}
numbers = itertools.count()


def answer_as(name):
    """A script: a whole answer of /api/generate that says `name` and nothing else."""
    return lambda exchange: exchange.answer(signed(name))


def signed(name):
    return {"model": "llama3.2", "response": name, "done": True, "done_reason": "stop"}


def stream_as(name, before=None):
    """A script: a streamed answer of two words, of which the first is `name`; `before()` runs between the two."""

    def script(exchange):
        exchange.start_stream(NDJSON)
        exchange.chunk(compact({"response": name, "done": False}) + b"\n")
        if before:
            before()
        exchange.chunk(compact(signed("")) + b"\n")
        exchange.end_stream()

    return script


def refuse_with(status, *fields, message="said the box"):
    """A script: an error in the words of the API."""
    return lambda exchange: exchange.answer({"error": message}, *fields, status=f"{status} Refused")


def cut(exchange):
    """A script: the end of the connection instead of an answer."""
    exchange.cut()


def reset(exchange):
    """A script: a reset instead of an answer."""
    exchange.cut(reset=True)


def hang(exchange):
    """A script: no answer at all."""
    exchange.wait_for_departure(limit=60)


def once(script, then):
    """A script that does one thing the first time and another from then on."""
    lock, left = threading.Lock(), [script]

    def choose(exchange):
        with lock:
            chosen = left.pop() if left else then
        chosen(exchange)

    return choose


def fresh(path=PATH, **fields):
    """The body of a request that nobody has made before."""
    fields = (WHOLE if path in STREAMING else {}) | fields
    return question(path, f"question {next(numbers)}") | fields


def who_answers(gateway, path=PATH, **fields):
    """What the box said that answered a new question: boxes that sign say their names."""
    answer = post(gateway, path, fresh(path, **fields))
    assert (answer.status, answer.complete) == (200, True), (answer.status, answer.body)
    return answer.json["response"]


def shares(gateway, count, at_once=1, **fields):
    """How many of so many new questions were answered by whom."""
    with ThreadPoolExecutor(at_once) as pool:
        return Counter(pool.map(lambda _: who_answers(gateway, **fields), range(count)))


def asked(boxes):
    """How many requests each of the boxes got."""
    return [len(box.asked) for box in boxes]


def changes(gateway, box, state):
    """How often the metrics say that a box went into a state."""
    return labelled(gateway, "ollama_gateway_backend_state_changes_total", box, state=state)


def is_up(gateway, box):
    """What the metrics say of a box: 1 or 0."""
    return labelled(gateway, "ollama_gateway_backend_up", box)


def labelled(gateway, name, box, **labels):
    """A sample of a family with these labels and the box's name; 0 where there is none."""
    labels |= {"backend": gateway.backend(box)["name"]}
    family = scrape(gateway).get(name)
    return family.samples.get((name, tuple(sorted(labels.items()))), 0) if family else 0


def retries(gateway):
    return sum(scrape(gateway)["ollama_gateway_backend_retries_total"].samples.values())


def ready(gateway):
    """The status of GET /ready."""
    return ask(gateway.address, "GET", "/ready").status
