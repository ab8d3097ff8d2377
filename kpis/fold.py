"""All facts from all input records at once: what the running pipeline must arrive at.

There are no deltas, no shards and no commits here: every entity's events are kept, and each
entity is asked once, at the end, what it adds. `leadpulse verify` compares this with what was published.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kpis.calendar import MINUTE_MS, Calendar
from kpis.contributions import Contribution, Place
from kpis.events import (
    ClickRecorded,
    CostSnapshot,
    CountsReported,
    Event,
    ImpressionServed,
    LeadCreated,
    LeadInvalidated,
    LeadStageChanged,
    SaleCreated,
    SaleVoided,
    newest_ms,
)
from kpis.facts import OVERALL, Facts, Scope, add
from kpis.journeys import (
    Click,
    Funnel,
    Lead,
    Outcome,
    Sale,
    Waiting,
    attach_sale,
    click,
    click_contribution,
    create_lead,
    create_sale,
    lead_contribution,
    sale_contribution,
    state_for_lead,
    take_orphans,
    tell_lead,
    tell_sale,
)
from kpis.reading import Ignored, Refused, Rules, read
from kpis.retention import LIFETIME_BUCKET, Buckets, Grain, Retention
from kpis.spend import Row, natural_key, restate, row_contribution
from kpis.windows import Window

GRAIN_OF_WINDOW: Final[Mapping[str, Grain]] = {
    "1m": Grain.MINUTE,
    "1h": Grain.HOUR,
    "1d": Grain.DAY,
    "lifetime": Grain.LIFETIME,
    "last_1h": Grain.MINUTE,
    "last_24h": Grain.HOUR,
}
"""Of which stored cells a window is the sum. Source: contract, section 1."""

_MANY_CELLS: Final = 500_000


class Reject(NamedTuple):
    """A record that was refused, by the short name of its topic; `reason` as in contract, section 8."""

    topic: str
    partition: int
    offset: int
    reason: str


Cells = dict[Grain, dict[int, Facts]]
"""The facts of one scope by grain and bucket; none that are empty."""


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What a set of records comes to.

    Only buckets that are kept at `newest_minute` are in `cells`. `records` = accepted + test +
    ignored + rejects; an orphan is a reject.
    """

    cells: Mapping[Scope, Cells]
    channels: frozenset[str]
    newest_minute: int | None
    records: int
    accepted: int
    test: int
    ignored: int
    rejects: list[Reject]

    def facts(self, scope: Scope, grain: Grain, bucket: int) -> Facts:
        """Return the facts of one cell; empty if there are none."""
        return self.cells.get(scope, {}).get(grain, {}).get(bucket, {})


@dataclass(slots=True)
class _Entity:
    """The events of one lead or sale with their records' timestamps, in the order of reading."""

    created: list[tuple[LeadCreated | SaleCreated, int]] = field(default_factory=list)
    told: list[Waiting] = field(default_factory=list)


