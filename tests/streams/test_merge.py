"""What merge publishes as deltas come, time passes, and owners change."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest

from kpis.calendar import MINUTE_MS
from kpis.contributions import Place
from kpis.facts import COHORT, OVERALL, PERIOD, Scope
from kpis.ledger import Cause
from kpis.retention import Grain
from kpis.spans import GRAIN_OF
from kpis.targets import Target
from streams.messages import Reported
from streams.owed import MOST_AT_A_TIME, OWED
from streams.settings import load
from tests.streams.merge_shard import BRAND, DAY, GOOGLE, META, NOON, OTHER, TOPICS, MergeShard

HOUR = 60
LIFETIME_OF_ALL = b"period|lifetime|-|_all|_all"
"""Its record says each minute up to when all is counted."""


def random_step(shard: MergeShard, random: Random) -> None:
    """Let something happen to a shard."""
    scope = random.choice((BRAND, OTHER, META, Scope("seo", "-")))
    now = shard.clock.now_ms() // MINUTE_MS
    back = random.choice((0, 1, 7, 100, 1_000, 40 * DAY, 90 * DAY, 500 * DAY, -90))
    minute = now - back - random.randrange(3)
    match random.randrange(10):
        case 0:
            shard.report(str(scope.channel), now - random.choice((0, 60, DAY, -DAY)))
        case 1:
            start = shard.deployment.buckets.calendar.month_start(now)
            end = shard.deployment.buckets.calendar.month_end(start)
            target = Target("leads", "month", start, end, random.randrange(1, 9) * 10**6)
            shard.aim(scope, random.choice((target, None)))
        case 2:
            shard.visit(f"v{random.randrange(5)}", minute=minute, scope=scope)
        case 3 | 4:
            shard.advance(minutes=random.choice((1, 3, 60, 3 * DAY, 31 * DAY)))
            now = shard.clock.now_ms() // MINUTE_MS
            shard.newest = max(shard.newest, now)
            shard.complete(shard.clock.now_ms())
        case _:
            basis = random.choice((PERIOD, COHORT))
            is_period = basis == PERIOD
            name = random.choice(
                ("leads_gross", "sales") if is_period else ("leads", "converted_within")
            )
            facts = {name: random.choice((1, 2, -1)), "cost": 5, "cost_records": 1}
            grains = [
                grain
                for grain in Grain
                if shard.deployment.buckets.is_kept(
                    grain, shard.deployment.buckets.start(grain, minute), shard.newest
                )
            ]
            cause = random.choice(list(Cause))
            shard.count(facts, minute, scope, basis=basis, cause=cause, grain=grains[0])


def in_order(ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(ledger, key=lambda record: (record["key"], record["revision"]))


def keys(shard: MergeShard, begun: int) -> set[bytes]:
    """Return the keys of what was written from `begun` on."""
    return {key for key, _ in shard.written[begun:]}


def told(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says of its window, whenever it was written."""
    values = {
        name: kpi["value"] for name, kpi in record["kpis"].items() if not name.startswith("pacing.")
    }
    left_out = {"computed_at", "complete_until", "kpis"}
    rest = {name: part for name, part in record.items() if name not in left_out}
    return rest | {"values": values}


@pytest.mark.parametrize("seed", range(8))
def test_a_new_owner_goes_on_as_the_old_one_would_have(seed: int) -> None:
    stays, moves = MergeShard(), MergeShard()
    for number in range(60):
        random_step(stays, Random(f"{seed}/{number}"))
        random_step(moves, Random(f"{seed}/{number}"))
        if (seed + number) % 3 == 0:
            moves.restart()
            moves.publish()
            stays.publish()
        assert in_order(moves.ledger) == in_order(stays.ledger)
        expected = {key: told(record) for key, record in stays.records().items()}
        assert {key: told(record) for key, record in moves.records().items()} == expected
    stays.advance(minutes=2)
    moves.advance(minutes=2)
    for subject, slots in stays.views.items():
        found = moves.views.get(subject, {})
        assert {n: (v.window, v.facts, v.kpis, v.state, v.revision) for n, v in found.items()} == {
            n: (v.window, v.facts, v.kpis, v.state, v.revision) for n, v in slots.items()
        }, subject
    assert stays.changelogs == moves.changelogs


# ----------------------------------------------------------------------------- retention


