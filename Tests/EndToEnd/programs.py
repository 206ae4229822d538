"""The two programs under test as processes: started, watched and ended."""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from wire import LIMIT, ask, wait_until

ROOT = Path(__file__).resolve().parents[2]
INFERENCE = [
    "/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/v1/chat/completions", "/v1/completions",
    "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions",
]  # fmt: skip
"""The paths that ask a model for something: queued, limited and, but for the last three, kept."""


def binary(name):
    """The program's file: in `$BIN`, else in the release build, else in the debug build."""
    folders = [os.environ["BIN"]] if os.environ.get("BIN") else [ROOT / ".build/release", ROOT / ".build/debug"]
    for folder in folders:
        file = Path(folder) / name
        if file.exists():
            return file.resolve()
    raise FileNotFoundError(f"{name}: not in {', '.join(map(str, folders))}; build it, or set BIN")


def options(settings):
    """Keyword arguments as options: `drain_timeout="1s"` is `--drain-timeout 1s`."""
    words = []
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        else:
            # With "=", for a value may begin with a dash.
            words += [f"{option}={each}" for each in (value if isinstance(value, (list, tuple)) else [value])]
    return words


class Program:
    """A running program. Its standard error goes to a file, so that nobody has to read for it to go on."""

    def __init__(self, name, words, listens=1):
        self.log_file = tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log")
        self.process = subprocess.Popen(
            [binary(name), *words], stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=self.log_file
        )
        self.pid = self.process.pid
        try:
            wait_until(lambda: len(self.listening) >= listens or self.process.poll() is not None, "listening")
            assert self.process.poll() is None, f"ended with {self.process.poll()}:\n{self.log}"
        except AssertionError:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def log(self):
        return Path(self.log_file.name).read_text(errors="replace")

    @property
    def listening(self):
        """What it said that it listens on, without `http://`."""
        return [found.removeprefix("http://") for found in re.findall(r'listening on ([^\s"]+)', self.log)]

    @property
    def address(self):
        return self.listening[0]

    @property
    def url(self):
        return f"http://{self.address}"

    @property
    def is_alive(self):
        return self.process.poll() is None

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self):
        """Resident memory in bytes, counted page by page: VmRSS lags behind."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Rss:\s+(\d+) kB", rollup, re.M)[1]) * 1024

    def processor_seconds(self):
        """Processor time used so far."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, limit=LIMIT):
        """The exit status."""
        return self.process.wait(limit)

    def stop(self, limit=LIMIT):
        """Asks it to end and says with what status it did. Kills it, and fails, if it does not."""
        if self.is_alive:
            self.signal()
        try:
            return self.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end within {limit} s of SIGTERM") from None


class Gateway(Program):
    """`ollama-gateway` in front of the given backends; `settings` are options, `listens` is the number of
    addresses that it will say it listens on.

    It keeps nothing and limits nothing unless told so; a setting of None leaves the option to the program's own
    default. Unless `waits` is false, it has heard of each of its boxes, or waited in vain, when it is returned.
    """

    UNBOUND = {"cache_ttl": 0, "rate_limit": 0, "concurrency": 100_000, "queue_limit": 100_000}

    def __init__(self, *backends, listens=1, waits=True, **settings):
        settings = {"port": 0, "drain_timeout": "1s"} | Gateway.UNBOUND | settings
        settings = {name: value for name, value in settings.items() if value is not None}
        super().__init__("ollama-gateway", ["--backends", ",".join(backends), *options(settings)], listens)
        if waits and listens:
            try:
                wait_until(lambda: "starting" not in self.states(), "the first probes")
            except BaseException:
                self.process.kill()
                self.process.wait()
                raise

    def is_healthy(self):
        return ask(self.address, "GET", "/health").status == 200

    def status(self):
        """What /gateway/status says."""
        answer = ask(self.address, "GET", "/gateway/status", [("Host", "gateway")])
        assert (answer.status, answer.content_type, answer.complete) == (200, "application/json", True), answer
        return answer.json

    def states(self):
        """The states of its boxes, in the order in which they were given."""
        return [backend["state"] for backend in self.status()["backends"]]

    def backend(self, box):
        """What the status says of a box, given as what has an address."""
        (found,) = [each for each in self.status()["backends"] if each["url"].rstrip("/").endswith(box.address)]
        return found

    def state(self, box):
        return self.backend(box)["state"]

    def await_state(self, box, *states, limit=LIMIT):
        """Returns what the status says of a box once it is in one of the states."""

        def found():
            backend = self.backend(box)
            return backend if backend["state"] in states else None

        return wait_until(found, f"{box.address} {' or '.join(states)}", limit)

    def take_in(self, clients, limit=LIMIT):
        """Returns when it has accepted the clients' connections, read all that they sent and acted on it."""
        ports = {client.plug.getsockname()[1] for client in clients}
        wait_until(lambda: ports <= self._ports_read(), "the intake of all requests", limit)
        # One loop does it all: what it read before this request it has acted on before this answer.
        assert self.is_healthy()

    def _ports_read(self):
        """The client's ports of the connections that it has accepted and read to the last byte."""
        own = f":{int(self.address.rsplit(':', 1)[1]):04X}"
        found = set()
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, queued, _, _, _, _, inode, *_ = line.split()
            # Before it is accepted, a connection has no inode.
            if local.endswith(own) and inode != "0" and queued.endswith(":00000000"):
                found.add(int(remote.rsplit(":", 1)[1], 16))
        return found


class SimulatedOllama(Program):
    """`simulated-ollama`; `settings` are options. Quick unless told otherwise."""

    def __init__(self, **settings):
        settings = {"port": 0, "first_token": "1ms", "interval": "1ms", "tokens": 8, "parallel": 8} | settings
        super().__init__("simulated-ollama", options(settings))

    def counts(self):
        return ask(self.address, "GET", "/control").json["counts"]

    def calls(self):
        """How often a model was asked for something, on whichever endpoint."""
        requests = self.counts()["requests"]
        return sum(requests.get(f"POST {path}", 0) for path in INFERENCE)

    def control(self, **settings):
        answer = ask(self.address, "POST", "/control", body=settings)
        assert answer.status == 200, answer
        return answer.json

    def reset(self):
        ask(self.address, "DELETE", "/control")


def run(name, *words, limit=LIMIT):
    """Runs a program to its end."""
    return subprocess.run([binary(name), *words], capture_output=True, text=True, timeout=limit)


def ended_within(program, limit):
    """Whether the program ends by itself within the limit."""
    end = time.monotonic() + limit
    while program.is_alive and time.monotonic() < end:
        time.sleep(0.003)
    return not program.is_alive
