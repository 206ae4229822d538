"""When a client leaves, its call to the box ends; when it stalls, the box is slowed; memory stays flat."""

import hashlib
import itertools
import queue
import socket
import threading
import time

import ollama as ollama_client
import pytest

from boxes import plain
from endpoints import CHAT, GENERATE
from wire import Connection, Ended, ask, request_bytes, settled, wait_until

MIB = 1 << 20
AIM = 0.1
LOOSE = 2.0
"""Seconds: the aim is AIM, but a shared machine is only judged by this."""
BLOB = "/api/blobs/sha256-" + "0" * 64


class Departures:
    """A script's means to tell when the gateway ended the call."""

    def __init__(self):
        self.reached = threading.Event()
        self.times = queue.Queue()

    def wait(self, exchange):
        self.reached.set()
        self.times.put(exchange.wait_for_departure())

    def after(self, moment):
        left = self.times.get(timeout=15)
        assert left is not None, "the box was not told"
        return left - moment


# MARK: Clients that leave


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_call_to_the_box_ends_when_a_client_leaves_before_the_first_byte(box, gateway, figures, method, how):
    departures = Departures()
    box.script = departures.wait
    client = Connection(gateway.address)
    client.request(method, "/api/chat", body={} if method == "POST" else None)
    assert departures.reached.wait(5)
    moment = time.monotonic()
    getattr(client, how)()
    seconds = departures.after(moment)
    figures(f"{method}, {how} before the first byte: the call ended after {seconds * 1e3:.1f} ms (aim < 100)")
    assert seconds < LOOSE
    assert gateway.is_healthy()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("then", ["silence", "more chunks"])
def test_the_call_to_the_box_ends_when_a_client_leaves_amid_the_stream(box, gateway, figures, how, then):
    left = queue.Queue()

    def script(exchange):
        exchange.start_stream()
        exchange.chunk(b'{"n":0}\n')
        if then == "silence":
            left.put(exchange.wait_for_departure())
            return
        try:
            while True:
                exchange.chunk(b'{"n":1}\n')
                time.sleep(0.005)
        except OSError:
            left.put(time.monotonic())
            raise

    box.script = script
    client = Connection(gateway.address)
    client.request("POST", "/api/chat", body={})
    client.read_head()
    client.read_body(8)
    moment = time.monotonic()
    getattr(client, how)()
    seconds = left.get(timeout=15) - moment
    figures(f"{how} amid the stream, then {then}: the call ended after {seconds * 1e3:.1f} ms (aim < 100)")
    assert seconds < LOOSE
    assert gateway.is_healthy()


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("path", [BLOB, "/api/chat"])
def test_an_upload_that_its_client_breaks_off_does_not_look_whole_to_the_box(start_box, start_gateway, framing, path):
    outcomes = queue.Queue()

    def script(exchange):
        try:
            for _ in exchange.body_parts():
                outcomes.put("part")
            outcomes.put("whole")
        except (Ended, OSError):
            outcomes.put("broken off")
            raise

    gateway = start_gateway(start_box(script, reads_bodies=False).address)
    client = Connection(gateway.address)
    fields = [("Transfer-Encoding", "chunked")] if framing == "chunked" else [("Content-Length", "1000000")]
    client.request("POST", path, fields)
    client.send(b"64\r\n%s\r\n" % (b"x" * 100) if framing == "chunked" else b"x" * 100)
    if path == BLOB:
        assert outcomes.get(timeout=10) == "part"
    client.close()
    if path == BLOB:
        while (outcome := outcomes.get(timeout=10)) == "part":
            pass
        assert outcome == "broken off"
    assert gateway.is_healthy()
    assert "whole" not in outcomes.queue


def test_a_simulated_box_counts_clients_that_left(start_ollama, start_gateway):
    ollama = start_ollama(tokens=1000, interval="10ms", parallel=2)
    gateway = start_gateway(ollama.address)
    clients = [Connection(gateway.address) for _ in range(5)]
    for client in clients:
        client.request("POST", "/api/chat", body=CHAT)
    # Two run, three wait: all five leave.
    wait_until(lambda: (ollama.counts()["running"], ollama.counts()["waiting"]) == (2, 3), "running 2, waiting 3")
    for client in clients:
        client.close()
    wait_until(lambda: ollama.counts()["cancelled"] == 5, "five cancelled")
    counts = ollama.counts()
    assert (counts["running"], counts["waiting"], counts["finished"]) == (0, 0, 0)


