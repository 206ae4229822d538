"""1,000 streams at 20 chunks/s each: how late the chunks are, and what each costs the gateway."""

import json
from dataclasses import dataclass

from . import servers
from .processes import SERVER_CORE, TOLERABLE, Failure, core_seconds
from .report import Row, progress

STREAMS = 1000
INTERVAL = "50ms"
OPEN_RATE = 500


@dataclass
class Window:
    """What `stream-load` has counted, and what processor time the others used meanwhile, in seconds."""
    result: dict
    seconds: float
    user: float
    system: float
    core_1: float
    others: float

    @property
    def failures(self):
        kinds = [f"{count} {kind}" for kind, count in self.result["error_kinds"].items() if count]
        return ", ".join(kinds) or "none"

    @property
    def chunks_per_second(self):
        return self.result["chunks"] / self.seconds

    @property
    def busy(self):
        """Share of core 0 that the server used."""
        return (self.user + self.system) / self.seconds

    @property
    def used_by_others(self):
        return self.others / self.seconds

    @property
    def core_1_busy(self):
        return self.core_1 / self.seconds

    def lateness_ms(self, name):
        return self.result["lateness_us"][name] / 1000

    def us_per_chunk(self, seconds):
        return seconds * 1e6 / self.result["chunks"]


def calm_window(programs, target, seconds, box):
    """A window in which the server had its core to itself; after three in vain, the least disturbed."""
    windows = []
    while len(windows) < 3:
        windows.append(run_load(programs, target, seconds, box))
        if windows[-1].used_by_others <= TOLERABLE:
            break
        progress(f"others used {100 * windows[-1].used_by_others:.0f} % of core 0 meanwhile")
    return min(windows, key=lambda window: window.used_by_others)


def run_load(programs, target, seconds, box):
    with programs.load(target.port, STREAMS, seconds, OPEN_RATE) as load:
        watched = (target, box, load)
        load.wait_for_line("measuring", patience=75)
        before = [process.cpu_times() for process in watched]
        core_before = core_seconds(SERVER_CORE)
        # The load tool lives on until its streams are closed, so that its own times can still be read.
        load.wait_for_line("measured", patience=seconds + 20)
        used = [(user - user_then, system - system_then) for (user, system), (user_then, system_then)
                in zip((process.cpu_times() for process in watched), before)]
        others = core_seconds(SERVER_CORE) - core_before - (0 if target is box else sum(used[0]))
        result = json.loads(load.result(patience=20))
    if not result["chunks"]:
        raise Failure(f"no chunks came: {result}")
    return Window(result, result["window_ms"] / 1000, *used[0], core_1=sum(used[1]) + sum(used[2]),
                  others=max(0, others))


def measure(programs, quick):
    seconds = 4 if quick else 10
    with programs.box(INTERVAL) as box:
        progress(f"streams, directly: {STREAMS:,} at 20 chunks/s for {seconds} s")
        direct = run_load(programs, box, seconds, box)
        with servers.proxy(box.port, streaming=True) as peer:
            progress("streams, through nginx: the same")
            theirs = calm_window(programs, peer, seconds, box)
        with programs.gateway(box.port, streaming=True) as gateway:
            progress(f"streams, through {gateway.name}: the same")
            ours = calm_window(programs, gateway, seconds, box)
    return rows(ours, theirs, direct)


def rows(ours, theirs, direct):
    windows = (ours, theirs, direct)
    p99 = ours.lateness_ms("p99")
    cpu = ours.us_per_chunk(ours.user + ours.system)
    # A server that has to wait for its core finds more chunks at once, late but cheaper.
    unsure = ours.used_by_others > TOLERABLE

    def each(values, pattern, unit=""):
        return " / ".join(pattern.format(value) for value in values) + unit

    def lateness(name):
        return each((window.lateness_ms(name) for window in windows), "{:,.1f}", " ms")

    sides = "gateway / nginx / directly"
    both = (ours, theirs)
    return [
        Row(f"{STREAMS:,} streams at 20 chunks/s: lateness p99", f"{p99:.1f} ms", "< 50 ms",
            p99 < 50 and ours.result["errors"] == 0, unsure),
        Row(f"… lateness p50, {sides}", lateness("p50")),
        Row(f"… lateness p99, {sides}", lateness("p99")),
        Row(f"… lateness max, {sides}", lateness("max")),
        Row(f"… chunks/s received, {sides}", each((w.chunks_per_second for w in windows), "{:,.0f}")),
        Row(f"… streams that failed, {sides}", each((w.failures for w in windows), "{}")),
        Row(f"… core 1 kept busy, {sides}", each((100 * w.core_1_busy for w in windows), "{:.0f}", " %")),
        Row("CPU of the gateway per chunk", f"{cpu:.1f} µs", "≤ 15 µs", cpu <= 15, unsure),
        Row("… CPU per chunk, gateway / nginx (`proxy_buffering off`)",
            each((w.us_per_chunk(w.user + w.system) for w in both), "{:.1f}", " µs")),
        Row("… of that in user space, gateway / nginx",
            each((w.us_per_chunk(w.user) for w in both), "{:.1f}", " µs")),
        Row("… core 0 kept busy, gateway / nginx", each((100 * w.busy for w in both), "{:.0f}", " %")),
        Row("… core 0 used by other programs meanwhile",
            each((100 * w.used_by_others for w in both), "{:.0f}", " %")),
    ]
