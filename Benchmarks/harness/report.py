"""The table, on the screen as it grows and in RESULTS.md."""

import datetime
import os
import platform
import re
import subprocess
from dataclasses import dataclass


@dataclass
class Row:
    what: str
    result: str
    aim: str = ""
    met: bool | None = None
    unsure: bool = False
    """Something else than what is measured had a hand in the result."""

    @property
    def verdict(self):
        if self.unsure:
            return "unsure"
        return {True: "met", False: "missed", None: ""}[self.met]


_WIDTHS = (66, 24, 12, 6)


def print_row(cells):
    print("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS)).rstrip(), flush=True)


def print_header():
    print_row(("measured", "result", "aim", ""))
    print("-" * (sum(_WIDTHS) + 6), flush=True)


def progress(text):
    print(f"… {text}", flush=True)


def show(row):
    print_row((row.what, row.result, row.aim, row.verdict))


def machine(gateway):
    """What the figures were got on, as (name, value); `gateway` is the path of the program."""
    linked = "shared libraries" if "libswiftCore" in _output("ldd", gateway) else "linked statically"
    cpu = _search(r"model name\s*:\s*(.+)", _file("/proc/cpuinfo"))
    memory = int(_search(r"MemTotal:\s*(\d+)", _file("/proc/meminfo"), "0")) // 1024
    return [
        ("Processor", f"{cpu}, {os.cpu_count()} cores"),
        ("Memory", f"{memory:,} MiB"),
        ("Kernel", f"{platform.system()} {platform.release().split(chr(45))[0]}"),
        ("Distribution", _search(r'PRETTY_NAME="([^"]*)"', _file("/etc/os-release"))),
        ("Swift", _search(r"Swift version (\S+)", _output("swift", "--version")) + ", " + linked),
        ("nginx", _search(r"nginx/(\S+)", _output("nginx", "-v"))),
        ("wrk", _search(r"wrk (?:debian/)?(\S+)", _output("wrk", "-v"))),
        ("valgrind", _search(r"valgrind-(\S+)", _output("valgrind", "--version"))),
        ("libmicrohttpd", _library_version("libmicrohttpd")),
        ("libcurl", _library_version("libcurl")),
    ]


def commit(root):
    name = _output("git", "-C", root, "rev-parse", "--short=12", "--verify", "HEAD").strip()
    if not re.fullmatch(r"[0-9a-f]{12,}", name):
        return "none yet"
    changed = _output("git", "-C", root, "status", "--porcelain", "--", "Sources", "Modules", "Package.swift")
    return name + (" with changes not committed" if changed.strip() else "")


def write(path, rows, root, gateway, mode, method):
    now = datetime.datetime.now(datetime.timezone.utc)
    lines = ["# Benchmark results", "", f"Written by `make bench` ({mode}) on {now:%Y-%m-%d %H:%M} UTC, "
             f"commit: {commit(root)}.", "", "| machine | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in machine(gateway)]
    lines += ["", "| measured | result | aim | |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.what} | {row.result} | {row.aim} | {row.verdict} |" for row in rows]
    lines += ["", "## How it was measured", "", method.strip(), ""]
    with open(path, "w") as file:
        file.write("\n".join(lines))


def _search(pattern, text, otherwise="unknown"):
    found = re.search(pattern, text)
    return found.group(1).strip() if found else otherwise


def _file(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        return done.stdout + done.stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _library_version(name):
    return _search(r"^(\d\S*)$", _output("pkg-config", "--modversion", name).strip())
