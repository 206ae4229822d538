"""The cache alone, without HTTP, from ten entries to a million: does it stay as fast, and what does an entry weigh?"""

from .processes import Failure
from .report import Row, progress
from .scale import results

SIZES = (10, 1000, 100_000, 1_000_000)
QUICK_SIZES = SIZES[:-1]
FLAT = 3
OVERHEAD = 300


def measure(programs, quick):
    if programs.calibrate:
        return []  # no server takes part
    sizes = QUICK_SIZES if quick else SIZES
    progress(f"entries: {', '.join(f'{size:,}' for size in sizes)}")
    return rows(results(programs, "cache-scale", sizes, patience=300), sizes)


def rows(values, sizes):
    def each(name, scale=1, pattern="{:,.0f}"):
        missing = [size for size in sizes if (name, size) not in values]
        if missing:
            raise Failure(f"cache-scale printed no {name}_{missing[0]}")
        return [pattern.format(values[name, size] / scale) for size in sizes]

    def line(what, name, unit, **options):
        return Row(f"… {what}", " / ".join(each(name, **options)) + " " + unit)

    each("hit_by_raw_key"), each("overhead_resident")  # so that what is missing is named
    many, few = sizes[-1], 1000
    slower = values["hit_by_raw_key", many] / values["hit_by_raw_key", few]
    overhead = values["overhead_resident", many]
    return [
        Row(f"Time per look-up that hits, {many:,} entries by {few:,}", f"{slower:.1f} times", f"≤ {FLAT}",
            slower <= FLAT),
        Row("… look-ups, stores and memory below are at", " / ".join(f"{size:,}" for size in sizes) + " entries"),
        line("a hit, by the request's bytes", "hit_by_raw_key", "ns"),
        line("a hit, by the canonical request", "hit_by_key", "ns"),
        line("a store", "store_growing", "ns"),
        line("a store that evicts", "store_evicting", "ns"),
        line("the longest store", "store_growing_longest", "µs", scale=1000),
        line("the longest store that evicts", "store_evicting_longest", "µs", scale=1000),
        Row(f"Memory per entry beside its payload, {many:,} entries", f"{overhead:.0f} B", f"≤ {OVERHEAD} B",
            overhead <= OVERHEAD),
        line("resident, payload aside", "overhead_resident", "B"),
        line("as the cache accounts for it", "overhead_accounted", "B"),
    ]
