from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.catalog import COST_MISSING, NO_SURROUNDINGS, Progress, Surroundings, Undefined, Value
from kpis.facts import COHORT, PERIOD, Facts
from kpis.money import MICROS, scaled_quotient
from kpis.spans import LIFETIME_WINDOW, Window
from kpis.targets import (
    BUSINESS_DAYS,
    LINEAR,
    Target,
    Targets,
    elapsed_share,
    is_shown_in,
    windows_of,
)
from tests.kpis.numbers import CATALOG
from tests.kpis.zones import CALENDARS, minute

PARIS = CALENDARS["Europe/Paris"]


def at(text: str) -> int:
    """Return the first minute of a local day of Paris."""
    hours = 2 if "2026-03-29" < text < "2026-10-26" else 1
    return minute(f"{text}T00:00:00+0{hours}:00")


MONTH = Window("1mo", at("2026-03-01"), at("2026-04-01"))
QUARTER = (at("2026-01-01"), at("2026-04-01"))


def a_target(
    kpi: str = "leads", value: int = 100, period: str = "month", profile: str = LINEAR
) -> Target:
    start, end = {
        "day": (at("2026-03-09"), at("2026-03-10")),
        "week": (at("2026-03-09"), at("2026-03-16")),
        "month": MONTH[1:],
        "quarter": QUARTER,
    }[period]
    assert start is not None
    assert end is not None
    return Target(kpi, period, start, end, value * MICROS, profile)


def key_of(target: Target) -> tuple[str, ...]:
    return target.kpi, target.period, str(target.start_minute)


def targets_of(*targets: Target) -> Targets:
    several = Targets()
    for target in targets:
        several.put(key_of(target), target)
    return several


def evaluated(
    target: Target,
    facts: Facts,
    elapsed: Fraction = Fraction(1),
    around: Surroundings = NO_SURROUNDINGS,
) -> dict[str, Value]:
    """Return what the target adds to the KPIs of a window."""
    values = CATALOG.evaluate(PERIOD, facts, around._replace(targets=(Progress(target, elapsed),)))
    return {name: value for name, value in values.items() if name.endswith(f".{target.kpi}")}


# ----------------------------------------------------------------------------- windows


@pytest.mark.parametrize(("period", "kind"), [("day", "1d"), ("week", "1w"), ("month", "1mo")])
def test_a_target_shows_in_the_window_that_is_its_period(period: str, kind: str) -> None:
    target = a_target(period=period)
    window = Window(kind, target.start_minute, target.end_minute)

    assert targets_of(target).shown_in(window) == (target,)
    assert windows_of(target, PARIS) == (window,)
    assert not is_shown_in(target, Window(kind, target.end_minute, target.end_minute + 1440))
    assert not is_shown_in(target, Window("1h", target.start_minute, target.start_minute + 60))
    assert not is_shown_in(target, LIFETIME_WINDOW)


def test_the_target_of_a_quarter_shows_in_its_months() -> None:
    target = a_target(period="quarter")

    months = windows_of(target, PARIS)

    assert [month.start_minute for month in months] == [
        at("2026-01-01"), at("2026-02-01"), at("2026-03-01"),
    ]  # fmt: skip
    assert all(targets_of(target).shown_in(month) == (target,) for month in months)
    assert months[-1].end_minute == target.end_minute
    assert not is_shown_in(target, Window("1mo", at("2026-04-01"), at("2026-05-01")))


def test_a_months_own_target_takes_the_place_of_the_quarters() -> None:
    month, quarter = a_target(value=40), a_target(period="quarter")
    other = a_target("sales", period="quarter")
    several = targets_of(month, quarter, other)

    assert several.shown_in(MONTH) == (month, other)
    several.put(key_of(month), None)
    assert several.shown_in(MONTH) == (quarter, other)


def test_a_target_is_replaced_and_removed_by_its_key() -> None:
    several = targets_of(a_target(value=1))
    key = key_of(a_target())

    several.put(key, a_target(value=2))
    assert several.get(key) == a_target(value=2)
    several.put(key, None)
    several.put(key, None)
    assert several.get(key) is None
    assert not several
    assert several.shown_in(MONTH) == ()


# ----------------------------------------------------------------------------- elapsed


