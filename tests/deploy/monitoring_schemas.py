"""What the Prometheus operator accepts, strictly, of what is told to it here.

Source: its custom resource definition of AlertmanagerConfig, v1alpha1, of version 0.93.
"""

from typing import Any, Final

from tests.deploy.strimzi_schemas import closed

_MATCHERS: Final = {
    "type": "array",
    "minItems": 1,
    "items": closed(
        ["name"],
        name={"type": "string", "minLength": 1},
        matchType={"enum": ["=", "!=", "=~", "!~"]},
        value={"type": "string"},
    ),
}

ALERTMANAGER_CONFIG: Final[dict[str, Any]] = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "monitoring.coreos.com/v1alpha1"},
    kind={"const": "AlertmanagerConfig"},
    metadata={"type": "object", "required": ["name"]},
    spec=closed(
        ["inhibitRules"],
        inhibitRules={
            "type": "array",
            "items": closed(
                ["sourceMatch", "targetMatch"],
                sourceMatch=_MATCHERS,
                targetMatch=_MATCHERS,
                equal={"type": "array", "items": {"type": "string"}},
            ),
        },
    ),
)
