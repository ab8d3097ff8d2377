"""What the KPIs of a window need beside its facts: other channels, other days, how far cost is known."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import pytest

from kpis.calendar import MINUTE_MS
from kpis.catalog import Surroundings
from kpis.facts import COHORT, OVERALL, PERIOD, Scope, Subject
from kpis.fold import HORIZON_MS, FoldResult
from kpis.spans import LIFETIME_WINDOW, Window
from kpis.surroundings import is_reached
from tests.kpis.streams_of_records import DAY_MS, HOUR_MS, Record, fold_of, ms, record

NOON_MS = ms("2026-03-20T12:00:00+01:00")
NOON = NOON_MS // MINUTE_MS
MIDNIGHT_MS = ms("2026-03-21T00:00:00+01:00")
WHOLE = Subject(PERIOD, OVERALL)
LEADS = Subject(COHORT, OVERALL)


def expects_cost(channel: str) -> bool:
    return channel.endswith("_ads")


def around(
    result: FoldResult, subject: Subject, window: Window, complete_until_ms: int | None
) -> Surroundings:
    return result.outlook(expects_cost, HORIZON_MS).surroundings(subject, window, complete_until_ms)


def a_lead(channel: str | None, day: int = 0) -> Record:
    at_ms = NOON_MS + day * DAY_MS
    return record("leads", "lead.created", at_ms, lead_id=f"{channel}{day}", channel=channel)


def a_sale(lead_id: str, day: int) -> Record:
    fields: dict[str, Any] = {"sale_id": f"of {lead_id}", "amount": "1", "currency": "EUR"}
    return record("sales", "sale.created", NOON_MS + day * DAY_MS, lead_id=lead_id, **fields)


def a_cost(channel: str, until: str = "2026-03-20T12:00:00+01:00") -> Record:
    return record(
        "costs",
        "cost.snapshot",
        NOON_MS,
        cost_source="ads",
        channel=channel,
        period_start="2026-03-20T00:00:00+01:00",
        period_end="2026-03-21T00:00:00+01:00",
        as_of=until,
        reported_at=until,
        amount="10",
        currency="EUR",
    )


def the_day(result: FoldResult, day: int = 0) -> Window:
    return result.spans.tumbling("1d", NOON + day * 24 * 60)


# ----------------------------------------------------------------------------- coverage


def coverage_of(records: Iterable[Record], subject: Subject) -> tuple[int, int]:
    result = fold_of(list(records))
    found = around(result, subject, the_day(result), None)
    return found.expected, found.covered


def test_of_the_whole_those_channels_expect_cost_that_have_any_fact_in_the_window() -> None:
    records = [a_lead("google_ads"), a_lead("meta_ads", 1), a_lead("seo"), a_cost("google_ads")]
    assert coverage_of(records, WHOLE) == (1, 1)
    assert coverage_of([*records, a_lead("bing_ads")], WHOLE) == (2, 1)
    assert coverage_of([a_lead("seo")], WHOLE) == (0, 0)


def test_a_channel_or_campaign_only_looks_at_its_own_facts() -> None:
    records = [a_lead("google_ads"), a_lead("meta_ads"), a_cost("google_ads")]
    assert coverage_of(records, Subject(PERIOD, Scope("google_ads", None))) == (1, 1)
    assert coverage_of(records, Subject(COHORT, Scope("meta_ads", "-"))) == (1, 0)
    assert coverage_of(records, Subject(PERIOD, Scope("seo", None))) == (0, 0)
    assert coverage_of(records, Subject(PERIOD, Scope("google_ads", "other"))) == (0, 0)


# ----------------------------------------------------------------------------- how far cost is known


def is_known(records: Iterable[Record], kind: str, complete_until_ms: int | None) -> bool:
    result = fold_of(list(records))
    window = (
        LIFETIME_WINDOW
        if kind == "lifetime"
        else result.spans.rolling(kind, NOON)
        if kind.startswith("last_")
        else result.spans.tumbling(kind, NOON - 1)
    )
    return around(result, WHOLE, window, complete_until_ms).cost_until_reached


def test_a_window_that_ends_after_the_last_report_has_cost_to_come() -> None:
    records = [a_lead("google_ads"), a_cost("google_ads")]
    assert is_known(records, "1h", None)
    assert not is_known(records, "1d", None)


@pytest.mark.parametrize("kind", ["lifetime", "last_1h", "last_28d"])
def test_a_window_without_an_end_reaches_to_what_is_complete(kind: str) -> None:
    records = [a_lead("google_ads"), a_cost("google_ads")]
    assert is_known(records, kind, None)
    assert is_known(records, kind, NOON_MS)
    assert not is_known(records, kind, NOON_MS + 1)


def test_the_channel_that_reported_first_decides_unless_it_has_no_fact_or_expects_no_cost() -> None:
    early = "2026-03-20T06:00:00+01:00"
    late = a_cost("google_ads")
    assert not is_known([late, a_cost("meta_ads", early)], "1d", None)
    assert not is_known([late, a_cost("meta_ads", early)], "last_1h", NOON_MS + HOUR_MS)
    # The hour before noon: meta_ads has no fact there, and seo need not have any cost.
    assert is_known([late, a_cost("meta_ads", early)], "1h", None)
    assert is_known([late, a_cost("seo", early)], "last_28d", NOON_MS)
    assert not is_known([late, a_cost("meta_ads", early)], "last_28d", NOON_MS)


def test_where_no_cost_was_ever_reported_none_is_to_come() -> None:
    assert is_known([a_lead("google_ads")], "1d", None)
    assert is_reached(Window("1d", NOON, NOON + 1440), None, None)


# ----------------------------------------------------------------------------- maturity


def mature_of(records: Iterable[Record], kind: str, complete_until_ms: int) -> tuple[int, int]:
    result = fold_of(list(records))
    window = (
        LIFETIME_WINDOW
        if kind == "lifetime"
        else result.spans.rolling(kind, NOON)
        if kind.startswith("last_")
        else result.spans.tumbling(kind, NOON)
    )
    found = around(result, LEADS, window, complete_until_ms)
    return found.mature_leads, found.mature_converted


@pytest.mark.parametrize("kind", ["1d", "1w", "1mo", "lifetime", "last_28d"])
def test_a_day_is_mature_once_its_end_is_the_horizon_ago(kind: str) -> None:
    records = [a_lead("seo"), a_lead("google_ads"), a_sale("seo0", 29), a_sale("google_ads0", 31)]
    assert mature_of(records, kind, MIDNIGHT_MS + HORIZON_MS - 1) == (0, 0)
    assert mature_of(records, kind, MIDNIGHT_MS + HORIZON_MS) == (2, 1)


def test_of_longer_windows_only_the_days_that_are_old_enough_are_mature() -> None:
    records = [a_lead("seo"), a_lead("seo", 1), a_lead("seo", 40)]
    for kind in ("1w", "1mo", "lifetime"):
        assert mature_of(records, kind, MIDNIGHT_MS + HORIZON_MS) == (1, 0)
    assert mature_of(records, "lifetime", MIDNIGHT_MS + HORIZON_MS + DAY_MS) == (2, 0)


@pytest.mark.parametrize("kind", ["1m", "5m", "1h", "last_1h", "last_24h", "last_7d"])
def test_windows_that_are_no_whole_days_have_nothing_mature(kind: str) -> None:
    assert mature_of([a_lead("seo")], kind, MIDNIGHT_MS + 2 * HORIZON_MS) == (0, 0)


def test_nothing_is_mature_in_the_period_basis_or_while_nothing_is_complete() -> None:
    result = fold_of([a_lead("seo")])
    late_ms = MIDNIGHT_MS + HORIZON_MS
    assert around(result, WHOLE, the_day(result), late_ms).mature_leads == 0
    assert around(result, LEADS, the_day(result), None).mature_leads == 0


# ----------------------------------------------------------------------------- the rest


def test_unattributed_leads_are_told_of_the_whole_only() -> None:
    result = fold_of([a_lead(None), a_lead("seo")])
    assert around(result, WHOLE, the_day(result), None).unattributed_leads == 1
    channel = Subject(PERIOD, Scope("unattributed", None))
    assert around(result, channel, the_day(result), None).unattributed_leads == 0


def a_target(period: str, start: str) -> Record:
    fields: dict[str, Any] = {"period": period, "period_start": start}
    fields["reported_at"] = "2026-03-01T00:00:00Z"
    return record("targets", "target.set", NOON_MS, kpi="leads", value=8, **fields)


def test_a_target_of_the_window_is_compared_with_its_own_facts() -> None:
    result = fold_of([a_lead("seo"), a_target("day", "2026-03-20")])
    (progress,) = around(result, WHOLE, the_day(result), NOON_MS).targets
    assert (progress.elapsed, progress.facts) == (Fraction(1, 2), None)
    assert around(result, LEADS, the_day(result), NOON_MS).targets == ()
    assert around(result, WHOLE, the_day(result, 1), NOON_MS).targets == ()


def test_a_target_of_a_quarter_is_compared_with_all_since_the_quarter_began() -> None:
    records = [a_lead("seo", day) for day in (-60, -30, 0, 30)]
    result = fold_of([*records, a_lead("google_ads", -30), a_target("quarter", "2026-01-01")])
    march = result.spans.tumbling("1mo", NOON)
    (progress,) = around(result, WHOLE, march, NOON_MS).targets
    assert progress.facts is not None
    assert progress.facts["leads_gross"] == 4
    assert progress.surroundings == Surroundings(expected=1, is_overall=True)
