"""All facts from all input records at once: what the running pipeline must arrive at.

There are no deltas, no shards and no commits here: every entity's events are kept, and each
entity is asked once, at the end, what it adds. `leadpulse verify` compares this with what was published.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

from kpis import visitors
from kpis.calendar import MINUTE_MS, Calendar
from kpis.cloud_events import Headers
from kpis.contributions import Contribution, Place
from kpis.coverage import CostReports
from kpis.events import (
    ClickRecorded,
    CostDeleted,
    CostSnapshot,
    CountsReported,
    Event,
    FxRateSet,
    ImpressionServed,
    TargetRemoved,
    TargetSet,
    VisitStarted,
    newest_ms,
)
from kpis.facts import PERIOD, Facts, Scope, Subject, add
from kpis.fold_cells import Cells, RollUp, Visits, estimates_of, sum_of, union_of, without_empty
from kpis.fold_entities import Entities, Reject
from kpis.fx import Rates
from kpis.leads import Funnel
from kpis.orders import correction_order
from kpis.reading import Ignored, Refused, Rules, read
from kpis.retention import Buckets, Grain, Retention
from kpis.spans import Spans, Window
from kpis.spend import Row, is_ahead, natural_key, reported, restate, row_contribution
from kpis.surroundings import Outlook
from kpis.targets import Target, Targets
from kpis.visitors import Sketch

HORIZON_MS: Final = 30 * 24 * 60 * MINUTE_MS
"""How long after its creation a lead's first sale counts in `conversion_within`. Source: contract, section 4."""

