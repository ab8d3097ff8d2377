"""Flat records in the two modes of CloudEvents 1.0."""

import json
from typing import Any

ATTRIBUTES = {"event_id": "id", "source": "source", "type": "type", "occurred_at": "time"}
"""The attribute that takes the place of a field of the envelope."""

Headers = list[tuple[str, bytes]]


def structured(record: bytes, **changes: object) -> tuple[bytes, Headers]:
    """Return value and headers of the structured event; a change to None leaves an attribute out."""
    attributes, data = _parts(record)
    event = {"specversion": "1.0", **attributes, "data": data} | changes
    present = {name: value for name, value in event.items() if value is not None}
    return json.dumps(present).encode(), [("content-type", b"application/cloudevents+json")]


def binary(record: bytes, **changes: str | None) -> tuple[bytes, Headers]:
    """Return value and headers of the binary event; a change to None leaves an attribute out."""
    attributes, data = _parts(record)
    told = {"specversion": "1.0", **attributes} | changes
    headers = [(f"ce_{name}", value.encode()) for name, value in told.items() if value is not None]
    return json.dumps(data).encode(), [*headers, ("content-type", b"application/json")]


def _parts(record: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    members = json.loads(record)
    attributes = {name: members.pop(field) for field, name in ATTRIBUTES.items()}
    return attributes, members
