"""Sums as of a past minute, against those of the cells they come from."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.calendar import MINUTE_MS, Calendar
from kpis.facts import OVERALL, PERIOD, Facts, Scope, Subject, add
from kpis.fold import FoldResult
from kpis.histogram import FACT
from kpis.history import History
from kpis.retention import Buckets, Grain, Retention
from kpis.spans import DAYS, LIFETIME_WINDOW, Window
from tests.examples import examples
from tests.kpis.streams_of_records import LORD_HOWE, PARIS, Record, any_records, fold_of, ms, record

SHORT = Retention(minutes=300, hours=12_000, days=60_000)
MINUTES_KEPT = Retention(minutes=10**7, hours=10**7, days=10**7)
ALL = Subject(PERIOD, OVERALL)
GOOGLE = Subject(PERIOD, Scope("google_ads", None))
TEN = ms("2026-03-29T10:00:00+02:00") // MINUTE_MS

A_LAW = examples(20)
zones = st.sampled_from((PARIS, LORD_HOWE))


def history_of(result: FoldResult, zone: ZoneInfo, retention: Retention) -> History:
    """Return the history of a result, which keeps its cells."""
    cells = {subject: dict(by_grain) for subject, by_grain in result.cells.items()}
    return History(cells, Buckets(Calendar(zone), retention), result.newest_minute or 0)


def plain(facts: Facts) -> Facts:
    return {
        name: fact
        for name, fact in facts.items()
        if name != "visitors" and not name.startswith(FACT)
    }


@given(any_records(), zones, st.sampled_from((SHORT, MINUTES_KEPT)))
@A_LAW
def test_any_window_that_is_kept_holds_at_last_what_its_cells_say(
    records: list[Record], zone: ZoneInfo, retention: Retention
) -> None:
    result = fold_of(records, zone, retention)
    newest = result.newest_minute or 0
    history = history_of(result, zone, retention)
    # Of what happens ahead of the newest minute nothing is left out here.
    history.minute = newest + 10**6
    for slot in result.spans.slots(newest):
        if slot.window.start_minute is None or not result.spans.is_kept(slot.window, newest):
            continue
        for subject in result.subjects:
            if subject.basis == PERIOD:
                expected = plain(result.facts(subject, slot.window))
                assert history.facts(subject, slot.window) == expected, slot.name


@given(any_records(), zones, st.integers(0, 3000), st.integers(0, 3000))
@A_LAW
def test_any_window_as_of_any_minute_is_the_sum_of_the_minutes_up_to_it(
    records: list[Record], zone: ZoneInfo, before: int, length: int
) -> None:
    result = fold_of(records, zone, MINUTES_KEPT)
    history = history_of(result, zone, MINUTES_KEPT)
    history.minute = (result.newest_minute or 0) - before
    window = Window(DAYS, history.minute - length, history.minute + 5000)
    for subject, by_grain in result.cells.items():
        if subject.basis != PERIOD:
            continue
        expected: Facts = {}
        for minute, facts in by_grain.get(Grain.MINUTE, {}).items():
            if history.minute - length <= minute <= history.minute:
                add(expected, facts)
        assert history.facts(subject, window) == plain(expected)
        assert history.has(subject, window) == bool(plain(expected))


def leads() -> History:
    """Return a history of one lead at 10:00, two at 10:30 and one at 11:05, all of one channel."""
    records = [
        record(
            "leads",
            "lead.created",
            (TEN + minute) * MINUTE_MS,
            lead_id=f"l-{number}",
            channel="google_ads",
        )
        for number, minute in enumerate((0, 30, 30, 65))
    ]
    return history_of(fold_of(records, PARIS, MINUTES_KEPT), PARIS, MINUTES_KEPT)


@pytest.mark.parametrize(("minute", "count"), [(-1, 0), (0, 1), (29, 1), (30, 3), (65, 4)])
def test_what_happens_later_in_the_same_window_is_not_yet_there(minute: int, count: int) -> None:
    history = leads()
    history.minute = TEN + minute

    day = Window("1d", TEN - 600, TEN + 840)
    assert history.facts(GOOGLE, day).get("leads_gross", 0) == count
    assert history.facts(ALL, LIFETIME_WINDOW).get("leads_gross", 0) == count
    assert history.has(ALL, day) == (count > 0)


def test_it_says_who_had_facts_when() -> None:
    history = leads()

    assert set(history.channels(PERIOD)) == {"google_ads"}
    assert list(history.channels("cohort")) == []
    assert set(history.subjects()) >= {ALL, GOOGLE}
    assert list(history.busy_minutes(GOOGLE, TEN + 1, TEN + 65)) == [TEN + 30]
    day = Calendar(PARIS).day_start(TEN)
    assert list(history.days(GOOGLE)) == [day]
    assert history.day_facts(GOOGLE, day)["leads_gross"] == 4
    nobody = Subject(PERIOD, Scope("seo", None))
    assert history.facts(nobody, LIFETIME_WINDOW) == {}
    assert list(history.days(nobody)) == []
