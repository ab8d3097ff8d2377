"""What is usual: the same hours of the last weeks, else the last days.

Source: contract, section 9.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from kpis.calendar import DAY_MINUTES, HOUR_MINUTES, Calendar
from kpis.facts import PERIOD, Facts, Scope, Subject, add
from kpis.spans import HOURS, Window
from kpis.surroundings import Outlook, Sums, coverage, leads_of

SAME_HOURS: Final = "same_hours"
LAST_DAYS: Final = "last_7_days"
TARGET: Final = "target"

WEEKS: Final = 4
_WEEK_DAYS: Final = 7
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
    """What a scope had in a baseline's hours; `facts` is the sum of them all."""

    kind: str
    facts: Facts
    minutes: int

    @property
    def cost(self) -> int:
        """Cost in micros."""
        return self.facts.get("cost", 0)

    @property
    def leads(self) -> int:
        """Valid leads."""
        return leads_of(PERIOD, self.facts)


class Baseline(NamedTuple):
    """Both baselines of a scope for the windows of one kind that end in one hour.

    `same_hours` sums the weeks whose cost is covered, `weeks` are all of which there is a record: so
    many as are not older than the scope.
    """

    same_hours: Usual
    last_days: Usual
    weeks: tuple[Week, ...]


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
        self._known: dict[tuple[Scope, str, float], Baseline] = {}

    def of(self, scope: Scope, kind: str, minute: int, least_coverage: float) -> Baseline:
        """Return the baselines of a scope for a rolling window at `minute`.

        Args:
            scope: On the period basis.
            kind: Of the window: last_1h, last_6h, last_24h.
            minute: The one that is evaluated.
            least_coverage: What share of the channels that expect cost must have it in an earlier week, or
                in the last days, for it to count; leads whose cost is unknown would look cheap.
        """
        hour = self._outlook.calendar.hour_start(minute)
        if hour != self._hour:
            self._known.clear()
            self._hour = hour
        key = scope, kind, least_coverage
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._find(scope, kind, minute, least_coverage)
        return known

    def _find(self, scope: Scope, kind: str, minute: int, least_coverage: float) -> Baseline:
        calendar = self._outlook.calendar
        sums, subject = self._outlook.sums, Subject(PERIOD, scope)
        run = hours_of(calendar, kind, minute)
        first_day = min(sums.days(subject), default=None)
        weeks: list[Week] = []
        same: Facts = {}
        minutes = 0
        for back in range(1, WEEKS + 1):
            head, tail = same_hours(calendar, run, back)
            # A scope that began this week had no usual hours before.
            if first_day is None or head.start < first_day:
                break
            week = Week(_facts(sums, subject, head), _facts(sums, subject, tail))
            weeks.append(week)
            if self._is_covered(subject, Run(head.start, tail.end), least_coverage):
                add(same, week.head)
                add(same, week.tail)
                minutes += tail.end - head.start
        days = days_before(calendar, run)
        last: Facts = {}
        if self._is_covered(subject, days, least_coverage):
            last = _facts(sums, subject, days)
        return Baseline(
            Usual(SAME_HOURS, same, minutes),
            Usual(LAST_DAYS, last, days.end - days.start),
            tuple(weeks),
        )

    def _is_covered(self, subject: Subject, run: Run, least: float) -> bool:
        expected, covered = covered_channels(self._outlook, subject, run.window)
        return covered >= least * expected


def covered_channels(outlook: Outlook, subject: Subject, window: Window) -> tuple[int, int]:
    """Return how many of a scope's channels with facts in a window expect cost, and have it."""
    around = coverage(outlook.sums, subject, window, outlook.expects_cost, outlook.reports)
    return around.expected, around.covered


def _facts(sums: Sums, subject: Subject, run: Run) -> Facts:
    return sums.facts(subject, run.window) if run.start < run.end else {}


def total(weeks: Iterable[Week]) -> Iterator[Facts]:
    """Yield the facts of each week."""
    for week in weeks:
        facts = dict(week.head)
        add(facts, week.tail)
        yield facts
