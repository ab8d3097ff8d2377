"""What the shards tell each other through `<app>-entities` and `<app>-deltas`."""

import zlib
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from kpis.contributions import Contribution, Place
from kpis.events import (
    ClickRecorded,
    CostSnapshot,
    CountsReported,
    LeadCreated,
    LeadInvalidated,
    LeadStageChanged,
    SaleCreated,
    SaleVoided,
)
from kpis.facts import OVERALL, Facts, Scope, add, narrow
from kpis.journeys import SaleState
from kpis.spend import natural_key

if TYPE_CHECKING:
    from kpis.retention import Grain

PERIOD: Final = "period"
OVERALL_SHARD: Final = 0

EntityEvent = (
    ClickRecorded
    | CountsReported
    | LeadCreated
    | LeadInvalidated
    | LeadStageChanged
    | SaleCreated
    | SaleVoided
    | CostSnapshot
)


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


class Envelope(Struct, frozen=True, array_like=True):
    """Some items from one shard's commit, and how far that shard had got.

    `mark_ms`: everything that arrived before it is in this record or an earlier one; None unless the
    record is the last of its commit. `newest_minute`: the newest event time the sender has seen.
    `arrived_ms`: when the first of what is behind the items arrived.
    """

    sender: int
    stage: str
    mark_ms: int | None
    newest_minute: int
    arrived_ms: int | None
    items: list[Raw]


class Delta(Struct, frozen=True, array_like=True, gc=False):
    """What to add to the facts of one scope in one bucket, and in the coarser ones that contain it."""

    basis: str
    channel: str | None
    campaign_id: str | None
    grain: int
    bucket: int
    facts: dict[str, int | str]


encode = msgspec.msgpack.Encoder().encode
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
decode_entity_item = msgspec.msgpack.Decoder(Forwarded | SaleTold).decode
decode_delta = msgspec.msgpack.Decoder(Delta).decode


def shard_of(key: bytes, partitions: int) -> int:
    """Return the shard that holds an entity or a campaign scope."""
    return zlib.crc32(key) % partitions


def shard_of_scope(scope: Scope, partitions: int) -> int:
    """Return the shard of a scope; channels live with the whole, so that coverage can be told there."""
    if scope.campaign_id is None:
        return OVERALL_SHARD
    return shard_of(f"{scope.channel}\0{scope.campaign_id}".encode(), partitions)


def entity_key(event: EntityEvent) -> bytes:
    """Return the key of the entity that an event belongs to."""
    match event:
        case LeadCreated() | LeadInvalidated() | LeadStageChanged():
            return b"l" + event.lead_id.encode()
        case SaleCreated() | SaleVoided():
            return b"s" + event.sale_id.encode()
        case ClickRecorded():
            return b"c" + str(event.click_id).encode()
        case _:
            return b"r" + msgspec.msgpack.encode(natural_key(event))


class Deltas:
    """Contributions, summed per place until they are sent for the three scopes of each."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._sums: dict[Place, Facts] = {}

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, contribution: Contribution) -> None:
        """Add a contribution."""
        for place, facts in contribution.items():
            add(self._sums.setdefault(place, {}), facts)

    def add_one(self, place: Place, names: tuple[str, ...], amount: int) -> None:
        """Add `amount` to each of the named facts of a place."""
        facts = self._sums.setdefault(place, {})
        for name in names:
            facts[name] = facts.get(name, 0) + amount

    def take(self) -> dict[int, list[Delta]]:
        """Return the deltas by shard: of campaigns, and rolled up to channels and the whole."""
        wider: dict[tuple[str | None, Grain, int], Facts] = {}
        by_shard: dict[int, list[Delta]] = {}
        for (channel, campaign_id, grain, bucket), facts in self._sums.items():
            if not facts:
                continue
            add(wider.setdefault((channel, grain, bucket), {}), facts)
            add(wider.setdefault((None, grain, bucket), {}), facts)
            shard = shard_of_scope(Scope(channel, campaign_id), self._partitions)
            delta = Delta(PERIOD, channel, campaign_id, grain, bucket, narrow(facts))
            by_shard.setdefault(shard, []).append(delta)
        for (wide, grain, bucket), facts in wider.items():
            if facts:
                delta = Delta(PERIOD, wide, OVERALL.campaign_id, grain, bucket, narrow(facts))
                by_shard.setdefault(OVERALL_SHARD, []).append(delta)
        self._sums = {}
        return by_shard
