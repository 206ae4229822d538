"""Answers from the cache: beside nginx `proxy_cache`, and beside libmicrohttpd with nothing around it."""

from . import servers
from .client import Client
from .report import Row
from .turns import cpu_share, detail_rows, share_row, take_turns


def measure(programs, quick):
    turns, seconds = (3, 1) if quick else (5, 3)
    with servers.fast_backend() as backend, servers.caching_proxy(backend.port) as peer, \
            servers.caching_proxy(backend.port, tuned=True) as tuned, \
            programs.gateway(backend.port, cache_ttl="1h") as gateway:
        caches = (gateway, peer, tuned)
        answer, *_ = [first_hit(cache) for cache in caches]
        with servers.BareMHD(answer.body, answer.own_fields) as bare:
            rounds = take_turns("hits", (*caches, bare), turns, seconds)
        for cache in caches:
            with Client(cache) as client:
                client.hit()
    return rows(*rounds)


def first_hit(server):
    with Client(server) as client:
        client.ask()
        return client.hit()


def rows(ours, plain, tuned, bare):
    sides = "gateway / nginx / tuned / bare"
    shares = " / ".join(f"{cpu_share(ours, theirs):.2f}" for theirs in (plain, tuned, bare))
    return [
        share_row("Cache hits/s as a multiple of nginx `proxy_cache`", ours, plain, 1.3, limits=[ours, plain]),
        share_row("… of the same nginx tuned with `open_file_cache`", ours, tuned, None, limits=[ours, tuned]),
        share_row("Cache hits/s as a share of bare libmicrohttpd", ours, bare, 0.85, limits=[ours, bare]),
        *detail_rows(sides, ours, plain, tuned, bare),
        Row("… CPU a request by the gateway's, nginx / tuned / bare", shares),
    ]
