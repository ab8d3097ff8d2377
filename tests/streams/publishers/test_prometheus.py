import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterable
from fractions import Fraction

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kpis.catalog import Progress, Surroundings
from kpis.facts import BASES, COHORT, OVERALL, PERIOD, STAGE_FACTS, Facts, Scope, additive_facts
from kpis.money import MICROS
from kpis.targets import Target
from streams.metrics import Metrics
from streams.publishers import SLOTS, ScopeView, Snapshot
from streams.publishers.prometheus import (
    WINDOW_LABELS,
    KpiCollector,
    MetricsEndpoint,
    series_of_fact,
)
from tests.parts.prometheus_server import promtool_faults
from tests.streams.publishers.views import CATALOG, NOON, view

FUNNEL = ("visitor", "lead", "mql", "sql", "customer")
FACTS = {
    "impressions": 10_000,
    "clicks": 300,
    "cost": 600 * MICROS,
    "cost_records": 1,
    "leads_gross": 31,
    "leads_voided": 2,
    "stage_entered.lead": 29,
    "stage_entered.mql": 13,
    "cycle_ms": 62 * 86_400_000,
    "cycle_count": 3,
}


def registry_with(
    views: Iterable[ScopeView], *, top_campaigns: int = 50, live: Iterable[int] = (0,)
) -> CollectorRegistry:
    snapshot = Snapshot()
    for shown in views:
        snapshot.replace(shown)
    registry = CollectorRegistry()
    shards = set(live)
    registry.register(
        KpiCollector(
            snapshot,
            shards.__contains__,
            CATALOG,
            lambda channel: channel.endswith("_ads"),
            currency="EUR",
            top_campaigns=top_campaigns,
        )
    )
    return registry


def sample(
    registry: CollectorRegistry, name: str, window: str = "lifetime", **labels: str
) -> float | None:
    scope = {"channel": "google_ads", "campaign": "c-42"}
    return registry.get_sample_value(
        f"leadkpi_{name}", {"basis": "period", "window": window, **scope, **labels}
    )


def campaign(number: int, cost: int, channel: str = "google_ads", **facts: int) -> ScopeView:
    facts = {"cost": cost * MICROS, "cost_records": 1, **facts}
    return view({"lifetime": facts, "1d": facts}, Scope(channel, f"c-{number}"))


def test_facts_and_kpis_are_gauges_in_base_units() -> None:
    registry = registry_with([view({"lifetime": FACTS})])

    assert sample(registry, "clicks") == 300
    assert sample(registry, "leads") == 29
    assert sample(registry, "cost_amount", currency="EUR") == 600
    assert sample(registry, "ctr_ratio") == 0.03
    assert sample(registry, "cpl_amount", currency="EUR") == 20.689655
    assert sample(registry, "cycle_seconds") == 62 * 86_400
    assert sample(registry, "cycles") == 3
    assert sample(registry, "purchase_cycle_mean_seconds") == 1_785_600
    assert sample(registry, "stage_entered", stage="mql") == 13
    assert sample(registry, "stage_conversion_ratio", **{"from": "lead", "to": "mql"}) == 0.448276


@pytest.mark.parametrize(
    ("slot", "window"),
    [
        ("last_1h", "last_1h"),
        ("last_24h", "last_24h"),
        ("last_7d", "last_7d"),
        ("last_28d", "last_28d"),
        ("1d", "today"),
        ("1mo", "month"),
        ("lifetime", "lifetime"),
    ],
)
def test_windows_have_the_labels_of_the_contract(slot: str, window: str) -> None:
    registry = registry_with([view({slot: {"clicks": 7}})])

    assert sample(registry, "clicks", window) == 7


def test_other_windows_are_not_exported() -> None:
    slots = sorted(set(SLOTS) - set(WINDOW_LABELS))
    registry = registry_with([view({slot: {"clicks": 7} for slot in slots})])

    assert list(registry.collect()) == []


def test_undefined_kpis_have_no_series() -> None:
    registry = registry_with([view({"lifetime": {"cost": 5, "cost_records": 1}})])

    names = {family.name for family in registry.collect()}
    assert "leadkpi_cpl_amount" not in names
    assert "leadkpi_roas_ratio" in names


def test_overall_and_channels_are_told_by_all() -> None:
    registry = registry_with(
        [
            view({"lifetime": {"clicks": 3}}, OVERALL),
            view({"lifetime": {"clicks": 2}}, Scope("seo", None)),
        ]
    )

    assert sample(registry, "clicks", channel="_all", campaign="_all") == 3
    assert sample(registry, "clicks", channel="seo", campaign="_all") == 2


def test_what_a_scope_once_had_is_zero_in_a_quiet_window() -> None:
    registry = registry_with([view({"lifetime": FACTS | {"stage_current.mql": 4}})])

    assert sample(registry, "clicks", "last_1h") == 0
    assert sample(registry, "ctr_ratio", "last_1h") is None
    # Unknown cost is not zero cost, and where leads stand is told over lifetime only.
    assert sample(registry, "cost_amount", "last_1h", currency="EUR") is None
    assert sample(registry, "stage_current", "last_1h", stage="mql") is None
    assert sample(registry, "stage_current", stage="mql") == 4


