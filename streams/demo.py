"""The demo: Kafka and Redis in memory, a worker, simulated traffic and the live table in one go."""

import asyncio
import io
import os
import signal
import time
from collections import Counter
from contextlib import ExitStack
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console

from streams.clock import SystemClock
from streams.demo_parts import APP_ID, PARTITIONS, Folder, WorkerProcess, demo_settings
from streams.demo_screen import (
    WINDOW,
    Moment,
    Places,
    Screen,
    directions,
    has_desktop,
    has_kpi,
    headline,
    introduction,
    open_browser,
    screen_of,
)
from streams.embedded import EmbeddedError, EmbeddedKafka, EmbeddedRedis
from streams.problems import Problem
from streams.settings import Settings
from streams.simulate import Plan, mix_of, simulate
from streams.top import View, console, read_views, redis_client, render
from streams.topics import Topics, topics_of

FIRST_LOOK_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 1.0
FIRST_KPI_SECONDS: Final = 60.0
INTERRUPT_SECONDS: Final = 1.0
STOP_SECONDS: Final = 5.0
MOST_CAMPAIGNS: Final = 15
FAULT, INTERRUPTED = 1, 130


def run(
    settings: Settings,
    *,
    seconds: float | None,
    plain: bool,
    rate: float,
    seed: int,
    opens: bool = True,
) -> int:
    """Run the demo and return the exit status: 0 if every number was exact, or it ran until Ctrl-C.

    Kafka, Redis, the name and the number of partitions are the demo's own, and the metrics' port if
    it is taken; all else is as `settings` say.

    Args:
        settings: The user's.
        seconds: End after so long, and verify; None: run until Ctrl-C.
        plain: Lines of text instead of a live table.
        rate: Events a second.
        seed: Of the traffic.
        opens: Open the live page in a browser, if this is a terminal on a desktop and not plain.

    Raises:
        Problem: if a part cannot start, or the worker ends.
    """
    plan = Plan(seed=seed, rate=rate, seconds=seconds, mix=mix_of(settings))
    out = console(plain=plain)
    try:
        with ExitStack() as parts:
            screen = screen_of(out, plan, plain=plain)
            demo = Demo(settings, plan, out, screen, parts)
            demo.opens = opens and not plain and out.is_terminal and has_desktop(os.environ)
            return asyncio.run(_until_interrupted(demo))
    except (asyncio.CancelledError, KeyboardInterrupt):
        _say(out, "stopped" if seconds is None else "stopped before its end: not verified")
        return 0 if seconds is None else INTERRUPTED
    except EmbeddedError as error:
        _say(Console(stderr=True), str(error))
        return FAULT


async def _until_interrupted(demo: "Demo") -> int:
    running = asyncio.create_task(demo.run())
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        # Again and again: a client that is just done with its wait may swallow a cancellation.
        if not running.done():
            running.cancel()
            loop.call_later(INTERRUPT_SECONDS, interrupt)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, interrupt)
    return await running


