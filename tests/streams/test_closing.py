"""The ledger of a shard: what is final, what changed since, and when that is told."""

from zoneinfo import ZoneInfo

from kpis.calendar import MINUTE_MS, Calendar
from kpis.facts import COHORT, PERIOD, Facts, Scope, Subject
from kpis.ledger import OUTCOME_MS, REVISION_MS, Cause
from kpis.retention import Buckets, Retention
from kpis.spans import LIFETIME_WINDOW, Spans, Window
from streams.closing import ENTRY, Closing, Status
from streams.outbox import Outbox
from streams.tables import Table

NOON = 1_772_712_000_000 // MINUTE_MS
"""5 March 2026, 12:00 UTC."""

NOON_MS = NOON * MINUTE_MS
SPANS = Spans(Buckets(Calendar(ZoneInfo("UTC")), Retention()))
HOUR = SPANS.tumbling("1h", NOON)
FINAL_MS = (NOON + 60 + 120) * MINUTE_MS
ADS = Subject(PERIOD, Scope("google_ads", None))
OF_COHORT = Subject(COHORT, Scope("google_ads", None))


class Ledger:
    """A closing with its table, in which the given subjects have facts."""

    def __init__(self, *subjects: Subject) -> None:
        self.table = Table("windows", "app-windows-changelog", 0, keeps_rows=False)
        self.subjects = set(subjects)
        self.closing = Closing(self.table, SPANS, lambda _: self.subjects)

    def restarted(self) -> "Ledger":
        """Return what a new owner reads from the changelog."""
        outbox = Outbox()
        self.table.flush(outbox)
        after = Ledger(*self.subjects)
        for records in outbox._records.values():
            for record in records:
                after.table.load(record.key or b"", record.value)
        after.table.loaded()
        rows = after.table.take_rows()
        after.closing.restore(rows.items())
        after.closing.watch(HOUR)
        return after

    def settle(self, facts: Facts, now_ms: int, until_ms: int | None = FINAL_MS) -> Status:
        """Settle the hour."""
        return self.closing.settle(ADS, HOUR, facts, until_ms, now_ms)

    def due(self, until_ms: int | None, now_ms: int) -> list[tuple[Subject, Window]]:
        """Return everything that is due."""
        return list(self.closing.due(until_ms, now_ms))


def closed() -> Ledger:
    """Return a ledger in which the hour is final since `FINAL_MS`."""
    ledger = Ledger(ADS)
    ledger.closing.watch(HOUR)
    assert ledger.settle({"clicks": 1}, FINAL_MS) == Status("final", 1, is_news=True)
    return ledger


def test_a_window_is_due_once_everything_up_to_its_lateness_has_arrived() -> None:
    ledger = Ledger(ADS, OF_COHORT)
    ledger.closing.watch(HOUR)
    assert ledger.due(None, FINAL_MS) == []
    assert not ledger.closing.is_due(FINAL_MS - 1, FINAL_MS)
    assert ledger.due(FINAL_MS - 1, FINAL_MS) == []
    assert ledger.closing.is_due(FINAL_MS, FINAL_MS)
    assert sorted(ledger.due(FINAL_MS, FINAL_MS)) == [(OF_COHORT, HOUR), (ADS, HOUR)]
    assert ledger.due(FINAL_MS, FINAL_MS) == []


def test_due_goes_on_where_it_was_left() -> None:
    ledger = Ledger(ADS, OF_COHORT)
    ledger.closing.watch(HOUR)
    first = next(ledger.closing.due(FINAL_MS, FINAL_MS))
    assert ledger.closing.is_due(FINAL_MS, FINAL_MS)
    assert [first, *ledger.due(FINAL_MS, FINAL_MS)] in (
        [(ADS, HOUR), (OF_COHORT, HOUR)],
        [(OF_COHORT, HOUR), (ADS, HOUR)],
    )


def test_a_window_before_its_time_is_provisional() -> None:
    ledger = Ledger(ADS)
    assert ledger.settle({"clicks": 1}, FINAL_MS, FINAL_MS - 1) == Status("provisional", 0)
    assert ledger.settle({"clicks": 1}, FINAL_MS, None) == Status("provisional", 0)


def test_a_window_without_facts_is_never_final() -> None:
    assert Ledger(ADS).settle({}, FINAL_MS) == Status("provisional", 0)


def test_lifetime_and_rolling_windows_are_never_final() -> None:
    closing = Ledger(ADS).closing
    for window in (LIFETIME_WINDOW, SPANS.rolling("last_1h", NOON)):
        assert not closing.watch(window)
        assert closing.settle(ADS, window, {"clicks": 1}, FINAL_MS, FINAL_MS) == Status()


