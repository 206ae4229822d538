"""The page at /gateway/ shows what the gateway does as it happens, to everyone, and says when it does not."""

import itertools
import json
import re
import signal

import pytest
from selenium.webdriver import Keys

from boxes import unused_address
from caching import question
from traffic import Listener, traffic
from wire import ask

MODELS = "llama3.2,qwen3:8b,nomic-embed-text"
HOSTILE = "<img src=x onerror=alert(1)>"
LONG = "a-model-with-a-name-of-eighty-characters-" + "x" * 35 + ":q4"
PATH = "/api/chat"


@pytest.fixture
def boxes(start_ollama):
    """Two boxes that take about 0.3 s for an answer."""
    return [start_ollama(models=MODELS, first_token="100ms", interval="4ms", tokens=50) for _ in range(2)]


@pytest.fixture
def start(boxes, start_gateway):
    """Starts the gateway in front of `boxes`; a second time it takes the options of the first and the port given."""
    return lambda **settings: start_gateway(
        *(box.address for box in boxes),
        **{"health_interval": "1s", "cache_ttl": "1m", "concurrency": 4, "queue_limit": 100} | settings,
    )


@pytest.fixture
def gateway(start):
    return start()


def kill(program):
    program.process.kill()
    program.wait()
    program.process.returncode = 0  # It was meant to.


def port(program):
    return program.address.rsplit(":", 1)[1]


def chat(gateway, text="Why is the sky blue?", target=PATH, **fields):
    return ask(gateway.address, "POST", target, body=question(PATH, text, **fields))


# MARK: What happens is shown


