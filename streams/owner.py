"""The shards of one worker: which are open, and how they are handed over when the group rebalances."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from aiokafka.errors import KafkaError
from faust.types import TP

from streams import opening
from streams.problems import Problem
from streams.settings import Settings
from streams.shards import Effects, GapError, Shard, is_fenced
from streams.stages import Deployment
from streams.transport import Chunk

log = logging.getLogger(__name__)

HAND_OVER_SECONDS: Final = 3.0
FENCED_PAUSE_SECONDS: Final = 2.0
FENCED_WITHIN_SECONDS: Final = 60.0
MOST_FENCED: Final = 3


class Owner:
    """Opens, keeps and closes shards as partitions come and go, and hands them their chunks."""

    def __init__(
        self,
        deployment: Deployment,
        settings: Settings,
        make_shard: Callable[[int], Shard],
        *,
        accept_loss: bool = False,
    ) -> None:
        self._deployment = deployment
        self._settings = settings
        self._make_shard = make_shard
        self._accept_loss = accept_loss
        self.shards: dict[int, Shard] = {}
        self.generation = -1
        self._opening: set[int] = set()
        self.opening_since: float | None = None
        self._fenced_at: list[float] = []
        self._reopening: set[asyncio.Task[None]] = set()
        self.effects: Effects | None = None
        self.current_generation: Callable[[], int] = lambda: -1
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
            TP(topic, partition): position
            for partition, shard in self.shards.items()
            for topic, position in shard.expected.items()
        }

    # ------------------------------------------------------------------------- rebalances

    async def revoke(self) -> None:
        """Stop all shards and commit what they have; what takes too long is discarded."""
        for shard in self.shards.values():
            shard.suspend()
        commits = [asyncio.create_task(shard.commit()) for shard in self.shards.values()]
        if not commits:
            return
        _, late = await asyncio.wait(commits, timeout=HAND_OVER_SECONDS)
        for shard, commit in zip(list(self.shards.values()), commits, strict=False):
            if commit in late:
                log.info("shard discarded partition=%d cause=slow_commit", shard.partition)
                shard.was_clean = False
                commit.cancel()

    async def assign(self, sources: Mapping[str, frozenset[int]], generation: int) -> bool:
        """Open the shards of a new assignment; False if another rebalance came in between.

        Args:
            sources: The partitions of every source topic that are assigned.
            generation: The consumer group's generation of this assignment.
        """
        wanted = self._shards_of(sources)
        is_next = generation == self.generation + 1
        for partition, shard in list(self.shards.items()):
            if partition not in wanted or not (is_next and shard.was_clean and not shard.is_closed):
                await self._close(partition)
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
        if not tasks:
            return generation == self.current_generation()
        self.opening_since = time.monotonic()
        try:
            opened = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            self.opening_since = None
        return all(opened)

    async def _open(self, partition: int, generation: int) -> bool:
        started = time.monotonic()
        shard = self._make_shard(partition)
        # A stale opener would fence the rightful owner.
        if generation != self.current_generation():
            return False
        producer = await opening.fence(shard, self._settings)
        try:
            if generation != self.current_generation():
                await producer.stop()
                return False
            positions = await opening.read_tables(
                shard, self._settings, accept_loss=self._accept_loss
            )
            if generation != self.current_generation():
                await producer.stop()
                return False
        except BaseException:
            await producer.stop()
            raise
        epoch, lineage = producer.epoch, opening.lineage(shard)
        shard.start(
            positions,
            producer,
            self._require_effects(),
            lambda position: f"{position}.{epoch}.{lineage}",
        )
        self.shards[partition] = shard
        rows = sum(len(table) for table in shard.tables.values())
        seconds = time.monotonic() - started
        log.info("shard opened partition=%d rows=%d seconds=%.2f", partition, rows, seconds)
        return True

    async def _close(self, partition: int) -> None:
        shard = self.shards.pop(partition)
        self.on_closed(partition)
        await shard.close()

    async def close(self) -> None:
        """Commit what can be committed, and close all shards."""
        await self.revoke()
        for partition in list(self.shards):
            await self._close(partition)

    # ------------------------------------------------------------------------- fencing

    def fenced(self, shard: Shard) -> None:
        """Close a shard that the broker says has another owner; open it again if it is still ours."""
        if self.shards.get(shard.partition) is not shard:
            return
        log.warning("shard fenced partition=%d", shard.partition)
        now = time.monotonic()
        self._fenced_at = [at for at in self._fenced_at if now - at < FENCED_WITHIN_SECONDS] + [now]
        if len(self._fenced_at) > MOST_FENCED * max(1, self._deployment.partitions):
            self._require_effects().stop_worker(
                f"shard {shard.partition}: expected one owner, got fenced {len(self._fenced_at)}"
                f" times in {FENCED_WITHIN_SECONDS:.0f} s; is there another deployment with the"
                f" app_id {self._settings.app_id}?"
            )
        task = asyncio.create_task(self._reopen(shard, self.generation))
        self._reopening.add(task)
        task.add_done_callback(self._reopening.discard)

    async def _reopen(self, shard: Shard, generation: int) -> None:
        partition = shard.partition
        if self.shards.get(partition) is shard:
            await self._close(partition)
        await asyncio.sleep(FENCED_PAUSE_SECONDS)
        if generation != self.current_generation() or partition in self.shards:
            return
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