class Fold:
    """Takes every record of the input topics, in any order.

    Args:
        rules: What is accepted.
        funnel: The stages.
        calendar: The hours and days of the reporting zone.
        retention: How long each grain is kept.
        park_ms: How long an event waits for the `created` of its lead or sale.
        keep_ms: How long a `click_id` is remembered.
    """

    def __init__(
        self,
        rules: Rules,
        funnel: Funnel,
        calendar: Calendar,
        retention: Retention,
        park_ms: int,
        keep_ms: int,
    ) -> None:
        self._rules = rules
        self._funnel = funnel
        self._buckets = Buckets(calendar, retention)
        self._park_ms = park_ms
        self._keep_ms = keep_ms
        self._volume: Contribution = {}
        self._many = _MANY_CELLS
        self._clicks: dict[str, list[tuple[int, ClickRecorded]]] = {}
        self._leads: dict[str, _Entity] = {}
        self._sales: dict[str, _Entity] = {}
        self._rows: dict[tuple[str, ...], Row] = {}
        self._newest_ms: int | None = None
        self._records = 0
        self._test = 0
        self._ignored = 0
        self._refused: list[Reject] = []

    def add(
        self, topic: str, partition: int, offset: int, value: bytes | None, timestamp_ms: int
    ) -> None:
        """Take one record; `topic` is the short name."""
        self._records += 1
        try:
            reading = read(topic, value, timestamp_ms, self._rules)
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

    def result(self, complete_until_ms: int | None = None) -> FoldResult:
        """Return what the records so far come to.

        Args:
            complete_until_ms: Every record with a timestamp before it has been added; decides who
                is an orphan. None if nothing is known: then nobody is.
        """
        newest_minute = None if self._newest_ms is None else self._newest_ms // MINUTE_MS
        leads, sales = self._entities()
        contributions = [lead_contribution(lead, self._funnel) for lead in leads.values()]
        contributions += (sale_contribution(sale) for sale in sales.values())
        cells: dict[Scope, Cells] = {}
        if newest_minute is not None:
            contributions.append(self._volume)
            contributions += self._click_contributions()
            contributions += (
                row_contribution(row, self._buckets, newest_minute) for row in self._rows.values()
            )
            cells = self._rolled_up(contributions, newest_minute)
        orphans = (
            [] if complete_until_ms is None else self._orphans(leads, sales, complete_until_ms)
        )
        rejects = sorted([*self._refused, *orphans])
        return FoldResult(
            cells=cells,
            channels=frozenset(scope.channel for scope in cells if scope.channel is not None),
            newest_minute=newest_minute,
            records=self._records,
            accepted=self._records - len(rejects) - self._test - self._ignored,
            test=self._test,
            ignored=self._ignored,
            rejects=rejects,
        )

    def orphans(self, complete_until_ms: int) -> list[Reject]:
        """Return the orphans among the rejects of `result(complete_until_ms)`."""
        return sorted(self._orphans(*self._entities(), complete_until_ms))

    @property
    def records(self) -> int:
        """How many records were added."""
        return self._records

    # ------------------------------------------------------------------------- taking

    def _take(
        self, event: Event, timestamp_ms: int, topic: str, partition: int, offset: int
    ) -> None:
        if isinstance(event, ImpressionServed):
            self._count_impression(event)
        elif isinstance(event, ClickRecorded):
            if event.click_id is None:
                self._count(event, "invalid_clicks" if event.is_bot else "clicks")
            else:
                self._clicks.setdefault(event.click_id, []).append((timestamp_ms, event))
        elif isinstance(event, CountsReported | CostSnapshot):
            key = natural_key(event)
            self._rows[key], _ = restate(self._rows.get(key), event)
        elif isinstance(event, LeadCreated | SaleCreated):
            self._entity(event).created.append((event, timestamp_ms))
        else:
            told = Waiting(event, timestamp_ms, topic, partition, offset, b"")
            self._entity(event).told.append(told)

    def _entity(
        self, event: LeadCreated | LeadInvalidated | LeadStageChanged | SaleCreated | SaleVoided
    ) -> _Entity:
        if isinstance(event, SaleCreated | SaleVoided):
            return self._sales.setdefault(event.sale_id, _Entity())
        return self._leads.setdefault(event.lead_id, _Entity())

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
        place = Place(event.channel, event.campaign_id, Grain.MINUTE, minute)
        facts = self._volume.setdefault(place, {})
        facts[name] = facts.get(name, 0) + 1
        if len(self._volume) > self._many:
            self._coarsen()

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

    def _click_contributions(self) -> Iterator[Contribution]:
        for clicks in self._clicks.values():
            known: Click | None = None
            for timestamp_ms, event in sorted(clicks, key=lambda told: told[0]):
                # A second click has no effect for a while; after that the id is new.
                previous = known
                known, outcome = click(previous, event, timestamp_ms, self._keep_ms)
                if outcome is Outcome.ACCEPTED:
                    yield click_contribution(previous)
            yield click_contribution(known)

    def _entities(self) -> tuple[dict[str, Lead], dict[str, Sale]]:
        leads = {lead_id: self._lead(entity) for lead_id, entity in self._leads.items()}
        sales = {sale_id: self._sale(entity) for sale_id, entity in self._sales.items()}
        for sale_id, sale in sales.items():
            if sale.created is not None and sale.created.lead_id is not None:
                lead = leads.setdefault(sale.created.lead_id, Lead())
                attach_sale(lead, sale_id, state_for_lead(sale))
        return leads, sales

    def _orphans(
        self, leads: dict[str, Lead], sales: dict[str, Sale], complete_until_ms: int
    ) -> list[Reject]:
        return [
            Reject(told.topic, told.partition, told.offset, reason)
            for reason, entities in (("orphan_lead", leads), ("orphan_sale", sales))
            for entity in entities.values()
            for told in take_orphans(entity, complete_until_ms, self._park_ms)
        ]

    def _lead(self, entity: _Entity) -> Lead:
        lead = Lead()
        for event, timestamp_ms in entity.created:
            if isinstance(event, LeadCreated):
                create_lead(lead, event, timestamp_ms, self._park_ms)
        for told in entity.told:
            tell_lead(lead, told, self._park_ms)
        return lead

    def _sale(self, entity: _Entity) -> Sale:
        sale = Sale()
        for event, timestamp_ms in entity.created:
            if isinstance(event, SaleCreated):
                create_sale(sale, event, timestamp_ms, self._park_ms)
        for told in entity.told:
            tell_sale(sale, told, self._park_ms)
        return sale

    def _rolled_up(
        self, contributions: Iterable[Contribution], newest_minute: int
    ) -> dict[Scope, Cells]:
        cells: dict[Scope, Cells] = {}
        for contribution in contributions:
            for place, facts in contribution.items():
                for grain, bucket in self._coarser(place, newest_minute):
                    for scope in scopes_of(place.channel, place.campaign_id):
                        of_grain = cells.setdefault(scope, {}).setdefault(grain, {})
                        add(of_grain.setdefault(bucket, {}), facts)
        return _without_empty(cells)

    def _coarser(self, place: Place, newest_minute: int) -> Iterator[tuple[Grain, int]]:
        for grain in Grain:
            if grain is Grain.LIFETIME:
                yield grain, LIFETIME_BUCKET
            elif grain >= place.grain:
                bucket = self._buckets.start(grain, place.bucket)
                if self._buckets.is_kept(grain, bucket, newest_minute):
                    yield grain, bucket


