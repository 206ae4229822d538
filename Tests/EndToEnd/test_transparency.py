"""What reaches the box is what the client sent, and what reaches the client is what the box sent."""

import gzip
import json
import random
import threading

import pytest

from boxes import JSON, NDJSON, SSE
from endpoints import CHAT, ENDPOINTS, name, steady
from wire import Connection, ask, request_bytes, wait_until

TEXT = 'Grüße, 世界 \U0001f600 <&> " \\ \x7f \x85 \u2028 \u2029'
NDJSON_CHUNKS = [
    json.dumps({"model": "m", "message": {"role": "assistant", "content": TEXT}, "done": False}).encode() + b"\n",
    json.dumps({"model": "m", "message": {"content": TEXT}}, ensure_ascii=False).encode() + b"\n",
    b'{"done":true,"context":[1,2,3]}\n',
]
SSE_CHUNKS = [
    b"data: " + json.dumps({"choices": [{"delta": {"content": TEXT}}]}, ensure_ascii=False).encode() + b"\n\n",
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    b": a comment\n\ndata: [DONE]\n\n",
]
HOP_BY_HOP = ["Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Trailer", "Upgrade"]
ADDED_TO_ANSWERS = {b"date", b"connection", b"keep-alive", b"transfer-encoding", b"x-request-id", b"via", b"server"}


# MARK: Every endpoint


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=name)
def test_an_answer_is_the_same_as_from_the_box(ollama, ollama_gateway, endpoint):
    # Loaded models show in /api/ps, copies in /api/tags: both askings must find the box in the same state.
    ask(ollama.address, "POST", "/api/chat", body=CHAT)
    direct = ask(ollama.address, *endpoint[:2], body=endpoint[2])
    through = ask(ollama_gateway.address, *endpoint[:2], body=endpoint[2])
    if endpoint[1] == "/api/ps":
        # Of what was loaded behind its back the gateway hears a little later.
        wait_until(lambda: ask(ollama_gateway.address, "GET", "/api/ps").json["models"], "the loaded model", limit=3)
        through = ask(ollama_gateway.address, "GET", "/api/ps")
    assert (through.status, through.header("Content-Type")) == (direct.status, direct.header("Content-Type"))
    assert steady(through.body) == steady(direct.body)
    assert through.complete and direct.complete
    # GET and HEAD / are the gateway's own.
    if endpoint[1] != "/":
        expected = {name.lower() for name, _ in direct.fields}
        assert expected - {b"connection", b"keep-alive"} <= {name.lower() for name, _ in through.fields}
        assert (through.header("Allow"), through.header("Location")) == (
            direct.header("Allow"),
            direct.header("Location"),
        )


# MARK: Bodies of answers


@pytest.mark.parametrize(
    ("content_type", "chunks"), [(NDJSON, NDJSON_CHUNKS), (SSE, SSE_CHUNKS), (JSON, NDJSON_CHUNKS)]
)
def test_a_stream_passes_unchanged_when_its_chunks_are_split_at_every_byte_offset(box, gateway, content_type, chunks):
    content = b"".join(chunks)
    passed_on = threading.Semaphore(0)
    offset = 0

    def script(exchange):
        exchange.start_stream(content_type)
        exchange.chunk(content[:offset])
        assert passed_on.acquire(timeout=10)
        exchange.chunk(content[offset:])
        exchange.end_stream()

    box.script = script
    with Connection(gateway.address) as client:
        for offset in range(1, len(content)):
            client.request("POST", "/v1/chat" if content_type == SSE else "/api/chat", body={})
            client.read_head()
            # The rest is only sent once this much has come out at the other end.
            assert client.read_body(offset) == content[:offset]
            passed_on.release()
            answer = client.read_rest()
            assert (answer.status, answer.content_type, answer.complete) == (200, content_type, True)
            assert answer.body == content, f"split at {offset}"


