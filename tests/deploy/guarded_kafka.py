"""A broker that asks for a password and lets a user do only what a KafkaUser says."""

from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka.admin import (  # type: ignore[attr-defined] # it lists its names nowhere
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.parts.kafka_broker import KafkaBroker
from tests.parts.server import free_port

USER: Final = "leadpulse"
PASSWORD: Final = "only-of-this-test"

_LOGIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
_TYPES: Final = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactionalId": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}
_PATTERNS: Final = {"literal": ResourcePatternType.LITERAL, "prefix": ResourcePatternType.PREFIXED}


class GuardedKafka(KafkaBroker):
    """Kafka with its StandardAuthorizer: who comes in by `bootstrap` may do everything, by `guarded` a little."""

    def __init__(self) -> None:
        self.guarded_port = free_port()
        super().__init__()

    @property
    def guarded(self) -> str:
        """The bootstrap servers for those who have a password."""
        return f"{self.host}:{self.guarded_port}"

    def settings(self) -> dict[str, str]:
        """Return how LeadPulse comes in by the guarded door."""
        return {
            "LEADPULSE_KAFKA": self.guarded,
            "LEADPULSE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "LEADPULSE_KAFKA_SASL_MECHANISM": "PLAIN",
            "LEADPULSE_KAFKA_SASL_USERNAME": USER,
            "LEADPULSE_KAFKA_SASL_PASSWORD": PASSWORD,
        }

    def allow(self, acls: Iterable[dict[str, Any]]) -> None:
        """Give the user the rights that a KafkaUser lists, as Strimzi's operator does."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        bindings = [
            AclBinding(
                _TYPES[rule["resource"]["type"]],
                rule["resource"].get("name", "kafka-cluster"),
                _PATTERNS[rule["resource"].get("patternType", "literal")],
                f"User:{USER}",
                "*",
                _operation(name),
                AclPermissionType.ALLOW,
            )
            for rule in acls
            for name in rule["operations"]
        ]
        for done in admin.create_acls(bindings).values():
            done.result(timeout=30)

    def _own_settings(self) -> dict[str, str]:
        own = super()._own_settings()
        return own | {
            "listeners": f"{own['listeners']},GUARDED://{self.guarded}",
            "advertised.listeners": f"{own['advertised.listeners']},GUARDED://{self.guarded}",
            "listener.security.protocol.map": f"{own['listener.security.protocol.map']},GUARDED:SASL_PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.guarded.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.guarded.plain.sasl.jaas.config": (
                f'{_LOGIN} required user_{USER}="{PASSWORD}";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }


def _operation(name: str) -> AclOperation:
    spelt = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in name)
    return AclOperation[spelt.lstrip("_").upper()]
