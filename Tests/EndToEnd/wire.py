"""HTTP/1.1 on bare sockets, for both ends: what a client library hides is what these tests look at."""

import json
import socket
import time
from dataclasses import dataclass, field

LIMIT = 10.0
"""Seconds after which a wait is a failure, unless the test says otherwise."""

Field = tuple[bytes, bytes]


def wait_until(condition, what="the condition", limit=LIMIT):
    """Returns the first true value of `condition()`."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about within {limit} s")
        time.sleep(0.003)


def settled(measure, still=0.5):
    """The value of `measure()` once it has not changed for a while."""
    value, since = measure(), time.monotonic()

    def is_still():
        nonlocal value, since
        if (now := measure()) != value:
            value, since = now, time.monotonic()
        return time.monotonic() - since > still

    wait_until(is_still, "standstill", limit=30)
    return value


def connect(address, limit=LIMIT, source=None, receive_buffer=None):
    """Opens a socket to `host:port`, `[v6]:port` or `unix:/path`."""
    if address.startswith("unix:"):
        plug = socket.socket(socket.AF_UNIX)
        plug.settimeout(limit)
        plug.connect(address.removeprefix("unix:"))
        return plug
    host, port = address.rsplit(":", 1)
    plug = socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET)
    plug.settimeout(limit)
    if receive_buffer:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        plug.bind((source, 0))
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plug.connect((host.strip("[]"), int(port)))
    return plug


class Ended(Exception):
    """The other side ended the connection where something had to follow."""


class Inlet:
    """The reading half of a socket, with what was read ahead."""

    def __init__(self, plug):
        self.plug = plug
        self.ahead = bytearray()
        self.ended = False

    def fill(self):
        """Reads what there is; false at the end."""
        try:
            got = self.plug.recv(262144)
        except (ConnectionResetError, BrokenPipeError):
            got = b""
        self.ahead += got
        self.ended = not got
        return bool(got)

    def take(self, count):
        taken = bytes(self.ahead[:count])
        del self.ahead[:count]
        return taken

    def some(self, most):
        """At least one byte, at most `most`."""
        if not self.ahead and not self.fill():
            raise Ended
        return self.take(most)

    def line(self):
        """Up to CRLF, which is not part of the answer."""
        while (at := self.ahead.find(b"\r\n")) < 0:
            if not self.fill():
                raise Ended
        line = self.take(at)
        self.take(2)
        return line

    def fields(self):
        """Header fields up to the empty line."""
        found = []
        while line := self.line():
            name, colon, value = line.partition(b":")
            assert colon, f"a header line without a colon: {line!r}"
            found.append((name, value.strip(b" \t")))
        return found

    def chunked_body(self):
        """Yields the bytes of a chunked body as they come; returns after the last chunk and the trailers."""
        while True:
            left = int(self.line().split(b";")[0], 16)
            if left == 0:
                self.fields()
                return
            while left:
                part = self.some(left)
                left -= len(part)
                yield part
            assert self.line() == b""

    def sized_body(self, length):
        while length:
            part = self.some(length)
            length -= len(part)
            yield part

    def body_to_the_end(self):
        while True:
            try:
                yield self.some(262144)
            except Ended:
                return


def first(fields, name):
    """The first value under `name`, as text."""
    return next((value.decode("latin1") for key, value in fields if key.lower() == name.lower().encode()), None)


def every(fields, name):
    return [value for key, value in fields if key.lower() == name.lower().encode()]


@dataclass
class Answer:
    version: str
    status: int
    fields: list[Field]
    framing: str = "none"
    """How the body's end is known: `none`, `length`, `chunked` or `close`."""
    body: bytes = b""
    complete: bool = False
    """Whether the body ended as its framing says it must."""
    interim: list[int] = field(default_factory=list)

    def header(self, name):
        return first(self.fields, name)

    def headers(self, name):
        return every(self.fields, name)

    @property
    def content_type(self):
        return (self.header("Content-Type") or "").split(";")[0]

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        return [line for line in self.body.split(b"\n") if line]