def test_leaving_the_loop_of_the_ollama_client_ends_the_call(start_ollama, start_gateway):
    ollama = start_ollama(tokens=1000, interval="10ms")
    gateway = start_gateway(ollama.address)
    client = ollama_client.Client(host=gateway.url)
    stream = client.generate(**GENERATE, stream=True)
    assert next(stream).done is False
    stream.close()
    wait_until(lambda: ollama.counts()["cancelled"] == 1, "one cancelled")


@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_a_client_may_leave_while_its_next_request_runs(box, gateway, kind):
    box.script = plain if kind == "whole" else lambda exchange: exchange.stream([b"{}\n"] * 3)
    for _ in range(300):
        with Connection(gateway.address) as client:
            client.send(request_bytes("POST", "/api/chat", body=b"hello") + request_bytes("GET", "/second"))
            assert client.read_answer().status == 200
    assert gateway.is_healthy()


def test_a_client_may_leave_at_any_moment(box, gateway):
    box.script = lambda exchange: exchange.stream([b"{}\n"] * 3)
    message = request_bytes("POST", "/api/chat", body=b"hello")
    for number in range(1000):
        with Connection(gateway.address) as client:
            client.send(message)
            # From at once to after the answer, in steps of 3 us.
            end = time.perf_counter() + number * 3e-6
            while time.perf_counter() < end:
                pass
    assert gateway.is_healthy()


