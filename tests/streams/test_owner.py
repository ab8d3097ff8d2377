"""Which shards a worker has, and how they are handed over. Source: design, sections 3 and 4."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from faust.types import TP
from msgspec import msgpack
from prometheus_client import CollectorRegistry

from kpis.calendar import HOUR_MINUTES, MINUTE_MS
from kpis.catalog import Catalog
from kpis.facts import PERIOD
from kpis.packing import pack
from kpis.retention import Grain
from streams import owner as home
from streams.app import deployment_of, shard_factory
from streams.metrics import Metrics
from streams.owner import MOST_FENCED, Owner
from streams.problems import Problem
from streams.settings import Settings
from streams.shards import Shard
from streams.stages import ROWS_PER_TURN
from tests.streams.one_shard import (
    NOW_MS,
    SETTINGS,
    TOPICS,
    Broker,
    RecordingProducer,
    World,
    counted,
    impressions,
)

IMPRESSIONS = TOPICS.inputs["impressions"]
PARTITIONS = 3


class Group:
    """The consumer group, the broker's transactional ids and the tables, as one worker sees them."""

    def __init__(self) -> None:
        self.world = World()
        self.broker = Broker()
        self.producers: dict[int, RecordingProducer] = {}
        self.generation = 1
        self.is_ours = True
        self.asked: list[Mapping[TP, int]] = []
        self.fences: list[int] = []
        self.reads: list[int] = []
        self.closed: list[int] = []
        self.reopened: list[int] = []
        self.stored: dict[int, dict[str, int]] = {}
        self.rows = 0
        self.failure: Exception | None = None
        self.may_fence = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_fence.set()
        self.may_read.set()

    def owner(self) -> Owner:
        deployment = deployment_of(
            SETTINGS, PARTITIONS, Metrics(CollectorRegistry(), "test"), self.world.clock
        )
        make_shard = shard_factory(deployment, SETTINGS, Catalog(SETTINGS.funnel.stages))
        owner = Owner(
            deployment, SETTINGS, make_shard, fence=self.fence, read_tables=self.read_tables
        )
        owner.effects = replace(self.world.effects(), fenced=owner.fenced)
        owner.current_generation = lambda: self.generation
        owner.is_member = self.is_member
        owner.on_closed = self.closed.append
        owner.after_reopening = self.reopened.append
        return owner

    async def fence(self, shard: Shard, _settings: Settings) -> RecordingProducer:
        await self.may_fence.wait()
        self.fences.append(shard.partition)
        producer = RecordingProducer(self.broker, f"app-{shard.partition}")
        self.producers[shard.partition] = producer
        return producer

    async def read_tables(
        self, shard: Shard, settings: Settings, *, accept_loss: bool
    ) -> dict[str, int]:
        await self.may_read.wait()
        if self.failure is not None:
            raise self.failure
        self.reads.append(shard.partition)
        for number in range(self.rows):
            shard.tables["cells"].load(*cell_row(number))
        return dict.fromkeys(TOPICS.sources, 0) | self.stored.get(shard.partition, {})

    async def is_member(self, committed: Mapping[TP, int]) -> bool:
        self.asked.append(committed)
        return self.is_ours


def cell_row(number: int) -> tuple[bytes, bytes]:
    """Return a record of the changelog of cells: an hour of a campaign."""
    minute = NOW_MS // MINUTE_MS // HOUR_MINUTES * HOUR_MINUTES - number % 800 * HOUR_MINUTES
    key = (PERIOD, "google_ads", f"c{number // 800}", Grain.HOUR, minute, 0)
    return b"\x00" + msgpack.encode(key), b"\x00" + pack({"clicks": 1})


def sources(*partitions: int) -> dict[str, frozenset[int]]:
    return dict.fromkeys(TOPICS.sources, frozenset(partitions))


async def rebalance(group: Group, owner: Owner, *partitions: int, generation: int) -> bool:
    """Let the group hand out partitions as Faust does: revoke all, then assign."""
    await owner.revoke()
    group.generation = generation
    owner.begin_assignment()
    return await owner.assign(sources(*partitions), generation)


