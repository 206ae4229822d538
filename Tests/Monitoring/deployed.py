"""What is shipped in Deploy: its files, and all expressions in them, ready to be asked."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "Deploy"
PROMETHEUS = DEPLOY / "prometheus/prometheus.yml"
RULES = DEPLOY / "prometheus/rules"
GRAFANA = DEPLOY / "grafana"
DASHBOARD = GRAFANA / "dashboards/ollama-gateway.json"
RUNBOOK = DEPLOY / "RUNBOOK.md"
README = ROOT / "README.md"


def rules(kind):
    """The rules that have a `record` or an `alert`, by that name."""
    groups = [group for file in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
    found = [rule for group in groups for rule in group["rules"] if kind in rule]
    by_name = {rule[kind]: rule for rule in found}
    assert len(by_name) == len(found), "a name twice"
    return by_name


# MARK: The dashboard


def dashboard():
    return json.loads(DASHBOARD.read_text())


def panels(of=None):
    """All panels but rows, those that rows hold included."""
    for panel in (of or dashboard())["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def variables():
    return {variable["name"]: variable for variable in dashboard()["templating"]["list"]}


@dataclass(frozen=True)
class Asked:
    """An expression of a panel."""

    title: str
    ref: str
    expression: str
    is_instant: bool

    def __str__(self):
        return f"{self.title} {self.ref}"


def targets():
    return [
        Asked(panel["title"], target["refId"], target["expr"], target["instant"])
        for panel in panels()
        for target in panel["targets"]
    ]


def annotations():
    """Expressions of the dashboard's annotations, by name."""
    listed = dashboard()["annotations"]["list"]
    return {each["name"]: each["target"]["expr"] for each in listed if not each.get("builtIn")}


VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")


def used_variables(text):
    return {one or other for one, other in VARIABLE.findall(text)}


def interpolated(text, window, chosen=None):
    """A text with its variables replaced as Grafana does it, All chosen unless `chosen` says what is.

    `window` has the values of `__range`, `__interval` and `__rate_interval`.
    """
    chosen, known = chosen or {}, variables()

    def value(match):
        name = match[1] or match[2]
        if name in window:
            return window[name]
        if name not in chosen:
            return known[name]["allValue"]
        values = [re.escape(each).replace("\\", "\\\\") for each in chosen[name]]
        return values[0] if len(values) == 1 else f"({'|'.join(values)})"

    return VARIABLE.sub(value, text)


# MARK: Expressions

PROMQL = re.compile(r"```promql\n(.*?)```", re.S)


def readme_queries():
    """The lines of README's blocks that are marked as promql, without comments."""
    lines = [line.split("#")[0].strip() for block in PROMQL.findall(README.read_text()) for line in block.splitlines()]
    return [line for line in lines if line]


NOT_NAMES = {
    "and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "inf",
    "nan",
}  # fmt: skip


def metric_names(expression):
    """The metrics that an expression asks for."""
    text = re.sub(r"#.*", "", expression)
    text = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|offset\s+\w+", "", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)
    # What stands before a parenthesis is a function.
    names = re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])", text)
    return {name for name in names if name.lower() not in NOT_NAMES}


def unconditional(expression):
    """An alert's expression with sums in place of its comparisons: it has data whether it would fire or not.

    What is compared with an hour ago is compared with now, and what must be absent must be there.
    """
    text = re.sub(r"\boffset \w+", "", expression).replace("absent(", "count(")
    return re.sub(r" (==|!=|<=|>=|<|>) ", " + ", text)
