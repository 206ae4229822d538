"""When a box cannot be reached, does not answer or breaks off, its client is told so in words it understands."""

import json
import socket
import ssl
import subprocess
import threading
import time

import anthropic
import ollama as ollama_client
import openai
import pytest

from boxes import JSON, NDJSON, SSE, silent_address, unused_address
from dialects import PATHS, check_error, check_error_object, events, last_event
from endpoints import CHAT, MESSAGES
from wire import Connection, ask, wait_until

STREAMS = [
    ("/api/chat", NDJSON),
    ("/api/generate", NDJSON),
    ("/api/pull", NDJSON),
    ("/v1/chat/completions", SSE),
    ("/v1/completions", SSE),
    ("/v1/responses", SSE),
    ("/v1/messages", SSE),
]


# MARK: No box


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_box_that_refuses_connections_is_an_error_in_the_clients_dialect(start_gateway, method, path):
    address, keeper = unused_address()
    with keeper:
        gateway = start_gateway(address)
        check_error(ask(gateway.address, method, path, body={}), path, 502, 503)


def test_an_error_answer_to_head_has_no_body(start_gateway):
    address, keeper = unused_address()
    with keeper, Connection(start_gateway(address).address) as client:
        for _ in range(2):
            client.request("HEAD", "/api/status")
            assert client.read_answer("HEAD").status in (502, 503)


def test_a_client_can_go_on_after_an_error(start_gateway):
    address, keeper = unused_address()
    with keeper, Connection(start_gateway(address).address) as client:
        for _ in range(20):
            client.request("POST", "/api/chat", body={})
            check_error(client.read_answer(), "/api/chat", 502, 503)


def test_a_box_whose_name_has_no_address_is_an_error(start_gateway):
    gateway = start_gateway("no-such-box.invalid:11434", connect_timeout="2s")
    check_error(ask(gateway.address, "GET", "/api/status", limit=15), "/api/status", 502, 503, 504)
    assert gateway.is_healthy()


@pytest.mark.parametrize("path", PATHS)
def test_a_box_that_does_not_accept_is_given_up_after_the_connect_timeout(start_gateway, figures, path):
    address, keepers = silent_address()
    gateway = start_gateway(address, connect_timeout="500ms")
    begin = time.monotonic()
    answer = ask(gateway.address, "POST", path, body={}, limit=30)
    seconds = time.monotonic() - begin
    check_error(answer, path, 502, 503, 504)
    if path == PATHS[0]:
        figures(f"--connect-timeout 500ms: answered after {seconds * 1e3:.0f} ms")
    assert seconds < 5
    for keeper in keepers:
        keeper.close()


@pytest.mark.parametrize("path", PATHS)
def test_a_box_that_does_not_answer_is_given_up_after_the_first_byte_timeout(box, start_gateway, path):
    left = threading.Event()

    def script(exchange):
        exchange.wait_for_departure()
        left.set()

    box.script = script
    gateway = start_gateway(box.address, first_byte_timeout="500ms")
    begin = time.monotonic()
    answer = ask(gateway.address, "POST", path, body={}, limit=30)
    assert 0.4 < time.monotonic() - begin < 5
    check_error(answer, path, 504)
    assert left.wait(5), "the call to the box goes on"


def test_the_first_byte_timeout_ends_with_the_first_byte(box, start_gateway):
    def script(exchange):
        exchange.start_stream()
        for _ in range(8):
            exchange.chunk(b"{}\n")
            # Longer in all than the time-out.
            time.sleep(0.1)
        exchange.end_stream()

    box.script = script
    gateway = start_gateway(box.address, first_byte_timeout="400ms")
    answer = ask(gateway.address, "POST", "/api/chat", body={})
    assert (answer.body, answer.complete) == (b"{}\n" * 8, True)


def test_the_time_outs_do_not_count_the_time_that_an_upload_takes(box, start_gateway):
    gateway = start_gateway(box.address, first_byte_timeout="500ms", idle_timeout="500ms")
    with Connection(gateway.address) as client:
        client.request("POST", "/api/blobs/sha256-0", [("Content-Length", "10")])
        for _ in range(10):
            client.send(b"x")
            time.sleep(0.1)
        assert client.read_answer().status == 200
    assert box.last.body == b"x" * 10


