"""The page of a gateway in a browser: what it shows, in the words of the tests."""

import base64
import json
import re
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from selenium.common.exceptions import JavascriptException, StaleElementReferenceException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

LIMIT = 10
"""Seconds after which a wait is a failure, unless the test says otherwise."""
NUMBERS = ["requests", "tokens", "hits", "running", "waiting", "errors"]


class Page:
    """`GET /gateway/` of a gateway, in a tab of the browser.

    `width` is in CSS pixels, `scheme` what the visitor prefers. `complaints` may be logged by the browser: words of
    its messages, each about the page's connection to the gateway; any other message fails the test.
    """

    def __init__(self, browser, gateway, screenshots, width=1280, scheme="light", motion="no-preference"):
        self.browser = browser
        self.address = gateway.address
        self.screenshots = screenshots
        self.complaints = []
        self.prefer(scheme, motion)
        self.resize(width)
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # what was before is not about this page
        browser.get(f"http://{self.address}/gateway/")

    # MARK: The visitor

    def prefer(self, scheme, motion="no-preference"):
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": name, "value": value} for name, value in features.items()],
        )

    def resize(self, width, height=1200):
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def press(self, *keys):
        ActionChains(self.browser).send_keys(*keys).perform()

    def tab(self, back=0):
        """Presses Tab, or so many times Tab with Shift; returns where that leads: id or text, and whether the focus
        can be seen."""
        if back:
            shift = ActionChains(self.browser).key_down(Keys.SHIFT)
            shift.send_keys(*[Keys.TAB] * back).key_up(Keys.SHIFT).perform()
        else:
            self.press(Keys.TAB)
        return self.js(
            """const at = document.activeElement, style = getComputedStyle(at);
            return [at.id || at.getAttribute("aria-labelledby") || at.textContent.trim(),
                    style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];"""
        )

    def point_at(self, selector):
        ActionChains(self.browser).move_to_element(self.find(selector)).perform()

    def point_away(self):
        ActionChains(self.browser).move_to_element(self.find("h1")).perform()

    @contextmanager
    def hidden(self):
        """While it lasts, the visitor looks at another tab."""
        own = self.browser.current_window_handle
        self.browser.switch_to.new_window("tab")
        other = self.browser.current_window_handle
        self.browser.switch_to.window(own)
        self.command("Target.activateTarget", targetId=other)
        try:
            yield
        finally:
            self.browser.switch_to.window(other)
            self.browser.close()
            self.browser.switch_to.window(own)

    # MARK: What it shows

    def js(self, script, *values):
        return self.browser.execute_script(script, *values)

    def command(self, name, **parameters):
        """A command of the DevTools protocol."""
        return self.browser.execute_cdp_cmd(name, parameters)

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        """The text that can be seen of the first such element; nothing if there is none."""
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def texts(self, selector):
        return self.js("return [...document.querySelectorAll(arguments[0])].map(each => each.innerText)", selector)

    def connection(self):
        return self.text("#link")

    def number(self, name):
        """A key number; None while it is not known."""
        text = self.text(f"#key-{name} dd span").replace(",", "")
        return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None

    def numbers(self):
        return {name: self.number(name) for name in NUMBERS}

    def charts(self):
        """What the charts tell those who do not see them, by their titles."""
        labels = self.js(
            "return [...document.querySelectorAll('[role=img]')].map(each => each.getAttribute('aria-label'))"
        )
        return dict(label.split(", now: ") for label in labels)

    def requests(self):
        """The rows of the last requests, the newest first: their cells."""
        return self.js(
            """return [...document.querySelectorAll("#requests tr")]
                .map(row => [...row.cells].map(cell => cell.innerText.trim()))"""
        )

    def backends(self):
        """The rows of the fleet: name, state and its colour, running, models, and why it is sick."""
        return self.js(
            """return [...document.querySelectorAll("#fleet tr:not(.why)")].map(row => {
                const state = row.querySelector(".state"), why = row.nextSibling;
                return {
                    name: row.cells[0].querySelector("span").innerText, state: state.innerText,
                    colour: getComputedStyle(state).color.match(/[\\d.]+/g).map(Number),
                    running: parseInt(row.cells[2].innerText.replace("running", "")),
                    models: [...row.querySelectorAll(".chips li:not(.rest)")].map(chip => chip.innerText),
                    why: why.hidden ? "" : why.innerText,
                };
            })"""
        )

    def is_dimmed(self):
        return self.js("return getComputedStyle(document.querySelector('#main > section')).opacity < 0.8")

    def overflow(self):
        """By how many pixels the page is wider than the window."""
        return self.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def wait(self, condition, what, limit=LIMIT):
        """Returns the first true value of `condition()`."""
        waiting = WebDriverWait(
            self.browser, limit, poll_frequency=0.05,
            ignored_exceptions=[JavascriptException, StaleElementReferenceException],
        )  # fmt: skip
        return waiting.until(lambda _: condition(), f"{what} did not come about within {limit} s: {self.connection()}")

    def wait_until_live(self, limit=LIMIT):
        self.wait(lambda: self.connection() == "Live" and self.number("requests") is not None, "Live", limit)
        return self

    def keep(self, name):
        """Keeps a picture of what a visitor sees first."""
        picture = self.command("Page.captureScreenshot", format="png")["data"]
        Path(self.screenshots, name).write_bytes(base64.b64decode(picture))

    # MARK: What the browser noticed

    def look_back(self):
        """Fails if the browser logged something, or if the page asked another host."""
        messages = [entry["message"] for entry in self.browser.get_log("browser")]
        unknown = [text for text in messages if not any(known in text for known in self.complaints)]
        assert not unknown, unknown
        strangers = [url for url in self.asked() if urlsplit(url).netloc != self.address]
        assert not strangers, strangers

    def asked(self):
        """The addresses that were asked over the network."""
        entries = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in entries if each["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if urlsplit(url).scheme not in ("data", "about")]
