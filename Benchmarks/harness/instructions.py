"""Instructions that a request costs the gateway, counted by callgrind: about the same on a busy machine."""

import contextlib
import http.server
import os
import re
import tempfile
import threading
import time

from . import servers
from .client import Client
from .processes import Failure
from .report import Row, progress

WARM_UP = 100
TOLERABLE = 0.01
# Swift's hashes without their seed. And memset and memcpy as loops: callgrind counts `rep stosb` once for each byte,
# and libmicrohttpd clears a connection's 16 KiB with it between two requests.
_ENVIRONMENT = ("env", "SWIFT_DETERMINISTIC_HASHING=1", "GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS")


class LateBackend(http.server.BaseHTTPRequestHandler):
    """Answers when the gateway has surely gone to sleep: else chance decides how many turns its loop makes."""

    protocol_version = "HTTP/1.1"
    LATE = 0.002
    _ANSWER = (f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(servers.ANSWER)}\r\n\r\n"
               f"{servers.ANSWER}").encode()

    def do_GET(self):
        """The gateway's probes; what they ask beside the tags may as well fail."""
        body = servers.TAGS.encode() if self.path == "/api/tags" else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        time.sleep(self.LATE)
        self.wfile.write(self._ANSWER)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def late_backend():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), LateBackend) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def measure(programs, quick):
    if programs.calibrate:
        return []  # nothing is compared here, so nginx has no part to play
    return measure_one(programs, "a hit", "1h", 2000) + measure_one(programs, "a proxied request", "0", 500)


def measure_one(programs, what, cache_ttl, requests):
    counts = []
    with late_backend() as port:
        while len(counts) < 2:
            # What the start, the warm-up and the end cost is in both, and so not in their difference.
            once, twice = (executed(programs, port, cache_ttl, number) for number in (requests, 2 * requests))
            counts.append((twice - once) / requests)
            progress(f"instructions, {what}: {counts[-1]:,.0f}")
    apart = abs(counts[0] - counts[1]) / counts[0]
    return [
        Row(f"Instructions {what} (callgrind)", f"{sum(counts) / 2:,.0f}", unsure=apart > TOLERABLE),
        Row("… counted twice, and how far apart", f"{counts[0]:,.0f} / {counts[1]:,.0f}, {100 * apart:.2f} %",
            f"≤ {100 * TOLERABLE:.0f} %", apart <= TOLERABLE),
    ]


def executed(programs, backend_port, cache_ttl, requests):
    """Instructions of a gateway's whole life, outside the kernel, with so many requests after the warm-up."""
    with tempfile.TemporaryDirectory(prefix="bench-callgrind-") as folder:
        file = os.path.join(folder, "counts")
        callgrind = (*_ENVIRONMENT, "valgrind", "--tool=callgrind", f"--callgrind-out-file={file}")
        with programs.gateway(backend_port, cache_ttl=cache_ttl, under=callgrind) as gateway:
            with Client(gateway, patience=60) as client:
                for _ in range(WARM_UP):
                    client.ask()
                ask = client.ask if cache_ttl == "0" else client.hit
                for _ in range(requests):
                    ask()
            gateway.end()
        with open(file) as lines:
            total = re.search(r"^(?:summary|totals): (\d+)$", lines.read(), re.MULTILINE)
    if not total:
        raise Failure("callgrind has written no total")
    return int(total.group(1))
