"""The dashboard as a document: what Grafana's own models make of it, and whether its parts fit together."""

import itertools
import json
import re

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import panelcfg_config
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus, units

from conforming import complaints
from deployed import (
    annotations, dashboard, interpolated, metric_names, panels, readme_queries, rules, targets, used_variables,
    variables,
)  # fmt: skip
from scene import WINDOW

KINDS = {"stat", "timeseries", "table", "bargauge", "heatmap", "state-timeline"}
ROWS = ["Overview", "Latency", "Cache", "Queue", "Fleet", "Tokens", "Limits", "Process"]
OF_GRAFANA = set(WINDOW)
OF_PROMETHEUS = {"up", "ALERTS"}
LAYOUT = [panel for panel in dashboard()["panels"]]


@pytest.fixture(scope="module")
def decoded():
    register_default_plugins()
    return models.Dashboard.from_json(dashboard())


def lost(before, after, path="dashboard"):
    """What of a JSON value is not in another, or not the same."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for key, value in before.items():
            here = f"{path}.{key}"
            found += lost(value, after[key], here) if key in after else [f"{here}: {value!r}"]
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [text for number, (one, other) in pairs for text in lost(one, other, f"{path}[{number}]")]
    return [] if before == after else [f"{path}: {before!r}, then {after!r}"]


# MARK: The form


def test_grafanas_models_take_all_of_the_dashboard_in_and_give_it_back(decoded):
    again = json.loads(JSONEncoder().encode(decoded))
    assert lost(dashboard(), again) == []


def test_every_value_is_of_the_type_that_grafanas_models_declare(decoded):
    assert complaints(decoded) == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_options_and_fields_of_a_panel_are_decoded_by_the_module_of_its_own_kind(decoded, kind):
    config = panelcfg_config(kind)
    found = [panel for panel in decoded.panels if panel.type_val == kind]
    assert found
    for panel in found:
        module = type(panel.options).__module__.rsplit(".", 1)[1]
        assert module == kind.replace("-", ""), panel.title
        custom = panel.field_config.defaults.custom
        if config.field_config_from_json_hook and custom is not None:
            assert not isinstance(custom, dict), panel.title
        assert all(isinstance(target, prometheus.Dataquery) for target in panel.targets), panel.title


def test_only_panels_that_every_grafana_has_are_used():
    assert {panel["type"] for panel in panels()} == KINDS


def test_it_is_found_under_its_name():
    found = dashboard()
    assert (found["uid"], found["title"]) == ("ollama-gateway", "ollama-gateway")
    assert 39 <= found["schemaVersion"] <= 41, "what Grafana 11 and 12 both read as it is"
    assert "id" not in found, "an instance's own number"


# MARK: The parts


def test_its_rows_are_these():
    assert [panel["title"] for panel in LAYOUT if panel["type"] == "row"] == ROWS


def test_no_two_panels_have_the_same_number_or_title():
    for key in ("id", "title"):
        found = [panel[key] for panel in LAYOUT]
        assert len(set(found)) == len(found), key


def test_panels_lie_within_the_grid_and_do_not_overlap():
    taken = {}
    for panel in LAYOUT:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["w"] >= 1 and place["x"] + place["w"] <= 24, panel["title"]
        for x, y in itertools.product(range(place["w"]), range(place["h"])):
            square = (place["x"] + x, place["y"] + y)
            assert square not in taken, f"{panel['title']} lies on {taken[square]}"
            taken[square] = panel["title"]


def test_panels_stand_in_the_order_in_which_they_are_read():
    places = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in LAYOUT]
    assert places == sorted(places)


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_what_unit(panel):
    assert re.fullmatch(r"[A-Z0-9].*[.]", panel["description"], re.S)
    assert panel["title"] and not panel["title"].endswith(".")
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] in ("stat", "timeseries", "bargauge"):
        assert defaults["unit"] in known_units()
    for override in panel["fieldConfig"]["overrides"]:
        found = {each["id"]: each["value"] for each in override["properties"]}
        assert found.get("unit", "s") in known_units()
    if panel["type"] in ("timeseries", "state-timeline"):
        assert all(target["legendFormat"] for target in panel["targets"])


def known_units():
    return {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_a_panels_legend_names_only_labels_that_its_query_leaves(panel):
    for target in panel["targets"]:
        kept = {label for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(", ")}
        named = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
        is_plain = " by (" not in target["expr"] and "sum(" not in target["expr"]
        assert is_plain or named <= kept, target["expr"]


# MARK: The queries


def everything():
    """Every expression of the dashboard, by where it stands."""
    found = {str(target): target.expression for target in targets()}
    found |= {f"annotation {name}": expression for name, expression in annotations().items()}
    texts = {name: variable["query"] for name, variable in variables().items() if variable["type"] == "query"}
    return found | {
        f"variable {name}": re.fullmatch(r"label_values\((.*), \w+\)", text["query"])[1] for name, text in texts.items()
    }


EVERYTHING = everything()


@pytest.mark.parametrize("where", EVERYTHING)
def test_every_variable_in_a_query_is_there(where):
    assert used_variables(EVERYTHING[where]) <= set(variables()) | OF_GRAFANA


def test_every_variable_is_used():
    used = set().union(*(used_variables(json.dumps(each)) for each in dashboard()["panels"]))
    assert used >= set(variables())


def test_every_query_asks_the_data_source_that_is_chosen():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == chosen, panel["title"]
        assert all(target["datasource"] == chosen for target in panel["targets"]), panel["title"]
    for variable in variables().values():
        assert variable["type"] == "datasource" or variable["datasource"] == chosen


@pytest.mark.parametrize("target", targets(), ids=str)
def test_a_query_looks_at_the_chosen_gateways_boxes_and_models_only(families, target):
    """Where a metric has one of the labels that can be chosen, each selector of it says so."""
    for name, selector in re.findall(r"(ollama_\w+|process_\w+)(?:\{([^}]*)\})?", target.expression):
        if f":{name}" in target.expression or name == "ollama_gateway_build_info":
            continue
        assert 'instance=~"$instance"' in selector, name
        for label in ("backend", "model", "key"):
            has_it = any(label in labels for labels in labels_of(families, name))
            assert has_it <= (f'{label}=~"${label}"' in selector), (name, label)


def labels_of(families, name):
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    family = families.get(name) or families[base]
    return [{label for label, _ in labels} for _, labels in family.samples]


def known_names(families):
    """Every name that a query may have: of samples, of recorded rules, and Prometheus' own."""
    names = {name for family in families.values() for name, _ in family.samples}
    return names | set(rules("record")) | OF_PROMETHEUS


def all_expressions():
    """Those of the dashboard, of README and of the rules, by where they stand."""
    of_rules = {name: rule["expr"] for kind in ("record", "alert") for name, rule in rules(kind).items()}
    return EVERYTHING | {query: query for query in readme_queries()} | of_rules


@pytest.mark.parametrize("where", all_expressions())
def test_a_query_asks_for_nothing_that_is_not_there(families, where):
    names = metric_names(interpolated(all_expressions()[where], WINDOW))
    assert names, "of what?"
    assert names <= known_names(families), where


@pytest.mark.parametrize("where", [where for where in all_expressions() if not where.startswith("variable")])
def test_what_only_grows_is_asked_for_as_a_rate(families, where):
    """A gateway that starts again begins at 0: the figures themselves mean nothing."""
    expression = all_expressions()[where]
    growing = {
        name
        for family in families.values()
        for name, _ in family.samples
        if family.kind in ("counter", "histogram")
    }  # fmt: skip
    for match in re.finditer(r"[a-zA-Z_:][\w:]*", expression):
        if match[0] in growing:
            assert re.search(r"(?:rate|increase)\($", expression[: match.start()]), (where, match[0])