def test_time_passes_evenly_over_a_month_of_which_an_hour_is_missing() -> None:
    # March 2026 has 743 hours in Paris.
    target = a_target()

    def share(text: str) -> Fraction:
        return elapsed_share(target, MONTH, minute(text) * 60_000, PARIS)

    assert share("2026-02-20T00:00:00Z") == 0
    assert share("2026-03-02T00:00:00+01:00") == Fraction(24, 743)
    assert share("2026-03-30T00:00:00+02:00") == Fraction(743 - 48, 743)
    assert share("2026-05-01T00:00:00Z") == 1
    assert elapsed_share(target, MONTH, None, PARIS) == 0


def test_weekends_do_not_count_in_business_days() -> None:
    # Monday the 9th is day 6 of the 22 business days of March 2026.
    target = a_target(profile=BUSINESS_DAYS)

    def share(text: str) -> Fraction:
        return elapsed_share(target, MONTH, minute(text) * 60_000, PARIS)

    assert share("2026-03-06T12:00:00+01:00") == Fraction(9, 2 * 22)
    assert share("2026-03-07T00:00:00+01:00") == share("2026-03-08T23:59:00+01:00")
    assert share("2026-03-09T00:00:00+01:00") == Fraction(5, 22)
    assert share("2026-03-09T06:00:00+01:00") == Fraction(21, 4 * 22)
    assert share("2026-04-01T00:00:00+02:00") == 1


def test_a_sunday_has_no_business_day_to_begin_with() -> None:
    sunday = Target("leads", "day", at("2026-03-08"), at("2026-03-09"), MICROS, BUSINESS_DAYS)
    window = Window("1d", sunday.start_minute, sunday.end_minute)
    later_ms = at("2026-03-20") * 60_000

    assert elapsed_share(sunday, window, later_ms, PARIS) == 0
    assert evaluated(sunday, {"leads_gross": 3}, Fraction(0))["pacing.leads"] == Undefined(
        "no_target"
    )


def test_a_month_that_is_over_has_the_share_of_its_end_of_a_quarters_target() -> None:
    target = a_target(period="quarter")
    january = Window("1mo", at("2026-01-01"), at("2026-02-01"))
    now_ms = at("2026-03-15") * 60_000

    # A quarter of 90 days, less the hour of March.
    assert elapsed_share(target, january, now_ms, PARIS) == Fraction(31 * 24, 90 * 24 - 1)


@given(
    profile=st.sampled_from((LINEAR, BUSINESS_DAYS)),
    zone=st.sampled_from(sorted(CALENDARS)),
    minutes=st.lists(st.integers(-5_000, 60_000), min_size=2, max_size=2).map(sorted),
)
def test_the_share_never_falls_and_ends_at_the_whole(
    profile: str, zone: str, minutes: list[int]
) -> None:
    calendar = CALENDARS[zone]
    start = calendar.month_start(minute("2026-03-15T00:00:00Z"))
    end = calendar.month_end(start)
    target = Target("leads", "month", start, end, MICROS, profile)

    def share(after: int) -> Fraction:
        until_ms = (start + after) * 60_000
        return elapsed_share(target, Window("1mo", start, end), until_ms, calendar)

    earlier, later = map(share, minutes)
    assert 0 <= earlier <= later <= 1
    assert share(0) == 0
    assert share(end - start) == 1


# ----------------------------------------------------------------------------- values


def test_a_fact_attains_a_part_of_its_target_and_keeps_a_pace() -> None:
    values = evaluated(a_target(value=100), {"leads_gross": 30}, Fraction(1, 4))

    assert values == {"target_attainment.leads": 300_000, "pacing.leads": 1_200_000}


def test_targets_of_money_are_in_the_currency() -> None:
    facts = {"revenue_gross": 300 * MICROS, "refunds": 100 * MICROS}
    values = evaluated(a_target("revenue_net", 400), facts, Fraction(1, 2))

    assert values == {
        "target_attainment.revenue_net": 500_000,
        "pacing.revenue_net": 1_000_000,
    }


def test_a_kpi_has_an_attainment_but_no_pace() -> None:
    facts = {"cost": 90 * MICROS, "cost_records": 1, "leads_gross": 3}

    assert evaluated(a_target("cpl", 20), facts) == {"target_attainment.cpl": 1_500_000}


