"""Handle the alerts of leadgen.alerts.v1; over restarts none is missed.

LEADPULSE_KAFKA=localhost:9092 python alert_consumer.py
"""

import asyncio
import contextlib
import json
import os
from typing import Any

from aiokafka import AIOKafkaConsumer

SERVERS = os.environ.get("LEADPULSE_KAFKA", "localhost:9092")
PREFIX = os.environ.get("LEADPULSE_TOPICS_PREFIX", "leadgen.")


def handle(alert: dict[str, Any]) -> None:
    """Do what an alert asks for: here print it."""
    scope = alert["scope"]
    # null stands for all.
    place = "/".join(part for part in (scope["channel"], scope["campaign_id"]) if part) or "all"
    print(f"{alert['at']}  {alert['state']:<8}  {alert['rule']}  {place}", flush=True)
    print(f"    {alert['message_en']}", flush=True)
    evidence = alert["evidence"]
    if evidence["p_value"] is not None:
        print(
            f"    cost {evidence['cost']}, {evidence['leads']} leads, "
            f"{evidence['expected']} expected, p = {evidence['p_value']:.4f}",
            flush=True,
        )


async def main() -> None:
    """Read on from where this group stopped; commit what has been handled."""
    consumer = AIOKafkaConsumer(
        f"{PREFIX}alerts.v1",
        bootstrap_servers=SERVERS,
        group_id=f"{PREFIX}alert-example",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    handled: set[str] = set()  # keep it where it outlives the process if twice would hurt
    async with consumer:
        async for message in consumer:
            if message.value is not None:  # null: an alert that is kept no more
                alert = json.loads(message.value)
                # After a crash the last records come again; the id of what was told stays the same.
                if alert["id"] not in handled:
                    handle(alert)
                    handled.add(alert["id"])
            await consumer.commit()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
