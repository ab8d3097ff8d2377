"""Impressions with an `impression_id`, where they are deduplicated: counted once.

Nobody asks them and nothing makes them invalid later, so little of them is remembered.

Source: contract, section 2, "Identity and duplicates".
"""

from msgspec import Struct

from kpis.calendar import MINUTE_MS
from kpis.contributions import Contribution, Place, count
from kpis.events import ImpressionServed
from kpis.facts import PERIOD
from kpis.orders import Outcome, content_of, order_of
from kpis.remembered import FirstEvent, begins_anew, take_first
from kpis.retention import Grain
from kpis.volume import volume_facts


class FirstImpression(FirstEvent, frozen=True, array_like=True, gc=False):
    """The impression that counts."""

    viewable: bool


class Impression(Struct, array_like=True):
    """One `impression_id` while it is remembered; `timestamp_ms` is the smallest of its records."""

    first: FirstImpression | None = None
    timestamp_ms: int | None = None


def take_impression(
    impression: Impression, event: ImpressionServed, timestamp_ms: int, keep_ms: int
) -> Outcome:
    """Take an impression; the first in the common order counts, whatever was read first.

    Within `keep_ms` of the smallest timestamp a second one has no effect; after that it is a new one
    (see `begins_anew`).
    """
    if begins_anew(impression, timestamp_ms, keep_ms):
        impression.first = impression.timestamp_ms = None
    first = FirstImpression(
        order_of(event.envelope),
        event.channel,
        event.campaign_id,
        event.is_bot,
        content_of(event),
        event.viewable,
    )
    return take_first(impression, first, timestamp_ms)


def forget_impression_ms(impression: Impression, keep_ms: int) -> int:
    """Return from which `complete_until` on the impression may be forgotten."""
    return 0 if impression.timestamp_ms is None else impression.timestamp_ms + keep_ms


def impression_contribution(impression: Impression) -> Contribution:
    """Return what an impression adds, at its minute."""
    result: Contribution = {}
    first = impression.first
    if first is not None:
        minute = first.order.at_ms // MINUTE_MS
        place = Place(PERIOD, first.channel, first.campaign_id, Grain.MINUTE, minute)
        for name in volume_facts("impressions", is_bot=first.is_bot, viewable=first.viewable):
            count(result, place, name)
    return result
