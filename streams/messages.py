"""What the shards tell each other through `<app>-entities` and `<app>-deltas`."""

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from kpis.clicks import Attribution
from kpis.contributions import Contribution, Place
from kpis.decomposition import CampaignTold
from kpis.events import (
    ClickRecorded,
    ClickVoided,
    CostDeleted,
    CostSnapshot,
    CountsReported,
    FxRateSet,
    ImpressionServed,
    LeadCreated,
    LeadDisqualified,
    LeadInvalidated,
    LeadMerged,
    LeadRequalified,
    LeadStageChanged,
    LeadUpdated,
    SaleAmended,
    SaleCancelled,
    SaleCreated,
    SaleRefunded,
    SaleVoided,
    TargetRemoved,
    TargetSet,
)
from kpis.facts import OVERALL, PERIOD, Facts, Scope, add, narrow
from kpis.ids import packed_id, unpacked_id
from kpis.leads import Journey
from kpis.ledger import Cause, Causes
from kpis.sales import SaleState
from kpis.spend import natural_key
from kpis.targets import Target
from kpis.visitors import Sketch

if TYPE_CHECKING:
    from kpis.retention import Grain

OVERALL_SHARD: Final = 0

_LEAD: Final = b"l"
_PACKED_LEAD: Final = b"L"

LeadEvent = (
    LeadCreated
    | LeadUpdated
    | LeadDisqualified
    | LeadRequalified
    | LeadInvalidated
    | LeadMerged
    | LeadStageChanged
)
SaleEvent = SaleCreated | SaleAmended | SaleRefunded | SaleCancelled | SaleVoided
ClickEvent = ClickRecorded | ClickVoided
RowEvent = CostSnapshot | CostDeleted | CountsReported
TargetEvent = TargetSet | TargetRemoved

EntityEvent = (
    LeadEvent | SaleEvent | ClickEvent | ImpressionServed | RowEvent | TargetEvent | FxRateSet
)

MAY_WAIT: Final = (
    LeadUpdated,
    LeadDisqualified,
    LeadRequalified,
    LeadInvalidated,
    LeadMerged,
    LeadStageChanged,
    SaleAmended,
    SaleRefunded,
    SaleCancelled,
    SaleVoided,
)
"""What names a lead or sale, and waits for its `created`."""

# ----------------------------------------------------------------------------- to entities


class Forwarded(Struct, frozen=True, array_like=True, tag="f"):
    """An accepted event on its way to its entity; `topic` is the short name.

    `raw` is the record's value where a reject may still need it: of events that may be parked.
    """

    event: EntityEvent
    timestamp_ms: int
    topic: str
    partition: int
    offset: int
    raw: bytes


class SaleTold(Struct, frozen=True, array_like=True, tag="t"):
    """What a sale tells its lead; a state of None takes the sale away."""

    lead_id: str
    sale_id: str
    state: SaleState | None
    causes: Causes


class JourneyTold(Struct, frozen=True, array_like=True, tag="j"):
    """What a merged lead tells the one it became part of; a journey of None takes it away."""

    root_id: str
    lead_id: str
    journey: Journey | None
    causes: Causes


class PointerTold(Struct, frozen=True, array_like=True, tag="p"):
    """Into which lead a lead was merged, told to every shard; None: into none."""

    lead_id: str
    into_lead_id: str | None


class ClickAsked(Struct, frozen=True, array_like=True, tag="a"):
    """A lead without a channel asks the click it names; the timestamp is that of its creation."""

    click_id: str
    lead_id: str
    timestamp_ms: int


class ClickTold(Struct, frozen=True, array_like=True, tag="c"):
    """What a click answers; None: no such click is known."""

    lead_id: str
    click_id: str
    attribution: Attribution | None


EntityItem = Forwarded | SaleTold | JourneyTold | PointerTold | ClickAsked | ClickTold

# ----------------------------------------------------------------------------- to merge