def test_a_stream_passes_unchanged_when_the_boxes_bytes_are_split_at_every_offset(box, gateway):
    content = b"".join(NDJSON_CHUNKS)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"".join(b"%x;ext=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in NDJSON_CHUNKS) + b"0\r\n\r\n"
    offset = 0

    def script(exchange):
        exchange.send(whole[:offset])
        exchange.send(whole[offset:])

    box.script = script
    with Connection(gateway.address) as client:
        for offset in range(1, len(whole)):
            client.request("POST", "/api/chat", body={})
            answer = client.read_answer()
            assert (answer.body, answer.complete) == (content, True), f"split at {offset}"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 16383, 16384, 16385, 65535, 65536, 65537, 5_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_of_any_size_and_framing_arrives_exactly(box, gateway, size, framing):
    content = random.Random(size).randbytes(size)

    def script(exchange):
        if framing == "length":
            exchange.answer(content, content_type="application/octet-stream")
        elif framing == "chunked":
            exchange.stream([content[i : i + 8191] for i in range(0, size, 8191)], "application/octet-stream")
        else:
            exchange.head("Content-Type: application/octet-stream", "Connection: close")
            exchange.send(content)
            exchange.cut()

    box.script = script
    answer = ask(gateway.address, "GET", "/api/status")
    assert (answer.status, answer.complete, len(answer.body)) == (200, True, size)
    assert answer.body == content
    if framing == "length":
        assert answer.header("Content-Length") == str(size)


def test_a_box_that_speaks_http_1_0_is_understood(box, gateway):
    def script(exchange):
        exchange.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold but whole")
        exchange.cut()

    box.script = script
    answer = ask(gateway.address, "GET", "/api/status")
    assert (answer.status, answer.body, answer.complete) == (200, b"old but whole", True)


def test_a_compressed_answer_is_not_unpacked(box, gateway):
    packed = gzip.compress(b'{"models":[]}')
    box.script = lambda exchange: exchange.answer(packed, "Content-Encoding: gzip")
    answer = ask(gateway.address, "GET", "/api/status", [("Accept-Encoding", "gzip")])
    assert (answer.body, answer.header("Content-Encoding")) == (packed, "gzip")
    assert box.last.header("Accept-Encoding") == "gzip"


def test_a_long_line_of_many_megabytes_passes(box, gateway):
    line = b'{"context":[' + b"128006," * 1_000_000 + b'0],"done":true}\n'
    box.script = lambda exchange: exchange.stream([line])
    answer = ask(gateway.address, "POST", "/api/generate", body={})
    assert (answer.body == line, answer.complete) == (True, True)


# MARK: Status and header of answers


@pytest.mark.parametrize("status", [200, 201, 202, 206, 226, 300, 400, 401, 403, 404, 405, 409, 418, 422, 429, 499])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_status_passes_with_its_body(box, gateway, method, status):
    box.script = lambda exchange: exchange.answer({"error": "said the box"}, status=f"{status} Whatever It Says")
    answer = ask(gateway.address, method, "/api/x", body={} if method == "POST" else None)
    assert (answer.status, answer.json, answer.complete) == (status, {"error": "said the box"}, True)


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 507, 599])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_an_error_of_the_box_is_not_reworded(box, gateway, path, status):
    body = b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
    box.script = lambda exchange: exchange.answer(body, "Retry-After: 7", status=f"{status} Busy")
    answer = ask(gateway.address, "POST", path, body={})
    assert (answer.status, answer.body, answer.header("Retry-After")) == (status, body, "7")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_passed_on_and_not_followed(box, gateway, status):
    box.script = lambda exchange: exchange.answer(b"moved", "Location: /elsewhere?a=%2F", status=f"{status} Moved")
    answer = ask(gateway.address, "POST", "/api/status/", body={})
    assert (answer.status, answer.header("Location"), answer.body) == (status, "/elsewhere?a=%2F", b"moved")
    assert len(box.asked) == 1


def test_header_fields_of_an_answer_pass_unchanged(box, gateway):
    fields = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Date", b"Fri, 21 Aug 2026 18:48:22 GMT"),
        (b"Server", b"a box"),
        (b"Cache-Control", b"no-cache"),
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"Set-Cookie", b"b=2"),
        (b"X-Mixed-CASE", b"Kept As It Is"),
        (b"x-twice", b"one"),
        (b"X-Between", b""),
        (b"x-twice", b"two"),
        (b"X-Latin", b"caf\xe9 \xff\x80"),
        (b"X-UTF-8", "世界".encode()),
        (b"X-Spaces", b"a  b\tc"),
        (b"WWW-Authenticate", b'Basic realm="box"'),
        (b"ETag", b'"abc"'),
        (b"Vary", b"Origin"),
    ]

    def script(exchange):
        head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%s: %s\r\n" % field for field in fields)
        exchange.send(head + b"Content-Length: 2\r\n\r\nok")

    box.script = script
    answer = ask(gateway.address, "GET", "/api/status")
    names = {name.lower() for name, _ in fields}
    assert [field for field in answer.fields if field[0].lower() in names] == fields
    extra = {name.lower() for name, _ in answer.fields} - names
    assert extra <= ADDED_TO_ANSWERS | {b"content-length"}


