"""Fixtures: programs and boxes that end with their test, and the figures that the tests measured."""

import pytest

from boxes import ScriptedBox, plain
from programs import Gateway, SimulatedOllama
from talking import Talk

FIGURES = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figures(pytestconfig):
    """Takes a line to be shown at the end of the run: measured, reported, not judged."""
    return pytestconfig.stash[FIGURES].append


def ended_well(programs):
    """Ends the programs and fails if one of them crashed or had to be killed."""
    statuses = []
    for program in reversed(programs):
        print(f"--- {program.process.args[0]} said last:", *program.log.splitlines()[-20:], sep="\n")
        was_alive = program.is_alive
        status = program.stop()
        statuses.append((was_alive, status))
    assert all(status == 0 for _, status in statuses), f"(alive before, status): {statuses}"


@pytest.fixture
def start_gateway():
    """Starts gateways: backends as arguments, options as keywords."""
    started = []

    def start(*backends, **settings):
        started.append(Gateway(*backends, **settings))
        return started[-1]

    yield start
    ended_well(started)


@pytest.fixture
def start_box():
    """Starts boxes that run a script."""
    started = []

    def start(script=plain, **settings):
        started.append(ScriptedBox(script, **settings))
        return started[-1]

    yield start
    for box in started:
        box.close()


@pytest.fixture
def start_ollama():
    """Starts simulated Ollamas: options as keywords."""
    started = []

    def start(**settings):
        started.append(SimulatedOllama(**settings))
        return started[-1]

    yield start
    ended_well(started)


@pytest.fixture
def box(start_box):
    """A scripted box; a test sets `box.script`."""
    return start_box()


@pytest.fixture
def gateway(box, start_gateway):
    """A gateway in front of `box`."""
    return start_gateway(box.address)


@pytest.fixture
def talk():
    """A box whose answers a test lets out word by word."""
    return Talk()


@pytest.fixture
def talking_box(start_box, talk):
    """The box that `talk` is the script of. Its calls come on connections of their own: one that is cut is cut."""
    return start_box(talk, is_fresh=True)


@pytest.fixture
def keeping_gateway(talking_box, start_gateway):
    """A gateway in front of `talking_box` that keeps answers."""
    return start_gateway(talking_box.address, cache_ttl="1m")


@pytest.fixture(scope="module")
def ollama():
    """A simulated Ollama that the module's tests share."""
    program = SimulatedOllama()
    yield program
    ended_well([program])


@pytest.fixture(scope="module")
def ollama_gateway(ollama):
    """A gateway in front of `ollama`."""
    program = Gateway(ollama.address)
    yield program
    ended_well([program])
