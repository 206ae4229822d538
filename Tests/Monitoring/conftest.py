"""Fixtures: one scene for all tests, that is gateways under a counted load and a Prometheus that watches them.

What drives the programs is shared with Tests/EndToEnd.
"""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "EndToEnd")]


def pytest_configure(config):
    # The older of two schemas is the one that Grafana 11 and 12 both read from files.
    config.addinivalue_line("filterwarnings", "ignore:Prefer using dashboardv2")


@pytest.fixture(scope="session")
def scene():
    """The scene after its load, all of it scraped."""
    from scene import Scene

    with Scene() as scene:
        scene.play()
        yield scene


@pytest.fixture(scope="session")
def families(scene):
    """What a gateway says it can tell, by name: kind and samples. Of the one with the most to tell."""
    from watching import metrics

    return metrics(scene.main)
