"""Whatever a client sends, it gets a 4xx or the end of its connection, and nobody else notices."""

import random
import resource
import threading
import time

import pytest

from boxes import plain
from dialects import check_error
from wire import Connection, Ended, ask, connect, request_bytes, wait_until

BLOB = "/api/blobs/sha256-" + "0" * 64
HEAD = b"POST /api/chat HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
MIB = 1 << 20


class Bystander:
    """A client with a connection and a stream of its own, which must not notice what others do."""

    def __init__(self, box, gateway):
        self.box, self.gateway = box, gateway
        self.more = threading.Semaphore(0)
        self.idle = Connection(gateway.address)
        self.idle.request("GET", "/api/status")
        assert self.idle.read_answer().status == 200
        box.script = self.script
        self.streaming = Connection(gateway.address)
        self.streaming.request("POST", "/bystander", body={})
        self.streaming.read_head()

    def script(self, exchange):
        if exchange.asked.target != "/bystander":
            return plain(exchange)
        exchange.start_stream()
        exchange.chunk(b"1\n")
        assert self.more.acquire(timeout=60)
        exchange.chunk(b"2\n")
        exchange.end_stream()
        return None

    def check(self):
        assert self.gateway.is_alive
        self.idle.request("GET", "/api/status")
        assert self.idle.read_answer().status == 200
        self.more.release()
        assert self.streaming.read_rest().body == b"1\n2\n"
        assert ask(self.gateway.address, "GET", "/api/status").status == 200
        assert "/smuggled" not in [asked.target for asked in self.box.asked]

    def close(self):
        self.more.release()
        self.idle.close()
        self.streaming.close()


@pytest.fixture
def bystander(box, gateway):
    watching = Bystander(box, gateway)
    yield watching
    watching.close()


def outcome(address, data, more=()):
    """Sends bytes and returns the final answer's status, or "closed" if there was none, or "nothing"."""
    with Connection(address, limit=5) as client:
        try:
            client.send(data)
            for part in more:
                client.send(part)
        except OSError:
            pass  # What was answered before is read all the same.
        try:
            return client.read_answer().status
        except (Ended, ConnectionError):
            return "closed"
        except TimeoutError:
            return "nothing"


def check_refused(bystander, data, *extra):
    """Fails unless the bytes lead to a 4xx or the end, without any harm."""
    before = len(bystander.box.asked)
    got = outcome(bystander.gateway.address, data)
    assert got == "closed" or got in extra or (isinstance(got, int) and 400 <= got < 500), got
    assert len(bystander.box.asked) == before, f"the box was asked: {bystander.box.last}"
    bystander.check()


def short(data):
    return repr(data[:60])[2:-1]


# MARK: Request lines and header fields


@pytest.mark.parametrize(
    "line",
    [
        b"GARBAGE",
        b"GET",
        b"GET /",
        b"GET / HTTP/",
        b"GET / HTTP/1",
        b"GET / HTTP/1.",
        b"GET / HTTP/1.x",
        b"GET / HTTP/9.9",
        b"GET / HTTX/1.1",
        b"GET / http/1.1",
        b"GET /a b HTTP/1.1",
        b" GET / HTTP/1.1",
        b"/ HTTP/1.1",
        b"GET HTTP/1.1",
        b"G@T / HTTP/1.1",
        b"G\0T / HTTP/1.1",
        b"G\xc4T / HTTP/1.1",
        b"GET api/tags HTTP/1.1",
        b"GET /a\0b HTTP/1.1",
        b"GET /a\x01b HTTP/1.1",
        b"GET /a\x7fb HTTP/1.1",
        b"GET /a\rb HTTP/1.1",
        b"GET / HTTP/1.1\0",
        b"CONNECT other.example:443 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"\xff" * 1000,
        b"M" * 100_000 + b" / HTTP/1.1",
    ],
    ids=short,
)
def test_a_malformed_request_line_is_refused(bystander, line):
    check_refused(bystander, line + b"\r\nHost: x\r\n\r\n", 501, 505)


@pytest.mark.parametrize(
    "field",
    [
        b"no colon",
        b": no name",
        b"Space-Before : colon",
        b"Tab-Before\t: colon",
        b"In ner: space",
        b"Paren(s): x",
        b"Na\x01me: x",
        b"Na\0me: x",
        b"N\xc3\xa4me: x",
        b"X-Nul: a\0b",
        b"X-CR: a\rb",
        b" Leading: space",
        b"Content-Length : 5",
        b"Transfer-Encoding : chunked",
        b"Host: second",
        b"X" * 2_000_000 + b": long name",
        b"X-Long: " + b"x" * 2_000_000,
        b"X-Many: 1\r\n" * 200_000 + b"X: 1",
    ],
    ids=short,
)
def test_a_malformed_header_field_is_refused(bystander, field):
    check_refused(bystander, b"GET /api/status HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n" + SMUGGLED)


