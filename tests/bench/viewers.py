"""`python -m tests.bench.viewers`: what viewers of the live page and scrapes cost the worker.

Each round runs one worker without and one with an audience over the same backlog, in turns; then a
worker at rest is watched.
"""

import asyncio
import gzip
import logging
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event as Signal
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import aiohttp
import click
from redis import Redis

from streams.live_page import FOLDER
from streams.problems import Problem
from streams.topics import create
from tests.bench.__main__ import _place
from tests.bench.data_sets import DataSet
from tests.bench.filling import PARTITIONS, fill
from tests.bench.measuring import BenchError, Run
from tests.bench.throughput import Place, _follow, _wait_for_shards
from tests.bench.worker import Deployment, Worker
from tests.parts.install import MissingPartError
from tests.parts.server import ServerError

VIEWERS = 50
EVENTS = 3_000_000
ROUNDS = 3
IDLE_SECONDS = 20.0
SCRAPE_SECONDS = 1.0
BATCH_SIZE = 4_000
LIMIT = 0.05
"""By so much the throughput may fall."""

READY_SECONDS = 30.0


class Arm(NamedTuple):
    """Who is there while the worker works."""

    name: str
    viewers: int
    is_scraped: bool


ARMS = (
    Arm("nobody", 0, is_scraped=False),
    Arm("viewers", VIEWERS, is_scraped=False),
    Arm("viewers and scrapes", VIEWERS, is_scraped=True),
)


# ----------------------------------------------------------------------------- the audience


class Heard(NamedTuple):
    """What an audience got: events of the stream, bytes on the wire, scrapes."""

    boards: int
    changes: int
    scrapes: int


async def _watch(session: aiohttp.ClientSession, url: str, counts: dict[str, int]) -> None:
    """Take in the stream as a browser does, without looking into it."""
    async with session.get(f"{url}/live") as response:
        if response.status != 200:
            msg = f"{url}/live: expected 200, got {response.status}"
            raise BenchError(msg)
        async for chunk in response.content.iter_any():
            for name in ("board", "change"):
                counts[name] += chunk.count(f"event: {name}\n".encode())


async def _scrape(session: aiohttp.ClientSession, url: str, counts: dict[str, int]) -> None:
    while True:
        async with session.get(f"{url}/metrics") as response:
            await response.read()
        counts["scrape"] += 1
        await asyncio.sleep(SCRAPE_SECONDS)


async def _attend(url: str, arm: Arm, ready: Signal, end: Signal, queue: Any) -> None:
    counts = {"board": 0, "change": 0, "scrape": 0}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(None),
        read_bufsize=1 << 20,
    ) as session:
        tasks = [asyncio.create_task(_watch(session, url, counts)) for _ in range(arm.viewers)]
        if arm.is_scraped:
            tasks.append(asyncio.create_task(_scrape(session, url, counts)))
        while counts["board"] < arm.viewers:  # noqa: ASYNC110 - the tasks only count
            await asyncio.sleep(0.02)
        ready.set()
        await asyncio.to_thread(end.wait)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    queue.put(Heard(counts["board"], counts["change"], counts["scrape"]))


def _audience(url: str, arm: Arm, ready: Signal, end: Signal, queue: Any) -> None:
    asyncio.run(_attend(url, arm, ready, end, queue))


@contextmanager
def _attended(url: str, arm: Arm, heard: list[Heard]) -> Iterator[None]:
    """Let an audience of its own process be there; what it heard is added to `heard` at the end."""
    if not arm.viewers:
        yield
        return
    context = multiprocessing.get_context("spawn")
    ready, end, queue = context.Event(), context.Event(), context.SimpleQueue()
    process = context.Process(target=_audience, args=(url, arm, ready, end, queue), daemon=True)
    process.start()
    if not ready.wait(READY_SECONDS):
        process.kill()
        msg = f"{arm.viewers} viewers: expected a board each in {READY_SECONDS:.0f} s, got fewer"
        raise BenchError(msg)
    try:
        yield
    finally:
        end.set()
        heard.append(queue.get())
        process.join()


# ----------------------------------------------------------------------------- measuring


def _run(place: Place, data_set: DataSet, name: str, arm: Arm, heard: list[Heard]) -> Run:
    deployment = place.deployment(data_set, name)
    asyncio.run(create(deployment.settings, PARTITIONS))
    with Redis.from_url(place.redis_url, decode_responses=True) as redis:
        redis.flushall()
        with Worker(deployment, place.directory / f"{name}.log", place.engine_core) as worker:
            _wait_for_endpoint(deployment)
            with _attended(_url(deployment), arm, heard):
                first = _wait_for_shards(worker, deployment)
                last = _follow(worker, redis, data_set.events)
            peak_mb = worker.peak_mb
    return Run.between(first, last, peak_mb, data_set.totals())


def _url(deployment: Deployment) -> str:
    return f"http://{deployment.variables['LEADPULSE_METRICS']}"


