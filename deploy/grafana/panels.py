"""Panels, rows and whole dashboards as Grafana's JSON model has them (schema version 41).

Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]
SCHEMA_VERSION = 41
WIDTH = 24
NO_DATA = "no data"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "leadpulse"
BLUE = (("blue", None),)


class Query(NamedTuple):
    """One query of a panel; `at_once` asks for the present value only."""

    expr: str
    legend: str = ""
    at_once: bool = False
    format: str = "time_series"


Steps = Sequence[tuple[str, float | None]]
"""Colours with the value from which each holds; None begins with the least."""


# ----------------------------------------------------------------------------- panels


def panel(
    kind: str,
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    decimals: int | None = None,
    steps: Steps = BLUE,
    **rest: Any,
) -> Json:
    """Return a panel of some kind; where it will lie is decided by its row."""
    defaults: Json = {
        "unit": unit,
        "noValue": NO_DATA,
        "color": {"mode": "thresholds"},
        "mappings": [_nothing_as_text()],
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for color, value in steps],
        },
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    defaults |= rest.pop("defaults", {})
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": rest.pop("overrides", [])},
        "options": rest.pop("options", {}),
        "targets": [_target(number, query) for number, query in enumerate(queries)],
        **rest,
    }


def tile(title: str, description: str, query: Query, **rest: Any) -> Json:
    """Return one big number; with a sparkline where its query is over time."""
    options = {
        "graphMode": "none" if query.at_once else "area",
        "colorMode": "value",
        "textMode": "value",
        "justifyMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
        # Not lastNotNull: what is undefined now must not show what it once was.
        "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
    }
    return panel("stat", title, description, [query], options=options, **rest)


def lines(
    title: str, description: str, queries: Sequence[Query], *, stacked: bool = False, **rest: Any
) -> Json:
    """Return values over time; where there is none the line has a gap."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 2,
        "fillOpacity": 25 if stacked else 5,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if "steps" in rest else "off"},
        "axisSoftMin": 0,
    }
    return panel(
        "timeseries",
        title,
        description,
        queries,
        defaults={"color": {"mode": "palette-classic"}, "custom": custom},
        options={
            "legend": {
                "showLegend": True,
                "displayMode": "list",
                "placement": "bottom",
                "calcs": [],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        **rest,
    )


def bars(title: str, description: str, queries: Sequence[Query], **rest: Any) -> Json:
    """Return one bar for each series, with its present value."""
    options = {
        "displayMode": "gradient",
        "orientation": "horizontal",
        "valueMode": "color",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizHeight": 16,
        "minVizWidth": 8,
        "maxVizHeight": 48,
        "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
    }
    return panel("bargauge", title, description, queries, options=options, **rest)


class Column(NamedTuple):
    """One column of a table: a heading, its query, and how its values are shown."""

    title: str
    expr: str
    unit: str
    decimals: int | None = None
    steps: Steps = ()


def table(
    title: str,
    description: str,
    keys: Mapping[str, str],
    columns: Sequence[Column],
    links: Mapping[str, Json] | None = None,
) -> Json:
    """Return a table with a row for each value of the labels `keys` (label: heading).

    Rows of several columns are joined by the first label.
    """
    names = {f"Value #{ref(number)}": column.title for number, column in enumerate(columns)}
    if len(columns) == 1:
        names = {"Value": columns[0].title} | names
    order = {name: place for place, name in enumerate([*keys, *names])}
    times = ("Time", *(f"Time {number + 1}" for number in range(len(columns))))
    hidden = dict.fromkeys(times, True)
    organize = {"excludeByName": hidden, "indexByName": order, "renameByName": {**keys, **names}}
    return panel(
        "table",
        title,
        description,
        [Query(column.expr, "", at_once=True, format="table") for column in columns],
        unit="none",
        transformations=[
            *_joined(next(iter(keys)), len(columns)),
            {"id": "organize", "options": organize},
        ],
        overrides=[
            *(_linked(keys[label], link) for label, link in (links or {}).items()),
            *map(_column, columns),
        ],
        defaults={"custom": {"align": "auto", "cellOptions": {"type": "auto"}}},
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": []},
            "sortBy": [{"displayName": columns[0].title, "desc": True}],
        },
    )


def heat(title: str, description: str, query: Query, unit: str) -> Json:
    """Return how often each bucket of a histogram was hit, over time."""
    return panel(
        "heatmap",
        title,
        description,
        [query],
        unit="none",
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "fill": "dark-orange"},
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "unit": unit},
        },
    )