class Delta(Struct, frozen=True, array_like=True, gc=False, tag="d"):
    """What to add to the facts of one scope in one bucket, and in the coarser ones that contain it.

    `cause` is that of a revision, should a window that is final contain the bucket; `visitors` is a
    sketch to be merged.
    """

    basis: str
    channel: str | None
    campaign_id: str | None
    grain: int
    bucket: int
    cause: int
    facts: dict[str, int | str]
    visitors: bytes | None = None


class Reported(Struct, frozen=True, array_like=True, gc=False, tag="r"):
    """How many more cost rows of a channel tell of everything up to `minute`; told to every shard."""

    channel: str
    minute: int
    count: int


class TargetTold(Struct, frozen=True, array_like=True, tag="g"):
    """A target of a scope; None: there is none any more. `key` is its natural key."""

    channel: str | None
    campaign_id: str | None
    key: tuple[str, ...]
    target: Target | None


class CampaignsTold(Struct, frozen=True, array_like=True, gc=False, tag="k"):
    """Which campaigns of a shard spent most above their usual; told to the shard of the channels."""

    shard: int
    campaigns: tuple[CampaignTold, ...]


MergeItem = Delta | Reported | TargetTold | CampaignsTold


class Envelope(Struct, frozen=True, array_like=True):
    """Some items from one shard's commit, and how far that shard had got.

    `marks`: everything that arrived before the first is in this record or an earlier one; the n-th
    says the same of what came of it after n hops between entities. Empty unless the record is the
    last of its commit. `newest_minute`: the newest event time the sender has seen. `arrived_ms`: when
    the first of what is behind the items arrived.
    """

    sender: int
    stage: str
    marks: tuple[int, ...]
    newest_minute: int
    arrived_ms: int | None
    items: list[Raw]


encode = msgspec.msgpack.Encoder().encode
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
decode_entity_item: Callable[[Raw], EntityItem] = msgspec.msgpack.Decoder(EntityItem).decode
decode_merge_item: Callable[[Raw], MergeItem] = msgspec.msgpack.Decoder(MergeItem).decode


def shard_of(key: bytes, partitions: int) -> int:
    """Return the shard that holds an entity or a campaign scope."""
    return zlib.crc32(key) % partitions


def shard_of_scope(scope: Scope, partitions: int) -> int:
    """Return the shard of a scope; channels live with the whole, so that coverage can be told there."""
    if scope.campaign_id is None:
        return OVERALL_SHARD
    return shard_of(f"{scope.channel}\0{scope.campaign_id}".encode(), partitions)


def lead_key(lead_id: str) -> bytes:
    """Return the key of a lead; a deployment remembers them all, so it is short."""
    packed = packed_id(lead_id)
    return _LEAD + packed.encode() if isinstance(packed, str) else _PACKED_LEAD + packed


def lead_id_of(key: bytes) -> str:
    """Return the lead whose `lead_key` this is."""
    kind, rest = key[:1], key[1:]
    return unpacked_id(rest) if kind == _PACKED_LEAD else rest.decode()


def click_key(click_id: str) -> bytes:
    """Return the key of a click."""
    return b"c" + click_id.encode()


def entity_key(event: EntityEvent) -> bytes:
    """Return the key of the entity that an event belongs to.

    Raises:
        TypeError: for a rate, which belongs to every shard.
    """
    match event:
        case ClickRecorded() | ClickVoided():
            return click_key(str(event.click_id))
        case ImpressionServed():
            return b"i" + str(event.impression_id).encode()
        case CostSnapshot() | CostDeleted() | CountsReported():
            return b"r" + encode(natural_key(event))
        case TargetSet() | TargetRemoved():
            return b"g" + encode(target_key(event))
        case FxRateSet():
            msg = "entity_key: expected an event of one entity, got a rate"
            raise TypeError(msg)
        case SaleCreated() | SaleAmended() | SaleRefunded() | SaleCancelled() | SaleVoided():
            return b"s" + event.sale_id.encode()
        case _:
            return lead_key(event.lead_id)