@pytest.mark.parametrize("kind", ["1m", "5m", "1h", "1d", "1w", "1mo"])
def test_a_window_that_leaves_retention_gets_a_tombstone(kind: str) -> None:
    shard = MergeShard()
    shard.count({"clicks": 1})
    assert shard.record(kind) is not None
    window = shard.window(kind)
    kept = shard.deployment.buckets.retention.kept_minutes(GRAIN_OF[kind])
    assert window.start_minute is not None
    assert kept is not None
    first_end = shard.deployment.buckets.end(GRAIN_OF[kind], window.start_minute)
    shard.newest = first_end + kept - 1
    shard.tell()
    assert shard.record(kind) is not None
    shard.newest += 1
    shard.tell()
    assert shard.record(kind) is None
    assert dict(shard.written)[shard.key(kind).encode()] is None
    assert shard.record("lifetime") is not None


def test_what_is_too_old_for_a_window_makes_no_record_of_it() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1}, NOON - 60 * DAY, grain=Grain.DAY)
    kinds = {record["window"]["kind"] for record in shard.records().values()}
    assert kinds == {"1d", "1w", "1mo", "lifetime"}
    shard.count({"clicks": 1}, NOON - 500 * DAY, grain=Grain.LIFETIME)
    assert len(shard.written) == len(set(dict(shard.written))) + 3
    assert None not in dict(shard.written).values()


def test_a_new_owner_says_nothing_more_of_windows_that_are_gone() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1}, NOON - 399 * DAY, grain=Grain.DAY)
    shard.count({"clicks": 1}, NOON - 390 * DAY, grain=Grain.DAY)
    shard.newest += 2 * DAY
    shard.tell()
    begun = len(shard.written)
    shard.restart()
    shard.publish()
    assert keys(shard, begun) == {LIFETIME_OF_ALL}


def test_rows_of_windows_that_are_gone_go_too() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1})
    shard.complete(shard.clock.now_ms() + 40 * DAY * MINUTE_MS)
    shard.count({"clicks": -1})
    shard.restart()
    shard.newest += 800 * DAY
    shard.tell()
    kept = {name: rows.keys() for name, rows in shard.changelogs.items() if rows}
    assert kept.keys() == {TOPICS.changelog("positions")}


# ----------------------------------------------------------------------------- time


def test_a_quiet_scope_moves_to_previous_when_a_window_ends() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1})
    assert shard.slots().keys() == {
        *("1m", "5m", "1h", "1d", "1w", "1mo", "lifetime"),
        *("last_1h", "last_6h", "last_24h", "last_7d", "last_28d"),
    }
    shard.advance(minutes=1)
    assert {"1m@previous", "5m"} < shard.slots().keys()
    assert "1m" not in shard.slots()
    shard.advance(minutes=4)
    assert {"5m@previous", "1h"} < shard.slots().keys()
    shard.advance(hours=1)
    assert {"1h@previous", "1d"} < shard.slots().keys()
    assert "last_1h" not in shard.slots()
    shard.advance(days=1)
    assert {"1d@previous", "1w"} < shard.slots().keys()
    shard.advance(days=7)
    assert {"1w@previous", "1mo", "last_28d"} < shard.slots().keys()
    shard.advance(days=24)
    assert shard.slots().keys() == {"lifetime", "1mo@previous"}
    shard.advance(days=31)
    assert shard.slots().keys() == {"lifetime"}


def test_a_rolling_window_that_became_empty_gets_a_tombstone_also_from_a_new_owner() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1})
    assert shard.record("last_1h") is not None
    shard.clock.advance(timedelta(hours=2))
    shard.restart()
    shard.publish()
    assert shard.record("last_1h") is None
    assert shard.record("last_24h") is not None


@pytest.mark.parametrize("is_restarted", [False, True])
def test_what_lies_ahead_appears_when_each_of_its_windows_begins(is_restarted: bool) -> None:
    shard = MergeShard()
    shard.count({"clicks": 1}, NOON + 3 * HOUR + 17)
    assert shard.record("1m", minute=NOON + 3 * HOUR + 17) is not None
    assert "1h" not in shard.slots()
    if is_restarted:
        shard.restart()
        shard.publish()
    shard.advance(hours=3)
    assert "1h" in shard.slots()
    assert "last_24h" in shard.slots()
    assert "5m" not in shard.slots()
    shard.advance(minutes=15)
    assert "5m" in shard.slots()
    assert "1m" not in shard.slots()
    shard.advance(minutes=2)
    assert {"1m", "last_1h"} < shard.slots().keys()


