"""The program itself: its options, its own pages, its log, and how it starts and ends."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from programs import binary, ended_within, run
from wire import Connection, Ended, ask, connect, wait_until

CRASHES = {-signal.SIGSEGV, -signal.SIGILL, -signal.SIGTRAP, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE}
OPTIONS = [
    "--port", "--host", "--backends", "--backend-ca", "--cache-ttl", "--rate-limit", "--rate-window",
    "--health-interval", "--max-body", "--connect-timeout", "--first-byte-timeout", "--idle-timeout",
    "--cache-max-bytes", "--cache-max-entry", "--cache-only", "--cache-tools", "--stale-if-error",
    "--concurrency", "--queue-limit", "--queue-timeout", "--balance", "--retries", "--manage",
    "--drain-timeout", "--log-level", "--log-format", "--version", "--help", "-p", "-b", "-c",
]  # fmt: skip
DURATION = r"\d ?(ms|s|m)\b|second"


# MARK: Options


@pytest.mark.parametrize("program", ["ollama-gateway", "simulated-ollama"])
def test_help_names_every_option(program):
    done = run(program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    if program == "ollama-gateway":
        assert [option for option in OPTIONS if option not in done.stdout] == []
        assert re.findall("8080|11434|127.0.0.1", done.stdout)
        assert "not in use" not in done.stdout
        assert "status" in done.stdout, "the command that shows the boxes"


def test_the_help_of_the_status_names_its_options():
    done = run("ollama-gateway", "status", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--url" in done.stdout and "--watch" in done.stdout


def test_version_is_one_line():
    done = run("ollama-gateway", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r".*\d+\.\d+(\.\d+)?\S*\n", done.stdout)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--port", "-1", "65535"),
        ("--port", "65536", "65535"),
        ("--port", "http", "65535"),
        ("--port", "", "65535"),
        ("-p", "80.5", "65535"),
        ("--cache-ttl", "-1", r"\d|second"),
        ("--cache-ttl", "soon", r"\d|second"),
        ("--cache-max-bytes", "1KiB", "MiB"),
        ("--cache-max-bytes", "lots", "MiB"),
        ("--cache-max-entry", "0", "KiB"),
        ("--cache-only", "some", "all and deterministic"),
        ("--stale-if-error", "-1", r"\d|second"),
        ("--concurrency", "0", "1 to"),
        ("--concurrency", "2.5", "1 to"),
        ("--queue-limit", "-1", "0 to"),
        ("--queue-timeout", "0", r"\d|second"),
        ("--balance", "random", "round-robin.*least-loaded.*affinity"),
        ("--retries", "-1", "0 to"),
        ("--retries", "often", "0 to"),
        ("--manage", "some", "all.*first.*off"),
        ("--rate-limit", "-1", r"\d"),
        ("--rate-limit", "many", r"\d"),
        ("--rate-window", "-5", r"\d|second"),
        ("--rate-window", "long", r"\d|second"),
        ("--health-interval", "-5", r"\d|second"),
        ("--health-interval", "often", r"\d|second"),
        ("--max-body", "-1", r"\d|byte|MiB"),
        ("--max-body", "huge", r"\d|byte|MiB"),
        ("--max-body", "99999999999999999999999", r"\d|byte|MiB"),
        ("--connect-timeout", "soon", DURATION),
        ("--connect-timeout", "-1s", DURATION),
        ("--connect-timeout", "5x", DURATION),
        ("--connect-timeout", "", DURATION),
        ("--connect-timeout", "99999999999999999999s", DURATION),
        ("--first-byte-timeout", "1 fortnight", DURATION),
        ("--idle-timeout", "s", DURATION),
        ("--drain-timeout", "-3", DURATION),
        ("--log-level", "loud", "info"),
        ("--log-format", "xml", "json"),
        ("--backends", "", "host"),
        ("--backends", "ftp://box", "http"),
        ("--backends", "box:99999", "65535|port"),
        ("--backends", "box:port", "65535|port"),
        ("--backends", "http://", "host"),
        ("--backends", "a b", "host|http"),
        ("--backends", "http://box?query=1", "host|http"),
        ("--backends", "box;weight=0", "1 to 1000|1000"),
        ("--backends", "box;weight=1001", "1000"),
        ("--backends", "box;weight=heavy", "1000"),
        ("--backends", "box;tier=0", "100"),
        ("--backends", "box;tier=101", "100"),
        ("--backends", "box;concurrency=0", "1"),
        ("--backends", "box;wieght=2", "weight"),
        ("--backends", "box;weight", "weight"),
        ("-b", "localhost:11434,,", "list"),
        ("--backend-ca", "/no/such/file.pem", "file|PEM|read"),
        ("--host", "", "address|host"),
    ],
)
def test_a_bad_value_stops_the_start_with_a_clear_sentence(option, value, allowed):
    done = run("ollama-gateway", "--port=0" if "-p" not in option else "--host=127.0.0.1", f"{option}={value}"
               if option.startswith("--") else option, *([value] if not option.startswith("--") else []))  # fmt: skip
    assert done.returncode == 64, done
    sentences = [line for line in done.stderr.splitlines() if not line.startswith("See ")]
    assert len(sentences) == 1, done.stderr
    names = {"-p": "--port", "-b": "--backends"}
    assert re.search(rf"{option}\b|{names.get(option, option)}\b", sentences[0]), sentences[0]
    wrong = value.split(",")[0] if option != "-b" else value
    assert wrong in sentences[0], sentences[0]
    if not value:
        return  # Nothing was given: to say so is enough.
    rest = sentences[0].replace(f"'{value}'", "").replace(value, "")
    assert re.search(allowed, rest), f"does not say what is allowed: {sentences[0]}"


def test_an_unknown_option_stops_the_start():
    done = run("ollama-gateway", "--portt", "1")
    assert done.returncode == 64
    assert "--portt" in done.stderr and "--port" in done.stderr.replace("--portt", "")


def test_a_file_that_is_no_certificate_stops_the_start(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text("this is no certificate\n")
    done = run("ollama-gateway", "--port=0", f"--backend-ca={file}", "--backends=https://localhost:1")
    assert done.returncode == 64
    assert "--backend-ca" in done.stderr


def test_a_port_that_is_taken_stops_the_start(gateway):
    port = gateway.address.split(":")[1]
    done = run("ollama-gateway", "--port", port)
    assert done.returncode == 1
    sentences = [line for line in done.stderr.splitlines() if port in line]
    assert len(sentences) == 1 and "in use" in sentences[0], done.stderr


def test_a_host_that_is_not_ours_stops_the_start():
    done = run("ollama-gateway", "--port=0", "--host=192.0.2.1")
    assert done.returncode in (1, 64)
    assert "192.0.2.1" in done.stderr


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("connect_timeout", ["500ms", "5s", "10m", "5"]),
        ("cache_ttl", [1, 30, 3600]),
        ("rate_limit", [1, 10]),
        ("rate_window", [1, 60]),
        ("health_interval", [1, "1s", 30]),
        ("balance", ["round-robin", "least-loaded", "affinity"]),
        ("retries", [0, 5]),
        ("manage", ["all", "first", "off"]),
        ("log_level", ["debug", "info", "warning", "error"]),
        ("log_format", ["text", "json"]),
    ],
)
def test_good_values_are_accepted(start_gateway, tmp_path, option, values):
    for value in values:
        # A high log level may leave out the line that tells the address.
        path = tmp_path / f"{value}.sock"
        start_gateway("localhost:1", host=f"unix:{path}", listens=0, **{option: value})
        wait_until(lambda: answers(path), f"an answer with {option} {value}")  # noqa: B023


def answers(path):
    try:
        return ask(f"unix:{path}", "GET", "/health", [("Host", "x")]).status == 200
    except OSError:
        return False


def test_the_released_binary_needs_no_swift():
    if "release" not in str(binary("ollama-gateway")):
        pytest.skip("a debug build")
    listed = subprocess.run(["ldd", binary("ollama-gateway")], capture_output=True, text=True, check=True).stdout
    assert "libmicrohttpd" in listed
    assert "libswift" not in listed and "Foundation" not in listed and "not found" not in listed


# MARK: Its own pages


@pytest.mark.parametrize("target", ["/health", "/health?probe=1"])
def test_health_is_answered_by_the_gateway_itself(box, gateway, target):
    answer = ask(gateway.address, "GET", target)
    assert (answer.status, answer.content_type) == (200, "application/json")
    found = re.fullmatch(
        rb'\{"status":"healthy","timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00)"\}\n?', answer.body
    )
    assert found, answer.body
    stamp = datetime.fromisoformat(found[1].decode())
    assert abs(datetime.now(UTC) - stamp) < timedelta(seconds=5)
    assert not box.asked


def test_health_is_answered_when_no_box_is_there(start_gateway):
    assert start_gateway("localhost:1").is_healthy()


def test_the_root_says_what_the_ollama_command_wants_to_hear(box, gateway):
    answer = ask(gateway.address, "GET", "/")
    assert (answer.status, answer.content_type, answer.body) == (200, "text/plain", b"Ollama is running")
    with Connection(gateway.address) as client:
        for _ in range(2):
            client.request("HEAD", "/")
            answer = client.read_answer("HEAD")
            assert (answer.status, answer.header("Content-Length")) == (200, "17")
    assert not box.asked


# MARK: Listening


def test_several_addresses_are_listened_on(box, start_gateway, tmp_path):
    path = tmp_path / "gateway.sock"
    hosts = ["127.0.0.1", "127.0.0.2", "::1", f"unix:{path}"]
    gateway = start_gateway(box.address, host=hosts, listens=4)
    assert [re.sub(r"\d+$", "PORT", address) for address in gateway.listening[:3]] == [
        "127.0.0.1:PORT",
        "127.0.0.2:PORT",
        "[::1]:PORT",
    ]
    assert gateway.listening[3] == f"unix:{path}"
    for number, address in enumerate(gateway.listening):
        assert ask(address, "POST", f"/{number}", [("Host", "x")], body=b"{}").status == 200
        assert box.last.target == f"/{number}"
    forwarded = [asked.header("X-Forwarded-For") for asked in box.asked]
    assert forwarded[:3] == ["127.0.0.1", "127.0.0.1", "::1"]


def test_a_unix_socket_serves_streams_and_is_gone_afterwards(box, start_gateway, tmp_path):
    path = tmp_path / "gateway.sock"
    box.script = lambda exchange: exchange.stream([b"{}\n"] * 100)
    gateway = start_gateway(box.address, host=f"unix:{path}")
    answer = ask(f"unix:{path}", "POST", "/api/chat", [("Host", "x")], body={})
    assert (answer.body, answer.complete) == (b"{}\n" * 100, True)
    assert gateway.stop() == 0
    assert not path.exists()


def test_the_socket_of_a_crashed_gateway_is_taken_over(box, start_gateway, tmp_path):
    path = tmp_path / "gateway.sock"
    crashed = start_gateway(box.address, host=f"unix:{path}")
    crashed.process.kill()
    crashed.process.wait()
    crashed.process.returncode = 0  # It was meant to.
    assert path.exists()
    start_gateway(box.address, host=f"unix:{path}")
    assert ask(f"unix:{path}", "GET", "/health", [("Host", "x")]).status == 200


def test_a_socket_in_use_is_not_taken_over(box, start_gateway, tmp_path):
    path = tmp_path / "gateway.sock"
    start_gateway(box.address, host=f"unix:{path}")
    assert run("ollama-gateway", f"--host=unix:{path}").returncode == 1
    assert ask(f"unix:{path}", "GET", "/health", [("Host", "x")]).status == 200


# MARK: Ending


class Stream:
    """A client amid a stream whose box goes on when told."""

    def __init__(self, box, gateway):
        self.go_on = threading.Event()
        self.departed = threading.Event()

        def script(exchange):
            exchange.start_stream()
            exchange.chunk(b"1\n")
            if self.go_on.wait(10):
                exchange.chunk(b"2\n")
                exchange.end_stream()
            else:
                exchange.wait_for_departure()
            self.departed.set()

        box.script = script
        self.client = Connection(gateway.address)
        self.client.request("POST", "/api/chat", body={})
        self.client.read_head()
        self.client.read_body(2)


def refuses(address):
    try:
        connect(address, limit=1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_answers_are_finished_before_the_end(box, start_gateway, number):
    gateway = start_gateway(box.address, drain_timeout="20s")
    idle = Connection(gateway.address)
    idle.request("GET", "/health")
    idle.read_answer()
    stream = Stream(box, gateway)
    gateway.signal(number)
    wait_until(lambda: refuses(gateway.address), "the end of listening")
    assert idle.has_ended(), "an idle connection holds up the end"
    assert gateway.is_alive
    stream.go_on.set()
    answer = stream.client.read_rest()
    assert (answer.body, answer.complete) == (b"1\n2\n", True)
    assert stream.client.has_ended()
    assert gateway.wait() == 0


def test_a_request_that_still_waits_for_its_first_byte_is_finished_too(box, start_gateway):
    gateway = start_gateway(box.address, drain_timeout="20s")
    asked, go_on = threading.Event(), threading.Event()

    def script(exchange):
        asked.set()
        assert go_on.wait(10)
        exchange.answer({"late": True})

    box.script = script
    with Connection(gateway.address) as client:
        client.request("POST", "/api/chat", body={})
        assert asked.wait(10)
        gateway.signal()
        wait_until(lambda: refuses(gateway.address), "the end of listening")
        go_on.set()
        assert client.read_answer().json == {"late": True}
    assert gateway.wait() == 0


def test_an_upload_that_runs_is_finished_too(box, start_gateway):
    gateway = start_gateway(box.address, drain_timeout="20s")
    with Connection(gateway.address) as client:
        client.request("POST", "/api/blobs/sha256-0", [("Content-Length", "6")])
        client.send(b"abc")
        wait_until(lambda: box.running, "the call to the box")
        gateway.signal()
        wait_until(lambda: refuses(gateway.address), "the end of listening")
        client.send(b"def")
        assert client.read_answer().status == 200
    assert box.last.body == b"abcdef"
    assert gateway.wait() == 0


def test_the_drain_timeout_cuts_what_still_runs(box, start_gateway):
    gateway = start_gateway(box.address, drain_timeout="500ms")
    stream = Stream(box, gateway)
    begin = time.monotonic()
    gateway.signal()
    answer = stream.client.read_rest()
    assert not answer.complete
    assert gateway.wait() == 0
    assert 0.3 < time.monotonic() - begin < 8
    stream.go_on.set()


def test_a_second_signal_ends_at_once(box, start_gateway):
    gateway = start_gateway(box.address, drain_timeout="30s")
    stream = Stream(box, gateway)
    gateway.signal()
    wait_until(lambda: refuses(gateway.address), "the end of listening")
    assert gateway.is_alive
    gateway.signal()
    assert ended_within(gateway, 3)
    assert gateway.process.returncode not in CRASHES
    gateway.process.returncode = 0
    stream.go_on.set()
    stream.client.close()


def test_an_idle_gateway_ends_at_once(box, start_gateway, figures):
    gateway = start_gateway(box.address, drain_timeout="30s")
    clients = [Connection(gateway.address) for _ in range(100)]
    for client in clients[::2]:
        client.request("GET", "/health")
        client.read_answer()
    begin = time.monotonic()
    assert gateway.stop() == 0
    figures(f"SIGTERM with 100 idle connections: ended after {(time.monotonic() - begin) * 1e3:.0f} ms")
    for client in clients:
        client.close()


def test_the_other_signals_do_no_harm(gateway):
    for number in (signal.SIGPIPE, signal.SIGHUP):
        if number == signal.SIGHUP:
            continue  # It may mean the end of a terminal.
        gateway.signal(number)
        assert gateway.is_healthy()


def test_a_simulated_box_ends_on_a_signal_too(start_ollama):
    assert start_ollama().stop() == 0


# MARK: The log


def every_kind_of_request(box, gateway):
    """Asks in many ways; returns method, target and status of each, in order."""
    asked = []

    def note(method, target, status=200, fields=(), body=None):
        answer = ask(gateway.address, method, target, fields, body)
        assert answer.status == status
        asked.append((method, target, status))

    note("GET", "/log/1")
    note("POST", "/log/2?query=%22", body={})
    note("HEAD", "/log/3")
    note("DELETE", "/log/4", body={})
    note("GET", '/log/5"\\quoted\\"')
    note("GET", "/log/6", fields=[("User-Agent", 'a "quoted" caf\xe9 \\ agent'), ("X-Request-Id", "my-own-id")])
    box.script = lambda exchange: exchange.answer({}, status="404 Not Found")
    note("GET", "/log/7", 404)
    box.script = lambda exchange: exchange.cut()
    note("POST", "/log/8", 502, body={})
    box.script = lambda exchange: exchange.stream([b"{}\n"] * 10)
    note("POST", "/log/9", body={})

    departed = threading.Event()

    def hang(exchange):
        exchange.wait_for_departure()
        departed.set()

    box.script = hang
    count = len(box.asked)
    with Connection(gateway.address) as client:
        client.request("POST", "/log/10", body={})
        wait_until(lambda: len(box.asked) > count, "the call to the box")
    assert departed.wait(10)
    asked.append(("POST", "/log/10", None))
    return asked


def access_lines(gateway, count):
    wait_until(lambda: len(re.findall("/log/", gateway.log)) >= count, "the access lines")
    return [line for line in gateway.log.splitlines() if "/log/" in line]


def test_every_request_is_one_line_of_text_in_the_log(box, start_gateway):
    gateway = start_gateway(box.address, log_format="text")
    asked = every_kind_of_request(box, gateway)
    lines = access_lines(gateway, len(asked))
    assert len(lines) == len(asked), lines
    for line, (method, target, status) in zip(lines, asked, strict=True):
        assert method in line
        assert target.split('"')[0].split("?")[0] in line
        assert status is None or re.search(rf"\b{status}\b", line), line
    assert "my-own-id" in lines[5]


def test_every_request_is_one_json_object_in_the_log(box, start_gateway):
    gateway = start_gateway(box.address, log_format="json")
    asked = every_kind_of_request(box, gateway)
    lines = access_lines(gateway, len(asked))
    assert len(lines) == len(asked), lines
    entries = [json.loads(line) for line in gateway.log.splitlines()]
    assert all(isinstance(entry, dict) for entry in entries)
    for line, (method, target, status) in zip(lines, asked, strict=True):
        values = list(flattened(json.loads(line)))
        assert method in values, line
        assert any(target.split("?")[0] in str(value) for value in values), line
        assert status is None or str(status) in map(str, values), line
    assert "my-own-id" in lines[5]


def flattened(value):
    if isinstance(value, dict):
        for each in value.values():
            yield from flattened(each)
    else:
        yield value


def test_a_higher_log_level_leaves_out_the_access_lines(box, start_gateway, tmp_path):
    path = tmp_path / "gateway.sock"
    gateway = start_gateway(box.address, host=f"unix:{path}", log_level="error", listens=0)
    wait_until(lambda: answers(path), "an answer")
    assert ask(f"unix:{path}", "GET", "/log/1", [("Host", "x")]).status == 200
    assert gateway.stop() == 0
    assert "/log/1" not in gateway.log


def test_what_a_client_sends_cannot_forge_a_line_of_the_log(box, start_gateway):
    for log_format in ("text", "json"):
        gateway = start_gateway(box.address, log_format=log_format)
        with Connection(gateway.address) as client:
            client.send(
                b"GET /log/1?\x1b[31m\x85\xe2\x80\xa8%0aforged HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x85b\r\n\r\n"
            )
            try:
                client.read_answer()
            except Ended:
                pass
        gateway.stop()
        assert "\x1b" not in gateway.log
        if log_format == "json":
            for line in gateway.log.split("\n"):
                assert not line or json.loads(line)


def test_the_log_goes_to_standard_error_and_nothing_to_standard_output(box):
    process = subprocess.Popen(
        [binary("ollama-gateway"), "--port=0", f"--backends={box.address}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stderr.readline()
    while line and "listening on " not in line:
        line = process.stderr.readline()
    assert re.search(r"listening on http://127\.0\.0\.1:\d+", line)
    process.terminate()
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "")


def test_a_log_that_nobody_reads_does_not_end_the_gateway(box):
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [binary("ollama-gateway"), "--port=0", f"--backends={box.address}"], stderr=writer, stdout=subprocess.DEVNULL
    )
    os.close(writer)
    try:
        log = b""
        while b"\n" not in log.partition(b"listening on")[2]:
            log += os.read(reader, 4096)
        address = re.search(rb"listening on http://(\S+)", log)[1].decode()
        os.close(reader)
        for _ in range(3):
            assert ask(address, "GET", "/health").status == 200
    finally:
        process.terminate()
        assert process.wait(10) == 0
