"""A shard: partition p of every topic and table, and the one Kafka transaction that commits it.

Everything a shard produced since its last commit (rows, forwarded records, results and the positions
it has read up to) is written in one transaction whose transactional id is `<app>-<p>`. A crash loses
only uncommitted work, which is read again; a new owner fences the old one at the broker.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    ProducerFenced,
)
from faust.types import TP
from msgspec import msgpack

from streams.outbox import Encoded, Outbox
from streams.publishers import ScopeView
from streams.settings import Settings
from streams.stages import AlertNews, Context, Stage, Stages
from streams.transport import Chunk, Watermark

log = logging.getLogger(__name__)

COMMIT_SECONDS: Final = 30.0
MOST_UNCOMMITTED_BYTES: Final = 32 << 20
MOST_UNCOMMITTED_SECONDS: Final = 5.0
MOST_IDLE_SECONDS: Final = 1.0
BACKLOG_RECORDS: Final = 5_000
MOST_GAPS: Final = 3
GAP_SECONDS: Final = 1.0
"""So long what was on its way when a seek was asked for may still arrive."""

MOST_RECORDS_PER_PRODUCER: Final = 1 << 30
"""aiokafka's sequence numbers do not wrap."""

POSITIONS: Final = b"positions"
LAYOUT: Final = b"layout"
LINEAGE: Final = b"lineage"
FENCED: Final = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState)


class FencedError(Exception):
    """Another worker has opened the shard."""


class GapError(Exception):
    """Records are missing that should be there; going on would lose them."""


