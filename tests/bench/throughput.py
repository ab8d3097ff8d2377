"""Lets each engine read a backlog, round by round, and measures it between its marks."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiokafka import TopicPartition
from redis import Redis

from kpis.facts import OVERALL
from kpis.windows import LIFETIME
from streams.publishers.redis_hashes import hash_name
from streams.topics import create, topics_of
from tests.bench.data_sets import TOPICS, DataSet
from tests.bench.faust_app import TAKE
from tests.bench.filling import PARTITIONS
from tests.bench.measuring import BenchError, Job, Mark, Run, compare
from tests.bench.worker import Deployment, Worker, committed_totals, kpi_ends
from tests.parts.server import spawn

RUN_SECONDS = 600.0
STALL_SECONDS = 90.0
SETTLE_SECONDS = 15.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """Where engines run: the servers, the core of the engine, a folder for logs."""

    servers: str
    redis_url: str
    engine_core: int
    directory: Path

    def deployment(self, data_set: DataSet, app_id: str) -> Deployment:
        """Return the deployment that reads `data_set` as `app_id`."""
        return Deployment.of(self.servers, self.redis_url, data_set.prefix, app_id, self.directory)


Engine = Callable[[Place, DataSet, str], Run]
"""Runs once over a data set; the text is a name that no other run has."""


def run_faust(place: Place, data_set: DataSet, name: str) -> Run:
    """Run plain Faust, one event at a time."""
    return _run_module("tests.bench.faust_app", [], place, data_set, name)


def run_faust_take(place: Place, data_set: DataSet, name: str) -> Run:
    """Run Faust with `stream.take(1000)`."""
    return _run_module("tests.bench.faust_app", [TAKE], place, data_set, name)


def run_ceiling(place: Place, data_set: DataSet, name: str) -> Run:
    """Run the loop that only decodes and counts."""
    return _run_module("tests.bench.ceiling", [], place, data_set, name)


def run_leadpulse(place: Place, data_set: DataSet, name: str) -> Run:
    """Run our worker, all outputs on, until Redis shows every event; then check what it committed."""
    deployment = place.deployment(data_set, name)
    asyncio.run(create(deployment.settings, PARTITIONS))
    begins = asyncio.run(kpi_ends(deployment.settings))
    with Redis.from_url(place.redis_url, decode_responses=True) as redis:
        redis.flushall()
        with Worker(deployment, place.directory / f"{name}.log", place.engine_core) as worker:
            first = _wait_for_shards(worker, deployment)
            last = _follow(worker, redis, data_set.events)
            peak_mb = worker.peak_mb
            _check(deployment, data_set, begins)
    return Run.between(first, last, peak_mb, data_set.totals())


ENGINES: dict[str, Engine] = {
    "leadpulse": run_leadpulse,
    "faust": run_faust,
    "faust_take": run_faust_take,
    "ceiling": run_ceiling,
}
FEWER = {"faust": 150, "faust_take": 60}
"""By what the number of events is divided for engines that are slower."""


def events_for(engine: str, events: int) -> int:
    """Return how many events an engine gets where the fast ones get `events`."""
    return max(1, events // FEWER.get(engine, 1))


def _run_module(
    module: str, arguments: list[str], place: Place, data_set: DataSet, name: str
) -> Run:
    directory = place.directory / name
    directory.mkdir()
    names = topics_of(place.deployment(data_set, name).settings).inputs
    topics = {topic: names[topic] for topic in TOPICS}
    job = Job(name, place.servers, topics, data_set.events, str(directory))
    said = directory / "log"
    with said.open("wb") as log:
        process = spawn([*job.command(module), *arguments], log, cpus={place.engine_core})
    try:
        process.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if not job.result.exists():
        msg = f"{name}: expected a result in {RUN_SECONDS:.0f} s, got none; it said:\n"
        raise BenchError(msg + said.read_text(errors="replace")[-3000:])
    run = msgspec.json.decode(job.result.read_bytes(), type=Run)
    shutil.rmtree(directory)
    run.check(data_set.totals())
    return run


def _wait_for_shards(worker: Worker, deployment: Deployment) -> Mark:
    """Return the mark at which all shards are open and the first fetch begins.

    Not the first count in Redis: in a backlog a worker may have read far more than it has committed.
    """
    deadline = time.monotonic() + STALL_SECONDS
    while deployment.open_shards() < PARTITIONS:
        if time.monotonic() > deadline:
            fault = f"expected {PARTITIONS} open shards within {STALL_SECONDS:.0f} s, got fewer"
            raise BenchError(worker.said(fault))
        worker.require()
        time.sleep(POLL_SECONDS)
    return worker.mark(0)


def _follow(worker: Worker, redis: Redis, events: int) -> Mark:
    """Watch the overall lifetime counts in Redis, and return the mark at which they are complete."""
    key = hash_name(LIFETIME, OVERALL)
    changed = time.monotonic()
    count = 0
    while count < events:
        shown = sum(int(number or 0) for number in redis.hmget(key, TOPICS))
        if shown != count:
            count, changed = shown, time.monotonic()
        elif time.monotonic() > changed + STALL_SECONDS:
            fault = f"expected {events} events, got no more than {count} for {STALL_SECONDS:.0f} s"
            raise BenchError(worker.said(fault))
        worker.require()
        time.sleep(POLL_SECONDS)
    return worker.mark(count)


def _check(deployment: Deployment, data_set: DataSet, begins: Mapping[TopicPartition, int]) -> None:
    """Compare each campaign's committed totals, as soon as all shards have published theirs."""
    expected = data_set.totals()
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        got = asyncio.run(committed_totals(deployment.settings, begins))
        if got == expected:
            return
        if time.monotonic() > deadline:
            compare(got, expected)
        time.sleep(0.2)