def test_shards_that_are_not_confirmed_are_not_exported() -> None:
    views = [
        view({"lifetime": {"clicks": 3}}, OVERALL, shard=1),
        view({"lifetime": {"clicks": 2}}, shard=2),
    ]
    registry = registry_with(views, live=[2])

    assert sample(registry, "clicks") == 2
    assert sample(registry, "clicks", channel="_all", campaign="_all") is None


def test_campaigns_beyond_the_top_are_summed_by_channel_with_their_own_kpis() -> None:
    views = [
        campaign(1, 100, leads_gross=10),
        campaign(2, 30, leads_gross=1),
        campaign(3, 20, leads_gross=4),
        campaign(4, 90, "meta_ads"),
        view({"lifetime": {"leads_gross": 8}}, Scope("seo", "-")),
    ]
    registry = registry_with(views, top_campaigns=2)

    def cpl(channel: str, campaign: str) -> float | None:
        return sample(
            registry, "cpl_amount", "today", channel=channel, campaign=campaign, currency="EUR"
        )

    assert cpl("google_ads", "c-1") == 10
    assert cpl("google_ads", "c-2") is None
    assert cpl("google_ads", "__other__") == 10
    assert sample(registry, "leads", channel="google_ads", campaign="__other__") == 5
    assert sample(registry, "leads", channel="meta_ads", campaign="__other__") is None
    assert sample(registry, "cpl_amount", channel="seo", campaign="__other__", currency="EUR") == 0


def test_unknown_cost_of_the_other_campaigns_stays_unknown() -> None:
    views = [view({"lifetime": {"leads_gross": 8}}, Scope("google_ads", "c-9"))]
    registry = registry_with(views, top_campaigns=0)

    assert sample(registry, "leads", campaign="__other__") == 8
    assert sample(registry, "cpl_amount", campaign="__other__", currency="EUR") is None


def every_fact(basis: str = PERIOD) -> Facts:
    facts = dict.fromkeys(additive_facts(FUNNEL, basis), 7) | {"cycle_histogram.40": 7}
    return facts | ({"leads_voided": 1, "refunds": 1, "visitors": 20} if basis == PERIOD else {})


def every_view() -> list[ScopeView]:
    targets = (
        Progress(Target(kpi, "month", NOON, NOON + 60, 20 * MICROS), Fraction(1, 2))
        for kpi in ("leads", "stage_entered.mql", "cpl", "stage_conversion.lead.mql")
    )
    period = Surroundings(1, 1, 2, is_overall=True, targets=tuple(targets))
    cohort = Surroundings(1, 1, 2, 7, 7, is_overall=True)
    return [
        view({"1mo": every_fact(), "lifetime": every_fact()}, OVERALL, around=period),
        view({"lifetime": every_fact(COHORT)}, OVERALL, basis=COHORT, around=cohort),
    ]


def test_names_and_labels_follow_the_rules_of_prometheus() -> None:
    for family in registry_with(every_view()).collect():
        assert re.fullmatch("leadkpi_[a-z0-9_]+", family.name)
        assert family.documentation.endswith(".")


def test_every_fact_and_every_kpi_is_exported() -> None:
    names = {family.name for family in registry_with(every_view()).collect()}
    expected = {name.partition(".")[0] for basis in BASES for name in additive_facts(FUNNEL, basis)}
    expected |= {kpi.name.partition(".")[0] for kpi in CATALOG.kpis} | {"leads", "mature"}
    expected -= {"cycle_ms", "cycle_count"}

    stripped = {re.sub("_(amount|ratio|seconds)$", "", name) for name in names}
    assert expected - {name.removeprefix("leadkpi_") for name in stripped} == set()


def test_no_histogram_is_exported() -> None:
    for family in registry_with(every_view()).collect():
        assert "histogram" not in family.name


def test_promtool_finds_nothing_to_object_to() -> None:
    assert promtool_faults(generate_latest(registry_with(every_view())).decode()) == ""


def test_both_bases_are_told_apart_by_a_label() -> None:
    registry = registry_with(
        [view({"1mo": {"sales": 3}}), view({"1mo": {"sales": 2, "leads": 1}}, basis=COHORT)]
    )

    assert sample(registry, "sales", "month") == 3
    assert sample(registry, "sales", "month", basis="cohort") == 2


def test_targets_have_the_label_kpi() -> None:
    registry = registry_with(every_view())
    of_all = {"channel": "_all", "campaign": "_all"}

    assert sample(registry, "target_attainment_ratio", "month", kpi="leads", **of_all) == 0.3
    assert sample(registry, "pacing_ratio", "month", kpi="leads", **of_all) == 0.6
    for kpi in ("stage_entered.mql", "stage_conversion.lead.mql", "cpl"):
        assert sample(registry, "target_attainment_ratio", "month", kpi=kpi, **of_all) is not None
    assert sample(registry, "pacing_ratio", "month", kpi="cpl", **of_all) is None


