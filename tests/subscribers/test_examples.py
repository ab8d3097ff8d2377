"""Every example runs as its page says, beside a real worker, and tells what the topics and Redis hold."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from kpis.alert_records import TYPES, alert_record, alert_value
from kpis.windows import FINAL, REVISED
from tests.documents import ROOT
from tests.integration.running import Deployment, event, until
from tests.kpis.test_alert_records import PARIS, an_alert
from tests.parts.install import kafka_libraries
from tests.schemas.validators import faults_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(200),
]

EXAMPLES: Final = ROOT / "examples"
SOON_SECONDS: Final = 60.0
MINUTES_SECONDS: Final = 150.0
CHANNELS: Final = ("google_ads", "linkedin_ads", "seo")


class Running:
    """An example that runs, and what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def told(
        self, condition: Callable[[Sequence[str]], object], seconds: float = SOON_SECONDS
    ) -> list[str]:
        """Return all lines as soon as they meet a condition.

        Raises:
            TimeoutError: unless they do within `seconds`.
            EOFError: if the example ends before.
        """
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            while not condition(self.lines):
                line = await self.process.stdout.readline()
                if not line:
                    raise EOFError("\n".join(self.lines))
                self.lines.append(line.decode().rstrip())
        return self.lines


@asynccontextmanager
async def example(deployment: Deployment, *command: str) -> AsyncIterator[Running]:
    """Run an example until the block ends; then end it as a person does, with Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=EXAMPLES,
        env={**os.environ, **deployment.environment},
        stdout=asyncio.subprocess.PIPE,
        # What a shell starts in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), SOON_SECONDS)


def python(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, f"{name}.py", *arguments)


def of_channels(lines: Sequence[str], *channels: str) -> bool:
    return all(any(line.startswith(channel) for line in lines) for channel in channels)


def cpl_of(record: dict[str, Any]) -> str:
    """Return what a record says of the CPL, as a person writes it."""
    cpl = record["kpis"]["cpl"]
    return cpl["undefined_reason"] if cpl["value"] is None else f"{cpl['value']:.2f}"


def booking(record: dict[str, Any]) -> str:
    """Return what the consumer in Java says of a record, without window and channel."""
    facts, cpl = record["facts"], record["kpis"]["cpl"]
    value = cpl["undefined_reason"] if cpl["value"] is None else cpl["value"]
    because = f" because of {record['cause']}" if record["cause"] else ""
    return (
        f"{facts.get('leads', 0)} leads, cost {facts.get('cost', 0)}, CPL {value} "
        f"({record['state']}, revision {record['revision']}{because})"
    )


async def a_new_lead(deployment: Deployment, channel: str, name: str) -> None:
    now = datetime.now(UTC).isoformat()
    await deployment.send([event("leads", "lead.created", now, lead_id=name, channel=channel)])


async def is_committed(deployment: Deployment, topic: str) -> bool:
    """Return whether the consumer of alerts has read its topic to the end, for all that come after it."""
    options = deployment.settings.kafka.client_options()
    group = f"{deployment.settings.topics.prefix}alert-example"
    async with AIOKafkaConsumer(**options, group_id=group) as consumer:
        places = [TopicPartition(topic, p) for p in range(deployment.partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        return all([(await consumer.committed(tp) or 0) == end for tp, end in ends.items()])


async def write(deployment: Deployment, topic: str, key: bytes, value: bytes | None) -> None:
    """Write a record as a worker would."""
    async with AIOKafkaProducer(**deployment.settings.kafka.client_options()) as producer:
        await producer.send_and_wait(topic, value, key)


# ----------------------------------------------------------------------------- input


async def test_a_lead_counts_in_each_form_in_which_the_producer_sends_it(
    deployment: Deployment,
) -> None:
    rejected = len(await deployment.rejects())
    async with example(deployment, *python("producer")) as running:
        lines = await running.told(lambda lines: len(lines) == 3)
        assert await running.process.wait() == 0
    assert [line.split()[0] for line in lines] == ["flat", "structured", "binary"]
    topic = deployment.topics.inputs["leads"]
    assert all(re.fullmatch(rf"\w+ +{re.escape(topic)}/[0-2]/\d+", line) for line in lines)

    await deployment.shown({"leads": "3"}, "partner", "examples")
    assert (await deployment.facts("partner", "examples"))["leads"] == 3
    assert len(await deployment.rejects()) == rejected == 2


# ----------------------------------------------------------------------------- KPIs


async def test_the_consumer_of_kpis_shows_what_is_on_the_topic_and_every_change(
    deployment: Deployment,
) -> None:
    async with example(deployment, *python("kpi_consumer")) as running:
        await running.told(lambda lines: of_channels(lines, *CHANNELS))
        records = await deployment.kpi_records()
        for channel in CHANNELS:
            record = records[f"period|last_24h|-|{channel}|_all"]
            (line, *_) = (line for line in running.lines if line.startswith(channel))
            assert f" {record['facts'].get('leads', 0)} leads  CPL {cpl_of(record)}" in line
        assert "CPL 30.00" in running.lines[0]
        assert any("CPL no_data" in line for line in running.lines)

        await a_new_lead(deployment, "google_ads", "for the consumer")
        await running.told(lambda lines: any(" 5 leads  CPL 24.00" in line for line in lines))


async def test_the_consumer_of_kpis_sees_tombstones_and_nothing_that_was_taken_back(
    deployment: Deployment,
) -> None:
    key = "period|last_24h|-|sold|_all"
    record = (await deployment.kpi_records())["period|last_24h|-|google_ads|_all"]
    value = json.dumps({**record, "scope": {"channel": "sold", "campaign_id": None}}).encode()
    options = deployment.settings.kafka.client_options()
    async with example(deployment, *python("kpi_consumer")) as running:
        await running.told(lambda lines: of_channels(lines, *CHANNELS))
        taken_back = AIOKafkaProducer(**options, transactional_id=f"{deployment.topics.kpis}-test")
        async with taken_back:
            await taken_back.begin_transaction()
            undone = value.replace(b"sold", b"undone")
            await taken_back.send_and_wait(
                deployment.topics.kpis, undone, b"period|last_24h|-|undone|_all"
            )
            await taken_back.abort_transaction()
        await write(deployment, deployment.topics.kpis, key.encode(), value)
        await running.told(lambda lines: of_channels(lines, "sold"))
        await write(deployment, deployment.topics.kpis, key.encode(), None)
        lines = await running.told(lambda lines: f"{key}: gone" in lines)
    assert not of_channels(lines, "undone")


async def test_the_reader_of_redis_shows_what_the_hashes_hold_and_every_change(
    deployment: Deployment,
) -> None:
    async with example(deployment, *python("redis_reader")) as running:
        await running.told(lambda lines: of_channels(lines, *CHANNELS))
        for channel in CHANNELS:
            fields = deployment.hash("last_24h", channel)
            cpl = fields.get("cpl") or json.loads(fields["_undefined"])["cpl"]
            (line, *_) = (line for line in running.lines if line.startswith(channel))
            assert f" {fields.get('leads', '0')} leads  CPL {cpl}  complete until " in line
        assert any("seo" in line and "CPL no_data" in line for line in running.lines)

        await a_new_lead(deployment, "linkedin_ads", "for the reader")
        await running.told(lambda lines: any(" 3 leads  CPL 30.0 " in line for line in lines))


# ----------------------------------------------------------------------------- alerts


async def test_the_consumer_of_alerts_handles_each_once_also_over_a_restart(
    deployment: Deployment,
) -> None:
    fired, resolved = (
        alert_record(alert_value(alert, None, PARIS, "EUR"))
        for alert in (an_alert(), an_alert(state="resolved", condition="well"))
    )
    topic = deployment.topics.alerts
    await write(deployment, topic, fired.key, fired.value)
    await write(deployment, topic, fired.key, fired.value)
    async with example(deployment, *python("alert_consumer")) as running:
        first = list(await running.told(lambda lines: len(lines) == 3))
        await until(partial(is_committed, deployment, topic), "committed offsets")
    told = json.loads(fired.value)
    assert first == [
        f"{told['at']}  fired     cpl_spike  google_ads/brand-search",
        f"    {told['message_en']}",
        "    cost 720.000000, 20 leads, 36.0 expected, p = 0.0028",
    ]

    await write(deployment, topic, resolved.key, resolved.value)
    async with example(deployment, *python("alert_consumer")) as running:
        again = await running.told(lambda lines: any("resolved" in line for line in lines))
    assert not any("fired" in line for line in again)


# ----------------------------------------------------------------------------- the ledger


async def test_the_ledger_in_java_has_each_month_once_and_again_when_it_is_revised(
    deployment: Deployment,
) -> None:
    libraries = f"{kafka_libraries()}/*"
    command = ("java", "-Xmx256m", "-cp", libraries, "KpiConsumer.java", "1mo", "cohort")
    month = "2026-03-01T00:00:00+00:00 google_ads: "
    async with example(deployment, *command) as running:

        def is_revised(lines: Sequence[str]) -> bool:
            return any(line.startswith(f"{month}2 leads") and REVISED in line for line in lines)

        lines = await running.told(is_revised, MINUTES_SECONDS)
    key = b"cohort|1mo|2026-03-01T00:00:00+00:00|google_ads|_all"
    read = await deployment._read(deployment.topics.windows)
    booked = [json.loads(record.value) for record in read if record.key == key]
    told = [line.removeprefix(month) for line in lines if line.startswith(month)]
    assert told == list(map(booking, booked))
    assert [record["revision"] for record in booked] == [*range(1, len(booked) + 1)]
    assert (booked[0]["state"], booked[-1]["cause"]) == (FINAL, "late_event")
    assert booked[-1]["kpis"]["cpl"]["value"] == 30.0


# ----------------------------------------------------------------------------- schemas


async def test_everything_a_worker_writes_is_as_the_schemas_say_and_nothing_else(
    deployment: Deployment,
) -> None:

    async def is_revised() -> bool:
        records = (await deployment.kpi_records()).values()
        return any(record["state"] == REVISED for record in records)

    await until(is_revised, "a revision", MINUTES_SECONDS)
    kpis = (await deployment.kpi_records()).values()
    ledger = [json.loads(r.value) for r in await deployment._read(deployment.topics.windows)]
    rejects = [record for _, record in await deployment.rejects()]
    alerts = [record for _, record in await deployment.alerts()]

    assert {record["basis"] for record in kpis} == {"period", "cohort"}
    assert {record["state"] for record in ledger} == {FINAL, REVISED}
    assert {record["reason"] for record in rejects} == {"bad_amount", "malformed"}
    assert {alert["state"] for alert in alerts} <= TYPES.keys()
    written = {"kpi-record": [*kpis, *ledger], "reject": rejects, "alert": alerts}
    for name, records in written.items():
        for record in records:
            assert faults_of(name, record, is_closed=True) == [], record