class Demo:
    """One run. What it starts is closed by `parts`, in the reverse order."""

    def __init__(
        self, settings: Settings, plan: Plan, out: Console, screen: Screen, parts: ExitStack
    ) -> None:
        self._given = settings
        self._settings = settings
        self._plan = plan
        self._out = out
        self._screen = screen
        self._parts = parts
        self._sent: Counter[str] = Counter()
        self._started = 0.0
        self._page = ""
        self._first_seconds: float | None = None
        self.opens = False

    async def run(self) -> int:
        """Run to the end, verify, and return the exit status."""
        _say(self._out, introduction(self._plan))
        folder = self._parts.enter_context(Folder())
        self._settings = await self._start_parts()
        worker = self._parts.enter_context(WorkerProcess(self._settings, folder))
        self._started = time.monotonic()
        places = self._places(worker)
        self._page = places.page
        shown = f"\n  {headline(places)}\n"
        self._out.print(shown, style="bold", markup=False, highlight=False, soft_wrap=True)
        _say(self._out, directions(places, self._plan))
        async with redis_client(self._settings) as redis:
            await self._simulate(worker, redis)
            return await self._verify(worker, redis)

    async def _start_parts(self) -> Settings:
        """Start broker and Redis side by side, and return the settings that reach them."""
        names = [spec.name for spec in Topics(self._given.topics.prefix, APP_ID).specs()]
        kafka, redis = EmbeddedKafka(dict.fromkeys(names, PARTITIONS)), EmbeddedRedis()
        for part in (kafka, redis):
            self._parts.callback(part.close)
        await asyncio.gather(asyncio.to_thread(kafka.start), asyncio.to_thread(redis.start))
        return demo_settings(self._given, kafka.bootstrap, redis.url)

    def _places(self, worker: WorkerProcess) -> Places:
        metrics = self._settings.metrics
        return Places(
            f"http://{metrics.host}:{metrics.port}/",
            self._settings.kafka.servers,
            PARTITIONS,
            self._settings.redis.shown_url,
            f"http://{metrics.host}:{metrics.port}/metrics",
            worker.log,
            worker.settings_file,
        )

    # ------------------------------------------------------------------------- traffic

    async def _simulate(self, worker: WorkerProcess, redis: Redis) -> None:
        """Send the traffic, and show the numbers meanwhile; not without having shown one."""
        sending = asyncio.create_task(
            simulate(self._settings, self._plan, SystemClock(), self._note)
        )
        try:
            with self._screen:
                while not sending.done() or self._first_seconds is None:
                    await self._look(worker, redis)
                    is_first = self._first_seconds is None
                    await asyncio.sleep(FIRST_LOOK_SECONDS if is_first else LOOK_SECONDS)
            sending.result()
        finally:
            sending.cancel()
            await asyncio.wait({sending}, timeout=STOP_SECONDS)

    def _note(self, sent: Counter[str]) -> None:
        self._sent = sent.copy()

    async def _look(self, worker: WorkerProcess, redis: Redis) -> None:
        worker.check()
        views = await _views(redis)
        seconds = time.monotonic() - self._started
        if self._first_seconds is None and has_kpi(views):
            self._first_seconds = seconds
            _say(self._out, f"first KPI {seconds:.1f} s after the worker's start")
            if self.opens:
                await asyncio.to_thread(open_browser, self._page)
        elif self._first_seconds is None and seconds > FIRST_KPI_SECONDS:
            where, expected = "demo", f"a first KPI within {FIRST_KPI_SECONDS:.0f} s"
            raise Problem(where, expected, "none", f"see {worker.log}")
        self._screen.show(Moment(seconds, self._events, views))

    @property
    def _events(self) -> int:
        return self._sent.total() - self._sent["broken"]

    # ------------------------------------------------------------------------- verifying

    async def _verify(self, worker: WorkerProcess, redis: Redis) -> int:
        """Print the last table and what `verify` says; return its exit status."""
        broken = self._sent["broken"]
        _say(self._out, f"sent {self._events:,} events, {broken:,} of them broken on purpose")
        _say(self._out, "counting them again, one by one, from the input topics …")
        verdict, status = await self._verdict()
        worker.check()
        views = await read_views(redis, WINDOW)
        self._out.print(render(views, WINDOW, MOST_CAMPAIGNS, self._out.width))
        _say(self._out, verdict)
        return status

    async def _verdict(self) -> tuple[str, int]:
        # Here, because it brings the worker's modules, which nothing before needs.
        from streams.verify import verify  # noqa: PLC0415

        dropped = await _dropped(self._settings)
        if dropped:
            what = f"not verified: the broker in memory keeps 5 MB a partition, gone: {dropped}"
            return f"{what}; take fewer --seconds or a lower --rate", FAULT
        # It waits for the worker, so the table comes after it, and what it says after the table.
        said = Console(file=io.StringIO(), width=self._out.width)
        status = await verify(self._settings, said)
        return said.file.getvalue().rstrip(), status  # type: ignore[attr-defined] # a StringIO


async def _views(redis: Redis) -> list[View]:
    try:
        return await read_views(redis, WINDOW)
    except (RedisError, OSError):
        # It is asked again soon, and a worker that is gone for it says so.
        return []


async def _dropped(settings: Settings) -> str:
    """Return which topics have lost their first records, and how many; empty if none has."""
    topics = topics_of(settings)
    names = (*topics.inputs.values(), topics.kpis)
    places = [TopicPartition(name, p) for name in names for p in range(PARTITIONS)]
    async with AIOKafkaConsumer(**settings.kafka.consumer_options()) as consumer:
        starts = await consumer.beginning_offsets(places)
    gone = Counter[str]()
    for place, start in starts.items():
        gone[place.topic] += start
    return ", ".join(f"{count:,} records of {name}" for name, count in gone.items() if count)


def _say(out: Console, text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
