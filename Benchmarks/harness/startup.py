"""From fork and exec to the first answer."""

import socket
import time
from statistics import median

from .processes import Failure
from .report import Row, progress


def first_answer(programs):
    with programs.gateway() as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = connection.recv(4096)
        elapsed = time.monotonic() - gateway.launched
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise Failure(f"GET /health answered {answer[:80]!r}")
    return elapsed * 1000


def measure(programs, quick):
    times = 10 if quick else 20
    progress(f"start-up: {times} times")
    took = sorted(first_answer(programs) for _ in range(times))
    middle = median(took)
    return [Row("Time from start to the first answer of GET /health", f"{middle:.1f} ms", "< 50 ms", middle < 50),
            Row(f"… fastest / slowest of {times}", f"{took[0]:.1f} / {took[-1]:.1f} ms")]
