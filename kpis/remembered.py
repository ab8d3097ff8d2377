"""What is recognised by its id for some days: the first event counts, and a repeat has no effect.

Source: contract, section 2, "Identity and duplicates".
"""

from typing import Protocol, TypeVar

from msgspec import Struct

from kpis.orders import Order, Outcome, outcome_of, smaller


class FirstEvent(Struct, frozen=True, array_like=True, gc=False):
    """The event that counts: the first in the common order of those with the same id."""

    order: Order
    channel: str
    campaign_id: str
    is_bot: bool
    content: int


First = TypeVar("First", bound=FirstEvent)


class Remembered(Protocol[First]):
    """What is known under one id; `timestamp_ms` is the smallest of its events' records."""

    first: First | None
    timestamp_ms: int | None


def begins_anew(known: Remembered[First], timestamp_ms: int, keep_ms: int) -> bool:
    """Return whether an event with this timestamp finds the known one forgotten.

    What the forgotten one counts then stays: the new one replaces it, and the caller must not take
    its contribution back.
    """
    return known.timestamp_ms is not None and timestamp_ms >= known.timestamp_ms + keep_ms


def take_first(known: Remembered[First], event: First, timestamp_ms: int) -> Outcome:
    """Take an event with the same id: the first in the common order counts, whatever was read first."""
    outcome = outcome_of(None if known.first is None else known.first.content, event.content)
    if known.first is None or event.order < known.first.order:
        known.first = event
    known.timestamp_ms = smaller(known.timestamp_ms, timestamp_ms)
    return outcome
