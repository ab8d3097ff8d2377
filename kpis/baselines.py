"""What is usual: the same hours of the last weeks, else the last days.

Source: contract, section 9.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from kpis.calendar import DAY_MINUTES, HOUR_MINUTES, Calendar
from kpis.facts import PERIOD, Facts, Scope, Subject, add
from kpis.spans import HOURS, Window
from kpis.surroundings import Outlook, coverage, leads_of

SAME_HOURS: Final = "same_hours"
LAST_DAYS: Final = "last_7_days"
TARGET: Final = "target"

WEEKS: Final = 4
_ASKED: Final = frozenset({"cost", "clicks", "leads_gross", "leads_voided"})
_WEEK_DAYS: Final = 7
_DAY: Final = "last_24h"
_SHORTEST: Final = {"last_1h": HOUR_MINUTES, "last_6h": 6 * HOUR_MINUTES, "last_24h": DAY_MINUTES}


class Run(NamedTuple):
    """Whole local hours [start, end), in minutes since 1970 UTC."""

    start: int
    end: int

    @property
    def window(self) -> Window:
        """The run as a window that sums are asked for."""
        return Window(HOURS, self.start, self.end)


class Week(NamedTuple):
    """The same hours of an earlier week: those before the last one, and the last one."""

    head: Facts
    tail: Facts


class Usual(NamedTuple):
    """What a scope had in a baseline's hours, as far as rules ask."""

    kind: str
    facts: Facts

    @property
    def cost(self) -> int:
        """Cost in micros."""
        return self.facts.get("cost", 0)

    @property
    def leads(self) -> int:
        """Valid leads."""
        return leads_of(PERIOD, self.facts)


def hours_of(calendar: Calendar, kind: str, minute: int) -> Run:
    """Return the whole local hours that a rolling window at `minute` touches."""
    start = calendar.hour_start(minute - _SHORTEST[kind])
    return Run(start, calendar.hour_end(calendar.hour_start(minute)))


