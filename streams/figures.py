"""The numbers of a window: its facts, what its KPIs need beside them, and the KPIs themselves."""

from collections.abc import Iterable
from typing import Final

import msgspec

from kpis.catalog import Catalog, Progress, Surroundings, Value
from kpis.coverage import CostReports
from kpis.facts import COHORT, PERIOD, Facts, Scope, Subject
from kpis.spans import DAYS, Spans, Window
from kpis.surroundings import (
    Mature,
    coverage,
    is_overall,
    is_reached,
    mature,
    unattributed_leads,
)
from kpis.targets import Target, Targets, elapsed_share, windows_of
from kpis.windows import WindowValues, changed
from streams.books import Books
from streams.closing import Status
from streams.messages import Reported, TargetTold
from streams.settings import Settings
from streams.tables import Table

MATURE: Final = "mature"

_REPORTED_ROW: Final = "reported"
_TARGET_ROW: Final = "target"

_encode = msgspec.msgpack.Encoder().encode
_ReportedKey = tuple[str, str, int]
_TargetKey = tuple[str, str | None, str | None, tuple[str, ...]]


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
        self._expects_cost = settings.channels.expects_cost
        self._horizon_ms = horizon_ms
        self._reports = CostReports()
        self._targets: dict[Scope, Targets] = {}

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

    def reported(self, told: Reported, windows: Iterable[Window]) -> list[Window]:
        """Take note of cost rows; return those of the windows whose cost became partial or whole by that."""
        before = self._reports.complete_until_minute(told.channel)
        total = self._reports.add(told.channel, told.minute, told.count)
        key = _encode((_REPORTED_ROW, told.channel, told.minute))
        if total:
            self._rows.put(key, _encode(total))
        else:
            self._rows.delete(key)
        after = self._reports.complete_until_minute(told.channel)
        if before == after:
            return []
        return [w for w in windows if is_reached(w, before, None) != is_reached(w, after, None)]

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

    def _targets_of(self, scope: Scope) -> Targets:
        return self._targets.setdefault(scope, Targets())

    # ------------------------------------------------------------------------- values

    def facts(self, subject: Subject, window: Window, until_ms: int | None) -> Facts:
        """Return the facts of a window as they are shown, with those of its leads that are mature."""
        facts = self._books.facts(subject, window)
        if subject.basis == COHORT:
            ripe = self._mature(subject, window, until_ms)
            if ripe.leads:
                return {**facts, MATURE: ripe.leads}
        return facts

    def values(
        self, subject: Subject, window: Window, status: Status, until_ms: int | None, now_ms: int
    ) -> WindowValues:
        """Return the numbers of a window that has facts, with what its record says of it."""
        facts = self._books.facts(subject, window)
        around = self._surroundings(subject, window, until_ms)
        kpis = self._catalog.evaluate(subject.basis, facts, around)
        previous: dict[str, Value] | None = None
        if status.before is not None:
            former = dict(status.before)
            then = around._replace(mature_leads=former.pop(MATURE, 0))
            previous = changed(kpis, self._catalog.evaluate(subject.basis, former, then))
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

    def _surroundings(self, subject: Subject, window: Window, until_ms: int | None) -> Surroundings:
        around = self._around(subject, window, until_ms)
        targets = self._targets.get(subject.scope) if subject.basis == PERIOD else None
        if targets is None:
            return around
        return around._replace(
            targets=tuple(
                self._progress(target, subject, window, until_ms)
                for target in targets.shown_in(window)
            )
        )

    def _around(self, subject: Subject, window: Window, until_ms: int | None) -> Surroundings:
        covered = coverage(self._books, subject, window, self._expects_cost, self._reports)
        ripe = self._mature(subject, window, until_ms)
        is_all = is_overall(subject)
        return Surroundings(
            expected=covered.expected,
            covered=covered.covered,
            unattributed_leads=(
                unattributed_leads(self._books, subject.basis, window) if is_all else 0
            ),
            mature_leads=ripe.leads,
            mature_converted=ripe.converted,
            cost_until_reached=is_reached(window, covered.until_minute, until_ms),
            is_overall=is_all,
        )

    def _mature(self, subject: Subject, window: Window, until_ms: int | None) -> Mature:
        return mature(self._books, subject, window, until_ms, self._horizon_ms, self._calendar)

    def _progress(
        self, target: Target, subject: Subject, window: Window, until_ms: int | None
    ) -> Progress:
        elapsed = elapsed_share(target, window, until_ms, self._calendar)
        if target.start_minute == window.start_minute and target.end_minute == window.end_minute:
            return Progress(target, elapsed)
        span = Window(DAYS, target.start_minute, window.end_minute)
        facts = self._books.facts(subject, span)
        return Progress(target, elapsed, facts, self._around(subject, span, until_ms))