def test_a_box_that_comes_back_is_used_again(start_box, start_gateway):
    box = start_box()
    gateway = start_gateway(box.address)
    assert ask(gateway.address, "GET", "/api/status").status == 200
    box.close()
    wait_until(lambda: ask(gateway.address, "GET", "/api/status").status in (502, 503), "an error")
    start_box(port=box.port)
    wait_until(lambda: ask(gateway.address, "GET", "/api/status").status == 200, "an answer")


# MARK: Answers that are none


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"H",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_a_box_that_breaks_off_before_its_header_is_whole_is_an_error(box, gateway, path, reset, beginning):
    def script(exchange):
        exchange.send(beginning)
        exchange.cut(reset)

    box.script = script
    check_error(ask(gateway.address, "POST", path, body={}), path, 502)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00" + b"\xff" * 100,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 2_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 100_000 + b"\r\n",
    ],
    ids=lambda nonsense: repr(nonsense[:40]),
)
def test_an_answer_that_is_not_http_is_an_error(box, gateway, nonsense):
    def script(exchange):
        exchange.send(nonsense)
        exchange.cut()

    box.script = script
    check_error(ask(gateway.address, "POST", "/api/chat", body={}), "/api/chat", 502)
    assert gateway.is_healthy()


def test_a_field_value_of_a_box_cannot_split_the_answer(box, gateway):
    def script(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nX-Bad: a\rSet-Cookie: evil=1\r\nX-Nul: a\0b\r\nContent-Length: 2\r\n\r\nok")

    box.script = script
    answer = ask(gateway.address, "GET", "/api/status")
    assert answer.status in (200, 502)
    assert answer.header("Set-Cookie") is None
    assert not any(b"\r" in value or b"\0" in value for _, value in answer.fields)


@pytest.mark.parametrize(
    "odd",
    [
        b"HTTP/1.1 200 OK\r\n folded: x\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: +2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nHTTP/a: b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + b"x" * 300_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
    ids=lambda odd: repr(odd[:50]),
)
def test_an_odd_header_of_a_box_harms_nobody(box, start_gateway, odd):
    """Alternating with good ones, for what it may do to a kept connection and to what serves it."""
    gateway = start_gateway(box.address, first_byte_timeout="2s", idle_timeout="2s")
    good = b"HTTP/1.1 200 OK\r\nX-Long: %s\r\nContent-Length: 2\r\n\r\nok" % (b"v" * 60)
    answers = iter([good, odd] * 3)
    box.script = lambda exchange: exchange.send(next(answers))
    for _ in range(3):
        assert ask(gateway.address, "GET", "/api/status").body == b"ok"
        assert ask(gateway.address, "GET", "/api/status").status in (200, 204, 304, 502, 504)
    assert gateway.is_healthy()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/pull", {"model": "x"}),
        ("POST", "/api/push", {"model": "x"}),
        ("POST", "/api/create", {"model": "x", "from": "m"}),
        ("POST", "/api/copy", {"source": "x", "destination": "y"}),
        ("DELETE", "/api/delete", {"model": "x"}),
    ],
    ids=lambda value: value.rsplit("/", 1)[-1] if isinstance(value, str) else "",
)
def test_what_changes_a_box_is_never_sent_twice(box, gateway, method, path, body):
    """Not even when a kept connection breaks before the answer, where other requests may be sent again."""
    for _ in range(3):
        assert ask(gateway.address, "GET", "/api/status").status == 200
    box.script = lambda exchange: exchange.cut()
    before = len(box.asked)
    check_error(ask(gateway.address, method, path, body=body), path, 502)
    assert len(box.asked) - before == 1


