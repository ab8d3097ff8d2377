"""Follow leadgen.kpis.v1: print the cost per lead (CPL) of each channel, and again when one changes.

LEADPULSE_KAFKA=localhost:9092 python kpi_consumer.py [window] [basis]
"""

import asyncio
import contextlib
import json
import os
import sys
from itertools import chain
from typing import Any

from aiokafka import AIOKafkaConsumer

SERVERS = os.environ.get("LEADPULSE_KAFKA", "localhost:9092")
TOPIC = os.environ.get("LEADPULSE_TOPICS_PREFIX", "leadgen.") + "kpis.v1"
WINDOW = sys.argv[1] if len(sys.argv) > 1 else "last_24h"
BASIS = sys.argv[2] if len(sys.argv) > 2 else "period"


def is_wanted(key: str) -> bool:
    """Return whether a key is of a whole channel, and of the window and basis asked for."""
    basis, window, _start, channel, campaign = key.split("|")
    return (basis, window, campaign) == (BASIS, WINDOW, "_all") and channel != "_all"


def line(record: dict[str, Any]) -> str:
    """Return the CPL of a record, or why there is none."""
    cpl = record["kpis"]["cpl"]
    # An undefined KPI is null, with the reason. It is never 0.
    value = cpl["undefined_reason"] if cpl["value"] is None else f"{cpl['value']:.2f}"
    if cpl.get("partial"):  # some of its cost is not known yet
        value += " (partial)"
    leads = record["facts"].get("leads", 0)  # facts of 0 are left out
    start = record["window"]["start"] or "since the beginning"
    state = f"{record['state']}, revision {record['revision']}"
    return f"{record['scope']['channel']:<14} {start}  {leads:>5} leads  CPL {value}  {state}"


async def main() -> None:
    """Read the topic from its beginning; show what it comes to, then every change."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=SERVERS,
        isolation_level="read_committed",  # never what a transaction took back
        auto_offset_reset="earliest",  # compacted: the beginning has the latest record of each key
    )
    latest: dict[str, str] = {}
    async with consumer:
        behind = await consumer.end_offsets(consumer.assignment())
        if not behind:
            sys.exit(f"{TOPIC}: no such topic at {SERVERS}")
        while True:
            changed = set()
            batches = await consumer.getmany(timeout_ms=500)
            for message in chain.from_iterable(batches.values()):
                key = message.key.decode()
                if not is_wanted(key):
                    continue
                shown = latest.pop(key, None)
                if message.value is not None:
                    latest[key] = line(json.loads(message.value))
                # else a tombstone: the window is kept no more, or nothing is left in it.
                if latest.get(key) != shown:
                    changed.add(key)
            if behind:
                reached = [await consumer.position(tp) >= end for tp, end in behind.items()]
                if not all(reached):
                    continue
                behind, changed = {}, set(latest)
            for key in sorted(changed):
                print(latest.get(key) or f"{key}: gone", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
