"""compose.yml, and what Grafana is told at its start: whether it all fits together."""

import re

import yaml

from deployed import DASHBOARD, DEPLOY, GRAFANA, PROMETHEUS, RUNBOOK, dashboard
from programs import run

COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES = COMPOSE["services"]


def mounts(service):
    """What a service sees of the repository, by the path under which it sees it."""
    found = {}
    for mount in SERVICES[service]["volumes"]:
        source, inside, *mode = mount.split(":")
        if source.startswith("."):
            assert mode == ["ro"], mount
            assert (DEPLOY / source).exists(), mount
            found[inside] = (DEPLOY / source).resolve()
        else:
            assert source in COMPOSE["volumes"], mount
    return found


def seen(service, path):
    """The file that a service finds under a path."""
    for inside, source in mounts(service).items():
        if path == inside or path.startswith(inside + "/"):
            return source / path.removeprefix(inside).lstrip("/")
    raise AssertionError(f"{service} sees no {path}")


def options():
    return dict(word.removeprefix("--").split("=", 1) for word in SERVICES["prometheus"]["command"])


def test_prometheus_finds_its_configuration_and_its_rules():
    assert seen("prometheus", options()["config.file"]) == PROMETHEUS
    for pattern in yaml.safe_load(PROMETHEUS.read_text())["rule_files"]:
        assert list(PROMETHEUS.parent.glob(pattern))


def test_grafana_finds_its_data_source_and_the_dashboard():
    for kind in ("datasources", "dashboards"):
        folder = seen("grafana", f"/etc/grafana/provisioning/{kind}")
        assert folder == GRAFANA / "provisioning" / kind and list(folder.glob("*.yml"))
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/ollama-gateway.yml").read_text())["providers"]
    assert seen("grafana", provider["options"]["path"]) == DASHBOARD.parent
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert seen("grafana", home) == DASHBOARD


def test_grafana_asks_the_prometheus_that_runs_beside_it_as_often_as_that_scrapes():
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus" and source["isDefault"]
    assert source["url"] == f"http://{options()['web.listen-address']}"
    settings = yaml.safe_load(PROMETHEUS.read_text())["global"]
    assert source["jsonData"]["timeInterval"] == settings["scrape_interval"]
    (kind,) = {each["type"] for each in dashboard()["templating"]["list"] if each["name"] == "datasource"}
    assert kind == "datasource"


def test_nothing_listens_for_other_machines_unless_it_is_told_to():
    for service in SERVICES.values():
        assert service["network_mode"] == "host" and "ports" not in service
    assert options()["web.listen-address"] == "127.0.0.1:9090"
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SERVER_HTTP_ADDR"] == "${GRAFANA_HOST:-127.0.0.1}"
    assert environment["GF_SERVER_HTTP_PORT"] == "3001"


def test_images_are_of_one_version_and_services_come_back():
    for service in SERVICES.values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        assert service["restart"] == "unless-stopped"


def test_the_runbook_names_panels_and_options_that_exist():
    titles = {panel["title"] for panel in dashboard()["panels"]}
    text = re.sub(r"\s+", " ", RUNBOOK.read_text())
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text))
    assert named and named <= titles, named - titles
    known = run("ollama-gateway", "--help").stdout
    for option in set(re.findall(r"`(--[a-z-]+)", text)):
        assert re.search(rf"{option}\b", known), option
