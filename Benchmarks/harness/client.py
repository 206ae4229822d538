"""A client that costs next to nothing: one kept-alive connection, one request at a time."""

import re
import socket

from . import servers
from .processes import Failure

_REQUEST = (f"POST {servers.PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(servers.QUESTION)}\r\n\r\n{servers.QUESTION}").encode()
# What each server says on its own account, or for this connection alone.
_FRAMING = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}


class Answer:
    def __init__(self, head, body):
        self._head = head
        self.body = body

    @property
    def fields(self):
        lines = self._head.decode().split("\r\n")[1:]
        return [tuple(line.split(": ", 1)) for line in lines if line]

    @property
    def own_fields(self):
        """Without those that any HTTP server adds."""
        return [(name, value) for name, value in self.fields if name.lower() not in _FRAMING]

    @property
    def is_hit(self):
        return b"\r\nX-Cache: HIT\r\n" in self._head


class Client:
    """Ends with the block that it is used in. A wait longer than `patience` seconds is a failure."""

    def __init__(self, server, patience=10):
        self._name = server.name
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def ask(self):
        """The answer to the benchmarks' question; anything but 200 is a failure."""
        try:
            self._socket.sendall(_REQUEST)
            return self._answer()
        except OSError as error:
            raise Failure(f"{self._name} gave no answer: {error}") from None

    def hit(self):
        """An answer out of the cache; any other is a failure."""
        answer = self.ask()
        if not answer.is_hit:
            raise Failure(f"{self._name} did not answer from its cache: {answer.fields}")
        return answer

    def _answer(self):
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, body = received.split(b"\r\n\r\n", 1)
        head += b"\r\n"
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Failure(f"{self._name} answered {received[:200]!r}")
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.IGNORECASE)
        while len(body) < int(length.group(1)) if length else not body.endswith(b"0\r\n\r\n"):
            body += self._receive()
        return Answer(head, body)

    def _receive(self):
        data = self._socket.recv(1 << 16)
        if not data:
            raise Failure(f"{self._name} closed the connection")
        return data