def test_without_traffic_it_says_so(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    assert page.text("h1").startswith("ollama-gateway 0.") and "round-robin" in page.text("#about")
    assert page.numbers() == {"requests": 0, "tokens": 0, "hits": None, "running": 0, "waiting": 0, "errors": 0}
    assert "no traffic" in page.text("#key-requests")
    assert "No requests yet" in page.text(".requests")
    page.wait(lambda: all("in the last 5 minutes" in label for label in page.charts().values()), "empty charts")
    assert [backend["state"] for backend in page.backends()] == ["healthy", "healthy"]


def test_all_numbers_move_while_traffic_flows(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    with traffic(gateway, MODELS.split(","), clients=6):
        page.wait(lambda: page.number("requests") > 1, "requests a second")
        page.wait(lambda: page.number("tokens") > 10, "tokens a second")
        page.wait(lambda: 20 < page.number("hits") < 80, "a hit rate")
        page.wait(lambda: page.number("running") > 0, "something running")
        page.wait(lambda: any(backend["running"] > 0 for backend in page.backends()), "a box at work")
        page.wait(lambda: {"llama3.2:latest"} <= set(page.backends()[0]["models"]), "a loaded model")
        page.wait(lambda: len(page.requests()) > 10, "requests")
        page.wait(lambda: not any("in the last 5 minutes" in label for label in page.charts().values()), "charts")
        page.wait(lambda: page.js("return samples.length") > 7, "some seconds of charts")
        charts = page.charts()
        page.keep("page-desktop-light.png")
        page.prefer("dark")
        page.keep("page-desktop-dark.png")
        page.prefer("light")
        page.resize(375, 812)
        page.keep("page-phone.png")
    assert re.fullmatch(r"boxes [\d.]+/s, cache [\d.]+/s, 4xx, 5xx 0/s", charts["Requests"])
    assert re.fullmatch(r"p50 \d+ ms, p95 \d+ ms, p99 \d+ ms|.* s", charts["Duration"])
    assert re.fullmatch(r"p50 \d+ ms, p95 \d+ ms", charts["Time to first byte"])
    page.wait(lambda: page.number("requests") == 0, "rest")


def test_each_request_is_shown_with_what_became_of_it(gateway, boxes, open_page):
    page = open_page(gateway).wait_until_live()
    chat(gateway)
    (row,) = page.wait(page.requests, "the first request")
    time, request, model, status, cache, backend, tries, queue, first, duration, tokens = row
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time)
    assert (request, model, status, cache) == ("POST /api/chat", "llama3.2:latest", "200", "MISS")
    assert backend in [box.address for box in boxes]
    assert (tries, tokens) == ("1", "50") and queue.endswith("s")
    assert re.fullmatch(r"\d+ ms", first) and re.fullmatch(r"\d+ ms|\d\.\d\d s", duration)
    chat(gateway)
    page.wait(lambda: len(page.requests()) == 2, "the second")
    assert page.requests()[0][3:7] == ["200", "HIT", "–", "–"]
    chat(gateway, model="nope")
    page.wait(lambda: len(page.requests()) == 3, "the third")
    assert page.requests()[0][3] == "404" and "nope" in page.requests()[0][1]
    page.wait(lambda: page.number("hits") == 33, "one hit of three")
    assert page.number("errors") == 0 and "1 × 4xx" in page.text("#key-errors")


def test_the_gateways_own_pages_are_not_among_the_requests(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    for path in ("/health", "/metrics", "/gateway/status", "/gateway/"):
        ask(gateway.address, "GET", path)
    chat(gateway)
    page.wait(page.requests, "a request")
    assert [row[1] for row in page.requests()] == ["POST /api/chat"]


def test_nothing_of_what_is_asked_or_answered_is_shown(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    with Listener(gateway) as listener:
        answer = chat(gateway, "a question about xyzzy-prompt", f"{PATH}?token=xyzzy-query", stream=False)
        page.wait(page.requests, "the request")
        page.wait(lambda: listener.all("requests"), "the event of it")
        told = json.dumps(listener.told, ensure_ascii=False)
    assert "/api/chat" in told and "/api/chat" in page.text("#requests")
    everything = told + page.js("return document.documentElement.outerHTML")
    for secret in ("xyzzy", answer.json["message"]["content"]):
        assert secret not in everything


# MARK: What goes wrong is shown


def test_a_box_that_is_killed_turns_red_and_green_again_when_it_is_back(gateway, boxes, start_ollama, open_page):
    page = open_page(gateway).wait_until_live()
    assert [backend["state"] for backend in page.backends()] == ["healthy", "healthy"]
    assert is_green(page.backends()[1]) and not page.backends()[1]["why"]
    kill(boxes[1])
    sick = page.wait(lambda: next((b for b in page.backends() if b["state"] == "unhealthy"), None), "the sick box")
    assert (sick["name"], is_red(sick)) == (boxes[1].address, True)
    assert "connect" in sick["why"]
    assert "1 of 2 healthy" in page.text("#fleet-note") and page.browser.title.startswith("1 down")
    page.keep("page-box-down.png")
    start_ollama(models=MODELS, port=port(boxes[1]))
    page.wait(lambda: [b["state"] for b in page.backends()] == ["healthy", "healthy"], "a healthy fleet")
    assert is_green(page.backends()[1]) and not page.backends()[1]["why"]
    page.wait(lambda: page.browser.title == "ollama-gateway", "the usual title")


def is_red(backend):
    red, green, *_ = backend["colour"]
    return red > green + 60


def is_green(backend):
    red, green, *_ = backend["colour"]
    return green > red + 60


def test_a_gateway_that_is_gone_is_missed_and_found_again(gateway, start, open_page):
    page = open_page(gateway).wait_until_live()
    chat(gateway)
    page.wait(lambda: page.requests() and page.number("requests") > 0, "a request")
    page.complaints = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING"]
    kill(gateway)
    page.wait(lambda: page.connection() == "Gateway gone", "word of it")
    assert re.fullmatch(r"Gateway gone since \d\d:\d\d:\d\d, trying again…", page.text("#banner"))
    page.wait(page.is_dimmed, "dim numbers")
    assert page.browser.title.startswith("Gone")
    page.keep("page-gone.png")
    start(port=port(gateway))
    page.wait_until_live()
    page.wait(lambda: not page.is_dimmed(), "clear numbers")
    assert (page.text("#banner"), page.browser.title) == ("", "ollama-gateway")
    assert page.requests() == [], "those of the gateway that is gone"


def test_a_gateway_that_is_shut_down_says_so(gateway, start, open_page):
    page = open_page(gateway).wait_until_live()
    page.complaints = ["ERR_CONNECTION_REFUSED", "404 (Not Found)"]
    assert gateway.stop() == 0
    page.wait(lambda: page.text("#banner") == "The gateway is shutting down.", "its farewell")
    page.wait(lambda: re.search("Gateway gone since .*: it was shut down", page.text("#banner")), "its absence")
    # One that counts nothing has no news.
    mute = start(port=port(gateway), no_metrics=True)
    page.wait(lambda: "has sent no news since" in page.text("#banner"), "its silence")
    mute.stop()
    start(port=port(gateway))
    page.wait_until_live(limit=15)


def test_a_gateway_that_says_nothing_is_told_from_one_that_has_nothing_to_do(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    gateway.signal(signal.SIGSTOP)
    try:
        page.wait(lambda: re.fullmatch(r"No news for [3-9] s", page.text("#banner")), "word of it")
        assert page.connection() == "No news"
        page.wait(page.is_dimmed, "dim numbers")
    finally:
        gateway.signal(signal.SIGCONT)
    page.wait_until_live()
    page.wait(lambda: not page.is_dimmed() and not page.text("#banner"), "clear numbers")


# MARK: It can be read


def test_the_list_stands_still_while_it_is_read(gateway, open_page):
    page = open_page(gateway, motion="reduce").wait_until_live()
    with traffic(gateway):
        page.wait(lambda: len(page.requests()) > 3, "requests")
        assert page.js("return document.getAnimations().length") == 0
        page.point_at("#requests tr:nth-child(2)")
        check_still(page, "while you point at it")
        page.point_away()
        page.find("#pause").click()
        page.wait(lambda: page.text("#pause") == "Resume", "the button to say what it does next")
        check_still(page, "paused")
        page.find("#pause").click()
        page.wait(lambda: page.text("#requests-note") == "", "the list to go on")


def check_still(page, why):
    """Fails unless the list says why it stands still and how many it could show, stays as it is, and goes on later."""
    page.wait(lambda: why in page.text("#requests-note"), "word of it")
    before = page.requests()
    page.wait(lambda: re.search(r"[1-9]\d* new", page.text("#requests-note")), "requests that are held back")
    assert page.requests() == before


def test_the_charts_tell_what_was_at_the_time_pointed_at(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    page.wait(lambda: page.js("return samples.length") > 1, "a second")
    assert page.texts(".at:not([hidden])") == []
    page.js(
        """const plot = document.querySelector(".plot"), at = plot.getBoundingClientRect().right - 1;
        plot.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: at }));"""
    )
    page.wait(lambda: len(page.texts(".at:not([hidden])")) == 6, "a time in each chart")
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", text) for text in page.texts(".at"))
    page.point_at(".plot")
    page.wait(lambda: page.texts(".at:not([hidden])") == [], "no time where nothing is known")


def test_a_tab_that_nobody_sees_does_nothing_and_is_up_to_date_when_it_is_seen(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    with page.hidden(), Listener(gateway) as listener:
        page.wait(lambda: page.js("return document.visibilityState") == "hidden", "the other tab")
        for number in range(60):
            chat(gateway, stream=False, options={"num_predict": 1 + number % 2})
            if number % 20 == 19:  # so many are told of each second
                page.wait(lambda: len(listener.all("tick")) > number // 20, "a second")
        page.wait(lambda: page.js("return fresh.length") == 50, "news")
        assert page.requests() == []
    page.wait(lambda: len(page.requests()) == 50, "all of them")


def test_all_of_it_works_by_keyboard(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    stops = [page.tab() for _ in range(7)]
    assert [name for name, _ in stops] == [
        "Skip to the numbers", "theme", "fleet-title", "pause", "requests-scroll", "status", "metrics",
    ]  # fmt: skip
    assert all(is_seen for _, is_seen in stops), stops
    assert page.tab(back=3)[0] == "pause"
    page.press(Keys.SPACE)
    page.wait(lambda: page.text("#pause") == "Resume", "the pause")
    page.press(Keys.ENTER)
    page.wait(lambda: page.text("#pause") == "Pause", "its end")
    page.tab()
    page.wait(lambda: "while focused" in page.text("#requests-note"), "word that it stands still")
    assert page.tab(back=4)[0] == "Skip to the numbers"
    page.press(Keys.ENTER)
    assert page.js("return document.activeElement.id") == "main", "the skip link leads past the header"


def test_the_theme_is_the_visitors_and_can_be_chosen_and_is_kept(gateway, open_page):
    page = open_page(gateway, scheme="dark").wait_until_live()
    assert brightness(page) < 60
    page.prefer("light")
    assert brightness(page) > 200
    looks = []
    for _ in range(3):
        looks.append((page.text("#theme"), brightness(page) > 130))
        page.find("#theme").click()
    assert looks == [("Theme: auto", True), ("Theme: light", True), ("Theme: dark", False)]
    page.find("#theme").click()
    page.find("#theme").click()
    page.browser.refresh()
    assert (page.text("#theme"), brightness(page) < 60) == ("Theme: dark", True)


def brightness(page):
    return sum(page.js("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")) / 3


def test_nothing_is_wider_than_the_window(start_box, start_gateway, open_page):
    boxes = [start_box(models=[LONG], loaded=[LONG] * 9) for _ in range(3)]
    address, keeper = unused_address()
    with keeper:
        gateway = start_gateway(*(box.address for box in boxes), f"{address};tier=2", cache_ttl="1m")
        page = open_page(gateway).wait_until_live()
        chat(gateway, model=LONG)
        page.wait(lambda: any(LONG in row[2] for row in page.requests()), "the request")
        for width in (320, 375, 768, 1024, 1280, 1920):
            page.resize(width)
            assert page.overflow() <= 0, width
            assert page.text("#requests tr") and page.text("#fleet tr"), width


def test_names_are_shown_as_they_are_whatever_they_are(start_box, start_gateway, open_page):
    gateway = start_gateway(start_box(models=[HOSTILE, "m"], loaded=[HOSTILE, "m"]).address)
    page = open_page(gateway).wait_until_live()
    chat(gateway, model=HOSTILE)
    ask(gateway.address, "GET", "/api/<script>alert(2)</script>")
    page.wait(lambda: len(page.requests()) == 2, "the requests")
    assert any(HOSTILE in cell for cell in itertools.chain(*page.requests()))
    assert any("<script>alert(2)</script>" in cell for cell in itertools.chain(*page.requests()))
    assert page.js("return [document.images.length, document.querySelectorAll('body script').length]") == [0, 1]


def test_it_has_what_screen_readers_go_by(gateway, open_page):
    page = open_page(gateway).wait_until_live()
    assert page.js("return [document.documentElement.lang, document.title]") == ["en", "ollama-gateway"]
    for landmark in ("header", "main", "footer"):
        assert page.js("return document.querySelectorAll(arguments[0]).length", landmark) == 1, landmark
    levels = page.js("return [...document.querySelectorAll('h1, h2, h3')].map(each => Number(each.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels)), levels
    sections = page.js(
        """return [...document.querySelectorAll("section, [role=group], table")].map(each =>
            each.caption?.textContent ?? document.getElementById(each.getAttribute("aria-labelledby"))?.textContent)"""
    )
    assert len(sections) == 8 and all(sections), sections
    assert all(page.texts("button") + page.texts("a")), "controls have names"
    live = page.js("return [...document.querySelectorAll('[aria-live]')].map(each => [each.id, each.ariaLive])")
    assert live == [["link", "polite"]], "only the connection interrupts"
    assert len(page.charts()) == 6
    heads = page.js("return [...document.querySelectorAll('thead th')].map(each => [each.scope, each.textContent])")
    assert all(scope == "col" and text for scope, text in heads) and len(heads) == 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(scheme, boxes, start_gateway, open_page):
    address, keeper = unused_address()
    with keeper:
        gateway = start_gateway(boxes[0].address, address, health_interval="1s", cache_ttl="1m")
        page = open_page(gateway, scheme=scheme, motion="reduce").wait_until_live()
        for fields in ({}, {}, {"model": "nope"}, {"tools": [{}]}):
            chat(gateway, **fields)
        page.wait(lambda: len(page.requests()) == 4, "the requests")
        found = page.js(CONTRASTS)
    assert len(found) > 80
    weak = {text: ratio for text, ratio in found if ratio < 4.5}
    assert not weak


CONTRASTS = """
    const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    // Any colour that CSS can say, over the one below it, as red, green and blue.
    const over = (colour, below) => {
        pen.fillStyle = `rgb(${below})`;
        pen.fillRect(0, 0, 1, 1);
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const ground = node => {
        const below = node.parentElement ? ground(node.parentElement) : [255, 255, 255];
        return over(getComputedStyle(node).backgroundColor, below);
    };
    const luminance = colour => colour.map(part => part / 255)
        .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
    const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text; text = texts.nextNode();) {
        const node = text.parentElement;
        if (!text.data.trim() || !node.checkVisibility() || node.closest(".unseen, .skip, script")) continue;
        const below = ground(node), pair = [over(getComputedStyle(node).color, below), below].map(luminance);
        found.push([text.data, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)]);
    }
    return found;
"""