def _wait_for_endpoint(deployment: Deployment) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            urlopen(f"{_url(deployment)}/healthz", timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    msg = f"{_url(deployment)}: expected an answer in {READY_SECONDS:.0f} s, got none"
    raise BenchError(msg)


class Rest(NamedTuple):
    """A worker at rest: the share of its core that it takes, and the bytes of a first visit."""

    alone: float
    watched: float
    first_bytes: dict[str, int]


def _rest(place: Place, data_set: DataSet, heard: list[Heard]) -> Rest:
    """Watch a worker that has caught up, without and with viewers."""
    deployment = place.deployment(data_set, "bench-viewers-rest")
    asyncio.run(create(deployment.settings, PARTITIONS))
    with Redis.from_url(place.redis_url, decode_responses=True) as redis:
        redis.flushall()
        with Worker(deployment, place.directory / "rest.log", place.engine_core) as worker:
            _wait_for_shards(worker, deployment)
            _follow(worker, redis, data_set.events)
            alone = _cpu_share(worker)
            with _attended(_url(deployment), ARMS[1], heard):
                watched = _cpu_share(worker)
            return Rest(alone, watched, _first_bytes(_url(deployment)))


def _cpu_share(worker: Worker) -> float:
    before = worker.mark(0)
    time.sleep(IDLE_SECONDS)
    after = worker.mark(0)
    return (after.cpu_seconds - before.cpu_seconds) / (after.seconds - before.seconds)


def _first_bytes(url: str) -> dict[str, int]:
    """Return the bytes on the wire of each part of a first visit, as a browser asks for it."""
    names = sorted(
        path.name for path in FOLDER.iterdir() if path.suffix in (".css", ".js", ".mjs", ".svg")
    )
    paths = ("/", *(f"/page/{name}" for name in names), "/board")
    return {path: _bytes(f"{url}{path}") for path in paths}


def _bytes(url: str) -> int:
    with urlopen(Request(url, headers={"Accept-Encoding": "gzip"}), timeout=10) as answer:
        body: bytes = answer.read()
    # The body is packed, or small.
    return len(body if body[:2] == b"\x1f\x8b" else gzip.compress(body))


# ----------------------------------------------------------------------------- the command


@click.command()
@click.option("--events", type=click.IntRange(10_000), default=EVENTS, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True)
def main(events: int, rounds: int) -> None:
    """Measure what fifty viewers and a scrape a second cost a worker."""
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    try:
        with _place() as place:
            has_kept = _bench(place, events, rounds)
    except (BenchError, MissingPartError, Problem, ServerError) as error:
        sys.exit(f"viewers: {error}")
    sys.exit(0 if has_kept else 1)


def _bench(place: Place, events: int, rounds: int) -> bool:
    click.echo(f"load of the machine before: {os.getloadavg()[0]:.1f}; {events:,} events a run")
    data_set = DataSet(BATCH_SIZE, events, time.time_ns() // 1_000_000)
    fill(place.deployment(data_set, "bench-fill").settings, data_set)
    runs: dict[str, list[Run]] = {arm.name: [] for arm in ARMS}
    heard: list[Heard] = []
    for number in range(rounds):
        # Each is as often the first as the last.
        turn = number % len(ARMS)
        for arm in (*ARMS[turn:], *ARMS[:turn]):
            name = f"bench-viewers-{number}-{ARMS.index(arm)}"
            run = _run(place, data_set, name, arm, heard)
            runs[arm.name].append(run)
            told = f"; {heard[-1]}" if arm.viewers else ""
            click.echo(
                f"round {number + 1} of {rounds}: {arm.name}: {run.events_per_second:,.0f} "
                f"events/s, {run.cpu_seconds_per_million:.2f} CPU s per million{told}"
            )
    has_kept = _report(runs)
    rest = _rest(place, DataSet(BATCH_SIZE, events, data_set.end_ms), heard)
    click.echo(
        f"at rest: {rest.alone:.1%} of a core alone, {rest.watched:.1%} with {VIEWERS} viewers"
    )
    for path, size in rest.first_bytes.items():
        click.echo(f"{size:8,} bytes  {path}")
    click.echo(f"{sum(rest.first_bytes.values()):8,} bytes  a first visit, gzip")
    return has_kept


def _report(runs: dict[str, list[Run]]) -> bool:
    """Print the ratios to the worker that nobody watches; tell whether they are as promised."""
    alone = runs[ARMS[0].name]
    has_kept = True
    for arm in ARMS[1:]:
        pairs = list(zip(alone, runs[arm.name], strict=True))
        speed = statistics.median(b.events_per_second / a.events_per_second for a, b in pairs)
        work = statistics.median(
            a.cpu_seconds_per_million / b.cpu_seconds_per_million for a, b in pairs
        )
        click.echo(f"{arm.name}: {speed:.3f} of the throughput, {work:.3f} by processor time")
        # Others may have had the core for a while: that is in the speed, not in the work.
        has_kept = has_kept and work >= 1 - LIMIT
    return has_kept


if __name__ == "__main__":
    main()
