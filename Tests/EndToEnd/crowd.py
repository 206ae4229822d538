"""Many clients that ask at the same time."""

import time
from collections import Counter

from caching import told
from wire import Connection, request_bytes


def assemble(gateway, count, source=None, limit=20):
    """So many connections, open and silent."""
    return [Connection(gateway.address, limit, source=source) for _ in range(count)]


def ask_one(gateway, path, body, *fields, **options):
    """Sends a request and returns the connection unread."""
    client = Connection(gateway.address, **options)
    client.send(request_bytes("POST", path, fields, body))
    return client


def ask_at_once(gateway, requests, source=None):
    """Asks the (path, body) pairs, each on a connection of its own, and returns the connections unread."""
    clients = assemble(gateway, len(requests), source)
    for client, (path, body) in zip(clients, requests, strict=True):
        client.send(request_bytes("POST", path, (), body))
    return clients


def answers_of(clients, limit=30):
    """The answers, in the order of the clients, who leave then; all of them within the limit."""
    answers, end = [], time.monotonic() + limit
    for client in clients:
        client.plug.settimeout(max(0.1, min(client.limit, end - time.monotonic())))
        answers.append(client.read_answer())
        client.close()
    return answers


def tally(answers):
    """How many answers came from where."""
    return Counter(told(answer) for answer in answers)