def test_an_answer_cut_by_the_end_of_the_gateway_says_so(start_ollama, start_gateway):
    ollama = start_ollama(tokens=1000, interval="20ms")
    gateway = start_gateway(ollama.address, drain_timeout="300ms")
    with Connection(gateway.address) as client:
        client.request("POST", "/api/chat", body=CHAT | {"stream": True})
        client.read_head()
        client.read_part()
        gateway.signal()
        answer = client.read_rest()
    assert answer.body.splitlines()[-1] == b'{"error":"the gateway is shutting down"}'
    assert not answer.complete
    assert gateway.wait() == 0


# MARK: Cuts amid a stream


def cut_after(content_type, *chunks, how="close", when=None):
    """A script: a stream that breaks off after these chunks, once the event `when` is set."""

    def script(exchange):
        exchange.start_stream(content_type)
        for chunk in chunks:
            exchange.chunk(chunk)
        assert not when or when.wait(10)
        if how == "bad chunk size":
            exchange.send(b"zz\r\n")
            exchange.wait_for_departure()
        elif how == "amid a chunk":
            exchange.send(b"ff\r\n")
            exchange.cut()
        else:
            exchange.cut(reset=how == "reset")

    return script


def check_cut(path, content_type, answer, before):
    """Fails unless the answer is what the box sent, then an error, then the unclean end of the body."""
    assert answer.status == 200
    assert answer.body.startswith(before)
    assert not answer.complete, "the body has a clean end"
    added = answer.body[len(before) :]
    if content_type == NDJSON:
        if before and not before.endswith(b"\n"):
            assert added.startswith(b"\n"), "the error is not on a line of its own"
        assert added.endswith(b"\n")
        check_error_object("/api", answer_line(answer))
    else:
        assert added.endswith(b"\n\n")
        error = last_event(answer.body)
        assert "error" in error
        check_error_object(path, error)
        assert len(events(answer.body)) >= 1


def answer_line(answer):
    """The last line as JSON."""
    return json.loads(answer.lines[-1])


@pytest.mark.parametrize(("path", "content_type"), STREAMS)
@pytest.mark.parametrize("how", ["close", "reset", "bad chunk size", "amid a chunk"])
def test_a_cut_amid_a_stream_ends_in_an_error_and_not_in_a_clean_end(box, gateway, path, content_type, how):
    chunk = b'{"n":1,"done":false}\n' if content_type == NDJSON else b'data: {"n":1}\n\n'
    arrived = threading.Event()
    # A reset would overtake what was sent just before it.
    box.script = cut_after(content_type, chunk, chunk, how=how, when=arrived)
    with Connection(gateway.address) as client:
        client.request("POST", path, body={})
        client.read_head()
        client.read_body(len(chunk) * 2)
        arrived.set()
        check_cut(path, content_type, client.read_rest(), chunk * 2)
    assert gateway.is_healthy()


@pytest.mark.parametrize(("path", "content_type"), STREAMS)
def test_a_cut_at_any_byte_of_a_stream_leaves_the_error_readable(box, gateway, path, content_type):
    if content_type == NDJSON:
        content = '{"n":1,"text":"né"}\n{"n":2}\n'.encode()
    else:
        content = 'event: delta\ndata: {"n":1,"text":"né"}\n\ndata: {"n":2}\n\n'.encode()
    for offset in range(1, len(content) + 1):
        box.script = cut_after(content_type, content[:offset])
        answer = ask(gateway.address, "POST", path, body={})
        if answer.status == 502:
            # All came at once, header and cut: an error answer is as good.
            check_error(answer, path, 502)
            continue
        before = content[:offset]
        assert answer.body.startswith(before), f"cut at {offset}"
        assert not answer.complete, f"cut at {offset}"
        if content_type == NDJSON:
            check_cut(path, content_type, answer, before)
        else:
            # The broken event may not swallow the error.
            text = answer.body[: len(before)].decode(errors="replace") + answer.body[len(before) :].decode()
            check_error_object(path, last_event(text.encode()))
            assert events(text.encode())[-1][0] in (None, "error"), f"cut at {offset}"


