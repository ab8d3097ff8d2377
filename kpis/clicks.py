"""Clicks with a `click_id`: counted once, made invalid by a void, asked by leads without a channel.

Source: contract, sections 2 ("Identity and duplicates", click.voided) and 3 ("Lead").
"""

from msgspec import Struct

from kpis.calendar import MINUTE_MS
from kpis.contributions import Contribution, Place, count
from kpis.events import ClickRecorded
from kpis.facts import PERIOD
from kpis.orders import Outcome, content_of, order_of
from kpis.remembered import FirstEvent, begins_anew, take_first
from kpis.retention import Grain


class Attribution(Struct, frozen=True, array_like=True, gc=False):
    """Where a lead comes from."""

    channel: str
    campaign_id: str


class Earlier(Struct, frozen=True, array_like=True, gc=False):
    """A click that was forgotten before the one that counts now began."""

    timestamp_ms: int
    attribution: Attribution


class Click(Struct, array_like=True):
    """One `click_id` while it is remembered.

    `timestamp_ms` is the smallest of its clicks' records, `voided_ms` are those of its voids, as far
    as they matter, ascending. `asks` are the leads that ask, with the timestamps of their creations;
    who means one of the `earlier` clicks with this id may ask after the next one was read.
    """

    first: FirstEvent | None = None
    timestamp_ms: int | None = None
    voided_ms: list[int] = []
    asks: dict[str, int] = {}
    earlier: list[Earlier] = []


def take_click(click: Click, event: ClickRecorded, timestamp_ms: int, keep_ms: int) -> Outcome:
    """Take a click; the first in the common order counts, whatever was read first.

    Within `keep_ms` of the smallest timestamp a second click has no effect; after that it is a new
    one (see `begins_anew`).
    """
    if begins_anew(click, timestamp_ms, keep_ms):
        _forget(click, timestamp_ms, keep_ms)
    first = FirstEvent(
        order_of(event.envelope),
        event.channel,
        event.campaign_id,
        event.is_bot,
        content_of(event),
    )
    return take_first(click, first, timestamp_ms)


def void_click(click: Click, timestamp_ms: int, keep_ms: int) -> Outcome:
    """Take a `click.voided`, which may come before its click."""
    was_void, known = _is_void(click, keep_ms), timestamp_ms in click.voided_ms
    if not known:
        click.voided_ms = _without_needless(sorted((*click.voided_ms, timestamp_ms)), keep_ms)
    if click.first is None:
        return Outcome.DUPLICATE if known else Outcome.PARKED
    return Outcome.ACCEPTED if _is_void(click, keep_ms) and not was_void else Outcome.DUPLICATE


def ask_click(click: Click, lead_id: str, timestamp_ms: int) -> None:
    """Remember that a lead asks; `timestamp_ms` is that of its creation."""
    click.asks[lead_id] = timestamp_ms


def answer(click: Click, lead_id: str, keep_ms: int, park_ms: int) -> Attribution | None:
    """Return what the click answers a lead that asked; None if it is not known to that lead."""
    asked_ms = click.asks[lead_id]
    for earlier in click.earlier:
        if _is_known(earlier.timestamp_ms, asked_ms, keep_ms, park_ms):
            return earlier.attribution
    if click.first is None or not _is_known(click.timestamp_ms, asked_ms, keep_ms, park_ms):
        return None
    return _attribution(click.first)


def answers(click: Click, keep_ms: int, park_ms: int) -> dict[str, Attribution | None]:
    """Return what the click answers everyone who asked; None where it is not known to a lead."""
    return {lead_id: answer(click, lead_id, keep_ms, park_ms) for lead_id in click.asks}


def forget_ms(click: Click, keep_ms: int, park_ms: int) -> int:
    """Return from which `complete_until` on the click may be forgotten: nothing can change it then."""
    ends = [voided_ms + keep_ms for voided_ms in click.voided_ms]
    if click.timestamp_ms is not None:
        ends.append(click.timestamp_ms + keep_ms)
    # A click at the very end of the wait would still be in time.
    ends += (
        asked_ms + park_ms + 1
        for lead_id, asked_ms in click.asks.items()
        if answer(click, lead_id, keep_ms, park_ms) is None
    )
    return max(ends, default=0)


def click_contribution(click: Click, keep_ms: int) -> Contribution:
    """Return what a click adds: a void one counts as invalid in its own window."""
    result: Contribution = {}
    first = click.first
    if first is not None:
        minute = first.order.at_ms // MINUTE_MS
        place = Place(PERIOD, first.channel, first.campaign_id, Grain.MINUTE, minute)
        is_valid = not first.is_bot and not _is_void(click, keep_ms)
        count(result, place, "clicks" if is_valid else "invalid_clicks")
    return result


def _is_known(at_ms: int | None, asked_ms: int, keep_ms: int, park_ms: int) -> bool:
    return at_ms is not None and at_ms - park_ms <= asked_ms < at_ms + keep_ms


def _attribution(first: FirstEvent) -> Attribution:
    return Attribution(first.channel, first.campaign_id)


def _is_void(click: Click, keep_ms: int) -> bool:
    at_ms = click.timestamp_ms
    return at_ms is not None and any(abs(v - at_ms) < keep_ms for v in click.voided_ms)


def _without_needless(voided_ms: list[int], keep_ms: int) -> list[int]:
    """Leave out the voids that reach no click that those before and after do not reach."""
    kept = voided_ms[:1]
    for here, after in zip(voided_ms[1:], [*voided_ms[2:], None], strict=False):
        if after is None or after - kept[-1] >= 2 * keep_ms:
            kept.append(here)
    return kept


def _forget(click: Click, timestamp_ms: int, keep_ms: int) -> None:
    if click.first is not None and click.timestamp_ms is not None:
        forgotten = Earlier(click.timestamp_ms, _attribution(click.first))
        click.earlier = [*click.earlier, forgotten]
    click.first = click.timestamp_ms = None
    click.voided_ms = [v for v in click.voided_ms if v > timestamp_ms - keep_ms]
