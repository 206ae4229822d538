"""Under steady load, boxes die, hang, refuse and come back, in any order: no client notices what could be hidden."""

import itertools
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field

from caching import gist, is_whole, post, question
from dialects import check_error
from fleet import retries
from talking import STREAMING
from wire import Answer, Connection, Ended, wait_until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "40"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
CLIENTS = 5
TOKENS = 8
SEEN = 3.0
"""Seconds for a change to show in the status: an interval, a time-out, and the jitter; a shared machine on top."""
ENOUGH = 5
"""Requests that a box has to get to be said to be in service again."""


# MARK: Those who ask


@dataclass
class Asked:
    """A request and what came of it."""

    path: str
    body: dict
    begin: float
    end: float = 0
    answer: Answer | None = None
    error: str = ""

    @property
    def is_served(self):
        return self.answer is not None and is_whole(self.path, self.answer)

    @property
    def has_begun(self):
        """Whether the client had seen of the answer what cannot be taken back."""
        return self.answer is not None and self.answer.status == 200 and self.body["stream"]

    def __str__(self):
        status = self.answer and (self.answer.status, self.answer.complete, self.answer.body[-200:])
        return f"{self.path} at {self.begin:.2f} for {self.end - self.begin:.2f} s: {status} {self.error}"


class Client(threading.Thread):
    """Asks one question after the other, on a connection that it keeps as long as it can."""

    def __init__(self, gateway, number, chance):
        super().__init__(daemon=True)
        self.gateway, self.number, self.chance = gateway, number, chance
        self.over = threading.Event()
        self.asked = []
        self.connection = None

    def run(self):
        for turn in itertools.count():
            if self.over.is_set():
                break
            path = self.chance.choice(STREAMING)
            body = question(path, f"question {turn} of {self.number}") | {"stream": self.chance.random() < 0.5}
            self.ask(Asked(path, body, time.monotonic()))
            if not self.asked[-1].is_served:
                # As people do: else those who find no box would be nearly all.
                self.over.wait(0.1)
        if self.connection:
            self.connection.close()

    def ask(self, asked):
        self.asked.append(asked)
        try:
            self.connection = self.connection or Connection(self.gateway.address, limit=30)
            self.connection.request("POST", asked.path, body=asked.body)
            self.connection.read_head()
            asked.answer = self.connection.answer
            self.connection.read_rest()
        except (Ended, OSError) as error:
            asked.error = repr(error)
        asked.end = time.monotonic()
        if asked.error or not asked.answer.complete:
            self.connection.close()
            self.connection = None


# MARK: Those who are asked


@dataclass
class Patient:
    """A box, what ails it, and when it was well."""

    program: object
    ailment: str = ""
    wells: list = field(default_factory=list)
    """Beginnings and ends, as far as the gateway could know."""
    finished: int = 0
    """Answers that were finished by processes that are no more."""

    @property
    def address(self):
        return self.program.address

    def fall_ill(self, ailment):
        self.wells[-1][1] = time.monotonic()
        self.ailment = ailment
        match ailment:
            case "killed":
                self.finished += self.program.counts()["finished"]
                self.program.process.kill()
                self.program.wait()
                self.program.process.returncode = 0  # It was meant to.
            case "stopped":
                self.program.signal(signal.SIGSTOP)
            case "refusing":
                self.program.control(fault={"kind": "status", "status": 503})

    def recover(self, start):
        match self.ailment:
            case "killed":
                self.program = start(port=self.address.rsplit(":", 1)[1])
            case "stopped":
                self.program.signal(signal.SIGCONT)
            case "refusing":
                self.program.control(fault=None)
        self.ailment = ""

    def is_well(self):
        self.wells.append([time.monotonic(), float("inf")])

    def was_well(self, begin, end):
        return any(start <= begin and end <= stop for start, stop in self.wells)


