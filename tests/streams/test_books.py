"""The sums of a shard: which windows facts count in, how long they are kept, and their rows."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.facts import COHORT, OVERALL, PERIOD, Facts, Scope, Subject, add
from kpis.ledger import Cause
from kpis.retention import Buckets, Grain, Retention
from kpis.spans import LIFETIME_WINDOW, TUMBLING, Spans, Window
from streams.books import Books
from streams.messages import Delta
from streams.outbox import Outbox
from streams.tables import Table
from streams.tally import Tally

NOON = 1_772_712_000 // 60
"""5 March 2026, 12:00 UTC."""

DAY = 1_440
BUCKETS = Buckets(Calendar(ZoneInfo("Europe/Paris")), Retention())
SPANS = Spans(BUCKETS)
BRAND = Subject(PERIOD, Scope("google_ads", "brand"))
CHANNEL = Subject(PERIOD, Scope("google_ads", None))


class Shelf:
    """Books with their table."""

    def __init__(self, most_campaigns: int = 10) -> None:
        self.table = Table("cells", "app-cells-changelog", 0, keeps_rows=False)
        self.tally = Tally()
        self.most_campaigns = most_campaigns
        self.books = Books(self.table, SPANS, self.tally, most_campaigns)
        self.books.newest_minute = NOON
        self.rows: dict[bytes, bytes] = {}

    def add(self, subject: Subject, facts: Facts, minute: int = NOON) -> None:
        """Add facts at the finest grain that keeps the minute."""
        grain, bucket, _, _ = next(BUCKETS.cut(minute, minute + 1, self.books.newest_minute))
        windows = self.books.windows_of(grain, bucket)
        assert self.books.is_open(subject)
        delta = Delta(subject.basis, *subject.scope, grain, bucket, Cause.LATE_EVENT, {**facts})
        self.books.add(subject, delta, windows)

    def write(self) -> dict[bytes, bytes | None]:
        """Write the rows that changed, and return them."""
        self.books.flush()
        outbox = Outbox()
        self.table.flush(outbox)
        written = {r.key or b"": r.value for rs in outbox._records.values() for r in rs}
        for key, row in written.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        return written

    def restarted(self) -> "Shelf":
        """Return what a new owner reads back."""
        self.write()
        after = Shelf(self.most_campaigns)
        for key, row in self.rows.items():
            after.table.load(key, row)
        after.table.loaded()
        after.books.newest_minute = self.books.newest_minute
        for _ in after.books.restore():
            pass
        after.rows = self.rows
        return after


@pytest.mark.parametrize(
    ("ago", "kinds"),
    [
        (0, ["1m", "5m", "1h", "1d", "1w", "1mo", "lifetime"]),
        (4 * 60, ["1h", "1d", "1w", "1mo", "lifetime"]),
        (40 * DAY, ["1d", "1w", "1mo", "lifetime"]),
        (500 * DAY, ["lifetime"]),
    ],
)
def test_facts_count_in_the_windows_that_are_still_kept(ago: int, kinds: list[str]) -> None:
    grain, bucket, _, _ = next(BUCKETS.cut(NOON - ago, NOON - ago + 1, NOON))
    windows = Shelf().books.windows_of(grain, bucket)
    assert [window.kind for window in windows] == kinds


def test_a_day_that_is_kept_may_lie_in_a_week_and_month_that_are_not() -> None:
    shelf = Shelf()
    first_of_may = BUCKETS.calendar.month_start(NOON)
    shelf.books.newest_minute = first_of_may + 405 * DAY
    middle = BUCKETS.start(Grain.DAY, first_of_may + 11 * DAY)
    # The 12th is a Thursday: its week began on the 9th, kept as long as the 10th.
    kinds = [window.kind for window in shelf.books.windows_of(Grain.DAY, middle)]
    assert kinds == ["1d", "1w", "lifetime"]


def test_windows_are_found_anew_when_time_has_passed() -> None:
    shelf = Shelf()
    assert len(shelf.books.windows_of(Grain.MINUTE, NOON)) == len(TUMBLING) + 1
    shelf.books.newest_minute = NOON + 4 * 60
    assert next(w.kind for w in shelf.books.windows_of(Grain.MINUTE, NOON)) == "1h"


def test_windows_that_left_retention_are_told_once_with_who_was_in_them() -> None:
    shelf = Shelf()
    shelf.add(BRAND, {"clicks": 1})
    shelf.add(CHANNEL, {"clicks": 1})
    assert list(shelf.books.expired()) == []
    shelf.books.newest_minute = NOON + 3 * 60 + 1
    told = list(shelf.books.expired())
    assert [(window.kind, subjects) for window, subjects in told] == [
        ("1m", {BRAND, CHANNEL}),
        ("5m", {BRAND, CHANNEL}),
    ]
    assert list(shelf.books.expired()) == []
    assert shelf.books.facts(BRAND, SPANS.tumbling("1m", NOON)) == {}
    assert shelf.books.facts(BRAND, SPANS.tumbling("1h", NOON)) == {"clicks": 1}
    assert None in shelf.write().values()


def test_a_window_that_lost_all_facts_is_still_told_when_it_leaves() -> None:
    shelf = Shelf()
    shelf.add(BRAND, {"clicks": 1})
    shelf.add(BRAND, {"clicks": -1})
    assert not shelf.books.has(BRAND, LIFETIME_WINDOW)
    after = shelf.restarted()
    assert after.rows == {}
    after.books.know(BRAND, SPANS.tumbling("1m", NOON))
    after.books.newest_minute = NOON + 3 * 60 + 1
    assert [subjects for _, subjects in after.books.expired()] == [{BRAND}]


def test_only_channels_with_cells_are_asked_for_coverage() -> None:
    shelf = Shelf()
    shelf.add(CHANNEL, {"clicks": 1})
    shelf.add(BRAND, {"clicks": 1})
    shelf.add(Subject(COHORT, Scope("seo", None)), {"leads": 1})
    shelf.add(Subject(PERIOD, OVERALL), {"clicks": 1})
    assert (shelf.books.channels(PERIOD), shelf.books.channels(COHORT)) == (["google_ads"], ["seo"])
    assert shelf.restarted().books.channels(PERIOD) == ["google_ads"]


def test_campaigns_beyond_the_limit_are_not_kept_and_counted_once() -> None:
    shelf = Shelf(most_campaigns=1)
    shelf.add(BRAND, {"clicks": 1})
    other = Subject(PERIOD, Scope("google_ads", "other"))
    for shelf_now in (shelf, shelf.restarted()):
        books = shelf_now.books
        assert not books.is_open(other)
        assert not books.is_open(Subject(COHORT, other.scope))
        assert books.is_open(Subject(COHORT, BRAND.scope))
        assert books.is_open(CHANNEL)
        assert shelf_now.tally.take()._overflow == 1


def test_days_are_those_with_facts() -> None:
    shelf = Shelf()
    shelf.add(BRAND, {"leads": 2})
    shelf.add(BRAND, {"leads": 1}, NOON - 50 * DAY)
    days = [BUCKETS.start(Grain.DAY, minute) for minute in (NOON - 50 * DAY, NOON)]
    assert sorted(shelf.books.days(BRAND)) == days
    assert shelf.books.day_facts(BRAND, days[0]) == {"leads": 1}
    assert shelf.books.day_facts(BRAND, days[0] + DAY) == {}
    assert shelf.books.days(CHANNEL) == []


additions = st.lists(
    st.tuples(
        st.sampled_from([BRAND, CHANNEL, BRAND._replace(basis=COHORT)]),
        st.integers(NOON - 450 * DAY, NOON),
        st.integers(-2, 3),
        st.booleans(),
    ),
    max_size=12,
)


@given(additions, st.integers(0, 500 * DAY))
def test_sums_are_right_whatever_was_asked_before_and_whoever_owns_them(
    added: list[tuple[Subject, int, int, bool]], passed: int
) -> None:
    shelf = Shelf()
    expected: dict[Subject, list[tuple[int, int]]] = {}
    for subject, minute, amount, is_restarted in added:
        shelf.add(subject, {"clicks": amount}, minute)
        expected.setdefault(subject, []).append((minute, amount))
        shelf.books.facts(subject, SPANS.tumbling("1mo", minute))
        if is_restarted:
            shelf = shelf.restarted()
    shelf.books.newest_minute += passed
    gone = {window for window, _ in shelf.books.expired()}
    for subject, amounts in expected.items():
        for minute, _ in amounts:
            for kind in ("1d", "1w", "1mo"):
                window = SPANS.tumbling(kind, minute)
                is_kept = SPANS.is_kept(window, shelf.books.newest_minute)
                assert not (is_kept and window in gone)
                start, end = window.start_minute or 0, window.end_minute or 0
                total: Facts = {}
                for at, amount in amounts:
                    is_old = not SPANS.is_kept(window, NOON)
                    if start <= at < end and not is_old:
                        add(total, {"clicks": amount})
                if is_kept:
                    assert shelf.books.facts(subject, window) == total
                    assert shelf.books.has(subject, window) == bool(total)
        ever: Facts = {}
        for _, amount in amounts:
            add(ever, {"clicks": amount})
        assert shelf.books.facts(subject, LIFETIME_WINDOW) == ever
    kept = [window for window in shelf.books.windows() if has_facts(shelf, window)]
    assert set(kept) <= set(shelf.restarted().books.windows()) <= set(shelf.books.windows())


def has_facts(shelf: Shelf, window: Window) -> bool:
    return any(shelf.books.has(subject, window) for subject in shelf.books.subjects_in(window))