class Connection:
    """A client's connection."""

    def __init__(self, address, limit=LIMIT, **options):
        self.address = address
        self.limit = limit
        self.plug = connect(address, limit, **options)
        self.inlet = Inlet(self.plug)
        self.parts = iter(())
        self.answer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.plug.close()

    def reset(self):
        """Ends the connection with RST, as a crashed client's machine would."""
        self.plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.plug.close()

    def send(self, data):
        self.plug.sendall(data)

    def request(self, method, target, fields=(), body=None, version="HTTP/1.1"):
        self.send(request_bytes(method, target, fields, body, host=self.address, version=version))

    def read_head(self, method="GET"):
        """Reads up to the empty line after the header; the body is read by the methods below."""
        interim = []
        while True:
            version, status, *_ = self.inlet.line().decode("latin1").split(" ", 2)
            fields = self.inlet.fields()
            if int(status) >= 200 or int(status) == 101:
                break
            interim.append(int(status))
        self.answer = answer = Answer(version, int(status), fields, interim=interim)
        length = answer.header("Content-Length")
        if method == "HEAD" or answer.status in (204, 304):
            answer.complete = True
            self.parts = iter(())
        elif answer.header("Transfer-Encoding"):
            assert answer.header("Transfer-Encoding").lower() == "chunked"
            assert length is None, "an answer with two framings"
            answer.framing, self.parts = "chunked", self.inlet.chunked_body()
        elif length is not None:
            answer.framing, self.parts = "length", self.inlet.sized_body(int(length))
        else:
            answer.framing, self.parts = "close", self.inlet.body_to_the_end()
        return answer

    def read_part(self):
        """The next bytes of the body; nothing at its end, proper or not."""
        if self.answer.complete:
            return b""
        try:
            part = next(self.parts, b"")
        except Ended:
            return b""
        self.answer.body += part
        self.answer.complete = self.answer.complete or not part
        return part

    def read_body(self, count):
        """Reads until `count` bytes of the body are there in all, and returns the body so far."""
        while len(self.answer.body) < count:
            if not self.read_part():
                raise Ended(f"after {len(self.answer.body)} of {count} bytes of the body")
        return self.answer.body

    def read_rest(self):
        parts = [self.answer.body]
        end = time.monotonic() + 6 * self.limit
        while not self.answer.complete:
            if time.monotonic() > end:
                raise TimeoutError("a body without end")
            self.answer.body = b""
            if not (part := self.read_part()):
                break
            parts.append(part)
        self.answer.body = b"".join(parts)
        return self.answer

    def read_answer(self, method="GET"):
        self.read_head(method)
        return self.read_rest()

    def has_ended(self, limit=LIMIT):
        """Whether the other side ends the connection within the limit; what it still sends is dropped."""
        self.plug.settimeout(limit)
        try:
            while self.inlet.fill():
                pass
        except TimeoutError:
            return False
        return True


def request_bytes(method, target, fields=(), body=None, host="gateway", version="HTTP/1.1"):
    """A request as bytes; `Host` and `Content-Length` are added unless the fields have them."""
    as_bytes = lambda text: text.encode("latin1") if isinstance(text, str) else text  # noqa: E731
    fields = [(as_bytes(name), as_bytes(value)) for name, value in fields]
    names = {name.lower() for name, _ in fields}
    if b"host" not in names and version == "HTTP/1.1":
        fields.insert(0, (b"Host", as_bytes(host)))
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
    if body is not None and not names & {b"content-length", b"transfer-encoding"}:
        fields.append((b"Content-Length", str(len(body)).encode()))
    head = [b" ".join(map(as_bytes, (method, target, version)))]
    head += [name + b": " + value for name, value in fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + (body or b"")


def ask(address, method, target, fields=(), body=None, limit=LIMIT, **options):
    """One request on a connection of its own."""
    with Connection(address, limit, **options) as connection:
        connection.request(method, target, fields, body)
        return connection.read_answer(method)
