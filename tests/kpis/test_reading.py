"""Good records are read into events; whatever comes is read or refused."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.events import (
    TOPICS,
    CostSnapshot,
    CountsReported,
    Event,
    FxRateSet,
    LeadCreated,
    LeadInvalidated,
    LeadStageChanged,
    SaleCancelled,
    SaleCreated,
    SaleRefunded,
    VisitStarted,
)
from kpis.instants import DAY_MS, instant_ms
from kpis.reading import (
    Reading,
    Refused,
    Rules,
    normal_campaign,
    normal_channel,
    read,
    reject_value,
)
from tests.kpis.records import (
    ABSENT,
    NOON,
    NOON_MS,
    OPTIONAL,
    PARIS,
    REQUIRED,
    RULES,
    TOPIC_OF,
    a_record,
    event_of,
    reading_of,
    without_digest,
)
from tests.kpis.streams_of_records import Record, any_records

GOLDEN = Path(__file__).parent.parent / "golden"
TYPES_WITHOUT_REVERSALS = {
    CountsReported: 40,
    LeadCreated: 51,
    LeadInvalidated: 2,
    LeadStageChanged: 37,
    SaleCreated: 5,
    CostSnapshot: 3,
}
TYPES_IN_FULL = {
    CountsReported: 40,
    VisitStarted: 698,
    LeadCreated: 51,
    LeadStageChanged: 37,
    LeadInvalidated: 2,
    SaleCreated: 5,
    CostSnapshot: 3,
    FxRateSet: 31,
    SaleRefunded: 1,
    SaleCancelled: 1,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("events_m1.jsonl", TYPES_WITHOUT_REVERSALS), ("events.jsonl", TYPES_IN_FULL)],
)
def test_every_line_of_the_worked_example_is_accepted(
    name: str, expected: dict[type[Event], int]
) -> None:
    rules = Rules(time_zone=PARIS)
    types: Counter[type[Event]] = Counter()
    for line in (GOLDEN / name).read_text().splitlines():
        record = json.loads(line)
        timestamp_ms = instant_ms("2026-05-01T00:00:00Z")
        reading = read(record["topic"], json.dumps(record["value"]).encode(), timestamp_ms, rules)
        types[type(reading.event)] += 1
        assert (reading.is_test, reading.unknown_fields) == (False, 0)
    assert types == expected


def test_absent_type_is_the_first_of_the_topic() -> None:
    for topic, names in TOPICS.items():
        for nothing in (ABSENT, None, ""):
            value = a_record(names[0], type=nothing)
            assert type(read(topic, value, NOON_MS, RULES).event) is type(event_of(names[0]))


def test_test_event_is_marked() -> None:
    assert reading_of("lead.created", test=True).is_test
    assert not reading_of("lead.created", test=False).is_test


def test_recorded_at_is_kept() -> None:
    assert event_of("lead.created", recorded_at=NOON).envelope.recorded_ms == NOON_MS


def test_unknown_fields_are_counted() -> None:
    reading = reading_of("lead.created", utm={"source": "x"}, sale_id="s", email="a@example.org")
    assert reading.unknown_fields == 3


def test_unknown_minor_version_is_accepted_and_counted() -> None:
    assert reading_of("lead.created", schema_version="1.7").unknown_fields == 1
    assert reading_of("lead.created", schema_version="1.0").unknown_fields == 0


def test_event_up_to_24_hours_ahead_is_accepted() -> None:
    value = a_record("lead.created")
    assert read("leads", value, NOON_MS - DAY_MS, RULES).event == event_of("lead.created")


def test_record_without_timestamp_knows_no_future() -> None:
    assert read("leads", a_record("lead.created"), -1, RULES).event == event_of("lead.created")


def test_leap_second_counts_as_the_end_of_its_minute() -> None:
    event = event_of("lead.created", occurred_at="2026-03-05T11:59:60Z")
    assert event.envelope.occurred_ms == NOON_MS - 1


def test_id_is_trimmed_and_may_hold_any_letter() -> None:
    event = event_of("lead.created", event_id="  é\u200d😀\n", lead_id="x" * 256)
    assert event.envelope.event_id == "é\u200d😀"
    assert event.lead_id == "x" * 256


@pytest.mark.parametrize("amount", ["0", 0, 0.0, -0.0, "-0"])
def test_amount_of_zero_is_accepted(amount: object) -> None:
    assert event_of("sale.created", amount=amount).amount_micros == 0
    assert event_of("cost.snapshot", amount=amount).amount_micros == 0


def test_json_number_is_read_by_its_text() -> None:
    value = a_record("sale.created", amount=0).replace(b'"amount": 0', b'"amount": 0.100001')
    event = read("sales", value, NOON_MS, RULES).event
    assert isinstance(event, SaleCreated)
    assert event.amount_micros == 100_001


def test_unknown_channel_is_kept_or_becomes_other() -> None:
    closed = Rules(allow_unknown_channels=False)
    assert normal_channel(" Radio ", RULES) == "radio"
    assert normal_channel(" Radio ", closed) == "other"
    assert normal_channel(" SEO ", closed) == "seo"
    assert normal_channel("unattributed", closed) == "unattributed"
    assert event_of("lead.created", closed, channel="radio").channel == "other"


def test_campaign_is_composed_and_keeps_its_case() -> None:
    assert normal_campaign(" E\u0301te\u0301 ", RULES) == "Été"
    assert event_of("lead.created", campaign_id="E\u0301te\u0301").campaign_id == "Été"


def assert_is_kept(refused: Refused, topic: str, value: bytes) -> None:
    reject = json.loads(reject_value(refused, topic, 0, 0, value, RULES))
    assert reject["reason"] == refused.reason


def outcome(topic: str, value: bytes) -> Reading | Refused:
    try:
        return read(topic, value, NOON_MS, RULES)
    except Refused as refused:
        assert_is_kept(refused, topic, value)
        return refused


topics = st.sampled_from(sorted(TOPICS))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
field_names = sorted(
    {
        *("event_id", "source", "type", "occurred_at", "schema_version", "recorded_at", "test"),
        *(field for fields in (*REQUIRED.values(), *OPTIONAL.values()) for field in fields),
    }
)


@given(topics, st.binary())
def test_any_bytes_are_read_or_refused(topic: str, value: bytes) -> None:
    outcome(topic, value)


@given(topics, st.dictionaries(st.sampled_from(field_names) | st.text(), json_values))
def test_any_json_object_is_read_or_refused(topic: str, members: dict[str, object]) -> None:
    outcome(topic, json.dumps(members).encode())


@given(
    st.sampled_from(sorted(REQUIRED)),
    st.dictionaries(st.sampled_from(field_names), json_values, max_size=2),
)
def test_a_record_with_any_change_is_read_or_refused(
    type_name: str, changes: dict[str, object]
) -> None:
    outcome(TOPIC_OF[type_name], a_record(type_name, **changes))


@given(st.sampled_from(sorted(REQUIRED)), st.data())
def test_a_record_with_any_byte_changed_is_read_or_refused(
    type_name: str, data: st.DataObject
) -> None:
    value = bytearray(a_record(type_name))
    value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    result = outcome(TOPIC_OF[type_name], bytes(value))
    if isinstance(result, Reading):
        encoded = msgspec.msgpack.encode(result.event)
        assert msgspec.msgpack.decode(encoded, type=Event) == result.event


@given(st.sampled_from(sorted(REQUIRED)))
def test_spelling_of_the_json_does_not_change_the_event(type_name: str) -> None:
    value = a_record(type_name)
    spaced = json.dumps(json.loads(value), indent=2).encode()
    escaped = value.replace(b"e-1", b"\\u0065-1")
    events = [
        without_digest(read(TOPIC_OF[type_name], text, NOON_MS, RULES).event)
        for text in (value, spaced, escaped)
    ]
    assert events[0] == events[1] == events[2]


@given(any_records())
def test_drawn_streams_are_read_but_for_a_lead_that_is_merged_into_itself(
    records: list[Record],
) -> None:
    rules = Rules(time_zone=PARIS)
    for topic, value, timestamp_ms in records:
        members = json.loads(value)
        if members["type"] == "lead.merged" and members["lead_id"] == members["into_lead_id"]:
            with pytest.raises(Refused, match="into_lead_id: expected another lead"):
                read(topic, value, timestamp_ms, rules)
        else:
            assert read(topic, value, timestamp_ms, rules).unknown_fields == 0
