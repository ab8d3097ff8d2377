"""When a window's record goes to the ledger, as which revision, and what caused it.

Source: contract, section 6.
"""

from enum import IntEnum
from typing import Final, NamedTuple

from msgspec import Struct, msgpack

from kpis.events import (
    CostDeleted,
    CostSnapshot,
    Event,
    FxRateSet,
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
from kpis.facts import Facts
from kpis.packing import pack, unpack

REVISION_MS: Final = 60_000
"""A window has at most one revision in this time."""

OUTCOME_MS: Final = 24 * 3_600_000
"""Mere outcomes of a cohort appear in the ledger once in this time."""


class Cause(IntEnum):
    """Why a window changed; of several causes the greatest counts."""

    OUTCOME = 1
    LATE_EVENT = 2
    LEAD_CORRECTED = 3
    SALE_CORRECTED = 4
    COST_RESTATED = 5
    FX_RESTATED = 6

    @property
    def label(self) -> str:
        """Return the name that records and metrics carry."""
        return self.name.lower()


class Causes(NamedTuple):
    """Why windows of each basis change."""

    period: Cause
    cohort: Cause


_LATE: Final = Causes(Cause.LATE_EVENT, Cause.LATE_EVENT)
_JOURNEY: Final = Causes(Cause.LATE_EVENT, Cause.OUTCOME)
_LEAD: Final = Causes(Cause.LEAD_CORRECTED, Cause.LEAD_CORRECTED)
_SALE: Final = Causes(Cause.SALE_CORRECTED, Cause.SALE_CORRECTED)
_COST: Final = Causes(Cause.COST_RESTATED, Cause.COST_RESTATED)
_FX: Final = Causes(Cause.FX_RESTATED, Cause.FX_RESTATED)


def causes_of(event: Event, *, replaces: bool = False) -> Causes:
    """Return why the windows that `event` counts in change, on each basis.

    Args:
        event: The event.
        replaces: Whether it is a row that takes the place of an older one.
    """
    match event:
        case LeadStageChanged() | SaleCreated() | SaleRefunded() | SaleCancelled():
            return _JOURNEY
        case (
            LeadUpdated()
            | LeadInvalidated()
            | LeadMerged()
            | LeadDisqualified()
            | LeadRequalified()
        ):
            return _LEAD
        case SaleAmended() | SaleVoided():
            return _SALE
        case CostSnapshot():
            return _COST if replaces else _LATE
        case CostDeleted():
            return _COST
        case FxRateSet():
            return _FX
        case _:
            return _LATE


class Entry(NamedTuple):
    """What is known of a window that is in the ledger.

    `revision` was the last one issued, at `issued_ms`. `cause` is why it changed since, 0 if it did
    not; `facts` are those of the last revision if it did, else None.
    """

    revision: int
    issued_ms: int
    cause: int = 0
    facts: Facts | None = None


def opened(now_ms: int) -> Entry:
    """Return the entry of a window that becomes final now."""
    return Entry(1, now_ms)


def changed(entry: Entry, cause: Cause, facts_before: Facts) -> Entry:
    """Return the entry after a change; `facts_before` are the window's facts before it."""
    if entry.cause:
        return entry if cause <= entry.cause else entry._replace(cause=int(cause))
    return entry._replace(cause=int(cause), facts=facts_before)


def due_ms(entry: Entry) -> int | None:
    """Return when the next revision may be issued at the earliest, None without a change."""
    if not entry.cause:
        return None
    return entry.issued_ms + (OUTCOME_MS if entry.cause == Cause.OUTCOME else REVISION_MS)


def is_due(entry: Entry, now_ms: int) -> bool:
    """Tell whether there is a change and it is time for the next revision.

    A clock that was set back does not hold up revisions.
    """
    due = due_ms(entry)
    return due is not None and (now_ms >= due or now_ms < entry.issued_ms)


def issued(entry: Entry, now_ms: int, facts: Facts) -> Entry:
    """Return the entry after a changed window with these facts was issued.

    Its revision is one more, unless the facts are the same again: then there is nothing to issue.
    """
    if facts == (entry.facts or {}):
        return Entry(entry.revision, entry.issued_ms)
    return Entry(entry.revision + 1, now_ms)


# ----------------------------------------------------------------------------- rows

_SECOND_MS: Final = 1_000


class _Row(Struct, frozen=True, array_like=True, gc=False):
    revision: int
    issued_s: int
    cause: int = 0
    facts: bytes = b""


_encode = msgpack.Encoder().encode
_decode_row = msgpack.Decoder(_Row).decode


def encode_entry(entry: Entry) -> bytes:
    """Return an entry as a row: seven bytes if it is a first revision without a change since.

    The instant is rounded up to seconds, so that a revision is rather a little later than too early.
    """
    issued_s = -(-entry.issued_ms // _SECOND_MS)
    if not entry.cause:
        return _encode((entry.revision, issued_s))
    return _encode((entry.revision, issued_s, int(entry.cause), pack(entry.facts or {})))


def decode_entry(row: bytes) -> Entry:
    """Return the entry that `encode_entry` was given."""
    stored = _decode_row(row)
    return Entry(
        stored.revision,
        stored.issued_s * _SECOND_MS,
        stored.cause,
        unpack(stored.facts) if stored.cause else None,
    )
