"""CloudEvents 1.0 as input: the flat record that an event in structured or binary mode stands for.

Source: contract, section 2; https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from kpis.fields import Refused, shown

Headers = Sequence[tuple[str, bytes | None]]

VERSION: Final = "1.0"
STRUCTURED: Final = "application/cloudevents+json"

_CONTENT_TYPE: Final = "content-type"
_PREFIX: Final = "ce_"
_MARK: Final = "ce_specversion"
_ANY_CLOUD_EVENTS: Final = "application/cloudevents"
_JSON: Final = re.compile(r"(application|text)/([a-z0-9.-]+\+)?json")
_VERSIONED: Final = re.compile(r"leadgen\.(?P<type>.+)\.v(?P<major>[1-9][0-9]{0,8})")
_TAKEN: Final = ("id", "source", "type", "time")


def is_cloud_event(headers: Headers) -> bool:
    """Tell whether a record's headers say that it is a CloudEvent, in whatever mode."""
    return any(
        name == _MARK
        or (name == _CONTENT_TYPE and value is not None and _is_structured(_media_type(value)))
        for name, value in headers
    )


def flat(members: dict[str, object], headers: Headers) -> dict[str, object]:
    """Return the members of the flat record that a record stands for; its own if it is no CloudEvent.

    A structured event is known by its content type, or by a `specversion` where a flat record would
    have its `event_id`; a binary one by the header `ce_specversion`. `source` and `type` are those of
    the event. So are id and time, unless the data has an `event_id` or `occurred_at` of its own: what
    sends the event may be younger than what it tells of.

    Args:
        members: The value's JSON object.
        headers: The record's headers.

    Raises:
        Refused: `malformed` for an event that carries no JSON object, `unsupported_version` for one
            of another version than 1.0.
    """
    if not headers and "specversion" not in members:
        return members
    found = {name: value for name, value in headers if value is not None}
    media_type = _media_type(found.get(_CONTENT_TYPE, b""))
    if _is_structured(media_type) or ("specversion" in members and "event_id" not in members):
        return _structured(members, media_type)
    if _MARK in found:
        return _binary(members, found, media_type)
    return members


def _structured(members: dict[str, object], media_type: str) -> dict[str, object]:
    if _is_structured(media_type) and media_type != STRUCTURED:
        _refuse("malformed", _CONTENT_TYPE, f"{STRUCTURED}, one event a record", media_type)
    data = members.get("data")
    if type(data) is not dict:
        got = "data_base64" if "data_base64" in members else data
        _refuse("malformed", "data", "a JSON object", got)
    _check_content_type(members.get("datacontenttype"), "datacontenttype")
    return _joined(data, members)


def _binary(
    members: dict[str, object], found: Mapping[str, bytes], media_type: str
) -> dict[str, object]:
    if media_type:
        _check_content_type(media_type, _CONTENT_TYPE)
    attributes: dict[str, object] = {}
    for name, value in found.items():
        if name.startswith(_PREFIX):
            try:
                attributes[name.removeprefix(_PREFIX)] = value.decode()
            except UnicodeDecodeError:
                _refuse("malformed", name, "UTF-8", "other bytes")
    return _joined(members, attributes)


def _joined(data: dict[str, object], attributes: Mapping[str, object]) -> dict[str, object]:
    version = attributes.get("specversion")
    if version != VERSION:
        _refuse("unsupported_version", "specversion", f"CloudEvents {VERSION}", version)
    event_id, source, kind, time = (attributes.get(name) for name in _TAKEN)
    if not kind:
        # A flat record without a type is of its topic's first; an event without one is broken.
        _refuse("missing_field", "type", "text", None)
    record = {"event_id": event_id, "occurred_at": time, **data, "source": source}
    if isinstance(kind, str) and (versioned := _VERSIONED.fullmatch(kind)):
        record.setdefault("schema_version", f"{versioned['major']}.0")
        kind = versioned["type"]
    return record | {"type": kind}


def _check_content_type(content_type: object, name: str) -> None:
    if content_type is None:
        return
    is_json = isinstance(content_type, str) and _JSON.fullmatch(_bare(content_type))
    if not is_json:
        _refuse("malformed", name, "application/json", content_type)


def _is_structured(media_type: str) -> bool:
    return media_type.startswith(_ANY_CLOUD_EVENTS)


def _media_type(value: bytes) -> str:
    return _bare(value.decode("utf-8", "replace"))


def _bare(content_type: str) -> str:
    """Return a content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def _refuse(reason: str, name: str, expected: str, got: object) -> NoReturn:
    told = "nothing" if got is None else shown(got)
    raise Refused(reason, name, f"{name}: expected {expected}, got {told}")
