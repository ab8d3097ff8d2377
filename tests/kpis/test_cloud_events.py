"""An event is the same in each mode of CloudEvents as it is flat, and a broken one says what is wrong."""

import json
from collections.abc import Callable

import pytest

from kpis.cloud_events import is_cloud_event
from kpis.events import LeadCreated
from kpis.reading import Reading, Refused, read
from tests.cloud_events import Headers, binary, structured
from tests.kpis.records import (
    NOON,
    NOON_MS,
    OPTIONAL,
    REQUIRED,
    RULES,
    TOPIC_OF,
    a_record,
    reading_of,
    without_digest,
)

LEAD = a_record("lead.created")
Mode = Callable[..., tuple[bytes, Headers]]
MODES: list[Mode] = [structured, binary]


def read_as(value: bytes, headers: Headers, topic: str = "leads") -> Reading:
    return read(topic, value, NOON_MS, RULES, headers)


def refusal(value: bytes, headers: Headers) -> Refused:
    with pytest.raises(Refused) as caught:
        read_as(value, headers)
    return caught.value


def with_data(value: bytes, own: dict[str, str]) -> bytes:
    """Return the event with more fields in its data."""
    members = json.loads(value)
    if "specversion" in members:
        members["data"] |= own
    else:
        members |= own
    return json.dumps(members).encode()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", REQUIRED)
def test_an_event_is_the_same_in_each_mode(type_name: str, mode: Mode) -> None:
    place = {"channel": "seo", "campaign_id": "c"} if "channel" in OPTIONAL[type_name] else {}
    flat = reading_of(type_name, **place)
    value, headers = mode(a_record(type_name, **place))
    reading = read_as(value, headers, TOPIC_OF[type_name])
    assert without_digest(reading.event) == without_digest(flat.event)
    assert reading.unknown_fields == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_type_may_be_written_with_prefix_and_version(mode: Mode) -> None:
    assert isinstance(read_as(*mode(LEAD, type="leadgen.lead.created.v1")).event, LeadCreated)
    refused = refusal(*mode(LEAD, type="leadgen.lead.created.v2"))
    assert refused.reason == "unsupported_version"


def test_a_structured_event_is_known_without_its_content_type() -> None:
    value, _ = structured(LEAD)
    assert read_as(value, []) == read_as(*structured(LEAD))


@pytest.mark.parametrize("mode", MODES)
def test_the_data_may_name_the_event_and_tell_when_it_happened(mode: Mode) -> None:
    earlier = "2026-03-05T10:00:00Z"
    value, headers = mode(LEAD, id="delivery-9", time=NOON)
    own = {"event_id": "crm-1", "occurred_at": earlier}
    envelope = read_as(with_data(value, own), headers).event.envelope
    assert envelope.event_id == "crm-1"
    assert envelope.occurred_ms == NOON_MS - 2 * 3_600_000


@pytest.mark.parametrize("mode", MODES)
def test_source_and_type_are_those_of_the_event(mode: Mode) -> None:
    # In the data of a web form these say something else.
    value, headers = mode(a_record("lead.created"))
    own = {"source": "newsletter", "type": "demo request"}
    event = read_as(with_data(value, own), headers).event
    assert isinstance(event, LeadCreated)
    assert event.envelope.source == "/crm"


def test_a_flat_record_with_headers_of_others_is_flat() -> None:
    headers = [("traceparent", b"00-1-1-01"), ("content-type", b"application/json")]
    assert read_as(LEAD, headers) == read_as(LEAD, [])
    assert not is_cloud_event(headers)
    assert is_cloud_event(binary(LEAD)[1])
    assert is_cloud_event(structured(LEAD)[1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        (
            {"specversion": "0.3"},
            "unsupported_version",
            'specversion: expected CloudEvents 1.0, got "0.3"',
        ),
        ({"type": None}, "missing_field", "type: expected text, got nothing"),
        ({"id": None}, "missing_field", "event_id: expected "),
        ({"source": None}, "missing_field", "source: expected "),
        ({"time": None}, "missing_field", "occurred_at: expected "),
        ({"time": "yesterday"}, "bad_time", "occurred_at: expected "),
        ({"type": "lead.lost"}, "unknown_type", "type: expected one of lead.created, "),
    ],
)
def test_a_broken_attribute_is_named(
    mode: Mode, changes: dict[str, str | None], reason: str, message: str
) -> None:
    refused = refusal(*mode(LEAD, **changes))
    assert refused.reason == reason
    assert str(refused.message).startswith(message)


@pytest.mark.parametrize(
    ("value", "headers", "message"),
    [
        (
            *structured(LEAD, data="text"),
            'data: expected a JSON object, got "text"',
        ),
        (
            *structured(LEAD, data=None),
            "data: expected a JSON object, got nothing",
        ),
        (
            *structured(LEAD, data=None, data_base64="e30="),
            'data: expected a JSON object, got "data_base64"',
        ),
        (
            *structured(LEAD, datacontenttype="application/avro"),
            'datacontenttype: expected application/json, got "application/avro"',
        ),
        (
            structured(LEAD)[0],
            [("content-type", b"application/cloudevents-batch+json")],
            (
                "content-type: expected application/cloudevents+json, one event a record, "
                'got "application/cloudevents-batch+json"'
            ),
        ),
        (
            binary(LEAD)[0],
            [*binary(LEAD)[1][:-1], ("content-type", b"application/avro; v=1")],
            'content-type: expected application/json, got "application/avro"',
        ),
        (
            binary(LEAD)[0],
            [*binary(LEAD)[1], ("ce_subject", b"\xff")],
            "ce_subject: expected UTF-8, got \"other bytes\"",
        ),
    ],
)  # fmt: skip
def test_an_event_that_carries_no_json_object_is_malformed(
    value: bytes, headers: Headers, message: str
) -> None:
    refused = refusal(value, headers)
    assert refused.reason == "malformed"
    assert refused.message == message


@pytest.mark.parametrize("mode", MODES)
def test_a_refused_event_is_named_by_its_attributes(mode: Mode) -> None:
    refused = refusal(*mode(a_record("lead.created", lead_id=7)))
    assert (refused.reason, refused.field) == ("wrong_type", "lead_id")
    assert (refused.event_id, refused.occurred_at) == ("e-1", NOON)
