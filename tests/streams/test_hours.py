"""The rows of the last hours that merge publishes with the whole and with channels."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from kpis.calendar import MINUTE_MS
from kpis.facts import COHORT, OVERALL, Facts, Scope
from kpis.money import MICROS
from streams.publishers import SHOWN_HOURS, Hour
from streams.settings import load
from tests.streams.merge_shard import BRAND, GOOGLE, META, NOON, MergeShard

HOUR = 60
PAID: Facts = {"clicks": 3, "cost": 6 * MICROS, "cost_records": 1}


def test_an_hour_has_what_is_drawn_of_it() -> None:
    shard = MergeShard()
    shard.count(
        {
            **PAID,
            "impressions": 100,
            "leads_gross": 5,
            "leads_voided": 1,
            "sales": 2,
            "new_customers": 1,
            "revenue_gross": 90 * MICROS,
            "refunds": 20 * MICROS,
        }
    )

    row = Hour(NOON, 100, 3, 6 * MICROS, 4, 2, 1, 70 * MICROS)
    assert list(shard.hours(GOOGLE).values()) == [row]
    assert shard.hours(OVERALL) == shard.hours(GOOGLE)


def test_hours_are_of_channels_and_the_whole_on_the_period_basis_only() -> None:
    shard = MergeShard()
    shard.count(PAID)
    shard.count({"leads": 1}, basis=COHORT)

    assert not shard.hours(BRAND)
    assert not shard.hours(GOOGLE, COHORT)
    assert shard.slots(GOOGLE, COHORT)


def test_hours_lie_in_the_order_of_time_however_their_facts_came() -> None:
    shard = MergeShard()
    for hour in (3, 1, 2, 0):
        shard.count(PAID, NOON - hour * HOUR)
    shard.count({"clicks": 4}, NOON - 2 * HOUR)

    hours = shard.hours(GOOGLE)
    assert list(hours) == [NOON - hour * HOUR for hour in (3, 2, 1, 0)]
    assert [row.clicks for row in hours.values()] == [3, 7, 3, 3]


def test_cost_of_an_hour_is_missing_only_where_it_is_expected() -> None:
    shard = MergeShard()
    shard.count({"clicks": 3}, scope=Scope("seo", "-"))
    shard.count({"clicks": 4})

    # None of the channels that cost something has told its cost.
    assert cost(shard, OVERALL) is cost(shard, GOOGLE) is None
    assert cost(shard, Scope("seo", None)) == 0

    shard.count(PAID, scope=META)
    assert cost(shard, OVERALL) == cost(shard, Scope("meta_ads", None)) == 6 * MICROS
    assert cost(shard, GOOGLE) is None


def cost(shard: MergeShard, scope: Scope) -> int | None:
    (row,) = shard.hours(scope).values()
    return row.cost_micros


def test_an_hour_that_lost_its_last_fact_is_gone() -> None:
    shard = MergeShard()
    shard.count({"clicks": 3})
    shard.count({"clicks": 3}, NOON - HOUR)
    shard.count({"clicks": -3})

    assert list(shard.hours(GOOGLE)) == [NOON - HOUR]


def test_only_the_last_hours_are_kept() -> None:
    shard = MergeShard()
    oldest = NOON - (SHOWN_HOURS - 1) * HOUR
    shard.count(PAID, oldest - 1)
    shard.count(PAID, oldest)
    shard.count(PAID)

    #  oldest - 1   oldest        NOON         now
    #  [............[-------------[------------)
    assert list(shard.hours(GOOGLE)) == [oldest, NOON]
    shard.advance(minutes=HOUR)
    assert list(shard.hours(GOOGLE)) == [NOON]
    shard.advance(hours=SHOWN_HOURS)
    assert not shard.hours(GOOGLE)


def test_an_hour_ahead_is_shown_once_it_has_begun() -> None:
    shard = MergeShard()
    shard.count(PAID)
    shard.count({"clicks": 8}, NOON + HOUR)
    assert list(shard.hours(GOOGLE)) == [NOON]

    shard.advance(minutes=HOUR)

    assert list(shard.hours(GOOGLE)) == [NOON, NOON + HOUR]


def test_hours_of_a_zone_with_half_hours_begin_with_its_clock() -> None:
    shard = MergeShard(load({"LEADPULSE_CONFIG": "", "LEADPULSE_TIME_ZONE": "Asia/Kolkata"}))
    assert ZoneInfo("Asia/Kolkata") == shard.settings.time_zone
    shard.count(PAID)

    assert list(shard.hours(GOOGLE)) == [NOON - 30]


def test_hours_are_the_same_after_a_restart() -> None:
    shard = MergeShard()
    for hour in range(0, 60, 7):
        shard.count({"clicks": hour + 1}, NOON - hour * HOUR)
    before = {scope: dict(shard.hours(scope)) for scope in (OVERALL, GOOGLE)}

    shard.restart()
    shard.publish()

    assert {scope: dict(shard.hours(scope)) for scope in (OVERALL, GOOGLE)} == before
    assert len(before[GOOGLE]) == 8


def test_hours_are_the_same_object_as_long_as_nothing_is_new() -> None:
    shard = MergeShard()
    shard.count(PAID)
    before = shard.hours(GOOGLE)

    shard.clock.advance(timedelta(milliseconds=MINUTE_MS))
    shard.publish()
    assert shard.hours(GOOGLE) is before

    shard.count({"clicks": 1})
    assert shard.hours(GOOGLE) != before
