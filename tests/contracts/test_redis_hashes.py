"""The promises of the Redis publisher, kept by fakeredis and by a real server alike."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import fakeredis
import msgspec
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from kpis.catalog import Surroundings
from kpis.facts import COHORT, OVERALL, Scope
from kpis.money import MICROS
from streams.metrics import Metrics
from streams.publishers import SLOTS, AlertView, Hour, ScopeView, Snapshot
from streams.publishers.redis_hashes import (
    ALERTS_KEY,
    CHANNELS_KEY,
    SCOPES_KEY,
    UPDATES_CHANNEL,
    VIEWS_PER_PIPELINE,
    RedisHashes,
    connect,
    hash_name,
    member_of,
    scope_of_member,
)
from tests.parts.redis_server import RedisServer
from tests.streams.publishers.views import (
    CAMPAIGN,
    CATALOG,
    NOON,
    NOON_MS,
    alert_view,
    version,
    view,
)

HOUR_MS = 3_600_000
DAY = hash_name("1d", CAMPAIGN)
SECONDS_TO_BE_RIGHT_AGAIN = 5


@dataclass
class Worker:
    """A publisher with what it publishes from."""

    client: Redis
    snapshot: Snapshot = field(default_factory=Snapshot)
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry(), "1.2.3"))
    crashes: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = RedisHashes(
            self.client,
            self.snapshot,
            self.metrics,
            catalog=CATALOG,
            zone=ZoneInfo("Europe/Paris"),
            currency="EUR",
            on_crash=self.crashes.append,
        )

    @property
    def is_up(self) -> bool:
        up = self.metrics.registry.get_sample_value("leadkpi_publisher_up", {"publisher": "redis"})
        return up == 1

    async def __aenter__(self) -> "Worker":
        await self.publisher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.publisher.stop()
        assert self.crashes == []


@dataclass
class Target:
    """A Redis, fake or real; `new_client` is what a worker would use."""

    new_client: Callable[[], Redis]
    client: Redis

    async def publish(self, *views: ScopeView) -> None:
        """Let a worker of its own write the views, one after the other."""
        for shown in views:
            async with Worker(self.new_client()) as worker:
                worker.snapshot.replace(shown)

    async def alert(self, *views: AlertView) -> None:
        """Let a worker of its own write the alerts, one after the other."""
        for shown in views:
            async with Worker(self.new_client()) as worker:
                worker.snapshot.replace_alert(shown)

    async def alerts(self) -> dict[str, float]:
        """Return the members of the index of alerts with their scores."""
        listed = await self.answer(self.client.zrange(ALERTS_KEY, 0, -1, withscores=True))
        return {member.decode(): score for member, score in listed}

    async def fields(self, name: str) -> dict[str, str]:
        """Return the fields of a hash."""
        found: dict[bytes, bytes] = await self.answer(self.client.hgetall(name))
        return {name.decode(): value.decode() for name, value in found.items()}

    async def has(self, name: str) -> bool:
        """Tell whether a key is there."""
        return bool(await self.answer(self.client.exists(name)))

    async def lacks(self, name: str) -> bool:
        """Tell whether a key is not there."""
        return not await self.has(name)

    async def answer(self, reply: Any) -> Any:
        """Return a reply; the client's types say that it may be one at once."""
        return await reply


async def eventually(
    is_true: Callable[[], Awaitable[bool]], seconds: float = SECONDS_TO_BE_RIGHT_AGAIN
) -> None:
    async with asyncio.timeout(seconds):
        while not await is_true():  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(0.02)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    if request.param == "fake":
        server = fakeredis.FakeServer()

        def new_client() -> Redis:
            client: Redis = fakeredis.FakeAsyncRedis(server=server)
            return client
    else:
        url = request.getfixturevalue("redis_server").url.removesuffix("/0") + "/7"

        def new_client() -> Redis:
            return connect(url)

    client = new_client()
    await client.flushdb()
    yield Target(new_client, client)
    await client.aclose()


