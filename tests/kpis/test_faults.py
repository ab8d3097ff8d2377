"""Each fault of a record has its one reason and field (contract, section 8)."""

from collections.abc import Mapping

import pytest

from kpis.events import (
    TOPICS,
)
from kpis.reading import (
    Ignored,
    Refused,
    read,
)
from tests.kpis.records import (
    ABSENT,
    NOON,
    NOON_MS,
    OPTIONAL,
    REQUIRED,
    RULES,
    a_record,
    reading_of,
    refusal_of,
)

LONG = "x" * 257
BAD_TIMES = (
    *("2026-03-05T12:00:00", "2026-03-05", 1772712000, 1772712000.5, "1772712000"),
    *("1999-12-31T23:59:59Z", "2101-01-01T00:00:00Z", "yesterday", " "),
)
WRONG_INTEGERS: tuple[object, ...] = ("12", 12.0, True, [], {}, "x")
BAD_AMOUNTS = (
    *("1.1234567", "1000000000000.000001", 10**12 + 1, "1e3", 1e300, 1e-7, 0.1234567),
    *("1,000.00", "1 000", "+1", "abc", " "),
)
WRONG_DECIMALS: tuple[object, ...] = (True, ["1"], {})
WITH_MONEY = ("sale.created", "sale.amended", "sale.refunded", "cost.snapshot")
WITH_CHANNEL = (
    *("impression.served", "click.recorded", "visit.started", "lead.created", "lead.updated"),
    *("cost.snapshot", "cost.deleted", "clicks.reported", "target.set", "target.removed"),
)
REPORTED = tuple(name for name, fields in REQUIRED.items() if "reported_at" in fields)
# A number is a way to write these, or the wrong way to write a time.
NUMERIC = frozenset(
    (
        *("amount", "cost_of_goods", "count", "value", "rate"),
        *("as_of", "recorded_at", "reported_at", "period_start", "period_end", "date"),
    )
)

