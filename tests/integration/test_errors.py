"""What is wrong outside is said in one line: where, what was expected, what came, what to do."""

import socket
from subprocess import CompletedProcess

import pytest
from aiokafka.admin import NewPartitions

from streams.topics import admin_client
from tests.integration.conftest import Deploy
from tests.integration.running import until
from tests.integration.test_facebook_ads import FILE
from tests.parts.server import free_port

pytestmark = pytest.mark.integration

COMMANDS = (
    ("worker",),
    ("verify",),
    ("topics",),
    ("import", "facebook-ads", str(FILE)),
    ("simulate", "--events", "1"),
)


def the_line(done: CompletedProcess[str], status: int = 1) -> str:
    """Return the only line of a failure."""
    assert done.returncode == status, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert ": expected " in lines[0]
    assert ", got " in lines[0]
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
async def test_broker_that_is_not_reachable(deploy: Deploy, command: tuple[str, ...]) -> None:
    deployment = await deploy(with_topics=False)
    address = f"127.0.0.1:{free_port()}"
    line = the_line(deployment.run(*command, LEADPULSE_KAFKA=address))
    assert line == (
        f"Kafka at {address}: expected a broker that answers, got connection refused;"
        " start it or set LEADPULSE_KAFKA"
    )


async def test_topic_that_is_missing(deploy: Deploy) -> None:
    deployment = await deploy(with_topics=False)
    lines = {
        f"topic {name}: expected a topic, got none; run `leadpulse topics --create`"
        for name in deployment.topics.inputs.values()
    }
    for command in COMMANDS:
        if command != ("topics",):
            assert the_line(deployment.run(*command)) in lines, command
    done = deployment.run("topics")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == len(deployment.topics.specs())


async def test_unequal_partition_counts(deploy: Deploy) -> None:
    deployment = await deploy()
    name = deployment.topics.inputs["sales"]
    async with admin_client(deployment.settings.kafka) as admin:
        await admin.create_partitions({name: NewPartitions(total_count=deployment.partitions + 1)})

        async def is_known() -> bool:
            (topic,) = await admin.describe_topics([name])
            return len(topic["partitions"]) == deployment.partitions + 1

        await until(is_known, f"another partition of {name}")
    line = the_line(deployment.run("worker"))
    assert line.startswith(
        f"topic {name}: expected 3 partitions like the others, got 4 partitions; give all"
    )
    assert the_line(deployment.run("topics")) == line


async def test_wrong_setting(deploy: Deploy) -> None:
    deployment = await deploy(with_topics=False)
    done = deployment.run("worker", LEADPULSE_COMMIT_INTERVAL_MS="soon")
    line = the_line(done, status=2)
    assert line.startswith("commit.interval_ms (LEADPULSE_COMMIT_INTERVAL_MS): expected ")
    assert "got 'soon'" in line


async def test_metrics_port_that_is_in_use(deploy: Deploy) -> None:
    deployment = await deploy()
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        port = other.getsockname()[1]
        line = the_line(deployment.run("worker", LEADPULSE_METRICS=f"127.0.0.1:{port}"))
    assert line.startswith(f"metrics at 127.0.0.1:{port}: expected an address to listen on, got ")
    assert line.endswith("; set LEADPULSE_METRICS to a free one")


async def test_redis_that_verify_and_top_need(deploy: Deploy) -> None:
    deployment = await deploy()
    url = f"redis://127.0.0.1:{free_port()}/0"
    for command in (("verify",), ("top", "--once")):
        line = the_line(deployment.run(*command, LEADPULSE_REDIS=url))
        assert line == (
            f"Redis at {url}: expected a server that answers, got connection refused;"
            " start it or set LEADPULSE_REDIS"
        ), command
