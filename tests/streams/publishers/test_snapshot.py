import asyncio

from kpis.catalog import Surroundings
from kpis.facts import COHORT, OVERALL, PERIOD, Scope, Subject
from streams.publishers import SLOTS, Snapshot, shown_facts
from tests.streams.publishers.views import CAMPAIGN, alert_view, values, version, view


def test_the_slots_are_those_of_the_contract() -> None:
    assert SLOTS == (
        "1m", "5m", "1h", "1d", "1w", "1mo", "lifetime",
        "last_1h", "last_6h", "last_24h", "last_7d", "last_28d",
        "1m@previous", "5m@previous", "1h@previous", "1d@previous", "1w@previous", "1mo@previous",
    )  # fmt: skip


def test_the_latest_view_of_a_scope_replaces_the_earlier_one() -> None:
    snapshot = Snapshot()
    snapshot.replace(view({"1d": {"clicks": 1}}))
    latest = view({"1d": {"clicks": 2}}, at=version(11))

    snapshot.replace(latest)

    assert snapshot.views() == [latest]
    assert len(snapshot) == 1


def test_a_scope_counts_once_though_it_has_two_bases() -> None:
    snapshot = Snapshot()
    snapshot.replace(view({"1d": {"clicks": 1}}))
    snapshot.replace(view({"1d": {"leads": 1}}, basis=COHORT))
    snapshot.replace(view({"1d": {"clicks": 2}}, at=version(11)))
    snapshot.replace(view({"1d": {"clicks": 2}}, OVERALL, shard=1))

    assert len(snapshot) == 2
    assert len(snapshot.views()) == 3
    snapshot.drop_shard(1)
    assert len(snapshot) == 1


def test_it_is_known_whether_a_scope_has_numbers_on_any_basis() -> None:
    snapshot = Snapshot()
    snapshot.replace(view({}))
    snapshot.replace(view({"1d": {"leads": 1}}, basis=COHORT))

    assert snapshot.has_numbers([Subject(PERIOD, CAMPAIGN), Subject(COHORT, CAMPAIGN)])
    assert not snapshot.has_numbers([Subject(PERIOD, CAMPAIGN), Subject(COHORT, OVERALL)])


def test_facts_are_shown_with_derived_and_mature_ones_but_without_the_histogram() -> None:
    facts = {"leads_gross": 3, "leads_voided": 1, "cycle_histogram.7": 2, "cycle_count": 2}
    assert shown_facts(values("1d", facts)) == {
        "leads_gross": 3,
        "leads_voided": 1,
        "leads": 2,
        "cycle_count": 2,
    }
    of_cohort = values("1d", {"leads": 3}, basis=COHORT, around=Surroundings(mature_leads=2))
    assert shown_facts(of_cohort) == {"leads": 3, "mature": 2}


def test_a_closed_shard_takes_its_scopes_along() -> None:
    snapshot = Snapshot()
    outbox = snapshot.subscribe()
    kept = view({"1d": {"clicks": 2}}, OVERALL, shard=1)
    snapshot.replace(view({"1d": {"clicks": 1}}, shard=0))
    snapshot.replace(kept)

    snapshot.drop_shard(0)
    snapshot.drop_shard(7)

    assert snapshot.views() == [kept]
    assert list(snapshot.shards()) == [1]
    assert outbox.take(10) == [kept]


def test_an_outbox_holds_the_latest_view_of_each_scope_in_the_order_they_came() -> None:
    snapshot = Snapshot()
    outbox = snapshot.subscribe()
    other = view({"1d": {"clicks": 5}}, Scope("seo", "-"))
    latest = view({"1d": {"clicks": 2}}, at=version(11))
    snapshot.replace(view({"1d": {"clicks": 1}}))
    snapshot.replace(other)
    snapshot.replace(latest)

    assert len(outbox) == 2
    assert outbox.take(1) == [latest]
    assert outbox.take(1) == [other]
    assert outbox.take(1) == []


async def test_waiting_ends_when_a_view_comes_and_at_once_while_some_are_left() -> None:
    snapshot = Snapshot()
    outbox = snapshot.subscribe()
    waiting = asyncio.create_task(outbox.wait(60))
    snapshot.replace(view({}, CAMPAIGN))
    snapshot.replace(view({}, OVERALL))

    await waiting
    outbox.take(1)
    await outbox.wait(60)


async def test_waiting_ends_in_time_without_a_view() -> None:
    outbox = Snapshot().subscribe()

    await outbox.wait(0.01)

    assert outbox.take(10) == []


def test_alerts_are_kept_beside_the_numbers_of_their_scope_and_leave_with_their_shard() -> None:
    snapshot = Snapshot()
    outbox = snapshot.subscribe()
    shown, fired, other = (
        view({"1d": {"clicks": 1}}),
        alert_view("fired"),
        alert_view("fired", shard=1),
    )
    resolved = alert_view("resolved", at=version(11))
    snapshot.replace(shown)
    for alert in (fired, resolved, other._replace(rule="cost_missing")):
        snapshot.replace_alert(alert)

    assert snapshot.views() == [shown]
    assert snapshot.alerts() == [resolved, other._replace(rule="cost_missing")]
    assert len(snapshot) == 1
    snapshot.drop_shard(1)
    assert snapshot.alerts() == [resolved]
    assert outbox.take(10) == [shown, resolved]
