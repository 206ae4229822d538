"""A box that answers with exactly the bytes that a test wants, at exactly the moment it wants them."""

import hashlib
import json
import socket
import threading
import time
from dataclasses import dataclass

from wire import LIMIT, Ended, Inlet, every, first

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
JSON = "application/json"
PROBE = "ollama-gateway-probe"
"""The User-Agent of a gateway that looks after its boxes."""
MODELS = [
    "llama3.2", "mistral", "nomic-embed-text", "all-minilm", "qwen3", "codellama", "llava", "m", "x",
]  # fmt: skip
"""What a scripted box says that it has, unless told otherwise: all that these tests ask scripted boxes for."""


@dataclass
class Asked:
    """A request as it reached the box."""

    method: str
    target: str
    version: str
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""

    def header(self, name):
        return first(self.fields, name)

    def headers(self, name):
        return every(self.fields, name)


class Exchange:
    """One request at the box and the answer to it."""

    def __init__(self, plug, inlet, asked):
        self.plug = plug
        self.inlet = inlet
        self.asked = asked
        self.sent = 0
        """Bytes that the kernel took, for tests of back-pressure."""
        self.closing = False

    def body_parts(self):
        """Yields the request's body as it comes; raises Ended if it is cut short."""
        if self.asked.header("Transfer-Encoding"):
            return self.inlet.chunked_body()
        return self.inlet.sized_body(int(self.asked.header("Content-Length") or 0))

    def send(self, data):
        view = memoryview(data)
        while view:
            count = self.plug.send(view)
            self.sent += count
            view = view[count:]

    def head(self, *fields, status="200 OK"):
        lines = [f"HTTP/1.1 {status}", *fields]
        self.send("\r\n".join(lines).encode("latin1") + b"\r\n\r\n")

    def answer(self, body=b"", *fields, status="200 OK", content_type=JSON):
        """A whole answer with its length."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", *fields, f"Content-Length: {len(body)}"]
        self.send("\r\n".join(head).encode("latin1") + b"\r\n\r\n" + body)

    def start_stream(self, content_type=NDJSON, *fields):
        self.head(f"Content-Type: {content_type}", "Transfer-Encoding: chunked", *fields)

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self):
        self.send(b"0\r\n\r\n")

    def stream(self, chunks, content_type=NDJSON):
        self.start_stream(content_type)
        for chunk in chunks:
            self.chunk(chunk)
        self.end_stream()

    def cut(self, reset=False):
        """Ends the connection here, whatever was still to come."""
        if reset:
            self.plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.closing = True
        self.plug.close()

    def wait_for_departure(self, limit=LIMIT):
        """The monotonic time at which the gateway ended the connection; None if it did not."""
        self.plug.settimeout(limit)
        try:
            while self.inlet.fill():
                pass
        except TimeoutError:
            return None
        except OSError:
            pass
        self.closing = True
        return time.monotonic()


def entry(name):
    """A model in a list of Ollama's. `name@version` is a model of that name with another digest."""
    name, _, version = name.partition("@")
    full = name if ":" in name else f"{name}:latest"
    digest = hashlib.sha256(f"{full} {version}".encode()).hexdigest()
    family = {"format": "gguf", "family": "llama", "families": ["llama"], "parent_model": ""}
    details = family | {"parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
    modified = f"2026-03-{1 + int(digest[:4], 16) % 28:02d}T08:00:00Z"
    return {"name": full, "model": full, "modified_at": modified, "size": 1 << 30, "digest": digest, "details": details}


def loaded_entry(name):
    """A model in a list of those that are loaded."""
    listed = {key: value for key, value in entry(name).items() if key != "modified_at"}
    return listed | {"expires_at": "2318-01-01T00:00:00Z", "size_vram": 1 << 30, "context_length": 4096}


class ScriptedBox:
    """Listens on a port of its own and runs `script(exchange)` for each request, on a thread per connection.

    The body of a request is read before the script runs, unless `reads_bodies` is false. A script's exception is
    kept and raised by `close`, except for what the gateway's leaving causes.

    A gateway's probes are no business of the script: `probe(exchange)` answers them, from `models`, `loaded` and
    `box_version`, all of which a test may change; they stand in `probed` and not in `asked`. With `probe=None` the
    script gets them too.
    """

    def __init__(
        self, script, reads_bodies=True, tls=None, host="127.0.0.1", port=0, probe=True, models=MODELS, loaded=(),
        version="0.33.0", is_fresh=False,
    ):  # fmt: skip
        self.script = script
        self.probe = self.answer_probe if probe is True else probe
        self.models = list(models)
        self.loaded = list(loaded)
        self.box_version = version
        self.is_fresh = is_fresh
        """Whether requests come on new connections and not on those that probes have left: when one of those breaks,
        the gateway may take it for the end of a long idle time, and ask the box again."""
        self.reads_bodies = reads_bodies
        self.tls = tls
        self.asked = []
        self.probed = []
        """When a probe came, and for what."""
        self.connections = 0
        self.running = set()
        """The requests that are underway, probes not among them."""
        self.errors = []
        self.plugs = set()
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(1024)
        self.port = self.listener.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def last(self):
        """The latest request."""
        return self.asked[-1]

    def close(self):
        # A bare close would leave a thread in accept() holding on to the port.
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.hang_up()
        assert not self.errors, self.errors

    def hang_up(self):
        """Ends all connections, as a box does that restarts."""
        for plug in list(self.plugs):
            try:
                plug.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                plug, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plug,), daemon=True).start()

    def _serve(self, plug):
        self.connections += 1
        try:
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                plug = self.tls.wrap_socket(plug, server_side=True)
            self.plugs.add(plug)
            inlet = Inlet(plug)
            while self._exchange(plug, inlet):
                pass
        except (Ended, OSError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            self.plugs.discard(plug)
            plug.close()

    def _exchange(self, plug, inlet):
        method, target, version = inlet.line().decode("latin1").split(" ")
        asked = Asked(method, target, version, inlet.fields())
        exchange = Exchange(plug, inlet, asked)
        if self.probe and asked.header("User-Agent") == PROBE:
            self.probed.append((time.monotonic(), target))
            self.probe(exchange)
            return not exchange.closing
        self.running.add(exchange)
        try:
            if self.reads_bodies:
                asked.body = b"".join(exchange.body_parts())
            self.asked.append(asked)
            self.script(exchange)
        finally:
            self.running.discard(exchange)
        return not exchange.closing

    def answer_probe(self, exchange):
        """A script: a well box's answer to a probe."""
        match exchange.asked.target.rsplit("/", 1)[1]:
            case "tags":
                told = {"models": [entry(name) for name in self.models]}
            case "ps":
                told = {"models": [loaded_entry(name) for name in self.loaded]}
            case _:
                told = {"version": self.box_version}
        if self.is_fresh:
            exchange.answer(told, "Connection: close")
            exchange.cut()
        else:
            exchange.answer(told)


def plain(exchange):
    """A script: a small JSON answer to everything."""
    exchange.answer({"ok": True})


def unused_address():
    """An address that refuses connections, and the socket that keeps others from taking its port."""
    keeper = socket.socket()
    keeper.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{keeper.getsockname()[1]}", keeper


def silent_address():
    """An address that leaves every new connection unanswered: its backlog is full. And what keeps it so."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return f"127.0.0.1:{listener.getsockname()[1]}", [listener, *fillers]