def test_a_request_without_host_is_refused(bystander):
    check_refused(bystander, b"GET /api/status HTTP/1.1\r\nX: 1\r\n\r\n")


@pytest.mark.parametrize("size", [40_000, 2_000_000])
def test_an_oversized_target_is_refused(bystander, size):
    check_refused(bystander, b"GET /" + b"x" * size + b" HTTP/1.1\r\nHost: x\r\n\r\n")


@pytest.mark.parametrize("field", [b"X-One: a\x01b", b"X-Delete: a\x7fb", b"X-Bell: \x07"], ids=short)
def test_a_control_byte_in_a_field_value_harms_nobody(bystander, field):
    got = outcome(bystander.gateway.address, b"GET /api/status HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n")
    assert got in (200, 400, "closed")
    bystander.check()


@pytest.mark.parametrize(
    "field", [b"X-Folded: one\r\n two", b"X-Folded: one\r\n\ttwo", b"X-Folded:\r\n one two"], ids=short
)
def test_a_folded_field_is_refused_or_unfolded(bystander, field):
    got = outcome(bystander.gateway.address, b"GET /folded HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n")
    if got == 200:
        (asked,) = [asked for asked in bystander.box.asked if asked.target == "/folded"]
        assert (asked.header("X-Folded") or "").split() == ["one", "two"], asked.fields
        assert len(asked.headers("X-Folded")) == 1
    else:
        assert got in (400, "closed")
    bystander.check()


def test_a_line_end_without_carriage_return_is_understood_or_refused(bystander):
    got = outcome(bystander.gateway.address, b"GET /api/status HTTP/1.1\nHost: x\nX-A: 1\n\n")
    assert got in (200, 400, "closed")
    bystander.check()


@pytest.mark.parametrize("host", [b"gateway", b"other.example:1"])
def test_a_target_in_absolute_form_is_understood_or_refused(bystander, host):
    got = outcome(bystander.gateway.address, b"GET http://" + host + b"/api/status?x HTTP/1.1\r\nHost: gateway\r\n\r\n")
    if got == 200:
        assert bystander.box.last.target in ("/api/status?x", f"http://{host.decode()}/api/status?x")
    else:
        assert got in (400, 403, 421, "closed")
    bystander.check()


def test_empty_lines_before_a_request_are_ignored_or_refused(bystander):
    got = outcome(bystander.gateway.address, b"\r\n\r\nGET /api/status HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got in (200, 400, "closed")
    bystander.check()


# MARK: Lengths and chunks


@pytest.mark.parametrize("target", [b"/api/chat", BLOB.encode()], ids=["collected", "streamed"])
@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: abc",
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Content-Length: 5.0",
        b"Content-Length: 5 5",
        b"Content-Length: 5, 6",
        b"Content-Length: 5;",
        b"Content-Length: 99999999999999999999999",
        b"Content-Length: 18446744073709551617",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 6\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: abc",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: identity\r\nContent-Length: 5",
    ],
    ids=short,
)
def test_a_body_of_doubtful_length_is_refused(bystander, target, fields):
    head = b"POST " + target + b" HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n"
    got = outcome(bystander.gateway.address, head + b"0\r\n\r\n" + SMUGGLED)
    assert got == "closed" or got == 501 or (isinstance(got, int) and 400 <= got < 500), got
    assert target.decode() not in [asked.target for asked in bystander.box.asked]
    bystander.check()


def test_a_length_said_twice_alike_is_refused_or_read_once(bystander):
    got = outcome(bystander.gateway.address, HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")
    if got == 200:
        (asked,) = [asked for asked in bystander.box.asked if asked.target == "/api/chat"]
        assert (asked.body, len(asked.headers("Content-Length"))) == (b"hello", 1)
    else:
        assert got in (400, "closed")
    bystander.check()


def test_the_name_of_the_chunked_coding_is_read_in_any_case(bystander):
    assert outcome(bystander.gateway.address, HEAD + b"Transfer-Encoding: ChUnKeD\r\n\r\n2\r\n{}\r\n0\r\n\r\n") == 200
    assert bystander.box.last.body == b"{}"
    bystander.check()


@pytest.mark.parametrize("target", [b"/api/chat", BLOB.encode()], ids=["collected", "streamed"])
@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b";ext\r\nhello\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r\nX\r\n\r\n",
        b"5\0\r\nhello\r\n0\r\n\r\n",
    ],
    ids=short,
)
def test_malformed_chunks_are_refused(bystander, target, chunks):
    head = b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = outcome(bystander.gateway.address, head + chunks + SMUGGLED)
    assert got == "closed" or (isinstance(got, int) and 400 <= got < 500), got
    # A streamed body may have been on its way; but it never looked whole to the box.
    assert target.decode() not in [asked.target for asked in bystander.box.asked]
    bystander.check()


