"""A real export through import, worker, leadgen.kpis.v1, Redis and verify."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.integration.conftest import Deploy
from tests.integration.running import Deployment

pytestmark = pytest.mark.integration

FILE: Final = Path(__file__).parent.parent / "data" / "facebook_ads.csv"
CHANNEL: Final = "meta_ads"
SETTLE_SECONDS: Final = 90.0
"""How long thousands of events, all at once and each day in windows of its own, may take on a busy machine."""


class Total(NamedTuple):
    """What the README beside the file says about one campaign."""

    impressions: int
    clicks: int
    spent_micros: int
    leads: int
    sales: int


TOTALS: Final = {
    "916": Total(482_925, 113, 149_710_000, 58, 24),
    "936": Total(8_128_187, 1_984, 2_893_369_997, 537, 183),
    "1178": Total(204_823_716, 36_068, 55_662_149_960, 2_669, 872),
}
TOTALS["_all"] = Total(*map(sum, zip(*TOTALS.values(), strict=True)))


def facts(total: Total) -> dict[str, object]:
    whole, micros = divmod(total.spent_micros, 1_000_000)
    return {
        "impressions": total.impressions,
        "clicks": total.clicks,
        "cost": f"{whole}.{micros:06d}",
        "leads": total.leads,
        "leads_gross": total.leads,
        "sales": total.sales,
    }


def kpis(total: Total, converted: int) -> dict[str, float]:
    cost = total.spent_micros / 1_000_000
    return {
        "ctr": round(total.clicks / total.impressions, 6),
        "cpc": round(cost / total.clicks, 6),
        "cpm": round(1000 * cost / total.impressions, 6),
        "cpl": round(cost / total.leads, 6),
        "conversion": round(converted / total.leads, 6),
        "click_to_lead": round(total.leads / total.clicks, 6),
    }


async def check(deployment: Deployment) -> None:
    for channel, campaigns in ((CHANNEL, TOTALS), ("_all", ("_all",))):
        for campaign in campaigns:
            total = TOTALS[campaign]
            record = await deployment.lifetime(channel, campaign)
            assert facts(total).items() <= record["facts"].items(), campaign
            # A lead may buy more than once, so it is not the number of sales.
            numbers = kpis(total, record["facts"]["converted"])
            assert {name: record["kpis"][name]["value"] for name in numbers} == numbers, campaign

            texts = {name: str(fact) for name, fact in facts(total).items()}
            await deployment.shown(texts, channel, campaign)
            fields = deployment.hash("lifetime", channel, campaign)
            assert {name: float(fields[name]) for name in numbers} == numbers, campaign


async def import_file(deployment: Deployment) -> None:
    done = deployment.run("import", "facebook-ads", str(FILE))
    assert (done.returncode, done.stderr) == (0, "")
    # Three report rows for each line of the file, and one event for each lead and sale.
    events = 3 * 1_143 + TOTALS["_all"].leads + TOTALS["_all"].sales
    assert done.stdout.strip() == f"sent {events:,} events from {FILE}"


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    moving = ("computed_at", "complete_until")
    return {name: part for name, part in record.items() if name not in moving}


async def check_twice(deployment: Deployment) -> None:
    await import_file(deployment)
    await deployment.settle(SETTLE_SECONDS)
    await check(deployment)
    before = await deployment.kpi_records()

    await import_file(deployment)
    await deployment.settle(SETTLE_SECONDS)
    await check(deployment)
    after = await deployment.kpi_records()
    assert {key: without_time(record) for key, record in after.items()} == {
        key: without_time(record) for key, record in before.items()
    }


@pytest.mark.timeout(240)
async def test_import_gives_the_totals_of_the_file_as_verify_confirms(deploy: Deploy) -> None:
    deployment = await deploy()
    worker = deployment.worker()
    await check_twice(deployment)
    done = await deployment.verify()
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "exact"), done.stdout

    # Whoever writes a wrong number is found out, on either side.
    assert worker.stop() == 0
    deployment.redis.hset(f"leadkpi:v1:period:lifetime:{CHANNEL}:936", "leads", "538")
    key = f"period|lifetime|-|{CHANNEL}|916"
    await deployment.publish_over(key, b'"clicks":113', b'"clicks":114')
    done = await deployment.verify()
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert f"leadkpi:v1:period:lifetime:{CHANNEL}:936 leads: expected 537, got 538" in lines
    assert f"{key} clicks: expected 113, got 114" in lines
    assert lines[-1].startswith("not exact: 2 differences in ")
