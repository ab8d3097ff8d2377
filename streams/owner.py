"""The shards of one worker: which are open, and how they are handed over when the group rebalances."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from typing import Final, Protocol

from aiokafka.errors import KafkaError
from faust.types import TP

from streams import opening
from streams.problems import Problem
from streams.settings import Settings
from streams.shards import Effects, GapError, Producer, Shard, is_fenced
from streams.stages import Deployment
from streams.transport import Chunk

log = logging.getLogger(__name__)

HAND_OVER_SECONDS: Final = 3.0
FENCED_PAUSE_SECONDS: Final = 2.0
FENCED_WITHIN_SECONDS: Final = 60.0
MOST_FENCED: Final = 3


Fence = Callable[[Shard, Settings], Awaitable[Producer]]


class ReadTables(Protocol):
    """What reads a shard's tables back; see `opening.read_tables`."""

    async def __call__(
        self, shard: Shard, settings: Settings, *, accept_loss: bool
    ) -> dict[str, int]:
        """Return where to read every source on."""
        ...


class Owner:
    """Opens, keeps and closes shards as partitions come and go, and hands them their chunks."""

    def __init__(
        self,
        deployment: Deployment,
        settings: Settings,
        make_shard: Callable[[int], Shard],
        *,
        accept_loss: bool = False,
        fence: Fence = opening.fence,
        read_tables: ReadTables = opening.read_tables,
    ) -> None:
        self._fence = fence
        self._read_tables = read_tables
        self._deployment = deployment
        self._settings = settings
        self._make_shard = make_shard
        self._accept_loss = accept_loss
        self.shards: dict[int, Shard] = {}
        self.generation = -1
        self._is_revoked = False
        self._opening: list[Shard] = []
        self._fenced_at: dict[int, list[float]] = {}
        self._reopening: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self.effects: Effects | None = None
        self.current_generation: Callable[[], int] = lambda: -1
        self.is_member: Callable[[Mapping[TP, int]], Awaitable[bool]] = _always
        self.on_closed: Callable[[int], None] = lambda _partition: None
        self.after_reopening: Callable[[int], None] = lambda _partition: None

    # ------------------------------------------------------------------------- chunks

    def apply(self, chunk: Chunk, generation: int) -> None:
        """Hand a chunk to its shard, unless it was fetched before the last rebalance."""
        if generation != self.generation:
            return
        shard = self.shards.get(chunk.partition)
        if shard is None:
            return
        try:
            shard.apply(chunk)
        except GapError as error:
            self._require_effects().stop_worker(str(error))
        except Exception as error:
            log.exception("apply failed topic=%s partition=%d", chunk.topic, chunk.partition)
            place = f"{chunk.topic}/{chunk.partition} {chunk.start}..{chunk.end}"
            self._require_effects().stop_worker(f"{place}: expected to be applied, got {error!r}")

    def positions(self) -> Mapping[TP, int]:
        """Return where to read on, for every source of every open shard."""
        return {
            tp: position
            for shard in self.shards.values()
            for tp, position in shard.positions().items()
        }

    def wanted(self) -> Set[TP]:
        """Return the source partitions of the shards that take chunks now."""
        return {
            tp
            for shard in self.shards.values()
            if not (shard.is_suspended or shard.is_paused)
            for tp in shard.positions()
        }

    @property
    def opening(self) -> tuple[int, int] | None:
        """How many shards are being opened and how far they have got, None if none is.

        The second number counts rows that were read and turns of taking them up: it grows.
        """
        if not self._opening:
            return None
        return len(self._opening), sum(shard.rows_read + shard.turns for shard in self._opening)

    # ------------------------------------------------------------------------- rebalances

    async def revoke(self) -> None:
        """Stop all shards and commit what they have; what takes too long is discarded."""
        self._is_revoked = True
        commits = {}
        for shard in self.shards.values():
            shard.suspend()
            commits[asyncio.create_task(shard.commit())] = shard
        if not commits:
            return
        _, late = await asyncio.wait(commits, timeout=HAND_OVER_SECONDS)
        for commit in late:
            shard = commits[commit]
            log.info("shard discarded partition=%d cause=slow_commit", shard.partition)
            shard.was_clean = False
            commit.cancel()

    def begin_assignment(self) -> None:
        """Take note that the group has given out the partitions anew; `assign` follows, perhaps later."""
        self._is_revoked = False

    async def assign(self, sources: Mapping[str, frozenset[int]], generation: int) -> bool:
        """Open the shards of a new assignment; False if another rebalance came in between.

        Args:
            sources: The partitions of every source topic that are assigned.
            generation: The consumer group's generation of this assignment.
        """
        wanted = self._shards_of(sources)
        is_next = generation == self.generation + 1
        for reopening in self._reopening:
            reopening.cancel()
        for partition, shard in list(self.shards.items()):
            if partition not in wanted or not (is_next and shard.was_clean):
                self._close(partition)
        self.generation = generation
        missing = sorted(wanted - self.shards.keys())
        if not await self._open_all(missing, generation):
            return False
        for shard in self.shards.values():
            shard.resume()
        self._deployment.metrics.shards.set(len(self.shards))
        log.info("assigned shards=%s opened=%s", sorted(self.shards), missing)
        return True

    def _shards_of(self, sources: Mapping[str, frozenset[int]]) -> frozenset[int]:
        parts = {sources.get(topic, frozenset()) for topic in self._deployment.topics.sources}
        if len(parts) == 1:
            return next(iter(parts))
        # During an upgrade the assignor may tear topics apart; the next rebalance mends it.
        log.warning("assignment torn apart sources=%s", {t: sorted(p) for t, p in sources.items()})
        return frozenset()

    async def _open_all(self, partitions: Iterable[int], generation: int) -> bool:
        tasks = [asyncio.create_task(self._open(p, generation)) for p in partitions]
        try:
            opened = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        return all(opened) and self._is_current(generation)

    def _is_current(self, generation: int) -> bool:
        return generation == self.current_generation() and not self._is_revoked

    async def _open(self, partition: int, generation: int) -> bool:
        # A stale opener would fence the rightful owner.
        if not self._is_current(generation):
            return False
        shard = self._make_shard(partition)
        self._opening.append(shard)
        try:
            return await self._fence_and_read(shard, generation)
        finally:
            self._opening.remove(shard)

    async def _fence_and_read(self, shard: Shard, generation: int) -> bool:
        started = time.monotonic()
        partition = shard.partition
        producer = await self._fence(shard, self._settings)
        is_open = False
        try:
            if not self._is_current(generation):
                return False
            positions = await self._read_tables(
                shard, self._settings, accept_loss=self._accept_loss
            )
            epoch, lineage = producer.epoch, opening.lineage(shard)
            for _ in shard.restore(positions, lambda position: f"{position}.{epoch}.{lineage}"):
                if not self._is_current(generation):
                    return False
                await asyncio.sleep(0)
            is_open = self._is_current(generation)
        finally:
            if not is_open:
                await producer.stop()
        if not is_open:
            return False
        shard.start(producer, self._require_effects())
        self.shards[partition] = shard
        rows = sum(len(table) for table in shard.tables.values())
        seconds = time.monotonic() - started
        log.info("shard opened partition=%d rows=%d seconds=%.2f", partition, rows, seconds)
        return True

    def _close(self, partition: int) -> None:
        shard = self.shards.pop(partition)
        self.on_closed(partition)
        shard.abandon()
        # Behind us: a producer flushes before it stops, and the broker may not answer.
        self._remember(self._closing, asyncio.create_task(_retire(shard)))

    async def close(self) -> None:
        """Commit what can be committed, and close all shards."""
        await self.revoke()
        for partition in list(self.shards):
            self._close(partition)
        if self._closing:
            await asyncio.wait(self._closing, timeout=HAND_OVER_SECONDS)

    def _remember(self, tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(self._stop_if_failed)

    def _stop_if_failed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._require_effects().stop_worker(f"{task.get_name()}: {error!r}")

    # ------------------------------------------------------------------------- fencing

    def fenced(self, shard: Shard) -> None:
        """Close a shard that the broker says has another owner; open it again if it is still ours."""
        if self.shards.get(shard.partition) is not shard:
            return
        log.warning("shard fenced partition=%d", shard.partition)
        now = time.monotonic()
        times = self._fenced_at.setdefault(shard.partition, [])
        times[:] = [at for at in times if now - at < FENCED_WITHIN_SECONDS] + [now]
        if len(times) > MOST_FENCED:
            self._require_effects().stop_worker(
                f"shard {shard.partition}: expected one owner, got fenced {len(times)}"
                f" times in {FENCED_WITHIN_SECONDS:.0f} s; is there another deployment with the"
                f" app_id {self._settings.app_id}?"
            )
        self._close(shard.partition)
        reopening = self._reopen(shard, self.generation)
        self._remember(self._reopening, asyncio.create_task(reopening))

    async def _reopen(self, shard: Shard, generation: int) -> None:
        """Open a fenced shard again once the group has said that it is still ours."""
        partition = shard.partition
        committed = {TP(topic, partition): position for topic, position in shard.committed.items()}
        await asyncio.sleep(FENCED_PAUSE_SECONDS)
        while not await self.is_member(committed):
            if not self._is_current(generation):
                return
            await asyncio.sleep(FENCED_PAUSE_SECONDS)
        try:
            if await self._open(partition, generation):
                self.after_reopening(partition)
        except (KafkaError, Problem, TimeoutError, OSError) as error:
            if not is_fenced(error):
                self._require_effects().stop_worker(f"shard {partition}: not opened: {error}")

    def _require_effects(self) -> Effects:
        if self.effects is None:
            msg = "owner: expected to be joined to a consumer, got a call before"
            raise RuntimeError(msg)
        return self.effects


async def _always(_committed: Mapping[TP, int]) -> bool:
    return True


async def _retire(shard: Shard) -> None:
    try:
        await shard.close()
    except (KafkaError, OSError) as error:
        log.info("producer not stopped partition=%d: %r", shard.partition, error)