def test_a_new_owner_shows_all_views_again() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1})
    shard.count({"clicks": 1}, NOON - 1)
    before = shard.views
    shard.restart()
    shard.publish()
    assert {subject: slots.keys() for subject, slots in shard.views.items()} == {
        subject: slots.keys() for subject, slots in before.items()
    }


# ----------------------------------------------------------------------------- finality


@pytest.mark.parametrize(
    ("kind", "lateness"),
    [("1m", 10), ("5m", 10), ("1h", 120), ("1d", 2 * DAY), ("1w", 2 * DAY), ("1mo", 2 * DAY)],
)
def test_a_window_is_final_once_all_that_may_come_late_is_counted(kind: str, lateness: int) -> None:
    shard = MergeShard()
    shard.count({"clicks": 1})
    end_minute = shard.window(kind).end_minute
    assert end_minute is not None
    final_ms = (end_minute + lateness) * MINUTE_MS
    shard.complete(final_ms - 1)
    assert shard.issued(kind) == []
    shard.complete(final_ms)
    (issued,) = shard.issued(kind)
    assert (issued["state"], issued["revision"], issued["cause"]) == ("final", 1, None)
    assert shard.record(kind) == {n: v for n, v in issued.items() if n != "key"}
    shard.complete(final_ms + DAY * MINUTE_MS)
    assert len(shard.issued(kind)) == 1


def test_what_was_shown_before_it_was_known_to_be_complete_is_shown_again() -> None:
    shard = MergeShard()
    shard.until_ms = None
    shard.count({"clicks": 1})
    shown = shard.record("lifetime")
    assert shown is not None
    assert shown["complete_until"] is None
    shard.complete(NOON * MINUTE_MS)
    shown = shard.record("lifetime")
    assert shown is not None
    assert shown["complete_until"] is not None


def test_the_view_says_that_its_windows_are_final() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1}, NOON - 1)
    shard.complete((NOON + 10) * MINUTE_MS)
    assert shard.slots()["1m@previous"].state == "final"
    assert shard.slots()["1h@previous"].state == "provisional"


def test_a_first_fact_that_comes_late_is_final_at_once_and_later_ones_revise_it() -> None:
    shard = MergeShard()
    shard.complete((NOON + 20) * MINUTE_MS)
    shard.count({"clicks": 1, "impressions": 4})
    assert [record["revision"] for record in shard.issued("1m")] == [1]
    shard.count({"clicks": 1}, cause=Cause.LATE_EVENT)
    shard.count({"clicks": 1}, cause=Cause.LEAD_CORRECTED)
    record = shard.record("1m")
    assert record is not None
    assert (record["state"], record["revision"]) == ("provisional", 1)
    assert record["facts"] == {"clicks": 3, "impressions": 4}
    shard.advance(minutes=1)
    _, revised = shard.issued("1m")
    assert (revised["state"], revised["revision"]) == ("revised", 2)
    assert revised["cause"] == "lead_corrected"
    assert revised["previous"]["ctr"] == 0.25
    assert revised["kpis"]["ctr"]["value"] == 0.75
    assert shard.record("1m") == {n: v for n, v in revised.items() if n != "key"}
    shard.advance(minutes=10)
    assert len(shard.issued("1m")) == 2
    assert shard.tally.take()._revisions == {"lead_corrected": 2 * 3}


def test_outcomes_of_a_cohort_are_told_in_the_ledger_once_a_day() -> None:
    shard = MergeShard()
    shard.count({"leads": 2, "leads_gross": 2}, basis=COHORT)
    shard.complete((NOON + 300) * MINUTE_MS)
    for _ in range(3):
        shard.count({"converted": 1}, basis=COHORT, cause=Cause.OUTCOME)
        shard.advance(hours=1)
    record = shard.record("1h", basis=COHORT)
    assert record is not None
    assert record["facts"]["converted"] == 3
    assert len(shard.issued("1h", basis=COHORT)) == 1
    shard.advance(hours=21)
    _, revised = shard.issued("1h", basis=COHORT)
    assert revised["cause"] == "outcome"
    assert revised["previous"]["conversion"] == 0