def test_a_stream_has_the_same_header_as_other_answers(box, gateway):
    def script(exchange):
        exchange.start_stream(SSE, "Cache-Control: no-cache", "X-One: 1", "X-One: 2")
        exchange.chunk(b"data: {}\n\n")
        exchange.end_stream()

    box.script = script
    answer = ask(gateway.address, "POST", "/v1/messages", body={})
    assert (answer.header("Content-Type"), answer.header("Cache-Control")) == (SSE, "no-cache")
    assert answer.headers("X-One") == [b"1", b"2"]
    assert answer.header("Content-Length") is None
    assert len(answer.headers("Date")) <= 1


def test_a_date_is_not_doubled(box, gateway):
    box.script = lambda exchange: exchange.answer(b"{}", "Date: Fri, 21 Aug 2026 18:48:22 GMT")
    answer = ask(gateway.address, "GET", "/api/status")
    assert answer.headers("Date") == [b"Fri, 21 Aug 2026 18:48:22 GMT"]


def test_hop_by_hop_fields_of_an_answer_stay_behind(box, gateway):
    fields = ["Connection: X-Private, keep-alive", "X-Private: 1", "Keep-Alive: timeout=5", "X-Public: 1"]
    fields += ["Proxy-Authenticate: Basic", "Upgrade: h2c"]
    box.script = lambda exchange: exchange.answer(b"{}", *fields)
    answer = ask(gateway.address, "GET", "/api/status")
    assert answer.header("X-Public") == "1"
    assert answer.header("X-Private") is None
    assert answer.header("Upgrade") is None
    assert answer.header("Proxy-Authenticate") is None
    assert answer.header("Keep-Alive") != "timeout=5"


def test_cookies_of_a_box_are_not_sent_to_it_for_another_client(box, gateway):
    box.script = lambda exchange: exchange.answer(b"{}", "Set-Cookie: session=secret; Path=/")
    ask(gateway.address, "GET", "/api/status")
    ask(gateway.address, "GET", "/api/status")
    assert box.last.header("Cookie") is None


def test_a_204_has_no_body_and_the_connection_goes_on(box, gateway):
    box.script = lambda exchange: exchange.head("Access-Control-Allow-Origin: *", status="204 No Content")
    with Connection(gateway.address) as client:
        for _ in range(3):
            client.request("OPTIONS", "/api/chat")
            answer = client.read_answer("OPTIONS")
            assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (204, "*")
            assert answer.header("Transfer-Encoding") is None
            assert answer.header("Content-Length") in (None, "0")


@pytest.mark.parametrize("length", [[], ["Content-Length: 42"]])
def test_a_304_has_no_body_and_the_connection_goes_on(box, gateway, length):
    box.script = lambda exchange: exchange.head('ETag: "x"', *length, status="304 Not Modified")
    with Connection(gateway.address) as client:
        for _ in range(3):
            client.request("GET", "/api/status", [("If-None-Match", '"x"')])
            answer = client.read_answer()
            assert (answer.status, answer.header("ETag")) == (304, '"x"')
            assert answer.header("Transfer-Encoding") is None
    assert box.last.header("If-None-Match") == '"x"'


@pytest.mark.parametrize("framing", ["Content-Length: 0", "Transfer-Encoding: chunked"])
def test_an_empty_200_passes(box, gateway, framing):
    def script(exchange):
        exchange.head(framing)
        if "chunked" in framing:
            exchange.end_stream()

    box.script = script
    with Connection(gateway.address) as client:
        for _ in range(3):
            client.request("DELETE", "/api/delete", body={"model": "x"})
            answer = client.read_answer("DELETE")
            assert (answer.status, answer.body, answer.complete) == (200, b"", True)


