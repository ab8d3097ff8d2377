"""Cost records and report rows: the newest row of a natural key counts, spread over its minutes.

Source: contract, sections 2 ("Identity and duplicates", "Order") and 3 ("Cost and report rows").
"""

from msgspec import Struct

from kpis.contributions import Contribution, Place, count
from kpis.events import IMPRESSIONS_REPORTED, CostSnapshot, CountsReported
from kpis.journeys import Outcome
from kpis.retention import Buckets
from kpis.spread import spread

Report = CostSnapshot | CountsReported


class Row(Struct, array_like=True):
    """One cost record or report row."""

    newest: Report


def natural_key(event: Report) -> tuple[str, ...]:
    """Return what makes two rows the same record, the period's instants as milliseconds."""
    # Channels that are counted as `other` are different ones all the same.
    channel = event.declared_channel or event.channel
    dimensions = (channel, event.campaign_id, event.ad_group_id, event.ad_id)
    period = (str(event.start_ms), str(event.end_ms))
    if isinstance(event, CountsReported):
        return (event.kind, event.envelope.source, *dimensions, *period)
    credit = "credit" if event.credit else ""
    return (event.cost_source, event.account_id, *dimensions, event.cost_type, *period, credit)


def restate(known: Row | None, event: Report) -> tuple[Row, Outcome]:
    """Return the row after `event`: the newer of the two in correction order, and what the event did."""
    if known is None:
        return Row(event), Outcome.ACCEPTED
    if _correction_order(event) > _correction_order(known.newest):
        return Row(event), Outcome.ACCEPTED
    return known, Outcome.DUPLICATE


def row_contribution(row: Row | None, buckets: Buckets, newest_minute: int) -> Contribution:
    """Return what a row adds, in buckets of the finest grain that is kept at `newest_minute`."""
    result: Contribution = {}
    if row is None:
        return result
    event = row.newest
    amount = event.amount_micros if isinstance(event, CostSnapshot) else event.count
    parts = spread(event.start_ms, event.as_of_ms, amount)
    for grain, bucket, first, stop in buckets.cut(
        parts.start_minute, parts.end_minute, newest_minute
    ):
        place = Place(event.channel, event.campaign_id, grain, bucket)
        _count_part(result, place, event, parts.between(first, stop), stop - first)
    return result


def _count_part(result: Contribution, place: Place, event: Report, part: int, minutes: int) -> None:
    if isinstance(event, CostSnapshot):
        count(result, place, "cost", part)
        count(result, place, "cost_media", part if event.cost_type == "media" else 0)
        count(result, place, "cost_records", minutes)
    else:
        fact = "impressions" if event.kind == IMPRESSIONS_REPORTED else "clicks"
        count(result, place, fact, part)


def _correction_order(event: Report) -> tuple[int, str, str, bytes]:
    envelope = event.envelope
    written_ms = event.reported_ms if envelope.recorded_ms is None else envelope.recorded_ms
    return written_ms, envelope.source, envelope.event_id, envelope.digest
