"""What Strimzi's operator accepts, strictly. Source: its custom resource definitions, version v1."""

from typing import Any, Final

Schema = dict[str, Any]


def closed(required: list[str], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


_NAME: Final = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
_METADATA: Final = {
    "type": "object",
    "required": ["name", "labels"],
    "properties": {
        "name": _NAME,
        # Without it no operator looks at the object.
        "labels": {"type": "object", "required": ["strimzi.io/cluster"]},
    },
}
_OPERATIONS: Final = [
    *("Read", "Write", "Create", "Delete", "Alter", "Describe", "ClusterAction"),
    *("AlterConfigs", "DescribeConfigs", "IdempotentWrite", "All"),
]


def _resource(kind: str, spec: Schema) -> Schema:
    return closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "kafka.strimzi.io/v1"},
        kind={"const": kind},
        metadata=_METADATA,
        spec=spec,
    )


KAFKA_TOPIC: Final = _resource(
    "KafkaTopic",
    closed(
        ["partitions", "replicas"],
        topicName={"type": "string"},
        partitions={"type": "integer", "minimum": 1},
        replicas={"type": "integer", "minimum": 1, "maximum": 32_767},
        config={
            "type": "object",
            "additionalProperties": {"type": ["string", "integer", "number"]},
        },
    ),
)

KAFKA_USER: Final = _resource(
    "KafkaUser",
    closed(
        ["authentication", "authorization"],
        userName={"type": "string"},
        authentication=closed(["type"], type={"enum": ["tls", "tls-external", "scram-sha-512"]}),
        authorization=closed(
            ["type", "acls"],
            type={"const": "simple"},
            acls={
                "type": "array",
                "minItems": 1,
                "items": closed(
                    ["resource", "operations"],
                    type={"enum": ["allow", "deny"]},
                    host={"type": "string"},
                    resource=closed(
                        ["type"],
                        type={"enum": ["topic", "group", "cluster", "transactionalId"]},
                        name={"type": "string"},
                        patternType={"enum": ["literal", "prefix"]},
                    ),
                    operations={"type": "array", "minItems": 1, "items": {"enum": _OPERATIONS}},
                ),
            },
        ),
    ),
)
