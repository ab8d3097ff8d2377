"""Bytes to events: `read` accepts a record or says why not; `reject_value` keeps what it refused.

Source: contract, sections 2, 7 (`leadgen.rejects.v1`) and 8.
"""

import base64
import hashlib
import json
import re
from typing import Final, NamedTuple

from kpis.cloud_events import Headers, flat
from kpis.events import TOPICS, Envelope, Event, reported_ms_of
from kpis.fields import (
    LONGEST_EVENT_ID,
    Fields,
    Refused,
    Rules,
    normal_campaign,
    normal_channel,
    refuse_field,
)
from kpis.instants import DAY_MS
from kpis.json_text import MalformedError, json_object, text_of, without
from kpis.readers import READERS

__all__ = [
    "Ignored",
    "Reading",
    "Refused",
    "Rules",
    "normal_campaign",
    "normal_channel",
    "read",
    "reject_value",
]

LONGEST_ORIGINAL: Final = 65_536
"""Bytes of a refused record that are kept."""

_COMPACTED: Final = frozenset(("costs", "targets", "fx-rates"))
"""Topics that may be compacted, where a null value only tidies up."""

_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


class Ignored(Exception):  # noqa: N818 - an outcome of reading, not an error
    """A record that says nothing to us and is only counted; `why` is a word for the counter."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Reading(NamedTuple):
    """An accepted record.

    A test event (`is_test`) counts nowhere; `unknown_fields` counts what was ignored: fields we do
    not know, and a minor version we do not know.
    """

    event: Event
    is_test: bool
    unknown_fields: int


def read(
    topic: str,
    value: bytes | None,
    timestamp_ms: int,
    rules: Rules,
    headers: Headers = (),
) -> Reading:
    """Return the event that a record's value is.

    Args:
        topic: The short name of the record's topic, one of `TOPICS`.
        value: The record's value; None is a tombstone.
        timestamp_ms: The record's own timestamp; negative if it has none, then no event is in the
            future.
        rules: The settings that decide what is accepted.
        headers: The record's headers: they tell whether it is a CloudEvent.

    Raises:
        Refused: for everything in contract section 8 that can be told from the record alone.
        Ignored: for a tombstone on costs, targets or fx-rates.
    """
    if value is None:
        raise _tombstone(topic)
    if len(value) > rules.max_bytes:
        message = f"value: expected at most {rules.max_bytes} bytes, got {len(value)}"
        raise Refused(reason="too_large", field=None, message=message)
    try:
        members = json_object(value)
    except MalformedError as error:
        raise Refused(reason="malformed", field=None, message=str(error)) from None
    fields = Fields(flat(members, headers), rules)
    try:
        return _reading(topic, fields, timestamp_ms, value)
    except Refused as refused:
        _name_event(refused, fields)
        raise


def _tombstone(topic: str) -> Refused | Ignored:
    if topic in _COMPACTED:
        return Ignored("tombstone")
    return Refused("tombstone", None, "value: expected a JSON object, got null")


def _reading(topic: str, fields: Fields, timestamp_ms: int, value: bytes) -> Reading:
    type_name = _type_name(topic, fields)
    unknown = _unknown_minor_version(fields)
    event_id = fields.required_identifier("event_id", LONGEST_EVENT_ID)
    source = fields.required_identifier("source")
    occurred_ms = fields.required_instant("occurred_at")
    if occurred_ms > timestamp_ms + DAY_MS and timestamp_ms >= 0:
        refuse_field(
            fields, "future_time", "occurred_at", "at most 24 h after the record's timestamp"
        )
    recorded_ms = fields.instant("recorded_at")
    is_test = fields.flag("test")
    digest = hashlib.sha256(value).digest()[:8]
    reader, known = READERS[type_name]
    event = reader(fields, Envelope(event_id, source, occurred_ms, recorded_ms, digest))
    if (reported_ms := reported_ms_of(event)) is not None:
        _refuse_future_report(fields, reported_ms, timestamp_ms)
    if not known.issuperset(fields.members):
        unknown += len(fields.members.keys() - known)
    return Reading(event, is_test, unknown)


def _refuse_future_report(fields: Fields, reported_ms: int, timestamp_ms: int) -> None:
    # A row counts minute by minute up to then, and the newest report holds against all others.
    if reported_ms > timestamp_ms + DAY_MS and timestamp_ms >= 0:
        refuse_field(
            fields, "future_time", "reported_at", "at most 24 h after the record's timestamp"
        )


def _type_name(topic: str, fields: Fields) -> str:
    names = TOPICS[topic]
    type_name = fields.text("type")
    if type_name is None:
        return names[0]
    if type_name not in names:
        refuse_field(fields, "unknown_type", "type", "one of " + ", ".join(names))
    return type_name


def _unknown_minor_version(fields: Fields) -> int:
    version = fields.text("schema_version")
    if version is None or version == "1.0":
        return 0
    match = _VERSION.fullmatch(version)
    if match is None:
        refuse_field(fields, "bad_value", "schema_version", "MAJOR.MINOR")
    if match[1] != "1":
        refuse_field(fields, "unsupported_version", "schema_version", "major version 1")
    return 1


def _name_event(refused: Refused, fields: Fields) -> None:
    """Put the event's id and time into `refused`, as far as they are sound and may be shown."""
    personal = fields.rules.personal
    try:
        if "event_id" not in personal:
            refused.event_id = fields.required_identifier("event_id", LONGEST_EVENT_ID)
    except Refused:
        pass
    try:
        fields.required_instant("occurred_at")
        if "occurred_at" not in personal:
            refused.occurred_at = fields.text("occurred_at")
    except Refused:
        pass


def reject_value(
    refused: Refused, topic: str, partition: int, offset: int, value: bytes | None, rules: Rules
) -> bytes:
    """Return the JSON record for `leadgen.rejects.v1`; `topic` is the full name.

    Personal fields are cut out of `original` before it is cut to size; a value that cannot be
    searched for them is replaced by its length and SHA-256.
    """
    reject: dict[str, object] = {
        "reason": refused.reason,
        "field": refused.field,
        "message": refused.message,
        "topic": topic,
        "partition": partition,
        "offset": offset,
    }
    if refused.event_id is not None:
        reject["event_id"] = refused.event_id
    if refused.occurred_at is not None:
        reject["occurred_at"] = refused.occurred_at
    return json.dumps(reject | _original(value, rules), ensure_ascii=False).encode()


def _original(value: bytes | None, rules: Rules) -> dict[str, object]:
    if value is None:
        return {"original": None, "truncated": False}
    kept = _without_personal(value, rules)
    if kept is None:
        digest = hashlib.sha256(value).hexdigest()
        return {"length": len(value), "sha256": digest, "truncated": False}
    cut = base64.b64encode(kept[:LONGEST_ORIGINAL]).decode()
    return {"original": cut, "truncated": len(kept) > LONGEST_ORIGINAL}


def _without_personal(value: bytes, rules: Rules) -> bytes | None:
    if len(value) > rules.max_bytes:
        return None
    try:
        members = json_object(value)
    except MalformedError:
        return None
    rest = without(members, rules.personal)
    # An untouched record is kept to the byte.
    return value if rest == members else text_of(rest).encode()
