"""What the KPIs of a window depend on beside its own facts, wherever the sums come from.

The stream asks this about the cells it stores, the recomputation about those it summed: one rule.

Source: contract, section 3 (`cost_complete_until`), section 4 ("Not stored") and section 5.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from kpis.calendar import MINUTE_MS, Calendar
from kpis.catalog import Progress, Surroundings
from kpis.coverage import CostReports
from kpis.events import UNATTRIBUTED
from kpis.facts import COHORT, OVERALL, PERIOD, Facts, Scope, Subject
from kpis.spans import DAYS, LIFETIME, ROLLING, Window
from kpis.targets import Target, Targets, elapsed_share

TELLS_DAYS_APART: Final = frozenset({"1d", "1w", "1mo", "last_28d", LIFETIME})
"""The kinds of windows that are sums of whole days, so that those of their days can be told that are
old enough for the horizon."""

_WITHOUT_END: Final = frozenset({*ROLLING, LIFETIME})


class Sums(Protocol):
    """The facts of every subject by window."""

    def channels(self, basis: str) -> Iterable[str]:
        """Return the channels that have facts."""
        ...

    def has(self, subject: Subject, window: Window) -> bool:
        """Tell whether a subject has any fact in a window."""
        ...

    def facts(self, subject: Subject, window: Window) -> Facts:
        """Return the facts of a window, empty if there are none; also of a run of whole days."""
        ...

    def day_facts(self, subject: Subject, start: int) -> Mapping[str, int]:
        """Return the facts of the day that begins at minute `start`, empty if there are none."""
        ...

    def days(self, subject: Subject) -> Iterable[int]:
        """Return the days that have facts and are kept, by their first minutes."""
        ...


class Coverage(NamedTuple):
    """Of a scope's channels with any fact in a window: how many expect cost, how many of them have it.

    `until_minute` is the minute before which the cost of those of them is known that ever had any;
    None if none has.
    """

    expected: int
    covered: int
    until_minute: int | None


class Mature(NamedTuple):
    """The leads of the days that ended at least the horizon ago, and those of them that bought in it."""

    leads: int
    converted: int


def coverage(
    sums: Sums,
    subject: Subject,
    window: Window,
    expects_cost: Callable[[str], bool],
    reports: CostReports,
) -> Coverage:
    """Return how much of the cost of a scope's channels is known in a window.

    Source: contract, section 5, cost_coverage and the paragraph below the table.
    """
    expected = covered = 0
    until: list[int] = []
    for channel, paying in _paying(sums, subject, expects_cost):
        if sums.has(paying, window):
            expected += 1
            covered += sums.facts(paying, window).get("cost_records", 0) > 0
            if (minute := reports.complete_until_minute(channel)) is not None:
                until.append(minute)
    return Coverage(expected, covered, min(until, default=None))


def _paying(
    sums: Sums, subject: Subject, expects_cost: Callable[[str], bool]
) -> Iterator[tuple[str, Subject]]:
    """Yield the channels of a subject's scope that expect cost, each with what its facts are found under."""
    channel = subject.scope.channel
    if channel is not None:
        if expects_cost(channel):
            yield channel, subject
        return
    for each in sums.channels(subject.basis):
        if expects_cost(each):
            yield each, Subject(subject.basis, Scope(each, None))


def is_reached(window: Window, until_minute: int | None, complete_until_ms: int | None) -> bool:
    """Tell whether cost that is known before `until_minute` is known for all of a window up to now.

    Windows without an end of their own reach to `complete_until_ms`, as far as that is known.
    """
    if until_minute is None:
        return True
    if window.kind in _WITHOUT_END or window.end_minute is None:
        return complete_until_ms is None or complete_until_ms <= until_minute * MINUTE_MS
    return window.end_minute <= until_minute


def unattributed_leads(sums: Sums, basis: str, window: Window) -> int:
    """Return the leads of a window that no channel brought.

    Source: contract, section 5, unattributed_share.
    """
    facts = sums.facts(Subject(basis, Scope(UNATTRIBUTED, None)), window)
    return leads_of(basis, facts)


def leads_of(basis: str, facts: Mapping[str, int]) -> int:
    """Return the valid leads: stored on the cohort basis, derived on the other."""
    if basis == COHORT:
        return facts.get("leads", 0)
    return facts.get("leads_gross", 0) - facts.get("leads_voided", 0)