async def test_a_hash_has_every_fact_every_defined_kpi_and_where_it_comes_from(
    target: Target,
) -> None:
    facts = {"clicks": 300, "cost": 600 * MICROS, "cost_records": 1, "stage_entered.mql": 2}

    await target.publish(view({"1d": facts}, at=version(12, 3)))

    found = await target.fields("leadkpi:v1:period:1d:google_ads:c-42")
    undefined = json.loads(found.pop("_undefined"))
    assert found == {
        "clicks": "300",
        "cost": "600.000000",
        "cost_records": "1",
        "stage_entered.mql": "2",
        "cpc": "2.0",
        "stage_conversion.mql.sql": "0.0",
        "roi": "-1.0",
        "roas": "0.0",
        "click_to_lead": "0.0",
        "invalid_click_share": "0.0",
        "mql_to_close": "0.0",
        "cost_coverage": "1.0",
        "_state": "provisional",
        "_revision": "0",
        "_start": "2026-03-29T00:00:00+01:00",
        "_end": "2026-03-30T00:00:00+02:00",
        "_complete_until": "2026-03-29T11:59:55Z",
        "_computed_at": "2026-03-29T12:00:00.412Z",
        "_currency": "EUR",
        "_version": "12.3.5f3a",
    }
    assert undefined["cpl"] == "no_leads"
    assert undefined["stage_conversion.lead.mql"] == "no_leads"
    assert not set(undefined) & set(found)


async def test_overall_and_channels_are_told_by_all(target: Target) -> None:
    await target.publish(
        view({"lifetime": {"clicks": 3}}, OVERALL),
        view({"last_1h": {"clicks": 2}}, Scope("seo", None)),
    )

    overall = await target.fields("leadkpi:v1:period:lifetime:_all:_all")
    assert overall["clicks"] == "3"
    assert "_start" not in overall
    assert (await target.fields("leadkpi:v1:period:last_1h:seo:_all"))["clicks"] == "2"


async def test_names_of_campaigns_are_escaped(target: Target) -> None:
    scope = Scope("seo", "Été|1 %")

    await target.publish(view({"1d": {"clicks": 3}}, scope))

    assert await target.fields("leadkpi:v1:period:1d:seo:%C3%89t%C3%A9%7C1%20%25")
    members = await target.answer(target.client.zrange(SCOPES_KEY, 0, -1))
    assert members == [b"seo|%C3%89t%C3%A9%7C1%20%25"]
    assert scope_of_member(members[0].decode()) == scope


async def test_a_write_replaces_all_fields(target: Target) -> None:
    await target.publish(
        view({"1d": {"clicks": 3, "sales": 1}}, at=version(10)),
        view({"1d": {"clicks": 4}}, at=version(11)),
    )

    found = await target.fields(DAY)
    assert found["clicks"] == "4"
    assert "sales" not in found


@pytest.mark.parametrize("older", [version(9, 1), version(9, 5), version(10, 1)])
async def test_an_older_version_is_refused(target: Target, older: str) -> None:
    await target.publish(
        view({"1d": {"clicks": 4}}, at=version(10, 2)), view({"1d": {"clicks": 3}}, at=older)
    )

    assert (await target.fields(DAY))["clicks"] == "4"


@pytest.mark.parametrize(
    "newer", [version(10, 2), version(11, 1), version(10, 3), version(100, 1), version(3, 1, "b00")]
)
async def test_an_equal_or_newer_version_and_that_of_another_lineage_is_written(
    target: Target, newer: str
) -> None:
    await target.publish(
        view({"1d": {"clicks": 4}}, at=version(10, 2)), view({"1d": {"clicks": 5}}, at=newer)
    )

    assert (await target.fields(DAY))["clicks"] == "5"


async def test_a_missing_slot_has_no_hash(target: Target) -> None:
    await target.publish(
        view({"1d": {"clicks": 3}, "1h": {"clicks": 3}}, at=version(10)),
        view({"1h": {"clicks": 3}}, at=version(11)),
    )

    assert await target.fields(DAY) == {}
    assert await target.fields(hash_name("1h", CAMPAIGN))


async def test_a_missing_slot_of_an_older_version_removes_nothing(target: Target) -> None:
    await target.publish(
        view({"1d": {"clicks": 3}}, at=version(10)), view({"1h": {"clicks": 1}}, at=version(9))
    )

    assert await target.fields(DAY)


