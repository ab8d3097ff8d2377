"""One scope at one minute, as alert rules look at it: what it has, what is usual, how far cost is known."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Final

from kpis.baselines import Baselines, Usual, Week, is_covered
from kpis.calendar import HOUR_MINUTES
from kpis.facts import PERIOD, Facts, Scope, Subject
from kpis.money import MICROS
from kpis.spans import Spans, Window
from kpis.surroundings import Outlook

_TARGET_WINDOWS: Final = ("1d", "1w", "1mo")


class Sight:
    """What rules ask about a scope at `minute`, on the period basis; facts are looked up once."""

    __slots__ = (
        "_facts",
        "_windows",
        "baselines",
        "minute",
        "outlook",
        "scope",
        "spans",
        "subject",
    )

    def __init__(
        self, scope: Scope, minute: int, outlook: Outlook, spans: Spans, baselines: Baselines
    ) -> None:
        self.scope = scope
        self.subject = Subject(PERIOD, scope)
        self.minute = minute
        self.outlook = outlook
        self.spans = spans
        self.baselines = baselines
        self._facts: dict[str, Facts] = {}
        self._windows: dict[str, Window] = {}

    def window(self, kind: str) -> Window:
        """Return the rolling window of a kind."""
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = self.spans.rolling(kind, self.minute)
        return window

    def facts(self, kind: str) -> Facts:
        """Return the facts of the rolling window of a kind; not to be changed."""
        facts = self._facts.get(kind)
        if facts is None:
            facts = self._facts[kind] = self.outlook.sums.facts(self.subject, self.window(kind))
        return facts

    def same_hours(self, kind: str, least_coverage: float = 0.0) -> Usual:
        """Return the sum of the same hours of the last weeks; see `Baselines`."""
        return self.baselines.same_hours(self.scope, kind, self.minute, least_coverage)

    def last_days(self, least_coverage: float = 0.0) -> Usual:
        """Return the sum of the days before the last 24 hours; see `Baselines`."""
        return self.baselines.last_days(self.scope, self.minute, least_coverage)

    def usual(self, kind: str, least_coverage: float = 0.0) -> Iterator[Usual]:
        """Yield the baselines for the rolling window of a kind, the best first."""
        yield self.same_hours(kind, least_coverage)
        yield self.last_days(least_coverage)

    def weeks(self, kind: str) -> tuple[Week, ...]:
        """Return the same hours of each of the last weeks; see `Baselines`."""
        return self.baselines.weeks(self.scope, kind, self.minute)

    def expected(self, kind: str, count: Callable[[Facts], int]) -> float:
        """Return how many a window has on average of the last weeks; 0 without any."""
        each = self.each_week(kind, self.minute + 1, count)
        return max(0.0, sum(each) / len(each)) if each else 0.0

    def is_covered(self, kind: str, least_coverage: float) -> bool:
        """Tell whether enough of the channels that expect cost have it in a window."""
        window, facts = self.window(kind), self.facts(kind)
        return is_covered(self.outlook, self.subject, window, facts, least_coverage)

    def paying_channels(self) -> list[str]:
        """Return the scope's channels that expect cost."""
        channel = self.scope.channel
        every = self.outlook.sums.channels(PERIOD) if channel is None else (channel,)
        return sorted(each for each in every if self.outlook.expects_cost(each))

    def cost_until_minute(self) -> int | None:
        """Return the minute before which cost is known of those channels that lately had any.

        None if none had. A campaign's cost is known as far as its channel's.
        """
        week = self.window("last_7d")
        known = [
            until
            for channel in self.paying_channels()
            if (until := self.outlook.reports.complete_until_minute(channel)) is not None
            and self._has_cost(channel, week)
        ]
        return min(known, default=None)

    def _has_cost(self, channel: str, window: Window) -> bool:
        facts = self.outlook.sums.facts(Subject(PERIOD, Scope(channel, None)), window)
        return bool(facts.get("cost_records"))

    def has_no_spend(self, kind: str) -> bool:
        """Tell whether a window is known to have no cost, at least in its first half."""
        facts = self.facts(kind)
        if facts.get("cost", 0):
            return False
        until = self._own_cost_until_minute()
        start = self.window(kind).start_minute or 0
        return until is not None and 2 * (until - start) >= self.minute - start

    def _own_cost_until_minute(self) -> int | None:
        channel = self.scope.channel
        if channel is None:
            return self.cost_until_minute()
        return self.outlook.reports.complete_until_minute(channel)

    def each_week(self, kind: str, until_minute: int, count: Callable[[Facts], int]) -> list[float]:
        """Return what each of the last weeks had in the part of a window before `until_minute`."""
        calendar = self.outlook.calendar
        start = self.window(kind).start_minute or 0
        last = calendar.hour_start(self.minute)
        before = max(0, min(last, until_minute) - start)
        running = max(0, min(until_minute, calendar.hour_end(last)) - max(last, start))
        return [week.expected(count, before, running) for week in self.weeks(kind)]

    def target_cpl(self) -> int | None:
        """Return the CPL in micros that a target asks for now, that of the day before longer ones."""
        targets = self.outlook.targets.get(self.scope)
        if not targets:
            return None
        for kind in _TARGET_WINDOWS:
            for target in targets.shown_in(self.spans.tumbling(kind, self.minute)):
                if target.kpi == "cpl":
                    return target.value_micros
        return None

    def hours_seen(self, kind: str) -> Fraction:
        """Return how many hours of a window are over."""
        start = self.window(kind).start_minute or 0
        return Fraction(self.minute + 1 - start, HOUR_MINUTES)


def amount(micros: Fraction | int) -> Fraction:
    """Return millionths as the unit itself."""
    return Fraction(micros) / MICROS
