"""Gateways in front of simulated boxes, a Prometheus that watches, and clients that do a bit of everything.

Two rounds of the same load: a series that begins with its first event has no rate before it moves again.
"""

import contextlib
from collections import Counter

from account import Account
from boxes import ScriptedBox, unused_address
from caching import CACHEABLE, NEVER_KEPT
from clients import Clients
from programs import Gateway, SimulatedOllama
from watching import Prometheus, metrics
from wire import ask, wait_until

WINDOW = {"__range": "5m", "__interval": "15s", "__rate_interval": "16s"}
"""What Grafana would make of the last five minutes, at one scrape a second."""


class Scene:
    """- `main`: three boxes, of which one is killed; it keeps answers, and limits nobody
    - `narrow`: the first two boxes, one request at a time each, one may wait; four requests for each client
    - `alone`: a box that was never there
    """

    LIMIT = 4
    """Requests that `narrow` takes of a client."""

    def __enter__(self):
        self.ends = []
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        self.boxes = [self._program(SimulatedOllama(name=f"box{number}")) for number in (1, 2, 3)]
        *lasting, self.doomed = self.boxes
        self.main = self._program(Gateway(*(box.address for box in self.boxes), cache_ttl="5m", concurrency=4))
        self.narrow = self._program(
            Gateway(
                *(box.address for box in lasting), cache_ttl="5m", concurrency=1, queue_limit=1, queue_timeout="1s",
                rate_limit=Scene.LIMIT,
            )
        )  # fmt: skip
        self.nowhere, keeper = unused_address()
        self.ends.append(keeper.close)
        self.alone = self._program(Gateway(self.nowhere))
        self.gateways = [self.main, self.narrow, self.alone]
        self.witness = ScriptedBox(lambda exchange: exchange.answer(b"a 1\n", content_type="text/plain"))
        self.ends.append(self.witness.close)
        self.prometheus = Prometheus([gateway.address for gateway in self.gateways], self.witness.address)
        self.ends.append(self.prometheus.stop)

    def _program(self, program):
        self.ends.append(lambda: self._end(program))
        return program

    def _end(self, program):
        print(f"--- {program.process.args[0]} said last:", *program.log.splitlines()[-20:], sep="\n")
        was_alive = program.is_alive
        status = program.stop()
        assert program is self.doomed or (was_alive and status == 0), (was_alive, status)

    def __exit__(self, *_):
        errors = []
        for end in reversed(self.ends):
            try:
                end()
            except Exception as error:
                errors.append(error)
        assert not errors, errors

    # MARK: The load

    def play(self):
        """Lets the clients do what they do. `half` and `end` are moments at which all was counted and scraped."""
        self.accounts = {gateway.address: Account() for gateway in self.gateways}
        self.prometheus.caught_up()
        self.round(1)
        self.half = self._all_counted()
        self.first_half = {address: account.copy() for address, account in self.accounts.items()}
        self.kill()
        self.round(2)
        self.drain()
        self.end = self._all_counted()

    def total(self):
        """What the clients of all gateways did and were told."""
        return sum(self.accounts.values(), Account())

    def _all_counted(self):
        """Waits until the gateways have counted what the clients did: the last a moment after its answer."""
        for gateway in self.gateways:
            expected = self.accounts[gateway.address].by_result()
            # If it counts otherwise, the tests will tell in what.
            with contextlib.suppress(AssertionError):
                wait_until(lambda: results(gateway) == expected, "the counting of all", limit=2)  # noqa: B023
        return self.prometheus.caught_up()

    def round(self, number):
        clients = Clients(self, number)
        clients.ask_what_is_kept()
        clients.ask_past_the_cache()
        clients.ask_for_nonsense()
        clients.ask_together()
        clients.leave()
        clients.meet_a_box_that_fails()
        clients.ask_too_often()
        clients.wait_in_line()
        clients.find_no_box()
        clients.look_around()

    def kill(self):
        """Ends a box without a word. Requests find out, and are asked again elsewhere."""
        self.last_words = self.doomed.counts()
        self.doomed.process.kill()
        self.doomed.process.wait()
        clients = Clients(self, 9)
        wait_until(lambda: clients.ask_anything() and self.main.state(self.doomed) == "unhealthy", "the box found dead")

    def drain(self):
        """Takes a box out on purpose, at one of its two gateways."""
        name = self.narrow.backend(self.boxes[1])["name"]
        answer = ask(self.narrow.address, "POST", f"/gateway/backends/{name}/drain")
        assert answer.status == 200, answer
        self.narrow.await_state(self.boxes[1], "drained")

    def _counts(self):
        """What the boxes say that they did, by address."""
        return {box.address: box.counts() if box.is_alive else self.last_words for box in self.boxes}

    def loads(self):
        """How often the boxes loaded a model. The main gateway asked them for all that they have: it was the cause."""
        return {address: told["loads"] for address, told in self._counts().items()}

    def calls(self):
        """What the boxes were asked: requests to models, and what is passed on to any box."""
        wanted = [f"POST {path}" for path in [*CACHEABLE, *NEVER_KEPT, "/api/show"]] + ["GET /no/such/path"]
        return {
            address: sum(told["requests"].get(key, 0) for key in wanted) for address, told in self._counts().items()
        }


def results(gateway):
    """How many requests a gateway has counted by result."""
    found = Counter()
    family = metrics(gateway).get("ollama_gateway_model_requests_total")
    for (_, labels), value in family.samples.items() if family else ():
        found[dict(labels)["result"]] += int(value)
    return found