def target_key(event: TargetEvent) -> tuple[str, ...]:
    """Return what makes two targets the same one."""
    scope = (event.channel or "", event.campaign_id or "")
    return (event.kpi, *scope, event.period, str(event.start_minute))


class Deltas:
    """Contributions, summed per cause and place until they are sent for the three scopes of each."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._sums: dict[tuple[Cause, Place], Facts] = {}
        self._visitors: dict[Place, Sketch] = {}
        self._others: dict[int, list[object]] = {}

    def __bool__(self) -> bool:
        return bool(self._sums or self._visitors or self._others)

    def add(self, contribution: Contribution, causes: Causes) -> None:
        """Add a contribution."""
        for place, facts in contribution.items():
            cause = causes.period if place.basis == PERIOD else causes.cohort
            add(self._sums.setdefault((cause, place), {}), facts)

    def add_one(self, place: Place, names: tuple[str, ...], amount: int) -> None:
        """Add `amount` of something that came by itself to each of the named facts of a place."""
        facts = self._sums.setdefault((Cause.LATE_EVENT, place), {})
        for name in names:
            facts[name] = facts.get(name, 0) + amount

    def add_visitor(self, place: Place, visitor_id: str) -> None:
        """Count a visitor at a place."""
        sketch = self._visitors.get(place)
        if sketch is None:
            sketch = self._visitors[place] = Sketch()
        sketch.update(visitor_id)

    def tell(self, shard: int, item: object) -> None:
        """Send an item that is no delta to a shard."""
        self._others.setdefault(shard, []).append(item)

    def tell_all(self, item: object) -> None:
        """Send an item that is no delta to every shard."""
        for shard in range(self._partitions):
            self.tell(shard, item)

    def take(self) -> dict[int, list[object]]:
        """Return what to send by shard: the deltas of campaigns, of channels and of the whole."""
        by_shard, self._others = self._others, {}
        wider: dict[tuple[Cause, str, str | None, Grain, int], Facts] = {}
        for (cause, place), facts in self._sums.items():
            if not facts:
                continue
            basis, channel, campaign_id, grain, bucket = place
            add(wider.setdefault((cause, basis, channel, grain, bucket), {}), facts)
            add(wider.setdefault((cause, basis, None, grain, bucket), {}), facts)
            shard = shard_of_scope(Scope(channel, campaign_id), self._partitions)
            delta = Delta(basis, channel, campaign_id, grain, bucket, cause, narrow(facts))
            by_shard.setdefault(shard, []).append(delta)
        # The whole first: merge remembers it with what its channels still are.
        of_all_first = sorted(wider.items(), key=lambda item: item[0][2] is not None)
        for (cause, basis, wide, grain, bucket), facts in of_all_first:
            if facts:
                delta = Delta(basis, wide, OVERALL.campaign_id, grain, bucket, cause, narrow(facts))
                by_shard.setdefault(OVERALL_SHARD, []).append(delta)
        self._take_visitors(by_shard)
        self._sums = {}
        return by_shard

    def _take_visitors(self, by_shard: dict[int, list[object]]) -> None:
        sketches: dict[tuple[Scope, str, Grain, int], Sketch] = {}
        for (basis, channel, campaign_id, grain, bucket), sketch in self._visitors.items():
            packed = sketch.to_bytes()
            for scope in (Scope(channel, campaign_id), Scope(channel, None), OVERALL):
                wide = sketches.setdefault((scope, basis, grain, bucket), Sketch())
                wide.merge(packed)
        for (scope, basis, grain, bucket), sketch in sketches.items():
            shard = shard_of_scope(scope, self._partitions)
            delta = Delta(basis, *scope, grain, bucket, Cause.LATE_EVENT, {}, sketch.to_bytes())
            by_shard.setdefault(shard, []).append(delta)
        self._visitors = {}
