"""The rules for Prometheus, the configuration of Alertmanager and the runbook, by the real programs."""

import json
import math
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import click
import pytest
import yaml

from streams.cli import main
from tests.integration.conftest import Deploy, deploy, names  # noqa: F401 - fixtures
from tests.integration.running import fetch, sample, series
from tests.integration.running import names as names_of
from tests.integration.running import until as until_true
from tests.integration.test_prometheus import fed
from tests.parts.alertmanager_server import AlertmanagerServer, Receiver, until
from tests.parts.install import ROOT
from tests.parts.prometheus_server import PrometheusServer
from tests.test_documents import anchors

PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
CONFIG: Final = PROMETHEUS / "prometheus.yml"
ALERTMANAGER: Final = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
RUNBOOK: Final = ROOT / "docs" / "runbook.md"
RULE_FILES: Final = sorted(PROMETHEUS.glob("*.rules.yml"))
TEST_FILES: Final = sorted((PROMETHEUS / "tests").glob("*.test.yml"))
SEVERITIES: Final = {"critical", "warning"}
COUNTERPARTS: Final = {
    "LeadKpiCplSpike": "cpl_spike",
    "LeadKpiCostNotReported": "cost_missing",
    "LeadKpiNoLeads": "leads_stopped",
}
"""What Prometheus derives by itself, and the rule of LeadPulse that says the same."""
ONLY_SOMETIMES: Final = {"leadkpi_alert_firing", "leadkpi_webhook_deliveries_total"}
"""Exposed only while an alert fires, or where there is a webhook."""
PARTS_OF_ENTRY: Final = (
    *("**For the marketer.**", "**For the SRE.**", "**See it.**", "**Likely causes.**"),
    *("**What to do.**", "**Escalate**", "**Over**"),
)


def groups() -> Iterator[dict[str, Any]]:
    for file in RULE_FILES:
        yield from yaml.safe_load(file.read_text())["groups"]


RULES: Final[list[dict[str, Any]]] = [rule for group in groups() for rule in group["rules"]]
ALERTS: Final[dict[str, dict[str, Any]]] = {one["alert"]: one for one in RULES if "alert" in one}


def labels_of(alert: str) -> dict[str, str]:
    """Return an alert's labels as Alertmanager gets them, for one channel."""
    return {"alertname": alert, "channel": "google_ads", **ALERTS[alert]["labels"]}


def own_alert(rule: str, campaign: str = "_all") -> dict[str, str]:
    return labels_of("LeadKpiAlert") | {"rule": rule, "campaign": campaign}


def ran(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ----------------------------------------------------------------------------- rules


def test_promtool_accepts_the_configuration_with_its_rules() -> None:
    said = ran("promtool", "check", "config", CONFIG)
    assert said.count("SUCCESS") == len(RULE_FILES) + 2
    assert "duplicate" not in said
    named = yaml.safe_load(CONFIG.read_text())["rule_files"]
    assert sorted(named) == [file.name for file in RULE_FILES]


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.name)
@pytest.mark.timeout(300)
def test_rules_do_what_their_tests_say(file: Path) -> None:
    assert "SUCCESS" in ran("promtool", "test", "rules", file)


def test_every_alert_is_seen_firing_and_not_firing() -> None:
    firing: set[str] = set()
    quiet: set[str] = set()
    for file in TEST_FILES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case.get("alert_rule_test", ()):
                (firing if check["exp_alerts"] else quiet).add(check["alertname"])
    assert firing == quiet == set(ALERTS)


def test_every_alert_says_what_it_is_how_bad_it_is_and_where_to_read_on() -> None:
    for name, alert in ALERTS.items():
        labels, annotations = alert["labels"], alert["annotations"]
        assert labels["severity"] in SEVERITIES, name
        assert labels["area"] in {"kpi", "health"}, name
        assert annotations["summary"], name
        assert (
            "$value" in annotations["description"]
            or "query" in annotations["description"]
            or (
                # Its value is always 1.
                name == "LeadKpiAlert"
            )
        ), name
        where = "{{ $externalLabels.runbook_base }}docs/runbook.md#"
        assert annotations["runbook_url"] == where + name.lower(), name


