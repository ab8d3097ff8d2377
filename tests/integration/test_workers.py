"""Several workers share the shards, hand them over and go on where they were; secured brokers."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count

import pytest

from tests.faults.workers import Worker
from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Sent, event, fetch, sample, series, until
from tests.integration.test_errors import the_line
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.server import free_port

pytestmark = pytest.mark.integration

CAMPAIGNS = 12
_numbers = count()


def clicks(amount: int) -> list[Sent]:
    now = datetime.now(UTC).isoformat()
    return [
        event(
            *("clicks", "click.recorded", now),
            click_id=f"k{next(_numbers)}",
            channel="seo",
            campaign_id=f"c{n % CAMPAIGNS}",
        )
        for n in range(amount)
    ]


async def shards(worker: Worker) -> float | None:
    try:
        return sample(series(fetch(worker.metrics_url)), "leadkpi_shards")
    except OSError:
        return None


async def owns(worker: Worker, *counts: int) -> float:
    async def has_them() -> bool:
        return await shards(worker) in counts

    return await until(has_them, f"worker {worker.number} with {counts} shards")


def scopes(worker: Worker) -> set[tuple[str, str]]:
    return {
        (dict(labels)["channel"], dict(labels)["campaign"])
        for name, labels in series(fetch(worker.metrics_url))
        if name == "leadkpi_clicks"
    }


async def test_workers_share_the_shards_and_hand_them_over_without_loss(deploy: Deploy) -> None:
    deployment = await deploy()
    first = deployment.worker()
    await deployment.send(clicks(120))
    await owns(first, 3)
    second = deployment.worker()
    await owns(second, 1, 2)
    await owns(first, 1, 2)
    await deployment.send(clicks(120))
    await deployment.settle()

    async def each_scope_has_one_exporter() -> bool:
        by_first, by_second = scopes(first), scopes(second)
        return not by_first & by_second and len(by_first | by_second) == CAMPAIGNS + 2

    await until(each_scope_has_one_exporter, "every scope exported, and by one worker only")

    await deployment.send(clicks(60))
    assert first.stop() == 0
    await deployment.send(clicks(60))
    print(f"handed over after {await owns(second, 3):.1f} s")
    await deployment.settle()
    await right(deployment, 360)
    assert len(scopes(second)) == CAMPAIGNS + 2

    # Another life reads on from the positions: nothing is read again.
    assert second.stop() == 0
    second.start()
    await owns(second, 3)
    await deployment.send(clicks(1))
    await deployment.settle()
    await right(deployment, 361)
    exposed = series(fetch(second.metrics_url))
    assert sample(exposed, "leadkpi_events_total", topic="clicks", outcome="accepted") == 1
    assert sample(exposed, "leadkpi_events_total", topic="clicks", outcome="duplicate") is None
    done = await deployment.verify()
    assert done.stdout.startswith("exact: 361 events"), done.stdout
    assert first.tracebacks() == second.tracebacks() == 0


async def right(deployment: Deployment, total: int) -> None:
    assert (await deployment.facts())["clicks"] == total
    await deployment.shown({"clicks": str(total)})


# ----------------------------------------------------------------------------- SASL


class SaslBroker(KafkaBroker):
    """A broker with a second listener, for users with a password."""

    def _own_settings(self) -> dict[str, str]:
        self.secured = f"{self.host}:{free_port()}"
        own = super()._own_settings()
        users = 'user_leadpulse="right"'
        return own | {
            "listeners": f"{own['listeners']},SASL://{self.secured}",
            "advertised.listeners": f"{own['advertised.listeners']},SASL://{self.secured}",
            "listener.security.protocol.map": (
                f"{own['listener.security.protocol.map']},SASL:SASL_PLAINTEXT"
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
            ),
        }


@pytest.fixture
def sasl_broker() -> Iterator[SaslBroker]:
    with SaslBroker(heap_mb=384) as broker:
        yield broker


async def test_a_broker_that_asks_for_a_password(sasl_broker: SaslBroker, deploy: Deploy) -> None:
    deployment = await deploy(
        LEADPULSE_KAFKA=sasl_broker.secured,
        LEADPULSE_KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT",
        LEADPULSE_KAFKA_SASL_MECHANISM="PLAIN",
        LEADPULSE_KAFKA_SASL_USERNAME="leadpulse",
        LEADPULSE_KAFKA_SASL_PASSWORD="right",
    )
    worker = deployment.worker()
    await deployment.send(clicks(5))
    await deployment.settle()
    await right(deployment, 5)
    done = await deployment.verify()
    assert done.stdout.startswith("exact: 5 events"), done.stdout
    assert worker.stop() == 0

    for command in (("worker",), ("topics",), ("verify",)):
        line = the_line(deployment.run(*command, LEADPULSE_KAFKA_SASL_PASSWORD="wrong-secret"))
        assert line.startswith(f"Kafka at {sasl_broker.secured}: expected ")
        assert "credentials" in line
        assert "wrong-secret" not in line