@pytest.mark.parametrize("framing", ["Content-Length: 1234", "Transfer-Encoding: chunked", "X-None: 1"])
def test_an_answer_to_head_has_the_header_and_no_body(box, gateway, framing):
    box.script = lambda exchange: exchange.head("Content-Type: text/plain", framing, "X-Box: 1")
    with Connection(gateway.address) as client:
        for _ in range(3):
            client.request("HEAD", "/api/blobs/sha256-0")
            answer = client.read_answer("HEAD")
            assert (answer.status, answer.header("X-Box"), answer.content_type) == (200, "1", "text/plain")
            if "1234" in framing:
                assert answer.header("Content-Length") == "1234"
        # Had a body followed, this would not be read as an answer.
        box.script = lambda exchange: exchange.answer(b"after")
        client.request("GET", "/api/status")
        assert client.read_answer().body == b"after"
    assert box.asked[0].method == "HEAD"


def test_interim_answers_of_a_box_do_not_disturb_the_final_one(box, gateway):
    def script(exchange):
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-Early: 1\r\n\r\n")
        exchange.answer(b'{"final":true}')

    box.script = script
    answer = ask(gateway.address, "GET", "/api/status")
    assert (answer.status, answer.body) == (200, b'{"final":true}')
    assert answer.header("X-Early") is None


def test_trailers_of_a_stream_do_not_end_up_in_its_body(box, gateway):
    def script(exchange):
        exchange.start_stream(NDJSON, "Trailer: X-Sum")
        exchange.chunk(b"{}\n")
        exchange.send(b"0\r\nX-Sum: 1\r\n\r\n")

    box.script = script
    with Connection(gateway.address) as client:
        for _ in range(2):
            client.request("POST", "/api/chat", body={})
            answer = client.read_answer()
            assert (answer.body, answer.complete) == (b"{}\n", True)


# MARK: Requests


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-ODD_1.a"])
@pytest.mark.parametrize("body", [None, b"", b'{"a":1}'])
def test_every_method_reaches_the_box_with_its_body(box, gateway, method, body):
    answer = ask(gateway.address, method, "/api/anything", body=body)
    assert (answer.status, answer.json) == (200, {"ok": True})
    assert (box.last.method, box.last.target, box.last.body) == (method, "/api/anything", body or b"")


@pytest.mark.parametrize(
    "target",
    [
        "/api/status?",
        "/api/status?x=1&y=%2F&&z",
        "/api/status?a=b?c=d/../e",
        "/a%20b%2Fc%2e%2E%00%ff%zz",
        "//api//tags//",
        "/api/../api/status",
        "/../../etc/passwd",
        "/api/./tags/.",
        "/api/status/..",
        "/%2e%2e/",
        "/api;a=b,c:d@e!$&'()*+=~_-",
        '/api/{x}|"<y>^`[z]\\',
        "/health/deeper",
        "/healthy",
        "/" + "long/" * 1000,
        "/api/status?q=" + "x" * 6000,
    ],
)
def test_a_target_reaches_the_box_as_it_was_written(box, gateway, target):
    answer = ask(gateway.address, "GET", target)
    assert (answer.status, answer.json) == (200, {"ok": True})
    assert box.last.target == target