@pytest.fixture
async def group() -> Group:
    return Group()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "FENCED_PAUSE_SECONDS", 0.0)


@pytest.fixture
async def owner(group: Group) -> AsyncIterator[Owner]:
    owner = group.owner()
    await rebalance(group, owner, 0, 1, generation=1)
    yield owner
    await owner.close()


async def turns_until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until `condition` holds."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("expected to come about in a thousand turns of the loop")


async def settled(owner: Owner) -> None:
    """Return when no shard is being closed or opened again."""
    while pending := owner._reopening | owner._closing:
        await asyncio.wait(pending)


# ----------------------------------------------------------------------------- handing over


async def test_the_shards_of_an_assignment_are_opened(group: Group, owner: Owner) -> None:
    assert sorted(owner.shards) == sorted(group.fences) == sorted(group.reads) == [0, 1]
    assert owner.wanted() == {TP(topic, p) for topic in TOPICS.sources for p in (0, 1)}


async def test_a_shard_that_stays_is_kept_and_goes_on_where_it_was(
    group: Group, owner: Owner
) -> None:
    owner.apply(impressions(0, 3), generation=1)
    kept = owner.shards[0]
    await rebalance(group, owner, 0, 2, generation=2)
    assert owner.shards[0] is kept
    assert group.fences.count(0) == 1
    assert group.closed == [1]
    assert owner.positions()[TP(IMPRESSIONS, 0)] == 3
    owner.apply(impressions(3, 5), generation=2)
    await kept.commit()
    assert counted(group.broker) == 5


async def test_a_shard_is_not_kept_over_a_generation_that_was_missed(
    group: Group, owner: Owner
) -> None:
    # Another worker may have had it in the meantime.
    await rebalance(group, owner, 0, 1, generation=3)
    assert sorted(group.fences) == [0, 0, 1, 1]


async def test_a_shard_whose_last_commit_failed_is_not_kept(group: Group, owner: Owner) -> None:
    owner.shards[0].was_clean = False
    await rebalance(group, owner, 0, 1, generation=2)
    assert sorted(group.fences) == [0, 0, 1]


async def test_a_shard_that_was_another_s_meanwhile_is_opened_anew(
    group: Group, owner: Owner
) -> None:
    await rebalance(group, owner, 1, generation=2)
    await rebalance(group, owner, 0, 1, generation=3)
    assert group.fences.count(0) == 2
    assert group.fences.count(1) == 1


async def test_a_revoked_shard_applies_nothing_and_has_committed(
    group: Group, owner: Owner
) -> None:
    owner.apply(impressions(0, 3), generation=1)
    await owner.revoke()
    assert counted(group.broker) == 3
    owner.apply(impressions(3, 6), generation=1)
    assert owner.positions()[TP(IMPRESSIONS, 0)] == 3
    assert owner.wanted() == set()


async def test_a_commit_that_takes_too_long_is_discarded_and_its_shard_opened_anew(
    group: Group, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "HAND_OVER_SECONDS", 0.01)
    owner.apply(impressions(0, 3), generation=1)
    slow = group.producers[0]
    slow.gate.clear()
    await rebalance(group, owner, 0, 1, generation=2)
    assert sorted(group.fences) == [0, 0, 1]
    slow.gate.set()
    # It is fenced: nothing of it is written, and nobody minds.
    await settled(owner)
    assert counted(group.broker) == 0
    assert not group.world.stopped


async def test_a_chunk_of_an_earlier_generation_is_dropped(group: Group, owner: Owner) -> None:
    await rebalance(group, owner, 0, 1, generation=2)
    owner.apply(impressions(0, 3), generation=1)
    assert owner.positions()[TP(IMPRESSIONS, 0)] == 0


async def test_a_chunk_of_a_shard_that_is_not_here_is_dropped(group: Group, owner: Owner) -> None:
    await rebalance(group, owner, 1, generation=2)
    owner.apply(impressions(0, 3), generation=2)
    assert not group.world.stopped


