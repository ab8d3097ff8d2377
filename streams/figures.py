"""The numbers of a window: its facts, what its KPIs need beside them, and the KPIs themselves."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from kpis.catalog import Catalog, Surroundings, Value
from kpis.coverage import CostReports
from kpis.facts import PERIOD, Facts, Scope, Subject
from kpis.spans import LIFETIME_WINDOW, Spans, Window
from kpis.surroundings import Outlook, is_reached
from kpis.targets import Target, Targets, windows_of
from kpis.windows import WindowValues, changed
from streams.books import Books
from streams.closing import AROUND, Status
from streams.messages import Reported, TargetTold
from streams.settings import Settings
from streams.tables import Table

MATURE: Final = "mature"
_MATURE_CONVERTED: Final = "mature_converted"
_EXPECTED: Final = f"{AROUND}expected"
_COVERED: Final = f"{AROUND}covered"
_UNATTRIBUTED: Final = f"{AROUND}unattributed_leads"

_REPORTED_ROW: Final = "reported"
_TARGET_ROW: Final = "target"

_encode = msgspec.msgpack.Encoder().encode
_ReportedKey = tuple[str, str, int]
_TargetKey = tuple[str, str | None, str | None, tuple[str, ...]]


class Numbers(NamedTuple):
    """The facts of a subject and window, and what its KPIs need beside them."""

    facts: Facts
    around: Surroundings

    def remembered(self) -> Facts:
        """Return the facts that make a revision if they change, and what `previous` is computed from."""
        around = self.around
        numbers = {
            MATURE: around.mature_leads,
            _MATURE_CONVERTED: around.mature_converted,
            _EXPECTED: around.expected,
            _COVERED: around.covered,
            _UNATTRIBUTED: around.unattributed_leads,
        }
        if not self.facts or not any(numbers.values()):
            return self.facts
        return self.facts | {name: number for name, number in numbers.items() if number}

    def former(self, remembered: Facts) -> "Numbers":
        """Return the numbers of the same window when it had the facts that `remembered` returned then."""
        facts = dict(remembered)
        around = self.around._replace(
            mature_leads=facts.pop(MATURE, 0),
            mature_converted=facts.pop(_MATURE_CONVERTED, 0),
            expected=facts.pop(_EXPECTED, 0),
            covered=facts.pop(_COVERED, 0),
            unattributed_leads=facts.pop(_UNATTRIBUTED, 0),
        )
        return Numbers(facts, around)


class Figures:
    """Computes the values of windows from the books of a shard, cost reports and targets.

    Args:
        books: The sums.
        rows: The table for cost reports and targets; rows of others in it are not touched.
        spans: Which windows there are.
        catalog: The KPIs.
        settings: Which channels expect cost.
        horizon_ms: After what time a cohort is mature.
    """

    def __init__(
        self,
        books: Books,
        rows: Table,
        spans: Spans,
        catalog: Catalog,
        settings: Settings,
        horizon_ms: int,
    ) -> None:
        self._books = books
        self._rows = rows
        self._calendar = spans.buckets.calendar
        self._catalog = catalog
        self._reports = CostReports()
        self._reported: dict[str, int | None] = {}
        self._targets: dict[Scope, Targets] = {}
        self.outlook = Outlook(
            books,
            self._reports,
            self._targets,
            settings.channels.expects_cost,
            horizon_ms,
            self._calendar,
        )

    def restore(self, key: bytes, row: bytes) -> None:
        """Take up a row of the table that is a cost report or a target."""
        if msgspec.msgpack.decode(key)[0] == _REPORTED_ROW:
            _, channel, minute = msgspec.msgpack.decode(key, type=_ReportedKey)
            self._reports.add(channel, minute, msgspec.msgpack.decode(row, type=int))
        else:
            _, channel_id, campaign_id, target_key = msgspec.msgpack.decode(key, type=_TargetKey)
            target = msgspec.msgpack.decode(row, type=Target)
            self._targets_of(Scope(channel_id, campaign_id)).put(target_key, target)

    # ------------------------------------------------------------------------- told

    def reported(self, told: Reported) -> None:
        """Take note of cost rows."""
        # What the first of several rows says was known before all of them.
        self._reported.setdefault(told.channel, self._reports.complete_until_minute(told.channel))
        total = self._reports.add(told.channel, told.minute, told.count)
        key = _encode((_REPORTED_ROW, told.channel, told.minute))
        if total:
            self._rows.put(key, _encode(total))
        else:
            self._rows.delete(key)

    def take_reported(self, until_ms: int | None) -> Iterator[tuple[str, list[Window]]]:
        """Yield channels with the windows whose cost became partial or whole since the last call.

        The lifetime window stands for the rolling ones too.
        """
        reported, self._reported = self._reported, {}
        for channel, before in reported.items():
            after = self._reports.complete_until_minute(channel)
            if before != after:
                windows = (*self._books.windows(), LIFETIME_WINDOW)
                yield (
                    channel,
                    [
                        window
                        for window in windows
                        if is_reached(window, before, until_ms)
                        != is_reached(window, after, until_ms)
                    ],
                )

    def target_told(self, told: TargetTold) -> list[Window]:
        """Take note of a target; return the windows that show it, or do no longer."""
        scope = Scope(told.channel, told.campaign_id)
        targets = self._targets_of(scope)
        concerned = [each for each in (targets.get(told.key), told.target) if each is not None]
        targets.put(told.key, told.target)
        if not targets:
            del self._targets[scope]
        key = _encode((_TARGET_ROW, *scope, told.key))
        if told.target is None:
            self._rows.delete(key)
        else:
            self._rows.put(key, _encode(told.target))
        return [window for each in concerned for window in windows_of(each, self._calendar)]

    def paced(self) -> list[Subject]:
        """Return the subjects with targets: their pacing changes as time passes."""
        return [Subject(PERIOD, scope) for scope in self._targets]

    def later_months(self, subject: Subject, windows: Iterable[Window]) -> list[Window]:
        """Return the months that show what a quarter's target has come to in `windows` before them."""
        targets = self._targets.get(subject.scope) if subject.basis == PERIOD else None
        if targets is None:
            return []
        months = (window for window in windows if window.kind == "1mo")
        return [later for month in months for later in targets.later_months(month, self._calendar)]

    def _targets_of(self, scope: Scope) -> Targets:
        return self._targets.setdefault(scope, Targets())

    # ------------------------------------------------------------------------- values

    def numbers(self, subject: Subject, window: Window, until_ms: int | None) -> Numbers:
        """Return the facts of a window, and what its KPIs need beside them."""
        facts = self._books.facts(subject, window)
        return Numbers(facts, self.outlook.surroundings(subject, window, until_ms))

    def remembered(self, subject: Subject, window: Window, until_ms: int | None) -> Facts:
        """Return what the ledger is to remember of a window before it changes."""
        return self.numbers(subject, window, until_ms).remembered()

    def values(
        self,
        subject: Subject,
        window: Window,
        numbers: Numbers,
        status: Status,
        until_ms: int | None,
        now_ms: int,
    ) -> WindowValues:
        """Return the values of a window with these numbers, with what its record says of it."""
        facts, around = numbers
        kpis = self._catalog.evaluate(subject.basis, facts, around)
        previous: dict[str, Value] | None = None
        if status.before is not None:
            former = self._catalog.evaluate(subject.basis, *numbers.former(status.before))
            previous = changed(kpis, former)
        return WindowValues(
            basis=subject.basis,
            scope=subject.scope,
            window=window,
            facts=facts,
            kpis=kpis,
            complete_until_ms=until_ms,
            computed_at_ms=now_ms,
            surroundings=around,
            state=status.state,
            revision=status.revision,
            cause=None if status.cause is None else status.cause.label,
            previous=previous,
        )
