"""What the clients of a scene do in one round. Each says what it must be told, and what it was told is noted."""

import itertools

from boxes import SSE
from caching import CACHEABLE, NEVER_KEPT, post, question, told
from crowd import answers_of, ask_one
from talking import STREAMING
from wire import ask, wait_until

SLOW_START = {"first_token_ms": 1000}
SLOW_WORDS = {"interval_ms": 400}
QUICK = {"first_token_ms": 1, "interval_ms": 1}


class Clients:
    def __init__(self, scene, number):
        self.scene = scene
        self.number = number
        """Of the round: clients of different rounds have addresses of their own."""
        self.numbers = itertools.count()

    # MARK: Asking

    def fresh(self, path, **fields):
        """The body of a request that nobody has made before."""
        if path in STREAMING and path.startswith("/v1/"):
            fields = {"stream": False} | fields
        return question(path, f"question {next(self.numbers)} of round {self.number}", **fields)

    def ask(self, gateway, path, body, *fields, status=200, use=None, **options):
        answer = post(gateway, path, body, *fields, **options)
        self.note(gateway, path, body, answer, status, use)
        return answer

    def note(self, gateway, path, body, answer, status=200, use=None):
        assert (answer.status, answer.complete) == (status, True), (path, body, answer)
        if use:
            assert told(answer) == use, (path, body, answer)
        listed = {} if gateway is not self.scene.alone else {"listed": []}
        self.account(gateway).note(path, body, answer, **listed)

    def account(self, gateway):
        return self.scene.accounts[gateway.address]

    def pace(self, **settings):
        for box in self.scene.boxes:
            if box.is_alive:
                box.control(**settings)

    def at_work(self):
        """How many requests the boxes work on, and how many they have given up."""
        counts = [box.counts() for box in self.scene.boxes if box.is_alive]
        return sum(each["running"] for each in counts), sum(each["cancelled"] for each in counts)

    def source(self, client):
        return f"127.0.{self.number}.{client}"

    # MARK: What they do at the main gateway

    def ask_what_is_kept(self):
        """Every endpoint whose answers are kept: once from a box, twice from the cache."""
        main = self.scene.main
        bodies = [(path, self.fresh(path)) for path in CACHEABLE]
        bodies.append(("/api/chat", self.fresh("/api/chat", model="mistral")))
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        bodies.append(("/v1/chat/completions", self.fresh("/v1/chat/completions", **usage)))
        for path, body in bodies:
            answer = self.ask(main, path, body, use="MISS")
            assert "stream_options" not in body or answer.content_type == SSE
            for _ in range(2):
                self.ask(main, path, body, use="HIT")

    def ask_past_the_cache(self):
        main = self.scene.main
        for path in NEVER_KEPT:
            self.ask(main, path, self.fresh(path), use="BYPASS")
        self.ask(main, "/api/chat", self.fresh("/api/chat"), ("Cache-Control", "no-store"), use="BYPASS")

    def ask_anything(self):
        """One new question; true."""
        return self.ask(self.scene.main, "/api/generate", self.fresh("/api/generate"), use="MISS")

    def ask_for_nonsense(self):
        """A model that no box has."""
        main = self.scene.main
        for path in ("/api/chat", "/v1/chat/completions"):
            self.ask(main, path, self.fresh(path, model="nope"), status=404)
            self.account(main).refused["unknown_model"] += 1

    def ask_together(self):
        """Three who ask the same at once: one call."""
        main, path = self.scene.main, "/api/chat"
        self.pace(**SLOW_START)
        body = self.fresh(path)
        clients = [ask_one(main, path, body)]
        main.take_in(clients)
        clients += [ask_one(main, path, body) for _ in range(2)]
        main.take_in(clients)
        answers = answers_of(clients)
        self.pace(**QUICK)
        for answer, use in zip(answers, ["MISS", "COALESCED", "COALESCED"], strict=True):
            self.note(main, path, body, answer, use=use)

    def leave(self):
        """One client that leaves before the answer begins, and one amid it."""
        main, path = self.scene.main, "/api/chat"
        for phase, pace in (("waiting", SLOW_START), ("answering", SLOW_WORDS)):
            self.pace(**pace)
            _, given_up = self.at_work()
            body = self.fresh(path)
            client = ask_one(main, path, body)
            wait_until(lambda: self.at_work()[0] == 1, "a box at work")
            if phase == "answering":
                client.read_head()
                client.read_part()
            client.close()
            wait_until(lambda: self.at_work() == (0, given_up + 1), "the box's giving up")  # noqa: B023
            self.account(main).note_departure(body, phase)
            self.pace(**QUICK)

    def meet_a_box_that_fails(self):
        """A box's own error, which comes through as it is."""
        main = self.scene.main
        self.pace(fault={"kind": "status", "status": 500})
        self.ask(main, "/api/chat", self.fresh("/api/chat"), status=500)
        self.account(main).forwarded += 1
        self.pace(fault=None)

    def look_around(self):
        """What asks no model: answered by the gateway, but for the last two, which go to a box."""
        address = self.scene.main.address
        for path in ("/", "/health", "/ready", "/api/tags", "/api/ps", "/api/version", "/v1/models"):
            assert ask(address, "GET", path).status == 200, path
        assert ask(address, "POST", "/api/show", body={"model": "llama3.2"}).status == 200
        assert ask(address, "GET", "/no/such/path").status == 404

    # MARK: What they do at the others

    def ask_too_often(self):
        """One client asks six times where four are allowed."""
        narrow, path = self.scene.narrow, "/api/generate"
        body = self.fresh(path)
        for number in range(6):
            if number < self.scene.LIMIT:
                self.ask(narrow, path, body, use="HIT" if number else "MISS", source=self.source(1))
            else:
                self.ask(narrow, path, body, status=429, source=self.source(1))
                self.account(narrow).refused["rate_limit"] += 1

    def wait_in_line(self):
        """Four clients where two are served and one may wait: one is turned away, one waits in vain."""
        narrow, path = self.scene.narrow, "/api/chat"
        self.pace(**SLOW_WORDS)
        bodies = [self.fresh(path) for _ in range(4)]
        clients = []
        for number, body in enumerate(bodies):
            clients.append(ask_one(narrow, path, body, source=self.source(10 + number)))
            narrow.take_in(clients[-1:])
        answers = answers_of(clients)
        self.pace(**QUICK)
        for body, answer, status in zip(bodies, answers, [200, 200, 503, 503], strict=True):
            self.note(narrow, path, body, answer, status)
        self.account(narrow).refused.update(["queue_timeout", "queue_full"])

    def find_no_box(self):
        alone = self.scene.alone
        self.ask(alone, "/api/chat", self.fresh("/api/chat"), status=503)
        self.account(alone).refused["no_backend"] += 1
