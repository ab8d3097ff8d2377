"""Windows move with the clock, also where nothing happens."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.conftest import Deploy
from tests.integration.running import event, until

pytestmark = pytest.mark.integration

MOST_SECONDS = 60.0


@pytest.mark.timeout(200)
async def test_a_quiet_scope_moves_to_previous_within_a_minute_of_the_end(deploy: Deploy) -> None:
    deployment = await deploy()
    deployment.worker()
    await deployment.send(
        [event("clicks", "click.recorded", "2026-01-01T00:00:00Z", channel="old")]
    )
    await deployment.settle()

    # Time enough in this minute to see both windows.
    if time.time() % 60 > 50:
        await until(_is_new_minute, "a new minute")
    now = datetime.now(UTC)
    minute = now.replace(second=0, microsecond=0)
    end = minute + timedelta(minutes=1)
    hour_ago = minute - timedelta(minutes=60)
    await deployment.send(
        [
            event("clicks", "click.recorded", now.isoformat(), click_id="q", channel="quiet"),
            event(
                "clicks", "click.recorded", hour_ago.isoformat(), click_id="l", channel="leaving"
            ),
        ]
    )
    await deployment.shown({"clicks": "1"}, "quiet")
    await deployment.shown({"clicks": "1"}, "leaving")
    if datetime.now(UTC) < end - timedelta(seconds=1):
        assert deployment.hash("1m", "quiet")["_start"] == minute.isoformat()
        assert deployment.hash("1m@previous", "quiet") == {}
        assert deployment.hash("last_1h", "leaving")["clicks"] == "1"
    assert deployment.hash("1h", "quiet")["clicks"] == "1"

    async def has_moved() -> bool:
        previous = deployment.hash("1m@previous", "quiet")
        return (
            previous.get("_start") == minute.isoformat()
            and previous["clicks"] == "1"
            and not deployment.hash("1m", "quiet")
            # [start, end) reaches back an hour from the running minute, and no further.
            and not deployment.hash("last_1h", "leaving")
            and deployment.hash("last_1h", "quiet").get("_end")
            == (end + timedelta(minutes=1)).isoformat()
        )

    await until(has_moved, "the hash of the minute moved to @previous", MOST_SECONDS + 60)
    late = (datetime.now(UTC) - end).total_seconds()
    print(f"moved {late:.2f} s after the end of the minute")
    assert late < MOST_SECONDS
    assert deployment.hash("last_24h", "leaving")["clicks"] == "1"
    assert deployment.hash("lifetime", "old")["clicks"] == "1"
    assert deployment.hash("last_24h", "old") == {}
    records = await deployment.kpi_records()
    assert "period|last_1h|-|leaving|_all" not in records
    assert records["period|last_1h|-|quiet|_all"]["facts"] == {"clicks": 1}


async def _is_new_minute() -> bool:
    return time.time() % 60 < 50