@pytest.mark.parametrize("target", [b"/caf\xc3\xa9?\xff", b"/api#fragment", b"*"])
def test_an_unusual_target_is_passed_as_written_or_refused(box, gateway, target):
    with Connection(gateway.address) as client:
        client.send(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = client.read_answer()
    if answer.status == 200:
        assert box.last.target.encode("latin1") == target
    else:
        assert 400 <= answer.status < 500
    assert gateway.is_healthy()


def test_a_backend_with_a_prefix_gets_it_before_every_target(box, start_gateway):
    for written in (f"http://{box.address}/ollama", f"http://{box.address}/ollama/"):
        gateway = start_gateway(written)
        ask(gateway.address, "GET", "/api/status?x=%2F")
        assert box.last.target == "/ollama/api/status?x=%2F"


def test_header_fields_of_a_request_pass_unchanged(box, gateway):
    fields = [
        (b"User-Agent", b"ollama-python/0.6.3 (x86_64 linux)"),
        (b"Accept", b"application/json, text/*;q=0.5"),
        (b"Content-Type", b"application/json; charset=utf-8"),
        (b"Authorization", b"Bearer secret"),
        (b"Cookie", b"a=1; b=2"),
        (b"X-Twice", b"one"),
        (b"x-twice", b"two"),
        (b"X-Twice", b"one"),
        (b"X-MIXED-case", b"Kept"),
        (b"X-Latin", b"caf\xe9 \xff\x80"),
        (b"X-UTF-8", "世界".encode()),
        (b"X-Spaces", b"a  b\tc"),
        (b"X-Punctuation", b'"quoted", (comment); @at'),
        (b"Referer", b"http://x/y"),
        (b"x-stainless-retry-count", b"0"),
        (b"Range", b"bytes=0-1"),
        (b"X-Long", b"v" * 4000),
    ]
    ask(gateway.address, "POST", "/api/chat", fields, body=b"{}")
    names = {name.lower() for name, _ in fields}
    assert [field for field in box.last.fields if field[0].lower() in names] == fields


def test_an_empty_header_field_reaches_the_box(box, gateway):
    ask(gateway.address, "GET", "/api/status", [("X-Empty", ""), ("X-After", "1")])
    assert (box.last.header("X-Empty"), box.last.header("X-After")) == ("", "1")


def test_nothing_is_added_to_a_request_but_what_says_where_it_came_from(box, gateway):
    ask(gateway.address, "POST", "/api/chat", body=b"{}")
    names = {name.lower() for name, _ in box.last.fields}
    added = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"traceparent"}
    assert names - {b"via", b"connection"} == {b"host", b"content-length"} | added


def test_the_box_learns_who_asked_and_for_what_host(box, gateway):
    ask(gateway.address, "GET", "/api/status", [("Host", "ollama.example:8080")])
    assert box.last.headers("Host") == [box.address.encode()]
    assert box.last.header("X-Forwarded-For") == "127.0.0.1"
    assert box.last.header("X-Forwarded-Proto") == "http"
    assert box.last.header("X-Forwarded-Host") == "ollama.example:8080"


def test_who_asked_is_added_to_what_an_earlier_proxy_said(box, gateway):
    ask(gateway.address, "GET", "/api/status", [("X-Forwarded-For", "192.0.2.1, 192.0.2.2")])
    whole = b", ".join(box.last.headers("X-Forwarded-For")).decode()
    assert whole.split(", ")[-1] == "127.0.0.1"


def test_the_origin_is_not_forwarded(box, gateway):
    fields = [("oRiGiN", "https://evil.example"), ("Referer", "https://kept.example")]
    ask(gateway.address, "GET", "/api/status", fields)
    assert (box.last.header("Origin"), box.last.header("Referer")) == (None, "https://kept.example")


@pytest.mark.parametrize("hop", HOP_BY_HOP)
def test_a_hop_by_hop_field_is_not_forwarded(box, gateway, hop):
    ask(gateway.address, "GET", "/api/status", [(hop, "trailers"), ("X-Kept", "1")])
    assert (box.last.header(hop), box.last.header("X-Kept")) == (None, "1")


def test_fields_that_connection_names_are_not_forwarded(box, gateway):
    fields = [("Connection", "x-private , keep-alive"), ("X-Private", "1"), ("X-Public", "2")]
    fields += [("Connection", "X-Other"), ("x-other", "3"), ("X-OTHER", "4")]
    ask(gateway.address, "GET", "/api/status", fields)
    assert box.last.header("X-Private") is None
    assert box.last.header("X-Other") is None
    assert box.last.header("X-Public") == "2"
    assert "private" not in (box.last.header("Connection") or "").lower()


def test_connection_cannot_name_away_what_frames_the_message(box, gateway):
    fields = [("Connection", "Content-Length, Host, Transfer-Encoding, Content-Type"), ("Content-Type", "a/b")]
    answer = ask(gateway.address, "POST", "/api/chat", fields, body=b'{"a":1}')
    assert answer.status in (200, 400)
    if answer.status == 200:
        assert box.last.body == b'{"a":1}'
        assert box.last.header("Host") == box.address


def test_a_sane_request_id_is_kept(box, gateway):
    for sane in ("abc-123", "0b9f6a0e-7f4d-4a3c-9d53-1a7a1c1f3f10", "a.b_c", "Z"):
        ask(gateway.address, "GET", "/api/status", [("X-Request-ID", sane)])
        assert box.last.headers("X-Request-Id") == [sane.encode()]


