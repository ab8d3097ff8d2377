"""What arrives before its `created`, too late, or twice: state is a function of the set of events."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from aiokafka.admin import NewTopic

from kpis.histogram import bucket_of
from streams.topics import admin_client
from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Place, Sent, event, fetch, sample, series, until

pytestmark = pytest.mark.integration

NOW: Final = datetime.now(UTC)
SEO: Final = {"channel": "seo", "campaign_id": "c"}
EURO: Final = {"amount": "10.00", "currency": "EUR"}


def at(minutes: int) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat()


def created(lead: str, minutes: int = -60) -> Sent:
    return event("leads", "lead.created", at(minutes), lead_id=lead, **SEO)


def moved(lead: str, to: str = "mql", minutes: int = -30, **fields: object) -> Sent:
    move = {"lead_id": lead, "to_stage": to, "event_id": f"{lead}-{to}", **fields}
    return event("stage-changes", "lead.stage_changed", at(minutes), **move)


def invalidated(lead: str) -> Sent:
    return event("leads", "lead.invalidated", at(-20), lead_id=lead, reason="spam")


def sold(sale: str, **fields: object) -> Sent:
    return event("sales", "sale.created", at(-10), sale_id=sale, **{**EURO, **fields})


def voided(sale: str) -> Sent:
    return event("sales", "sale.voided", at(-5), sale_id=sale)


def on(partition: int, record: Sent) -> Sent:
    return record._replace(partition=partition)


def days_ago(days: float, record: Sent) -> Sent:
    """Return what happened, and arrived, so many days ago."""
    occurred = NOW - timedelta(days=days)
    value = json.loads(record.value or b"") | {"occurred_at": occurred.isoformat()}
    return record._replace(
        value=json.dumps(value).encode(), timestamp_ms=int(occurred.timestamp() * 1000)
    )


async def parked(url: str, count: int) -> None:
    async def shows_it() -> bool:
        try:
            found = sample(series(fetch(url)), "leadkpi_parked_events")
        except OSError:
            return False
        return found == count

    await until(shows_it, f"{count} parked events on {url}")


async def test_what_comes_before_its_created_waits_for_it_in_any_partition(deploy: Deploy) -> None:
    deployment = await deploy()
    worker = deployment.worker()
    await deployment.send(
        [on(0, moved("a")), on(1, invalidated("b")), on(2, voided("s")), on(1, moved("c", "sql"))]
    )
    await deployment.settle()
    assert await deployment.facts() == {}
    await parked(worker.metrics_url, 4)

    # What is parked outlives its worker.
    assert worker.stop() == 0
    worker.start()
    await parked(worker.metrics_url, 4)
    await deployment.send(
        [
            *(on(1, created("a")), on(2, created("b")), on(0, created("c"))),
            *(on(1, sold("s", lead_id="a")), on(0, sold("t", lead_id="a"))),
        ]
    )
    await deployment.settle()
    expected = {
        "leads_gross": 3,
        "leads_voided": 1,
        "leads": 2,
        "stage_entered.lead": 2,
        "stage_entered.mql": 2,
        "stage_implied.mql": 1,
        "stage_entered.sql": 2,
        "stage_implied.sql": 1,
        "stage_entered.customer": 1,
        "stage_current.customer": 1,
        "stage_current.sql": 1,
        "sales": 1,
        "new_customers": 1,
        "converted": 1,
        "revenue_gross": "10.000000",
        "revenue_net": "10.000000",
        "cycle_count": 1,
        "cycle_ms": 50 * 60_000,
        "cycle_histogram": {str(bucket_of(50 * 60_000)): 1},
    }
    for scope in (("_all", "_all"), ("seo", "_all"), ("seo", "c")):
        assert await deployment.facts(*scope) == expected, scope
    await parked(worker.metrics_url, 0)
    assert await deployment.rejects() == []


async def create_inputs_with_producers_times(deployment: Deployment) -> None:
    # Kept for ever: the broker would delete what is older than a week.
    configs = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    inputs = deployment.topics.inputs.values()
    async with admin_client(deployment.settings.kafka) as admin:
        new = [NewTopic(name, deployment.partitions, 1, topic_configs=configs) for name in inputs]
        await admin.create_topics(new)
    await deployment.create_topics()


async def test_what_no_created_comes_for_is_rejected_when_park_days_are_over(
    deploy: Deploy,
) -> None:
    deployment = await deploy(with_topics=False)
    await create_inputs_with_producers_times(deployment)
    worker = deployment.worker()
    orphans = [
        days_ago(8, moved("nobody")),
        days_ago(8.5, invalidated("nobody")),
        days_ago(9, voided("nothing")),
        # Its lead came, but more than seven days after it.
        days_ago(9, moved("late")),
    ]
    places = await deployment.send(orphans)
    await deployment.send([days_ago(6.9, moved("to come")), days_ago(8, moved("early"))])
    await deployment.send([days_ago(1.5, created("late")), days_ago(2, created("early"))])

    async def all_told() -> bool:
        return len(await deployment.rejects()) >= len(orphans)

    await until(all_told, "a reject for each orphan")
    await parked(worker.metrics_url, 1)
    rejects = await deployment.rejects()
    assert [describe(*one) for one in sorted(rejects)] == sorted(
        (place.key, *expected)
        for place, expected in zip(
            places,
            [
                ("orphan_lead", "lead_id", "nobody"),
                ("orphan_lead", "lead_id", "nobody"),
                ("orphan_sale", "sale_id", "nothing"),
                ("orphan_lead", "lead_id", "late"),
            ],
            strict=True,
        )
    )
    facts = await deployment.facts("seo", "c")
    assert (facts["leads"], facts["stage_entered.mql"], facts["stage_current.mql"]) == (2, 1, 1)
    exposed = series(fetch(worker.metrics_url))
    assert sample(exposed, "leadkpi_rejects_total", reason="orphan_lead") == 3
    assert sample(exposed, "leadkpi_rejects_total", reason="orphan_sale") == 1
    done = await deployment.verify()
    assert done.stdout.startswith("exact: 8 events"), done.stdout


def describe(key: str, reject: dict[str, Any]) -> tuple[str, ...]:
    place = Place(reject["topic"], reject["partition"], reject["offset"])
    assert place.key == key
    named = reject["message"].partition(", got ")[2].strip("'\"")
    return key, reject["reason"], reject["field"], named


# ----------------------------------------------------------------------------- twice

ROW: Final = {
    **SEO,
    "period_start": "2026-03-01",
    "period_end": "2026-03-02",
    "reported_at": "2026-03-02T09:00:00Z",
}
ROW_LATER: Final = {**ROW, "reported_at": "2026-03-03T09:00:00Z"}


def one_of_each_type() -> list[Sent]:
    """Return event types that have an identity, in an order that parks nothing."""
    dollars = {"amount": "10.00", "currency": "USD"}
    rate_day = (NOW - timedelta(days=1)).date().isoformat()
    month = {"kpi": "leads", "period": "month", "period_start": NOW.strftime("%Y-%m-01"), **SEO}
    amended = {"amount": "12.00", "currency": "EUR"}
    refund = {"refund_id": "r", "amount": "2.00", "currency": "EUR"}
    return [
        event(
            *("fx-rates", "fxrate.set", at(-1)), base="USD", quote="EUR", rate="0.5", date=rate_day
        ),
        event("targets", "target.set", at(-1), value="5", reported_at=at(-1), **month),
        event("clicks", "click.recorded", at(-90), click_id="k", **SEO),
        event("clicks", "click.recorded", at(-90), click_id="void", **SEO),
        event("clicks", "click.voided", at(-80), click_id="void"),
        event("impressions", "impressions.reported", at(-1), event_id="ir", count=1000, **ROW),
        event("clicks", "clicks.reported", at(-1), event_id="cr", count=40, **ROW),
        event("costs", "cost.snapshot", at(-1), event_id="cs", cost_source="x", **ROW, **EURO),
        event("costs", "cost.snapshot", at(-1), event_id="ct", cost_source="y", **ROW, **EURO),
        event("costs", "cost.deleted", at(-1), event_id="cd", cost_source="y", **ROW_LATER),
        *(created(lead) for lead in ("a", "b", "disqualified", "twin")),
        event("leads", "lead.created", at(-60), lead_id="late", channel="seo"),
        event("leads", "lead.updated", at(-50), event_id="lu", lead_id="late", campaign_id="c"),
        event("leads", "lead.disqualified", at(-50), event_id="ld", lead_id="disqualified"),
        event("leads", "lead.merged", at(-50), lead_id="twin", into_lead_id="a"),
        moved("a"),
        moved("a", "sql", -25),
        # Back, and so counted as such once.
        moved("a", "mql", -24, event_id="back"),
        invalidated("b"),
        sold("s", lead_id="a"),
        event("sales", "sale.amended", at(-9), sale_id="s", recorded_at=at(-9), **amended),
        event("sales", "sale.refunded", at(-8), sale_id="s", **refund),
        sold("t", lead_id="a"),
        voided("t"),
        sold("u", lead_id="twin"),
        event("sales", "sale.cancelled", at(-7), sale_id="u"),
        sold("d", lead_id="late", **dollars),
    ]


ONCE: Final = {
    "clicks": 41,
    "invalid_clicks": 1,
    "impressions": 1000,
    "cost": "10.000000",
    # The twin counts as another lead's part.
    "leads_gross": 4,
    "leads": 3,
    "leads_voided": 1,
    "leads_disqualified": 1,
    "stage_regressed.mql": 1,
    "sales": 3,
    "sales_cancelled": 1,
    # What was amended, what was cancelled, and ten dollars.
    "revenue_gross": "27.000000",
    "refunds": "12.000000",
    "converted": 2,
}


async def test_a_second_delivery_of_any_event_with_an_identity_changes_nothing(
    deploy: Deploy,
) -> None:
    deployment = await deploy()
    worker = deployment.worker()
    records = one_of_each_type()
    await deployment.send(records)
    await deployment.settle()
    before = {key: record["facts"] for key, record in (await deployment.kpi_records()).items()}
    facts = before["period|lifetime|-|seo|c"]
    assert {name: facts[name] for name in ONCE} == ONCE
    assert await deployment.rejects() == []

    accepted = sample(series(fetch(worker.metrics_url)), "leadkpi_events_total", outcome="accepted")
    for _ in range(2):
        await deployment.send(records)
        await deployment.settle()
    after = {key: record["facts"] for key, record in (await deployment.kpi_records()).items()}
    # Rolling windows and what is running may move with the minute, but not in number.
    assert after == before
    exposed = series(fetch(worker.metrics_url))
    assert sample(exposed, "leadkpi_events_total", outcome="accepted") == accepted
    duplicates = sample(exposed, "leadkpi_events_total", outcome="duplicate")
    assert duplicates == 2 * len(records)
    done = await deployment.verify()
    assert done.stdout.startswith(f"exact: {3 * len(records)} events"), done.stdout


async def test_an_unattributed_sale_moves_to_its_lead_when_it_arrives(deploy: Deploy) -> None:
    deployment = await deploy()
    deployment.worker()
    await deployment.send([sold("s", lead_id="a"), sold("alone")])
    await deployment.settle()
    facts = await deployment.facts("unattributed", "-")
    assert (facts["sales"], facts["sales_unattributed"], facts["revenue_gross"]) == (
        2,
        2,
        "20.000000",
    )
    assert (await deployment.facts())["sales_unattributed"] == 2
    await deployment.shown({"sales": "2"}, "unattributed", "-")

    await deployment.send([created("a")])
    await deployment.settle()
    facts = await deployment.facts("seo", "c")
    assert (facts["sales"], facts["converted"], facts["new_customers"]) == (1, 1, 1)
    assert facts["revenue_gross"] == "10.000000"
    facts = await deployment.facts("unattributed", "-")
    assert (facts["sales"], facts["sales_unattributed"], facts["revenue_gross"]) == (
        1,
        1,
        "10.000000",
    )
    assert (await deployment.facts())["sales"] == 2
    await deployment.shown({"sales": "1", "sales_unattributed": "1"}, "unattributed", "-")
    await deployment.shown({"sales": "1", "converted": "1"}, "seo", "c")

    # The last one of the scope: its records get tombstones and its hash goes away.
    await deployment.send([voided("alone")])
    await deployment.settle()
    assert await deployment.lifetime("unattributed", "-") == {}

    async def is_gone() -> bool:
        return not deployment.hash("lifetime", "unattributed", "-")

    await until(is_gone, "no hash of a scope without facts")
    scopes = deployment.redis.zrange("leadkpi:v1:scopes", 0, -1)
    assert set(scopes) == {"_all|_all", "seo|_all", "seo|c"}