_MANY_CELLS: Final = 500_000


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What a set of records comes to; the sums that `kpis.surroundings` asks.

    Only buckets that are kept at `newest_minute` are in `cells` and `visitors`, which are those of
    stored cells. `records` = accepted + test + ignored + rejects; an orphan is a reject.
    """

    cells: Mapping[Subject, Cells]
    visitors: Mapping[Subject, Mapping[Grain, Mapping[int, int]]]
    reports: tuple[tuple[str, int, int], ...]
    targets: Mapping[Scope, tuple[Target, ...]]
    newest_minute: int | None
    records: int
    accepted: int
    test: int
    ignored: int
    rejects: list[Reject]
    spans: Spans = field(compare=False, repr=False)
    sketches: Mapping[Subject, Visits] = field(compare=False, repr=False)
    _channels: Mapping[str, frozenset[str]] = field(compare=False, repr=False)

    @property
    def subjects(self) -> frozenset[Subject]:
        """Everything that there are numbers about."""
        return frozenset([*self.cells, *self.sketches])

    def channels(self, basis: str) -> frozenset[str]:
        """Return the channels that have facts."""
        return self._channels.get(basis, frozenset())

    def cell(self, subject: Subject, grain: Grain, bucket: int) -> Facts:
        """Return the facts of one cell without visitors; empty if there are none."""
        return self.cells.get(subject, {}).get(grain, {}).get(bucket, {})

    def buckets(self, subject: Subject, grain: Grain) -> frozenset[int]:
        """Return the buckets of a grain that have facts or visitors."""
        facts = self.cells.get(subject, {}).get(grain, {})
        return frozenset([*facts, *self.sketches.get(subject, {}).get(grain, {})])

    def facts(self, subject: Subject, window: Window) -> Facts:
        """Return the facts of a window, of a rolling one those between its own start and end.

        The fact `visitors` is in those of whole days and longer.
        """
        grain, starts = self.spans.cells(window)
        stored = self.cells.get(subject, {}).get(grain, {})
        total: Facts = {}
        for start in starts:
            add(total, stored.get(start, {}))
        if count := self._visitors(subject, grain, starts):
            total["visitors"] = count
        return total

    def has(self, subject: Subject, window: Window) -> bool:
        """Tell whether a subject has any fact in a window."""
        return bool(self.facts(subject, window))

    def day_facts(self, subject: Subject, start: int) -> Facts:
        """Return the facts of the day that begins at minute `start`, without visitors."""
        return self.cell(subject, Grain.DAY, start)

    def days(self, subject: Subject) -> Iterable[int]:
        """Return the days that have facts and are kept, by their first minutes."""
        return self.cells.get(subject, {}).get(Grain.DAY, {}).keys()

    def outlook(self, expects_cost: Callable[[str], bool], horizon_ms: int) -> Outlook:
        """Return what the surroundings of windows are made of."""
        reports = CostReports()
        for told in self.reports:
            reports.add(*told)
        targets = {scope: _targets_of(targets) for scope, targets in self.targets.items()}
        calendar = self.spans.buckets.calendar
        return Outlook(self, reports, targets, expects_cost, horizon_ms, calendar)

    def _visitors(self, subject: Subject, grain: Grain, starts: Iterable[int]) -> int:
        stored = self.sketches.get(subject, {}).get(grain, {})
        sketches = [stored[start] for start in starts if start in stored]
        if len(sketches) == 1:
            return sketches[0].estimate()
        return union_of(sketches).estimate() if sketches else 0


class _Base(NamedTuple):
    """What does not depend on the time of asking."""

    cells: dict[Subject, Cells]
    sketches: dict[Subject, Visits]
    running: list[Row]
    reports: CostReports


class Fold:
    """Takes every record of the input topics, in any order.

    Args:
        rules: What is accepted.
        funnel: The stages.
        calendar: The hours and days of the reporting zone.
        retention: How long each grain is kept.
        park_ms: How long an event waits for the `created` of its lead or sale.
        keep_ms: How long the id of a click or impression is remembered.
        horizon_ms: How long after its creation a lead's first sale counts in `conversion_within`.
    """

    def __init__(
        self,
        rules: Rules,
        funnel: Funnel,
        calendar: Calendar,
        retention: Retention,
        park_ms: int,
        keep_ms: int,
        horizon_ms: int = HORIZON_MS,
    ) -> None:
        self._rules = rules
        self._buckets = Buckets(calendar, retention)
        self._spans = Spans(self._buckets)
        self._rates = Rates(rules.currency, calendar)
        self._entities = Entities(funnel, park_ms, keep_ms, horizon_ms)
        self._volume: Contribution = {}
        self._many = _MANY_CELLS
        self._visits: dict[tuple[str, str, int], Sketch] = {}
        self._rows: dict[tuple[str, ...], Row] = {}
        self._targets: dict[tuple[str | None, ...], TargetSet | TargetRemoved] = {}
        self._newest_ms: int | None = None
        self._records = 0
        self._test = 0
        self._ignored = 0
        self._refused: list[Reject] = []
        self._known: _Base | None = None

    def add(
        self,
        topic: str,
        partition: int,
        offset: int,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> None:
        """Take one record; `topic` is the short name."""
        self._records += 1
        self._known = None
        try:
            reading = read(topic, value, timestamp_ms, self._rules, headers)
        except Refused as refused:
            self._refused.append(Reject(topic, partition, offset, refused.reason))
            return
        except Ignored:
            self._ignored += 1
            return
        if reading.is_test:
            self._test += 1
            return
        event = reading.event
        # What lies in the future must not push the present out of retention.
        seen_ms = newest_ms(event, timestamp_ms)
        self._newest_ms = seen_ms if self._newest_ms is None else max(self._newest_ms, seen_ms)
        self._take(event, timestamp_ms, topic, partition, offset)

    def result(
        self, complete_until_ms: int | None = None, booked_minute: int | None = None
    ) -> FoldResult:
        """Return what the records so far come to.

        Args:
            complete_until_ms: Every record with a timestamp before it has been added; decides who
                is an orphan. None if nothing is known: then nobody is.
            booked_minute: Up to when bills for a time to come are booked; None: up to
                `complete_until_ms`.
        """
        if booked_minute is None:
            booked_minute = (complete_until_ms or 0) // MINUTE_MS
        base = self._base()
        cells = self._with_running(base, booked_minute)
        rejects = sorted(
            [
                *self._refused,
                # One event of each refund is rejected, whichever was read first.
                *(min(events) for events in self._entities.mismatches()),
                *(() if complete_until_ms is None else self.orphans(complete_until_ms)),
            ]
        )
        subjects = {*cells, *base.sketches}
        return FoldResult(
            cells=cells,
            visitors=estimates_of(base.sketches),
            reports=tuple(base.reports.items()),
            targets=_by_scope(self._targets.values()),
            newest_minute=self._newest_minute,
            records=self._records,
            accepted=self._records - len(rejects) - self._test - self._ignored,
            test=self._test,
            ignored=self._ignored,
            rejects=rejects,
            spans=self._spans,
            sketches=base.sketches,
            _channels=_channels(subjects),
        )

    def orphans(self, complete_until_ms: int) -> list[Reject]:
        """Return the orphans among the rejects of `result(complete_until_ms)`."""
        return sorted(self._entities.orphans(complete_until_ms))

    def mismatches(self) -> list[tuple[Reject, ...]]:
        """Return, of each refund in a currency that its sale never had, which events may be rejected.

        Exactly one of them is, the first that was read of those that count.
        """
        return sorted(self._entities.mismatches())

    def possible_mismatches(self) -> list[Reject]:
        """Return the refunds in another currency than their sale had in some order of reading."""
        return sorted(self._entities.possible_mismatches())

    @property
    def refused(self) -> list[Reject]:
        """The records that were refused as they were read, whatever else there is."""
        return sorted(self._refused)

    @property
    def has_running_bills(self) -> bool:
        """Whether the result depends on how far bills for a time to come are booked."""
        return bool(self._base().running)

    @property
    def records(self) -> int:
        """How many records were added."""
        return self._records

    @property
    def _newest_minute(self) -> int | None:
        return None if self._newest_ms is None else self._newest_ms // MINUTE_MS

    # ------------------------------------------------------------------------- taking

    def _take(
        self, event: Event, timestamp_ms: int, topic: str, partition: int, offset: int
    ) -> None:
        match event:
            case ImpressionServed(impression_id=None):
                self._count_impression(event)
            case ClickRecorded(click_id=None):
                self._count(event, "invalid_clicks" if event.is_bot else "clicks")
            case VisitStarted():
                self._visit(event)
            case CountsReported() | CostSnapshot() | CostDeleted():
                key = natural_key(event)
                self._rows[key], _ = restate(self._rows.get(key), event)
            case FxRateSet():
                self._rates.set(event)
            case TargetSet() | TargetRemoved():
                self._set_target(event)
            case _:
                self._entities.take(event, timestamp_ms, topic, partition, offset)

    def _count_impression(self, event: ImpressionServed) -> None:
        # Source: contract, section 8, "is_bot: counts only as invalid".
        if event.is_bot:
            self._count(event, "invalid_impressions")
        else:
            self._count(event, "impressions")
            if event.viewable:
                self._count(event, "viewable_impressions")

    def _count(self, event: ImpressionServed | ClickRecorded, name: str) -> None:
        minute = event.envelope.occurred_ms // MINUTE_MS
        place = Place(PERIOD, event.channel, event.campaign_id, Grain.MINUTE, minute)
        facts = self._volume.setdefault(place, {})
        facts[name] = facts.get(name, 0) + 1
        if len(self._volume) > self._many:
            self._coarsen()

    def _visit(self, event: VisitStarted) -> None:
        if event.is_bot or not visitors.AVAILABLE:
            return
        day = self._buckets.start(Grain.DAY, event.envelope.occurred_ms // MINUTE_MS)
        place = (event.channel, event.campaign_id, day)
        sketch = self._visits.get(place)
        if sketch is None:
            sketch = self._visits[place] = Sketch()
        sketch.update(event.visitor_id)

    def _set_target(self, event: TargetSet | TargetRemoved) -> None:
        scope = (event.channel, event.campaign_id)
        key = (event.kpi, *scope, event.period, str(event.start_minute))
        known = self._targets.get(key)
        if known is None or correction_order(event) > correction_order(known):
            self._targets[key] = event

    def _coarsen(self) -> None:
        """Join the cells of grains that are kept no longer, so that memory follows retention."""
        newest_minute = (self._newest_ms or 0) // MINUTE_MS
        joined: Contribution = {}
        for place, facts in self._volume.items():
            add(joined.setdefault(self._finest_kept(place, newest_minute), {}), facts)
        self._volume = joined
        self._many = max(_MANY_CELLS, 2 * len(joined))

    def _finest_kept(self, place: Place, newest_minute: int) -> Place:
        for grain in Grain:
            if grain >= place.grain:
                bucket = self._buckets.start(grain, place.bucket)
                if self._buckets.is_kept(grain, bucket, newest_minute):
                    return place._replace(grain=grain, bucket=bucket)
        return place

    # ------------------------------------------------------------------------- summing up

    def _base(self) -> _Base:
        if self._known is None:
            running, reports = [], CostReports()
            for row in self._rows.values():
                if is_ahead(row):
                    running.append(row)
                if (told := reported(row)) is not None:
                    reports.add(*told, 1)
            contributions = chain(
                [self._volume],
                self._entities.contributions(self._rates),
                (self._booked(row, 0) for row in self._rows.values() if not is_ahead(row)),
            )
            roll_up = RollUp(self._buckets, self._newest_minute or 0)
            cells = roll_up.cells(contributions)
            self._known = _Base(cells, roll_up.visits(self._visits), running, reports)
        return self._known

    def _booked(self, row: Row, booked_minute: int) -> Contribution:
        newest_minute = self._newest_minute or 0
        return row_contribution(row, self._buckets, newest_minute, booked_minute, self._rates)

    def _with_running(self, base: _Base, booked_minute: int) -> dict[Subject, Cells]:
        """Return the cells with the bills of a time to come, as far as they are booked."""
        if not base.running:
            return base.cells
        running = RollUp(self._buckets, self._newest_minute or 0).cells(
            self._booked(row, booked_minute) for row in base.running
        )
        cells = dict(base.cells)
        for subject, by_grain in running.items():
            cells[subject] = sum_of(cells.get(subject, {}), by_grain)
        return without_empty(cells)


def _channels(subjects: Iterable[Subject]) -> dict[str, frozenset[str]]:
    by_basis: dict[str, set[str]] = {}
    for basis, scope in subjects:
        if scope.channel is not None:
            by_basis.setdefault(basis, set()).add(scope.channel)
    return {basis: frozenset(channels) for basis, channels in by_basis.items()}


def _by_scope(events: Iterable[TargetSet | TargetRemoved]) -> dict[Scope, tuple[Target, ...]]:
    """Return the targets that are not removed, in an order of their own."""
    targets: dict[Scope, list[Target]] = {}
    for event in events:
        if isinstance(event, TargetSet):
            scope = Scope(event.channel, event.campaign_id)
            targets.setdefault(scope, []).append(Target.of(event))
    return {
        scope: tuple(
            sorted(of_scope, key=lambda target: (target.kpi, target.period, target.start_minute))
        )
        for scope, of_scope in targets.items()
    }


def _targets_of(targets: Iterable[Target]) -> Targets:
    of_scope = Targets()
    for target in targets:
        of_scope.put((target.kpi, target.period, str(target.start_minute)), target)
    return of_scope