def test_the_end_of_a_cut_stream_is_not_kept_waiting(box, gateway, figures):
    box.script = cut_after(NDJSON, b'{"n":1}\n')
    waits = []
    for _ in range(20):
        begin = time.monotonic()
        assert not ask(gateway.address, "POST", "/api/chat", body={}).complete
        waits.append(time.monotonic() - begin)
    figures(f"a stream that is cut at once: its client has seen the end after {max(waits) * 1e3:.0f} ms at most")
    assert sum(waits) < 5


@pytest.mark.parametrize(("path", "content_type"), STREAMS)
def test_a_stream_cut_after_its_header_ends_in_an_error(box, gateway, path, content_type):
    box.script = cut_after(content_type)
    answer = ask(gateway.address, "POST", path, body={})
    if answer.status == 502:
        check_error(answer, path, 502)
    else:
        check_cut(path, content_type, answer, b"")


@pytest.mark.parametrize(("path", "content_type"), STREAMS)
def test_silence_amid_a_stream_ends_in_an_error_after_the_idle_timeout(box, start_gateway, path, content_type):
    chunk = b'{"n":1,"done":false}\n' if content_type == NDJSON else b'data: {"n":1}\n\n'
    left = threading.Event()

    def script(exchange):
        exchange.start_stream(content_type)
        exchange.chunk(chunk)
        exchange.wait_for_departure()
        left.set()

    box.script = script
    gateway = start_gateway(box.address, idle_timeout="500ms")
    begin = time.monotonic()
    answer = ask(gateway.address, "POST", path, body={}, limit=30)
    assert 0.4 < time.monotonic() - begin < 5
    check_cut(path, content_type, answer, chunk)
    assert left.wait(5), "the call to the box goes on"


def test_a_stream_slower_than_nothing_but_the_idle_timeout_goes_on(box, start_gateway):
    def script(exchange):
        exchange.start_stream()
        for _ in range(8):
            exchange.chunk(b"{}\n")
            # In all longer than the time-out, each gap shorter.
            time.sleep(0.2)
        exchange.end_stream()

    box.script = script
    answer = ask(start_gateway(box.address, idle_timeout="1s").address, "POST", "/api/chat", body={})
    assert (answer.body, answer.complete) == (b"{}\n" * 8, True)


def test_a_reader_that_stalls_is_not_the_silence_of_its_box(box, start_gateway):
    def script(exchange):
        exchange.start_stream("application/octet-stream")
        for _ in range(32):
            exchange.chunk(bytes(1 << 20))
        exchange.end_stream()

    box.script = script
    gateway = start_gateway(box.address, idle_timeout="500ms")
    with Connection(gateway.address, receive_buffer=65536) as client:
        client.request("POST", "/api/chat", body={})
        client.read_head()
        # For longer than the time-out the box may not send.
        time.sleep(1.5)
        answer = client.read_rest()
    assert (len(answer.body), answer.complete) == (32 << 20, True)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_cut_in_an_answer_of_known_length_cuts_the_connection_and_adds_nothing(box, gateway, path):
    def script(exchange):
        exchange.head("Content-Type: application/json", "Content-Length: 1000")
        exchange.send(b'{"half":')
        exchange.cut()

    box.script = script
    with Connection(gateway.address) as client:
        client.request("POST", path, body={})
        answer = client.read_answer()
        if answer.status == 502:
            return check_error(answer, path, 502)
        assert (answer.header("Content-Length"), answer.body, answer.complete) == ("1000", b'{"half":', False)
        assert client.has_ended()
    return None


def test_silence_in_an_answer_of_known_length_cuts_the_connection(box, start_gateway):
    def script(exchange):
        exchange.head("Content-Type: application/json", "Content-Length: 1000")
        exchange.send(b'{"half":')
        exchange.wait_for_departure()

    box.script = script
    gateway = start_gateway(box.address, idle_timeout="500ms")
    answer = ask(gateway.address, "POST", "/api/chat", body={})
    assert (answer.body, answer.complete) == (b'{"half":', False)


def test_a_cut_in_a_chunked_answer_that_is_no_stream_is_not_a_clean_end(box, gateway):
    box.script = cut_after(JSON, b'{"embeddings":[[0.1,')
    answer = ask(gateway.address, "POST", "/api/embed", body={})
    if answer.status != 502:
        assert answer.body.startswith(b'{"embeddings":[[0.1,') and not answer.complete


