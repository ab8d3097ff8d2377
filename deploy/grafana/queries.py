"""The PromQL of the dashboards; metric names and units come from the worker's own code."""

from typing import NamedTuple

from kpis.catalog import Catalog, unit_of
from kpis.facts import AMOUNTS, FACT_LABELS
from streams.publishers.prometheus import series_of_fact, series_of_kpi
from streams.settings import Settings

CATALOG = Catalog(Settings().funnel.stages, Settings().cohort.horizon_days)
KPIS = {kpi.name.partition(".")[0]: kpi for kpi in CATALOG.kpis}
UNITS = {"share": "percentunit", "ratio": "percentunit", "seconds": "s", "amount": "locale"}
"""Grafana's units by ours. An amount's currency is a label, so it stands in titles: $currency."""

JOB = 'job="$job"'
ANYTHING = '__name__=~"leadkpi_(impressions|clicks|leads|cost_amount)"'
"""The metrics of which a scope with numbers has one; a channel may spend and have no lead."""


class Scope(NamedTuple):
    """Which series of a KPI: the matchers of channel and campaign."""

    channel: str
    campaign: str


WHOLE = Scope('channel="_all"', 'campaign="_all"')
CHANNEL = Scope('channel="$channel"', 'campaign="_all"')
CHANNELS = Scope('channel!="_all"', 'campaign="_all"')
CAMPAIGN = Scope('channel="$channel"', 'campaign="$campaign"')
CAMPAIGNS = Scope('channel="$channel"', 'campaign!="_all"')
EVERY_CAMPAIGN = Scope('channel!="_all"', 'campaign!="_all"')


def metric(name: str) -> str:
    """Return the metric of a fact or KPI; a KPI with parts is named by its first."""
    if name in KPIS:
        parts = ["any"] * len(KPIS[name].labels)
        return series_of_kpi(".".join([name, *parts])).metric
    parts = ["any"] * len(FACT_LABELS.get(name, ()))
    return series_of_fact(".".join([name, *parts])).metric


def unit(name: str) -> str:
    """Return Grafana's unit of a fact or KPI."""
    if name in KPIS:
        return UNITS[unit_of(name)]
    return "locale" if name in AMOUNTS else "none"


def is_amount(name: str) -> bool:
    """Return whether a fact or KPI is money."""
    return unit_of(name) == "amount" if name in KPIS else name in AMOUNTS


def formula(name: str, basis: str = "") -> str:
    """Return how a KPI is reckoned, on one basis or on both; empty for a fact."""
    kpi = KPIS.get(name)
    if kpi is None:
        return ""
    texts = {
        one: found.text(kpi.unit)
        for one in ([basis] if basis else kpi.bases)
        if (found := kpi.formula(one)) is not None
    }
    if len({*texts.values()}) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{one} basis: {text}" for one, text in texts.items())


def number(
    name: str,
    scope: Scope,
    *by: str,
    basis: str = "$basis",
    window: str = "$window",
    **matched: str,
) -> str:
    """Return the query of a fact or KPI of a scope.

    During a hand-over two workers may show the same scope, so the greater of their values is
    taken and nothing is ever summed.
    """
    matchers = [JOB, f'basis="{basis}"', _window(window), *scope]
    matchers += [f'{label}="{value}"' for label, value in matched.items()]
    grouped = f" by ({', '.join(by)}) " if by else ""
    return f"max{grouped}({metric(name)}{{{', '.join(matchers)}}})"


def or_gap(query: str) -> str:
    """Return a query that is NaN, which shows as "no data", where `query` has no answer.

    Without it a tile would go on showing the last value that was defined.
    """
    return f"{query} or vector(NaN)"


def or_none(query: str, scope: Scope, basis: str = "$basis", window: str = "$window") -> str:
    """Return 0 where `query` has no answer, but the scope has numbers in the window.

    What has never occurred has no series; where other things are counted it is known to be none.
    """
    matchers = [ANYTHING, JOB, f'basis="{basis}"', _window(window), *scope]
    return f"{query} or 0 * max({{{', '.join(matchers)}}})"


def per_second(name: str, *by: str, **matched: str) -> str:
    """Return how often a counter of the workers is counted, per second."""
    return f"sum{_by(by)}(rate({_own(name, matched)}[$__rate_interval]))"


def counted(name: str, *by: str, **matched: str) -> str:
    """Return by how much a counter of the workers grew over the time shown."""
    return f"sum{_by(by)}(increase({_own(name, matched)}[$__range]))"


def quantile(share: float, name: str) -> str:
    """Return a quantile of a histogram of the workers."""
    return f"histogram_quantile({share}, {per_second(f'{name}_bucket', 'le')})"


def gauge(name: str, how: str, *by: str) -> str:
    """Return a gauge of the workers, aggregated by `how`: max, min or sum."""
    return f"{how}{_by(by)}({_own(name, {})})"


def since_report(channel: str, *by: str) -> str:
    """Return how many seconds ago the newest cost was reported, of the most silent channel."""
    # A channel's report is known to several shards.
    newest = f"max by (channel) (leadkpi_cost_last_reported_timestamp_seconds{{{JOB}{channel}}})"
    return f"time() - min{_by(by)}({newest})"


def behind(*by: str) -> str:
    """Return how many seconds ago complete_until is, of the last of the workers with shards.

    What is not known yet is NaN, and left out.
    """
    known = f"leadkpi_complete_until_timestamp_seconds{{{JOB}}} > 0"
    return f"time() - min{_by(by)}({known} and on (job, instance) leadkpi_shards{{{JOB}}} > 0)"


def outcomes() -> str:
    """Return how many events a second have each outcome; late ones are among the accepted."""
    return (
        f'sum by (outcome) (rate(leadkpi_events_total{{{JOB}, outcome!="late"}}[$__rate_interval]))'
    )


def late_share() -> str:
    """Return which share of the accepted events of the time shown came late.

    A worker counts a thing from its first occurrence on, so no series means none, as long as
    it has counted anything at all.
    """
    accepted = counted("events_total", outcome="accepted")
    late = counted("events_total", outcome="late")
    return f"({late} or 0 * {accepted}) / ({accepted} > 0)"


def rejected_share() -> str:
    """Return which share of the events read in the time shown was refused."""
    # Late events are counted beside the accepted ones.
    read = f'sum(increase(leadkpi_events_total{{{JOB}, outcome!="late"}}[$__range]))'
    rejected = counted("events_total", outcome="rejected")
    return f"({rejected} or 0 * {read}) / ({read} > 0)"


def firing(channel: str = "") -> str:
    """Return the alerts that are firing; with the label's matcher, those of some channels."""
    matchers = ", ".join(one for one in (JOB, channel) if one)
    return f"max by (rule, channel, campaign) (leadkpi_alert_firing{{{matchers}}}) == 1"


def firing_count(channel: str = "") -> str:
    """Return how many alerts are firing: none only while a worker is there to say so."""
    return f"count({firing(channel)}) or 0 * max(leadkpi_build_info{{{JOB}}})"


def _own(name: str, matched: dict[str, str]) -> str:
    matchers = [JOB, *(f'{label}="{value}"' for label, value in matched.items())]
    full = name if name.startswith("process_") else f"leadkpi_{name}"
    return f"{full}{{{', '.join(matchers)}}}"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""


def _window(window: str) -> str:
    is_pattern = not window.removeprefix("$").replace("_", "").isalnum()
    return f'window=~"{window}"' if is_pattern else f'window="{window}"'