@pytest.mark.parametrize("insane", ["", "x" * 5000, "two words", 'quo"ted', "caf\xe9", "a\x0b", "<b>", "a,b;c{}"])
def test_an_insane_request_id_is_replaced(box, gateway, insane):
    answer = ask(gateway.address, "GET", "/api/status", [("X-Request-Id", insane)])
    if answer.status == 400:
        assert "\x0b" in insane
        return
    (given,) = box.last.headers("X-Request-Id")
    assert given != insane.encode("latin1")
    assert 1 <= len(given) <= 200 and given.isascii() and b" " not in given


def test_two_request_ids_become_one(box, gateway):
    ask(gateway.address, "GET", "/api/status", [("X-Request-Id", "one"), ("X-Request-Id", "two")])
    assert len(box.last.headers("X-Request-Id")) == 1


def test_every_request_gets_an_id_of_its_own(box, gateway):
    for _ in range(50):
        ask(gateway.address, "GET", "/api/status")
    assert len({asked.header("X-Request-Id") for asked in box.asked}) == 50


@pytest.mark.parametrize("size", [1, 1000, 65535, 65536, 65537, 1_000_000, 5_000_000])
def test_a_body_of_any_size_reaches_the_box_exactly(box, gateway, size):
    body = random.Random(size).randbytes(size)
    assert ask(gateway.address, "POST", "/api/create", body=body).status == 200
    assert box.last.body == body


@pytest.mark.parametrize("path", ["/api/chat", "/api/blobs/sha256-" + "0" * 64])
@pytest.mark.parametrize("piece", [1, 7, 4096, 300_000])
def test_a_chunked_upload_reaches_the_box_exactly(box, gateway, path, piece):
    body = random.Random(piece).randbytes(min(piece * 50, 2_000_000))
    with Connection(gateway.address) as client:
        client.request("POST", path, [("Transfer-Encoding", "chunked")])
        for start in range(0, len(body), piece):
            part = body[start : start + piece]
            client.send(b'%X;ext="1"\r\n%s\r\n' % (len(part), part))
        client.send(b"0\r\nX-Trailer: 1\r\n\r\n")
        assert client.read_answer().status == 200
        assert box.last.body == body
        assert box.last.header("X-Trailer") is None
        # The connection is at the start of the next request.
        client.request("GET", "/api/status")
        assert client.read_answer().status == 200


def test_a_body_split_at_every_byte_offset_reaches_the_box(box, gateway):
    for framing in ("length", "chunked"):
        body = b'{"model":"m"}'
        fields = [("Transfer-Encoding", "chunked")] if framing == "chunked" else []
        sent = b"6\r\n" + body[:6] + b"\r\n7\r\n" + body[6:] + b"\r\n0\r\n\r\n" if framing == "chunked" else body
        message = request_bytes("POST", "/api/chat", fields, sent)
        with Connection(gateway.address) as client:
            for offset in range(1, len(message)):
                client.send(message[:offset])
                client.send(message[offset:])
                assert client.read_answer().status == 200, f"split at {offset}"
                assert box.last.body == body


@pytest.mark.parametrize("path", ["/api/chat", "/api/blobs/sha256-" + "0" * 64])
def test_a_client_that_expects_100_continue_gets_it_before_it_sends_its_body(box, gateway, path):
    with Connection(gateway.address) as client:
        client.request("POST", path, [("Expect", "100-continue"), ("Content-Length", "7")])
        assert client.inlet.line() == b"HTTP/1.1 100 Continue"
        assert client.inlet.fields() == []
        client.send(b'{"a":1}')
        assert client.read_answer().status == 200
    assert box.last.body == b'{"a":1}'


def test_a_client_that_does_not_wait_for_100_continue_is_served_too(box, gateway):
    answer = ask(gateway.address, "POST", "/api/chat", [("Expect", "100-continue")], body=b'{"a":1}')
    assert (answer.status, box.last.body) == (200, b'{"a":1}')


# MARK: Connections


def test_a_connection_serves_many_requests(box, gateway):
    with Connection(gateway.address) as client:
        for number in range(50):
            client.request("POST", f"/api/{number}", body=b"%d" % number)
            assert client.read_answer().status == 200
            assert (box.last.target, box.last.body) == (f"/api/{number}", b"%d" % number)


