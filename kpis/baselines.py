"""What is usual: the same hours of the last weeks, else the last days.

Source: contract, section 9.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple

from kpis.calendar import DAY_MINUTES, HOUR_MINUTES, Calendar
from kpis.facts import OVERALL, PERIOD, Facts, Scope, Subject, add
from kpis.spans import HOURS, Window
from kpis.surroundings import Outlook, coverage, leads_of

SAME_HOURS: Final = "same_hours"
LAST_DAYS: Final = "last_7_days"
TARGET: Final = "target"

WEEKS: Final = 4
_ASKED: Final = frozenset({"cost", "clicks", "leads_gross", "leads_voided"})
_NO_CHANNELS: Final[Mapping[str, Facts]] = MappingProxyType({})
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
    """The same hours of an earlier week: those before the last one, and the last one, with their minutes."""

    head: Facts
    tail: Facts
    head_minutes: int
    tail_minutes: int

    def expected(self, count: Callable[[Facts], int], before: int, running: int) -> float:
        """Return what so many minutes usually have: `before` the last hour, and `running` of it.

        By what a minute had then, as on days when the clock changes there were more or fewer of them.
        """
        tail = running if self.head_minutes else before + running
        head = count(self.head) * before / self.head_minutes if self.head_minutes else 0.0
        return head + count(self.tail) * tail / self.tail_minutes


class Usual(NamedTuple):
    """What a scope had in a baseline's hours, as far as rules ask; of the whole also what channels had.

    Only the days of a scope count whose cost is known; those of the channels are the whole's, so that
    they add up to it.
    """

    kind: str
    facts: Facts
    channels: Mapping[str, Facts] = _NO_CHANNELS

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
            least_coverage: What share of the channels that expect cost must have it on a day for its
                hours to count; leads whose cost is unknown would look cheap.
        """
        return self._found(SAME_HOURS, scope, kind, minute, least_coverage)

    def last_days(self, scope: Scope, minute: int, least_coverage: float) -> Usual:
        """Return the sum of the seven days before the last 24 hours, whatever the window.

        So an incident of today is not in what is usual, and three windows share one sum.
        """
        return self._found(LAST_DAYS, scope, _DAY, minute, least_coverage)

    def channels(
        self, source: str | None, kind: str, minute: int, least_coverage: float
    ) -> Mapping[str, Facts]:
        """Return what each channel had in the hours of a baseline of the whole; they add up to it."""
        if source == SAME_HOURS:
            return self.same_hours(OVERALL, kind, minute, least_coverage).channels
        if source == LAST_DAYS:
            return self.last_days(OVERALL, minute, least_coverage).channels
        return _NO_CHANNELS

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
            runs = self._runs_of(source, kind, minute)
            usual = self._usual[key] = self._sum(source, scope, runs, least_coverage)
        return usual

    def _runs_of(self, source: str, kind: str, minute: int) -> tuple[Run, ...]:
        runs = self._runs.get((source, kind))
        if runs is None:
            runs = self._runs[source, kind] = runs_of(self._outlook.calendar, source, kind, minute)
        return runs

    def _sum(self, source: str, scope: Scope, runs: Iterable[Run], least_coverage: float) -> Usual:
        sums, subject = self._outlook.sums, Subject(PERIOD, scope)
        total: Facts = {}
        channels: dict[str, Facts] = {}
        for run in runs:
            if not self._is_covered(subject, run, least_coverage):
                continue
            add(total, _asked(sums.facts(subject, run.window)))
            if scope == OVERALL:
                for channel in sums.channels(PERIOD):
                    own = sums.facts(Subject(PERIOD, Scope(channel, None)), run.window)
                    add(channels.setdefault(channel, {}), _asked(own))
        return Usual(source, total, channels)

    def _is_covered(self, subject: Subject, run: Run, least_coverage: float) -> bool:
        """Tell whether cost is known of the day that a run lies in.

        Not of its hours: who advertises by day has leads in the evening that cost nothing more.
        """
        calendar = self._outlook.calendar
        start = calendar.day_start(run.start)
        day = Window("1d", start, calendar.day_end(start))
        facts = self._outlook.sums.facts(subject, day)
        return is_covered(self._outlook, subject, day, facts, least_coverage)

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
            late = sums.facts(subject, tail.window)
            minutes = head.end - head.start, tail.end - tail.start
            yield Week(_asked(early), _asked(late), *minutes)


def runs_of(calendar: Calendar, source: str, kind: str, minute: int) -> tuple[Run, ...]:
    """Return the hours of a baseline, `same_hours` or `last_7_days` of a rolling window, day by day."""
    if source == LAST_DAYS:
        return tuple(by_day(calendar, days_before(calendar, hours_of(calendar, _DAY, minute))))
    run = hours_of(calendar, kind, minute)
    weeks = (same_hours(calendar, run, back) for back in range(1, WEEKS + 1))
    return tuple(
        part for head, tail in weeks for part in by_day(calendar, Run(head.start, tail.end))
    )


def by_day(calendar: Calendar, run: Run) -> Iterator[Run]:
    """Yield the parts of a run that lie in one local day each."""
    start = run.start
    while start < run.end:
        end = min(run.end, calendar.day_end(calendar.day_start(start)))
        yield Run(start, end)
        start = end


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
