"""Processes of a benchmark: started on a core, looked at through /proc, always ended."""

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time

SERVER_CORE = 0
LOAD_CORE = 1
# Other programs may use this much of the server's core, else what was measured is measured again.
TOLERABLE = 0.05
_HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
# What each process may have open: the hard limit, which only the administrator can raise, or what is plenty.
DESCRIPTORS = min(_HARD_LIMIT, 1 << 16)

_TICKS = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """A measurement could not be made; the text says why."""


class Process:
    """A child on one core, with as many descriptors as are allowed. Ends with the block that it is used in."""

    def __init__(self, name, command, core, ready=None, patience=10):
        """`ready`: a port to wait for, or True to wait for a line `listening on ADDRESS` on standard error."""
        def prepare():
            os.sched_setaffinity(0, {core})
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, _HARD_LIMIT))
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        self.name = name
        self.launched = time.monotonic()
        self._child = subprocess.Popen(
            command, preexec_fn=prepare, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)
        self.pid = self._child.pid
        self._errors = []
        self._news = threading.Condition()
        self._ended = False
        self._output = []
        self._threads = [threading.Thread(target=self._read_errors, daemon=True),
                         threading.Thread(target=self._read_output, daemon=True)]
        for thread in self._threads:
            thread.start()
        try:
            if ready is True:
                line = self.wait_for_line(r"listening on \S+", patience)
                self.port = int(re.search(r"listening on \S+:(\d+)", line).group(1))
            elif ready:
                self.port = ready
                self._wait_for_port(patience)
        except BaseException:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        status = self._child.poll()
        self.end()
        if status:
            raise Failure(f"{self.name} ended by itself with status {status}; its last words: {self.last_words}")

    def _read_errors(self):
        for line in self._child.stderr:
            with self._news:
                self._errors.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _read_output(self):
        self._output.append(self._child.stdout.read())

    def wait_for_line(self, pattern, patience):
        """The first line on standard error in which `pattern` is found."""
        deadline = time.monotonic() + patience
        seen = 0
        with self._news:
            while True:
                for line in self._errors[seen:]:
                    if re.search(pattern, line):
                        return line
                seen = len(self._errors)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise Failure(f"{self.name} did not say '{pattern}'; its last words: {self.last_words}")
                self._news.wait(left)

    def _wait_for_port(self, patience):
        deadline = time.monotonic() + patience
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._child.poll() is not None or time.monotonic() > deadline:
                    raise Failure(f"{self.name} does not listen; its last words: {self.last_words}") from None
                time.sleep(0.01)

    @property
    def last_words(self):
        return " / ".join(self._errors[-3:]) or "(none)"

    def result(self, patience):
        """Standard output, when the process has ended by itself."""
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not end within {patience} s") from None
        for thread in self._threads:
            thread.join(5)
        if self._child.returncode != 0:
            raise Failure(f"{self.name} ended with status {self._child.returncode}: {self.last_words}")
        return "".join(self._output)

    def end(self):
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        for thread in self._threads:
            thread.join(5)

    # What /proc says: of the process and its children, since nginx works in a child.

    @property
    def pids(self):
        children = _read(f"/proc/{self.pid}/task/{self.pid}/children").split()
        return [self.pid] + [int(child) for child in children]

    def cpu_times(self):
        """Seconds of processor time used so far, as (in user space, in the kernel)."""
        times = [_cpu_times(pid) for pid in self.pids]
        return sum(user for user, _ in times), sum(system for _, system in times)

    def cpu_seconds(self):
        return sum(self.cpu_times())

    def memory(self):
        """Resident and proportional set size in bytes, as (RSS, PSS)."""
        sums = {"Rss": 0, "Pss": 0}
        for pid in self.pids:
            for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
                field, _, rest = line.partition(":")
                if field in sums:
                    sums[field] += int(rest.split()[0]) * 1024
        return sums["Rss"], sums["Pss"]


def core_seconds(core):
    """Time that a core has not been idle since the start of the machine; what the hypervisor stole counts too."""
    for line in _read("/proc/stat").splitlines():
        name, *times = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _waiting, irq, softirq, stolen = (int(time) for time in times[:8])
            return (user + nice + system + irq + softirq + stolen) / _TICKS
    raise Failure(f"there is no core {core}")


def _read(path):
    with open(path) as file:
        return file.read()


def _cpu_times(pid):
    # The name, in parentheses, may hold spaces; utime and stime are the 14th and 15th field.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[11]) / _TICKS, int(fields[12]) / _TICKS


def free_port():
    """A port that was free a moment ago, for programs that cannot tell which one they were given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
