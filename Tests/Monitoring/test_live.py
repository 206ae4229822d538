"""What Prometheus makes of real gateways under a load whose every request is counted."""

import math
import re

import pytest

from account import Account
from deployed import annotations, interpolated, panels, readme_queries, rules, targets, unconditional, variables
from scene import WINDOW
from watching import JOB, metrics, promtool
from wire import ask, wait_until

SECONDS = {"s": 1, "m": 60}
FROM_THERE = int(WINDOW["__range"][:-1]) * SECONDS[WINDOW["__range"][-1]]
STEP = int(WINDOW["__interval"][:-1])
README = [
    "rate(ollama_requests_total[5m])",
    "rate(ollama_cache_hits_total[5m]) / rate(ollama_requests_total[5m])",
    "histogram_quantile(0.95, rate(ollama_request_latency_seconds_bucket[5m]))",
]
"""Queries that everybody's dashboards may have by now."""


def has_data(values):
    """Whether there is a number among the values."""
    return any(not math.isnan(value) for value in values)


@pytest.fixture(scope="module")
def alarmed(scene):
    """The scene once an alert fires: the gateway `alone` has no box."""
    wait_until(lambda: "OllamaGatewayNoBox" in dict(scene.prometheus.alerts()), "an alert", limit=60)
    return scene


@pytest.fixture
def watched(request, scene):
    """Prometheus, and the moment to ask it about; alerts need longer than all else."""
    wants_alerts = "ALERTS" in request.node.callspec.params["target"].expression
    if wants_alerts:
        request.getfixturevalue("alarmed")
    return scene.prometheus, None if wants_alerts else scene.end


# MARK: Scraping


def test_prometheus_scrapes_every_gateway_without_a_complaint(scene):
    found = scene.prometheus.targets()
    for gateway in scene.gateways:
        target = found[f"{gateway.url}/metrics"]
        assert (target["health"], target["lastError"]) == ("up", ""), target
    up = scene.prometheus.query(f'up{{job="{JOB}"}}', scene.end)
    assert [value for _, value in up] == [1] * len(scene.gateways)


def test_no_sample_is_dropped_twice_there_or_out_of_order(scene):
    own = scene.prometheus.own()
    bad = re.compile(r"prometheus_(target_scrapes_(sample|exceeded)|rule_evaluation_failures)_")
    found = {name: value for name, value in own.items() if bad.match(name)}
    assert len(found) >= 4, "the names have changed"
    assert not any(found.values()), found
    kept, scraped = (
        scene.prometheus.query(f'scrape_samples_{which}{{job="{JOB}"}}', scene.end)
        for which in ("post_metric_relabeling", "scraped")
    )
    assert [value for _, value in kept] == [value for _, value in scraped]
    assert not [line for line in scene.prometheus.log.splitlines() if re.search(r"level=(warn|error)", line)]


def test_what_prometheus_asks_for_is_openmetrics_and_the_gateway_gives_it(scene):
    wanted = scene.witness.last.header("Accept")
    assert wanted.startswith("application/openmetrics-text"), wanted
    answer = ask(scene.main.address, "GET", "/metrics", [("Accept", wanted)])
    assert answer.header("Content-Type").replace(" ", "") == "application/openmetrics-text;version=1.0.0;charset=utf-8"
    assert answer.body.endswith(b"\n# EOF\n")
    assert samples(answer) == samples(ask(scene.main.address, "GET", "/metrics"))


def samples(answer):
    """The names and labels of what an answer has figures for."""
    return {line.rsplit(b" ", 1)[0] for line in answer.lines if not line.startswith(b"#")}


def test_promtool_finds_nothing_wrong_with_the_metrics(scene):
    for gateway in scene.gateways:
        text = ask(gateway.address, "GET", "/metrics").body.decode()
        assert promtool("check", "metrics", input=text) == (0, "")


# MARK: Every query has an answer


@pytest.mark.parametrize("target", targets(), ids=str)
def test_a_panels_query_has_data(watched, target):
    prometheus, at = watched
    expression = interpolated(target.expression, WINDOW)
    if target.is_instant or at is None:
        values = [value for _, value in prometheus.query(expression, at)]
    else:
        series = prometheus.query_range(expression, at - FROM_THERE, at, STEP)
        values = [value for _, values in series for value in values]
    assert has_data(values), f"{target.title!r} stays empty: {expression} gives {values}"


@pytest.mark.parametrize("target", targets(), ids=str)
def test_a_panels_query_is_sound_with_some_or_one_of_each_chosen(scene, target):
    box, other, _ = [box.address for box in scene.boxes]
    chosen = {"instance": [scene.main.address], "backend": [box, other], "model": ["llama3.2:latest"]}
    chosen["key"] = ["anonymous"]
    found = scene.prometheus.query(interpolated(target.expression, WINDOW, chosen), scene.end)
    for labels, _ in found:
        assert labels.get("instance", scene.main.address) == scene.main.address
        assert labels.get("backend", box) in (box, other)
        assert labels.get("model", "llama3.2:latest") == "llama3.2:latest"