async def test_a_fault_in_apply_stops_the_worker(group: Group, owner: Owner) -> None:
    # Rule 3: Faust would acknowledge the events of an agent that raised.
    no_batch: Any = None
    owner.apply(impressions(0, 3)._replace(batches=[no_batch]), generation=1)
    assert f"{IMPRESSIONS}/0 0..3: expected to be applied" in group.world.stopped[0]


async def test_a_torn_assignment_opens_nothing(group: Group, owner: Owner) -> None:
    await owner.revoke()
    group.generation = 2
    owner.begin_assignment()
    torn = {**sources(0, 1), IMPRESSIONS: frozenset({0, 2})}
    assert await owner.assign(torn, 2)
    assert not owner.shards
    assert sorted(group.fences) == [0, 1]


# ----------------------------------------------------------------------------- stale openers


async def test_a_stale_opener_fences_nobody(group: Group) -> None:
    owner = group.owner()
    group.generation = 2
    owner.begin_assignment()
    assert not await owner.assign(sources(0, 1), 1)
    assert group.fences == []


async def test_an_opener_whose_partitions_were_revoked_fences_nobody(group: Group) -> None:
    owner = group.owner()
    owner.begin_assignment()
    await owner.revoke()
    assert not await owner.assign(sources(0, 1), 1)
    assert group.fences == []


async def test_an_opener_that_is_overtaken_while_it_fences_gives_up(group: Group) -> None:
    owner = group.owner()
    group.may_fence.clear()
    owner.begin_assignment()
    opening = asyncio.create_task(owner.assign(sources(0), 1))
    await turns_until(lambda: owner.opening is not None)
    group.generation = 2
    group.may_fence.set()
    assert not await opening
    assert group.reads == []
    assert group.producers[0].is_stopped
    assert not owner.shards


async def test_an_opener_that_is_overtaken_while_it_reads_gives_up(group: Group) -> None:
    owner = group.owner()
    group.may_read.clear()
    owner.begin_assignment()
    opening = asyncio.create_task(owner.assign(sources(0), 1))
    await turns_until(lambda: group.fences == [0])
    assert owner.opening == (1, 0)
    await owner.revoke()
    group.may_read.set()
    assert not await opening
    assert group.producers[0].is_stopped
    assert owner.opening is None


async def test_others_have_the_loop_while_many_rows_are_taken_up(group: Group) -> None:
    owner = group.owner()
    group.rows = 5 * ROWS_PER_TURN
    owner.begin_assignment()
    opening = asyncio.create_task(owner.assign(sources(0), 1))
    seen = []
    while not opening.done():
        if owner.opening is not None:
            seen.append(owner.opening[1])
        await asyncio.sleep(0)
    assert await opening
    assert len(set(seen)) > 5, "the watchdog is to see that it goes on"
    assert seen == sorted(seen)
    assert owner.shards.keys() == {0}
    await owner.close()


async def test_an_opener_that_is_overtaken_while_it_takes_up_rows_gives_up(group: Group) -> None:
    owner = group.owner()
    group.rows = 5 * ROWS_PER_TURN
    owner.begin_assignment()
    opening = asyncio.create_task(owner.assign(sources(0), 1))
    await turns_until(lambda: owner.opening is not None and owner.opening[1] > 1)
    await owner.revoke()
    assert not await opening
    assert group.producers[0].is_stopped
    assert not owner.shards


async def test_a_cancelled_opening_leaves_no_connection_behind(group: Group) -> None:
    owner = group.owner()
    group.may_read.clear()
    owner.begin_assignment()
    opening = asyncio.create_task(owner.assign(sources(0, 1), 1))
    await turns_until(lambda: len(group.fences) == 2)
    opening.cancel()
    await asyncio.wait([opening])
    assert all(producer.is_stopped for producer in group.producers.values())
    assert not owner.shards


async def test_a_shard_that_cannot_be_opened_is_an_error_and_no_empty_shard(group: Group) -> None:
    owner = group.owner()
    group.failure = Problem("t/0", "position 7", "records 9 to 12")
    owner.begin_assignment()
    with pytest.raises(Problem, match="t/0: expected position 7"):
        await owner.assign(sources(0), 1)
    assert group.producers[0].is_stopped
    assert not owner.shards