@pytest.mark.parametrize("path", [BLOB, "/api/chat"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_client_that_leaves_amid_its_upload_leaves_nothing_behind(box, gateway, framing, path):
    """Its last bytes and its end come in one go."""
    fields = [("Transfer-Encoding", "chunked")] if framing == "chunked" else [("Content-Length", "1000000")]
    message = request_bytes("POST", path, fields, b"64\r\n%s\r\n" % (b"x" * 100))
    ask(gateway.address, "GET", "/api/status")
    before = gateway.descriptors()
    for _ in range(200):
        with Connection(gateway.address) as client:
            client.send(message)
    wait_until(lambda: not box.running, "the end of the calls to the box", limit=LOOSE)
    # A connection to the box or two may stay open for the next call and the next probe.
    wait_until(lambda: gateway.descriptors() <= before + 2, "the end of the connections", limit=LOOSE)
    assert gateway.stop() == 0


def test_a_client_that_leaves_amid_a_flood_leaves_nothing_behind(box, gateway):
    box.script = lambda exchange: endless(exchange)
    ask(gateway.address, "GET", "/health")
    before = gateway.descriptors()
    for number in range(100):
        with Connection(gateway.address) as client:
            client.request("POST", "/api/chat", body={})
            client.read_head()
            client.read_body(16 * number + 1)
    wait_until(lambda: not box.running, "the end of the calls to the box", limit=LOOSE)
    wait_until(lambda: gateway.descriptors() <= before + 2, "the end of the connections", limit=LOOSE)
    assert gateway.stop() == 0


def test_others_do_not_notice_that_a_client_left(box, gateway):
    def script(exchange):
        if exchange.asked.target == "/hang":
            exchange.wait_for_departure()
        else:
            plain(exchange)

    box.script = script
    with Connection(gateway.address) as staying:
        for _ in range(50):
            with Connection(gateway.address) as leaving:
                leaving.request("POST", "/hang", body={})
                staying.request("GET", "/api/status")
            assert staying.read_answer().status == 200


# MARK: Readers that stall


def endless(exchange):
    """A script: a stream without end, as fast as it is taken, whose bytes tell where they belong."""
    exchange.start_stream("application/octet-stream")
    for number in itertools.count():
        exchange.chunk(b"%015d\n" % number * 1024)


def test_a_stalled_reader_slows_the_box_and_costs_at_most_a_mebibyte(box, gateway, figures):
    exchanges = queue.Queue()

    def script(exchange):
        exchanges.put(exchange)
        endless(exchange)

    box.script = script
    readers = 8

    def start():
        client = Connection(gateway.address, receive_buffer=65536)
        client.request("POST", "/api/chat", body={})
        client.read_head()
        client.read_body(16)
        return client

    # What the program needs once, it has before it is measured.
    with start() as warm_up:
        exchange = exchanges.get(timeout=10)
        warm_up.read_body(4 * MIB)
        settled(lambda: exchange.sent)
    wait_until(lambda: not box.running, "the first call's end")

    before = gateway.memory()
    clients = [start() for _ in range(readers)]
    blocked = [exchanges.get(timeout=10) for _ in range(readers)]
    amounts = settled(lambda: [exchange.sent for exchange in blocked])
    held = (gateway.memory() - before) / readers
    figures(
        f"a stalled reader: the gateway grew by {held / 1024:.0f} KiB (aim <= 1024),"
        f" the box was stopped after {statistics_of(amounts)}"
    )
    assert held <= MIB
    # Kernel buffers on both ways hold this much; a gateway that buffers would take without end.
    assert max(amounts) < 64 * MIB
    # A stopped stream does not stop the others.
    with start() as other:
        other.read_body(4 * MIB)

    # What was held back is neither lost nor doubled.
    body = clients[0].read_body(max(amounts) + 4 * MIB)
    expected = b"".join(b"%015d\n" % number * 1024 for number in range(len(body) // 16384 + 1))
    assert expected.startswith(body)

    # Whoever leaves while stalled ends the call all the same.
    moment = time.monotonic()
    for client in clients:
        client.close()
    wait_until(lambda: not box.running, "the end of all calls", limit=LOOSE * 5)
    figures(f"{readers} stalled readers left: their calls had ended after {(time.monotonic() - moment) * 1e3:.1f} ms")


def statistics_of(amounts):
    return f"{min(amounts) / MIB:.1f} to {max(amounts) / MIB:.1f} MiB"


def test_a_reader_that_stalls_on_a_whole_answer_costs_little_too(box, gateway, figures):
    content = bytes(100 * MIB)
    sent = []

    def script(exchange):
        sent.append(exchange)
        exchange.answer(content, content_type="application/octet-stream")

    box.script = script
    ask(gateway.address, "GET", "/api/status")
    before = gateway.memory()
    with Connection(gateway.address, receive_buffer=65536) as client:
        client.request("GET", "/api/status")
        client.read_head()
        assert settled(lambda: sent[-1].sent) < len(content)
        held = gateway.memory() - before
        figures(f"a stalled reader of 100 MiB of known length: the gateway grew by {held / 1024:.0f} KiB")
        assert held <= MIB
        assert len(client.read_rest().body) == len(content)


# MARK: Uploads


class Watch:
    """Samples a program's memory while something goes on."""

    def __init__(self, program):
        self.program = program
        self.over = threading.Event()
        self.peak = self.before = program.memory()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.over.wait(0.02):
            self.peak = max(self.peak, self.program.memory())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    @property
    def growth(self):
        return max(self.peak, self.program.memory()) - self.before


def sink(exchange):
    """A script for boxes that do not read bodies: counts the body and answers with its length."""
    area = bytearray(MIB)
    left = int(exchange.asked.header("Content-Length") or 0)
    if left:
        left -= len(exchange.inlet.take(left))
        while left and (count := exchange.plug.recv_into(area, min(left, MIB))):
            left -= count
        exchange.answer({"missing": left})
    else:
        exchange.answer({"length": sum(map(len, exchange.body_parts()))})


def test_an_upload_of_two_gibibytes_passes_with_flat_memory(start_box, start_gateway, figures):
    gateway = start_gateway(start_box(sink, reads_bodies=False).address)
    ask(gateway.address, "POST", BLOB, body=bytes(4 * MIB))
    zeros, size = bytes(4 * MIB), 2 << 30
    begin = time.monotonic()
    with Connection(gateway.address, limit=120) as client, Watch(gateway) as watch:
        client.request("POST", BLOB, [("Content-Length", str(size))])
        for _ in range(size // len(zeros)):
            client.send(zeros)
        assert client.read_answer().json == {"missing": 0}
    seconds = time.monotonic() - begin
    figures(
        f"an upload of 2 GiB: {seconds:.1f} s ({2048 / seconds:.0f} MiB/s),"
        f" the gateway grew by {watch.growth / 1024:.0f} KiB at most"
    )
    assert watch.growth < 8 * MIB


def test_a_chunked_upload_passes_with_flat_memory(start_box, start_gateway, figures):
    gateway = start_gateway(start_box(sink, reads_bodies=False).address)
    ask(gateway.address, "POST", BLOB, [("Transfer-Encoding", "chunked")], body=b"5\r\n12345\r\n0\r\n\r\n")
    piece = b"100000\r\n" + bytes(MIB) + b"\r\n"
    with Connection(gateway.address, limit=120) as client, Watch(gateway) as watch:
        client.request("POST", BLOB, [("Transfer-Encoding", "chunked")])
        for _ in range(200):
            client.send(piece)
        client.send(b"0\r\n\r\n")
        assert client.read_answer().json == {"length": 200 * MIB}
    figures(f"a chunked upload of 200 MiB: the gateway grew by {watch.growth / 1024:.0f} KiB at most")
    assert watch.growth < 8 * MIB


def test_a_download_of_a_gibibyte_passes_with_flat_memory(box, gateway, figures):
    def script(exchange):
        zeros = bytes(4 * MIB)
        exchange.head("Content-Type: application/octet-stream", f"Content-Length: {1 << 30}")
        for _ in range((1 << 30) // len(zeros)):
            exchange.send(zeros)

    box.script = script
    with Connection(gateway.address, limit=120) as client, Watch(gateway) as watch:
        client.request("GET", "/api/status")
        client.read_head()
        left, area = (1 << 30) - len(client.inlet.take(1 << 30)), bytearray(MIB)
        while left:
            count = client.plug.recv_into(area)
            assert count, f"ended with {left} bytes to come"
            left -= count
    figures(f"a download of 1 GiB: the gateway grew by {watch.growth / 1024:.0f} KiB at most")
    assert watch.growth < 8 * MIB


def test_a_box_that_stalls_slows_the_client_that_uploads(start_box, start_gateway, figures):
    go_on = threading.Event()

    def script(exchange):
        assert go_on.wait(30)
        sink(exchange)

    gateway = start_gateway(start_box(script, reads_bodies=False).address)
    size = 256 * MIB
    before = gateway.memory()
    with Connection(gateway.address, limit=60) as client:
        client.request("POST", BLOB, [("Content-Length", str(size))])
        sent = 0

        def upload():
            nonlocal sent
            piece = bytes(MIB)
            while sent < size:
                sent += client.plug.send(piece[: size - sent])

        thread = threading.Thread(target=upload)
        thread.start()
        taken = settled(lambda: sent)
        held = gateway.memory() - before
        figures(
            f"an upload to a stalled box: stopped after {taken / MIB:.1f} MiB,"
            f" the gateway grew by {held / 1024:.0f} KiB"
        )
        go_on.set()
        thread.join(60)
        assert client.read_answer().json == {"missing": 0}
    assert taken < 64 * MIB
    assert held < 2 * MIB


def test_a_blob_larger_than_max_body_reaches_a_simulated_box(start_ollama, start_gateway):
    ollama = start_ollama()
    gateway = start_gateway(ollama.address, max_body=MIB)
    blob = b"0123456789abcdef" * (MIB // 8)
    target = "/api/blobs/sha256-" + hashlib.sha256(blob).hexdigest()
    assert ask(gateway.address, "HEAD", target).status == 404
    assert ask(gateway.address, "POST", target, body=blob).status == 201
    assert ask(gateway.address, "HEAD", target).status == 200
    assert ask(gateway.address, "POST", BLOB, body=blob).status == 400
    assert ollama.counts()["bytes_received"] >= len(blob)


def test_a_half_closed_client_gets_its_answer_or_ends_its_call(box, gateway):
    with Connection(gateway.address) as client:
        client.request("GET", "/api/status")
        client.plug.shutdown(socket.SHUT_WR)
        try:
            assert client.read_answer().status == 200
        except Ended:
            pass
    assert gateway.is_healthy()