def earlier(calendar: Calendar, minute: int, days: int) -> int:
    """Return when the local hour began that the clock showed `days` days before `minute`.

    An hour that the zone left out is the next one, of an hour that came twice it is the first.
    """
    local = datetime.fromtimestamp(minute * 60, calendar.zone).replace(tzinfo=None, fold=0)
    shifted = (local - timedelta(days=days)).replace(tzinfo=calendar.zone)
    return calendar.hour_start(int(shifted.astimezone(UTC).timestamp()) // 60)


def same_hours(calendar: Calendar, run: Run, weeks_back: int) -> tuple[Run, Run]:
    """Return the same local hours so many weeks earlier: those before the last hour, and the last."""
    days = weeks_back * _WEEK_DAYS
    start = earlier(calendar, run.start, days)
    last = max(start, earlier(calendar, calendar.hour_start(run.end - 1), days))
    return Run(start, last), Run(last, calendar.hour_end(last))


def days_before(calendar: Calendar, run: Run) -> Run:
    """Return the hours of the seven days, by the local clock, before a run."""
    return Run(earlier(calendar, run.start, _WEEK_DAYS), run.start)


class Baselines:
    """The baselines of scopes, each looked up once an hour and kind of window.

    What is late or corrected in the hours of a baseline shows up with the next hour.
    """

    def __init__(self, outlook: Outlook) -> None:
        self._outlook = outlook
        self._hour = 0
        self._usual: dict[tuple[Scope, str, str, float], Usual] = {}
        self._weeks: dict[tuple[Scope, str], tuple[Week, ...]] = {}
        self._runs: dict[tuple[str, str], tuple[Run, ...]] = {}

    def same_hours(self, scope: Scope, kind: str, minute: int, least_coverage: float) -> Usual:
        """Return the sum of the same hours of the last four weeks for a rolling window at `minute`.

        Args:
            scope: On the period basis.
            kind: Of the window: last_1h, last_6h, last_24h.
            minute: The one that is evaluated.
            least_coverage: What share of the channels that expect cost must have it in a week for it
                to count; leads whose cost is unknown would look cheap.
        """
        return self._found(SAME_HOURS, scope, kind, minute, least_coverage)

    def last_days(self, scope: Scope, minute: int, least_coverage: float) -> Usual:
        """Return the sum of the seven days before the last 24 hours, whatever the window.

        So an incident of today is not in what is usual, and three windows share one sum.
        """
        return self._found(LAST_DAYS, scope, _DAY, minute, least_coverage)

    def weeks(self, scope: Scope, kind: str, minute: int) -> tuple[Week, ...]:
        """Return the same hours of each of the last four weeks, the last one first.

        Those that began before the scope had its first fact are left out: they say nothing of it.
        """
        self._turn(minute)
        key = scope, kind
        weeks = self._weeks.get(key)
        if weeks is None:
            weeks = self._weeks[key] = tuple(self._find_weeks(scope, kind, minute))
        return weeks

    def _turn(self, minute: int) -> None:
        hour = self._outlook.calendar.hour_start(minute)
        if hour != self._hour:
            self._usual.clear()
            self._weeks.clear()
            self._runs.clear()
            self._hour = hour

    def _found(
        self, source: str, scope: Scope, kind: str, minute: int, least_coverage: float
    ) -> Usual:
        self._turn(minute)
        key = scope, kind, source, least_coverage
        usual = self._usual.get(key)
        if usual is None:
            facts: Facts = {}
            for run in self._runs_of(source, kind, minute):
                add(facts, self._covered(scope, run, least_coverage))
            usual = self._usual[key] = Usual(source, facts)
        return usual

    def _runs_of(self, source: str, kind: str, minute: int) -> tuple[Run, ...]:
        runs = self._runs.get((source, kind))
        if runs is None:
            runs = self._runs[source, kind] = runs_of(self._outlook.calendar, source, kind, minute)
        return runs

    def _covered(self, scope: Scope, run: Run, least_coverage: float) -> Facts:
        """Return the facts of a run, none if too little of its cost is known."""
        subject = Subject(PERIOD, scope)
        facts = self._outlook.sums.facts(subject, run.window)
        if not is_covered(self._outlook, subject, run.window, facts, least_coverage):
            return {}
        return _asked(facts)

    def _find_weeks(self, scope: Scope, kind: str, minute: int) -> Iterator[Week]:
        calendar, sums = self._outlook.calendar, self._outlook.sums
        subject = Subject(PERIOD, scope)
        first_day = min(sums.days(subject), default=None)
        run = hours_of(calendar, kind, minute)
        for back in range(1, WEEKS + 1):
            head, tail = same_hours(calendar, run, back)
            if first_day is None or head.start < first_day:
                return
            early = sums.facts(subject, head.window) if head.start < head.end else {}
            yield Week(_asked(early), _asked(sums.facts(subject, tail.window)))


def runs_of(calendar: Calendar, source: str, kind: str, minute: int) -> tuple[Run, ...]:
    """Return the hours of a baseline: `same_hours` or `last_7_days`, of a rolling window at `minute`."""
    if source == LAST_DAYS:
        return (days_before(calendar, hours_of(calendar, _DAY, minute)),)
    run = hours_of(calendar, kind, minute)
    weeks = (same_hours(calendar, run, back) for back in range(1, WEEKS + 1))
    return tuple(Run(head.start, tail.end) for head, tail in weeks)


def is_covered(
    outlook: Outlook,
    subject: Subject,
    window: Window,
    facts: Mapping[str, int],
    least_coverage: float,
) -> bool:
    """Tell whether enough of a scope's channels with facts in a window have the cost they expect.

    Args:
        outlook: What is counted.
        subject: On the period basis.
        window: Any.
        facts: Those of the subject in the window.
        least_coverage: A share.
    """
    if facts.get("cost_records", 0) > 0 and subject.scope.channel is not None:
        return True
    known = coverage(outlook.sums, subject, window, outlook.expects_cost, outlook.reports)
    return known.covered >= least_coverage * known.expected


def _asked(facts: Mapping[str, int]) -> Facts:
    """Return those of the facts that rules ask for: baselines of many scopes are kept for an hour."""
    return {
        name: number
        for name, number in facts.items()
        if name in _ASKED or name.startswith("stage_entered.")
    }
