import asyncio

from kpis.facts import OVERALL, Scope
from streams.publishers import SLOTS, Snapshot
from tests.streams.publishers.views import CAMPAIGN, version, view


def test_the_slots_are_those_of_the_contract() -> None:
    assert SLOTS == (
        "1m", "5m", "1h", "1d", "1w", "1mo", "lifetime",
        "last_1h", "last_24h", "last_7d", "last_28d",
        "1m@previous", "5m@previous", "1h@previous", "1d@previous", "1w@previous", "1mo@previous",
    )  # fmt: skip


def test_the_latest_view_of_a_scope_replaces_the_earlier_one() -> None:
    snapshot = Snapshot()
    snapshot.replace(view({"1d": {"clicks": 1}}))
    latest = view({"1d": {"clicks": 2}}, at=version(11))

    snapshot.replace(latest)

    assert snapshot.views() == [latest]
    assert len(snapshot) == 1


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
