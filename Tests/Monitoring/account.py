"""What clients did, and what they were told: figures that the gateways' own must agree with."""

import copy
import json
from collections import Counter
from dataclasses import dataclass, field, fields

from boxes import NDJSON, SSE
from dialects import events

LISTED = ["llama3.2", "mistral", "nomic-embed-text"]
"""What the simulated boxes have."""


@dataclass
class Account:
    """Of the clients of one gateway, or of several."""

    results: Counter = field(default_factory=Counter)
    """Requests by model and what became of them."""
    uses: Counter = field(default_factory=Counter)
    """Answers by X-Cache."""
    refused: Counter = field(default_factory=Counter)
    """Requests that the gateway refused, by reason."""
    left: Counter = field(default_factory=Counter)
    """Clients that left, by phase."""
    forwarded: int = 0
    """Requests that a box was called for."""
    read: Counter = field(default_factory=Counter)
    generated: Counter = field(default_factory=Counter)
    saved: Counter = field(default_factory=Counter)
    """Tokens by model."""
    timed: Counter = field(default_factory=Counter)
    loaded: Counter = field(default_factory=Counter)
    """Answers of boxes by model that told how long it took to generate them, and to load the model."""

    def __add__(self, other):
        return Account(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def copy(self):
        return copy.deepcopy(self)

    @property
    def requests(self):
        return sum(self.results.values())

    def by_result(self):
        return totals(self.results, 1)

    def by_model(self):
        return totals(self.results, 0)

    def share(self, *results, of=None):
        """Of the requests, or of those with the results `of`, the share with these results."""
        by_result = self.by_result()
        among = sum(count for result, count in by_result.items() if of is None or result in of)
        return sum(by_result[result] for result in results) / among

    # MARK: Noting

    def note(self, path, body, answer, listed=LISTED):
        """Notes a whole answer to a request to a model."""
        model = f"{body['model']}:latest" if body.get("model") in listed else "other"
        use = answer.header("X-Cache")
        if use:
            self.uses[use.lower()] += 1
        self.results[model, result(answer.status, use)] += 1
        if answer.status != 200:
            return
        last = last_part(answer)
        read, generated = tokens(path, last)
        if use in ("HIT", "COALESCED"):
            self.saved[model] += generated
        else:
            self.forwarded += 1
            self.read[model] += read
            self.generated[model] += generated
            self.timed[model] += "eval_duration" in last
            self.loaded[model] += "load_duration" in last

    def note_departure(self, body, phase):
        """Notes a client that left while a box was working for it."""
        self.results[f"{body['model']}:latest", "cancelled"] += 1
        self.left[phase] += 1
        self.forwarded += 1


def totals(counter, part):
    """A counter's sums by one part of its keys."""
    found = Counter()
    for key, count in counter.items():
        found[key[part]] += count
    return found


def result(status, use):
    if status >= 500:
        return "failed"
    if status >= 400:
        return "refused"
    return {"HIT": "hit", "COALESCED": "coalesced"}.get(use, "answered")


def last_part(answer):
    """What an answer says last, and with it how much it was."""
    if answer.content_type == NDJSON:
        return json.loads(answer.lines[-1])
    if answer.content_type == SSE:
        return [json.loads(data) for _, data in events(answer.body) if '"usage":{' in data][-1]
    return answer.json


def tokens(path, last):
    """How many tokens were read and generated, as the last part of an answer tells it."""
    names = ("prompt_eval_count", "eval_count")
    if path.startswith("/v1/"):
        names = ("prompt_tokens", "completion_tokens")
    if path in ("/v1/responses", "/v1/messages"):
        names = ("input_tokens", "output_tokens")
    usage = last.get("usage") or last
    return tuple(usage.get(name) or 0 for name in names)
