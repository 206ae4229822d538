"""Requests a second that are passed on to a fast backend, beside nginx on the same core in the same run."""

import json
import os
from dataclasses import dataclass
from statistics import median

from . import servers
from .processes import LOAD_CORE, SERVER_CORE, TOLERABLE, Failure, Process, core_seconds
from .report import Row, progress

CONNECTIONS = 32
_SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "wrk.lua")


@dataclass
class Round:
    rate: float
    cpu_us: float
    user_us: float
    busy: float
    others: float
    p50_us: int
    p99_us: int


def wrk(port, seconds):
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", _SCRIPT,
               f"http://127.0.0.1:{port}/api/generate"]
    with Process("wrk", command, LOAD_CORE) as load:
        output = load.result(seconds + 20)
    for line in output.splitlines():
        if line.startswith("summary "):
            return json.loads(line.removeprefix("summary "))
    raise Failure(f"wrk printed no summary: {output[-300:]}")


def one_round(server, seconds):
    before, core_before = server.cpu_times(), core_seconds(SERVER_CORE)
    summary = wrk(server.port, seconds)
    user, system = (now - then for now, then in zip(server.cpu_times(), before))
    others = core_seconds(SERVER_CORE) - core_before - user - system
    if summary["not_2xx"] or summary["broken"] or not summary["requests"]:
        raise Failure(f"{server.name}: {summary['requests']} answers, of which {summary['not_2xx']} were not 2xx, "
                      f"{summary['broken']} connections broke")
    wall = summary["duration_us"] / 1e6
    requests = summary["requests"]
    return Round(requests / wall, (user + system) * 1e6 / requests, user * 1e6 / requests, (user + system) / wall,
                 max(0, others / wall), summary["p50_us"], summary["p99_us"])


def measure(programs, quick):
    pairs, seconds = (3, 2) if quick else (5, 3)
    with servers.fast_backend() as backend, servers.proxy(backend.port) as peer, \
            programs.gateway(backend.port) as gateway:
        for server in (peer, gateway):
            one_round(server, 1)
        calm, disturbed = [], []
        while len(calm) < pairs and len(calm) + len(disturbed) < 2 * pairs:
            # Now one first, now the other, so that neither always finds the machine as the other left it.
            turns = (peer, gateway) if len(calm) % 2 == 0 else (gateway, peer)
            pair = {server: one_round(server, seconds) for server in turns}
            ours, theirs = pair[gateway], pair[peer]
            others = max(ours.others, theirs.others)
            (calm if others <= TOLERABLE else disturbed).append((ours, theirs))
            progress(f"proxied, pair {len(calm)} of {pairs}: {gateway.name} {ours.rate:,.0f}/s, "
                     f"nginx {theirs.rate:,.0f}/s, share {ours.rate / theirs.rate:.2f}"
                     + (f"; again: others used {100 * others:.0f} % of the core" if others > TOLERABLE else ""))
    return rows(*zip(*(calm if len(calm) == pairs else calm + disturbed)))


def rows(ours, theirs):
    shares = [our.rate / their.rate for our, their in zip(ours, theirs)]
    share = median(shares)
    cpu_share = median(their.cpu_us / our.cpu_us for our, their in zip(ours, theirs))
    others = max(round.others for round in ours + theirs)

    def middle(rounds, name):
        return median(getattr(round, name) for round in rounds)

    def both(name, unit=""):
        return f"{middle(ours, name):,.1f}{unit} / {middle(theirs, name):,.1f}{unit}"

    return [
        Row("Proxied requests/s as a share of nginx `proxy_pass`",
            f"{share:.2f} ({min(shares):.2f} - {max(shares):.2f})", "≥ 0.45", share >= 0.45,
            unsure=others > TOLERABLE or middle(theirs, "busy") < 0.9),
        Row("… requests/s, gateway / nginx", f"{middle(ours, 'rate'):,.0f} / {middle(theirs, 'rate'):,.0f}"),
        Row("… CPU a request, gateway / nginx", both("cpu_us", " µs")),
        Row("… of that in user space, gateway / nginx", both("user_us", " µs")),
        Row("… nginx's CPU a request as a share of the gateway's", f"{cpu_share:.2f}"),
        Row("… core 0 kept busy, gateway / nginx",
            f"{100 * middle(ours, 'busy'):.0f} % / {100 * middle(theirs, 'busy'):.0f} %"),
        Row("… core 0 used by other programs meanwhile, at most", f"{100 * others:.0f} %"),
        Row("… latency p50, gateway / nginx", f"{middle(ours, 'p50_us'):,.0f} / {middle(theirs, 'p50_us'):,.0f} µs"),
        Row("… latency p99, gateway / nginx", f"{middle(ours, 'p99_us'):,.0f} / {middle(theirs, 'p99_us'):,.0f} µs"),
    ]
