"""The schemas say what the readers accept and what is written, no less and hardly more."""

import json
from collections import Counter
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kpis.events import TOPICS
from kpis.readers import READERS
from kpis.reading import Refused, read
from kpis.schemas import OUTPUTS, all_schemas, event_schema, output_schema
from tests.documents import CONTRACT, examples_in
from tests.golden.example import LINES
from tests.kpis.records import ABSENT, NOON, NOON_MS, OPTIONAL, REQUIRED, RULES, TOPIC_OF, a_record
from tests.schemas.outputs import EXAMPLES
from tests.schemas.validators import faults_of, validator
from tests.test_documents import NOW_MS

VALUES: tuple[object, ...] = (
    *(ABSENT, None, "", " ", 0, 5, -3, 5.5, 12.0, 1e30, True, False, [], {}),
    *("text", "x" * 257, "x" * 129, "_all", "__other__", "google_ads", "Google_Ads", "no channel"),
    *("a\x00b", "spam", "new", "media", "day", "month", "quarter", "linear", "mql", "leads", "cpl"),
    *("stage_entered", "EUR", "USD", "ABC", "eur", "12.50", "-12.50", "1e3", "1.1234567", "0"),
    *("9999999999999", NOON, "2026-03-05T12:00:00", "2026-03-05T12:00:00+01:00", "2026-02-30"),
    *("1999-03-05T12:00:00Z", "2026-03-04", "2026-04-01", "Europe/Paris", "Mars/Phobos", "1.0"),
    *("1.7", "2.0", "1.x", "lead.created", "cost.snapshot"),
)
"""What each field of each type is tried with."""

OPTIONAL_VALUES: dict[str, object] = {
    "channel": "google_ads",
    "viewable": True,
    "is_bot": False,
    "time_zone": "Europe/Paris",
    "as_of": NOON,
    "initial_stage": "mql",
    "from_stage": "mql",
    "kind": "new",
    "cost_of_goods": "7.25",
    "cost_type": "fee",
    "credit": True,
    "stage": "mql",
    "profile": "business_days",
}
"""What fits into a field; an id into all others."""

MEANING = frozenset(
    {
        # Texts of the right form that name nothing, or something that is reserved.
        *("unknown_currency", "unsupported_currency", "unknown_stage", "unknown_time_zone"),
        *("bad_id", "bad_time", "bad_value"),
        # Numbers of the right form that mean nothing: too fine, 0, below 0 without `credit`.
        *("bad_amount", "negative_amount", "bad_target", "bad_rate"),
        # Fields that do not fit each other.
        *("bad_period", "bad_merge", "future_time"),
    }
)
"""Reasons to refuse a record that no schema can tell, or that differ from deployment to deployment."""

ONLY_READERS_SEE = frozenset(
    {
        # To JSON Schema 12.0 is an integer, and 1e30 one that is too large.
        ("wrong_type", "count"),
        # A campaign is one of a channel.
        ("missing_field", "channel"),
    }
)
"""Further reasons and the fields they are about."""


def refusal(topic: str, value: bytes, at_ms: int = NOON_MS) -> Refused | None:
    try:
        read(topic, value, at_ms, RULES)
    except Refused as refused:
        return refused
    return None


def test_there_is_a_schema_of_everything_that_is_read_and_written() -> None:
    assert all_schemas().keys() == READERS.keys() | OUTPUTS.keys()


@pytest.mark.parametrize("name", all_schemas())
def test_schemas_are_sound_by_their_dialect(name: str) -> None:
    schema = all_schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(f":{name}")
    assert schema["description"]


@pytest.mark.parametrize("type_name", READERS)
def test_schemas_name_exactly_the_fields_that_are_known(type_name: str) -> None:
    assert event_schema(type_name)["properties"].keys() == READERS[type_name][1]


def test_every_event_of_the_worked_example_is_valid() -> None:
    kinds: Counter[str] = Counter()
    for topic, value in LINES:
        event = json.loads(value)
        kind = event.get("type") or TOPICS[topic][0]
        kinds[kind] += 1
        assert not faults_of(kind, event), event
    assert len(kinds) > 5


@pytest.mark.parametrize("name", ["README.md", CONTRACT])
def test_every_event_that_the_documents_show_is_valid(name: str) -> None:
    for topic, line in examples_in(name):
        assert not faults_of(json.loads(line)["type"], json.loads(line)), line
        assert refusal(topic, line.encode(), NOW_MS) is None


@pytest.mark.parametrize("type_name", REQUIRED)
def test_records_with_what_is_required_and_with_all_that_is_optional_are_valid(
    type_name: str,
) -> None:
    whole = {name: OPTIONAL_VALUES.get(name, f"{name}-1") for name in OPTIONAL[type_name]}
    for changes in ({}, whole, dict.fromkeys(whole, ""), dict.fromkeys(whole)):
        value = a_record(type_name, **changes)
        assert not faults_of(type_name, json.loads(value)), value
        assert refusal(TOPIC_OF[type_name], value) is None


@pytest.mark.parametrize("type_name", REQUIRED)
def test_reader_and_schema_accept_the_same_values_of_every_field(type_name: str) -> None:
    check = validator(type_name)
    both = Counter[bool]()
    # A channel beside everything: of a target a campaign alone means nothing.
    beside = {"channel": "seo"} if "channel" in OPTIONAL[type_name] else {}
    # By another type it is another record, of another schema.
    for name in sorted(READERS[type_name][1] - {"type"}):
        for tried in VALUES:
            value = a_record(type_name, **(beside | {name: tried}))
            refused = refusal(TOPIC_OF[type_name], value)
            is_valid = check.is_valid(json.loads(value))
            told = f"{name}: {tried!r:.40}: {refused}"
            if refused is None:
                assert is_valid, told
            elif is_valid:
                assert (
                    refused.reason in MEANING or (refused.reason, refused.field) in ONLY_READERS_SEE
                ), told
            both[is_valid] += 1
    assert min(both.values()) > 50


@pytest.mark.parametrize("type_name", REQUIRED)
def test_what_is_missing_or_of_a_wrong_type_is_refused_by_both(type_name: str) -> None:
    required = event_schema(type_name)["required"]
    assert {*REQUIRED[type_name], "event_id", "source", "occurred_at"} <= {*required, "type"}
    for name in required:
        wrong: tuple[object, ...] = (ABSENT, None, "", True, [], {})
        for tried in wrong:
            value = a_record(type_name, **{name: tried})
            if name == "type" and tried in (ABSENT, None, ""):
                # Then it is of its topic's first type, and may even be a sound one.
                assert faults_of(type_name, json.loads(value))
                continue
            refused = refusal(TOPIC_OF[type_name], value)
            assert refused is not None
            assert refused.field == name
            assert faults_of(type_name, json.loads(value)), f"{name}: {tried}"


@pytest.mark.parametrize("name", OUTPUTS)
def test_records_as_they_were_written_are_valid_and_have_nothing_else(name: str) -> None:
    assert EXAMPLES[name]
    for record in EXAMPLES[name]:
        assert not faults_of(name, record, is_closed=True), record
        for required in output_schema(name)["required"]:
            rest = {field: record[field] for field in record if field != required}
            assert faults_of(name, rest), required


def test_a_record_with_an_unknown_field_is_found_where_none_may_be() -> None:
    (record, *_) = EXAMPLES["kpi-record"]
    within: dict[str, Any] = {**record, "window": {**record["window"], "zone": "UTC"}}
    assert not faults_of("kpi-record", within)
    assert faults_of("kpi-record", within, is_closed=True)
    assert faults_of("kpi-record", {**record, "colour": "red"}, is_closed=True)