@pytest.mark.parametrize("name", [name for name, variable in variables().items() if variable["type"] == "query"])
def test_a_variable_has_values_to_choose_from(scene, name):
    match = re.fullmatch(r"label_values\((.*), (\w+)\)", variables()[name]["query"]["query"])
    matcher, label = interpolated(match[1], WINDOW), match[2]
    found = scene.prometheus.get(f"label/{label}/values", **{"match[]": matcher})
    everything = {
        "instance": {gateway.address for gateway in scene.gateways},
        "backend": {box.address for box in scene.boxes} | {scene.nowhere},
        "model": {"llama3.2:latest", "mistral:latest", "nomic-embed-text:latest", "other"},
        "key": {"anonymous"},
    }
    assert set(found) == everything[name]


@pytest.mark.parametrize("name", annotations())
def test_an_annotation_shows_alerts(alarmed, name):
    found = alarmed.prometheus.query(interpolated(annotations()[name], WINDOW))
    assert "OllamaGatewayNoBox" in [labels["alertname"] for labels, _ in found]


@pytest.mark.parametrize("query", dict.fromkeys([*README, *readme_queries()]))
def test_a_query_of_the_readme_has_data(scene, query):
    found = scene.prometheus.query(query, scene.end)
    assert has_data(value for _, value in found), found


def test_the_readme_has_the_queries_that_everybody_knows():
    assert set(README) <= set(readme_queries())


@pytest.mark.parametrize("name", rules("record"))
def test_a_recorded_rule_has_data(scene, name):
    for expression in (name, rules("record")[name]["expr"]):
        found = scene.prometheus.query(expression, scene.end)
        assert [labels.get("job") for labels, _ in found] == [JOB], found
        assert has_data(value for _, value in found)


@pytest.mark.parametrize("name", rules("alert"))
def test_what_an_alert_compares_has_data(scene, name):
    expression = unconditional(rules("alert")[name]["expr"])
    found = scene.prometheus.query(expression, scene.end)
    assert has_data(value for _, value in found), (expression, found)


# MARK: Every answer is right


def total(name, by=""):
    return f"sum by ({by}) ({name})" if by else f"sum({name})"


G = "ollama_gateway_"
IMPLIED = [
    (total("ollama_requests_total"), lambda account: account.requests),
    (total("ollama_cache_hits_total"), lambda account: account.uses["hit"] + account.uses["coalesced"]),
    (total("ollama_cache_misses_total"), lambda account: account.forwarded),
    (total("ollama_request_latency_seconds_count"), lambda account: unlimited(account)),
    (total(G + "request_duration_seconds_count"), lambda account: unlimited(account)),
    # Of those who left before the answer began, none: there was no first byte.
    (
        total(G + "time_to_first_byte_seconds_count"),
        lambda account: account.forwarded + account.uses["coalesced"] - account.left["waiting"],
    ),
    (total(G + "tokens_per_second_count", "model"), lambda account: account.timed),
    (total(G + "model_load_seconds_count", "model"), lambda account: account.loaded),
    (total(G + "model_requests_total", "result"), Account.by_result),
    (total(G + "model_requests_total", "key"), lambda account: {"anonymous": account.requests}),
    (total(G + 'model_requests_total{result!="refused"}', "model"), lambda account: unrefused(account)),
    (total(G + "refused_total", "reason"), lambda account: account.refused),
    (total(G + "cancelled_total", "phase"), lambda account: account.left),
    (total(G + 'requests_total{cache!="none", code!="499"}', "cache"), lambda account: account.uses),
    (total(G + 'requests_total{cache!="none"}'), lambda account: account.uses.total() + account.left.total()),
    (total(G + 'requests_total{code="429"}'), lambda account: account.refused["rate_limit"]),
    (total(G + 'requests_total{code="499"}'), lambda account: account.left.total()),
    (total(G + 'requests_total{code="503"}'), lambda account: sum(account.refused[why] for why in BUSY)),
    (total(G + "single_flight_joins_total"), lambda account: account.uses["coalesced"]),
    (total(G + "completion_tokens_total", "model"), lambda account: account.generated),
    (total(G + "prompt_tokens_total", "model"), lambda account: account.read),
    (total(G + "saved_tokens_total", "model"), lambda account: account.saved),
]
"""Expressions, and what an account says that they must give: a number, or one for each value of the label."""
BUSY = ["queue_full", "queue_timeout", "no_backend"]


def unrefused(account):
    by_model = account.by_model()
    by_model.subtract({model: count for (model, result), count in account.results.items() if result == "refused"})
    return by_model


def unlimited(account):
    return account.requests - account.refused["rate_limit"]


def nonzero(figures):
    return {name: figure for name, figure in figures.items() if figure}


def figures(samples):
    """A number, or numbers by the value of the only label."""
    if [labels for labels, _ in samples] == [{}]:
        return samples[0][1]
    return nonzero({value: figure for labels, figure in samples for value in labels.values()})