class Chaos:
    """Boxes, the gateway in front of them, and what is done to them."""

    def __init__(self, start_ollama, start_gateway):
        self.start = lambda **settings: start_ollama(tokens=TOKENS, first_token="30ms", interval="2ms", **settings)
        self.boxes = [Patient(self.start()) for _ in range(3)]
        self.gateway = start_gateway(
            *(box.address for box in self.boxes), health_interval="1s", idle_timeout="3s", cache_ttl="1m",
            log_level="notice" if SECONDS > 60 else "info",
        )  # fmt: skip
        for box in self.boxes:
            box.is_well()
        self.delays = {}
        self.events = []

    def await_states(self, box, what, *states):
        """Waits until the status shows one of the states, and keeps how long that took."""
        begin = time.monotonic()
        self.gateway.await_state(box, *states, limit=SEEN)
        self.delays.setdefault(what, []).append(time.monotonic() - begin)

    def strike(self, box, ailment):
        self.events.append(f"{time.monotonic():.2f} {box.address} {ailment}")
        box.fall_ill(ailment)
        self.await_states(box, ailment, "unhealthy")

    def heal(self, box):
        ailment = box.ailment
        box.recover(self.start)
        self.events.append(f"{time.monotonic():.2f} {box.address} no longer {ailment}")
        before = box.program.calls()
        self.await_states(box, f"no longer {ailment}", "healthy", "recovering")
        box.is_well()
        wait_until(lambda: box.program.calls() >= before + ENOUGH, f"the share of {box.address}", limit=SEEN)

    def step(self, chance):
        """One more box falls ill, or one that was recovers; it is seldom that none is well."""
        box = chance.choice(self.boxes)
        ill = [each for each in self.boxes if each.ailment]
        if len(ill) == 2 and chance.random() < 0.7:
            box = chance.choice(ill)
        if box.ailment:
            self.heal(box)
        else:
            self.strike(box, chance.choice(["killed", "stopped", "refusing"]))


def test_no_request_fails_that_a_box_could_have_served(start_ollama, start_gateway, figures):
    print(f"CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:.0f}")
    chance = random.Random(SEED)
    chaos = Chaos(start_ollama, start_gateway)
    clients = [Client(chaos.gateway, number, random.Random(f"{SEED}/{number}")) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            # Steady for a while: shorter, and nothing would ever have run undisturbed.
            time.sleep(chance.uniform(0.1, 1.5))
            chaos.step(chance)
        for box in chaos.boxes:
            if box.ailment:
                chaos.heal(box)
    finally:
        for client in clients:
            client.over.set()
        for box in chaos.boxes:
            if box.ailment == "stopped":
                box.program.signal(signal.SIGCONT)
        for client in clients:
            client.join(30)
        print(*chaos.events, sep="\n")
    asked = [each for client in clients for each in client.asked]
    check_all_served(asked, chaos)
    check_answers(asked, start_ollama)
    check_the_end(chaos, asked, figures)


def check_all_served(asked, chaos):
    """Fails unless all were served, but for streams that had begun and for times without a box."""
    for each in asked:
        if each.is_served or not any(box.was_well(each.begin, each.end) for box in chaos.boxes):
            continue
        struck = any(each.begin <= stop <= each.end for box in chaos.boxes for _, stop in box.wells)
        assert each.has_begun and struck, str(each)
    for each in asked:
        if not each.is_served and each.answer and each.answer.status != 200:
            check_error(each.answer, each.path, 502, 503, 504)


def check_answers(asked, start_ollama):
    """Fails unless each answer belongs to its question: as a box says that is asked directly."""
    box = start_ollama(tokens=TOKENS, first_token=0, interval=0)
    with Connection(box.address) as connection:
        for each in asked:
            if each.is_served:
                connection.request("POST", each.path, body=each.body | {"stream": False})
                direct = connection.read_answer()
                assert gist(each.path, each.answer)["text"] == gist(each.path, direct)["text"], str(each)


def check_the_end(chaos, asked, figures):
    gateway = chaos.gateway
    served = sum(each.is_served for each in asked)
    finished = sum(box.finished + box.program.counts()["finished"] for box in chaos.boxes)
    broken = sum(each.has_begun and not each.is_served for each in asked)
    slowest = max(each.end - each.begin for each in asked if each.is_served)
    seen = {what: f"{max(delays):.2f}" for what, delays in sorted(chaos.delays.items())}
    figures(
        f"chaos, seed {SEED}, {SECONDS:.0f} s: {len(asked)} requests, {len(chaos.events)} changes, {served} served,"
        f" {broken} streams broke off, {len(asked) - served - broken} found no box well,"
        f" {retries(gateway):.0f} retries, {finished} answers finished by boxes, the slowest after {slowest:.2f} s;"
        f" changes were seen after at most {seen} s"
    )
    # What a box did beyond that, it did for requests that went to another as well.
    assert finished <= served + broken + retries(gateway)
    assert served > len(asked) / 2
    # When all is over, nothing is left of it.
    wait_until(lambda: set(gateway.states()) == {"healthy"}, "health")
    status = gateway.status()
    assert [backend["running"] for backend in status["backends"]] == [0, 0, 0]
    assert status["queue"]["waiting"] == 0
    before = [box.program.calls() for box in chaos.boxes]
    for number in range(30):
        assert post(gateway, "/api/chat", question("/api/chat", f"after all {number}")).status == 200
    assert [box.program.calls() - count for box, count in zip(chaos.boxes, before, strict=True)] == [10, 10, 10]
