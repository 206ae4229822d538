"""A repeated question beside the slow call that answered it first, through the whole program."""

import time
from statistics import median, quantiles

from .client import Client
from .report import Row, progress

HITS = 1000
AIM = 2000


def measure(programs, quick):
    seconds = 2 if quick else 10
    progress(f"slow: a call of {seconds} s, then {HITS:,} hits")
    with programs.slow_box(f"{seconds}s") as box, programs.gateway(box.port, cache_ttl="1h") as gateway, \
            Client(gateway, patience=seconds + 20) as client:
        call = elapsed(client.ask)
        hits = [elapsed(client.hit) for _ in range(HITS)]
    hit = median(hits)
    what = f"A hit beside a {seconds}-second call" + (" (quick: the full run takes 10)" if quick else "")
    return [
        Row(what, f"{call / hit:,.0f} times faster", f"≥ {AIM:,}", call / hit >= AIM),
        Row("… the call, to its last byte", f"{call:.2f} s"),
        Row(f"… a hit, median / p99 of {HITS:,} on one connection",
            f"{hit * 1e6:.0f} / {quantiles(hits, n=100)[98] * 1e6:.0f} µs"),
    ]


def elapsed(ask):
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start
