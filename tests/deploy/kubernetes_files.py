"""What of deploy/kubernetes follows from elsewhere: topics, the user's rights, rules of monitoring.

`python -m tests.deploy.kubernetes_files` writes it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from streams.settings import Settings, load
from streams.topics import Topics, new_configs, topics_of
from tests.parts.install import ROOT

KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
SETTINGS: Final = KUBERNETES / "base" / "leadpulse.toml"
PRODUCTION: Final = KUBERNETES / "overlays" / "production" / "kustomization.yaml"
RULES: Final = ROOT / "deploy" / "prometheus"
ALERTMANAGER: Final = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
CLUSTER: Final = {"strimzi.io/cluster": "kafka"}
WRITTEN_BY: Final = "# Written by `python -m tests.deploy.kubernetes_files` from {source}.\n"


def main() -> None:
    """Write every file that follows from something else."""
    for path, text in files().items():
        path.write_text(text)


def files() -> dict[Path, str]:
    """Return the text that each file has to have."""
    settings = base_settings()
    topics_source = "streams/topics.py and base/leadpulse.toml"
    return {
        KUBERNETES / "strimzi" / "topics.yaml": _text(topics_source, *kafka_topics(settings)),
        KUBERNETES / "strimzi" / "user.yaml": _text(topics_source, kafka_user(settings)),
        KUBERNETES / "monitoring" / "rules.yaml": _text("deploy/prometheus", *prometheus_rules()),
        KUBERNETES / "monitoring" / "inhibitions.yaml": _text(
            "deploy/alertmanager/alertmanager.yml", inhibitions()
        ),
        KUBERNETES / "redis" / "redis.conf": (ROOT / "deploy" / "redis.conf").read_text(),
    }


def base_settings(**variables: str) -> Settings:
    """Return the settings of the base, without the certificate that only a pod has."""
    pod = {"LEADPULSE_KAFKA_SASL_PASSWORD": "from the Secret", "LEADPULSE_KAFKA_SSL_CAFILE": ""}
    return load({**pod, **variables}, SETTINGS)


def kafka_topics(settings: Settings) -> Iterator[dict[str, Any]]:
    """Return a KafkaTopic for each topic, as `leadpulse topics --create` would make it."""
    copies = settings.topics.replication
    for spec in topics_of(settings).specs():
        yield {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": spec.name, "labels": dict(CLUSTER)},
            "spec": {
                "partitions": settings.topics.partitions,
                "replicas": copies,
                "config": {
                    name: int(value) if value.lstrip("-").isdigit() else value
                    for name, value in new_configs(spec, copies).items()
                },
            },
        }


def kafka_user(settings: Settings) -> dict[str, Any]:
    """Return the KafkaUser of the workers, with the rights that they need."""
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": {"name": settings.kafka.sasl_username, "labels": dict(CLUSTER)},
        "spec": {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": list(_rights(settings))},
        },
    }


def _rights(settings: Settings) -> Iterator[dict[str, Any]]:
    topics = topics_of(settings)
    for spec in topics.specs():
        operations = ["Describe", "DescribeConfigs", *_on_topic(spec.name, topics)]
        yield _right("topic", spec.name, operations)
    yield _right("group", settings.app_id, ["Read"])
    # One id for each partition: the producer of whoever owns it.
    yield _right("transactionalId", f"{settings.app_id}-", ["Describe", "Write"], "prefix")


def _on_topic(name: str, topics: Topics) -> list[str]:
    if name in topics.inputs.values():
        return ["Read"]
    if name in topics.changelogs.values():
        return ["Read", "Write"]
    if name in (topics.entities, topics.deltas):
        # To delete the records that have been counted.
        return ["Read", "Write", "Delete"]
    return ["Write"]


def _right(kind: str, name: str, operations: list[str], pattern: str = "literal") -> dict[str, Any]:
    resource = {"type": kind, "name": name, "patternType": pattern}
    return {"resource": resource, "operations": operations}


def prometheus_rules() -> Iterator[dict[str, Any]]:
    """Return a PrometheusRule for each file of rules."""
    namespace = yaml.safe_load(PRODUCTION.read_text())["namespace"]
    for file in sorted(RULES.glob("*.rules.yml")):
        spec = yaml.safe_load(file.read_text())
        for rule in (rule for group in spec["groups"] for rule in group["rules"]):
            # The operator lets an AlertmanagerConfig speak of alerts of its own namespace only.
            if "alert" in rule:
                rule["labels"]["namespace"] = namespace
        name = file.name.removesuffix(".rules.yml").replace("_", "-").replace(".", "-")
        yield {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {
                "name": name if name.startswith("leadpulse") else f"leadpulse-{name}",
                "labels": {"app.kubernetes.io/name": "leadpulse"},
            },
            "spec": spec,
        }


def inhibitions() -> dict[str, Any]:
    """Return the AlertmanagerConfig that holds back what Alertmanager's own file holds back."""
    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    return {
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "AlertmanagerConfig",
        "metadata": {"name": "leadpulse", "labels": {"app.kubernetes.io/name": "leadpulse"}},
        "spec": {
            "inhibitRules": [
                {
                    "sourceMatch": [_matcher(text) for text in rule["source_matchers"]],
                    "targetMatch": [_matcher(text) for text in rule["target_matchers"]],
                    **({"equal": rule["equal"]} if "equal" in rule else {}),
                }
                for rule in rules
            ]
        },
    }


def _matcher(text: str) -> dict[str, str]:
    """Return a matcher as the operator writes it.

    Raises:
        ValueError: unless it is one of the form name="value", with any of the four signs.
    """
    found = re.fullmatch(r'(\w+)(=~|!~|!=|=)"([^"\\]*)"', text)
    if not found:
        msg = f'matcher: expected name="value", got {text}'
        raise ValueError(msg)
    return {"name": found[1], "matchType": found[2], "value": found[3]}


def _text(source: str, *objects: Mapping[str, Any]) -> str:
    texts = [yaml.safe_dump(one, sort_keys=False, width=120, allow_unicode=True) for one in objects]
    return WRITTEN_BY.format(source=source) + "---\n".join(texts)


if __name__ == "__main__":
    main()
