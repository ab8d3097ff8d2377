"""The rights of the KafkaUser are what a worker needs on a broker that checks them, and no more."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import TopicAuthorizationFailedError

from streams import topics
from streams.settings import load
from streams.topics import admin_client
from tests.deploy.guarded_kafka import GuardedKafka
from tests.deploy.kubernetes_files import KUBERNETES
from tests.integration.running import Deployment, event
from tests.parts.install import MissingPartError
from tests.parts.redis_server import RedisServer

pytestmark = pytest.mark.integration


def rights() -> list[dict[str, Any]]:
    user = yaml.safe_load((KUBERNETES / "strimzi" / "user.yaml").read_text())
    listed: list[dict[str, Any]] = user["spec"]["authorization"]["acls"]
    return listed


@pytest.fixture(scope="module")
def guarded_kafka() -> Iterator[GuardedKafka]:
    try:
        broker = GuardedKafka()
    except MissingPartError as error:
        pytest.skip(str(error))
    with broker:
        broker.allow(rights())
        yield broker


@pytest.fixture
async def deployment(
    guarded_kafka: GuardedKafka, redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[Deployment]:
    environment = {"LEADPULSE_KAFKA": guarded_kafka.bootstrap, "LEADPULSE_REDIS": redis_server.url}
    async with Deployment(environment, tmp_path, 2) as made:
        made.redis.flushdb()
        await made.create_topics()
        yield made


async def test_worker_counts_with_the_rights_of_its_user(
    guarded_kafka: GuardedKafka, deployment: Deployment
) -> None:
    worker = deployment.worker(**guarded_kafka.settings())
    now = "2026-11-01T10:00:00Z"

    await deployment.send(
        [
            event("leads", "lead.created", now, lead_id="L1", channel="google_ads"),
            event(
                "sales", "sale.created", now, sale_id="S1", lead_id="L1", amount=9, currency="EUR"
            ),
            event("costs", "no.such.type", now),
        ]
    )

    await deployment.shown({"leads": "1", "sales": "1", "new_customers": "1"}, "google_ads")
    assert len(await deployment.rejects()) == 1
    worker.stop()
    assert worker.exit_status() == 0
    assert "uthorization" not in worker.log.read_text()


async def test_user_may_delete_what_has_been_counted_of_our_own_topics(
    guarded_kafka: GuardedKafka, deployment: Deployment
) -> None:
    settings = load({"LEADPULSE_CONFIG": "", **guarded_kafka.settings()})
    own = topics.topics_of(settings)

    async with admin_client(settings.kafka) as admin:
        nothing = {
            TopicPartition(name, 0): RecordsToDelete(0) for name in (own.entities, own.deltas)
        }
        deleted = await admin.delete_records(nothing)

    assert deleted.keys() == nothing.keys()


@pytest.mark.parametrize("short", ["leads", "costs"])
async def test_user_may_not_write_input(
    guarded_kafka: GuardedKafka, deployment: Deployment, short: str
) -> None:
    settings = load({"LEADPULSE_CONFIG": "", **guarded_kafka.settings()})

    async with AIOKafkaProducer(
        **settings.kafka.client_options(), enable_idempotence=False
    ) as producer:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(deployment.topics.inputs[short], b"{}")


def test_user_has_no_right_on_the_cluster_and_none_by_a_wide_pattern() -> None:
    for rule in rights():
        resource = rule["resource"]
        assert resource["type"] != "cluster"
        assert resource["name"] != "*"
        assert "All" not in rule["operations"]
        assert resource["patternType"] == "literal" or resource["type"] == "transactionalId"
