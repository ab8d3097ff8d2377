"""An alert from spend to every place that shows it, told once though the worker is killed meanwhile."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Sent, event, fetch, sample, series, until
from tests.schemas.validators import faults_of

pytestmark = [pytest.mark.integration, pytest.mark.fault, pytest.mark.timeout(420)]

BRAND: Final = {"channel": "google_ads", "campaign_id": "brand"}
KEY: Final = "cpl_spike|google_ads|brand"
KEYS: Final = {KEY, "cpl_spike|google_ads|_all", "cpl_spike|_all|_all"}
SCOPES: Final = (("google_ads", "brand"), ("google_ads", None), (None, None))
HASH: Final = "leadkpi:v1:alert:cpl_spike:google_ads:brand"
LABELS: Final = {"rule": "cpl_spike", "channel": "google_ads", "campaign": "brand"}
MINUTES_SECONDS: Final = 180.0
"""Until then an evaluation has come about, also after a restart; one is a minute after the other."""


def spend(start: datetime, amount: int) -> Sent:
    """Return the cost of an hour, as it was reported when the hour was over."""
    end = (start + timedelta(hours=1)).isoformat()
    period = {"period_start": start.isoformat(), "period_end": end, "reported_at": end}
    money = {"cost_source": "ads", "amount": str(amount), "currency": "EUR"}
    return event("costs", "cost.snapshot", end, event_id=f"c{end}", **BRAND, **period, **money)


def usual_hour(start: datetime) -> Iterator[Sent]:
    """Yield an hour with a CPL of 20."""
    yield spend(start, 100)
    at = start + timedelta(minutes=30)
    for number in range(5):
        yield event("leads", "lead.created", at.isoformat(), lead_id=f"{at}-{number}", **BRAND)


def history(hour: datetime) -> Iterator[Sent]:
    """Yield the hours about this one of the last four weeks."""
    for week in range(1, 5):
        for hours in range(-8, 3):
            yield from usual_hour(hour - timedelta(weeks=week) + timedelta(hours=hours))


async def spikes(deployment: Deployment) -> list[tuple[str, dict[str, Any]]]:
    """Return key and value of what was told of spikes."""
    return [told for told in await deployment.alerts() if told[0].startswith("cpl_spike|")]


async def test_spend_without_leads_is_told_once_and_shown_everywhere_though_the_worker_is_killed(
    deploy: Deploy,
) -> None:
    deployment = await deploy()
    worker = deployment.worker()
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    await deployment.send(history(hour))
    await deployment.send([spend(hour - timedelta(hours=back), 200) for back in range(1, 4)])
    await deployment.settle()

    async def has_begun() -> bool:
        found = await deployment.standings()
        return all(("cpl_spike", *scope) in found for scope in SCOPES)

    async def has_fired() -> bool:
        return {key for key, _ in await deployment.alerts()} >= KEYS

    await until(has_begun, "a first evaluation", MINUTES_SECONDS)
    worker.kill()
    assert not await spikes(deployment)
    worker.start()
    await until(has_fired, "a second evaluation", MINUTES_SECONDS)

    async def is_exported() -> bool:
        exposed = series(fetch(worker.metrics_url))
        return sample(exposed, "leadkpi_alert_firing", **LABELS) == 1

    async def is_in_redis() -> bool:
        return bool(deployment.redis.exists(HASH))

    await until(is_exported, "a firing alert in /metrics")
    await until(is_in_redis, "the alert in Redis")
    # All three scopes of the one campaign, each once and all of them counted.
    spiking = await spikes(deployment)
    assert sorted(key for key, _ in spiking) == sorted(KEYS)
    exposed = series(fetch(worker.metrics_url))
    assert sample(exposed, "leadkpi_alerts_total", rule="cpl_spike", state="fired") == len(KEYS)
    for _, record in await deployment.alerts():
        assert faults_of("alert", record, is_closed=True) == []
    told = dict(spiking)[KEY]
    assert (told["state"], told["evidence"]["leads"]) == ("fired", 0)
    assert told["evidence"]["baseline"] == pytest.approx(20.0)
    assert told["window"]["kind"] == "last_6h"
    shown: Any = deployment.redis.hgetall(HASH)
    assert json.loads(shown["record"]) == told
    assert (shown["state"], shown["message_fr"]) == ("fired", told["message_fr"])
    since = datetime.fromisoformat(told["since"]).timestamp()
    assert deployment.redis.zscore("leadkpi:v1:alerts", KEY) == int(since)
    assert "alert fired rule=cpl_spike channel=google_ads campaign=brand" in worker.log.read_text()
