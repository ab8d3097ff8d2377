"""Deployments for tests; each has names and a Redis database of its own."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.integration.running import Deployment
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer

Deploy = Callable[..., Awaitable[Deployment]]
PARTITIONS = 3
DATABASES = 16
LOG_BYTES = 4_000
_databases = count()

# It says of each retry that it is one, and new topics take some.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture
def names(kafka: KafkaBroker, redis_server: RedisServer, prefix: str) -> dict[str, str]:
    """Return the settings of this test: where Kafka and Redis are, and its own names there."""
    url = redis_server.url.removesuffix("/0")
    return {
        "LEADPULSE_KAFKA": kafka.bootstrap,
        "LEADPULSE_REDIS": f"{url}/{next(_databases) % DATABASES}",
        "LEADPULSE_TOPICS_PREFIX": prefix,
        "LEADPULSE_APP_ID": f"{prefix}app",
    }


@pytest.fixture
async def deploy(names: dict[str, str], tmp_path: Path) -> AsyncIterator[Deploy]:
    """Return what makes a deployment from settings that differ, with topics unless told otherwise."""
    async with AsyncExitStack() as stack:

        async def make(
            partitions: int = PARTITIONS, *, with_topics: bool = True, **settings: str
        ) -> Deployment:
            made = Deployment({**names, **settings}, tmp_path, partitions)
            await stack.enter_async_context(made)
            made.redis.flushdb()
            if with_topics:
                await made.create_topics()
            return made

        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the workers said last."""
    report = yield
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and isinstance(directory, Path):
        for log in sorted(directory.glob("worker-*.log")):
            report.sections.append((log.name, log.read_text(errors="replace")[-LOG_BYTES:]))
    return report
