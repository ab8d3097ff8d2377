"""The worked example of the contract through a real broker, to the last number."""

import itertools
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cloud_events import binary, structured
from tests.golden import example
from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Sent, until

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parent.parent / "golden"
EXPECTED: Mapping[str, Any] = json.loads((FOLDER / "expected_m1.json").read_text())["period"]
STAGES = ("visitor", "lead", "mql", "sql", "customer")
AMOUNTS = ("cost", "revenue_gross")
DAY_MS = 86_400_000
NOT_SHOWN = example.NOT_WRITTEN["period"]
"""Facts that the example does not write down: derived, or of no effect in it."""


def events() -> list[Sent]:
    lines = (FOLDER / "events_m1.jsonl").read_text().splitlines()
    return [
        Sent(line["topic"], json.dumps(line["value"]).encode()) for line in map(json.loads, lines)
    ]


def shuffled_and_doubled(seed: int) -> list[Sent]:
    records = events() * 2
    random.Random(seed).shuffle(records)
    return records


def published(written: Mapping[str, int]) -> dict[str, object]:
    """Return facts as they are published; the note of expected_m1.json says how they are written."""
    facts: dict[str, object] = {}
    for name, fact in written.items():
        if name in STAGES:
            facts[f"stage_entered.{name}"] = fact
        elif name == "cycle_days":
            facts["cycle_ms"] = fact * DAY_MS
        else:
            facts[name] = f"{fact}.000000" if name in AMOUNTS else fact
    return facts


def values_of(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the KPIs of a record without what else is told of them, such as limits."""
    kpis = {name: record["kpis"][name] for name in names}
    parts = ("value", "undefined_reason")
    return {name: {part: kpi[part] for part in parts if part in kpi} for name, kpi in kpis.items()}


async def check(deployment: Deployment) -> None:
    for channel, expected in EXPECTED.items():
        facts = published(expected["facts"])
        record = await deployment.lifetime(channel)
        found = {n: f for n, f in record["facts"].items() if n.partition(".")[0] not in NOT_SHOWN}
        assert found == facts, channel
        assert values_of(record, expected["kpis"]) == expected["kpis"], channel

        values = {
            n: kpi["value"] for n, kpi in expected["kpis"].items() if kpi["value"] is not None
        }
        reasons = {n: kpi.get("undefined_reason") for n, kpi in expected["kpis"].items()}
        await deployment.shown({name: str(fact) for name, fact in facts.items()}, channel)
        fields = deployment.hash("lifetime", channel)
        assert {name: float(fields[name]) for name in values} == values, channel
        undefined = json.loads(fields["_undefined"])
        assert {n: undefined.get(n) for n in reasons} == reasons, channel
        assert not undefined.keys() & fields.keys(), channel


def month_key(basis: str, channel: str) -> str:
    """Return the key of the records of March 2026."""
    return f"{basis}|1mo|{example.MONTH_START}|{channel}|_all"


async def check_month(deployment: Deployment) -> None:
    """Check every fact and KPI of March 2026, on both bases."""
    records = await deployment.kpi_records()
    for basis, channel, facts, kpis, mature in example.EXPECTED:
        record = records[month_key(basis, channel)]
        wanted: dict[str, object] = {
            name: f"{fact}.000000" if name in example.AMOUNTS else fact
            for name, fact in facts.items()
        }
        if mature:
            wanted["mature"] = mature
        assert example.shown(basis, record["facts"]) == wanted, (basis, channel)
        assert values_of(record, kpis) == kpis, (basis, channel)
        assert not any("partial" in kpi for kpi in record["kpis"].values()), (basis, channel)
        assert record["currency"] == "EUR"
        assert record["window"]["time_zone"] == example.ZONE


async def settle_month(deployment: Deployment) -> None:
    """Wait until all is counted and the worker knows it: only then are leads mature."""
    await deployment.settle()

    async def has_matured() -> bool:
        records = await deployment.kpi_records()
        keys = (month_key(one.basis, one.channel) for one in example.EXPECTED if one.mature)
        return all("mature" in records.get(key, {"facts": ()})["facts"] for key in keys)

    await until(has_matured, "mature leads")


@pytest.mark.parametrize("order", list(example.ORDERS))
async def test_the_golden_month_on_both_bases_gives_every_fact_and_kpi(
    deploy: Deploy, order: str
) -> None:
    deployment = await deploy(LEADPULSE_TIME_ZONE=example.ZONE, LEADPULSE_CURRENCY="EUR")
    worker = deployment.worker()
    await deployment.send([Sent(line.topic, line.value) for line in example.ORDERS[order]])
    await settle_month(deployment)
    await check_month(deployment)
    assert await deployment.rejects() == []
    assert worker.stop() == 0
    assert worker.tracebacks() == 0


async def test_the_golden_month_is_the_same_as_cloud_events(deploy: Deploy) -> None:
    deployment = await deploy(LEADPULSE_TIME_ZONE=example.ZONE, LEADPULSE_CURRENCY="EUR")
    worker = deployment.worker()
    modes = itertools.cycle((structured, binary))
    sent = []
    for line in example.ORDERS["as it is"]:
        value, headers = next(modes)(line.value)
        sent.append(Sent(line.topic, value, headers=headers))
    await deployment.send(sent)
    await settle_month(deployment)
    await check_month(deployment)
    assert await deployment.rejects() == []
    assert (await deployment.verify()).returncode == 0
    assert worker.stop() == 0
    assert worker.tracebacks() == 0


@pytest.mark.parametrize(
    "records",
    [events(), shuffled_and_doubled(1)],
    ids=["as it is", "shuffled and doubled"],
)
async def test_the_golden_month_gives_every_fact_and_kpi(
    deploy: Deploy, records: list[Sent]
) -> None:
    deployment = await deploy(LEADPULSE_TIME_ZONE="Europe/Paris")
    worker = deployment.worker()
    await deployment.send(records)
    await deployment.settle()
    await check(deployment)
    assert await deployment.rejects() == []
    assert worker.stop() == 0
    assert worker.tracebacks() == 0
