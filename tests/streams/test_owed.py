"""What is published now and what is owed, whoever owns the shard by then."""

from collections.abc import Iterable
from itertools import pairwise
from random import Random

import pytest

from kpis.calendar import Calendar
from kpis.facts import COHORT, OVERALL, PERIOD, Scope, Subject
from kpis.retention import Buckets, Retention
from kpis.spans import LIFETIME_WINDOW, TUMBLING, Spans, Window
from streams.owed import MOST_AT_A_TIME, PORTION, Owed, Windows
from streams.tables import Table
from tests.streams.merge_shard import BRAND, GOOGLE, NOON
from tests.streams.one_shard import SETTINGS

SPANS = Spans(Buckets(Calendar(SETTINGS.time_zone), Retention()))
SUBJECTS = [Subject(basis, s) for basis in (PERIOD, COHORT) for s in (OVERALL, GOOGLE, BRAND)]
OTHERS = Subject(PERIOD, Scope("seo", "-"))


class Books:
    """A table of its own, and who notes in it what is owed."""

    def __init__(self) -> None:
        self.table = Table("windows", "windows", 0)
        self.owed = Owed(self.table, SPANS)

    def restart(self) -> None:
        """Go on as a new owner does."""
        self.owed = Owed(self.table, SPANS)
        self.owed.restore(self.table.items())


def windows_of(kinds: Iterable[str], count: int) -> set[Window]:
    """Return the windows of each kind that `count` minutes up to noon lie in."""
    return {SPANS.tumbling(kind, NOON - back) for kind in kinds for back in range(count)}


def flood(seed: int = 0) -> Windows:
    """Return windows of all kinds, so many that they are published in several goes."""
    random = Random(seed)
    return {
        subject: {LIFETIME_WINDOW, *windows_of(TUMBLING, random.randint(1_500, 4_000))}
        for subject in SUBJECTS
    }


def places(windows: Windows) -> list[tuple[Subject, Window]]:
    return [(subject, window) for subject in windows for window in windows[subject]]


def length(window: Window) -> float:
    if window.start_minute is None or window.end_minute is None:
        return float("inf")
    return window.end_minute - window.start_minute


def test_what_is_little_is_published_at_once_and_owes_nothing() -> None:
    books = Books()
    little = {SUBJECTS[0]: windows_of(["1m"], MOST_AT_A_TIME)}
    assert books.owed.share(little) == little
    assert not books.owed
    assert not len(books.table)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_restarted", [False, True])
def test_each_window_of_a_flood_comes_once_and_never_too_many_at_a_time(
    seed: int, is_restarted: bool
) -> None:
    books, all_of_it = Books(), flood(seed)
    found = places(books.owed.share(all_of_it))
    while books.owed:
        if is_restarted:
            books.restart()
        now = places(books.owed.share({}))
        assert 0 < len(now) <= PORTION
        found += now
    assert len(found) == len(set(found))
    assert set(found) == set(places(all_of_it))
    assert not len(books.table)


def test_of_a_flood_the_longest_and_newest_windows_come_first() -> None:
    books = Books()
    shares = [places(books.owed.share(flood()))]
    assert len(shares[0]) == MOST_AT_A_TIME
    while books.owed:
        shares.append(places(books.owed.share({})))
    for earlier, later in pairwise(shares):
        least = min(length(window) for _, window in earlier)
        most = max(length(window) for _, window in later)
        assert least >= most
        if least == most:
            oldest = min(w.start_minute or 0 for _, w in earlier if length(w) == least)
            assert oldest >= max(w.start_minute or 0 for _, w in later if length(w) == least)


def test_what_changes_meanwhile_comes_along_with_what_is_owed() -> None:
    books = Books()
    first = places(books.owed.share(flood()))
    changed = {OTHERS: windows_of(["1m", "1h"], 5), SUBJECTS[0]: {LIFETIME_WINDOW}}
    now = places(books.owed.share(changed))
    assert set(places(changed)) < set(now)
    assert len(now) == PORTION + len(places(changed))
    assert (SUBJECTS[0], LIFETIME_WINDOW) in first


def test_a_flood_upon_a_flood_is_owed_behind_it() -> None:
    books, more = Books(), {OTHERS: windows_of(["1m"], 2 * MOST_AT_A_TIME)}
    found = set(places(books.owed.share(flood())))
    found |= set(places(books.owed.share(more)))
    books.restart()
    last: set[Subject] = set()
    while books.owed:
        now = books.owed.share({})
        found |= set(places(now))
        last = set(now)
    assert found == {*places(flood()), *places(more)}
    assert last == {OTHERS}
