"""Redis may be down at the start, go away, and come back empty: Kafka work goes on meanwhile."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from redis.exceptions import RedisError

from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Sent, event, fetch, sample, series, until
from tests.parts.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.fault]

RIGHT_WITHIN_SECONDS = 5.0
CAMPAIGNS = 40


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Return a Redis of this test alone, which is not started."""
    server = RedisServer()
    yield server
    server.close()


def clicks(number: int) -> list[Sent]:
    now = datetime.now(UTC).isoformat()
    return [
        event("clicks", "click.recorded", now, click_id=f"{number}-{n}", channel="seo", campaign_id=str(n))
        for n in range(CAMPAIGNS)
    ]  # fmt: skip


async def send(deployment: Deployment, number: int) -> None:
    await deployment.send(clicks(number))
    await deployment.settle()
    # It is on the topic, whatever Redis does.
    assert (await deployment.facts())["clicks"] == (number + 1) * CAMPAIGNS


async def seconds_until_right(deployment: Deployment) -> float:
    """Return after how long Redis has every number of leadgen.kpis.v1 in its lifetime hashes."""
    records = [
        record
        for record in (await deployment.kpi_records()).values()
        if record["window"]["kind"] == "lifetime"
    ]
    assert len(records) == CAMPAIGNS + 2

    async def is_right() -> bool:
        try:
            return all(is_shown(deployment, record) for record in records)
        except (RedisError, OSError):
            return False

    return await until(is_right, "Redis right again", RIGHT_WITHIN_SECONDS)


def is_shown(deployment: Deployment, record: dict[str, dict[str, str]]) -> bool:
    scope = [record["scope"][part] or "_all" for part in ("channel", "campaign_id")]
    fields = deployment.hash("lifetime", *scope)
    return all(fields.get(name) == str(fact) for name, fact in record["facts"].items())


def warnings(log: str) -> list[str]:
    return [line for line in log.splitlines() if " INFO " not in line]


async def test_redis_is_right_within_five_seconds_of_its_return(
    deploy: Deploy, own_redis: RedisServer
) -> None:
    deployment = await deploy_without_redis(deploy, own_redis)
    worker = deployment.worker()
    await send(deployment, 0)
    (said,) = warnings(worker.log.read_text())
    assert said.endswith(
        f"Redis at {own_redis.url}: expected a server that answers, got connection refused;"
        " start it or set LEADPULSE_REDIS; counting goes on without it"
    )

    own_redis.start()
    print(f"right after its first start: {await seconds_until_right(deployment):.2f} s")

    own_redis.kill()
    for number in (1, 2, 3):
        await send(deployment, number)
    exposed = series(fetch(worker.metrics_url))
    assert sample(exposed, "leadkpi_publisher_up", publisher="redis") == 0
    own_redis.start()
    print(f"right after kill and start: {await seconds_until_right(deployment):.2f} s")
    # It came back empty, and what did not change meanwhile is there too.
    assert deployment.hash("lifetime", "seo", "0")["_currency"] == "EUR"

    own_redis.pause()
    await send(deployment, 4)
    own_redis.resume()
    print(f"right after a pause: {await seconds_until_right(deployment):.2f} s")
    exposed = series(fetch(worker.metrics_url))
    assert sample(exposed, "leadkpi_publisher_up", publisher="redis") == 1
    done = await deployment.verify()
    assert done.stdout.startswith(f"exact: {5 * CAMPAIGNS} events"), done.stdout
    assert worker.stop() == 0
    assert worker.tracebacks() == 0


async def deploy_without_redis(deploy: Deploy, redis: RedisServer) -> Deployment:
    redis.start()
    deployment = await deploy(LEADPULSE_REDIS=redis.url)
    redis.kill()
    return deployment
