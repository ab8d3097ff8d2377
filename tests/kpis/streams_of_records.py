"""Records for the tests of whole streams: few ids, so that they meet; times around changes of the clock."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.fold import Fold, FoldResult
from kpis.leads import Funnel
from kpis.reading import Rules
from kpis.retention import Retention

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
PARK_MS = KEEP_MS = 7 * DAY_MS
PARIS = ZoneInfo("Europe/Paris")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
ALL_KEPT = Retention(minutes=10**7, hours=10**7, days=10**7)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


CHANGES = {
    PARIS: (ms("2026-03-29T01:00:00Z"), ms("2026-10-25T01:00:00Z")),
    LORD_HOWE: (ms("2026-04-04T15:00:00Z"), ms("2026-10-03T15:30:00Z")),
}
"""When the clocks change, by zone: an hour in Paris, half an hour on Lord Howe Island."""


class Record(NamedTuple):
    topic: str
    value: bytes
    timestamp_ms: int


def text(at_ms: int) -> str:
    return (EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")


def record(topic: str, type_name: str, at_ms: int, delay_ms: int = 0, **fields: object) -> Record:
    """Return a record that happened at `at_ms` and arrived `delay_ms` later; None leaves a field out."""
    fields.setdefault("event_id", f"e{at_ms}")
    value: dict[str, object] = {"source": "/crm", "type": type_name, "occurred_at": text(at_ms)}
    value |= {name: field for name, field in fields.items() if field is not None}
    return Record(topic, json.dumps(value).encode(), at_ms + delay_ms)


def fold_of(
    records: Sequence[Record],
    zone: ZoneInfo = PARIS,
    retention: Retention = ALL_KEPT,
    complete_until_ms: int | None = None,
    *,
    dedup: bool = False,
) -> FoldResult:
    rules = Rules(time_zone=zone, dedup_impressions=dedup)
    fold = Fold(rules, Funnel(), Calendar(zone), retention, PARK_MS, KEEP_MS)
    for topic, value, timestamp_ms in records:
        # The position follows from the content: a permuted stream has the same rejects.
        fold.add(topic, 0, hash((topic, value, timestamp_ms)), value, timestamp_ms)
    return fold.result(complete_until_ms)


def _delays() -> st.SearchStrategy[int]:
    return st.sampled_from((0, 1, 59_999, 3 * HOUR_MS, 6 * DAY_MS, 7 * DAY_MS, 8 * DAY_MS))


# ----------------------------------------------------------------------------- single events

_CHANNELS = st.sampled_from((None, "google_ads", "seo"))
_CAMPAIGNS = st.sampled_from((None, "c-1", "c-2"))
_PLACE = {"channel": _CHANNELS, "campaign_id": _CAMPAIGNS}
_CLICKS = st.sampled_from(("k1", "k2"))
# Three leads are enough for a chain and for a circle of mergers.
_LEADS = st.sampled_from(("l1", "l2", "l3"))
_SALES = st.sampled_from(("s1", "s2", "s3"))
_STAGES = st.sampled_from(("visitor", "lead", "mql", "sql", "customer"))
# There is never a rate for the last one.
_CURRENCIES = st.sampled_from(("EUR", "EUR", "EUR", "USD", "USD", "JPY"))
_AMOUNTS = st.sampled_from(("0", "1", "2", "7", "9.999999", "3.333333", "0.000001"))
_PAID = {"amount": _AMOUNTS, "currency": _CURRENCIES}

Strategies = Mapping[str, st.SearchStrategy[Any]]
_Kinds = tuple[tuple[str, str, Strategies], ...]
_KINDS: _Kinds = (
    (
        "impressions",
        "impression.served",
        {
            **_PLACE,
            "impression_id": st.sampled_from((None, "i1", "i2")),
            "is_bot": st.booleans(),
            "viewable": st.booleans(),
        },
    ),
    (
        "clicks",
        "click.recorded",
        {**_PLACE, "click_id": st.one_of(st.none(), _CLICKS), "is_bot": st.booleans()},
    ),
    ("clicks", "click.voided", {"click_id": _CLICKS}),
    (
        "visits",
        "visit.started",
        {
            **_PLACE,
            "visit_id": st.just("w1"),
            "visitor_id": st.sampled_from(("v1", "v2", "v3")),
            "is_bot": st.booleans(),
        },
    ),
    (
        "leads",
        "lead.created",
        {
            **_PLACE,
            "lead_id": _LEADS,
            "click_id": st.one_of(st.none(), _CLICKS),
            "initial_stage": st.one_of(st.none(), _STAGES),
        },
    ),
    ("leads", "lead.updated", {**_PLACE, "lead_id": _LEADS}),
    ("leads", "lead.disqualified", {"lead_id": _LEADS}),
    ("leads", "lead.requalified", {"lead_id": _LEADS}),
    ("leads", "lead.invalidated", {"lead_id": _LEADS, "reason": st.just("spam")}),
    ("leads", "lead.merged", {"lead_id": _LEADS, "into_lead_id": _LEADS}),
    ("stage-changes", "lead.stage_changed", {"lead_id": _LEADS, "to_stage": _STAGES}),
    (
        "sales",
        "sale.created",
        {
            **_PAID,
            "sale_id": _SALES,
            "lead_id": st.one_of(st.none(), _LEADS),
            "kind": st.sampled_from((None, "new", "repeat")),
        },
    ),
    ("sales", "sale.amended", {**_PAID, "sale_id": _SALES}),
    (
        "sales",
        "sale.refunded",
        {
            "amount": _AMOUNTS.filter(lambda amount: amount != "0"),
            "currency": _CURRENCIES,
            "sale_id": _SALES,
            "refund_id": st.sampled_from(("r1", "r2")),
        },
    ),
    ("sales", "sale.cancelled", {"sale_id": _SALES}),
    ("sales", "sale.voided", {"sale_id": _SALES}),
)
# What all others wait for comes more often.
_DRAWN_KINDS = _KINDS + tuple(kind for kind in _KINDS if kind[1].endswith(".created")) * 3
_CORRECTIONS = frozenset(("lead.updated", "lead.merged", "sale.amended"))
_EVENT_IDS = st.sampled_from(("e1", "e2", "e3"))
# What happens to a lead later, some of it beyond the horizon of its cohort.
_LATER_DAYS = st.sampled_from((0, 0, 0, 1, 29, 31, 60))


@st.composite
def singles(draw: st.DrawFn, zone: ZoneInfo = PARIS, kinds: _Kinds = _DRAWN_KINDS) -> Record:
    """Draw an event around a change of the clocks of `zone`, or up to two months later."""
    topic, type_name, fields = draw(st.sampled_from(kinds))
    at_ms = draw(st.sampled_from(CHANGES[zone])) + draw(st.integers(-40, 40)) * 17 * MINUTE_MS
    if topic in {"stage-changes", "sales"}:
        at_ms += draw(_LATER_DAYS) * DAY_MS
    drawn = {name: draw(field) for name, field in fields.items()}
    if type_name in _CORRECTIONS:
        # Corrections are ordered by when they were written down.
        drawn["recorded_at"] = text(at_ms + draw(st.integers(0, 2)) * MINUTE_MS)
    delay_ms = draw(_delays())
    return record(topic, type_name, at_ms, delay_ms, event_id=draw(_EVENT_IDS), **drawn)


# ----------------------------------------------------------------------------- rows, rates, targets


@st.composite
def rows(draw: st.DrawFn, zone: ZoneInfo = PARIS) -> Record:
    """Draw a cost record or a report row over hours or days around a change of the clocks.

    It is in the reporting currency, and was reported when its period was over.
    """
    change = draw(st.sampled_from(CHANGES[zone]))
    start_ms = change + draw(st.sampled_from((-30, -1, 0))) * HOUR_MS
    end_ms = start_ms + draw(st.sampled_from((1, 90, 60 * 60))) * MINUTE_MS
    common: dict[str, Any] = {
        "channel": draw(st.sampled_from(("google_ads", "seo"))),
        "campaign_id": draw(_CAMPAIGNS),
        "period_start": text(start_ms),
        "period_end": text(end_ms),
        "reported_at": text(end_ms + draw(st.integers(0, 3))),
        "event_id": draw(_EVENT_IDS),
    }
    if draw(st.booleans()):
        return record(
            "costs",
            "cost.snapshot",
            end_ms,
            **common,
            cost_source="ads",
            cost_type=draw(st.sampled_from(("media", "fee"))),
            amount=str(draw(st.integers(0, 10**7))),
            currency="EUR",
        )
    topic = draw(st.sampled_from(("impressions", "clicks")))
    return record(topic, f"{topic}.reported", end_ms, **common, count=draw(st.integers(0, 10**5)))


@st.composite
def bills(draw: st.DrawFn, zone: ZoneInfo = PARIS) -> list[Record]:
    """Draw what is told of one cost record: snapshots and deletions, some of them ahead of their time."""
    change = draw(st.sampled_from(CHANGES[zone]))
    start_ms = change + draw(st.sampled_from((-30, -1, 0))) * HOUR_MS
    end_ms = start_ms + draw(st.sampled_from((1, 90, 60 * 60))) * MINUTE_MS
    is_credit = draw(st.booleans())
    key: dict[str, Any] = {
        "cost_source": "ads",
        "cost_type": draw(st.sampled_from(("media", "media", "fee"))),
        "channel": draw(st.sampled_from(("google_ads", "seo"))),
        "campaign_id": draw(_CAMPAIGNS),
        "period_start": text(start_ms),
        "period_end": text(end_ms),
        "credit": is_credit or None,
    }
    return [
        draw(_told_of_bill(key, (start_ms, end_ms), is_credit=is_credit))
        for _ in range(draw(st.integers(1, 3)))
    ]


@st.composite
def _told_of_bill(
    draw: st.DrawFn, key: Mapping[str, Any], period: tuple[int, int], *, is_credit: bool
) -> Record:
    start_ms, end_ms = period
    middle_ms = (start_ms + end_ms) // 2
    # Before it begins, as it begins, while it runs, when it is over.
    reported_ms = draw(st.sampled_from((start_ms - HOUR_MS, start_ms, middle_ms, end_ms)))
    common = {**key, "event_id": draw(_EVENT_IDS), "reported_at": text(reported_ms)}
    delay_ms = draw(_delays())
    if draw(st.integers(0, 3)) == 0:
        return record("costs", "cost.deleted", reported_ms, delay_ms, **common)
    as_of_ms = draw(st.sampled_from((None, None, None, start_ms, middle_ms, end_ms)))
    return record(
        "costs",
        "cost.snapshot",
        reported_ms,
        delay_ms,
        **common,
        as_of=None if as_of_ms is None else text(as_of_ms),
        amount=("-" if is_credit and draw(st.booleans()) else "") + draw(_AMOUNTS),
        currency=draw(_CURRENCIES),
    )


@st.composite
def rates(draw: st.DrawFn, zone: ZoneInfo = PARIS) -> Record:
    """Draw a rate of the dollar, either way round, of a day around a change of the clocks of `zone`."""
    change = draw(st.sampled_from(CHANGES[zone]))
    day = EPOCH + timedelta(milliseconds=change) + timedelta(days=draw(st.integers(-9, 3)))
    base, quote = draw(st.sampled_from((("USD", "EUR"), ("EUR", "USD"))))
    return record(
        "fx-rates",
        "fxrate.set",
        change + draw(st.integers(0, 3)) * HOUR_MS,
        draw(_delays()),
        event_id=draw(_EVENT_IDS),
        base=base,
        quote=quote,
        date=day.date().isoformat(),
        rate=draw(st.sampled_from(("0.92", "1.1", "3", "0.333333333333"))),
    )


@st.composite
def targets(draw: st.DrawFn, zone: ZoneInfo = PARIS) -> Record:
    """Draw a target, or the removal of one, of a period around a change of the clocks of `zone`."""
    change = draw(st.sampled_from(CHANGES[zone]))
    at_ms = change + draw(st.integers(0, 3)) * HOUR_MS
    day = (EPOCH + timedelta(milliseconds=change)).astimezone(zone).date()
    first = {
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
        "quarter": day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1),
    }
    period = draw(st.sampled_from(sorted(first)))
    channel = draw(_CHANNELS)
    key: dict[str, Any] = {
        "kpi": draw(st.sampled_from(("leads", "sales", "cost", "cpl", "stage_entered.mql"))),
        "channel": channel,
        "campaign_id": None if channel is None else draw(_CAMPAIGNS),
        "period": period,
        "period_start": first[period].isoformat(),
        "reported_at": text(at_ms),
        "event_id": draw(_EVENT_IDS),
    }
    if draw(st.integers(0, 3)) == 0:
        return record("targets", "target.removed", at_ms, draw(_delays()), **key)
    return record(
        "targets",
        "target.set",
        at_ms,
        draw(_delays()),
        **key,
        value=draw(st.sampled_from((1, "2.5", 40))),
        currency="EUR",
        profile=draw(st.sampled_from((None, "business_days"))),
    )


def any_records(zone: ZoneInfo = PARIS, max_size: int = 14) -> st.SearchStrategy[list[Record]]:
    """Draw a stream of at most `max_size` things that are told; a bill is told up to three times."""
    alone = (*[singles(zone)] * 8, rows(zone), rates(zone), rates(zone), targets(zone))
    one = st.one_of(*(told.map(lambda told: [told]) for told in alone), bills(zone))
    return st.lists(one, max_size=max_size).map(lambda groups: [*chain.from_iterable(groups)])


def any_impressions(max_size: int = 6) -> st.SearchStrategy[list[Record]]:
    """Draw a stream of impressions, so few of them different that ids meet."""
    return st.lists(singles(kinds=_KINDS[:1]), max_size=max_size)
