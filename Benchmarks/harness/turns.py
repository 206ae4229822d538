"""Servers on the same core under the same load, in turns of the same run: what they differ in is theirs."""

import json
import os
from dataclasses import dataclass
from statistics import median

from . import servers
from .processes import LOAD_CORE, SERVER_CORE, TOLERABLE, Failure, Process, core_seconds
from .report import Row, progress

CONNECTIONS = 32
# A server that leaves more of its core idle than this was not the limit.
BUSY = 0.9
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
               f"http://127.0.0.1:{port}{servers.PATH}", "--", servers.QUESTION]
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


def take_turns(what, contestants, turns, seconds):
    """Each server's rounds, a list for each in the order of `contestants`; the n-th of all ran one after another."""
    for server in contestants:
        one_round(server, 1)
    calm, disturbed = [], []
    while len(calm) < turns and len(calm) + len(disturbed) < 2 * turns:
        # Now one first, now another, so that none always finds the machine as the same other left it.
        first = len(calm) % len(contestants)
        took = {server: one_round(server, seconds) for server in (*contestants[first:], *contestants[:first])}
        turn = [took[server] for server in contestants]
        others = max(round.others for round in turn)
        (calm if others <= TOLERABLE else disturbed).append(turn)
        progress(f"{what}, turn {len(calm)} of {turns}: "
                 + ", ".join(f"{server.name} {took[server].rate:,.0f}/s" for server in contestants)
                 + (f"; again: others used {100 * others:.0f} % of the core" if others > TOLERABLE else ""))
    return list(zip(*(calm if len(calm) == turns else calm + disturbed)))


def middle(rounds, name):
    return median(getattr(round, name) for round in rounds)


def share_row(what, ours, theirs, aim, limits):
    """The median of the turns' ratios, with the least and the greatest; `limits` had to keep their core busy."""
    shares = [our.rate / their.rate for our, their in zip(ours, theirs)]
    share = median(shares)
    others = max(round.others for round in (*ours, *theirs))
    verdict = (f"≥ {aim:.2f}", share >= aim) if aim else ()
    return Row(what, f"{share:.2f} ({min(shares):.2f} - {max(shares):.2f})", *verdict,
               unsure=others > TOLERABLE or any(middle(rounds, "busy") < BUSY for rounds in limits))


def detail_rows(sides, *contestants):
    """What the rounds of each contestant were like; `sides` names them in a row's text."""
    def each(pattern, name, unit="", factor=1):
        return " / ".join(pattern.format(factor * middle(rounds, name)) for rounds in contestants) + unit

    others = max(round.others for rounds in contestants for round in rounds)
    return [
        Row(f"… requests/s, {sides}", each("{:,.0f}", "rate")),
        Row(f"… CPU a request, {sides}", each("{:.1f}", "cpu_us", " µs")),
        Row(f"… of that in user space, {sides}", each("{:.1f}", "user_us", " µs")),
        Row(f"… core 0 kept busy, {sides}", each("{:.0f}", "busy", " %", 100)),
        Row("… core 0 used by other programs meanwhile, at most", f"{100 * others:.0f} %"),
        Row(f"… latency p50, {sides}", each("{:,.0f}", "p50_us", " µs")),
        Row(f"… latency p99, {sides}", each("{:,.0f}", "p99_us", " µs")),
    ]


def cpu_share(ours, theirs):
    """Their CPU a request by ours: the share of requests that is left when nothing but the servers counts."""
    return median(their.cpu_us / our.cpu_us for our, their in zip(ours, theirs))
