"""Sends events to the input topics: what the simulator and the imports share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.problems import Problem, kafka_unreachable
from streams.settings import Settings
from streams.topics import CREATE, admin_client, topics_of

TURN = 50
"""Records between two chances for other tasks."""


class Sender:
    """Gives records to a started producer and remembers the first that was not taken."""

    def __init__(self, producer: AIOKafkaProducer, names: dict[str, str]) -> None:
        self._producer = producer
        self._names = names
        self._failure: BaseException | None = None
        self.sent = 0

    async def send(self, short: str, key: bytes | None, value: bytes | None) -> None:
        """Send one record to the input with this short name; waits when the buffers are full.

        Raises:
            KafkaError: what an earlier record met.
        """
        if self._failure is not None:
            raise self._failure
        delivery = await self._producer.send(self._names[short], value, key=key)
        delivery.add_done_callback(self._note)
        self.sent += 1
        if self.sent % TURN == 0:
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Wait until every record was taken.

        Raises:
            KafkaError: what a record met.
        """
        await self._producer.flush()
        if self._failure is not None:
            raise self._failure

    def _note(self, delivery: "asyncio.Future[Any]") -> None:
        if not delivery.cancelled() and self._failure is None:
            self._failure = delivery.exception()


@asynccontextmanager
async def sender(settings: Settings) -> AsyncIterator[Sender]:
    """Return a sender to the input topics; at the end everything was taken by the broker.

    Raises:
        Problem: if no broker answers, an input topic is missing, or a record is refused.
    """
    kafka = settings.kafka
    names = dict(topics_of(settings).inputs)
    if not kafka.embedded:
        await _require_topics(settings, list(names.values()))
    # Batches of a few milliseconds are larger and cheaper for everyone who reads them.
    producer = AIOKafkaProducer(
        **kafka.client_options(),
        acks="all",
        # A retry must not count an impression twice; the embedded broker does not fail.
        enable_idempotence=not kafka.embedded,
        linger_ms=20,
        compression_type="lz4",
    )
    try:
        await producer.start()
        outlet = Sender(producer, names)
        try:
            yield outlet
        finally:
            await outlet.finish()
    except KafkaError as error:
        raise await _problem(settings, error) from error
    finally:
        await producer.stop()


async def _require_topics(settings: Settings, names: list[str]) -> None:
    async with admin_client(settings.kafka) as admin:
        for described in await admin.describe_topics(names):
            if described["error_code"]:
                where = f"topic {described['topic']}"
                raise Problem(where, "a topic", "none", CREATE)


async def _problem(settings: Settings, error: KafkaError) -> Problem:
    unreachable = await kafka_unreachable(settings.kafka.servers)
    if "refused" in unreachable.got or "no answer" in unreachable.got:
        return unreachable
    got = f"{type(error).__name__}: {error}"
    return Problem(unreachable.where, "every record to be taken", f"{got:.120}", "see its log")
