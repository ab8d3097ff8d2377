"""Up to when the cost of a channel is known, whatever order rows come and go in."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from kpis.coverage import CostReports
from tests.examples import A_PROPERTY

CHANNELS = ("google_ads", "meta_ads")

changes_of_rows = st.lists(
    st.tuples(st.sampled_from(CHANNELS), st.integers(0, 6), st.sampled_from((-2, -1, 1, 2))),
    max_size=60,
)


@given(changes_of_rows, st.booleans())
def test_the_greatest_minute_with_a_live_row_counts(
    changes: list[tuple[str, int, int]], asked_always: bool
) -> None:
    reports, counts = CostReports(), Counter[tuple[str, int]]()
    for channel, minute, count in changes:
        counts[channel, minute] += count
        assert reports.add(channel, minute, count) == counts[channel, minute]
        if asked_always:
            assert reports.complete_until_minute(channel) == greatest(counts, channel)
    for channel in CHANNELS:
        assert reports.complete_until_minute(channel) == greatest(counts, channel)


@given(changes_of_rows, st.randoms())
@A_PROPERTY
def test_any_order_of_messages_gives_the_same_reports(
    changes: list[tuple[str, int, int]], random: Random
) -> None:
    again = list(changes)
    random.shuffle(again)
    assert told(reports_of(again)) == told(reports_of(changes))


@given(changes_of_rows)
def test_stored_rows_restore_the_reports(changes: list[tuple[str, int, int]]) -> None:
    reports = reports_of(changes)
    assert told(reports_of(list(reports.items()))) == told(reports)
    assert all(count for _, _, count in reports.items())


def test_a_row_may_be_taken_away_before_it_was_added() -> None:
    reports = CostReports()
    reports.add("google_ads", 5, -1)
    assert reports.complete_until_minute("google_ads") is None
    reports.add("google_ads", 5, 1)
    reports.add("google_ads", 6, 1)
    assert reports.complete_until_minute("google_ads") == 6
    assert list(reports.items()) == [("google_ads", 6, 1)]


def test_minutes_that_come_and_go_unasked_are_not_kept() -> None:
    reports = CostReports()
    reports.add("google_ads", 0, 1)
    for minute in range(1, 10_000):
        reports.add("google_ads", minute, 1)
        reports.add("google_ads", minute, -1)
    assert sum(len(minutes) for minutes in reports._latest.values()) < 100
    assert reports.complete_until_minute("google_ads") == 0


def test_all_channels_are_known_up_to_the_smallest_of_them() -> None:
    reports = reports_of([("google_ads", 5, 1), ("meta_ads", 3, 2)])
    assert reports.all_complete_until_minute(CHANNELS) == 3
    assert reports.all_complete_until_minute(("google_ads",)) == 5
    assert reports.all_complete_until_minute((*CHANNELS, "linkedin_ads")) is None
    assert reports.all_complete_until_minute(()) is None


def reports_of(changes: list[tuple[str, int, int]]) -> CostReports:
    reports = CostReports()
    for change in changes:
        reports.add(*change)
    return reports


def told(reports: CostReports) -> tuple[object, ...]:
    until = [reports.complete_until_minute(channel) for channel in CHANNELS]
    return until, list(reports.items())


def greatest(counts: Counter[tuple[str, int]], channel: str) -> int | None:
    return max(
        (minute for (name, minute), count in counts.items() if name == channel and count > 0),
        default=None,
    )
