"""Prometheus' text format, version 0.0.4, read strictly.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from wire import ask

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? (\S+)")
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|Inf)|NaN")


@dataclass
class Family:
    """What stands under one HELP and TYPE."""

    name: str
    help: str
    kind: str = ""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)
    """By name and labels."""

    @property
    def value(self):
        """Of a family that has one sample and no labels."""
        assert set(self.samples) == {(self.name, ())}, self.samples
        return self.samples[self.name, ()]

    @property
    def buckets(self):
        """Of a histogram without labels of its own: how many observations were at most as large as each bound."""
        return {
            float(dict(labels)["le"].replace("+Inf", "inf")): value
            for (name, labels), value in self.samples.items()
            if name == f"{self.name}_bucket"
        }

    @property
    def count(self):
        return self.samples[f"{self.name}_count", ()]

    @property
    def sum(self):
        return self.samples[f"{self.name}_sum", ()]

    def by(self, *names, of=""):
        """Its values by those of some labels, added up over the others; without those that are nothing. `of` is
        `_count` for a histogram's observations."""
        found = Counter()
        for (name, labels), value in self.samples.items():
            if name == self.name + of and value:
                labels = dict(labels)
                values = tuple(labels[label] for label in names)
                found[values if len(names) != 1 else values[0]] += value
        return found


def parse(text):
    """The families by name. Fails at whatever the format does not allow."""
    assert text.endswith("\n"), "the last line has no end"
    assert "\r" not in text
    families, family = {}, None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            match = re.fullmatch(rf"# HELP ({NAME}) (\S.*)", line)
            assert match, line
            assert match[1] not in families, f"twice: {line}"
            assert not re.search(r"\\(?![\\n])", match[2]), line
            family = families[match[1]] = Family(*match.groups())
        elif line.startswith("# TYPE "):
            match = re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram|summary|untyped)", line)
            assert match, line
            assert family and match[1] == family.name and not family.kind and not family.samples, line
            family.kind = match[2]
        elif line and not line.startswith("#"):
            add(line, family)
    for family in families.values():
        check(family)
    return families


def parse_open_metrics(text):
    """The families of OpenMetrics 1.0, by the names that they have in the other format."""
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""] and lines.count("# EOF") == 1, lines[-3:]
    assert all(lines[:-1]), "an empty line"
    counters = {line.split(" ")[2] for line in lines if re.fullmatch(r"# TYPE \S+ counter", line)}
    assert not any(name.endswith("_total") for name in counters), counters
    for place, line in enumerate(lines):
        match = re.fullmatch(r"(# (?:HELP|TYPE) )(\S+)( .*)", line)
        assert match or not line.startswith("#") or line == "# EOF", line
        if match and match[2] in counters:
            lines[place] = f"{match[1]}{match[2]}_total{match[3]}"
        for bound in re.findall(r'\ble="([^"]*)"', line):
            assert bound == "+Inf" or bound == repr(float(bound)), line
    return parse("\n".join(lines[:-2]) + "\n")


def add(line, family):
    match = SAMPLE.fullmatch(line)
    assert match, line
    name, labels, value = match.groups()
    assert family and family.kind, f"before its TYPE: {line}"
    suffixes = ["_bucket", "_sum", "_count"] if family.kind == "histogram" else [""]
    assert name in [family.name + suffix for suffix in suffixes], f"among {family.name}: {line}"
    assert NUMBER.fullmatch(value), line
    pairs = tuple(sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")))
    assert len({key for key, _ in pairs}) == len(pairs), line
    assert (name, pairs) not in family.samples, f"twice: {line}"
    family.samples[name, pairs] = float(value.replace("Inf", "inf"))


def check(family):
    """What the kind of a family demands."""
    # Its samples may be still to come: those whose labels are not known beforehand.
    assert family.kind, f"without a type: {family.name}"
    if family.kind == "counter":
        assert family.name.endswith("_total"), family.name
        assert all(value >= 0 and math.isfinite(value) for value in family.samples.values())
    if family.kind == "histogram":
        of_all = {}
        for (name, labels), value in family.samples.items():
            own = tuple((key, text) for key, text in labels if key != "le")
            bound = dict(labels).get("le", name.removeprefix(family.name))
            of_all.setdefault(own, {})[bound] = value
        for values in of_all.values():
            check_histogram(family, values)


def check_histogram(family, values):
    """What the samples of one series have to be, by bound, and `_sum` and `_count`."""
    count, total = values.pop("_count"), values.pop("_sum")
    bounds = [float(bound.replace("+Inf", "inf")) for bound in values]
    assert bounds == sorted(bounds) and bounds[-1] == math.inf, (family.name, bounds)
    counts = list(values.values())
    assert counts == sorted(counts), f"{family.name}: buckets are cumulative"
    assert counts[-1] == count and total >= 0, (family.name, values)


def scrape(gateway):
    """All families of a gateway, by name."""
    answer = ask(gateway.address, "GET", "/metrics")
    assert answer.status == 200 and answer.complete
    kind, *parameters = [part.strip() for part in answer.header("Content-Type").split(";")]
    assert kind == "text/plain" and "version=0.0.4" in parameters, answer.header("Content-Type")
    assert set(parameters) <= {"version=0.0.4", "charset=utf-8"}
    return parse(answer.body.decode())


def read_open_metrics(gateway, accept="application/openmetrics-text; version=1.0.0"):
    """The same, in the other format."""
    answer = ask(gateway.address, "GET", "/metrics", [("Accept", accept)])
    assert answer.status == 200 and answer.complete
    assert answer.header("Content-Type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    return parse_open_metrics(answer.body.decode())