def test_connections_to_the_box_are_reused(box, gateway):
    before = box.connections
    for _ in range(30):
        ask(gateway.address, "POST", "/api/chat", body=b"{}")
    assert box.connections - before <= 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_the_box_ended_while_idle_is_replaced(box, gateway, method):
    for _ in range(10):
        answer = ask(gateway.address, method, "/api/chat", body=b"{}" if method == "POST" else None)
        assert answer.status == 200
        box.hang_up()


def test_pipelined_requests_are_answered_in_their_order(box, gateway):
    box.script = lambda exchange: exchange.answer([exchange.asked.target, exchange.asked.body.decode()])
    with Connection(gateway.address) as client:
        messages = [
            request_bytes("POST", f"/{number}", body=b"body %d" % number)
            if number % 3
            else request_bytes("GET", f"/{number}")
            for number in range(1, 31)
        ]
        client.send(b"".join(messages))
        for number in range(1, 31):
            assert client.read_answer().json == [f"/{number}", f"body {number}" if number % 3 else ""]


def test_pipelined_streams_are_answered_in_their_order(box, gateway):
    box.script = lambda exchange: exchange.stream([exchange.asked.body, b"\n"] * 3)
    with Connection(gateway.address) as client:
        client.send(b"".join(request_bytes("POST", "/api/chat", body=b'{"n":%d}' % n) for n in range(10)))
        for number in range(10):
            assert client.read_answer().body == b'{"n":%d}\n' % number * 3


def test_a_client_that_asks_for_close_gets_it(box, gateway):
    with Connection(gateway.address) as client:
        client.request("GET", "/api/status", [("Connection", "close")])
        answer = client.read_answer()
        assert (answer.status, answer.header("Connection").lower()) == (200, "close")
        assert client.has_ended()


@pytest.mark.parametrize("fields", [[], [("Host", "x")]])
def test_an_http_1_0_client_gets_an_answer_and_the_end_of_the_connection(box, gateway, fields):
    with Connection(gateway.address) as client:
        client.request("GET", "/api/status", fields, version="HTTP/1.0")
        answer = client.read_answer()
        assert (answer.status, answer.json) == (200, {"ok": True})
        assert client.has_ended()


def test_an_http_1_0_client_gets_a_stream_without_chunk_framing(box, gateway):
    box.script = lambda exchange: exchange.stream(NDJSON_CHUNKS)
    with Connection(gateway.address) as client:
        client.request("POST", "/api/chat", body=b"{}", version="HTTP/1.0")
        answer = client.read_answer()
        assert answer.framing == "close"
        assert answer.body == b"".join(NDJSON_CHUNKS)


@pytest.mark.parametrize("then", ["waits", "goes on"])
def test_an_answer_before_the_end_of_the_upload_reaches_the_client(start_box, start_gateway, then):
    def script(exchange):
        exchange.answer({"error": "digest mismatch"}, "Connection: close", status="400 Bad Request")
        exchange.plug.shutdown(1)
        exchange.wait_for_departure()

    gateway = start_gateway(start_box(script, reads_bodies=False).address)
    with Connection(gateway.address) as client:
        client.request("POST", "/api/blobs/sha256-0", [("Content-Length", "10000000")])
        client.send(b"x" * 1000)
        if then == "goes on":
            client.send(bytes(10_000_000 - 1000))
        answer = client.read_answer()
        assert (answer.status, answer.json) == (400, {"error": "digest mismatch"})
    assert gateway.is_healthy()


def test_backends_are_asked_in_turn(start_box, start_gateway):
    boxes = [start_box() for _ in range(3)]
    gateway = start_gateway(*(box.address for box in boxes))
    for _ in range(12):
        assert ask(gateway.address, "GET", "/api/status").status == 200
    assert [len(box.asked) for box in boxes] == [4, 4, 4]


@pytest.mark.parametrize("written", ["{}", "http://{}", "http://{}/", " {}"])
def test_a_backend_may_be_written_in_several_ways(box, start_gateway, written):
    gateway = start_gateway(written.format(box.address))
    assert ask(gateway.address, "GET", "/api/status").status == 200


def test_a_backend_may_have_an_ipv6_address(start_box, start_gateway):
    box = start_box(host="::1")
    gateway = start_gateway(f"http://{box.address}")
    assert ask(gateway.address, "GET", "/api/status").status == 200
    assert box.last.header("Host") == box.address
