"""Prometheus as a child process, on the shipped configuration."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

import yaml

from deployed import PROMETHEUS, RULES
from exposition import parse
from wire import LIMIT, ask, wait_until

JOB = "ollama-gateway"


def tool(name):
    """The file of `prometheus` or `promtool`."""
    found = shutil.which(name, path="/usr/bin:/usr/local/bin") or shutil.which(name)
    assert found, f"{name} is missing: install Debian's package prometheus"
    return found


def promtool(*words, **options):
    """Runs promtool to its end; returns its exit status and all that it said."""
    done = subprocess.run([tool("promtool"), *map(str, words)], capture_output=True, text=True, timeout=60, **options)
    return done.returncode, done.stdout + done.stderr


def metrics(gateway):
    """The families of a gateway that have samples, by name."""
    text = ask(gateway.address, "GET", "/metrics").body.decode()
    # What has labels, and has not come about yet, is announced only.
    return parse(re.sub(r"# HELP (\S+) .*\n# TYPE \1 \w+\n(?=# |\Z)", "", text))


class Prometheus:
    """Watches the gateways at the given addresses each second; all else is as shipped.

    What it asks for when it scrapes is noted at `witness`, an address that answers in the text format.
    """

    def __init__(self, addresses, witness):
        self.addresses = list(addresses)
        self.folder = tempfile.TemporaryDirectory(prefix="prometheus-")
        folder = Path(self.folder.name)
        (folder / "prometheus.yml").write_text(self._configuration(witness))
        self.log_file = folder / "log"
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [
                    tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            (self.address,) = wait_until(self._listening, "Prometheus listening", limit=20)
            wait_until(self._is_ready, "Prometheus ready", limit=20)
        except BaseException:
            print(self.log)
            self.stop()
            raise

    def _configuration(self, witness):
        settings = yaml.safe_load(PROMETHEUS.read_text())
        settings["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        settings["rule_files"] = self._rules()
        (job,) = settings["scrape_configs"]
        job["static_configs"] = [{"targets": self.addresses}]
        settings["scrape_configs"].append({"job_name": "witness", "static_configs": [{"targets": [witness]}]})
        return yaml.safe_dump(settings)

    def _rules(self):
        """The shipped rules, all of them evaluated each second."""
        copies = []
        for file in RULES.glob("*.yml"):
            copies.append(Path(self.folder.name) / f"rules-{file.name}")
            copies[-1].write_text(re.sub(r"^    interval: .*\n", "", file.read_text(), flags=re.M))
        return [str(file) for file in copies]

    def _listening(self):
        assert self.process.poll() is None, f"Prometheus ended:\n{self.log}"
        return re.findall(r'msg="Listening on" address=(\S+)', self.log)

    def _is_ready(self):
        return ask(self.address, "GET", "/-/ready").status == 200

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    # MARK: Asking

    def get(self, path, **parameters):
        """What a call of the API answers under `data`. Fails if it is an error, or comes with a warning."""
        answer = ask(self.address, "GET", f"/api/v1/{path}?{urlencode(parameters, doseq=True)}", limit=30)
        told = json.loads(answer.body)
        assert told["status"] == "success", f"{told.get('error')}: {parameters}"
        assert not told.get("warnings"), (told["warnings"], parameters)
        return told["data"]

    def query(self, expression, at=None):
        """The samples of an expression at a moment (seconds since 1970): labels and value, NaN as NaN."""
        told = self.get("query", query=expression, time=time.time() if at is None else at)
        if told["resultType"] == "scalar":
            return [({}, float(told["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in told["result"]]

    def query_range(self, expression, start, end, step):
        """The series of an expression over a time: labels and values."""
        told = self.get("query_range", query=expression, start=start, end=end, step=step)
        return [(each["metric"], [float(value) for _, value in each["values"]]) for each in told["result"]]

    def caught_up(self, limit=LIMIT):
        """Returns once it has scraped every gateway anew, and evaluated the rules since; says when that was."""
        begin = time.time()

        def is_new(expression, count):
            found = self.query(expression)
            return len(found) >= count and all(value > begin for _, value in found)

        wait_until(lambda: is_new(f'timestamp(up{{job="{JOB}"}})', len(self.addresses)), "a scrape", limit)
        wait_until(lambda: is_new("timestamp(job:ollama_gateway_requests:rate30m)", 1), "an evaluation", limit)
        return time.time()

    def alerts(self, state="firing"):
        """Names and labels of the alerts in that state."""
        found = self.get("alerts")["alerts"]
        return [(each["labels"]["alertname"], each["labels"]) for each in found if each["state"] == state]

    def targets(self):
        return {each["scrapeUrl"]: each for each in self.get("targets", state="active")["activeTargets"]}

    def own(self):
        """What it counts about itself, by name with labels."""
        answer = ask(self.address, "GET", "/metrics")
        return {
            name: float(value)
            for line in answer.body.decode().splitlines()
            if not line.startswith("#")
            for name, value in [line.rsplit(" ", 1)]
        }
