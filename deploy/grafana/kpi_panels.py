"""Variables, thresholds and the kinds of panel that show facts and KPIs."""

from panels import BLUE, Column, Json, Query, Steps, asked, bars, chosen, lines, tile
from queries import ANYTHING, JOB, Scope, number, or_gap, or_none, unit
from words import about, title

from kpis.facts import BASES
from streams.publishers.prometheus import WINDOW_LABELS

NAMES_OF_WINDOWS = {
    "last_1h": "Last hour",
    "last_6h": "Last 6 hours",
    "last_24h": "Last 24 hours",
    "last_7d": "Last 7 days",
    "last_28d": "Last 28 days",
    "today": "Today",
    "month": "This month",
    "lifetime": "Ever",
}
RETURN: Steps = (("red", None), ("green", 0))
PACE: Steps = (("red", None), ("orange", 0.8), ("green", 0.95))
COVERAGE: Steps = (("red", None), ("orange", 0.9), ("green", 1))
UNATTRIBUTED: Steps = (("green", None), ("orange", 0.05), ("red", 0.15))
COMPLETE: Steps = (("green", None), ("orange", 60), ("red", 120))
NONE_IS_GOOD: Steps = (("green", None), ("red", 1))
REFUSED: Steps = (("green", None), ("orange", 0.01), ("red", 0.05))
LATE: Steps = (("green", None), ("orange", 0.05), ("red", 0.2))
SILENT_COST: Steps = (("green", None), ("orange", 7_200), ("red", 86_400))
LAG: Steps = (("green", None), ("orange", 1_000), ("red", 10_000))
PARKED: Steps = (("green", None), ("orange", 500), ("red", 1_000))
SLOW_PUBLISHING: Steps = (("green", None), ("orange", 1), ("red", 5))
SLOW_COMMIT: Steps = (("green", None), ("orange", 1), ("red", 2.5))
UP: Steps = (("red", None), ("green", 1))

STEPS: dict[str, Steps] = {
    "roi": RETURN,
    "net_profit_per_lead": RETURN,
    "roas": (("red", None), ("green", 1)),
    "cost_coverage": COVERAGE,
    "unattributed_share": UNATTRIBUTED,
    "fx_missing": NONE_IS_GOOD,
}
COUNTED_FAULTS = frozenset({"fx_missing"})
EACH_POINT = "Each point is the whole window that ended then."


# ----------------------------------------------------------------------------- variables


def job() -> Json:
    """Return the variable that tells deployments apart."""
    return asked("job", "Deployment", "leadkpi_build_info", "", "job")


def currency() -> Json:
    """Return the variable of the reporting currency, for titles."""
    hidden = asked("currency", "Currency", "leadkpi_cost_amount", JOB, "currency")
    return {**hidden, "hide": 2}


def window(first: str) -> Json:
    """Return the variable of the window: those that the worker exports."""
    names = {one: NAMES_OF_WINDOWS[one] for one in sorted(WINDOW_LABELS.values(), key=_size)}
    return chosen("window", "Window", names, first)


def _size(label: str) -> int:
    return list(NAMES_OF_WINDOWS).index(label)


def basis() -> Json:
    """Return the variable of the basis."""
    return chosen("basis", "Basis", {one: one.capitalize() for one in BASES}, BASES[0])


def channel(*, whole: bool = False) -> Json:
    """Return the variable of the channel; with `whole`, all of them together first."""
    matchers = f'{ANYTHING}, {JOB}, window="lifetime", campaign="_all"'
    matchers += "" if whole else ', channel!="_all"'
    return asked("channel", "Channel", "", matchers, "channel")


def campaign(*, whole: bool = False) -> Json:
    """Return the variable of the campaigns of the channel; with `whole`, all of them first."""
    matchers = f'{ANYTHING}, {JOB}, window="lifetime", channel="$channel"'
    matchers += "" if whole else ', campaign!="_all"'
    return asked("campaign", "Campaign", "", matchers, "campaign")


# ----------------------------------------------------------------------------- kinds of panel


def kpi_tile(name: str, scope: Scope, **where: str) -> Json:
    """Return a tile of a fact or KPI with its sparkline."""
    basis_, window_ = where.get("basis", ""), where.get("window", "")
    heading = title(name) + (f", {NAMES_OF_WINDOWS[window_].lower()}" if window_ else "")
    extra = f"Exists on the {basis_} basis only." if basis_ else ""
    asked_for = number(name, scope, **where)
    # A fact that has never occurred is 0; a KPI without a value, or unknown cost, is not.
    query = Query(or_gap(or_none(asked_for, scope) if name in COUNTED_FAULTS else asked_for))
    return tile(
        heading,
        about(name, extra, basis_),
        query,
        unit=unit(name),
        decimals=decimals(name),
        steps=STEPS.get(name, BLUE),
    )


def kpi_lines(name: str, scopes: dict[str, Scope], **where: str) -> Json:
    """Return a fact or KPI over time, one line for each scope."""
    queries = [Query(number(name, scope, **where), legend) for legend, scope in scopes.items()]
    heading = f"{title(name)} over time"
    return lines(heading, about(name, EACH_POINT, where.get("basis", "")), queries, unit=unit(name))


def kpi_lines_by(name: str, scope: Scope, label: str, heading: str) -> Json:
    """Return a fact or KPI over time, one line for each channel or campaign."""
    queries = [Query(number(name, scope, label), f"{{{{{label}}}}}")]
    return lines(f"{title(name)} by {heading}", about(name, EACH_POINT), queries, unit=unit(name))


def compared(name: str, scope: Scope, label: str, heading: str) -> Json:
    """Return one bar for each channel or campaign, the greatest first."""
    query = Query(f"sort_desc({number(name, scope, label)})", f"{{{{{label}}}}}", at_once=True)
    return bars(
        f"{title(name)}: every {heading}",
        about(name, "Bars without a value are left out: no leads is not a price of 0."),
        [query],
        unit=unit(name),
        decimals=decimals(name),
        steps=STEPS.get(name, BLUE),
    )


def columns(names: tuple[str, ...], scope: Scope, label: str, **where: str) -> list[Column]:
    """Return the columns of a table with a row for each value of `label`."""
    return [
        Column(
            title(name),
            number(name, scope, label, **where),
            unit(name),
            decimals(name),
            STEPS.get(name, ()),
        )
        for name in names
    ]


def decimals(name: str) -> int | None:
    """Return how many decimals a fact or KPI is shown with; None leaves it to Grafana."""
    return {"locale": 2, "percentunit": 1, "none": 0}.get(unit(name))
