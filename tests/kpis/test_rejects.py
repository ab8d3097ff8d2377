"""What a refusal says, and what is kept of a refused record."""

import base64
import hashlib
import json
from typing import Any

import pytest

from kpis.reading import (
    Refused,
    Rules,
    read,
    reject_value,
)
from tests.kpis.records import (
    ABSENT,
    NOON,
    NOON_MS,
    RULES,
    a_record,
    refusal_of,
)


def test_message_says_where_what_was_expected_and_what_came() -> None:
    refused = refusal_of("clicks.reported", count="12")
    assert refused.message == 'count: expected a whole number from 0 to 10^12, got "12"'


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("y" * 1000, '"' + "y" * 39 + '…"'),
        ("a\nb", '"a\\nb"'),
        (7, "7"),
        (int("7" * 1000), "7" * 39 + "…"),
        (True, "true"),
        ({"email": "a@example.org"}, "an object"),
        (["a@example.org"], "an array"),
        (None, "null"),
        (ABSENT, "nothing"),
    ],
)
def test_value_in_a_message_is_short_and_on_one_line(value: object, got: str) -> None:
    assert refusal_of("lead.invalidated", reason=value).message.endswith(f", got {got}")


def test_personal_field_is_not_quoted() -> None:
    rules = Rules(personal=frozenset({"visitor_id"}))
    refused = refusal_of("lead.created", rules, visitor_id="anna@example.org\n!")
    assert (refused.reason, refused.field) == ("bad_id", "visitor_id")
    assert "anna" not in refused.message


def test_refusal_names_the_event_as_far_as_it_is_sound() -> None:
    refused = refusal_of("lead.created", type="x")
    assert (refused.event_id, refused.occurred_at) == ("e-1", NOON)
    refused = refusal_of("lead.created", event_id=7)
    assert (refused.event_id, refused.occurred_at) == (None, NOON)
    refused = refusal_of("lead.created", occurred_at="x")
    assert (refused.event_id, refused.occurred_at) == ("e-1", None)
    rules = Rules(personal=frozenset({"event_id", "occurred_at"}))
    refused = refusal_of("lead.created", rules, type="x")
    assert (refused.event_id, refused.occurred_at) == (None, None)


def reject_of(topic: str, value: bytes | None, rules: Rules = RULES) -> dict[str, Any]:
    with pytest.raises(Refused) as caught:
        read(topic, value, NOON_MS, rules)
    reject = json.loads(reject_value(caught.value, f"leadgen.{topic}.v1", 3, 4_711, value, rules))
    assert isinstance(reject, dict)
    return reject


def test_reject_says_everything_about_the_record() -> None:
    value = a_record("lead.created", lead_id="")
    assert reject_of("leads", value) == {
        "reason": "missing_field",
        "field": "lead_id",
        "message": 'lead_id: expected text, got ""',
        "topic": "leadgen.leads.v1",
        "partition": 3,
        "offset": 4_711,
        "event_id": "e-1",
        "occurred_at": NOON,
        "original": base64.b64encode(value).decode(),
        "truncated": False,
    }


@pytest.mark.parametrize("value", [b'{"email":"anna@example.org"', b"x" * 300_000, b""])
def test_reject_of_what_cannot_be_searched_carries_length_and_digest(value: bytes) -> None:
    reject = reject_of("leads", value)
    assert reject["reason"] in {"malformed", "too_large"}
    assert "original" not in reject
    assert (reject["length"], reject["sha256"]) == (len(value), hashlib.sha256(value).hexdigest())
    assert "anna" not in reject["message"]


def test_reject_of_a_tombstone_has_no_original() -> None:
    assert reject_of("leads", None)["original"] is None


def test_personal_fields_are_cut_out_of_the_original_at_any_depth() -> None:
    value = a_record(
        "lead.created",
        lead_id=ABSENT,
        Email="anna@example.org",
        contact={"PHONE": "123", "list": [{"First_Name": "Anna", "age": 41.50}]},
        emails=2,
    )
    original = base64.b64decode(reject_of("leads", value)["original"])
    for personal in (b"anna", b"Anna", b"123", b"PHONE"):
        assert personal not in original
    kept = json.loads(original)
    assert kept["contact"] == {"list": [{"age": 41.5}]}
    assert (kept["event_id"], kept["emails"]) == ("e-1", 2)


def test_personal_fields_are_cut_out_before_the_record_is_cut_to_size() -> None:
    value = a_record("lead.created", lead_id=ABSENT, email="y" * 100_000, z="z" * 60_000)
    reject = reject_of("leads", value)
    assert not reject["truncated"]
    assert json.loads(base64.b64decode(reject["original"]))["z"] == "z" * 60_000


def test_original_is_cut_to_64_kib() -> None:
    value = a_record("lead.created", lead_id=ABSENT, z="z" * 100_000)
    reject = reject_of("leads", value)
    assert reject["truncated"]
    assert base64.b64decode(reject["original"]) == value[:65_536]
