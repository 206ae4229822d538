"""After 100,000 requests of all kinds the gateway holds what it held after 1,000."""

import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from boxes import unused_address
from endpoints import CHAT, GENERATE
from wire import Connection, Ended, request_bytes, settled, wait_until

CLIENTS = 8
WARM_UP = 1_000
IN_ALL = 100_000
KIB = 1024


# MARK: The kinds of requests


class Client:
    """One of the clients that ask all at once; keeps its connection where HTTP lets it."""

    def __init__(self, address, seed):
        self.address = address
        self.chance = random.Random(seed)
        self.connection = None
        self.done = Counter()

    def fresh(self):
        if self.connection:
            self.connection.close()
        self.connection = Connection(self.address, limit=20)
        return self.connection

    def whole(self, method, target, fields=(), body=None):
        """A request whose answer is read to its end."""
        connection = self.connection or self.fresh()
        try:
            connection.request(method, target, fields, body)
            answer = connection.read_answer(method)
        except (Ended, ConnectionError):
            # A kept connection may have been ended just then; a new one may not.
            connection = self.fresh()
            connection.request(method, target, fields, body)
            answer = connection.read_answer(method)
        if not answer.complete or (answer.header("Connection") or "").lower() == "close":
            connection.close()
            self.connection = None
        return answer

    def leave(self, target, amid_stream):
        """A client that leaves amid the stream, or before the header."""
        connection = Connection(self.address, limit=20)
        connection.request("POST", target, body=b"{}")
        if not amid_stream:
            # Some leave before the gateway has seen the request, some when the box has it.
            if self.chance.random() < 0.5:
                connection.plug.settimeout(0.002)
                try:
                    connection.inlet.fill()
                except TimeoutError:
                    pass
        else:
            if connection.read_head().status == 200:
                connection.read_part()
        connection.reset() if self.chance.random() < 0.5 else connection.close()

    def half(self, data):
        """A client that sends something and leaves."""
        connection = Connection(self.address, limit=20)
        connection.send(data)
        connection.close()

    def bad(self, data):
        """A client that sends what must be refused."""
        with Connection(self.address, limit=20) as connection:
            connection.send(data)
            assert connection.has_ended(20)

    def run(self, kinds):
        for kind in kinds:
            KINDS[kind][1](self)
            self.done[kind] += 1
        if self.connection:
            self.connection.close()
            self.connection = None

    def choose(self, count):
        """So many kinds, as they come: those that the box is taken out of service for are not among them."""
        kinds = [kind for kind in KINDS if kind not in ROUGH]
        return self.chance.choices(kinds, [KINDS[kind][0] for kind in kinds], k=count)