def test_an_http_1_0_client_reads_the_error_of_a_cut_stream(box, gateway):
    box.script = cut_after(NDJSON, b'{"n":1}\n')
    with Connection(gateway.address) as client:
        client.request("POST", "/api/chat", body={}, version="HTTP/1.0")
        answer = client.read_answer()
    check_error_object("/api/chat", answer_line(answer))


def test_a_clean_end_without_the_last_words_is_passed_on_as_it_is(box, gateway):
    for path, content_type, chunk in (("/api/chat", NDJSON, b'{"n":1}\n'), ("/v1/completions", SSE, b"data: {}\n\n")):
        box.script = lambda exchange: exchange.stream([chunk], content_type)  # noqa: B023
        answer = ask(gateway.address, "POST", path, body={})
        assert (answer.body, answer.complete) == (chunk, True)


def test_an_error_line_of_the_box_is_passed_on_as_it_is(box, gateway):
    box.script = lambda exchange: exchange.stream([b'{"n":1}\n', b'{"error":"out of memory"}\n'])
    answer = ask(gateway.address, "POST", "/api/chat", body={})
    assert (answer.body, answer.complete) == (b'{"n":1}\n{"error":"out of memory"}\n', True)


# MARK: As the client libraries see it


def test_the_ollama_client_raises_what_happened_to_a_cut_stream(start_ollama, start_gateway):
    ollama = start_ollama(fault='{"kind":"cut","after":3}')
    client = ollama_client.Client(host=start_gateway(ollama.address).url)
    seen = []
    with pytest.raises(ollama_client.ResponseError) as raised:
        for part in client.chat(**CHAT, stream=True):
            seen.append(part)
    assert len(seen) == 3
    assert raised.value.error


def test_the_openai_client_raises_what_happened_to_a_cut_stream(start_ollama, start_gateway):
    ollama = start_ollama(fault='{"kind":"cut","after":3}')
    client = openai.OpenAI(base_url=start_gateway(ollama.address).url + "/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.APIError) as raised:
        for _ in client.chat.completions.create(**CHAT, stream=True):
            pass
    assert raised.value.message and not isinstance(raised.value, openai.APIConnectionError)


def test_the_anthropic_client_raises_what_happened_to_a_cut_stream(start_ollama, start_gateway):
    ollama = start_ollama(fault='{"kind":"cut","after":3}')
    client = anthropic.Anthropic(base_url=start_gateway(ollama.address).url, api_key="none", max_retries=0)
    with pytest.raises(anthropic.APIError):
        for _ in client.messages.create(**MESSAGES, stream=True):
            pass


def test_the_client_libraries_raise_their_own_errors_when_there_is_no_box(start_gateway):
    address, keeper = unused_address()
    with keeper:
        url = start_gateway(address).url
        with pytest.raises(ollama_client.ResponseError) as native:
            ollama_client.Client(host=url).chat(**CHAT)
        assert native.value.status_code in (502, 503) and "{" not in native.value.error
        with pytest.raises(openai.InternalServerError) as opened:
            openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0).chat.completions.create(**CHAT)
        assert opened.value.body["message"]
        with pytest.raises(anthropic.InternalServerError) as messages:
            anthropic.Anthropic(base_url=url, api_key="none", max_retries=0).messages.create(**MESSAGES)
        assert messages.value.body["error"]["message"]


@pytest.mark.parametrize("kind", ["status", "hang_header", "hang", "cut", "error_line", "silent_end"])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_every_fault_of_a_simulated_box_ends_in_bounded_time(start_ollama, start_gateway, kind, path):
    fault = {"kind": kind, "after": 2, "status": 503, "message": "out of order"}
    ollama = start_ollama()
    ollama.control(fault=fault)
    gateway = start_gateway(ollama.address, first_byte_timeout="500ms", idle_timeout="500ms")
    answer = ask(gateway.address, "POST", path, body=MESSAGES | {"stream": True})
    if kind == "status":
        assert "out of order" in check_error(answer, path, 503)
    elif kind == "hang_header":
        check_error(answer, path, 504)
    else:
        assert answer.status == 200
        assert answer.complete == (kind in ("error_line", "silent_end"))
    ollama.control(fault=None)
    # A box that was silent has to answer a probe first.
    wait_until(lambda: ask(gateway.address, "POST", path, body=MESSAGES).status == 200, "an answer", limit=4)