def test_no_rule_averages_ratios_or_divides_by_what_may_be_zero() -> None:
    divided = 0
    for rule in RULES:
        expr = re.sub(r'"[^"]*"', "", rule["expr"])
        assert not re.search(r"\bavg\b[^(]*\([^)]*_ratio", expr), rule
        for divisor in re.findall(r"/\s*(?:on \([^)]*\)\s*)?(?:group_left \(\)\s*)?(.+)", expr):
            divided += 1
            # A number, or what is left of a vector where it is above 0.
            assert re.match(r"[\d.]+|\(.+(>=? ?\d+)\)", divisor), (rule, divisor)
    assert divided >= 9


def test_fallback_for_cpl_fires_on_less_than_one_chance_in_eight_thousand() -> None:
    expr = ALERTS["LeadKpiCplSpike"]["expr"]
    found = re.search(r"sqrt\(scope:leadkpi_leads:expected\) - ([\d.]+)\)", expr)
    least = re.search(r"scope:leadkpi_leads:expected > ([\d.]+)", expr)
    assert found
    assert least
    for leads in range(1000):
        # As many expected leads as are just enough.
        expected = (math.sqrt(leads + 1) + float(found[1])) ** 2
        chance = math.fsum(
            math.exp(n * math.log(expected) - expected - math.lgamma(n + 1))
            for n in range(leads + 1)
        )
        assert 1 / 40_000 < chance < 1 / 8_000, (leads, expected, chance)
    # The same limit where the series of leads is gone.
    assert float(least[1]) == (1 + float(found[1])) ** 2


# ----------------------------------------------------------------------------- Alertmanager


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@pytest.fixture
def alertmanager(receiver: Receiver, tmp_path: Path) -> Iterator[AlertmanagerServer]:
    """Return a real one with our configuration, which only waits less and has a receiver."""
    token = tmp_path / "token"
    token.write_text("a token of a test\n")
    text = ALERTMANAGER.read_text()
    for old, new in (
        ("http://alert-receiver:8080", receiver.url),
        ("/run/secrets/alert-receiver-token", str(token)),
        ("group_wait: 30s", "group_wait: 100ms"),
        ("group_wait: 10s", "group_wait: 100ms"),
        ("group_interval: 5m", "group_interval: 200ms"),
    ):
        assert old in text
        text = text.replace(old, new)
    with AlertmanagerServer(text) as server:
        yield server


def test_amtool_accepts_the_configuration_and_finds_no_secret_in_it() -> None:
    assert "SUCCESS" in ran("amtool", "check-config", ALERTMANAGER)
    secret = re.compile(r"(password|token|secret|credentials|api_key|routing_key|api_url):")
    for file in (ALERTMANAGER, CONFIG, *RULE_FILES):
        assert not secret.search(file.read_text()), file


