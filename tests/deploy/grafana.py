"""The dashboards of Grafana as tests read them: panels, queries, variables, and what Prometheus answers."""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.parts.install import ROOT
from tests.parts.prometheus_server import PrometheusServer

FOLDER: Final = ROOT / "deploy" / "grafana"
DASHBOARDS: Final = FOLDER / "dashboards"
RANGE_SECONDS: Final = 60
STEP_SECONDS: Final = 2
GRAFANAS: Final = {"__rate_interval": "2m", "__range": "5m", "__interval": f"{STEP_SECONDS}s"}
"""What Grafana itself puts into queries, as long as the test has traffic for."""

QUIET: Final = {
    "Alerts that are firing": "nothing fires while all is well",
    "Alerts posted": "a worker without a webhook posts nothing",
    "marks: Alerts": "nothing fires while all is well",
}
"""Panels that may be empty in a healthy deployment, and why; shown to work by a series of our own."""

CHOSEN: Final = {"channel": "google_ads", "campaign": "generic-search"}
"""The channel and the campaign of tests."""

Json = dict[str, Any]
_LABEL_VALUES: Final = re.compile(r"label_values\((?P<selector>.*), (?P<label>\w+)\)")
_VARIABLE: Final = re.compile(r"\$(?:\{(?P<braced>\w+)[^}]*\}|(?P<bare>\w+))")


class Asked(NamedTuple):
    """One query of a panel, or of the marks in a dashboard's graphs."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    at_once: bool

    @property
    def where(self) -> str:
        """The place as a failure names it."""
        return f"{self.dashboard}: {self.panel} [{self.ref}]"


class Answer(NamedTuple):
    """What Prometheus said: a fault, or the last value of each series, NaN included."""

    fault: str
    values: list[tuple[Mapping[str, str], float]]

    @property
    def numbers(self) -> list[float]:
        """The values that are numbers."""
        return [value for _, value in self.values if not math.isnan(value)]

    @property
    def text(self) -> str:
        """What a table of answers shows: how many series, and one of them."""
        if self.fault:
            return self.fault
        shown = [(labels, value) for labels, value in self.values if not math.isnan(value)]
        if not shown:
            return f"{len(self.values)} series, no number"
        labels, value = shown[0]
        named = ",".join(labels.values())
        return f"{len(shown)} series, {named} = {value:.6g}" if named else f"{value:.6g}"


def read() -> dict[str, Json]:
    """Return the dashboards by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(dashboard: Json) -> list[Json]:
    """Return all panels that are no rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def variables(dashboard: Json) -> list[Json]:
    """Return the variables in their order."""
    found: list[Json] = dashboard["templating"]["list"]
    return found


def asked(name: str, dashboard: Json) -> Iterator[Asked]:
    """Yield every query of a dashboard."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            at_once = target["instant"]
            yield Asked(name, panel["title"], target["refId"], target["expr"], at_once)
    for mark in dashboard["annotations"]["list"]:
        yield Asked(name, f"marks: {mark['name']}", "A", mark["expr"], at_once=False)


def named_in(text: str) -> set[str]:
    """Return the names of all variables in a text."""
    return {found["braced"] or found["bare"] for found in _VARIABLE.finditer(text)}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the values of its variables."""
    return _VARIABLE.sub(lambda found: values[found["braced"] or found["bare"]], text)


def choices(prometheus: PrometheusServer, variable: Json, values: Mapping[str, str]) -> list[str]:
    """Return the values among which a variable lets choose."""
    if variable["type"] == "custom":
        return [option["value"] for option in variable["options"]]
    if variable["type"] == "datasource":
        return [variable["current"]["value"]]
    parts = _LABEL_VALUES.fullmatch(variable["definition"])
    assert parts is not None, variable["definition"]
    selector = filled(parts["selector"], values)
    told = _get(prometheus, f"label/{parts['label']}/values", {"match[]": selector})
    assert told["status"] == "success", told
    return list(told["data"])


def answer(prometheus: PrometheusServer, one: Asked, values: Mapping[str, str]) -> Answer:
    """Return what Prometheus answers to a query as Grafana would ask it now."""
    now = time.time()
    query = {"query": filled(one.expr, values)}
    if one.at_once:
        told = _get(prometheus, "query", query | {"time": f"{now}"})
    else:
        span = {"start": f"{now - RANGE_SECONDS}", "end": f"{now}", "step": f"{STEP_SECONDS}"}
        told = _get(prometheus, "query_range", query | span)
    if told["status"] != "success":
        return Answer(told["error"], [])
    series = told["data"]["result"]
    # A tile shows the last value.
    lasts = [(one["metric"], one.get("value") or one["values"][-1]) for one in series]
    return Answer("", [(labels, float(value)) for labels, (_, value) in lasts])


def _get(prometheus: PrometheusServer, path: str, query: Mapping[str, str]) -> Json:
    url = f"http://{prometheus.host}:{prometheus.port}/api/v1/{path}?{urlencode(query)}"
    try:
        with urlopen(url, timeout=10) as response:
            told: Json = json.load(response)
    except HTTPError as error:
        # It says what is wrong with a query in the body of its refusal.
        told = json.load(error)
    return told


def overlaps(dashboard: Json) -> list[str]:
    """Return the titles of panels that lie on another one or beyond the edge of the page."""
    taken: set[tuple[int, int]] = set()
    found = []
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        if cells & taken or at["x"] + at["w"] > 24:
            found.append(panel["title"])
        taken |= cells
    return found


def lost_by(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Yield where something of `ours` is missing or another in `theirs`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, one in ours.items():
            if name not in theirs:
                yield f"{place}.{name}: expected to be known, got {one!r:.60}"
            else:
                yield from lost_by(one, theirs[name], f"{place}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost_by(one, other, f"{place}[{number}]")
    elif ours != theirs:
        yield f"{place}: expected {ours!r:.60}, got {theirs!r:.60}"