def test_a_kpi_is_compared_exactly_not_as_it_is_rounded() -> None:
    # 2 / 3 of a euro, against a target of one millionth of it.
    target = Target("cpl", "month", *QUARTER, 1)
    facts = {"cost": 2, "cost_records": 1, "leads_gross": 3}

    assert evaluated(target, facts)["target_attainment.cpl"] == 666_667


def test_the_median_cycle_may_have_a_target() -> None:
    values = evaluated(
        a_target("purchase_cycle_p50", 2), {"cycle_histogram.40": 1, "cycle_count": 1}
    )

    assert values == {"target_attainment.purchase_cycle_p50": 20_000}


def test_while_nothing_has_elapsed_there_is_no_pace() -> None:
    values = evaluated(a_target(), {"leads_gross": 1}, Fraction(0))

    assert values["pacing.leads"] == Undefined("no_target")
    assert values["target_attainment.leads"] == 10_000


def test_what_is_undefined_attains_nothing_for_the_same_reason() -> None:
    assert evaluated(a_target("cpl"), {"cost": 5}) == {
        "target_attainment.cpl": Undefined("no_leads")
    }
    unknown = evaluated(a_target("cost"), {"clicks": 1}, around=Surroundings(expected=1))
    assert unknown == {"target_attainment.cost": COST_MISSING, "pacing.cost": COST_MISSING}


def test_nothing_yet_is_none_of_the_target() -> None:
    assert evaluated(a_target("stage_entered.mql"), {"clicks": 1}) == {
        "target_attainment.stage_entered.mql": 0,
        "pacing.stage_entered.mql": 0,
    }


def test_a_target_of_something_else_has_no_kpi() -> None:
    assert evaluated(a_target("mood"), {"clicks": 1}) == {}
    assert evaluated(a_target("unattributed_share"), {"leads_gross": 1}) == {}


def test_targets_are_about_the_period_basis() -> None:
    around = Surroundings(targets=(Progress(a_target(), Fraction(1)),))

    assert not any("." in name for name in CATALOG.evaluate(COHORT, {"leads": 1}, around)
                   if not name.startswith("stage_"))  # fmt: skip


def test_a_quarters_target_is_told_with_the_facts_of_its_span() -> None:
    span = {"cost": 100 * MICROS, "cost_records": 1, "leads_gross": 10}
    around = Surroundings(expected=2, covered=2)
    progress = Progress(a_target("cpl", 20, "quarter"), Fraction(1), span, around)
    month = {"clicks": 1}

    values = CATALOG.evaluate(PERIOD, month, Surroundings(expected=1, targets=(progress,)))

    assert values["cpl"] == COST_MISSING
    assert values["target_attainment.cpl"] == 500_000


def test_the_kpis_of_a_target_are_partial_if_what_it_is_about_is() -> None:
    targets = tuple(Progress(a_target(kpi), Fraction(1)) for kpi in ("cost", "cpl", "leads"))
    around = Surroundings(expected=2, covered=1, targets=targets)
    facts = {"cost": 5, "cost_records": 1, "leads_gross": 1}

    partial = CATALOG.partial(PERIOD, facts, around)

    assert {"target_attainment.cost", "pacing.cost", "target_attainment.cpl"} <= partial
    assert not {"target_attainment.leads", "pacing.leads"} & partial
    whole = Progress(a_target("cost"), Fraction(1), facts, Surroundings(expected=1, covered=1))
    around = around._replace(targets=(whole,))
    assert "pacing.cost" not in CATALOG.partial(PERIOD, facts, around)


@given(
    leads=st.integers(0, 10**9),
    target=st.integers(1, 10**12),
    elapsed=st.fractions(0, 1, max_denominator=10**6),
)
def test_pace_is_attainment_over_what_has_elapsed(
    leads: int, target: int, elapsed: Fraction
) -> None:
    aim = Target("leads", "month", *QUARTER, target)

    values = evaluated(aim, {"leads_gross": leads}, elapsed)

    assert values["target_attainment.leads"] == scaled_quotient(leads * MICROS, target)
    if elapsed:
        exact = Fraction(leads * MICROS, target) / elapsed
        assert values["pacing.leads"] == round(exact * MICROS)