@pytest.mark.parametrize("expression, implied", IMPLIED, ids=[expression for expression, _ in IMPLIED])
def test_a_sum_is_what_the_clients_counted(scene, expression, implied):
    expected = implied(scene.total())
    expected = expected if isinstance(expected, int) else nonzero(expected)
    assert figures(scene.prometheus.query(expression, scene.end)) == expected


@pytest.mark.parametrize("expression, implied", IMPLIED, ids=[expression for expression, _ in IMPLIED])
def test_a_sum_is_what_the_clients_counted_half_way_through(scene, expression, implied):
    expected = implied(sum(scene.first_half.values(), Account()))
    expected = expected if isinstance(expected, int) else nonzero(expected)
    assert figures(scene.prometheus.query(expression, scene.half)) == expected


def test_each_box_was_called_as_often_as_it_says(scene):
    picks = figures(scene.prometheus.query(total(G + "backend_picks_total", "backend"), scene.end))
    calls = scene.calls()
    lost = picks[scene.doomed.address] - calls[scene.doomed.address]
    failures = f'{G}backend_failures_total{{backend="{scene.doomed.address}", reason=~"connect|lost"}}'
    assert 0 < lost <= figures(scene.prometheus.query(total(failures), scene.end))
    assert picks == calls | {scene.doomed.address: picks[scene.doomed.address]}
    retries = figures(scene.prometheus.query(total(G + "backend_retries_total"), scene.end))
    assert retries == lost
    mine = f'{G}backend_loads_total{{instance="{scene.main.address}"}}'
    assert figures(scene.prometheus.query(total(mine, "backend"), scene.end)) == scene.loads()
    waits = figures(scene.prometheus.query(total(G + "queue_wait_seconds_count"), scene.end))
    assert waits == scene.total().forwarded + retries


def test_the_hit_rate_of_each_gateway_is_what_its_clients_were_told(scene):
    for by, query in (("rate", README[1]), ("increase", README[1].replace("rate(", "increase("))):
        found = {labels["instance"]: value for labels, value in scene.prometheus.query(query, scene.end)}
        for gateway in (scene.main, scene.narrow):
            share = scene.accounts[gateway.address].share("hit", "coalesced")
            assert found[gateway.address] == pytest.approx(share, rel=1e-6), by


def panel_value(scene, title):
    (target,) = [target for target in targets() if target.title == title]
    ((_, value),) = scene.prometheus.query(interpolated(target.expression, WINDOW), scene.end)
    return value


def gauges(scene, name):
    return [metrics(gateway)[name].value for gateway in scene.gateways]


class Between:
    """Any number from one to another: of a series that began within the time shown, the first events have no rate."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def __eq__(self, value):
        return 0.9 * self.low <= value <= 1.1 * self.high

    def __repr__(self):
        return f"{self.low} to {self.high}, or a little beyond"


def since_half(scene, figure):
    """At least what came after the first half, at most all."""
    total = figure(scene.total())
    return Between(total - figure(sum(scene.first_half.values(), Account())), total)


@pytest.mark.parametrize(
    "title, implied",
    [
        ("Gateways down", lambda scene: 0),
        # One was killed, one was never there; the one that was drained does not count.
        ("Boxes down", lambda scene: 2),
        ("Queue taken", lambda scene: 0),
        ("Entries", lambda scene: sum(gauges(scene, "ollama_cache_size"))),
        ("Memory used", lambda scene: pytest.approx(max(gauges(scene, G + "cache_bytes")) / (256 << 20))),
        ("Hit rate", lambda scene: pytest.approx(scene.total().share("hit", "coalesced"), rel=0.4)),
        ("Failed", lambda scene: pytest.approx(scene.total().share("failed", of=SERVED), rel=0.6)),
        ("Calls shared", lambda scene: since_half(scene, lambda account: account.uses["coalesced"])),
        ("Tokens saved", lambda scene: since_half(scene, lambda account: account.saved.total())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_panel_shows_what_happened(scene, title, implied):
    assert panel_value(scene, title) == implied(scene)


SERVED = ["hit", "coalesced", "answered", "failed"]


def test_the_boxes_panel_tells_up_down_and_drained(scene):
    (target,) = [target for target in targets() if target.title == "Boxes"]
    found = scene.prometheus.query(interpolated(target.expression, WINDOW), scene.end)
    kept, drained, doomed = [box.address for box in scene.boxes]
    assert figures_by(found, "backend") == {kept: 1, drained: -1, doomed: 0, scene.nowhere: 0}


def figures_by(samples, label):
    return {labels[label]: value for labels, value in samples}


def test_the_alert_on_a_gateway_without_boxes_fires_for_it_and_no_other(alarmed):
    firing = [labels["instance"] for name, labels in alarmed.prometheus.alerts() if name == "OllamaGatewayNoBox"]
    assert firing == [alarmed.alone.address]


def test_no_panel_is_left_out_of_these_tests():
    assert {panel["title"] for panel in panels() if not panel["targets"]} == set()
