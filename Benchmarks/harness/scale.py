"""Programs that measure a part alone, at several sizes."""

import re

from .processes import SERVER_CORE, Failure, Process


def results(programs, name, sizes, patience):
    """Runs the program and reads its lines of `what_size value unit`, as {(what, size): value}."""
    try:
        program = Process(name, [programs.path(name), *map(str, sizes)], SERVER_CORE)
    except OSError as error:
        raise Failure(f"{name} cannot be run ({error.strerror}): `make build` builds it") from None
    with program:
        found = re.findall(r"^(\w+)_(\d+) (\S+)", program.result(patience=patience), re.MULTILINE)
    return {(what, int(size)): float(value) for what, size, value in found}
