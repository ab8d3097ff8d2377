"""Records for the tests of whole streams: few ids, so that they meet; times around changes of the clock."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.fold import Fold, FoldResult
from kpis.journeys import Funnel
from kpis.reading import Rules
from kpis.retention import Retention

DAY_MS = 86_400_000
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
) -> FoldResult:
    fold = Fold(Rules(time_zone=zone), Funnel(), Calendar(zone), retention, PARK_MS, KEEP_MS)
    for topic, value, timestamp_ms in records:
        # The position follows from the content: a permuted stream has the same rejects.
        fold.add(topic, 0, hash((topic, value, timestamp_ms)), value, timestamp_ms)
    return fold.result(complete_until_ms)


def _delays() -> st.SearchStrategy[int]:
    return st.sampled_from((0, 1, 59_999, 3 * 3_600_000, 6 * DAY_MS, 7 * DAY_MS, 8 * DAY_MS))


_CHANNELS = st.sampled_from((None, "google_ads", "seo"))
_CAMPAIGNS = st.sampled_from((None, "c-1", "c-2"))
_LEADS = st.sampled_from(("l1", "l2"))
_SALES = st.sampled_from(("s1", "s2", "s3"))
_STAGES = st.sampled_from(("visitor", "lead", "mql", "sql", "customer"))
_KINDS: tuple[tuple[str, str, dict[str, st.SearchStrategy[Any]]], ...] = (
    (
        "impressions",
        "impression.served",
        {
            "channel": _CHANNELS,
            "campaign_id": _CAMPAIGNS,
            "is_bot": st.booleans(),
            "viewable": st.booleans(),
        },
    ),
    (
        "clicks",
        "click.recorded",
        {
            "click_id": st.sampled_from((None, "k1", "k2")),
            "channel": _CHANNELS,
            "campaign_id": _CAMPAIGNS,
            "is_bot": st.booleans(),
        },
    ),
    (
        "leads",
        "lead.created",
        {
            "lead_id": _LEADS,
            "channel": _CHANNELS,
            "campaign_id": _CAMPAIGNS,
            "initial_stage": st.one_of(st.none(), _STAGES),
        },
    ),
    ("leads", "lead.invalidated", {"lead_id": _LEADS, "reason": st.just("spam")}),
    ("stage-changes", "lead.stage_changed", {"lead_id": _LEADS, "to_stage": _STAGES}),
    (
        "sales",
        "sale.created",
        {
            "sale_id": _SALES,
            "lead_id": st.one_of(st.none(), _LEADS),
            "amount": st.integers(0, 9).map(str),
            "currency": st.just("EUR"),
            "kind": st.sampled_from((None, "new", "repeat")),
        },
    ),
    ("sales", "sale.voided", {"sale_id": _SALES}),
)


@st.composite
def singles(draw: st.DrawFn, zone: ZoneInfo = PARIS) -> Record:
    """Draw an event around a change of the clocks of `zone`."""
    topic, type_name, fields = draw(st.sampled_from(_KINDS))
    change = draw(st.sampled_from(CHANGES[zone]))
    at_ms = change + draw(st.integers(-40, 40)) * 17 * MINUTE_MS
    return record(
        topic,
        type_name,
        at_ms,
        draw(_delays()),
        event_id=draw(st.sampled_from(("e1", "e2", "e3"))),
        **{name: draw(field) for name, field in fields.items()},
    )


@st.composite
def rows(draw: st.DrawFn, zone: ZoneInfo = PARIS) -> Record:
    """Draw a cost record or a report row over hours or days around a change of the clocks."""
    change = draw(st.sampled_from(CHANGES[zone]))
    start_ms = change + draw(st.sampled_from((-30, -1, 0))) * 3_600_000
    end_ms = start_ms + draw(st.sampled_from((1, 90, 60 * 60))) * MINUTE_MS
    common: dict[str, Any] = {
        "channel": draw(st.sampled_from(("google_ads", "seo"))),
        "campaign_id": draw(_CAMPAIGNS),
        "period_start": text(start_ms),
        "period_end": text(end_ms),
        "reported_at": text(end_ms + draw(st.integers(0, 3))),
        "event_id": draw(st.sampled_from(("e1", "e2", "e3"))),
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


def any_records(zone: ZoneInfo = PARIS, max_size: int = 14) -> st.SearchStrategy[list[Record]]:
    """Draw a stream."""
    one = st.one_of(singles(zone), singles(zone), singles(zone), rows(zone))
    return st.lists(one, max_size=max_size)