def test_a_final_window_that_loses_all_facts_is_revised_to_nothing() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1})
    shard.complete((NOON + 20) * MINUTE_MS)
    shard.count({"clicks": -1})
    assert shard.record("1m") is None
    shard.advance(minutes=1)
    _, revised = shard.issued("1m")
    assert (revised["state"], revised["facts"]) == ("revised", {})
    assert shard.record("1m") is None


def test_previous_values_rest_on_what_was_known_around_the_window_then() -> None:
    shard = MergeShard()
    shard.count({"leads_gross": 8}, scope=Scope("seo", "-"))
    shard.count({"leads_gross": 2}, scope=Scope("unattributed", "-"))
    shard.complete((NOON + 20) * MINUTE_MS)
    shard.count({"leads_gross": 10}, scope=Scope("unattributed", "-"))
    shard.count({"clicks": 1})
    shard.advance(minutes=1)
    _, revised = shard.issued("1m", OVERALL)
    assert revised["kpis"]["unattributed_share"]["value"] == 0.6
    assert revised["previous"]["unattributed_share"] == 0.2
    assert revised["kpis"]["cpl"]["undefined_reason"] == "cost_missing"
    assert revised["previous"]["cpl"] == 0


# ----------------------------------------------------------------------------- maturity


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_day_that_reaches_the_horizon_matures_without_any_event(is_restarted: bool) -> None:
    shard = MergeShard()
    now = {"leads": 4, "leads_gross": 4, "converted_within": 1}
    shard.count(now, basis=COHORT)
    shard.count({"leads": 1, "leads_gross": 1}, NOON + 2 * DAY, basis=COHORT)
    day_end = shard.window("1d").end_minute
    assert day_end is not None
    ripe_ms = (day_end + 30 * DAY) * MINUTE_MS
    shard.complete(ripe_ms - 1)
    issued = shard.issued("1d", basis=COHORT)
    assert ["mature" in record["facts"] for record in issued] == [False]
    if is_restarted:
        shard.restart()
        shard.publish()
    shard.complete(ripe_ms)
    for kind in ("1d", "1w", "1mo", "lifetime"):
        record = shard.record(kind, basis=COHORT)
        assert record is not None
        assert record["facts"]["mature"] == 4
        assert record["kpis"]["conversion_within"]["value"] == 0.25
    shard.advance(days=1)
    _, revised = shard.issued("1d", basis=COHORT)
    assert (revised["state"], revised["cause"]) == ("revised", "outcome")
    assert revised["previous"] == {"conversion_within": None, "cohort_maturity": 0}
    _, of_week = shard.issued("1w", basis=COHORT)
    assert of_week["kpis"]["cohort_maturity"]["value"] == 0.8


def test_last_28d_shows_what_has_matured_at_a_short_horizon() -> None:
    shard = MergeShard(load({"LEADPULSE_CONFIG": "", "LEADPULSE_COHORT_HORIZON_DAYS": "1"}))
    shard.count({"leads": 4, "leads_gross": 4, "converted_within": 1}, basis=COHORT)
    shard.advance(days=2)
    shard.complete(shard.clock.now_ms())
    assert shard.slots(basis=COHORT)["last_28d"].surroundings.mature_leads == 4


# ----------------------------------------------------------------------------- cost


def test_cost_reported_further_makes_windows_of_other_campaigns_whole() -> None:
    shard = MergeShard()
    shard.count({"cost": 10, "cost_records": 1, "leads_gross": 1}, scope=OTHER)
    shard.report("google_ads", NOON)
    for scope in (OTHER, GOOGLE, OVERALL):
        assert is_partial(shard, "1m", scope)
    begun = len(shard.written)
    shard.report("google_ads", NOON + 30)
    for scope in (OTHER, GOOGLE, OVERALL):
        assert not is_partial(shard, "1m", scope)
        assert is_partial(shard, "1h", scope)
    written = {key.decode() for key, _ in shard.written[begun:]}
    assert shard.key("1m", OTHER) in written
    assert shard.key("1d", OTHER) not in written


