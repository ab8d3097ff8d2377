"""Worlds to look for alerts in: sums made of numbers, minute by minute, and the detector over them.

world = World("2026-06-01T00:00:00+02:00")
world.add(Scope("google_ads", "brand"), minute, cost=20, clicks=10, leads=1)
story = Story(world, DEFAULT_RULES)
alerts = story.run(first_minute, last_minute)
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from kpis.alert_rules import DEFAULT_RULES, Rule
from kpis.alerts import QUIET, Alert, Standing, step
from kpis.calendar import MINUTE_MS, Calendar
from kpis.coverage import CostReports
from kpis.detector import Detector
from kpis.facts import OVERALL, PERIOD, Facts, Scope, Subject
from kpis.money import MICROS
from kpis.retention import Buckets, Retention
from kpis.spans import Spans, Window
from kpis.surroundings import Outlook
from kpis.targets import Target, Targets
from tests.kpis.zones import minute

PARIS = Calendar(ZoneInfo("Europe/Paris"))
HORIZON_MS = 30 * 24 * 3_600_000


class World:
    """Facts of campaigns by minute, summed to channels and the whole; as of `now`.

    What lies after `now` is not in the sums yet, so one world serves a whole story. Cost is known up
    to `now` of the channels in `reporting`; empty: of all that have any.
    """

    def __init__(self, calendar: Calendar = PARIS) -> None:
        self.calendar = calendar
        self.spans = Spans(Buckets(calendar, Retention()))
        self.now = 1 << 40
        self.reporting: set[str] = set()
        self.reported_until: dict[str, int] = {}
        self.targets: dict[Scope, Targets] = {}
        self._facts: dict[Subject, dict[int, Facts]] = {}
        self._totals: dict[Subject, _Totals] = {}
        self._days: dict[Subject, frozenset[int]] = {}

    def add(
        self,
        scope: Scope,
        at: int,
        *,
        cost: float | None = None,
        clicks: int = 0,
        leads: int = 0,
        **facts: int,
    ) -> None:
        """Add what happened to a campaign in a minute; cost in units of money, None if there is no row."""
        told: Facts = {"clicks": clicks, "leads_gross": leads, **facts}
        if cost is not None:
            told |= {"cost": round(cost * MICROS), "cost_records": 1}
        for wider in (scope, Scope(scope.channel, None), OVERALL):
            subject = Subject(PERIOD, wider)
            self._totals.pop(subject, None)
            self._days.pop(subject, None)
            known = self._facts.setdefault(subject, {}).setdefault(at, {})
            for name, number in told.items():
                if number:
                    known[name] = known.get(name, 0) + number

    def aim(self, scope: Scope, target: Target) -> None:
        """Set a target."""
        self.targets.setdefault(scope, Targets()).put((target.kpi, target.period), target)

    def outlook(self) -> Outlook:
        """Return what the detector looks at."""
        expects_cost = lambda channel: channel.endswith("_ads")  # noqa: E731 - shorter than a def
        return Outlook(self, _Reports(self), self.targets, expects_cost, HORIZON_MS, self.calendar)

    def scopes(self) -> list[Scope]:
        """Return every scope that has facts, campaigns first."""
        return [subject.scope for subject in self._facts]

    # ------------------------------------------------------------------------- what Sums asks

    def channels(self, basis: str) -> Iterable[str]:
        """Return the channels that have facts."""
        return {
            subject.scope.channel for subject in self._facts if subject.scope.channel is not None
        }

    def has(self, subject: Subject, window: Window) -> bool:
        """Tell whether a subject has any fact in a window."""
        return bool(self.facts(subject, window))

    def facts(self, subject: Subject, window: Window) -> Facts:
        """Return the facts of a window up to and with `now`."""
        start = 0 if window.start_minute is None else window.start_minute
        end = self.now + 1
        if window.end_minute is not None:
            end = min(end, window.end_minute)
        totals = self._totals.get(subject)
        if totals is None:
            totals = self._totals[subject] = _Totals(self._facts.get(subject, {}))
        return totals.between(start, max(start, end))

    def day_facts(self, subject: Subject, start: int) -> Mapping[str, int]:
        """Return the facts of a day."""
        return self.facts(subject, Window("1d", start, self.calendar.day_end(start)))

    def days(self, subject: Subject) -> Iterable[int]:
        """Return the days that have facts."""
        days = self._days.get(subject)
        if days is None:
            starts = map(self.calendar.day_start, self._facts.get(subject, ()))
            days = self._days[subject] = frozenset(starts)
        return {day for day in days if day <= self.now}


class _Totals:
    """Running totals by minute."""

    def __init__(self, facts: Mapping[int, Facts]) -> None:
        self._minutes = array("q", sorted(facts))
        names = sorted({name for each in facts.values() for name in each})
        self._totals = {name: array("q", [0]) for name in names}
        for at in self._minutes:
            for name, totals in self._totals.items():
                totals.append(totals[-1] + facts[at].get(name, 0))

    def between(self, start: int, end: int) -> Facts:
        """Return the sums of [start, end)."""
        low, high = bisect_left(self._minutes, start), bisect_left(self._minutes, end)
        sums = {name: totals[high] - totals[low] for name, totals in self._totals.items()}
        return {name: total for name, total in sums.items() if total}


class _Reports(CostReports):
    """Cost is reported up to now."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def complete_until_minute(self, channel: str) -> int | None:
        """Return up to when the cost of a channel is known."""
        world = self._world
        if world.reporting and channel not in world.reporting:
            return None
        return min(world.now + 1, world.reported_until.get(channel, 1 << 40))


@dataclass
class Story:
    """A world in which time goes by: every minute is evaluated, and every alert is kept."""

    world: World
    rules: tuple[Rule, ...] = DEFAULT_RULES
    standings: dict[Scope, dict[str, Standing]] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.detector = Detector(self.rules, self.world.outlook(), self.world.spans)

    def run(self, first: int, last: int, scopes: Iterable[Scope] | None = None) -> list[Alert]:
        """Evaluate the minutes [first, last) of scopes, by default of all; return what was told."""
        watched = self.world.scopes() if scopes is None else list(scopes)
        told: list[Alert] = []
        for at in range(first, last):
            self.world.now = at
            for scope in watched:
                told += self._look(scope, at)
        self.alerts += told
        return told

    def _look(self, scope: Scope, at: int) -> list[Alert]:
        stands = self.standings.setdefault(scope, {})
        told = []
        for finding in self.detector.evaluate(scope, at, stands):
            name = finding.rule.name
            standing, alert = step(stands.get(name, QUIET), finding, (at + 1) * MINUTE_MS)
            if standing == QUIET:
                stands.pop(name, None)
            else:
                stands[name] = standing
            if alert is not None:
                told.append(alert)
        return told


__all__ = ["PARIS", "Story", "World", "minute"]