FAULTS: list[tuple[str, Mapping[str, object], str, str]] = [
    # field missing, null or empty where required
    *(
        (name, {field: nothing}, "missing_currency" if field == "currency" else "missing_field", field)
        for name, fields in REQUIRED.items()
        for field in ("event_id", "source", "occurred_at", *fields)
        for nothing in (ABSENT, None, "")
    ),
    # wrong type
    *(
        (name, {field: wrong}, "wrong_type", field)
        for name in REQUIRED
        for field, wrong in (
            *(("event_id", 7), ("source", ["x"]), ("type", 7), ("schema_version", 1.0)),
            *(("occurred_at", True), ("occurred_at", {}), ("recorded_at", []), ("test", "true")),
            *(("test", 1), ("test", 0)),
        )
    ),
    *(
        (name, {"count": wrong}, "wrong_type", "count")
        for name in ("impressions.reported", "clicks.reported")
        for wrong in WRONG_INTEGERS
    ),
    *(
        (name, {field: 7}, "wrong_type", field)
        for name, fields in OPTIONAL.items()
        for field in fields
        if field not in NUMERIC
    ),
    *(
        (name, {field: 7}, "wrong_type", field)
        for name, fields in REQUIRED.items()
        for field in fields
        if field not in NUMERIC
    ),
    *(
        (name, {field: wrong}, "wrong_type", field)
        for name, field in (
            *((name, "amount") for name in WITH_MONEY),
            ("sale.created", "cost_of_goods"),
            ("target.set", "value"),
            ("fxrate.set", "rate"),
        )
        for wrong in WRONG_DECIMALS
    ),
    ("target.set", {"kpi": "cost", "currency": 978}, "wrong_type", "currency"),
    # unknown type, unknown major version
    ("lead.created", {"type": "lead.created.v2"}, "unknown_type", "type"),
    ("lead.created", {"type": "sale.created"}, "unknown_type", "type"),
    ("lead.created", {"type": "lead.stage_changed"}, "unknown_type", "type"),
    ("visit.started", {"type": "click.recorded"}, "unknown_type", "type"),
    ("target.set", {"type": "fxrate.set"}, "unknown_type", "type"),
    ("lead.created", {"schema_version": "2.0"}, "unsupported_version", "schema_version"),
    ("lead.created", {"schema_version": "0.9"}, "unsupported_version", "schema_version"),
    ("lead.created", {"schema_version": "1"}, "bad_value", "schema_version"),
    ("lead.created", {"schema_version": "v1.0"}, "bad_value", "schema_version"),
    # times
    *(("lead.created", {"occurred_at": time}, "bad_time", "occurred_at") for time in BAD_TIMES),
    *(("lead.created", {"recorded_at": time}, "bad_time", "recorded_at") for time in BAD_TIMES),
    *(
        (name, {"reported_at": time}, "bad_time", "reported_at")
        for name in REPORTED
        for time in BAD_TIMES
    ),
    *(("sale.amended", {"recorded_at": time}, "bad_time", "recorded_at") for time in BAD_TIMES),
    *(("cost.snapshot", {"as_of": time}, "bad_time", "as_of") for time in BAD_TIMES),
    *(
        (name, {bound: time}, "bad_time", bound)
        for name in ("cost.snapshot", "cost.deleted", "clicks.reported")
        for bound in ("period_start", "period_end")
        for time in BAD_TIMES
        if time != "2026-03-05"
    ),
    *(
        (name, {field: bad}, "bad_time", field)
        for name, field in (
            *(("target.set", "period_start"), ("target.removed", "period_start")),
            ("fxrate.set", "date"),
        )
        for bad in (NOON, "2026-02-30", "1999-12-31", "2101-01-01", "2026-3-1", "20260301", 20260301)
    ),
    *(
        (name, {"occurred_at": "2026-03-06T12:00:00.001Z"}, "future_time", "occurred_at")
        for name in REQUIRED
    ),
    *(
        (name, {"reported_at": "2026-03-06T12:00:00.001Z"}, "future_time", "reported_at")
        for name in REPORTED
    ),
    # ids
    ("lead.created", {"event_id": "x" * 129}, "bad_id", "event_id"),
    *(
        (name, {field: bad}, "bad_id", field)
        for name, field in (
            *(("lead.created", "event_id"), ("lead.created", "source"), ("lead.created", "lead_id")),
            *(("lead.created", "click_id"), ("lead.created", "visitor_id")),
            *(("click.recorded", "click_id"), ("impression.served", "impression_id")),
            *(("sale.created", "sale_id"), ("sale.created", "lead_id")),
            *(("cost.snapshot", "cost_source"), ("cost.snapshot", "account_id")),
            *(("cost.snapshot", "ad_group_id"), ("clicks.reported", "ad_id")),
            *(("lead.created", "campaign_id"), ("lead.updated", "lead_id")),
            *(("lead.merged", "lead_id"), ("lead.merged", "into_lead_id")),
            *(("lead.disqualified", "lead_id"), ("lead.requalified", "lead_id")),
            *(("visit.started", "visit_id"), ("visit.started", "visitor_id")),
            *(("sale.refunded", "refund_id"), ("sale.refunded", "sale_id")),
            *(("sale.amended", "sale_id"), ("sale.cancelled", "sale_id")),
            *(("click.voided", "click_id"), ("cost.deleted", "cost_source")),
        )
        for bad in (LONG, "a\x00b", "a\nb", "a\x7fb", "a\x9fb", "   ", "\t")
    ),
    *(
        (name, {"campaign_id": bad}, "bad_id", "campaign_id")
        for name in WITH_CHANNEL
        for bad in ("_all", "__other__", " _all ", "\u0958" * 129)
    ),
    *(
        (name, {"channel": bad}, "bad_id", "channel")
        for name in WITH_CHANNEL
        for bad in ("_all", "__other__", " _ALL ")
    ),
    # counts
    *(
        (name, {"count": bad}, "bad_count", "count")
        for name in ("impressions.reported", "clicks.reported")
        for bad in (-1, 10**12 + 1, 10**300)
    ),
    # amounts
    *(
        (name, {field: bad}, "negative_amount", field)
        for name, field in (
            *((name, "amount") for name in WITH_MONEY),
            ("sale.created", "cost_of_goods"),
        )
        for bad in ("-0.000001", -5, -5.25)
    ),
    ("cost.snapshot", {"amount": "-1", "credit": False}, "negative_amount", "amount"),
    *(
        (name, {field: bad}, "bad_amount", field)
        for name, field in (
            *((name, "amount") for name in WITH_MONEY),
            ("sale.created", "cost_of_goods"),
        )
        for bad in BAD_AMOUNTS
    ),
    ("cost.snapshot", {"amount": "-1000000000001", "credit": True}, "bad_amount", "amount"),
    *(("sale.refunded", {"amount": zero}, "bad_amount", "amount") for zero in ("0", 0, "-0", 0.0)),
    # currency
    *(
        (name, {"currency": bad}, reason, "currency")
        for name in WITH_MONEY
        for bad, reason in (
            *(("EURO", "unknown_currency"), ("eur", "unknown_currency")),
            ("ZZZ", "unknown_currency"),
        )
    ),
    *(
        ("fxrate.set", {side: bad}, "unknown_currency", side)
        for side in ("base", "quote")
        for bad in ("EURO", "usd", "ZZZ", " EUR")
    ),
    *(
        ("target.set", {"kpi": kpi, "currency": bad}, reason, "currency")
        for kpi in ("cost", "revenue_net", "cpl", "cac", "revenue_per_lead")
        for bad, reason in (
            *((ABSENT, "missing_currency"), (None, "missing_currency"), ("", "missing_currency")),
            *(("ZZZ", "unknown_currency"), ("USD", "unsupported_currency")),
        )
    ),
    # stages
    ("lead.stage_changed", {"to_stage": "won"}, "unknown_stage", "to_stage"),
    ("lead.stage_changed", {"to_stage": "MQL"}, "unknown_stage", "to_stage"),
    ("lead.stage_changed", {"from_stage": "won"}, "unknown_stage", "from_stage"),
    ("lead.created", {"initial_stage": "won"}, "unknown_stage", "initial_stage"),
    ("target.set", {"kpi": "stage_entered", "stage": "won"}, "unknown_stage", "stage"),
    ("target.removed", {"stage": "won"}, "unknown_stage", "stage"),
    *(
        ("target.set", {"kpi": "stage_entered", "stage": nothing}, "missing_field", "stage")
        for nothing in (ABSENT, None, "")
    ),
    # a text outside its list or pattern
    *(("lead.created", {"channel": bad}, "bad_value", "channel") for bad in ("a b", "é", " ", LONG)),
    ("lead.created", {"channel": "x" * 65}, "bad_value", "channel"),
    ("impression.served", {"channel": "a.b"}, "bad_value", "channel"),
    ("lead.invalidated", {"reason": "boring"}, "bad_value", "reason"),
    ("sale.created", {"kind": "old"}, "bad_value", "kind"),
    ("cost.snapshot", {"cost_type": "beer"}, "bad_value", "cost_type"),
    ("cost.deleted", {"cost_type": "beer"}, "bad_value", "cost_type"),
    ("target.set", {"profile": "weekends"}, "bad_value", "profile"),
    *(
        (name, {"period": bad}, "bad_value", "period")
        for name in ("target.set", "target.removed")
        for bad in ("year", "Month", "1mo")
    ),
    *(
        (name, {"kpi": bad}, "bad_value", "kpi")
        for name in ("target.set", "target.removed")
        for bad in (
            *("profit", "stage_entered.won", "stage_conversion.mql.lead", "Leads", LONG, "leads "),
            *("target_attainment.leads", "pacing.leads", "cohort_maturity"),
        )
    ),
    # targets, rates and merges
    *(
        ("target.set", {"value": bad}, "bad_target", "value")
        for bad in (0, "0", "0.000000", -1, "-0.000001", *BAD_AMOUNTS)
    ),
    *(
        ("fxrate.set", {"rate": bad}, "bad_rate", "rate")
        for bad in (
            *(0, "0", "0.000000000000", -1, "-0.92", "0.1234567890123", 10**6 + 1, "1000000.1"),
            *("1e-3", 1e-7, 1e300, "+1", "1/2", "1,5", ".5", "5.", "abc", " ", "٣"),
        )
    ),
    ("fxrate.set", {"base": "EUR"}, "bad_value", "quote"),
    ("lead.merged", {"into_lead_id": "l-1"}, "bad_merge", "into_lead_id"),
    ("lead.merged", {"into_lead_id": " l-1\t"}, "bad_merge", "into_lead_id"),
    *(
        (name, {"campaign_id": "c-1", "channel": nothing}, "missing_field", "channel")
        for name in ("target.set", "target.removed")
        for nothing in (ABSENT, None, "")
    ),
    # periods
    *(
        (name, {"period": period, "period_start": bad}, "bad_period", "period_start")
        for name in ("target.set", "target.removed")
        for period, bad in (
            *(("week", "2026-03-01"), ("week", "2026-03-03"), ("month", "2026-03-02")),
            *(("month", "2026-03-31"), ("quarter", "2026-03-01"), ("quarter", "2026-04-02")),
        )
    ),
    *(
        (name, changes, reason, field)
        for name in ("impressions.reported", "clicks.reported", "cost.snapshot", "cost.deleted")
        for changes, reason, field in (
            ({"period_end": "2026-03-01"}, "bad_period", "period_end"),
            ({"period_end": "2026-02-28"}, "bad_period", "period_end"),
            ({"period_start": "2025-01-24"}, "bad_period", "period_end"),
            ({"time_zone": "Mars/Olympus"}, "unknown_time_zone", "time_zone"),
            ({"time_zone": "right/UTC"}, "unknown_time_zone", "time_zone"),
        )
    ),
    *(
        (name, {"as_of": "2026-02-28T23:59:59Z", **changes}, "bad_period", "as_of")
        for name in ("impressions.reported", "clicks.reported", "cost.snapshot")
        for changes in ({}, {"reported_at": "2026-02-01T00:00:00Z"})
    ),
    ("cost.snapshot", {"as_of": "2026-02-28T23:59:59Z", "cost_type": "fee"}, "bad_period", "as_of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("type_name", "changes", "reason", "field"),
    FAULTS,
    ids=lambda part: str(part)[:40].replace(str(ABSENT), "absent") if part is not LONG else "long",
)
def test_fault_is_refused_with_its_reason_and_field(
    type_name: str, changes: dict[str, object], reason: str, field: str
) -> None:
    refused = refusal_of(type_name, **changes)
    assert (refused.reason, refused.field) == (reason, field)
    assert refused.message.startswith(f"{field}: expected ")
    assert ", got " in refused.message


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b" ", b"\xff", b"not json", b'{"event_id":"e"', b"[]", b"7", b'"x"', b"null"),
        a_record("lead.created")[:-1] + b',"lead_id":"l-2"}',
        a_record("lead.created")[:-1] + b',"x":NaN}',
        a_record("lead.created")[:-1] + b',"x":-Infinity}',
        a_record("lead.created")[:-1] + b',"x":' + b"[" * 32 + b"]" * 32 + b"}",
        a_record("lead.created")[:-1] + b',"x":"\\ud800"}',
        a_record("lead.created") + b"{}",
        b"\xef\xbb\xbf" + a_record("lead.created"),
    ],
    ids=lambda value: repr(value[-30:]),
)
def test_what_is_no_json_object_is_malformed(value: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read("leads", value, NOON_MS, RULES)
    assert (caught.value.reason, caught.value.field) == ("malformed", None)
    assert caught.value.message.startswith("value: expected ")


def test_record_of_the_largest_size_is_read_and_a_larger_one_refused() -> None:
    value = a_record("lead.created")
    padded = value + b" " * (RULES.max_bytes - len(value))
    assert read("leads", padded, NOON_MS, RULES)
    with pytest.raises(Refused) as caught:
        read("leads", padded + b" ", NOON_MS, RULES)
    assert (caught.value.reason, caught.value.field) == ("too_large", None)
    assert caught.value.message == "value: expected at most 262144 bytes, got 262145"


def test_size_is_checked_before_json() -> None:
    with pytest.raises(Refused) as caught:
        read("leads", b"[" * (RULES.max_bytes + 1), NOON_MS, RULES)
    assert caught.value.reason == "too_large"


COMPACTED = {"costs", "targets", "fx-rates"}


@pytest.mark.parametrize("topic", sorted(TOPICS.keys() - COMPACTED))
def test_null_value_is_a_tombstone(topic: str) -> None:
    with pytest.raises(Refused) as caught:
        read(topic, None, NOON_MS, RULES)
    assert (caught.value.reason, caught.value.field) == ("tombstone", None)


@pytest.mark.parametrize("topic", sorted(COMPACTED))
def test_null_value_where_topics_may_be_compacted_is_ignored(topic: str) -> None:
    with pytest.raises(Ignored) as caught:
        read(topic, None, NOON_MS, RULES)
    assert caught.value.why == "tombstone"


@pytest.mark.parametrize(
    ("type_name", "changes", "remarks"),
    [
        ("lead.created", {"utm": {"source": "x"}, "nickname": 7}, 2),
        ("lead.created", {"schema_version": "1.9"}, 1),
        ("lead.created", {"occurred_at": "2026-03-05T11:59:60Z"}, 0),
        ("lead.created", {"occurred_at": "2026-03-06T12:00:00Z"}, 0),
        ("cost.snapshot", {"reported_at": "2026-03-06T12:00:00Z"}, 0),
        ("lead.stage_changed", {"from_stage": "customer"}, 0),
        ("lead.stage_changed", {"to_stage": "mql", "from_stage": "mql"}, 0),
        ("click.recorded", {"is_bot": True}, 0),
        ("visit.started", {"is_bot": True}, 0),
        ("sale.created", {"amount": 0}, 0),
        ("sale.amended", {"amount": "0.00"}, 0),
        ("cost.snapshot", {"amount": "0"}, 0),
        ("cost.snapshot", {"amount": "-3", "credit": True}, 0),
        ("sale.refunded", {"amount": "1000000000000"}, 0),
        ("sale.refunded", {"currency": "USD"}, 0),
        ("cost.snapshot", {"reported_at": "2026-02-01T00:00:00Z"}, 0),
        ("lead.created", {"click_id": "never-seen"}, 0),
    ],
)
def test_what_is_only_odd_is_accepted(
    type_name: str, changes: dict[str, object], remarks: int
) -> None:
    assert reading_of(type_name, **changes).unknown_fields == remarks


@pytest.mark.parametrize(
    ("type_name", "changes", "field"),
    [
        ("lead.created", {"type": "x", "schema_version": "9.0"}, "type"),
        ("lead.created", {"schema_version": "9.0", "event_id": ABSENT}, "schema_version"),
        ("lead.created", {"event_id": ABSENT, "source": ABSENT}, "event_id"),
        ("lead.created", {"source": ABSENT, "occurred_at": ABSENT}, "source"),
        ("lead.created", {"occurred_at": 7, "recorded_at": 7}, "occurred_at"),
        ("lead.created", {"recorded_at": 7, "test": 7}, "recorded_at"),
        ("lead.created", {"test": 7, "lead_id": ABSENT}, "test"),
        ("lead.created", {"lead_id": ABSENT, "channel": 7}, "lead_id"),
        ("lead.created", {"channel": 7, "campaign_id": 7}, "channel"),
        ("sale.created", {"amount": ABSENT, "currency": ABSENT}, "amount"),
        ("cost.snapshot", {"cost_type": "x", "period_start": "x"}, "cost_type"),
        ("cost.snapshot", {"period_start": "x", "time_zone": "x"}, "period_start"),
        ("cost.snapshot", {"period_end": "x", "time_zone": "x"}, "period_end"),
        ("cost.snapshot", {"time_zone": "x", "period_end": "2026-03-01"}, "time_zone"),
        ("cost.snapshot", {"period_end": "2026-03-01", "as_of": "x"}, "period_end"),
        ("cost.snapshot", {"as_of": "x", "amount": "x"}, "as_of"),
        ("cost.snapshot", {"amount": "-1", "credit": 7}, "amount"),
        ("cost.snapshot", {"currency": "x", "reported_at": "x"}, "currency"),
        ("clicks.reported", {"count": -1, "reported_at": "x"}, "count"),
        ("cost.deleted", {"period_start": "x", "reported_at": "x"}, "period_start"),
        ("cost.deleted", {"channel": "a b", "cost_type": "x"}, "channel"),
        ("visit.started", {"visit_id": ABSENT, "visitor_id": ABSENT}, "visit_id"),
        ("lead.updated", {"channel": "a b", "campaign_id": 7}, "channel"),
        ("lead.merged", {"lead_id": ABSENT, "into_lead_id": ABSENT}, "lead_id"),
        ("sale.amended", {"currency": "x", "recorded_at": ABSENT}, "currency"),
        ("sale.amended", {"currency": "x", "recorded_at": "x"}, "recorded_at"),
        ("sale.refunded", {"refund_id": ABSENT, "sale_id": ABSENT}, "refund_id"),
        ("sale.refunded", {"amount": 0, "currency": "x"}, "amount"),
        ("target.set", {"kpi": "x", "stage": "x"}, "kpi"),
        ("target.set", {"stage": "x", "channel": "a b"}, "stage"),
        ("target.set", {"campaign_id": "c", "period": "x"}, "channel"),
        ("target.set", {"period": "x", "period_start": "x"}, "period"),
        ("target.set", {"period_start": "2026-03-02", "value": 0}, "period_start"),
        ("target.set", {"kpi": "cost", "value": 0, "currency": "x"}, "value"),
        ("target.set", {"kpi": "cost", "currency": "x", "profile": "x"}, "currency"),
        ("target.set", {"profile": "x", "reported_at": "x"}, "profile"),
        ("fxrate.set", {"base": "x", "quote": "x"}, "base"),
        ("fxrate.set", {"quote": "USD", "date": "x"}, "quote"),
        ("fxrate.set", {"date": "x", "rate": 0}, "date"),
    ],
)
def test_first_fault_in_the_order_of_the_fields_is_told(
    type_name: str, changes: dict[str, object], field: str
) -> None:
    assert refusal_of(type_name, **changes).field == field
