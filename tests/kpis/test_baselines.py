"""What is usual: the same hours of earlier weeks, also where the clock changes."""

from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.baselines import (
    LAST_DAYS,
    SAME_HOURS,
    Baselines,
    days_before,
    hours_of,
    runs_of,
    same_hours,
)
from kpis.calendar import Calendar
from kpis.facts import Scope
from kpis.sight import Sight
from tests.kpis.alert_worlds import PARIS, World, minute
from tests.kpis.zones import CALENDARS, MINUTES, ZONES

GOOGLE = Scope("google_ads", "brand")
NOON = minute("2026-06-30T12:30:00+02:00")
WEEK = 7 * 24 * 60


def clock(calendar: Calendar, at: int) -> str:
    return datetime.fromtimestamp(at * 60, calendar.zone).strftime("%a %H:%M")


@given(
    st.sampled_from(ZONES),
    MINUTES,
    st.sampled_from(["last_1h", "last_6h", "last_24h"]),
    st.integers(1, 4),
)
def test_earlier_hours_are_whole_and_never_reach_into_the_present(
    zone: str, at: int, kind: str, back: int
) -> None:
    calendar = CALENDARS[zone]
    run = hours_of(calendar, kind, at)
    head, tail = same_hours(calendar, run, back)
    assert head.start <= head.end == tail.start < tail.end <= run.start
    for edge in (run.start, head.start, tail.start):
        assert calendar.hour_start(edge) == edge
    assert calendar.hour_start(at) < run.end
    assert days_before(calendar, run).end == run.start


@pytest.mark.parametrize("back", [1, 2, 3, 4])
def test_weeks_are_counted_on_the_local_clock_across_a_change(back: int) -> None:
    for now in ("2026-04-02T09:30:00+02:00", "2026-10-28T09:30:00+01:00"):
        run = hours_of(PARIS, "last_6h", minute(now))
        head, tail = same_hours(PARIS, run, back)
        assert (clock(PARIS, head.start), clock(PARIS, tail.start)) == (
            clock(PARIS, run.start),
            clock(PARIS, minute(now) - 30),
        )


def test_the_hour_that_the_clock_left_out_is_the_next_one_and_of_two_it_is_the_first() -> None:
    after_spring = hours_of(PARIS, "last_1h", minute("2026-04-05T03:00:00+02:00"))
    head, tail = same_hours(PARIS, after_spring, 1)
    assert (clock(PARIS, head.start), clock(PARIS, tail.start)) == ("Sun 03:00", "Sun 03:00")
    after_autumn = hours_of(PARIS, "last_1h", minute("2026-11-01T02:59:00+01:00"))
    head, tail = same_hours(PARIS, after_autumn, 1)
    assert tail.start == minute("2026-10-25T02:00:00+02:00")
    assert tail.end == minute("2026-10-25T02:00:00+01:00")


@given(st.sampled_from(ZONES), MINUTES)
def test_a_baseline_is_looked_up_day_by_day(zone: str, at: int) -> None:
    calendar = CALENDARS[zone]
    days = runs_of(calendar, LAST_DAYS, "last_24h", at)
    assert 6 <= len(days) <= 8
    for one, following in pairwise(days):
        assert one.end == following.start == calendar.day_start(following.start)
    for kind in ("last_1h", "last_24h"):
        assert 4 <= len(runs_of(calendar, SAME_HOURS, kind, at)) <= 8


def test_only_the_same_hours_of_four_weeks_are_summed() -> None:
    world = World()
    for back in range(1, 6):
        for hour in (10, 11, 12, 13):
            at = minute(f"2026-06-30T{hour}:10:00+02:00") - back * WEEK
            world.add(GOOGLE, at, cost=10 ** (hour - 10), leads=1)
    world.add(GOOGLE, NOON - 5, cost=1, leads=50)
    found = Baselines(world.outlook()).same_hours(GOOGLE, "last_1h", NOON, 0.9)
    assert (found.cost, found.leads) == (4 * 110 * 10**6, 8)


def test_a_week_without_its_cost_is_left_out_with_its_leads() -> None:
    world = World()
    world.add(GOOGLE, NOON - WEEK, cost=100, leads=5)
    world.add(GOOGLE, NOON - 2 * WEEK, leads=7)
    found = Baselines(world.outlook())
    assert found.same_hours(GOOGLE, "last_1h", NOON, 0.9).leads == 5
    assert found.same_hours(GOOGLE, "last_1h", NOON, 0.0).leads == 12


def test_leads_of_hours_without_spend_count_on_days_with_cost() -> None:
    world = World()
    first = minute("2026-05-30T00:00:00+02:00")
    for day in range(31):
        for hour in range(8, 24):
            cost = 50 if hour < 20 else None
            world.add(GOOGLE, first + day * 1440 + hour * 60, cost=cost, leads=4)
    evening = minute("2026-06-29T20:30:00+02:00")
    found = Baselines(world.outlook())
    week = found.same_hours(GOOGLE, "last_24h", evening, 0.9)
    # From 20 h to 21 h of the next day: 17 hours with leads, 12 with cost.
    assert (week.leads, week.cost) == (4 * 17 * 4, 4 * 12 * 50 * 10**6)
    days = found.last_days(GOOGLE, evening, 0.9)
    assert (days.leads, days.cost) == (7 * 16 * 4, 7 * 12 * 50 * 10**6)


def test_what_is_expected_is_by_the_minutes_that_a_clock_change_left() -> None:
    # Ten leads an hour, day and night.
    world = World()
    for at in range(minute("2026-09-20T00:00:00+02:00"), minute("2026-10-27T00:00:00+01:00"), 6):
        world.add(GOOGLE, at, cost=1, leads=1)
    outlook, found = world.outlook(), Baselines(world.outlook())
    for text in ("2026-10-25T02:30:00+01:00", "2026-10-25T12:30:00+01:00"):
        at = minute(text)
        sight = Sight(GOOGLE, at, outlook, world.spans, found)
        for kind in ("last_1h", "last_6h", "last_24h"):
            seen = at + 1 - (sight.window(kind).start_minute or 0)
            expected = sight.expected(kind, lambda facts: facts["leads_gross"])
            assert expected == pytest.approx(seen / 6, rel=0.03), (text, kind)


def test_the_last_days_end_where_the_last_24_hours_begin() -> None:
    world = World()
    start = minute("2026-06-29T12:00:00+02:00")
    for at in (start - WEEK - 1, start - WEEK, start - 1, start):
        world.add(GOOGLE, at, cost=1, leads=1)
    assert Baselines(world.outlook()).last_days(GOOGLE, NOON, 0.9).leads == 2


def test_weeks_before_the_first_fact_of_a_scope_say_nothing_of_it() -> None:
    world = World()
    world.add(GOOGLE, NOON - 2 * WEEK - 600, leads=1)
    found = Baselines(world.outlook())
    assert len(found.weeks(GOOGLE, "last_1h", NOON)) == 2
    assert found.weeks(Scope("meta_ads", "none"), "last_1h", NOON) == ()


def test_what_is_usual_is_looked_up_once_an_hour() -> None:
    world = World()
    world.add(GOOGLE, NOON - WEEK, cost=1, leads=1)
    found = Baselines(world.outlook())
    assert found.same_hours(GOOGLE, "last_1h", NOON, 0.9).leads == 1
    world.add(GOOGLE, NOON - WEEK, cost=1, leads=1)
    leads = [found.same_hours(GOOGLE, "last_1h", at, 0.9).leads for at in (NOON + 29, NOON + 30)]
    assert leads == [1, 2]
    assert all(early <= late for early, late in pairwise(leads))
