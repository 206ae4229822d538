"""Fixtures: a browser, pages in it, and the programs of Tests/EndToEnd.

The browser is Debian's `chromium` with its `chromium-driver`; `$CHROMIUM` and `$CHROMEDRIVER` name others.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

END_TO_END = Path(__file__).resolve().parents[1] / "EndToEnd"
sys.path.insert(0, str(END_TO_END))

from page import Page  # noqa: E402
from programs import ROOT  # noqa: E402

# By its path: this file has the same name.
_spec = importlib.util.spec_from_file_location("end_to_end_fixtures", END_TO_END / "conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
start_gateway, start_box, start_ollama = _fixtures.start_gateway, _fixtures.start_box, _fixtures.start_ollama

FLAGS = """
    headless=new no-sandbox disable-gpu disable-dev-shm-usage hide-scrollbars force-color-profile=srgb
    no-first-run no-default-browser-check no-proxy-server disable-extensions disable-sync disable-default-apps
    disable-background-networking disable-component-update disable-domain-reliability disable-breakpad
    disable-client-side-phishing-detection disable-features=OptimizationHints,MediaRouter,Translate
"""
"""Nothing of the browser's own is to reach the network: what a page asks for is looked at."""


@pytest.fixture(scope="session")
def browser():
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"  # the driver is on the loopback interface
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    for flag in FLAGS.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def screenshots():
    """The folder that pictures are kept in."""
    folder = Path(os.environ.get("SCREENSHOTS") or ROOT / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def open_page(browser, screenshots):
    """Opens the page of a gateway. Fails in the end if a page complained, or asked another host for something."""
    opened = []

    def open_page(gateway, **settings):
        opened.append(Page(browser, gateway, screenshots, **settings))
        return opened[-1]

    yield open_page
    for page in opened:
        page.look_back()
    browser.get("about:blank")