@pytest.mark.parametrize(
    ("slot", "ttl_ms"),
    [
        ("1m", HOUR_MS),
        ("5m", HOUR_MS),
        ("1h", 2 * HOUR_MS),
        ("1d", 46 * HOUR_MS),
        ("1d@previous", 48 * HOUR_MS),
        ("1w", 2 * (7 * 24 - 1) * HOUR_MS),
        ("1mo", 2 * (31 * 24 - 1) * HOUR_MS),
        ("1mo@previous", 2 * 28 * 24 * HOUR_MS),
        # A rolling window has the running bucket besides.
        ("last_1h", 2 * HOUR_MS + 2 * HOUR_MS // 60),
        ("last_24h", 50 * HOUR_MS),
        ("last_7d", 2 * (7 * 24 + 1) * HOUR_MS),
        ("last_28d", 2 * (29 * 24 - 1) * HOUR_MS),
    ],
)
async def test_a_hash_lives_twice_its_window_but_at_least_an_hour(
    target: Target, slot: str, ttl_ms: int
) -> None:
    await target.publish(view({slot: {"clicks": 3}}))

    left_ms = await target.answer(target.client.pttl(hash_name(slot, CAMPAIGN)))
    assert ttl_ms - 60_000 < left_ms <= ttl_ms


async def test_lifetime_never_expires(target: Target) -> None:
    await target.publish(view({"lifetime": {"clicks": 3}}))

    assert await target.answer(target.client.pttl(hash_name("lifetime", CAMPAIGN))) == -1


async def test_scopes_are_listed_with_their_last_update_in_seconds(target: Target) -> None:
    await target.publish(view({"1d": {"clicks": 3}}), view({"1d": {"clicks": 3}}, OVERALL))

    listed = await target.answer(target.client.zrange(SCOPES_KEY, 0, -1, withscores=True))
    assert dict(listed) == {b"google_ads|c-42": NOON_MS // 1000, b"_all|_all": NOON_MS // 1000}
    assert member_of(OVERALL) == "_all|_all"


async def test_a_scope_without_numbers_is_no_longer_listed(target: Target) -> None:
    await target.publish(view({"1d": {"clicks": 3}}), view({}, at=version(11)))

    assert await target.answer(target.client.exists(SCOPES_KEY, DAY)) == 0


async def test_a_scope_is_listed_as_long_as_it_has_numbers_on_either_basis(
    target: Target,
) -> None:
    async def listed() -> int:
        return int(await target.answer(target.client.zcard(SCOPES_KEY)))

    cohort = view({"1d": {"leads": 3}}, basis=COHORT)
    async with Worker(target.new_client()) as worker:
        worker.snapshot.replace(cohort)
        worker.snapshot.replace(view({"1d": {"clicks": 3}}))
        await eventually(lambda: target.has(hash_name("1d", CAMPAIGN, COHORT)))
        await eventually(lambda: target.has(DAY))
        worker.snapshot.replace(view({}, at=version(11)))
        await eventually(lambda: target.lacks(DAY))
        assert await listed() == 1
        worker.snapshot.replace(view({}, basis=COHORT, at=version(12)))
        await eventually(lambda: target.lacks(hash_name("1d", CAMPAIGN, COHORT)))
        assert await listed() == 0


async def test_each_basis_has_hashes_of_its_own_for_every_slot(target: Target) -> None:
    slots = {slot: {"leads_gross": number} for number, slot in enumerate(SLOTS, 1)}
    await target.publish(view(slots), view(slots, basis=COHORT))

    for number, slot in enumerate(SLOTS, 1):
        for basis in ("period", "cohort"):
            found = await target.fields(f"leadkpi:v1:{basis}:{slot}:google_ads:c-42")
            assert found["leads_gross"] == str(number)
            assert found.get("leads") == (str(number) if basis == "period" else None)


async def test_a_histogram_has_no_fields(target: Target) -> None:
    await target.publish(
        view({"1d": {"cycle_ms": 5_000, "cycle_count": 1, "cycle_histogram.9": 1}})
    )

    found = await target.fields(DAY)
    assert found["cycle_count"] == "1"
    assert "purchase_cycle_p50" in found
    assert not [name for name in found if "histogram" in name]


async def test_what_rests_on_a_part_of_its_cost_is_told(target: Target) -> None:
    facts = {"cost": 6 * MICROS, "cost_records": 1, "leads_gross": 2, "clicks": 3}
    await target.publish(
        view({"1d": facts}, OVERALL, around=Surroundings(2, 1, is_overall=True)),
        view({"1d": facts}, around=Surroundings(1, 1)),
        view({"1h": facts}, around=Surroundings(1, 1, cost_until_reached=False), at=version(11)),
    )

    partial = json.loads((await target.fields(hash_name("1d", OVERALL)))["_partial"])
    assert {"cpl", "cpc", "roi", "net_profit_per_lead"} <= set(partial)
    # It has no customers: an undefined number is no part of anything.
    assert not {"ctr", "cac"} & set(partial)
    assert "_partial" in await target.fields(hash_name("1h", CAMPAIGN))


async def test_a_whole_number_tells_nothing_of_parts(target: Target) -> None:
    facts = {"cost": 6 * MICROS, "cost_records": 1, "leads_gross": 2}
    await target.publish(view({"1d": facts}, around=Surroundings(1, 1)))

    assert "_partial" not in await target.fields(DAY)


async def test_a_state_and_what_has_matured_are_told(target: Target) -> None:
    shown = view({"1mo": {"leads": 5}}, basis=COHORT, around=Surroundings(mature_leads=2))
    month = msgspec.structs.replace(shown.slots["1mo"], state="revised", revision=3)
    await target.publish(shown._replace(slots={"1mo": month}))

    found = await target.fields(hash_name("1mo", CAMPAIGN, COHORT))
    assert (found["_state"], found["_revision"], found["mature"]) == ("revised", "3", "2")


async def test_changed_keys_are_announced(target: Target) -> None:
    hints = target.client.pubsub(ignore_subscribe_messages=True)
    await hints.subscribe(UPDATES_CHANNEL)
    await target.publish(view({"1d": {"clicks": 3}, "1h": {"clicks": 3}}))

    heard: set[str] = set()
    async with asyncio.timeout(5):
        while len(heard) < 2:
            message = await hints.get_message(timeout=1)
            if message and message["type"] == "message":
                heard.add(message["data"].decode())
    assert heard == {DAY, hash_name("1h", CAMPAIGN)}
    await hints.unsubscribe()


async def test_only_changed_slots_are_written_again(target: Target) -> None:
    first = view({"1d": {"clicks": 3}, "1d@previous": {"clicks": 8}})
    second = view({"1d": {"clicks": 4}}, at=version(11))
    second.slots["1d@previous"] = first.slots["1d@previous"]

    async def has_four() -> bool:
        return (await target.fields(DAY)).get("clicks") == "4"

    async def has_three() -> bool:
        return (await target.fields(DAY)).get("clicks") == "3"

    async with Worker(target.new_client()) as worker:
        worker.snapshot.replace(first)
        await eventually(has_three)
        worker.snapshot.replace(second)
        await eventually(has_four)

    assert (await target.fields(hash_name("1d@previous", CAMPAIGN)))["_version"] == version(10)


async def test_after_a_change_of_owner_every_slot_is_written(target: Target) -> None:
    first = view({"1d": {"clicks": 3}}, at=version(10, 1))
    again = first._replace(version=version(12, 3))

    async def is_at(at: str) -> bool:
        return (await target.fields(DAY)).get("_version") == at

    async with Worker(target.new_client()) as worker:
        worker.snapshot.replace(first)
        await eventually(lambda: is_at(version(10, 1)))
        await target.publish(view({"1d": {"clicks": 9}}, at=version(11, 2)))
        worker.snapshot.replace(again)
        await eventually(lambda: is_at(version(12, 3)))

    assert (await target.fields(DAY))["clicks"] == "3"


@pytest.mark.parametrize("forget", ["flushall", "flushdb", "script_flush"])
async def test_what_redis_forgot_is_written_again(target: Target, forget: str) -> None:
    async def is_there() -> bool:
        return (await target.fields(DAY)).get("clicks") == "3"

    async with Worker(target.new_client()) as worker:
        worker.snapshot.replace(view({"1d": {"clicks": 3}}))
        await eventually(is_there)
        await target.answer(getattr(target.client, forget)())
        if forget == "script_flush":
            await target.client.delete(DAY)
            worker.snapshot.replace(view({"1d": {"clicks": 3}}, at=version(11)))
        await eventually(is_there)


async def test_views_of_a_closed_shard_are_not_written(target: Target) -> None:
    worker = Worker(target.new_client())
    worker.snapshot.replace(view({"1d": {"clicks": 3}}, shard=4))
    worker.snapshot.drop_shard(4)
    async with worker:
        pass

    assert await target.fields(DAY) == {}


async def test_many_scopes_are_all_written(target: Target) -> None:
    async with Worker(target.new_client()) as worker:
        for number in range(100):
            worker.snapshot.replace(view({"1d": {"clicks": number + 1}}, Scope("seo", f"{number}")))
        await eventually(lambda: target.has(hash_name("1d", Scope("seo", "99"))))

    assert await target.answer(target.client.zcard(SCOPES_KEY)) == 100
    assert (await target.fields(hash_name("1d", Scope("seo", "99"))))["clicks"] == "100"


def test_a_pipeline_does_not_hold_the_loop_for_long() -> None:
    assert VIEWS_PER_PIPELINE * len(SLOTS) <= 200


# ----------------------------------------------------------------------------- hours

SEO = Scope("seo", None)
SERIES = "leadkpi:v1:series:1h:seo"


def hours_view(*clicks: int | None, scope: Scope = SEO, at: str = version(10)) -> ScopeView:
    """Return a view with the clicks of the hours before noon, the last one last."""
    first = NOON - 60 * len(clicks)
    starts = (first + 60 * number for number in range(len(clicks)))
    hours = {
        start: Hour(start, 10, count, None, 0, 0, 0, 0)
        for start, count in zip(starts, clicks, strict=True)
        if count is not None
    }
    return view({"1d": {"clicks": 3}}, scope, at=at)._replace(hours=hours)


async def test_hours_are_arrays_by_their_local_starts(target: Target) -> None:
    before_summer = NOON - 12 * 60
    hours = {
        before_summer: Hour(before_summer, 100, 3, 6_500_000, 2, 1, 1, 40 * MICROS),
        NOON: Hour(NOON, 7, 1, None, 0, 0, 0, -2 * MICROS),
    }
    await target.publish(view({"1d": {"clicks": 3}}, SEO)._replace(hours=hours))

    assert await target.fields(SERIES) == {
        "2026-03-29T01:00:00+01:00": f"[{NOON_MS - 12 * HOUR_MS},100,3,6.5,2,1,1,40.0]",
        "2026-03-29T14:00:00+02:00": f"[{NOON_MS},7,1,null,0,0,0,-2.0]",
        "_version": version(10),
    }
    left_ms = await target.answer(target.client.pttl(SERIES))
    assert 99 * HOUR_MS < left_ms <= 100 * HOUR_MS


async def test_the_whole_has_hours_too_and_campaigns_and_cohorts_have_none(target: Target) -> None:
    await target.publish(
        hours_view(1, scope=OVERALL),
        view({"1d": {"clicks": 3}}),
        view({"1d": {"leads": 3}}, SEO, basis=COHORT),
    )

    names = await target.answer(target.client.keys("leadkpi:v1:series:*"))
    assert names == [b"leadkpi:v1:series:1h:_all"]


async def test_hours_that_are_no_longer_shown_leave_redis(target: Target) -> None:
    await target.publish(hours_view(1, 2, 3), hours_view(None, None, 4, at=version(11)))
    assert len(await target.fields(SERIES)) == 2

    await target.publish(hours_view(at=version(12)))
    assert await target.lacks(SERIES)


async def test_hours_of_an_older_version_are_refused(target: Target) -> None:
    await target.publish(hours_view(1, 2, at=version(10, 2)), hours_view(9, at=version(10, 1)))

    assert len(await target.fields(SERIES)) == 3


async def test_hours_are_written_again_only_if_they_changed_or_redis_forgot_them(
    target: Target,
) -> None:
    first = hours_view(1, 2)

    async def is_at(name: str, at: str) -> bool:
        return (await target.fields(name)).get("_version") == at

    async with Worker(target.new_client()) as worker:
        worker.snapshot.replace(first)
        await eventually(lambda: is_at(SERIES, version(10)))
        later = hours_view(at=version(11))._replace(hours=first.hours)
        worker.snapshot.replace(later)
        await eventually(lambda: is_at(hash_name("1d", SEO), version(11)))
        assert await is_at(SERIES, version(10))
        await target.client.flushall()
        await eventually(lambda: is_at(SERIES, version(11)))


async def test_channels_are_listed_apart_from_campaigns(target: Target) -> None:
    async def listed() -> list[bytes]:
        found: list[bytes] = await target.answer(target.client.zrange(CHANNELS_KEY, 0, -1))
        return found

    await target.publish(
        hours_view(1), view({"1d": {"clicks": 3}}, OVERALL), view({"1d": {"clicks": 3}})
    )
    assert await listed() == [b"_all|_all", b"seo|_all"]

    await target.publish(view({}, SEO, at=version(11)))
    assert await listed() == [b"_all|_all"]


# ----------------------------------------------------------------------------- alerts

ALERT = "leadkpi:v1:alert:cpl_spike:google_ads:c-42"
SINCE = datetime(2026, 3, 29, 11, 58, 30, tzinfo=UTC).timestamp()


async def test_an_alert_has_a_hash_of_its_record_and_is_listed_since_when_it_fires(
    target: Target,
) -> None:
    fired = alert_view("fired")

    await target.alert(fired)

    assert fired.value is not None
    assert await target.fields(ALERT) == {
        "rule": "cpl_spike",
        "state": "fired",
        "at": "2026-03-29T12:00:00Z",
        "since": "2026-03-29T11:58:30Z",
        "message_en": "Leads cost too much",
        "message_fr": "Les leads coûtent trop cher",
        "record": fired.value.decode(),
        "_version": "10.1.5f3a",
    }
    assert await target.alerts() == {"cpl_spike|google_ads|c-42": SINCE}
    assert await target.answer(target.client.pttl(ALERT)) == -1


async def test_parts_of_an_alert_s_name_are_encoded_and_the_whole_is_all(target: Target) -> None:
    await target.alert(
        alert_view("fired", OVERALL), alert_view("fired", Scope("seo", "a|b:é"), rule="my rule")
    )

    members = ["cpl_spike|_all|_all", "my%20rule|seo|a%7Cb:%C3%A9"]
    assert sorted(await target.alerts()) == members
    assert await target.fields("leadkpi:v1:alert:my%20rule:seo:a%7Cb:%C3%A9")


async def test_a_resolved_alert_is_still_listed_and_expires_after_a_day_by_itself(
    target: Target,
) -> None:
    await target.alert(alert_view("fired"), alert_view("resolved", at=version(11)))

    assert (await target.fields(ALERT))["state"] == "resolved"
    assert await target.alerts() == {"cpl_spike|google_ads|c-42": SINCE}
    left_ms = await target.answer(target.client.pttl(ALERT))
    assert 24 * HOUR_MS < left_ms <= 25 * HOUR_MS


async def test_an_alert_that_is_shown_no_more_leaves_no_trace(target: Target) -> None:
    await target.alert(alert_view("resolved"), alert_view(None, at=version(11)))

    assert await target.answer(target.client.exists(ALERT, ALERTS_KEY)) == 0


async def test_an_older_version_of_an_alert_changes_nothing(target: Target) -> None:
    await target.alert(
        alert_view("fired", at=version(11)),
        alert_view("resolved", at=version(10), since="2026-03-28T11:58:30Z"),
        alert_view(None, at=version(10, epoch=9)),
    )

    assert (await target.fields(ALERT))["state"] == "fired"
    assert await target.alerts() == {"cpl_spike|google_ads|c-42": SINCE}


async def test_an_alert_is_told_on_the_channel_of_updates(target: Target) -> None:
    async with target.client.pubsub() as listener:
        await listener.subscribe(UPDATES_CHANNEL)
        await target.alert(alert_view("fired"))
        told: list[bytes] = []

        async def is_told() -> bool:
            message = await listener.get_message(ignore_subscribe_messages=True)
            if message is not None:
                told.append(message["data"])
            return bool(told)

        await eventually(is_told)
    assert told == [ALERT.encode()]


async def test_alerts_are_written_again_when_redis_has_forgotten_them(target: Target) -> None:
    async def is_clean() -> bool:
        has_gone = "cpl_spike|seo|gone" not in await target.alerts()
        return has_gone and await target.has(ALERT)

    async with Worker(target.new_client()) as worker:
        worker.snapshot.replace_alert(alert_view("fired"))
        worker.snapshot.replace_alert(alert_view("fired", Scope("seo", "gone")))
        await eventually(lambda: target.has(ALERT))
        worker.snapshot.replace_alert(alert_view(None, Scope("seo", "gone"), at=version(11)))
        await eventually(is_clean)
        await target.client.flushdb()
        # As an older state that came back would list it.
        await target.answer(target.client.zadd(ALERTS_KEY, {"cpl_spike|seo|gone": 1}))
        await eventually(is_clean)


# ----------------------------------------------------------------------------- outages, real only


@pytest.mark.fault
@pytest.mark.integration
async def test_after_a_crash_of_redis_everything_is_right_within_five_seconds(prefix: str) -> None:
    with RedisServer() as server:
        async with Worker(connect(server.url)) as worker:
            reader = connect(server.url)
            target = Target(lambda: connect(server.url), reader)

            async def is_up() -> bool:
                return worker.is_up

            async def is_down() -> bool:
                return not worker.is_up

            async def is_right() -> bool:
                day, overall = await target.fields(DAY), await target.fields(all_day)
                return (day.get("clicks"), overall.get("clicks")) == ("4", "7")

            all_day = hash_name("1d", OVERALL)
            worker.snapshot.replace(view({"1d": {"clicks": 3}}))
            worker.snapshot.replace(view({"1d": {"clicks": 7}}, OVERALL))
            await eventually(is_up)

            server.kill()
            await eventually(is_down)
            worker.snapshot.replace(view({"1d": {"clicks": 4}}, at=version(11)))
            server.start()

            started = time.monotonic()
            await eventually(is_right)
            await eventually(is_up)
            assert time.monotonic() - started < SECONDS_TO_BE_RIGHT_AGAIN
            await reader.aclose()


@pytest.mark.fault
@pytest.mark.integration
async def test_a_frozen_redis_is_told_from_a_healthy_one_and_comes_back() -> None:
    with RedisServer() as server:
        async with Worker(connect(server.url)) as worker:

            async def is_up() -> bool:
                return worker.is_up

            async def is_down() -> bool:
                return not worker.is_up

            worker.snapshot.replace(view({"1d": {"clicks": 3}}))
            await eventually(is_up)
            server.pause()
            await eventually(is_down)
            server.resume()
            await eventually(is_up)


@pytest.mark.integration
async def test_a_redis_that_was_never_there_troubles_nobody_until_it_comes() -> None:
    with RedisServer(password="s3cret") as server:
        server.stop()
        async with Worker(connect(server.url)) as worker:
            worker.snapshot.replace(view({"1d": {"clicks": 3}}))

            async def is_up() -> bool:
                return worker.is_up

            assert not worker.is_up
            server.start()
            await eventually(is_up)


@pytest.mark.integration
async def test_a_refused_password_is_an_outage_not_a_crash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer(password="s3cret") as server:
        url = server.url.replace("s3cret", "wrong")
        async with Worker(connect(url)) as worker:

            async def has_complained() -> bool:
                return "counting goes on without it" in caplog.text

            await eventually(has_complained)
            assert not worker.is_up
    assert "wrong" not in caplog.text