@pytest.mark.parametrize("alert", ALERTS)
def test_alerts_reach_those_who_can_do_something(alert: str) -> None:
    labels = labels_of(alert)
    wanted = "operations"
    if labels["area"] == "kpi":
        wanted = "marketing"
    elif labels["severity"] == "critical":
        wanted = "on-call"
    pairs = [f"{name}={value}" for name, value in labels.items()]
    said = ran("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *pairs)
    assert said.split() == [wanted]


KPI: Final = [name for name in ALERTS if labels_of(name)["area"] == "kpi"]
SYMPTOMS: Final = [name for name in ALERTS if "symptom" in labels_of(name)]
STOPPED: Final = [name for name in ALERTS if "counting" in labels_of(name)]
INDEPENDENT: Final = ["LeadPulsePublisherDown", "LeadPulseRejectsHigh", "LeadPulseWebhookFailing"]
NEEDLESS_WHEN_DOWN: Final = [
    *("LeadPulseWorkerDown", "LeadPulseShardsMissing", "LeadPulseStalled", "LeadPulseNoEvents"),
    *("LeadPulseCompleteUntilUnknown", "LeadPulseRestarting"),
]

Labels = dict[str, str]


def held_back(server: AlertmanagerServer, *alerts: Labels) -> set[str]:
    """Return which alerts are suppressed while all of them fire."""
    wanted = {one["alertname"] for one in alerts}
    server.post(*alerts)
    until(lambda: server.states().keys() == wanted, f"{sorted(wanted)} and no others")
    states = server.states()
    assert set(states.values()) <= {"active", "suppressed"}
    return {name for name in states if states[name] == "suppressed"}


def test_without_a_stop_nothing_is_held_back(alertmanager: AlertmanagerServer) -> None:
    others = [labels_of(name) for name in ALERTS if name not in STOPPED]
    assert held_back(alertmanager, *others) == set()


@pytest.mark.parametrize("stopped", STOPPED)
def test_alerts_about_kpis_are_held_back_while_counting_stands_still(
    alertmanager: AlertmanagerServer, stopped: str
) -> None:
    firing = [stopped, *KPI, *SYMPTOMS, *INDEPENDENT]
    assert held_back(alertmanager, *map(labels_of, firing)) == {*KPI, *SYMPTOMS}


def test_where_no_worker_answers_only_that_is_told(alertmanager: AlertmanagerServer) -> None:
    firing = ["LeadPulseDown", *NEEDLESS_WHEN_DOWN, *INDEPENDENT]
    assert held_back(alertmanager, *map(labels_of, firing)) == set(NEEDLESS_WHEN_DOWN)


@pytest.mark.parametrize("change", [{}, {"channel": "seo"}, {"campaign": "brand"}, {"rule": "x"}])
@pytest.mark.parametrize("fallback", COUNTERPARTS)
def test_a_fallback_is_held_back_where_leadpulse_says_the_same_of_the_channel(
    alertmanager: AlertmanagerServer, fallback: str, change: Labels
) -> None:
    own = own_alert(COUNTERPARTS[fallback]) | change
    assert held_back(alertmanager, own, labels_of(fallback)) == (set() if change else {fallback})


def test_marketing_is_told_when_counting_goes_on_and_not_before(
    alertmanager: AlertmanagerServer, receiver: Receiver
) -> None:
    stalled, spike = labels_of("LeadPulseStalled"), own_alert("cpl_spike")

    def told(path: str, alert: str, status: str = "firing") -> bool:
        return any(one.path == path and (alert, status) in one.alerts for one in receiver.told)

    alertmanager.post(stalled)
    until(lambda: told("/on-call", "LeadPulseStalled"), "on-call to be told")
    alertmanager.post(spike)
    until(lambda: alertmanager.states()["LeadKpiAlert"] == "suppressed", "the alert held back")
    alertmanager.post(labels_of("LeadPulseRestarting"))
    until(lambda: told("/on-call", "LeadPulseRestarting"), "on-call to be told of what came later")
    assert not told("/marketing", "LeadKpiAlert")
    alertmanager.post(stalled, are_over=True)
    until(lambda: told("/on-call", "LeadPulseStalled", "resolved"), "on-call to hear of the end")
    until(lambda: told("/marketing", "LeadKpiAlert"), "marketing to be told")
    assert {one.authorization for one in receiver.told} == {"Bearer a token of a test"}
    alertmanager.post(spike, are_over=True)
    until(lambda: told("/marketing", "LeadKpiAlert", "resolved"), "marketing to hear of the end")


# ----------------------------------------------------------------------------- a real Prometheus


class WithRules(PrometheusServer):
    """A Prometheus with our own files, which only asks and evaluates every second."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        settings = yaml.safe_load(CONFIG.read_text())
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        settings["global"] |= every | {"external_labels": {"runbook_base": "https://docs.test/"}}
        for job in settings["scrape_configs"]:
            job.pop("dns_sd_configs", None)
            own = target if job["job_name"] == "leadpulse" else f"{self.host}:{self.port}"
            job["static_configs"] = [{"targets": [own]}]
        settings["alerting"]["alertmanagers"] = []
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
        for file in RULE_FILES:
            text = file.read_text().replace("    interval: 1m\n", "")
            (self.directory / file.name).write_text(text)

    def rules(self) -> list[dict[str, Any]]:
        """Return how the rules fare, as Prometheus tells it."""
        with urlopen(f"http://{self.host}:{self.port}/api/v1/rules", timeout=10) as response:
            told = json.load(response)["data"]["groups"]
        return [rule for group in told for rule in group["rules"]]


@pytest.mark.integration
async def test_rules_evaluate_on_what_a_worker_exposes(deploy: Deploy) -> None:  # noqa: F811
    deployment = await deploy()
    worker = deployment.worker()
    await fed(deployment, worker.metrics_url)
    with WithRules(worker.metrics_url.removeprefix("http://").removesuffix("/metrics")) as server:

        async def are_evaluated() -> bool:
            return all(rule["health"] != "unknown" for rule in server.rules())

        await until_true(are_evaluated, "every rule evaluated")
        wanted = "scope:leadkpi_cpl_amount:ratio"

        async def is_recorded() -> bool:
            return bool(server.query(wanted) and server.query("job:leadkpi_shards:sum"))

        await until_true(is_recorded, wanted)
        faults = [(rule["name"], rule["lastError"]) for rule in server.rules() if rule["health"] != "ok"]  # fmt: skip
        assert faults == []
        assert {rule["name"] for rule in server.rules()} >= set(ALERTS)
        exposed = series(fetch(worker.metrics_url))
        for labels, ratio in server.query(wanted):
            own = {name: labels[name] for name in ("basis", "window", "channel", "currency")}
            shown = sample(exposed, "leadkpi_cpl_amount", campaign="_all", **own)
            # Prometheus divides floats; LeadPulse rounds the exact quotient to 6 decimals.
            assert shown == pytest.approx(ratio, abs=1e-6), labels
        assert server.query("job:leadkpi_shards:sum")[0][1] == deployment.partitions
        assert 0 <= server.query("job:leadkpi_complete_until:age_seconds")[0][1] < 60
        # Of its own failures Prometheus tells under the names that our alert looks for.
        failing = 'prometheus_rule_evaluation_failures_total{rule_group=~".*;leadpulse-.*"}'
        await until_true(lambda: _has_all_groups(server, failing), failing)
    text = " ".join(rule["expr"] for rule in RULES)
    asked = set(re.findall(r"(?<![\w:])(?:leadkpi|process)_\w+(?![\w:])", text))
    assert asked - names_of(exposed) <= ONLY_SOMETIMES
    assert worker.stop() == 0


async def _has_all_groups(server: WithRules, failing: str) -> bool:
    found = {labels["rule_group"].rpartition(";")[2] for labels, _ in server.query(failing)}
    return found == {group["name"] for group in groups()}


# ----------------------------------------------------------------------------- runbook


def entries() -> dict[str, str]:
    """Return the runbook's entries by heading."""
    about_alerts = RUNBOOK.read_text().partition("\n## Exit status")[0]
    parts = re.split(r"^### (.+)\n", about_alerts, flags=re.MULTILINE)
    bodies = [re.split(r"^## ", body, flags=re.MULTILINE)[0] for body in parts[2::2]]
    return dict(zip(parts[1::2], bodies, strict=True))


def test_every_alert_has_an_entry_and_every_entry_an_alert() -> None:
    assert list(entries()) == list(dict.fromkeys(entries()))
    assert set(entries()) == set(ALERTS)
    anchors = {name.lower() for name in entries()}
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook_url"].rpartition("#")[2] in anchors, name


@pytest.mark.parametrize("alert", ALERTS)
def test_an_entry_says_what_it_means_what_to_do_and_when_it_is_over(alert: str) -> None:
    body = entries()[alert]
    at = [body.find(part) for part in PARTS_OF_ENTRY]
    assert -1 not in at, [p for p, i in zip(PARTS_OF_ENTRY, at, strict=True) if i < 0]
    assert at == sorted(at)


def test_commands_of_the_runbook_exist() -> None:
    found = re.findall(r"`(leadpulse [^`\n]+)`", RUNBOOK.read_text())
    assert len(set(found)) > 10
    for line in found:
        words = shlex.split(line)[1:]
        command: click.Command = main
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert command is not main, line
        if words != ["--help"]:
            with command.make_context(line, words, resilient_parsing=False) as context:
                assert context.command is command


def test_log_lines_of_the_runbook_are_written_somewhere() -> None:
    source = "\n".join(file.read_text() for file in (ROOT / "streams").rglob("*.py"))
    # Texts may be broken over lines.
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    text = RUNBOOK.read_text()
    tables = text[text.index("### Exit status 70") :]
    cells = re.findall(r"^\| (`[^|]+) \|", tables, flags=re.MULTILINE)
    fragments = [one for cell in cells for one in re.findall(r"`([^`]+)`", cell)]
    assert len(fragments) > 20
    assert [one for one in fragments if one not in source] == []


def test_links_of_the_runbook_lead_somewhere() -> None:
    text = RUNBOOK.read_text()
    for path, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        file = RUNBOOK.parent / path if path else RUNBOOK
        assert file.exists(), path
        assert not anchor or anchor in anchors(file.read_text()), (path, anchor)
