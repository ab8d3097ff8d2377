"""The topics of a deployment as an AsyncAPI 3.0 document, with the schemas of what is in them.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from kpis.cloud_events import STRUCTURED
from kpis.events import TOPICS
from kpis.schemas import OUTPUTS, all_schemas
from streams.topics import Topics

VERSION: Final = "3.0.0"
FIRST_TOPICS: Final = Topics("leadgen.", "leadpulse")
"""The topics of a deployment that keeps the default names."""

_JSON: Final = "application/json"
_HEADERS: Final[dict[str, Any]] = {
    "type": "object",
    "description": "The attributes of CloudEvents 1.0 in binary mode.",
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_type": {"type": "string"},
        "ce_source": {"type": "string"},
        "ce_id": {"type": "string", "description": "Another for every event of a deployment."},
        "ce_time": {"type": "string", "format": "date-time"},
        "content-type": {"type": "string", "const": _JSON},
    },
}
_RECORD_KEY: Final = {"type": "string", "description": "basis|window|start|channel|campaign"}
_OUTPUTS: Final[Mapping[str, tuple[str, str, dict[str, Any]]]] = {
    "kpis": (
        "kpi-record",
        "The KPIs of each scope and window, the latest by key; null for a window that is kept no more.",
        _RECORD_KEY,
    ),
    "kpi-windows": ("kpi-record", "The ledger: final and revised windows.", _RECORD_KEY),
    "alerts": (
        "alert",
        "Alerts, the latest by key.",
        {"type": "string", "description": "rule|channel|campaign"},
    ),
    "rejects": (
        "reject",
        "Records that can never be counted.",
        {"type": "string", "description": "topic/partition/offset"},
    ),
}
"""What LeadPulse writes: by short name the schema, what it is, and the key."""
_TOMBSTONE: Final = "kpi-tombstone"
_TOMBSTONES: Final[dict[str, Any]] = {
    "name": _TOMBSTONE,
    "description": "Forget the key: its window is kept no more, or nothing is left in it.",
    "payload": {"type": "null"},
    "examples": [{"payload": None}],
    "bindings": {"kafka": {"key": _RECORD_KEY}},
}
"""The message of a null, which a reader of objects only would stumble over."""


Examples = Mapping[str, Mapping[str, Any]]

_NO_EXAMPLES: Final[Examples] = MappingProxyType({})


def document(version: str, examples: Examples = _NO_EXAMPLES) -> dict[str, Any]:
    """Return the document of a deployment that keeps the default names.

    Args:
        version: The version of this software.
        examples: A record of each message, by the name of its schema.
    """
    addresses = _addresses(FIRST_TOPICS)
    channels = {short: _channel(short, address) for short, address in addresses.items()}
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "LeadPulse",
            "version": version,
            "description": "Live, exact lead-generation KPIs from a Kafka stream.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": {
            "kafka": {
                "host": "{servers}",
                "protocol": "kafka",
                "variables": {"servers": {"default": "localhost:9092"}},
            }
        },
        "channels": channels,
        "operations": {f"{_does(short)}-{short}": _operation(short) for short in channels},
        "components": {
            "messages": {name: _message(name, examples) for name in _messages()}
            | {_TOMBSTONE: _TOMBSTONES},
            "schemas": {name: _embedded(schema) for name, schema in all_schemas().items()},
        },
    }


def readdressed(document: Mapping[str, Any], topics: Topics) -> dict[str, Any]:
    """Return the document of a deployment whose topics have other names."""
    channels = {
        short: document["channels"][short]
        | {"address": address, "bindings": {"kafka": {"topic": address}}}
        for short, address in _addresses(topics).items()
    }
    return {**document, "channels": channels}


def _addresses(topics: Topics) -> dict[str, str]:
    return {
        **topics.inputs,
        "kpis": topics.kpis,
        "kpi-windows": topics.windows,
        "alerts": topics.alerts,
        "rejects": topics.rejects,
    }


def _does(short: str) -> str:
    return "receive" if short in TOPICS else "send"


def _names(short: str) -> Iterable[str]:
    if short in TOPICS:
        return TOPICS[short]
    return (_OUTPUTS[short][0], *((_TOMBSTONE,) if short == "kpis" else ()))


def _messages() -> Iterable[str]:
    return [*(name for names in TOPICS.values() for name in names), *OUTPUTS]


def _channel(short: str, address: str) -> dict[str, Any]:
    told = "Input; any key, any partitioner." if short in TOPICS else _OUTPUTS[short][1]
    return {
        "address": address,
        "description": told,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _names(short)},
        "bindings": {"kafka": {"topic": address}},
    }


def _operation(short: str) -> dict[str, Any]:
    return {
        "action": _does(short),
        "channel": {"$ref": f"#/channels/{short}"},
        "messages": [{"$ref": f"#/channels/{short}/messages/{name}"} for name in _names(short)],
    }


def _message(name: str, examples: Examples) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": name,
        "contentType": _JSON,
        "payload": {"$ref": f"#/components/schemas/{name}"},
    }
    if name in examples:
        message["examples"] = [{"payload": examples[name]}]
    if name in OUTPUTS:
        key = next(key for schema, _, key in _OUTPUTS.values() if schema == name)
        message["bindings"] = {"kafka": {"key": key}}
        return message | ({} if name == "reject" else {"headers": _HEADERS})
    told = f"Flat as here, or as a CloudEvent: {STRUCTURED}, or in binary mode."
    return message | {"description": told}


def _embedded(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose references hold inside the document."""
    own = {key: part for key, part in schema.items() if key not in ("$schema", "$id")}
    base = f"#/components/schemas/{schema['$id'].rpartition(':')[2]}/$defs/"
    joined: dict[str, Any] = _repointed(own, base)
    return joined


def _repointed(part: Any, base: str) -> Any:
    if isinstance(part, dict):
        return {
            name: inner.replace("#/$defs/", base)
            if name == "$ref" and isinstance(inner, str)
            else _repointed(inner, base)
            for name, inner in part.items()
        }
    return [_repointed(inner, base) for inner in part] if isinstance(part, list) else part