def chunked(client):
    return client.whole("POST", "/x/api/ok", [("Transfer-Encoding", "chunked")], b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


KINDS = {
    # name: (share, what to do)
    "health": (8, lambda c: c.whole("GET", "/health")),
    "get": (16, lambda c: c.whole("GET", "/x/api/ok")),
    "post": (16, lambda c: c.whole("POST", "/x/api/ok", body=b'{"model":"m"}')),
    "chat": (4, lambda c: c.whole("POST", "/api/chat", body=CHAT)),
    "generate": (2, lambda c: c.whole("POST", "/api/generate", body=GENERATE)),
    "cut completion": (2, lambda c: c.whole("POST", "/v1/completions", body=GENERATE | {"stream": True})),
    "tags": (2, lambda c: c.whole("GET", "/api/tags")),
    "head": (3, lambda c: c.whole("HEAD", "/x/api/ok")),
    "stream": (16, lambda c: c.whole("POST", "/x/api/stream", body=b"{}")),
    "long stream": (2, lambda c: c.whole("POST", "/x/v1/long", body=b"{}")),
    "big answer": (1, lambda c: c.whole("GET", "/x/api/big")),
    "big body": (1, lambda c: c.whole("POST", "/x/api/ok", body=bytes(100_000))),
    "blob": (2, lambda c: c.whole("POST", "/api/blobs/ok", body=bytes(20_000))),
    "chunked body": (3, chunked),
    "expect": (1, lambda c: c.whole("POST", "/x/api/ok", [("Expect", "100-continue")], b"{}")),
    "error": (3, lambda c: c.whole("POST", "/v1/messages/error", body=b"{}")),
    "cut": (4, lambda c: c.whole("POST", "/x/api/cut", body=b"{}")),
    "cut event": (2, lambda c: c.whole("POST", "/v1/messages/cut", body=b"{}")),
    "short": (2, lambda c: c.whole("GET", "/x/api/short")),
    "refuse": (2, lambda c: c.whole("POST", "/x/api/refuse", body=b"{}")),
    "nonsense": (1, lambda c: c.whole("POST", "/v1/x/nonsense", body=b"{}")),
    "close": (2, lambda c: c.whole("GET", "/x/api/close")),
    "too large": (1, lambda c: c.whole("POST", "/x/api/ok", body=bytes(200_001))),
    "leave before the header": (3, lambda c: c.leave("/x/api/hang", amid_stream=False)),
    "leave amid silence": (3, lambda c: c.leave("/x/api/stall", amid_stream=True)),
    "leave amid a flood": (1, lambda c: c.leave("/x/api/endless", amid_stream=True)),
    "leave amid the header": (1, lambda c: c.half(b"POST /x/api/ok HTTP/1.1\r\nHost: x\r\nConte")),
    "leave amid the body": (1, lambda c: c.half(request_bytes("POST", "/x/api/ok", body=b"x" * 99)[:-9])),
    "leave amid a blob": (1, lambda c: c.half(request_bytes("POST", "/api/blobs/ok", body=b"x" * 9999)[:-9])),
    "connect and leave": (1, lambda c: c.half(b"")),
    "bad line": (1, lambda c: c.bad(b"GARBAGE\r\n\r\n")),
    "bad length": (1, lambda c: c.bad(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n")),
    "bad chunk": (1, lambda c: c.bad(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")),
}


ROUGH = ["error", "refuse", "nonsense"]
"""After one of these a box has to be found well before it is asked again: each is asked by all clients at once."""


def ask_all(gateway, count, seed):
    """Asks some `count` times from several clients at once; says how often each kind was asked."""
    clients = [Client(gateway.address, f"{seed}/{number}") for number in range(CLIENTS)]
    errors = []

    def work(client, kinds):
        try:
            client.run(kinds)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    def run(choose):
        wait_until(lambda: gateway.states()[0] in ("healthy", "recovering"), "the box's recovery")
        threads = [threading.Thread(target=work, args=(client, choose(client))) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    run(lambda client: client.choose(count // CLIENTS))
    for kind in ROUGH:
        run(lambda client: [kind])  # noqa: B023
    return sum((client.done for client in clients), Counter())


@pytest.fixture
def misbehaving_box():
    """The address of a box of every fault, in a process of its own for the sake of speed."""
    words = [sys.executable, Path(__file__).with_name("misbehaving_box.py")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.communicate("")


def open_descriptors(gateway, backends):
    """The gateway's open descriptors by what they are. Connections kept for the next call to a box count apart:
    how many there are is a matter of how many calls ran at once."""
    ports = {int(address.rsplit(":", 1)[1]) for address in backends}
    remote = {}
    for line in Path(f"/proc/{gateway.pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        remote[words[9]] = int(words[2].split(":")[1], 16)
    found = Counter()
    for link in Path(f"/proc/{gateway.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        inode = target.removeprefix("socket:[").rstrip("]")
        if target.startswith("socket:") and remote.get(inode) in ports:
            found["kept for boxes"] += 1
        else:
            found[re.sub(r"\[\d+\]", "", target)] += 1
    return found


def test_nothing_is_left_behind_by_a_hundred_thousand_requests(misbehaving_box, start_ollama, start_gateway, figures):
    ollama = start_ollama(
        tokens=3, first_token=0, interval=0, parallel=64, fault='{"kind":"cut","after":1,"path":"/v1/completions"}'
    )
    dead, keeper = unused_address()
    backends = [misbehaving_box, ollama.address, dead]
    gateway = start_gateway(*backends, max_body=200_000, log_level="notice", health_interval="1s")
    begin = time.monotonic()

    def measure():
        held = settled(lambda: open_descriptors(gateway, backends))
        return held, gateway.memory()

    with keeper:
        kinds = ask_all(gateway, WARM_UP, seed=0)
        assert set(kinds) == set(KINDS), "a kind was not asked for"
        (held, memory), samples = measure(), []
        for part in range(1, 5):
            kinds += ask_all(gateway, (IN_ALL - WARM_UP) // 4, seed=part)
            samples.append(measure())
    assert sum(kinds.values()) >= IN_ALL - WARM_UP % CLIENTS - 4 * CLIENTS

    growth = [(after - memory) // KIB for _, after in samples]
    figures(
        f"{sum(kinds.values())} requests of {len(kinds)} kinds in {time.monotonic() - begin:.0f} s;"
        f" descriptors after {WARM_UP}: {dict(held)}, in the end: {dict(samples[-1][0])};"
        f" memory after {WARM_UP}: {memory // KIB} KiB, then in quarters {growth} KiB more"
    )
    pooled = {"kept for boxes": 0}
    assert samples[-1][0] | pooled == held | pooled
    assert samples[-1][0]["kept for boxes"] <= 4 * CLIENTS
    # Some 40 bytes a request would be more.
    assert growth[-1] < 4 * KIB
    assert gateway.is_healthy()