# MARK: Boxes behind TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate authority, another, and a certificate for localhost from the first."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for name in ("authority", "stranger"):
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    signed = ["-CA", "authority.pem", "-CAkey", "authority.key"]
    openssl("req", "-x509", *key, *signed, "-keyout", "box.key", "-out", "box.pem", "-subj", "/CN=b", "-addext", names)
    other = "subjectAltName=DNS:other.example"
    openssl("req", "-x509", *key, *signed, "-keyout", "misnamed.key", "-out", "misnamed.pem", "-subj", "/CN=m",
            "-addext", other)  # fmt: skip
    return folder


def tls(folder, name="box"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def test_a_box_behind_tls_is_reached_with_its_authority(start_box, start_gateway, certificates):
    box = start_box(tls=tls(certificates))
    gateway = start_gateway(f"https://localhost:{box.port}/prefix", backend_ca=certificates / "authority.pem")
    body = bytes(range(256)) * 1000
    assert ask(gateway.address, "POST", "/api/chat?x=1", body=body).json == {"ok": True}
    assert (box.last.target, box.last.body) == ("/prefix/api/chat?x=1", body)
    assert box.last.header("Host") == f"localhost:{box.port}"


def test_a_stream_behind_tls_is_not_held_back(start_box, start_gateway, certificates):
    arrived = threading.Semaphore(0)

    def script(exchange):
        exchange.start_stream()
        for _ in range(20):
            exchange.chunk(b"{}\n")
            assert arrived.acquire(timeout=10)
        exchange.end_stream()

    box = start_box(script, tls=tls(certificates))
    gateway = start_gateway(f"https://{box.address}", backend_ca=certificates / "authority.pem")
    with Connection(gateway.address) as client:
        client.request("POST", "/api/chat", body={})
        client.read_head()
        for number in range(1, 21):
            client.read_body(3 * number)
            arrived.release()
        assert client.read_rest().complete


@pytest.mark.parametrize("case", ["wrong authority", "no authority", "wrong name", "no tls"])
def test_a_box_that_cannot_prove_who_it_is_gets_no_request(start_box, start_gateway, certificates, case):
    box = start_box(tls=None if case == "no tls" else tls(certificates, "misnamed" if case == "wrong name" else "box"))
    ca = {"backend_ca": certificates / ("stranger.pem" if case == "wrong authority" else "authority.pem")}
    ca = {} if case == "no authority" else ca
    gateway = start_gateway(f"https://localhost:{box.port}", connect_timeout="1s", **ca)
    for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
        check_error(ask(gateway.address, "POST", path, body={}), path, 502, 503)
    assert not box.asked and not box.probed
    box.errors.clear()


def test_a_box_that_does_not_finish_its_handshake_is_given_up(start_gateway):
    listener = socket.create_server(("127.0.0.1", 0))
    gateway = start_gateway(f"https://127.0.0.1:{listener.getsockname()[1]}", connect_timeout="500ms")
    begin = time.monotonic()
    check_error(ask(gateway.address, "GET", "/api/status", limit=30), "/api/status", 502, 503, 504)
    assert time.monotonic() - begin < 5
    listener.close()


def test_one_box_that_is_down_does_not_harm_requests_to_another(start_box, start_gateway):
    address, keeper = unused_address()
    with keeper:
        gateway = start_gateway(start_box().address, address)
        assert {ask(gateway.address, "GET", "/api/status").status for _ in range(20)} == {200}


def test_an_error_message_is_one_short_line(start_box, start_gateway):
    address, keeper = unused_address()
    with keeper:
        message = check_error(ask(start_gateway(address).address, "GET", "/api/status"), "/api/status", 502, 503)
    assert "\n" not in message and len(message) < 300