def scopes_of(channel: str, campaign_id: str) -> tuple[Scope, Scope, Scope]:
    """Return the scopes in which facts of a campaign count."""
    return Scope(channel, campaign_id), Scope(channel, None), OVERALL


def window_facts(result: FoldResult, scope: Scope, window: Window) -> Facts:
    """Return the facts of a scope in a window; of a rolling one, in its own start and end."""
    grain = GRAIN_OF_WINDOW[window.kind]
    buckets = result.cells.get(scope, {}).get(grain, {})
    if window.start_minute is None or window.end_minute is None:
        return dict(buckets.get(LIFETIME_BUCKET, {}))
    if not window.kind.startswith("last_"):
        return dict(buckets.get(window.start_minute, {}))
    total: Facts = {}
    for bucket, facts in buckets.items():
        if window.start_minute <= bucket < window.end_minute:
            add(total, facts)
    return total


def channels_with_facts(result: FoldResult, scope: Scope, window: Window) -> frozenset[str]:
    """Return the channels of a scope that have any fact in the window."""
    channels = result.channels if scope.channel is None else {scope.channel}
    return frozenset(
        channel
        for channel in channels
        if window_facts(result, Scope(channel, scope.campaign_id), window)
    )


def is_cost_expected(
    result: FoldResult, scope: Scope, window: Window, expects_cost: Callable[[str], bool]
) -> bool:
    """Return whether a channel of the scope with any fact in the window expects cost.

    Source: contract, section 5, the paragraph below the table.
    """
    return any(map(expects_cost, channels_with_facts(result, scope, window)))


def _without_empty(cells: dict[Scope, Cells]) -> dict[Scope, Cells]:
    """Leave out cells whose facts came to nothing."""
    kept: dict[Scope, Cells] = {}
    for scope, by_grain in cells.items():
        for grain, buckets in by_grain.items():
            full = {bucket: facts for bucket, facts in buckets.items() if facts}
            if full:
                kept.setdefault(scope, {})[grain] = full
    return kept