@pytest.mark.parametrize("what", ["an endless chunk extension", "endless trailers"])
def test_an_endless_part_of_the_framing_fills_neither_memory_nor_time(box, start_gateway, what):
    gateway = start_gateway(box.address, body_timeout="1s", client_idle_timeout="1s")
    before = gateway.memory()
    begin = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"5;x=" if "extension" in what else b"0\r\n")
    piece = b"x" * 65536 if "extension" in what else b"X-Trailer: 1\r\n" * 4096
    got = outcome(gateway.address, begin, [piece] * 400)
    assert got in (400, 408, 413, 431, "closed"), got
    assert gateway.memory() - before < 8 * MIB
    assert gateway.is_healthy()
    assert not box.asked


# MARK: Bodies too large


@pytest.fixture
def small_gateway(box, start_gateway):
    return start_gateway(box.address, max_body=1000)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_beyond_max_body_is_refused_with_413(box, small_gateway, path, framing):
    with Connection(small_gateway.address) as client:
        if framing == "length":
            client.request("POST", path, body=b"x" * 1001)
        else:
            client.request("POST", path, [("Transfer-Encoding", "chunked")])
            for _ in range(11):
                client.send(b"64\r\n%s\r\n" % (b"x" * 100))
        check_error(client.read_answer(), path, 413)
    assert not box.asked
    assert small_gateway.is_healthy()


def test_a_body_of_just_max_body_is_passed_on(box, small_gateway):
    assert ask(small_gateway.address, "POST", "/api/chat", body=b"x" * 1000).status == 200
    with Connection(small_gateway.address) as client:
        client.request("POST", "/api/chat", [("Transfer-Encoding", "chunked")])
        client.send(b"64\r\n%s\r\n" % (b"x" * 100) * 10 + b"0\r\n\r\n")
        assert client.read_answer().status == 200
    assert [len(asked.body) for asked in box.asked] == [1000, 1000]


def test_a_client_that_asks_first_is_told_before_it_sends_a_body_too_large(box, small_gateway):
    with Connection(small_gateway.address) as client:
        client.request("POST", "/api/chat", [("Expect", "100-continue"), ("Content-Length", "1001")])
        answer = client.read_answer()
        assert (answer.status, answer.interim) == (413, [])


def test_a_body_of_gigabytes_that_is_too_large_does_not_fill_the_memory(box, small_gateway):
    before = small_gateway.memory()
    head = request_bytes("POST", "/api/chat", [("Content-Length", str(1 << 40))])
    assert outcome(small_gateway.address, head, [bytes(MIB)] * 64) in (413, "closed")
    assert small_gateway.memory() - before < 4 * MIB
    assert small_gateway.is_healthy()


def test_an_unexpected_expectation_is_refused_or_passed_on(bystander):
    head = request_bytes("POST", "/api/chat", [("Expect", "a miracle")], body=b"{}")
    assert outcome(bystander.gateway.address, head) in (200, 400, 417)
    bystander.check()


# MARK: Slow clients


def slowly(plug, data, over, pause=1.0):
    """Sends one byte a pause until the other side has had enough; says whether it had."""
    for byte in data:
        if over.wait(pause):
            return
        try:
            plug.send(bytes([byte]))
        except OSError:
            return


def test_slow_senders_harm_nobody(bystander):
    over = threading.Event()
    head = request_bytes("GET", "/slow", [("X-Long", "x" * 1000)])
    body = request_bytes("POST", "/slow", body=b"x" * 1000)
    beginnings = [(head, 5), (body, body.index(b"\r\n\r\n") + 6)] * 50
    plugs, threads = [], []
    for message, sent in beginnings:
        plug = connect(bystander.gateway.address)
        plug.sendall(message[:sent])
        thread = threading.Thread(target=slowly, args=(plug, message[sent:], over))
        thread.start()
        plugs.append(plug)
        threads.append(thread)
    used = bystander.gateway.processor_seconds()
    end = time.monotonic() + 3
    served = 0
    while time.monotonic() < end:
        assert ask(bystander.gateway.address, "GET", "/api/status").status == 200
        served += 1
        time.sleep(0.02)
    assert served > 20
    # A server that polls its slow clients would use all the time there is.
    assert bystander.gateway.processor_seconds() - used < 2
    bystander.check()
    over.set()
    for thread in threads:
        thread.join()
    for plug in plugs:
        plug.close()
    assert "/slow" not in [asked.target for asked in bystander.box.asked]


