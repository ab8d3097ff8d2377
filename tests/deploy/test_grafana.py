"""What stands in the dashboards; what Prometheus answers: tests/integration/test_dashboards.py."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from kpis.catalog import Catalog
from streams.publishers.prometheus import WINDOW_LABELS, series_of_kpi
from streams.settings import Settings
from tests.deploy import grafana
from tests.deploy.files import mounts, services
from tests.deploy.grafana import CHOSEN, QUIET, Json
from tests.parts.install import ROOT

SDK: Final = "grafana-foundation-sdk==0.0.21"
BUSINESS: Final = re.compile(r"max(?: by \([a-z, ]+\) )?\((?:leadkpi_\w+)?\{[^}]*\bbasis=[^}]*\}\)")


# ----------------------------------------------------------------------------- what stands there


def every_panel() -> list[tuple[str, Json]]:
    return [
        (f"{name}: {panel['title']}", panel)
        for name, dashboard in grafana.read().items()
        for panel in grafana.panels(dashboard)
    ]


def test_committed_dashboards_are_what_their_code_writes(tmp_path: Path) -> None:
    script = ROOT / "deploy" / "grafana" / "dashboards.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    written = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert written == grafana.read(), "run `make dashboards`"


def test_there_are_five_dashboards_with_names_of_their_own() -> None:
    dashboards = grafana.read()
    assert set(dashboards) == {
        "overview",
        "channel",
        "campaign",
        "funnel-and-cohorts",
        "operations",
    }
    for key in ("uid", "title"):
        assert len({one[key] for one in dashboards.values()}) == 5
    assert all(one["schemaVersion"] >= 39 for one in dashboards.values())


def test_every_panel_has_a_unit_a_text_and_words_for_no_value() -> None:
    for where, panel in every_panel():
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], where
        assert defaults["noValue"] == "no data", where
        assert len(panel["description"]) > 40, where
        assert "ormula" in panel["description"] or "Empty while" in panel["description"], where
        if panel["type"] == "timeseries":
            assert defaults["custom"]["spanNulls"] is False, where


def test_what_is_undefined_is_never_shown_as_0_or_as_it_once_was() -> None:
    for where, panel in every_panel():
        text = json.dumps(panel)
        assert "vector(0)" not in text, where
        assert "lastNotNull" not in text, where
        if panel["type"] == "stat" and not panel["targets"][0]["instant"]:
            assert panel["targets"][0]["expr"].endswith(" or vector(NaN)"), where


def test_numbers_are_taken_from_one_worker_and_never_summed_or_averaged() -> None:
    for name, dashboard in grafana.read().items():
        for one in grafana.asked(name, dashboard):
            rest = BUSINESS.sub("", one.expr)
            assert "basis=" not in rest, one.where
            assert "avg" not in one.expr, one.where
            if "basis=" in one.expr:
                assert "sum" not in one.expr, one.where


def test_every_kpi_of_the_catalogue_is_on_a_dashboard() -> None:
    shown = json.dumps(grafana.read())
    kpis = Catalog(Settings().funnel.stages).kpis
    names = {".".join([kpi.name.partition(".")[0], *kpi.labels]) for kpi in kpis}
    assert {name for name in names if f"{series_of_kpi(name).metric}{{" not in shown} == set()


def test_only_variables_that_are_there_are_used() -> None:
    for name, dashboard in grafana.read().items():
        known = [variable["name"] for variable in grafana.variables(dashboard)]
        assert len(known) == len(set(known))
        text = json.dumps(dashboard)
        used = {one for one in grafana.named_in(text) if not one.startswith("__")}
        assert used <= set(known), name
        for place, variable in enumerate(grafana.variables(dashboard)):
            asked_for = grafana.named_in(variable.get("definition", ""))
            assert asked_for <= set(known[:place]), f"{name}: {variable['name']}"


def test_windows_are_those_that_workers_export() -> None:
    for name, dashboard in grafana.read().items():
        window = next(one for one in grafana.variables(dashboard) if one["name"] == "window")
        offered = {option["value"] for option in window["options"]}
        assert offered == set(WINDOW_LABELS.values()), name


def test_panels_lie_beside_each_other_and_each_row_of_them_says_how_far_to_trust_them() -> None:
    for name, dashboard in grafana.read().items():
        assert grafana.overlaps(dashboard) == [], name
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids)), name
        titles = {panel["title"] for panel in dashboard["panels"]}
        assert titles >= {
            "How far to trust these numbers",
            "Cost coverage",
            "Unattributed leads",
            "Late events",
            "Refused events",
            "Counted until",
        }, name


@pytest.mark.parametrize(
    ("panel", "alert"),
    [
        ("Counted until", "LeadPulseStalled"),
        ("Waiting records", "LeadPulseLagGrows"),
        ("Parked events", "LeadPulseParkedGrowing"),
        ("Commit", "LeadPulseCommitSlow"),
        ("From arrival to published", "LeadPulsePublishSlow"),
        ("Refused events", "LeadPulseRejectsHigh"),
    ],
)
def test_red_begins_where_the_alert_does(panel: str, alert: str) -> None:
    text = (ROOT / "deploy" / "prometheus" / "alerts-health.rules.yml").read_text()
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    (expr,) = (rule["expr"] for rule in rules if rule.get("alert") == alert)
    found = [one for where, one in every_panel() if where == f"operations: {panel}"]
    assert found
    for one in found:
        last = one["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]
        assert last["color"] == "red"
        assert re.search(rf"> {last['value']:g}\b", expr), expr


def test_links_keep_what_was_chosen() -> None:
    uids = {dashboard["uid"] for dashboard in grafana.read().values()}
    for name, dashboard in grafana.read().items():
        (others,) = dashboard["links"]
        assert (others["includeVars"], others["keepTime"]) == (True, True), name
        assert set(others["tags"]) <= set(dashboard["tags"]), name
        for path in re.findall(r'"url": "/d/([\w-]+)\?', json.dumps(dashboard)):
            assert path in uids, name


def test_provisioning_names_the_datasource_and_the_folder_of_the_dashboards() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())
    providers = yaml.safe_load((folder / "dashboards" / "leadpulse.yml").read_text())
    assert sources["apiVersion"] == providers["apiVersion"] == 1
    (source,) = sources["datasources"]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
    (provider,) = providers["providers"]
    assert provider["type"] == "file"
    mounted = {mount.source: mount.target for mount in mounts(services()["grafana"])}
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert source["url"].removeprefix("http://").partition(":")[0] in services()
    for name, dashboard in grafana.read().items():
        chosen = grafana.variables(dashboard)[0]
        assert (chosen["name"], chosen["current"]["value"]) == ("datasource", source["uid"]), name


# ----------------------------------------------------------------------------- Grafana's types


def understood(files: list[Path]) -> list[Any]:
    """Return dashboards as Grafana's own types read and write them."""
    script = ROOT / "tests" / "deploy" / "grafana_types.py"
    done = subprocess.run(
        ["uvx", "--from", SDK, "--python", sys.executable, "python", script, *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read: list[Any] = json.loads(done.stdout)
    return read


def test_grafanas_own_types_know_every_key_of_the_dashboards(tmp_path: Path) -> None:
    dashboards = grafana.read()
    spoilt = deepcopy(dashboards["overview"])
    spoilt["panels"][1]["options"]["graphMood"] = "area"
    (tmp_path / "spoilt.json").write_text(json.dumps(spoilt))
    files = [grafana.DASHBOARDS / f"{name}.json" for name in dashboards]
    *sound, last = understood([*files, tmp_path / "spoilt.json"])
    for (name, ours), theirs in zip(dashboards.items(), sound, strict=True):
        assert list(grafana.lost_by(ours, theirs, name)) == []
    assert list(grafana.lost_by(spoilt, last)) == [
        ".panels[1].options.graphMood: expected to be known, got 'area'"
    ]


# ----------------------------------------------------------------------------- what may be empty


def promtool(path: Path, document: Json) -> subprocess.CompletedProcess[str]:
    path.write_text(yaml.safe_dump(document))
    done = ["promtool", "test", "rules", str(path)]
    return subprocess.run(done, capture_output=True, text=True, check=False)


def quiet_queries() -> set[str]:
    """Return the queries of the panels that may be empty."""
    values = {**CHOSEN, **grafana.GRAFANAS, "job": "a"}
    return {
        grafana.filled(one.expr, values)
        for name, dashboard in grafana.read().items()
        for one in grafana.asked(name, dashboard)
        if one.panel in QUIET
    }


def test_panels_that_may_be_empty_show_what_they_are_for(tmp_path: Path) -> None:
    labels = '{job="a", rule="cpl_spike", channel="google_ads", campaign="_all", instance="%s"}'
    over = labels.replace("cpl_spike", "over") % "w1"
    # Two workers during a hand-over, and an alert that is over.
    told = [{"series": f"leadkpi_alert_firing{labels % w}", "values": "1x5"} for w in ("w1", "w2")]
    told.append({"series": f"leadkpi_alert_firing{over}", "values": "1 1 1 stale"})
    posted = 'leadkpi_webhook_deliveries_total{job="a", outcome="failed", instance="w1"}'
    told.append({"series": posted, "values": "0+3x5"})
    shown = {
        "leadkpi_alert_firing": ('{rule="cpl_spike", channel="google_ads", campaign="_all"}', 1),
        "leadkpi_webhook_deliveries_total": ('{outcome="failed"}', 3),
    }
    checks = [
        {"expr": query, "eval_time": "5m", "exp_samples": [{"labels": labels, "value": value}]}
        for query in quiet_queries()
        for metric, (labels, value) in shown.items()
        if metric in query
    ]
    assert len(checks) == len(quiet_queries()) == 4
    case = {"interval": "1m", "input_series": told, "promql_expr_test": checks}
    tests = {"evaluation_interval": "1m", "tests": [case]}
    done = promtool(tmp_path / "firing.yml", tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_counts_as_none_only_while_a_worker_is_there_to_say_so(tmp_path: Path) -> None:
    (count,) = {
        grafana.filled(one.expr, {"job": "a"})
        for name, dashboard in grafana.read().items()
        for one in grafana.asked(name, dashboard)
        if one.panel == "Alerts firing"
    }
    worker = {"series": 'leadkpi_build_info{job="a", version="1"}', "values": "1 1 1"}
    alert = {"series": 'leadkpi_alert_firing{job="a", rule="r"}', "values": "_ 1 stale"}
    cases = [
        ([worker], "0m", [{"labels": "{}", "value": 0}]),
        ([worker, alert], "1m", [{"labels": "{}", "value": 1}]),
        ([], "0m", []),
    ]
    tests = [
        {
            "interval": "1m",
            "input_series": told,
            "promql_expr_test": [{"expr": count, "eval_time": at, "exp_samples": wanted}],
        }
        for told, at, wanted in cases
    ]
    done = promtool(tmp_path / "count.yml", {"evaluation_interval": "1m", "tests": tests})
    assert done.returncode == 0, done.stdout + done.stderr
