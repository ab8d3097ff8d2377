"""The services of docker-compose.yml come up: their settings on the real programs, without an engine."""

import asyncio
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient

from tests.deploy.files import services
from tests.deploy.running import ComposeKafka, ComposePrometheus, ComposeRedis, leadpulse
from tests.integration.running import fetch, until
from tests.parts.install import MissingPartError
from tests.parts.server import free_port, spawn

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def broker() -> Iterator[ComposeKafka]:
    try:
        kafka = ComposeKafka(services()["kafka"])
    except MissingPartError as error:
        pytest.skip(str(error))
    with kafka:
        yield kafka


@pytest.fixture(scope="module")
def view() -> Iterator[ComposeRedis]:
    try:
        server = ComposeRedis(services()["redis"])
    except MissingPartError as error:
        pytest.skip(str(error))
    with server:
        yield server


async def advertised(bootstrap: str) -> set[str]:
    """Return the addresses that the broker tells those who come in by this door."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        told = await admin.describe_cluster()
    finally:
        await admin.close()
    return {f"{broker['host']}:{broker['port']}" for broker in told["brokers"]}


async def status_of(command: list[str], environment: dict[str, str]) -> int:
    """Return how a program ends; what it says is shown with a test that fails."""
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd="/", timeout=60, check=False
    )
    return int(done.returncode)


async def test_kafka_tells_each_side_the_door_it_can_reach(broker: ComposeKafka) -> None:
    outside, inside = broker.here("localhost:9092"), broker.here("kafka:19092")

    assert await advertised(outside) == {outside}
    assert await advertised(inside) == {inside}


def test_kafka_keeps_its_storage_when_its_container_is_made_anew(broker: ComposeKafka) -> None:
    broker.stop()
    written = (broker.directory / "data" / "meta.properties").read_text()

    # Formatting again is refused, and the image takes that refusal for success.
    with pytest.raises(Exception, match="already formatted"):
        broker._format()
    broker.start()

    assert (broker.directory / "data" / "meta.properties").read_text() == written


def test_redis_saves_nothing_and_refuses_rather_than_forgets(view: ComposeRedis) -> None:
    with redis.Redis.from_url(view.url, decode_responses=True) as client:
        settings = client.config_get("*")

    assert settings["save"] == ""
    assert settings["appendonly"] == "no"
    assert settings["maxmemory-policy"] == "noeviction"
    limit = services()["redis"]["deploy"]["resources"]["limits"]["memory"]
    assert int(settings["maxmemory"]) < int(limit.removesuffix("m")) * 2**20 * 0.8


async def test_topics_workers_and_traffic_come_up_on_a_read_only_root(
    broker: ComposeKafka, view: ComposeRedis, image: Path, tmp_path: Path
) -> None:
    port = free_port()
    hosts = {
        "kafka:19092": broker.here("kafka:19092"),
        "redis:6379": f"{view.host}:{view.port}",
        "0.0.0.0:9464": f"127.0.0.1:{port}",
    }
    ours = services()

    command, environment = leadpulse(image, ours["topics"], hosts, ours["topics"]["command"])
    assert await status_of(command, environment) == 0

    log = tmp_path / "worker.log"
    command, environment = leadpulse(image, ours["worker"], hosts, ["worker"])
    with log.open("wb") as output:
        worker = spawn(command, output, environment=environment)
    check = [word.replace("9464", str(port)) for word in ours["worker"]["healthcheck"]["test"][1:]]
    command, environment = leadpulse(
        image, ours["simulator"], hosts, [*ours["simulator"]["command"], "--seconds", "5"]
    )
    try:
        assert await status_of(command, environment) == 0
        with redis.Redis.from_url(view.url, decode_responses=True) as client:

            async def is_counted() -> bool:
                assert worker.poll() is None, log.read_text()
                return int(client.hget("leadkpi:v1:period:lifetime:_all:_all", "leads") or 0) > 0

            await until(is_counted, "leads in Redis", 60)
        assert await status_of([str(image / "bin" / check[0]), *check[1:]], {}) == 0
        assert "leadkpi_leads" in fetch(f"http://127.0.0.1:{port}/metrics")
        for part in re.findall(
            r'(?:src|href)="/?(page/[^"]+)"', fetch(f"http://127.0.0.1:{port}/")
        ):
            assert fetch(f"http://127.0.0.1:{port}/{part}"), part
    finally:
        worker.terminate()
        began = time.monotonic()
        status = worker.wait(30)
    assert status == 0, log.read_text()
    grace = int(ours["worker"]["stop_grace_period"].removesuffix("s"))
    assert time.monotonic() - began < grace / 2
    assert "Read-only" not in log.read_text()


def test_prometheus_comes_up_with_its_rules() -> None:
    try:
        prometheus = ComposePrometheus(services()["prometheus"])
    except MissingPartError as error:
        pytest.skip(str(error))
    with prometheus:
        assert '"state":"' in fetch(f"http://127.0.0.1:{prometheus.port}/api/v1/rules")