def test_a_header_sent_byte_by_byte_is_not_waited_for_without_end(box, start_gateway):
    gateway = start_gateway(box.address, header_timeout="1s")
    begin = time.monotonic()
    over = threading.Event()
    with Connection(gateway.address, limit=20) as client:
        sender = threading.Thread(target=slowly, args=(client.plug, b"GET / HTTP/1.1\r\nX: " + b"x" * 1000, over, 0.2))
        sender.start()
        try:
            assert 400 <= client.read_answer().status < 500
        except (Ended, ConnectionError):
            pass
        seconds = time.monotonic() - begin
        over.set()
        sender.join()
    assert 0.5 < seconds < 10
    assert gateway.is_healthy()


def test_a_body_that_stops_is_not_waited_for_without_end(box, start_gateway):
    gateway = start_gateway(box.address, header_timeout="1s", body_timeout="1s")
    for path in ("/api/chat", BLOB):
        with Connection(gateway.address, limit=20) as client:
            client.request("POST", path, [("Content-Length", "1000")])
            client.send(b"x" * 10)
            try:
                assert 400 <= client.read_answer().status < 500
            except (Ended, ConnectionError):
                pass
    assert gateway.is_healthy()
    assert not [asked for asked in box.asked if asked.target in ("/api/chat", BLOB)]


# MARK: Many clients


def test_ten_thousand_idle_connections_harm_nobody(box, start_gateway, figures):
    gateway = start_gateway(box.address)
    # Raised only now: the gateway has to find its own way around the usual limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = []
    try:
        bystander = Bystander(box, gateway)
        before = gateway.memory()
        begin = time.monotonic()
        for number in range(10_000):
            idle.append(connect(gateway.address, source=f"127.0.0.{2 + number % 8}"))
        figures(
            f"10,000 idle connections: opened in {time.monotonic() - begin:.1f} s,"
            f" the gateway has {gateway.descriptors()} descriptors"
            f" and grew by {(gateway.memory() - before) / len(idle) / 1024:.1f} KiB for each"
        )
        begin = time.monotonic()
        for _ in range(100):
            with Connection(gateway.address, source="127.0.0.99") as client:
                client.request("POST", "/api/chat", body={})
                assert client.read_answer().status == 200
        figures(f"a request beside them: {(time.monotonic() - begin) * 10:.2f} ms on average")
        bystander.check()
        bystander.close()
    finally:
        for plug in idle:
            plug.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    wait_until(lambda: gateway.descriptors() < 100, "the end of the idle connections")
    assert gateway.is_healthy()


def test_clients_that_come_and_go_harm_nobody(bystander):
    message = request_bytes("POST", "/api/chat", body=b"x" * 100)
    before = bystander.gateway.descriptors()
    for number in range(1000):
        client = Connection(bystander.gateway.address)
        client.send(message[: number % len(message)])
        if number % 2:
            client.close()
        else:
            client.reset()
    # Those who left amid a request are not waited for.
    wait_until(lambda: bystander.gateway.descriptors() <= before + 4, "the end of the connections", limit=5)
    bystander.check()


def test_random_damage_to_requests_harms_nobody(bystander):
    chance = random.Random(1)
    messages = [
        request_bytes("POST", "/api/chat", [("X-A", "1"), ("Accept", "*/*")], body=b'{"model":"m"}'),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\n",
        request_bytes("GET", "/api/status?x=1", [("Connection", "keep-alive")]),
    ]
    clients = []
    for _ in range(600):
        message = bytearray(chance.choice(messages))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(message))
            match chance.randrange(4):
                case 0:
                    message[at] = chance.randrange(256)
                case 1:
                    del message[at : at + chance.randint(1, 8)]
                case 2:
                    message[at:at] = chance.randbytes(chance.randint(1, 8))
                case _:
                    message[at:at] = message[max(0, at - 20) : at]
        client = Connection(bystander.gateway.address)
        client.send(bytes(message))
        clients.append(client)
        if len(clients) > 50:
            clients.pop(0).close()
    assert bystander.gateway.is_alive
    for client in clients:
        client.close()
    bystander.box.errors.clear()
    bystander.check()