# ----------------------------------------------------------------------------- rule 3: fenced


async def fence_and_commit(group: Group, owner: Owner) -> None:
    """Let another worker open shard 0, and this one find out."""
    RecordingProducer(group.broker, "app-0")
    await owner.shards[0].commit()


async def test_a_fenced_shard_that_is_still_ours_is_opened_again(
    group: Group, owner: Owner
) -> None:
    owner.apply(impressions(0, 3), generation=1)
    before = owner.shards[0]
    await fence_and_commit(group, owner)
    assert group.closed == [0]
    await settled(owner)
    assert group.reopened == [0]
    assert owner.shards[0] is not before
    assert not group.world.stopped
    assert counted(group.broker) == 0
    assert owner.positions()[TP(IMPRESSIONS, 0)] == 0


async def test_a_fenced_shard_is_not_opened_before_the_group_says_that_it_is_ours(
    group: Group, owner: Owner
) -> None:
    # A worker that was paused longer than its session still believes in its generation.
    group.is_ours = False
    await fence_and_commit(group, owner)
    await turns_until(lambda: len(group.asked) == 3)
    assert group.fences.count(0) == 1
    group.is_ours = True
    await settled(owner)
    assert group.fences.count(0) == 2


async def test_a_fenced_shard_is_left_to_the_next_assignment_if_there_is_one(
    group: Group, owner: Owner
) -> None:
    group.is_ours = False
    await fence_and_commit(group, owner)
    await rebalance(group, owner, 1, generation=2)
    group.is_ours = True
    await settled(owner)
    assert sorted(owner.shards) == [1]
    assert group.fences.count(0) == 1


async def test_a_shard_that_is_being_opened_again_is_left_to_the_next_assignment_too(
    group: Group, owner: Owner
) -> None:
    group.may_fence.clear()
    await fence_and_commit(group, owner)
    await turns_until(lambda: owner.opening is not None)
    next_one = asyncio.create_task(rebalance(group, owner, 0, 1, generation=2))
    await turns_until(lambda: owner.generation == 2)
    group.may_fence.set()
    assert await next_one
    await settled(owner)
    # Once at first and once for the assignment: two openers would fence each other.
    assert group.fences.count(0) == 2


async def test_a_shard_that_is_fenced_again_and_again_stops_the_worker(
    group: Group, owner: Owner
) -> None:
    for _ in range(MOST_FENCED):
        await fence_and_commit(group, owner)
        await settled(owner)
    assert not group.world.stopped
    await fence_and_commit(group, owner)
    assert "shard 0: expected one owner, got fenced" in group.world.stopped[0]
    assert "leadpulse" in group.world.stopped[0]


async def test_shards_that_are_fenced_together_count_each_for_itself(
    group: Group, owner: Owner
) -> None:
    for _ in range(MOST_FENCED):
        for partition in (0, 1):
            RecordingProducer(group.broker, f"app-{partition}")
            await owner.shards[partition].commit()
        await settled(owner)
    assert not group.world.stopped


async def test_a_fence_that_concerns_a_closed_shard_is_nobody_s(group: Group, owner: Owner) -> None:
    gone = owner.shards[1]
    await rebalance(group, owner, 0, generation=2)
    owner.fenced(gone)
    await settled(owner)
    assert group.reopened == []


# ----------------------------------------------------------------------------- the end


async def test_at_the_end_everything_is_committed_and_closed(group: Group, owner: Owner) -> None:
    owner.apply(impressions(0, 3), generation=1)
    await owner.close()
    assert counted(group.broker) == 3
    assert not owner.shards
    assert all(producer.is_stopped for producer in group.producers.values())


async def test_a_producer_that_does_not_stop_holds_up_nobody(
    group: Group, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "HAND_OVER_SECONDS", 0.01)
    never = asyncio.Event()
    monkeypatch.setattr(group.producers[1], "stop", never.wait)
    await rebalance(group, owner, 0, generation=2)
    assert sorted(owner.shards) == [0]
    never.set()