def test_stages_of_a_cohort_have_labels_of_their_own() -> None:
    registry = registry_with(every_view())
    whole = {"basis": "cohort", "channel": "_all", "campaign": "_all"}

    assert sample(registry, "reached", **{"from": "lead", "to": "mql"}, **whole) == 7
    assert sample(registry, "closed_from", **{"from": "mql"}, **whole) == 7


def test_nobody_says_that_there_were_no_visitors_within_hours() -> None:
    facts = {"visitors": 9, "leads_gross": 1}
    registry = registry_with([view({"lifetime": facts, "last_1h": {"leads_gross": 1}})])

    assert sample(registry, "visitors") == 9
    assert sample(registry, "visitors", "today") == 0
    for window in ("last_1h", "last_24h", "last_7d"):
        assert sample(registry, "visitors", window) is None


def test_what_cannot_be_summed_is_not_told_of_the_other_campaigns() -> None:
    ripe = Surroundings(1, 1, 0, 3, 1)
    facts = {
        "leads": 3,
        "converted_within": 1,
        "cycle_count": 1,
        "cycle_ms": 5,
        "cycle_histogram.40": 1,
    }
    views = [
        view({"lifetime": {"visitors": 9, "leads_gross": 1, "clicks": 2}}),
        view({"lifetime": {"visitors": 8, "leads_gross": 1}}, Scope("google_ads", "b")),
        view({"lifetime": facts}, basis=COHORT, around=ripe),
    ]
    registry = registry_with(views, top_campaigns=0)

    assert sample(registry, "leads", campaign="__other__") == 2
    assert sample(registry, "clicks", campaign="__other__") == 2
    other = {"campaign": "__other__", "basis": "cohort"}
    assert sample(registry, "purchase_cycle_p50_seconds", **other) is not None
    for name in ("visitors", "visitor_to_lead_ratio"):
        assert sample(registry, name, campaign="__other__") is None
    for name in ("mature", "cohort_maturity_ratio", "conversion_within_ratio"):
        assert sample(registry, name, **other) is None


def test_gauges_keep_clear_of_the_endings_that_prometheus_reserves() -> None:
    # What `promtool check metrics` says of gauges.
    for family in registry_with(every_view()).collect():
        assert not re.search("_(total|count|sum|bucket|info|created|ms)$", family.name)
        assert not re.search("gauge|counter|histogram|summary", family.name)


class Serving:
    """An endpoint on a free port, and what its liveness hook says."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.metrics = Metrics(CollectorRegistry(), "1.2.3")
        self.endpoint = MetricsEndpoint(self.metrics, "127.0.0.1", 0, lambda: self.problem)

    async def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        url = f"{self.endpoint.url}{path}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as got:
            return got.status, got.headers["Content-Type"], await got.text()


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    serving = Serving()
    await serving.endpoint.start()
    yield serving
    await serving.endpoint.stop()


async def test_metrics_are_served_as_text(serving: Serving) -> None:
    status, content_type, body = await serving.get("/metrics")

    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert 'leadkpi_publisher_up{publisher="prometheus"} 1.0' in body


async def test_metrics_are_served_as_openmetrics_to_who_asks(serving: Serving) -> None:
    _, content_type, body = await serving.get(
        "/metrics", Accept="application/openmetrics-text; version=1.0.0"
    )

    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


async def test_health_is_what_the_hook_says(serving: Serving) -> None:
    assert await serving.get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")

    serving.problem = "no progress for 60 s"
    status, _, text = await serving.get("/healthz")

    assert (status, text) == (503, "no progress for 60 s\n")


async def test_scrapes_at_the_same_time_are_all_answered(serving: Serving) -> None:
    answers = await asyncio.gather(*(serving.get("/metrics") for _ in range(5)))

    assert [status for status, _, _ in answers] == [200] * 5


async def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics = Metrics(CollectorRegistry(), "1.2.3")
        port = taken.getsockname()[1]
        endpoint = MetricsEndpoint(metrics, "127.0.0.1", port, lambda: None)
        with pytest.raises(OSError, match="in use"):
            await endpoint.start()
        await endpoint.stop()


async def test_a_stopped_endpoint_is_not_up() -> None:
    serving = Serving()
    await serving.endpoint.start()
    await serving.endpoint.stop()

    up = serving.metrics.registry.get_sample_value(
        "leadkpi_publisher_up", {"publisher": "prometheus"}
    )
    assert up == 0


@pytest.mark.parametrize("fact", STAGE_FACTS)
def test_help_of_every_stage_fact_says_what_it_counts(fact: str) -> None:
    series = series_of_fact(f"{fact}.mql")
    assert series.metric == f"leadkpi_{fact}"
    assert series.text.endswith(".")
    assert "contract" not in series.text
