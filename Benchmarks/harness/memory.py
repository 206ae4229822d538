"""What an open stream costs in memory: the gateway's growth with thousands of them open."""

import json
import time

from .processes import DESCRIPTORS, Failure
from .report import Row, progress

WANTED = 10_000
INTERVAL = "2s"
_SPARE = 200


def possible():
    """As many as the descriptor limit allows; the gateway needs two for each."""
    return min(WANTED, (DESCRIPTORS - _SPARE) // 2)


def measure(programs, quick):
    streams = possible()
    settle = 5 if quick else 8
    with programs.box(INTERVAL) as box, programs.gateway(box.port, streaming=True) as gateway:
        # A few streams first: what is allocated once is not any stream's.
        with programs.load(gateway.port, 10, 3, 100) as load:
            load.result(patience=60)
        rss, pss = gateway.memory()
        progress(f"memory: opening {streams:,} streams through {gateway.name}")
        with programs.load(gateway.port, streams, settle + 5, 1000) as load:
            load.wait_for_line("measuring", patience=75)
            time.sleep(settle)
            rss_open, pss_open = gateway.memory()
            result = json.loads(load.result(patience=60))
    held = result["open_at_end"]
    if not held:
        raise Failure(f"no stream stayed open: {result}")
    rss_each, pss_each = ((rss_open - rss) / held / 1024, (pss_open - pss) / held / 1024)
    what = f"Memory per open stream (RSS), {held:,} open"
    if streams < WANTED:
        what += f" (limit of {DESCRIPTORS:,} descriptors)"
    return [
        Row(what, f"{rss_each:.1f} KiB", "≤ 48 KiB", rss_each <= 48 and result["errors"] == 0),
        Row("… the same as PSS", f"{pss_each:.1f} KiB"),
        Row("… the gateway's RSS, before / with all open", f"{rss / 2**20:.1f} / {rss_open / 2**20:.1f} MiB"),
        Row("… streams that failed", f"{result['errors']} of {streams:,}"),
    ]
