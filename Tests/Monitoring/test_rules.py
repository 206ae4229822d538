"""The rules and the configuration, by promtool; each alert with a case of its firing and of its ending."""

import re

import pytest
import yaml

from deployed import PROMETHEUS, RULES, RUNBOOK, rules
from watching import JOB, promtool

CASES = sorted(PROMETHEUS.parents[2].glob("Tests/Monitoring/*_test.yml"))
SEVERITIES = {"critical", "warning"}


def cases():
    """The alerts' cases: for each alert, its moments in the order of time and whether it fires then, by test."""
    found = {}
    for file in CASES:
        for number, test in enumerate(yaml.safe_load(file.read_text())["tests"]):
            for case in test.get("alert_rule_test", []):
                moments = found.setdefault(case["alertname"], {}).setdefault((file.name, number), [])
                moments.append((seconds(case["eval_time"]), bool(case.get("exp_alerts"))))
    return {alert: [sorted(moments) for moments in tests.values()] for alert, tests in found.items()}


def seconds(duration):
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([smhd])", duration))


def test_promtool_finds_nothing_wrong_with_the_rules():
    status, said = promtool("check", "rules", *sorted(RULES.glob("*.yml")))
    assert status == 0 and "duplicate" not in said, said


def test_promtool_finds_nothing_wrong_with_the_configuration():
    status, said = promtool("check", "config", PROMETHEUS)
    assert status == 0, said
    assert said.count("rules found") >= 2, said


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.name)
def test_the_rules_do_what_their_cases_say(file):
    status, said = promtool("test", "rules", file.name, cwd=file.parent)
    assert status == 0, said


@pytest.mark.parametrize("alert", rules("alert"))
def test_an_alert_has_a_case_of_its_firing_and_then_of_its_ending(alert):
    sequences = [[fires for _, fires in moments] for moments in cases().get(alert, [])]
    ends = [True in fires and False in fires[fires.index(True) :] for fires in sequences]
    assert any(ends), sequences
    # And one where it does not fire yet, so that it is not on from the start.
    assert any(fires[0] is False and True in fires for fires in sequences), sequences


@pytest.mark.parametrize("record", rules("record"))
def test_a_recorded_rule_has_a_case(record):
    asked = [
        case["expr"]
        for file in CASES
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("promql_expr_test", [])
        if case["exp_samples"]
    ]
    assert any(record in expression for expression in asked), asked


@pytest.mark.parametrize("alert", rules("alert"))
def test_an_alert_waits_says_how_bad_it_is_and_what_to_do(alert):
    rule = rules("alert")[alert]
    assert alert.startswith("OllamaGateway")
    assert seconds(rule["for"]) >= 30
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    file, anchor = rule["annotations"]["runbook"].split("#")
    assert file == "Deploy/RUNBOOK.md"
    assert anchor in anchors()


def anchors():
    return {title.lower() for title in re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.M)}


def test_the_runbook_has_a_section_for_each_alert_and_for_nothing_else():
    assert anchors() == {alert.lower() for alert in rules("alert")}


def test_the_runbooks_links_lead_somewhere():
    assert set(re.findall(r"\]\(#(\w+)\)", RUNBOOK.read_text())) <= anchors()


def test_the_job_of_the_configuration_is_the_one_that_alerts_go_by():
    (job,) = yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
    assert job["job_name"] == JOB
    for alert in ("OllamaGatewayDown", "OllamaGatewayAbsent"):
        assert f'job="{JOB}"' in rules("alert")[alert]["expr"]