def mature(
    sums: Sums,
    subject: Subject,
    window: Window,
    complete_until_ms: int | None,
    horizon_ms: int,
    calendar: Calendar,
) -> Mature:
    """Return what has matured in a window of the cohort basis; nothing in windows without days.

    Source: contract, section 4, `mature`.
    """
    is_told = subject.basis == COHORT and window.kind in TELLS_DAYS_APART
    if complete_until_ms is None or not is_told:
        return Mature(0, 0)
    latest_end = (complete_until_ms - horizon_ms) // MINUTE_MS
    if window.kind == LIFETIME:
        total = sums.facts(subject, window)
        young = (day for day in sums.days(subject) if calendar.day_end(day) > latest_end)
        rest = _cohort(sums, subject, young)
        leads = total.get("leads", 0) - rest.leads
        return Mature(leads, total.get("converted_within", 0) - rest.converted)
    return _cohort(sums, subject, _days_until(window, latest_end, calendar))


def _days_until(window: Window, latest_end: int, calendar: Calendar) -> Iterator[int]:
    """Yield the days of a window that end at the latest at minute `latest_end`."""
    day = window.start_minute or 0
    end_minute = window.end_minute or 0
    while day < end_minute and (day_end := calendar.day_end(day)) <= latest_end:
        yield day
        day = day_end


def _cohort(sums: Sums, subject: Subject, days: Iterable[int]) -> Mature:
    leads = converted = 0
    for day in days:
        facts = sums.day_facts(subject, day)
        leads += facts.get("leads", 0)
        converted += facts.get("converted_within", 0)
    return Mature(leads, converted)


def is_overall(subject: Subject) -> bool:
    """Tell whether a subject is about everything."""
    return subject.scope == OVERALL


# ----------------------------------------------------------------------------- all of it


@dataclass(frozen=True, slots=True)
class Outlook:
    """Everything that the surroundings of windows are made of.

    `targets` are by scope; reports and targets may change, and are asked as they are.
    """

    sums: Sums
    reports: CostReports
    targets: Mapping[Scope, Targets]
    expects_cost: Callable[[str], bool]
    horizon_ms: int
    calendar: Calendar

    def surroundings(
        self, subject: Subject, window: Window, complete_until_ms: int | None
    ) -> Surroundings:
        """Return what the KPIs of a window need beside its facts, when so much is complete."""
        around = self._without_targets(subject, window, complete_until_ms)
        targets = self.targets.get(subject.scope) if subject.basis == PERIOD else None
        if not targets:
            return around
        progress = (
            self._progress(target, subject, window, complete_until_ms)
            for target in targets.shown_in(window)
        )
        return around._replace(targets=tuple(progress))

    def _without_targets(
        self, subject: Subject, window: Window, complete_until_ms: int | None
    ) -> Surroundings:
        known = coverage(self.sums, subject, window, self.expects_cost, self.reports)
        ripe = self.mature(subject, window, complete_until_ms)
        is_all = is_overall(subject)
        return Surroundings(
            expected=known.expected,
            covered=known.covered,
            unattributed_leads=(
                unattributed_leads(self.sums, subject.basis, window) if is_all else 0
            ),
            mature_leads=ripe.leads,
            mature_converted=ripe.converted,
            cost_until_reached=is_reached(window, known.until_minute, complete_until_ms),
            is_overall=is_all,
        )

    def mature(self, subject: Subject, window: Window, complete_until_ms: int | None) -> Mature:
        """Return what has matured in a window; see `mature`."""
        return mature(self.sums, subject, window, complete_until_ms, self.horizon_ms, self.calendar)

    def _progress(
        self, target: Target, subject: Subject, window: Window, complete_until_ms: int | None
    ) -> Progress:
        elapsed = elapsed_share(target, window, complete_until_ms, self.calendar)
        if (target.start_minute, target.end_minute) == window[1:]:
            return Progress(target, elapsed)
        span = Window(DAYS, target.start_minute, window.end_minute)
        around = self._without_targets(subject, span, complete_until_ms)
        return Progress(target, elapsed, self.sums.facts(subject, span), around)