@pytest.mark.parametrize("is_restarted", [False, True])
def test_more_windows_than_can_be_published_at_a_time_follow_whoever_owns_them(
    is_restarted: bool,
) -> None:
    shard = MergeShard()
    facts = {"cost": 9, "cost_records": 1, "leads_gross": 1}
    campaigns = [Scope("google_ads", f"c{number}") for number in range(40)]
    minutes = range(NOON - 120, NOON)
    for scope in campaigns:
        places = (
            Place(PERIOD, "google_ads", str(scope.campaign_id), Grain.MINUTE, minute)
            for minute in minutes
        )
        shard.tell_all(dict.fromkeys(places, facts))
    shard.report("google_ads", NOON - 120)
    assert len(partial_keys(shard, "1m")) == 120 * (40 + 2)
    shard.apply(Reported("google_ads", NOON, 1))
    commits = 0
    while shard.merge.is_due() or not commits:
        begun = len(shard.written)
        shard.clock.advance(timedelta(seconds=1))
        shard.commit()
        commits += 1
        fixed = [key for key in keys(shard, begun) if b"|last_" not in key]
        assert len(fixed) <= MOST_AT_A_TIME
        if is_restarted and owes(shard):
            shard.restart()
    assert commits > 2
    assert not partial_keys(shard, "1m") + partial_keys(shard, "5m") + partial_keys(shard, "1h")
    assert not owes(shard)


def test_a_cost_row_taken_back_makes_windows_partial_again() -> None:
    shard = MergeShard()
    shard.count({"cost": 10, "cost_records": 1, "leads_gross": 1})
    shard.report("google_ads", NOON)
    shard.report("google_ads", NOON + 30)
    shard.report("google_ads", NOON + 30, -1)
    assert is_partial(shard, "1m", BRAND)


def test_lifetime_and_rolling_windows_are_whole_as_long_as_cost_is_known_until_now() -> None:
    shard = MergeShard()
    shard.complete(shard.clock.now_ms())
    shard.count({"cost": 10, "cost_records": 1, "leads_gross": 1})
    shard.report("google_ads", NOON - 1)
    for kind in ("lifetime", "last_1h", "last_28d"):
        assert is_partial(shard, kind, BRAND)
    shard.report("google_ads", NOON + 30)
    for kind in ("lifetime", "last_1h", "last_28d"):
        assert not is_partial(shard, kind, BRAND)


def owes(shard: MergeShard) -> bool:
    rows = shard.changelogs[TOPICS.changelog("windows")]
    return any(OWED.encode() in key for key in rows)


def partial_keys(shard: MergeShard, kind: str) -> list[str]:
    """Return the keys of all records of a kind of window whose cost is not known to its end."""
    return [
        key
        for key, record in shard.records().items()
        if f"|{kind}|" in key and "partial" in record["kpis"]["cpl"]
    ]


def is_partial(shard: MergeShard, kind: str, scope: Scope) -> bool:
    record = shard.record(kind, scope)
    assert record is not None
    return "partial" in record["kpis"]["cpl"]


def test_the_first_fact_of_a_channel_without_cost_changes_what_the_whole_knows() -> None:
    shard = MergeShard()
    shard.count({"cost": 10, "cost_records": 1, "leads_gross": 1})
    coverage = {"value": 1}
    for scope in (OVERALL, GOOGLE):
        record = shard.record("1m", scope)
        assert record is not None
        assert record["kpis"]["cost_coverage"] == coverage
    shard.count({"clicks": 1}, scope=META)
    record = shard.record("1m", OVERALL)
    assert record is not None
    assert record["kpis"]["cost_coverage"] == {"value": 0.5}
    assert record["kpis"]["cpl"]["partial"]
    assert shard.slots(OVERALL)["last_1h"].surroundings.covered == 1
    assert shard.slots(OVERALL)["last_1h"].surroundings.expected == 2


def test_a_lead_that_finds_its_channel_changes_the_unattributed_share_of_the_whole() -> None:
    shard = MergeShard()
    unknown, known = (
        Place(PERIOD, channel, "-", Grain.MINUTE, NOON) for channel in ("unattributed", "seo")
    )
    shard.tell_all({unknown: {"leads_gross": 2}})
    shard.tell_all({unknown: {"leads_gross": -1}, known: {"leads_gross": 1}})
    record = shard.record("1m", OVERALL)
    assert record is not None
    assert record["kpis"]["unattributed_share"]["value"] == 0.5


# ----------------------------------------------------------------------------- targets


def a_target(shard: MergeShard, period: str, kpi: str = "leads", value: int = 10) -> Target:
    calendar = shard.deployment.buckets.calendar
    day, month = calendar.day_start(NOON), calendar.month_start(NOON)
    start, end = {
        "month": (month, calendar.month_end(month)),
        "quarter": (calendar.quarter_start(NOON), calendar.month_end(month)),
        "day": (day, calendar.day_end(day)),
    }[period]
    return Target(kpi, period, start, end, value * 10**6)


