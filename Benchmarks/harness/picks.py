"""The balancer alone, among 3 to 1,000 backends: what does it cost to pick one?"""

from .processes import Failure
from .report import Row, progress
from .scale import results

SIZES = (3, 100, 1000)
AIMS = (2, 5, 20)
"""Microseconds."""
MODES = {"round_robin": "round-robin", "least_loaded": "least-loaded", "affinity": "affinity"}


def measure(programs, quick):
    if programs.calibrate:
        return []  # no server takes part
    progress(f"picks: among {', '.join(f'{size:,}' for size in SIZES)} backends")
    return rows(results(programs, "pick-scale", SIZES, patience=120))


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
    return [values[name, size] / 1000 for size in SIZES]


def text(times):
    return " / ".join(f"{time:.1f}" for time in times) + " µs"
