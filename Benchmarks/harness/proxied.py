"""Requests a second that are passed on to a fast backend, beside nginx on the same core in the same run."""

from . import servers
from .report import Row
from .turns import cpu_share, detail_rows, share_row, take_turns


def measure(programs, quick):
    turns, seconds = (3, 2) if quick else (5, 3)
    with servers.fast_backend() as backend, servers.proxy(backend.port) as peer, \
            programs.gateway(backend.port) as gateway:
        return rows(*take_turns("proxied", (gateway, peer), turns, seconds))


def rows(ours, theirs):
    return [
        share_row("Proxied requests/s as a share of nginx `proxy_pass`", ours, theirs, 0.45, limits=[theirs]),
        *detail_rows("gateway / nginx", ours, theirs),
        Row("… nginx's CPU a request as a share of the gateway's", f"{cpu_share(ours, theirs):.2f}"),
    ]