def test_a_first_fact_that_comes_late_makes_the_window_final_at_once() -> None:
    ledger = Ledger(ADS)
    assert ledger.settle({"clicks": 1}, FINAL_MS + 1) == Status("final", 1, is_news=True)


def test_what_did_not_change_stays_final_without_news() -> None:
    assert closed().settle({"clicks": 1}, FINAL_MS + REVISION_MS) == Status("final", 1)


def test_a_change_waits_until_a_minute_after_the_last_record() -> None:
    ledger = closed()
    ledger.closing.note(ADS, HOUR, Cause.LATE_EVENT, lambda: {"clicks": 1})
    soon_ms = FINAL_MS + REVISION_MS - 1
    assert ledger.settle({"clicks": 2}, soon_ms) == Status("provisional", 1)
    assert ledger.due(FINAL_MS, soon_ms) == []
    assert ledger.due(FINAL_MS, soon_ms + 1) == [(ADS, HOUR)]
    expected = Status("revised", 2, Cause.LATE_EVENT, {"clicks": 1}, is_news=True)
    assert ledger.settle({"clicks": 2}, soon_ms + 1) == expected
    assert ledger.settle({"clicks": 2}, soon_ms + 2) == Status("revised", 2)


def test_changes_in_between_are_told_as_one_with_the_gravest_cause() -> None:
    ledger = closed()
    ledger.closing.note(ADS, HOUR, Cause.COST_RESTATED, lambda: {"clicks": 1})
    ledger.closing.note(ADS, HOUR, Cause.LATE_EVENT, lambda: {"clicks": 2})
    expected = Status("revised", 2, Cause.COST_RESTATED, {"clicks": 1}, is_news=True)
    assert ledger.settle({"clicks": 3}, FINAL_MS + REVISION_MS) == expected


def test_mere_outcomes_are_told_once_a_day() -> None:
    ledger = closed()
    ledger.closing.note(ADS, HOUR, Cause.OUTCOME, lambda: {"clicks": 1})
    day_ms = FINAL_MS + OUTCOME_MS
    assert ledger.settle({"clicks": 2}, day_ms - 1) == Status("provisional", 1)
    assert ledger.due(FINAL_MS, day_ms) == [(ADS, HOUR)]
    assert ledger.settle({"clicks": 2}, day_ms).is_news


def test_another_cause_does_not_wait_for_the_day() -> None:
    ledger = closed()
    ledger.closing.note(ADS, HOUR, Cause.OUTCOME, lambda: {"clicks": 1})
    ledger.closing.note(ADS, HOUR, Cause.LEAD_CORRECTED, lambda: {"clicks": 2})
    assert ledger.due(FINAL_MS, FINAL_MS + REVISION_MS) == [(ADS, HOUR)]


def test_what_changed_back_is_no_revision() -> None:
    ledger = closed()
    ledger.closing.note(ADS, HOUR, Cause.LATE_EVENT, lambda: {"clicks": 1})
    assert ledger.settle({"clicks": 1}, FINAL_MS + REVISION_MS) == Status("final", 1)


def test_a_window_whose_facts_all_went_is_revised_to_nothing() -> None:
    ledger = closed()
    ledger.closing.note(ADS, HOUR, Cause.SALE_CORRECTED, lambda: {"sales": 1})
    expected = Status("revised", 2, Cause.SALE_CORRECTED, {"sales": 1}, is_news=True)
    assert ledger.settle({}, FINAL_MS + REVISION_MS) == expected


def test_a_new_owner_knows_what_is_final_and_what_waits() -> None:
    ledger = closed()
    assert ledger.restarted().settle({"clicks": 1}, FINAL_MS + 1) == Status("final", 1)
    ledger.closing.note(ADS, HOUR, Cause.LATE_EVENT, lambda: {"clicks": 1})
    after = ledger.restarted()
    assert after.due(FINAL_MS, FINAL_MS + REVISION_MS) == [(ADS, HOUR)]
    status = after.settle({"clicks": 2}, FINAL_MS + REVISION_MS)
    assert status == Status("revised", 2, Cause.LATE_EVENT, {"clicks": 1}, is_news=True)


def test_a_window_that_left_retention_leaves_no_row() -> None:
    ledger = closed()
    ledger.closing.forget(HOUR, {ADS})
    outbox = Outbox()
    ledger.table.flush(outbox)
    records = [one for written in outbox._records.values() for one in written]
    assert [record.value for record in records] == [None]
    assert ENTRY.encode() in (records[0].key or b"")
    assert ledger.closing.watch(HOUR)
