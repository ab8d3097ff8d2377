"""From an event's arrival in Kafka to the changed number in Redis, while 1,000 others a second flow.

A probe is one event of a campaign that nobody else uses, sent at a random moment. It arrives when the
broker writes it to its log (LogAppendTime, in the acknowledgement); it is seen when the campaign's
lifetime hash in Redis has the new count. Broker, Redis and bench share a machine, so also a clock.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from statistics import quantiles
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from kpis.facts import Scope
from kpis.windows import LIFETIME
from streams.clock import SystemClock
from streams.publishers.redis_hashes import hash_name
from streams.settings import Settings
from streams.simulate import Plan, simulate
from streams.topics import create, topics_of
from tests.bench.data_sets import DataSet
from tests.bench.filling import PARTITIONS
from tests.bench.measuring import BenchError
from tests.bench.throughput import Place
from tests.bench.worker import Worker

RATE = 1_000.0
PROBERS = 4
LONGEST_PAUSE_SECONDS = 0.2
POLL_SECONDS = 0.002
STALL_SECONDS = 60.0
LEAST_PROBES = 200
CHANNEL = "event"


class Latency(NamedTuple):
    """How long probes took, in milliseconds; 99 % of them at most `p99`."""

    probes: int
    p50: float
    p90: float
    p99: float
    highest: float

    @classmethod
    def of(cls, took_ms: list[float]) -> "Latency":
        """Return the percentiles of at least two probes."""
        cuts = quantiles(took_ms, n=100, method="inclusive")
        return cls(len(took_ms), cuts[49], cuts[89], cuts[98], max(took_ms))


class Kind(NamedTuple):
    """What is sent to which topic, and the fact that it adds 1 to."""

    topic: str
    fact: str
    type: str


KINDS = {
    "impressions": Kind("impressions", "impressions", "impression.served"),
    "leads": Kind("leads", "leads", "lead.created"),
}


class Seen(NamedTuple):
    """A count that Redis showed, and when, in ms since 1970."""

    number: int
    at_ms: float


class Watcher:
    """Asks Redis for all counts that somebody waits for at once: a question each would slow it down."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._awaited: dict[tuple[str, str], tuple[int, asyncio.Future[Seen]]] = {}

    async def reached(self, key: str, fact: str, count: int) -> Seen:
        """Return the first count that is at least `count`.

        Raises:
            BenchError: if that takes too long.
        """
        seen: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()
        self._awaited[key, fact] = (count, seen)
        try:
            async with asyncio.timeout(STALL_SECONDS):
                return await seen
        except TimeoutError as error:
            msg = f"{key}: expected {count} {fact} within {STALL_SECONDS:.0f} s, got fewer"
            raise BenchError(msg) from error
        finally:
            del self._awaited[key, fact]

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            if self._awaited:
                await self._ask()
            await asyncio.sleep(POLL_SECONDS)

    async def _ask(self) -> None:
        awaited = dict(self._awaited)
        pipeline = self._redis.pipeline(transaction=False)
        for key, fact in awaited:
            pipeline.hget(key, fact)
        try:
            counts = await pipeline.execute()
        except RedisError as error:
            for _expected, seen in awaited.values():
                seen.set_exception(error)
            raise
        at_ms = time.time() * 1000
        for (expected, seen), count in zip(awaited.values(), counts, strict=True):
            if int(count or 0) >= expected and not seen.done():
                seen.set_result(Seen(int(count), at_ms))


