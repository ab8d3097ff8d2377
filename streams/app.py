"""The worker: the one place that joins settings, topics, shards, publishers and Faust."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Hashable, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any, Final, NoReturn

import faust
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError
from faust.types import TP
from prometheus_client import CollectorRegistry, ProcessCollector

from kpis.alerts import FIRED, RESOLVED
from kpis.calendar import Calendar
from kpis.catalog import Catalog
from kpis.leads import Funnel
from kpis.retention import Buckets
from streams import transport
from streams.alerting import log_told
from streams.clock import Clock, SystemClock
from streams.entities import Entities
from streams.group import faust_app, source
from streams.intake import Intake
from streams.live_page import LivePage
from streams.merge import Merge
from streams.metrics import Metrics
from streams.owner import Owner
from streams.problems import Problem, one_line, redis_unreachable
from streams.publishers import ScopeView, Snapshot
from streams.publishers.alert_series import AlertCollector
from streams.publishers.prometheus import KpiCollector, MetricsEndpoint
from streams.publishers.redis_hashes import RedisHashes, connect
from streams.publishers.webhook import Webhook
from streams.settings import Settings
from streams.shards import Effects, Shard
from streams.stages import AlertNews, Context, Deployment, Stages
from streams.tables import tables_of
from streams.tally import Tally
from streams.topics import Topics, admin_client, describe, faults, is_advice, topics_of
from streams.watchdog import Watchdog

log = logging.getLogger("leadpulse")

FAIL_STOP: Final = 70
BEAT_SECONDS: Final = 0.5
SHOW_SECONDS: Final = 2.0
GROUP_OFFSET_SECONDS: Final = 5.0
DELETE_SECONDS: Final = 3_600.0
DELETE_MARGIN: Final = 1_000
STOP_SECONDS: Final = 10.0
JOIN_SECONDS: Final = 60.0
COLLECT_AFTER: Final = 100_000


def fail_stop(why: str) -> NoReturn:
    """Say why and end the process at once; the supervisor starts it again."""
    log.critical("stopped: %s", why)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(FAIL_STOP)


def deployment_of(
    settings: Settings, partitions: int, metrics: Metrics, clock: Clock
) -> Deployment:
    """Return what the settings say about the deployment, as the stages need it."""
    return Deployment(
        topics=topics_of(settings),
        partitions=partitions,
        rules=settings.rules(),
        funnel=Funnel(settings.funnel.stages, settings.funnel.skipped == "imply"),
        buckets=Buckets(Calendar(settings.time_zone), settings.retention_rule()),
        clock=clock,
        metrics=metrics,
        park_ms=settings.park_ms,
        keep_ms=settings.keep_ms,
        horizon_ms=settings.horizon_ms,
    )


def shard_factory(
    deployment: Deployment, settings: Settings, catalog: Catalog
) -> Callable[[int], Shard]:
    """Return what makes a shard with its tables and its three stages, not yet opened."""
    rules = settings.alert_rules()

    def make_shard(partition: int) -> Shard:
        context = Context(deployment, partition, tables_of(deployment.topics, partition), Tally())
        merge = Merge(context, settings, catalog, rules)
        return Shard(context, settings, Stages(Intake(context), Entities(context), merge))

    return make_shard


class Worker:
    """One worker process of a deployment."""

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        *,
        accept_loss: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._started_at = self._clock.monotonic_seconds()
        self._has_warned = False
        self.metrics = Metrics(CollectorRegistry(), version("leadpulse"))
        # Memory and processor time are the process's, so they are not among the shared metrics.
        ProcessCollector(registry=self.metrics.registry)
        self._deployment = deployment_of(settings, partitions, self.metrics, self._clock)
        self._topics: Topics = self._deployment.topics
        catalog = Catalog(settings.funnel.stages, settings.cohort.horizon_days)
        self.snapshot = Snapshot()
        make_shard = shard_factory(self._deployment, settings, catalog)
        self.owner = Owner(self._deployment, settings, make_shard, accept_loss=accept_loss)
        self.faust = faust_app(settings, self._topics, partitions, self.owner, fail_stop)
        self.metrics.registry.register(
            KpiCollector(
                self.snapshot,
                self._is_live,
                catalog,
                settings.channels.expects_cost,
                currency=settings.currency,
                top_campaigns=settings.prometheus.top_campaigns,
            )
        )
        host, port = settings.metrics.host, settings.metrics.port
        self.page = LivePage(settings, self._clock)
        self.endpoint = MetricsEndpoint(self.metrics, host, port, self._problem, self.page.routes())
        self.metrics.registry.register(AlertCollector(self.snapshot, self._is_live))
        self._name_alerts()
        self._webhook = self._webhook_publisher() if settings.alerts.has_webhook else None
        self._redis = self._redis_publisher(catalog) if settings.redis.is_on else None
        self._watchdog = Watchdog(self._progress, fail_stop)
        self._tasks: list[asyncio.Task[None]] = []
        self._join(partitions)

    def _name_alerts(self) -> None:
        # A series that begins at its first alert would show no increase by it.
        for rule in self._settings.alert_rules():
            for state in (FIRED, RESOLVED) if rule.enabled else ():
                self.metrics.alerts.labels(rule.name, state)

    def _webhook_publisher(self) -> Webhook:
        alerts = self._settings.alerts
        return Webhook(
            alerts.webhook_url,
            alerts.shown_webhook,
            alerts.webhook_secret,
            timeout_seconds=alerts.webhook_timeout_seconds,
            metrics=self.metrics,
            clock=self._clock,
            version=version("leadpulse"),
            delivered=self._delivered,
            on_crash=lambda error: fail_stop(f"webhook: {error!r}"),
        )

    def _redis_publisher(self, catalog: Catalog) -> RedisHashes:
        return RedisHashes(
            connect(self._settings.redis.url),
            self.snapshot,
            self.metrics,
            catalog=catalog,
            zone=self._settings.time_zone,
            currency=self._settings.currency,
            on_crash=lambda error: fail_stop(f"redis publisher: {error!r}"),
            fault_of=partial(redis_unreachable, self._settings.redis.shown_url),
        )

    def _join(self, partitions: int) -> None:
        self.owner.effects = Effects(
            seek=self._seek,
            watermark=self._watermark,
            publish=self._publish,
            alert=self._alert,
            fenced=self.owner.fenced,
            stop_worker=fail_stop,
        )
        self.owner.current_generation = lambda: self.faust.consumer_generation_id
        self.owner.is_member = self._is_member
        self.owner.on_closed = self._closed
        self.owner.after_reopening = self._after_reopening
        self.faust.on_partitions_revoked.connect(self._on_revoked)
        inputs = tuple(self._topics.inputs.values())
        for name, topics in (
            ("intake", inputs),
            ("entities", (self._topics.entities,)),
            ("merge", (self._topics.deltas,)),
        ):
            channel = source(self.faust, *topics, partitions=partitions)
            self.faust.agent(channel, name=f"{self._settings.app_id}.{name}")(self._agent)

    async def _agent(self, stream: faust.StreamT[Any]) -> None:
        await transport.deliver(stream, self.owner.apply)

    async def _on_revoked(self, *_args: Any, **_kwargs: Any) -> None:
        await self.owner.revoke()

    # ------------------------------------------------------------------------- consumer

    @property
    def _consumer(self) -> Any:
        return self.faust.consumer

    def _watermark(self, topic: str, partition: int) -> transport.Watermark:
        found: transport.Watermark = self._consumer.watermark(topic, partition)
        return found

    def _seek(self, topic: str, partition: int, position: int) -> None:
        self._start(self._consumer.seek_all({TP(topic, partition): position}))

    async def _is_member(self, committed: Mapping[TP, int]) -> bool:
        shown: bool = await self._consumer.show_positions(committed)
        return shown

    def _after_reopening(self, partition: int) -> None:
        # First resumed, then sought: a chunk that was on its way meanwhile is seen to be a gap.
        shard = self.owner.shards[partition]
        shard.resume()
        self._start(self._consumer.seek_all(shard.positions()))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        with suppress(ValueError):
            self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            fail_stop(f"{task.get_coro()}: {error!r}")

    # ------------------------------------------------------------------------- publishing

    def _publish(self, views: list[ScopeView]) -> None:
        for view in views:
            self.snapshot.replace(view)

    def _alert(self, news: AlertNews) -> None:
        for view in news.views:
            self.snapshot.replace_alert(view)
        log_told(news.told)
        if self._webhook is not None:
            for notice in news.notices:
                self._webhook.offer(notice)
            for notice in news.dropped:
                self._webhook.drop(notice)

    def _delivered(self, partition: int, notice_id: str) -> None:
        shard = self.owner.shards.get(partition)
        if shard is not None:
            shard.merge.delivered(notice_id)

    def _closed(self, partition: int) -> None:
        self.snapshot.drop_shard(partition)
        if self._webhook is not None:
            self._webhook.drop_shard(partition)

    def _is_live(self, partition: int) -> bool:
        shard = self.owner.shards.get(partition)
        if shard is None or shard.is_closed:
            return False
        age = self._clock.monotonic_seconds() - shard.confirmed_at
        return age <= self._settings.session.timeout_seconds

    # ------------------------------------------------------------------------- health

    def _progress(self) -> dict[str, tuple[Hashable, bool]]:
        """Return by shard what has to change, and whether it has to now."""
        opening = self.owner.opening
        found: dict[str, tuple[Hashable, bool]] = {
            "opening of shards": (opening, opening is not None)
        }
        for partition, shard in list(self.owner.shards.items()):
            is_open = not shard.is_suspended
            lag = sum(shard.lag().values())
            found[f"shard {partition}"] = (sum(shard.expected.values()), is_open and lag > 0)
            found[f"commits of shard {partition}"] = (shard.commits, is_open and shard.has_work)
        return found

    def _problem(self) -> str | None:
        if not self.owner.shards:
            return self._not_joined()
        stale = [p for p in self.owner.shards if not self._is_live(p)]
        return f"shards {stale} were not confirmed of late" if stale else None

    def _not_joined(self) -> str | None:
        """Say so if the group has never answered; a worker without a shard has had its answer."""
        waited = self._clock.monotonic_seconds() - self._started_at
        if self.owner.generation >= 0 or waited <= JOIN_SECONDS:
            return None
        return (
            f"not joined the group yet: expected an assignment of group {self._settings.app_id} "
            f"within {JOIN_SECONDS:.0f} s, got none in {waited:.0f} s"
        )

    def _warn_once(self) -> None:
        if not self._has_warned and (why := self._not_joined()) is not None:
            self._has_warned = True
            log.warning(
                "%s; see that the ACLs allow READ on the group, and that nobody else uses it", why
            )

    async def _beat(self) -> None:
        while True:
            self._watchdog.beat()
            self._warn_once()
            if self.faust.crashed:
                fail_stop(f"consumer: expected to run on, got {self.faust.crash_reason!r}")
            await asyncio.sleep(BEAT_SECONDS)

    async def _show(self) -> None:
        shown: set[tuple[str, int]] = set()
        while True:
            lags = {
                (topic, partition): lag
                for partition, shard in self.owner.shards.items()
                for topic, lag in shard.lag().items()
            }
            for topic, partition in shown - lags.keys():
                self.metrics.lag_records.remove(topic, str(partition))
            for (topic, partition), lag in lags.items():
                self.metrics.lag_records.labels(topic, str(partition)).set(lag)
            shown = set(lags)
            shards = self.owner.shards.values()
            self.metrics.scopes.set(len(self.snapshot))
            self.metrics.parked_events.set(sum(shard.tally.parked for shard in shards))
            known = [m for shard in shards if (m := shard.merge.complete_until_ms) is not None]
            if known:
                self.metrics.complete_until.set(min(known) / 1000)
            await asyncio.sleep(SHOW_SECONDS)

    async def _show_group_offsets(self) -> None:
        while True:
            await asyncio.sleep(GROUP_OFFSET_SECONDS)
            if not self.faust.rebalancing:
                await self._show_committed()

    async def _show_committed(self) -> None:
        committed = {
            TP(topic, partition): position
            for partition, shard in self.owner.shards.items()
            for topic, position in shard.committed.items()
        }
        # A worker without a shard has nothing to show, which the client takes for an error.
        if committed:
            await self._consumer.show_positions(committed)

    async def _delete_read_records(self) -> None:
        """Delete from our own topics what has been committed, with a margin, once an hour."""
        while True:
            await asyncio.sleep(DELETE_SECONDS)
            own = (self._topics.entities, self._topics.deltas)
            before = {
                TopicPartition(topic, partition): RecordsToDelete(
                    max(0, shard.committed[topic] - DELETE_MARGIN)
                )
                for partition, shard in self.owner.shards.items()
                for topic in own
            }
            if not before:
                continue
            try:
                async with admin_client(self._settings.kafka) as admin:
                    await admin.delete_records(before)
            except (KafkaError, Problem) as error:
                log.warning("records not deleted: %s", error)

    # ------------------------------------------------------------------------- life

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""
        await self.endpoint.start()
        log.info("live page url=%s/", self.endpoint.url)
        log.info("metrics url=%s/metrics", self.endpoint.url)
        if self._redis is not None:
            await self._redis.start()
        if self._webhook is not None:
            await self._webhook.start()
        self._start(self._beat())
        self._watchdog.start()
        self.faust.finalize()
        await self.faust.start()
        loops: list[Callable[[], Coroutine[Any, Any, None]]] = [self._show]
        if not self._settings.kafka.embedded:
            loops += [self._show_group_offsets, self._delete_read_records]
        for work in loops:
            self._start(work())
        await stop.wait()
        await self.stop()

    async def stop(self) -> None:
        """Commit, hand over and close everything."""
        log.info("stopping")
        self._watchdog.stop()
        if self._webhook is not None:
            # Before the shards close: they note what is confirmed by then.
            await self._webhook.stop()
        await self.owner.close()
        for task in list(self._tasks):
            task.cancel()
        if self._redis is not None:
            await self._redis.stop()
        await self.page.stop()
        await self.endpoint.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self.faust.stop()


async def partitions_of(settings: Settings) -> int:
    """Return the number of partitions of all topics.

    Raises:
        Problem: if Kafka does not answer, or its topics are not as they have to be.
    """
    states = await describe(settings)
    found = faults(states)
    for problem in found:
        if not is_advice(problem):
            raise problem
    if found:
        log.warning("%s", one_line(found))
    return max(state.partitions or 0 for state in states)


def run_worker(settings: Settings, *, accept_loss: bool = False) -> int:
    """Run a worker until it is asked to stop; return the exit status.

    Raises:
        Problem: if it cannot start.
    """
    set_up_logging()
    return asyncio.run(_run(settings, accept_loss=accept_loss))


async def _run(settings: Settings, *, accept_loss: bool) -> int:
    partitions = await partitions_of(settings)
    _collect_rarely()
    transport.install()
    worker = Worker(settings, partitions, accept_loss=accept_loss)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    try:
        await worker.run(stop)
    except OSError as error:
        where = f"metrics at {settings.metrics.host}:{settings.metrics.port}"
        reason = error.strerror or str(error)
        todo = "set LEADPULSE_METRICS to a free one"
        raise Problem(where, "an address to listen on", reason, todo) from error
    return 0


def _collect_rarely() -> None:
    """Let the collector look for cycles seldom: a batch is thousands of objects that live for a moment."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 100)


def set_up_logging() -> None:
    """Log one line per fact to standard error, and of the libraries only what is wrong."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )
    # They retry by themselves what they call errors; what they cannot mend ends a commit or the consumer,
    # and that is said in one line of ours. Faust's services log under the modules that define them.
    for noisy in ("faust", "mode", "abc", "streams.group", "streams.transport", "aiokafka"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
