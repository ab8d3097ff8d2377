"""Every panel of the dashboards, asked of a real Prometheus that reads a fed worker."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Final

import pytest

from streams.simulate import mix_of
from streams.traffic import Mix, traffic
from tests.deploy import grafana
from tests.deploy.grafana import CHOSEN, QUIET, Answer, Asked, Json
from tests.integration.conftest import PARTITIONS, Deploy
from tests.integration.running import Deployment, Sent, event, until
from tests.parts.prometheus_server import PrometheusServer

pytestmark = pytest.mark.integration

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
HORIZON_DAYS: Final = 30
EVENTS_PER_SECOND: Final = 0.15
CHANNELS: Final = ("google_ads", "linkedin_ads", "seo")
RECENT_HOURS: Final = 5
OLD_HOURS: Final = 2
PATIENCE_SECONDS: Final = 150.0
SCRAPE_SECONDS: Final = 4
CASES: Final = (
    {"window": "last_24h", "basis": "period"},
    {"window": "last_28d", "basis": "cohort"},
    {"window": "lifetime", "basis": "period"},
)
"""What is chosen when the panels are asked; the first is what the dashboards open with."""


def noon_zone() -> str:
    """Return a time zone where it is about noon, so that today and the month have begun."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


def buying(mix: Mix) -> Mix:
    """Return some of the usual campaigns with more clicks and leads: few events show everything."""
    return replace(
        mix,
        per_second=EVENTS_PER_SECOND,
        cycle_ms=HOUR_MS // 2,
        cost_every_ms=HOUR_MS // 2,
        campaigns=[
            replace(
                one,
                click_ratio=min(0.5, 5 * one.click_ratio),
                lead_ratio=min(0.6, 2 * one.lead_ratio),
                step_ratio=max(0.7, one.step_ratio),
            )
            for one in mix.campaigns
            if one.channel in CHANNELS
        ],
    )


def simulated(seed: int, start_ms: int, end_ms: int, mix: Mix) -> list[Sent]:
    return [
        Sent(record.topic, record.value, record.key or None)
        for record in takewhile(lambda one: one.at_ms < end_ms, traffic(seed, start_ms, mix))
    ]


def targets(now: datetime) -> list[Sent]:
    """Return targets of this month for the whole, the chosen channel and the chosen campaign."""
    at = now.astimezone(UTC).isoformat()
    month = {"period": "month", "period_start": f"{now:%Y-%m-01}", "reported_at": at}
    chosen = {"channel": CHOSEN["channel"]}
    scopes: tuple[dict[str, str], ...] = ({}, chosen, {**chosen, "campaign_id": CHOSEN["campaign"]})
    return [
        event("targets", "target.set", at, event_id=f"t-{kpi}-{n}", kpi=kpi, value=value, **scope, **month)
        for n, scope in enumerate(scopes)
        for kpi, value in (("leads", "900"), ("cpl", "40"))
    ]  # fmt: skip


class SlowPrometheus(PrometheusServer):
    """A Prometheus that gives a busy worker time to answer."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        path = self.directory / "prometheus.yml"
        path.write_text(path.read_text().replace("1s", f"{SCRAPE_SECONDS}s"))


async def feed(deployment: Deployment, prometheus: PrometheusServer) -> None:
    """Send leads that are mature, and some hours of traffic, in two parts so that counters move."""
    now = datetime.now(deployment.settings.time_zone)
    now_ms = int(now.timestamp() * 1000)
    mix = buying(mix_of(deployment.settings))
    old_ms = now_ms - (HORIZON_DAYS + 5) * DAY_MS
    recent = simulated(2, now_ms - RECENT_HOURS * HOUR_MS, now_ms, mix)
    await deployment.send(simulated(1, old_ms, old_ms + OLD_HOURS * HOUR_MS, mix))
    await deployment.send(recent[: len(recent) // 2])
    await counted(prometheus)
    await deployment.send([*recent[len(recent) // 2 :], *targets(now)])
    await counted(prometheus)


async def counted(prometheus: PrometheusServer) -> None:
    """Return when all that has arrived until now is counted."""
    arrived = datetime.now(UTC).timestamp()

    async def is_counted() -> bool:
        told = prometheus.query("leadkpi_complete_until_timestamp_seconds")
        return [until_seconds > arrived for _, until_seconds in told] == [True]

    await until(is_counted, "all of it counted", PATIENCE_SECONDS)


def check_choices(prometheus: PrometheusServer, dashboard: Json, values: dict[str, str]) -> None:
    """Fail unless each chosen value is one that its variable offers."""
    for variable in grafana.variables(dashboard):
        offered = grafana.choices(prometheus, variable, values)
        name = variable["name"]
        assert values[name] in offered, f"{dashboard['title']}: {name}: got {offered}"


async def answers(prometheus: PrometheusServer, values: dict[str, str]) -> dict[Asked, Answer]:
    """Return the answer to each query, as soon as those that have to be have numbers."""
    left = {one for name, board in grafana.read().items() for one in grafana.asked(name, board)}
    found: dict[Asked, Answer] = {}

    async def all_have_numbers() -> bool:
        for one in sorted(left):
            found[one] = grafana.answer(prometheus, one, values)
            if found[one].numbers or (one.panel in QUIET and not found[one].fault):
                left.discard(one)
        return not left

    try:
        await until(all_have_numbers, "a number for every query", PATIENCE_SECONDS)
    except TimeoutError:
        lacking = [f"{one.where}: {found[one].text}: {one.expr}" for one in sorted(left)]
        pytest.fail("\n".join([f"no answer with {values}:", *lacking]))
    return found


def print_answers(found: dict[Asked, Answer]) -> None:
    for one, answer in sorted(found.items()):
        text = answer.text if answer.numbers else f"empty: {QUIET[one.panel]}"
        print(f"{one.dashboard:18} | {one.panel:48} | {one.ref} | {text}")


def check_undefined(prometheus: PrometheusServer, values: dict[str, str]) -> None:
    """Fail unless the return of a channel without cost is told as unknown."""
    board = grafana.read()["channel"]
    tiles = [one for one in grafana.asked("channel", board) if one.panel == "Return on spend (ROI)"]
    assert tiles
    for one in tiles:
        told = grafana.answer(prometheus, one, {**values, "channel": "unattributed"})
        assert [math.isnan(value) for _, value in told.values] == [True], one.where


@pytest.mark.timeout(480)
async def test_every_panel_has_an_answer_on_a_prometheus_that_reads_a_fed_worker(
    deploy: Deploy,
) -> None:
    deployment = await deploy(LEADPULSE_TIME_ZONE=noon_zone())
    worker = deployment.worker()
    target = worker.metrics_url.removeprefix("http://").removesuffix("/metrics")
    with SlowPrometheus(target) as prometheus:

        async def has_shards() -> bool:
            return [value for _, value in prometheus.query("leadkpi_shards")] == [PARTITIONS]

        await until(has_shards, "a worker with its shards", PATIENCE_SECONDS)
        await feed(deployment, prometheus)
        for case in CASES:
            values = {
                **grafana.GRAFANAS,
                "datasource": "leadpulse-prometheus",
                "job": "leadpulse",
                "currency": "EUR",
                **CHOSEN,
                **case,
            }
            found = await answers(prometheus, values)
            if case is CASES[0]:
                print_answers(found)
                check_undefined(prometheus, values)
                for dashboard in grafana.read().values():
                    check_choices(prometheus, dashboard, values)
    assert worker.stop() == 0
