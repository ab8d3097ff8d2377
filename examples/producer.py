"""Send a lead in each form that LeadPulse reads: flat, and as a CloudEvent in both modes.

LEADPULSE_KAFKA=localhost:9092 python producer.py
"""

import asyncio
import json
import os
import uuid
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

SERVERS = os.environ.get("LEADPULSE_KAFKA", "localhost:9092")
TOPIC = os.environ.get("LEADPULSE_TOPICS_PREFIX", "leadgen.") + "leads.v1"
SOURCE = "/examples/producer"

Message = tuple[bytes, list[tuple[str, bytes]]]


def a_lead() -> dict[str, str]:
    """Return the fields of a lead. Its id makes it count once, however often it is sent."""
    return {"lead_id": str(uuid.uuid4()), "channel": "partner", "campaign_id": "examples"}


def flat() -> Message:
    """Return one flat JSON object; no header is needed."""
    event = {
        "event_id": str(uuid.uuid4()),
        "source": SOURCE,
        "type": "lead.created",
        "occurred_at": datetime.now(UTC).isoformat(),  # with its offset from UTC
        **a_lead(),
    }
    return json.dumps(event).encode(), []


def attributes() -> dict[str, str]:
    """Return the attributes of a CloudEvent; id, source, type and time stand for the envelope."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": SOURCE,
        "type": "leadgen.lead.created.v1",  # or plainly lead.created
        "time": datetime.now(UTC).isoformat(),
    }


def structured() -> Message:
    """Return a CloudEvent whose value holds attributes and data."""
    event = {**attributes(), "datacontenttype": "application/json", "data": a_lead()}
    return json.dumps(event).encode(), [("content-type", b"application/cloudevents+json")]


def binary() -> Message:
    """Return a CloudEvent whose attributes are headers; the value is the data alone."""
    headers = [(f"ce_{name}", text.encode()) for name, text in attributes().items()]
    return json.dumps(a_lead()).encode(), [*headers, ("content-type", b"application/json")]


async def main() -> None:
    """Send one of each, and say where each is."""
    producer = AIOKafkaProducer(bootstrap_servers=SERVERS, acks="all", enable_idempotence=True)
    async with producer:
        for form in (flat, structured, binary):
            value, headers = form()
            # Any key and any partitioner will do.
            sent = await producer.send_and_wait(TOPIC, value, headers=headers)
            print(f"{form.__name__:<10} {sent.topic}/{sent.partition}/{sent.offset}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