def test_a_target_shows_once_it_is_set_and_no_longer_when_it_is_removed() -> None:
    shard = MergeShard()
    shard.count({"leads_gross": 4})
    shard.aim(BRAND, a_target(shard, "month"))
    assert attained(shard, NOON) == 0.4
    shard.aim(BRAND, a_target(shard, "month", value=8))
    assert attained(shard, NOON) == 0.5
    shard.restart()
    shard.count({"leads_gross": 4})
    assert attained(shard, NOON) == 1
    shard.aim(BRAND, None)
    assert attained(shard, NOON) is None


def test_pacing_moves_with_the_minutes() -> None:
    shard = MergeShard()
    shard.count({"leads_gross": 4})
    shard.aim(BRAND, a_target(shard, "day", value=8))
    shard.complete(NOON * MINUTE_MS)
    shard.advance(minutes=1)
    assert pacing(shard) == 1
    shard.until_ms = (NOON + 6 * HOUR) * MINUTE_MS
    shard.apply()
    shard.advance(hours=6)
    assert pacing(shard) == 0.666667


def pacing(shard: MergeShard) -> float | None:
    value: float | None = shard.records()[shard.key("1d")]["kpis"]["pacing.leads"]["value"]
    return value


def attained(shard: MergeShard, minute: int) -> float | None:
    kpis = shard.records()[shard.key("1mo", minute=minute)]["kpis"]
    value: float | None = kpis.get("target_attainment.leads", {}).get("value")
    return value


def test_a_late_event_counts_in_the_later_months_of_its_quarter() -> None:
    shard = MergeShard()
    january, february = NOON - 50 * DAY, NOON - 20 * DAY
    shard.aim(BRAND, a_target(shard, "quarter"))
    shard.count({"leads_gross": 1}, NOON)
    shard.count({"leads_gross": 1}, february, grain=Grain.HOUR)
    assert [attained(shard, month) for month in (february, NOON)] == [0.1, 0.2]
    shard.count({"leads_gross": 2}, january, grain=Grain.DAY)
    assert [attained(shard, month) for month in (january, february, NOON)] == [0.2, 0.3, 0.4]


# ----------------------------------------------------------------------------- visitors and limits


def test_visitors_count_in_days_and_coarser_and_known_ones_write_nothing() -> None:
    shard = MergeShard()
    shard.visit("a", "b")
    assert {key.decode().split("|")[1] for key, _ in shard.written} == {
        *("1d", "1w", "1mo", "lifetime", "last_28d"),
    }
    shard.visit("b", "c", minute=NOON - DAY)
    records = shard.records()
    assert records[shard.key("1w")]["facts"] == {"visitors": 3}
    begun = len(shard.written)
    shard.visit("a")
    assert shard.written[begun:] == []


def test_campaigns_beyond_the_limit_are_counted_in_their_channel_only() -> None:
    shard = MergeShard(load({"LEADPULSE_CONFIG": "", "LEADPULSE_LIMITS_SCOPES": "1"}))
    shard.count({"leads_gross": 1})
    shard.count({"leads": 1}, basis=COHORT)
    for _ in range(2):
        shard.count({"leads_gross": 1}, scope=OTHER)
    assert shard.record("1d", OTHER) is None
    assert shard.record("1d", BRAND, basis=COHORT) is not None
    record = shard.record("1d", GOOGLE)
    assert record is not None
    assert record["facts"]["leads"] == 3
    assert shard.tally.take()._overflow == 1


def test_quiet_time_writes_nothing_that_did_not_move() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1}, NOON - 2 * HOUR)
    shard.publish()
    begun = len(shard.written)
    shard.advance(minutes=1)
    shard.publish()
    assert keys(shard, begun) == {LIFETIME_OF_ALL}


def test_the_whole_says_up_to_when_it_is_complete_each_minute_where_nothing_happens() -> None:
    shard = MergeShard()
    shard.count({"clicks": 1})
    ages = []
    for _ in range(3 * HOUR):
        now_ms = shard.clock.now_ms()
        shard.complete(now_ms)
        shard.advance(minutes=1)
        shown = shard.slots(OVERALL).values()
        ages.append(now_ms - max(values.complete_until_ms or 0 for values in shown))
    assert max(ages) <= 2 * MINUTE_MS
