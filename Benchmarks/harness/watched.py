"""What being watched costs: answers from the cache with everything counted, shown and scraped, and with nothing of it."""

import contextlib
import http.client
import threading

from . import hits, servers
from .client import Client
from .turns import detail_rows, share_row, take_turns

# The shipped Prometheus asks every 5 s.
SCRAPE_EVERY = 1.0


def measure(programs, quick):
    if programs.calibrate:
        return []  # there is nothing to switch off
    turns, seconds = (3, 1) if quick else (5, 3)
    with servers.fast_backend() as backend, \
            programs.gateway(backend.port, cache_ttl="1h") as watched, \
            programs.gateway(backend.port, cache_ttl="1h", options=["--no-metrics"]) as alone:
        for server in (watched, alone):
            hits.first_hit(server)
        with watching(watched):
            rounds = take_turns("watched", (watched, alone), turns, seconds)
        for server in (watched, alone):
            with Client(server) as client:
                client.hit()
    ours, without = rounds
    return [
        share_row("Cache hits/s with metrics, page and scrapes, as a share of `--no-metrics`", ours, without, 0.93,
                  limits=[ours, without]),
        *detail_rows("watched / not", ours, without),
    ]


@contextlib.contextmanager
def watching(gateway):
    """The page is open, and Prometheus asks once a second."""
    over = threading.Event()
    events = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    events.request("GET", "/gateway/events")
    stream = events.getresponse()

    def read():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            while stream.readline():
                pass

    def scrape():
        while not over.wait(SCRAPE_EVERY):
            asking = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
            asking.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
            asking.getresponse().read()
            asking.close()

    threads = [threading.Thread(target=work, daemon=True) for work in (read, scrape)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        events.close()
        for thread in threads:
            thread.join(5)
