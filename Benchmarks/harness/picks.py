"""The balancer alone, among 3 to 1,000 backends: what does it cost to pick one?"""

import re

from .processes import SERVER_CORE, Failure, Process
from .report import Row, progress

SIZES = (3, 100, 1000)
AIMS = (2, 5, 20)
"""Microseconds."""
MODES = {"round_robin": "round-robin", "least_loaded": "least-loaded", "affinity": "affinity"}


def measure(programs, quick):
    if programs.calibrate:
        return []  # no server takes part
    progress(f"picks: among {', '.join(f'{size:,}' for size in SIZES)} backends")
    try:
        program = Process("pick-scale", [programs.path("pick-scale"), *map(str, SIZES)], SERVER_CORE)
    except OSError as error:
        raise Failure(f"pick-scale cannot be run ({error.strerror}): `make build` builds it") from None
    with program:
        return rows(values(program.result(patience=120)))


def values(text):
    """Lines of `name_size value unit` as {(name, size): microseconds}."""
    found = re.findall(r"^(\w+)_(\d+) (\S+) ns", text, re.MULTILINE)
    return {(name, int(size)): float(value) / 1000 for name, size, value in found}


def rows(values):
    sizes = " / ".join(f"{size:,}" for size in SIZES)
    aims = " / ".join(f"{aim}" for aim in AIMS)
    result = []
    for mode, name in MODES.items():
        times = each(values, f"pick_{mode}")
        met = all(time < aim for time, aim in zip(times, AIMS, strict=True))
        result.append(Row(f"To pick one of {sizes} backends, {name}", text(times), f"< {aims} µs", met))
    return result


def each(values, name):
    missing = [size for size in SIZES if (name, size) not in values]
    if missing:
        raise Failure(f"pick-scale printed no {name}_{missing[0]}")
    return [values[name, size] for size in SIZES]


def text(times):
    return " / ".join(f"{time:.1f}" for time in times) + " µs"
