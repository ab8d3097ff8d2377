"""What all entities share: how their events are ordered, what an event did, and what waits.

State keeps what the set of events says, never the order in which they were read: the same events in
any order and number give the same state, and a contribution is computed from the state alone.

Source: contract, sections 2 ("Identity and duplicates", "Order") and 3 ("Parked").
"""

import zlib
from enum import Enum
from typing import Protocol

from msgspec import Struct, msgpack, structs

from kpis.events import (
    ClickRecorded,
    Envelope,
    Event,
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
)

_DIGEST_BYTES = 4


class Outcome(Enum):
    """What an event did to its entity, by the name under which it is counted.

    REJECTED: it is among what `take_mismatches` returns, and is counted when it is rejected.
    """

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    PARKED = "parked"
    REJECTED = "rejected"


class Order(Struct, frozen=True, array_like=True, gc=False, order=True):
    """An event's place among those of its entity.

    `at_ms` is when it happened; in the order of corrections when it was written down. `digest` is
    the beginning of the SHA-256 of the record's value: it only matters between two events that agree
    in everything before it.
    """

    at_ms: int
    source: str
    event_id: str
    digest: int


class Waiting(Struct, frozen=True, array_like=True):
    """An event that names an entity, with its record's timestamp and what a reject of it needs."""

    event: (
        LeadUpdated
        | LeadDisqualified
        | LeadRequalified
        | LeadInvalidated
        | LeadMerged
        | LeadStageChanged
        | SaleAmended
        | SaleRefunded
        | SaleCancelled
        | SaleVoided
    )
    timestamp_ms: int
    topic: str
    partition: int
    offset: int
    raw: bytes


class _Parking(Protocol):
    waiting: list[Waiting]


def order_of(envelope: Envelope) -> Order:
    """Return an event's place in the common order."""
    return _order(envelope.occurred_ms, envelope)


def correction_order(event: Event) -> Order:
    """Return an event's place in the order in which corrections and the newest of something win."""
    envelope = event.envelope
    written_ms: int | None = envelope.recorded_ms
    if written_ms is None:
        written_ms = getattr(event, "reported_ms", None)
    return _order(envelope.occurred_ms if written_ms is None else written_ms, envelope)


def _order(at_ms: int, envelope: Envelope) -> Order:
    digest = int.from_bytes(envelope.digest[:_DIGEST_BYTES])
    return Order(at_ms, envelope.source, envelope.event_id, digest)


def content_of(event: LeadCreated | SaleCreated | ClickRecorded | ImpressionServed) -> int:
    """Return a checksum of everything but the envelope: two that differ contradict each other."""
    return zlib.crc32(msgpack.encode(structs.astuple(event)[1:]))


def outcome_of(known_content: int | None, content: int) -> Outcome:
    """Return what one more `created`, click or impression does, by its content and that of what is known."""
    if known_content is None:
        return Outcome.ACCEPTED
    return Outcome.DUPLICATE if content == known_content else Outcome.CONFLICT


def smaller(known: int | None, new: int) -> int:
    """Return the smaller of two numbers, the first of which may be missing."""
    return new if known is None else min(known, new)


def later(known: Order | None, new: Order) -> bool:
    """Return whether `new` comes after what is known, if anything is."""
    return known is None or known < new


def is_reached(created_timestamp_ms: int | None, told: Waiting, park_ms: int) -> bool:
    """Return whether the `created` of an entity is early enough for what was told about it."""
    return created_timestamp_ms is not None and created_timestamp_ms <= told.timestamp_ms + park_ms


def take_orphans(entity: _Parking, complete_until_ms: int, park_ms: int) -> list[Waiting]:
    """Take out of `entity` the parked events that no `created` can reach any more.

    An event is an orphan exactly if no `created` has a timestamp up to `park_ms` after its own,
    which is known once everything up to then has been read.
    """
    orphans = [t for t in entity.waiting if t.timestamp_ms + park_ms < complete_until_ms]
    if orphans:
        entity.waiting = [
            t for t in entity.waiting if t.timestamp_ms + park_ms >= complete_until_ms
        ]
    return orphans