class Prober:
    """Sends the events of one campaign, each after the one before it was seen."""

    def __init__(
        self,
        settings: Settings,
        producer: AIOKafkaProducer,
        watcher: Watcher,
        kind: Kind,
        number: int,
    ) -> None:
        self._producer = producer
        self._watcher = watcher
        self._topic = topics_of(settings).inputs[kind.topic]
        self._kind = kind
        self._campaign = f"probe-{kind.topic}-{number}"
        self._key = hash_name(LIFETIME, Scope(CHANNEL, self._campaign))
        self._random = Random(number)
        self._sent = 0
        self.took_ms: list[float] = []

    async def run(self, seconds: float) -> None:
        """Probe for `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(self._random.random() * LONGEST_PAUSE_SECONDS)
            self.took_ms.append(await self.probe())

    async def probe(self) -> float:
        """Send an event and return how long it took to be seen, in ms.

        Raises:
            BenchError: if it is not seen, or is counted more than once.
        """
        self._sent += 1
        arrived = await self._producer.send_and_wait(
            self._topic, self._event(), partition=self._sent % PARTITIONS
        )
        seen = await self._watcher.reached(self._key, self._kind.fact, self._sent)
        if seen.number != self._sent:
            msg = f"{self._campaign}: expected {self._sent} {self._kind.fact}, got {seen.number}"
            raise BenchError(msg)
        return seen.at_ms - float(arrived.timestamp)

    def _event(self) -> bytes:
        identity = f"{self._campaign}-{self._sent}"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        lead = f'"lead_id":"{identity}",' if self._kind.topic == "leads" else ""
        return (
            f'{{"event_id":"{identity}","source":"/bench","type":"{self._kind.type}",{lead}'
            f'"occurred_at":"{now}","channel":"{CHANNEL}","campaign_id":"{self._campaign}"}}'
        ).encode()


class Measured(NamedTuple):
    """The latencies by kind of probe, and what the worker did meanwhile."""

    latencies: Mapping[str, Latency]
    events_per_second: float
    cpu_share: float


def measure(place: Place, seconds: float) -> Measured:
    """Probe a worker that has caught up, for `seconds`, and return how long the probes took.

    Raises:
        BenchError: if a probe is not seen, is counted wrong, or there were too few.
    """
    empty = DataSet(1, 0, 0)
    deployment = place.deployment(empty, "bench-latency")
    settings = deployment.settings
    asyncio.run(create(settings, PARTITIONS))
    with Worker(deployment, place.directory / "latency.log", place.engine_core) as worker:
        try:
            measured = asyncio.run(_measure(settings, worker, seconds))
        except BenchError as error:
            raise BenchError(worker.said(str(error))) from error
    few = [kind for kind, of in measured.latencies.items() if of.probes < LEAST_PROBES]
    if few and seconds >= 60:
        msg = f"latency: expected at least {LEAST_PROBES} probes, got fewer of {', '.join(few)}"
        raise BenchError(msg)
    return measured


async def _measure(settings: Settings, worker: Worker, seconds: float) -> Measured:
    producer = AIOKafkaProducer(**settings.kafka.client_options(), acks="all", linger_ms=0)
    async with producer, Redis.from_url(settings.redis.url) as redis:
        watcher = Watcher(redis)
        watching = asyncio.create_task(watcher.run())
        probers = {
            name: [Prober(settings, producer, watcher, kind, i) for i in range(PROBERS)]
            for name, kind in KINDS.items()
        }
        everyone = [prober for of_kind in probers.values() for prober in of_kind]
        # The first events, alone: the worker starts, joins its group and catches up.
        await asyncio.gather(*(prober.probe() for prober in everyone))
        first = worker.mark(0)
        plan = Plan(seed=1, rate=RATE, seconds=seconds, speed=1.0)
        others = asyncio.create_task(simulate(settings, plan, SystemClock(), lambda _counts: None))
        await asyncio.gather(others, *(prober.run(seconds) for prober in everyone))
        sent = others.result()
        last = worker.mark(sum(sent.values()) - sent["broken"])
        watching.cancel()
    took = {
        name: Latency.of([ms for prober in of_kind for ms in prober.took_ms])
        for name, of_kind in probers.items()
    }
    passed = last.seconds - first.seconds
    return Measured(took, last.events / passed, (last.cpu_seconds - first.cpu_seconds) / passed)