def ref(number: int) -> str:
    """Return the letter by which Grafana knows a query of a panel, A for the first."""
    return chr(ord("A") + number)


# ----------------------------------------------------------------------------- variables


def asked(name: str, label: str, metric: str, matchers: str, of: str) -> Json:
    """Return a variable whose values are those that a label has."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {
            "qryType": 1,
            "query": f"label_values({metric}{{{matchers}}}, {of})",
            "refId": of,
        },
        "definition": f"label_values({metric}{{{matchers}}}, {of})",
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
    }


def chosen(name: str, label: str, values: Mapping[str, str], first: str) -> Json:
    """Return a variable with values of its own (value: text), of which `first` is the default."""
    options = [
        {"text": text, "value": value, "selected": value == first} for value, text in values.items()
    ]
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "query": ", ".join(f"{text} : {value}" for value, text in values.items()),
        "options": options,
        "current": {"text": values[first], "value": first, "selected": True},
        "multi": False,
        "includeAll": False,
        "hide": 0,
    }


def source() -> Json:
    """Return the variable of the datasource."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": "leadpulse-prometheus", "selected": True},
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
    }


# ----------------------------------------------------------------------------- dashboards


class Row(NamedTuple):
    """A heading and the panels below it, each with its width; all are equally high."""

    title: str
    height: int
    panels: Sequence[tuple[int, Json]]


def dashboard(
    uid: str,
    title: str,
    description: str,
    rows: Iterable[Row],
    variables: Sequence[Json],
    alerts: str,
) -> Json:
    """Return a dashboard; `alerts` is the query of the alerts that are marked in its graphs."""
    return {
        "uid": f"{TAG}-{uid}",
        "title": f"LeadPulse / {title}",
        "description": description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "30s",
        "fiscalYearStartMonth": 0,
        "links": [_others()],
        "annotations": {"list": [_marks(alerts)]},
        "templating": {"list": [source(), *variables]},
        "panels": _laid_out(rows),
    }


def _laid_out(rows: Iterable[Row]) -> list[Json]:
    placed: list[Json] = []
    top = 0
    for row in rows:
        heading = {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        placed.append({**heading, **_place(len(placed), 0, top, WIDTH, 1)})
        top += 1
        left = 0
        for width, one in row.panels:
            if left + width > WIDTH:
                left, top = 0, top + row.height
            placed.append({**one, **_place(len(placed), left, top, width, row.height)})
            left += width
        top += row.height
    return placed


def _place(number: int, left: int, top: int, width: int, height: int) -> Json:
    return {"id": number + 1, "gridPos": {"x": left, "y": top, "w": width, "h": height}}


def _target(number: int, query: Query) -> Json:
    return {
        "refId": ref(number),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": query.at_once,
        "range": not query.at_once,
        "format": query.format,
    }


def _nothing_as_text() -> Json:
    result = {"text": NO_DATA, "color": "text", "index": 0}
    return {"type": "special", "options": {"match": "null+nan", "result": result}}


def _joined(label: str, count: int) -> list[Json]:
    if count == 1:
        return []
    return [{"id": "joinByField", "options": {"byField": label, "mode": "outer"}}]


def _column(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}]
    if column.decimals is not None:
        properties.append({"id": "decimals", "value": column.decimals})
    if column.steps:
        steps = [{"color": color, "value": value} for color, value in column.steps]
        properties.append({"id": "thresholds", "value": {"mode": "absolute", "steps": steps}})
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _linked(heading: str, link: Json) -> Json:
    properties = [{"id": "links", "value": [link]}]
    return {"matcher": {"id": "byName", "options": heading}, "properties": properties}


def _others() -> Json:
    return {
        "type": "dashboards",
        "title": "LeadPulse",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other dashboards, with the same choice and time",
        "url": "",
    }


def _marks(alerts: str) -> Json:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": alerts,
        "step": "60s",
        "titleFormat": "{{rule}}",
        "textFormat": "{{channel}} {{campaign}}",
    }