class Producer(Protocol):
    """What a shard needs of aiokafka's transactional producer."""

    @property
    def epoch(self) -> int:
        """The epoch, which every new owner raises."""
        ...

    async def transact(self, batches: list[Encoded]) -> None:
        """Write the batches in one transaction."""
        ...

    def create_batch(self) -> Any:
        """Return an empty batch."""
        ...

    async def stop(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Effects:
    """What a shard asks of the rest of the worker."""

    seek: Callable[[str, int, int], None]
    watermark: Callable[[str, int], Watermark]
    publish: Callable[[list[ScopeView]], None]
    alert: Callable[[AlertNews], None]
    fenced: Callable[["Shard"], None]
    stop_worker: Callable[[str], None]


class Shard:
    """The state of one partition and its uncommitted work."""

    def __init__(self, context: Context, settings: Settings, stages: Stages) -> None:
        deployment = context.deployment
        self.partition = context.partition
        self.partitions = deployment.partitions
        self._deployment = deployment
        self._clock = deployment.clock
        self._settings = settings
        topics = deployment.topics
        self.tables = context.tables
        self.tally = context.tally
        self.intake, self.entities, self.merge = stages
        self._stages: tuple[Stage, ...] = stages
        self._stage_of: dict[str, Stage] = dict.fromkeys(topics.inputs.values(), self.intake)
        self._stage_of[topics.entities] = self.entities
        self._stage_of[topics.deltas] = self.merge
        self.expected: dict[str, int] = {}
        self.committed: dict[str, int] = {}
        self._gaps: Counter[str] = Counter()
        self._sought_at: dict[str, float] = {}
        self._effects: Effects | None = None
        self._producer: Producer | None = None
        self._committing: asyncio.Task[None] | None = None
        self._committer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._work_since: float | None = None
        self.is_paused = False
        self.is_suspended = True
        self.is_closed = False
        self.was_clean = True
        self.rows_read = 0
        self.turns = 0
        self.commits = 0
        self.confirmed_at = self._clock.monotonic_seconds()

    # ------------------------------------------------------------------------- opening

    def stored_positions(self) -> dict[str, int]:
        """Return the positions in the tables; a topic that was never read has none."""
        row = self.tables["positions"].get(POSITIONS)
        return {} if row is None else msgpack.decode(row, type=dict[str, int])

    def restore(
        self, positions: Mapping[str, int], version: Callable[[int], str]
    ) -> Iterator[None]:
        """Take up the tables, which have been read, to go on from `positions`.

        It yields now and then: the loop has others to serve, and a million rows take many seconds.
        """
        for topic, stage in self._stage_of.items():
            stage.positions[topic] = positions[topic]
        self.expected = dict(positions)
        self.committed = dict(positions)
        self.merge.version = version
        for stage in self._stages:
            for _ in stage.restore():
                self.turns += 1
                yield

    def start(self, producer: Producer, effects: Effects) -> None:
        """Begin to work; the tables have been taken up."""
        self._producer = producer
        self._effects = effects
        self._committer = asyncio.create_task(self._commit_on_and_on())
        self._committer.add_done_callback(self._committer_ended)

    def resume(self) -> None:
        """Work on after a rebalance that left the shard here; what was not applied is read again."""
        self._sought_at.clear()
        self.is_suspended = False
        self.confirmed_at = self._clock.monotonic_seconds()

    def positions(self) -> dict[TP, int]:
        """Return where to read on, for every source."""
        return {TP(topic, self.partition): at for topic, at in self.expected.items()}

    # ------------------------------------------------------------------------- applying

    def apply(self, chunk: Chunk) -> None:
        """Apply a chunk if it is the next one; drop what was delivered before, read again after a gap."""
        if self.is_suspended or self.is_closed:
            return
        expected = self.expected[chunk.topic]
        if chunk.end <= expected:
            return
        if chunk.start != expected:
            self._seek_back(chunk, expected)
            return
        self._sought_at.pop(chunk.topic, None)
        self._gaps.pop(chunk.topic, None)
        self._stage_of[chunk.topic].apply(chunk)
        self.expected[chunk.topic] = chunk.end
        self._account()

    def _seek_back(self, chunk: Chunk, expected: int) -> None:
        now = self._clock.monotonic_seconds()
        sought_at = self._sought_at.get(chunk.topic)
        if sought_at is not None and now - sought_at < GAP_SECONDS:
            return
        self._gaps[chunk.topic] += 1
        if self._gaps[chunk.topic] > MOST_GAPS:
            msg = (
                f"{chunk.topic}/{chunk.partition}: expected position {expected}, got {chunk.start}"
                f" after {MOST_GAPS} tries"
            )
            raise GapError(msg)
        log.warning(
            "gap topic=%s partition=%d expected=%d got=%d",
            chunk.topic,
            chunk.partition,
            expected,
            chunk.start,
        )
        self._sought_at[chunk.topic] = now
        self._require_effects().seek(chunk.topic, chunk.partition, expected)

    def _account(self) -> None:
        now = self._clock.monotonic_seconds()
        if self._work_since is None:
            self._work_since = now
        if self.uncommitted_bytes() > MOST_UNCOMMITTED_BYTES:
            self._hurry.set()
            self.is_paused = True
        elif now - self._work_since > MOST_UNCOMMITTED_SECONDS:
            self.is_paused = True

    @property
    def has_work(self) -> bool:
        """Whether something was applied that no commit has taken up yet."""
        return self._work_since is not None

    def uncommitted_bytes(self) -> int:
        """Return about how much the next commit will write."""
        tables = sum(table.dirty_bytes for table in self.tables.values())
        return tables + sum(stage.pending_bytes for stage in self._stages)

    # ------------------------------------------------------------------------- committing

    def lag(self) -> dict[str, int]:
        """Return how many positions are still to be read, by topic."""
        watermark = self._require_effects().watermark
        return {
            topic: max(0, watermark(topic, self.partition).end - position)
            for topic, position in self.expected.items()
        }

    async def _commit_on_and_on(self) -> None:
        begun = self._clock.monotonic_seconds()
        while not self.is_closed:
            await self._wait_from(begun)
            self._hurry.clear()
            begun = self._clock.monotonic_seconds()
            await self.commit_if_due()
            if self.merge.has_more and not self.is_suspended:
                self._hurry.set()

    async def _wait_from(self, begun: float) -> None:
        """Wait until the interval since `begun` is over, the longer one while there is a backlog."""
        commit = self._settings.commit
        soon, late = begun + commit.interval_ms / 1000, begun + commit.backlog_ms / 1000
        while not self._hurry.is_set():
            now = self._clock.monotonic_seconds()
            is_behind = sum(self.lag().values()) > BACKLOG_RECORDS
            if now >= (late if is_behind else soon):
                return
            # Looks again at each short interval: the backlog may have ended meanwhile.
            pause = min(late, max(soon, now + commit.interval_ms / 1000 / 4)) - now
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()

    async def commit_if_due(self) -> None:
        """Commit if there is something to write, unless suspended."""
        if not self.is_suspended and self._is_due():
            await self.commit()

    def _committer_ended(self, committer: "asyncio.Task[None]") -> None:
        if not committer.cancelled() and (error := committer.exception()) is not None:
            self._require_effects().stop_worker(
                f"shard {self.partition}: expected to commit on, got {error!r}"
            )

    def _is_due(self) -> bool:
        effects = self._require_effects()
        for topic in self._deployment.topics.inputs.values():
            self.intake.caught_up(topic, effects.watermark(topic, self.partition))
        if any(stage.is_due() for stage in self._stages):
            return True
        # Positions that only passed markers are written too, if later.
        since = self._work_since
        now = self._clock.monotonic_seconds()
        return since is not None and now - since >= MOST_IDLE_SECONDS

    async def commit(self) -> None:
        """Write everything since the last commit in one transaction, one commit at a time."""
        while self._committing is not None:
            await asyncio.shield(self._committing)
        # After a failure nobody knows what was written; what it took from the tables is gone from here.
        if self.is_closed or not self.was_clean:
            return
        # A task of its own: whoever waits for it may be cancelled, the transaction may not.
        self._committing = asyncio.create_task(self._commit())
        await asyncio.shield(self._committing)

    async def _commit(self) -> None:
        started = self._clock.monotonic_seconds()
        try:
            positions, batches = self._prepare()
            counted = self.tally.take()
            views, arrivals = self.merge.take_views(), self.merge.take_arrivals()
            alerts = self.merge.take_alerts()
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._require_producer().transact(batches)
        except BaseException as error:  # noqa: BLE001 - also CancelledError: nobody knows what was written
            self._commit_failed(error)
            return
        finally:
            self._committing = None
        self.committed = positions
        self.commits += 1
        self.confirmed_at = self._clock.monotonic_seconds()
        if not self.is_closed:
            self.is_paused = False
            self._require_effects().publish(views)
            self._require_effects().alert(alerts)
        metrics = self._deployment.metrics
        counted.report(metrics)
        metrics.commit_seconds.observe(self.confirmed_at - started)
        now_ms = self._clock.now_ms()
        for arrived_ms in arrivals:
            metrics.event_to_publish_seconds.observe(max(0, now_ms - arrived_ms) / 1000)

    def _prepare(self) -> tuple[dict[str, int], list[Encoded]]:
        outbox = Outbox()
        for stage in self._stages:
            stage.flush(outbox)
        positions: dict[str, int] = {}
        for stage in self._stages:
            positions |= stage.positions
        self.tables["positions"].put(POSITIONS, msgpack.encode(positions))
        for table in self.tables.values():
            table.flush(outbox)
        self._work_since = None
        return positions, outbox.encode(self._require_producer())

    def _commit_failed(self, error: BaseException) -> None:
        self.was_clean = False
        self.is_suspended = True
        if self.is_closed:
            return
        if is_fenced(error):
            self._require_effects().fenced(self)
        else:
            self._require_effects().stop_worker(
                f"commit of shard {self.partition}: expected a committed transaction, got {error!r}"
            )

    # ------------------------------------------------------------------------- closing

    def suspend(self) -> None:
        """Apply and commit nothing more until `resume`."""
        self.is_suspended = True

    def abandon(self) -> None:
        """Stop working at once; what was not committed is forgotten, and a commit under way is nobody's."""
        self.is_closed = self.is_suspended = True
        if self._committer is not None:
            self._committer.cancel()

    async def close(self) -> None:
        """Stop working and close the connections."""
        self.abandon()
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

    def _require_effects(self) -> Effects:
        if self._effects is None:
            msg = f"shard {self.partition}: expected to be started, got a call before"
            raise RuntimeError(msg)
        return self._effects

    def _require_producer(self) -> Producer:
        if self._producer is None:
            msg = f"shard {self.partition}: expected to be open, got a commit after its end"
            raise RuntimeError(msg)
        return self._producer


def is_fenced(error: BaseException | None) -> bool:
    """Tell whether `error`, or what caused it, is the broker saying that the shard has another owner."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, FENCED):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
