"""Cost records and report rows: the newest row of a natural key counts, spread over its minutes.

Source: contract, sections 2 ("Amounts", "Identity and duplicates", "Order") and 3 ("Cost and report
rows").
"""

from msgspec import Struct

from kpis.calendar import MINUTE_MS, Calendar
from kpis.contributions import Contribution, Place
from kpis.events import IMPRESSIONS_REPORTED, CostDeleted, CostSnapshot, CountsReported
from kpis.facts import COHORT, PERIOD, Facts, add
from kpis.fx import Rates
from kpis.orders import Outcome, correction_order
from kpis.retention import Buckets
from kpis.spread import Spread, spread

Report = CostSnapshot | CountsReported
RowEvent = Report | CostDeleted


class Row(Struct, array_like=True):
    """One cost record or report row; its newest event may be a deletion."""

    newest: RowEvent


def natural_key(event: RowEvent) -> tuple[str, ...]:
    """Return what makes two rows the same record, the period's instants as milliseconds."""
    # Channels that are counted as `other` are different ones all the same.
    channel = event.declared_channel or event.channel
    dimensions = (channel, event.campaign_id, event.ad_group_id, event.ad_id)
    period = (str(event.start_ms), str(event.end_ms))
    if isinstance(event, CountsReported):
        return (event.kind, event.envelope.source, *dimensions, *period)
    credit = "credit" if event.credit else ""
    return (event.cost_source, event.account_id, *dimensions, event.cost_type, *period, credit)


def restate(known: Row | None, event: RowEvent) -> tuple[Row, Outcome]:
    """Return the row after `event`: the newer of the two in correction order, and what the event did."""
    if known is None or correction_order(event) > correction_order(known.newest):
        return Row(event), Outcome.ACCEPTED
    return known, Outcome.DUPLICATE


# ----------------------------------------------------------------------------- about a row


def is_ahead(row: Row | None) -> bool:
    """Tell whether a row was reported before all of it was spent: it counts as time reaches it."""
    report = _report(row)
    return report is not None and report.as_of_ms > report.reported_ms


def end_minute(row: Row | None) -> int:
    """Return the minute after the last one that a row covers; 0 if it counts nothing."""
    report = _report(row)
    return 0 if report is None else _spread(report).end_minute


def reported(row: Row | None) -> tuple[str, int] | None:
    """Return a cost row's channel and the minute up to which its cost is known; None for other rows.

    Source: contract, section 3, `cost_complete_until`; nobody knows more than when it was reported.
    """
    report = _report(row)
    if not isinstance(report, CostSnapshot):
        return None
    return report.channel, min(report.as_of_ms, report.reported_ms) // MINUTE_MS


def currency_of(row: Row | None) -> str | None:
    """Return the currency of a cost row; None for other rows."""
    report = _report(row)
    return report.currency if isinstance(report, CostSnapshot) else None


def days(row: Row | None, calendar: Calendar) -> range:
    """Return the ordinals of the business days that a row covers."""
    report = _report(row)
    if report is None:
        return range(0)
    parts = _spread(report)
    first = calendar.ordinal(parts.start_minute)
    return range(first, calendar.ordinal(parts.end_minute - 1) + 1)


# ----------------------------------------------------------------------------- contributions


def row_contribution(
    row: Row | None, buckets: Buckets, newest_minute: int, booked_minute: int, rates: Rates
) -> Contribution:
    """Return what a row adds, in buckets of the finest grain that is kept at `newest_minute`.

    Of a row that is ahead only the minutes before `booked_minute`.
    """
    report = _report(row)
    if report is None:
        return {}
    parts = _spread(report)
    stop = min(parts.end_minute, booked_minute) if is_ahead(row) else parts.end_minute
    return _counted(report, parts, parts.start_minute, stop, buckets, newest_minute, rates)


def booked_between(
    row: Row | None,
    buckets: Buckets,
    newest_minute: int,
    from_minute: int,
    to_minute: int,
    rates: Rates,
) -> Contribution:
    """Return what a row adds when the booked minute goes from one to a later one.

    It looks only at what lies between; nothing for a row that is not ahead.
    """
    report = _report(row)
    if report is None or not is_ahead(row):
        return {}
    parts = _spread(report)
    first, stop = max(parts.start_minute, from_minute), min(parts.end_minute, to_minute)
    return _counted(report, parts, first, stop, buckets, newest_minute, rates)


def _report(row: Row | None) -> Report | None:
    if row is None or isinstance(row.newest, CostDeleted):
        return None
    return row.newest


def _spread(report: Report) -> Spread:
    amount = report.amount_micros if isinstance(report, CostSnapshot) else report.count
    return spread(report.start_ms, report.as_of_ms, amount)


def _counted(
    report: Report,
    parts: Spread,
    first: int,
    stop: int,
    buckets: Buckets,
    newest_minute: int,
    rates: Rates,
) -> Contribution:
    result: Contribution = {}
    if first >= stop:
        return result
    is_cost = isinstance(report, CostSnapshot)
    foreign = None
    if isinstance(report, CostSnapshot) and report.currency != rates.reporting_currency:
        foreign = rates.convert_bill(report.currency, parts)
    for grain, bucket, begin, end in buckets.cut(first, stop, newest_minute):
        amount, unknown = (
            (parts.between(begin, end), 0) if foreign is None else foreign.between(begin, end)
        )
        facts = _facts(report, amount, end - begin, unknown)
        for basis in (PERIOD, COHORT) if is_cost else (PERIOD,):
            place = Place(basis, report.channel, report.campaign_id, grain, bucket)
            add(result.setdefault(place, {}), facts)
    return {place: facts for place, facts in result.items() if facts}


def _facts(report: Report, amount: int, minutes: int, unknown: int) -> Facts:
    if isinstance(report, CostSnapshot):
        media = amount if report.cost_type == "media" else 0
        return {
            "cost": amount,
            "cost_media": media,
            "cost_records": minutes,
            "fx_missing": unknown,
        }
    return {"impressions" if report.kind == IMPRESSIONS_REPORTED else "clicks": amount}
