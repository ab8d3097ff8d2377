"""A shard under faults. Source of the rules: design, section 4, by number."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec import msgpack

from streams.settings import load
from streams.shards import (
    GAP_SECONDS,
    MOST_GAPS,
    MOST_IDLE_SECONDS,
    MOST_UNCOMMITTED_BYTES,
    MOST_UNCOMMITTED_SECONDS,
    POSITIONS,
    GapError,
    Shard,
    is_fenced,
)
from streams.tables import Table
from streams.transport import Batch, Chunk
from tests.streams.one_shard import (
    TOPICS,
    Broker,
    RecordingProducer,
    World,
    chunk,
    counted,
    impressions,
    started,
)

IMPRESSIONS = TOPICS.inputs["impressions"]
A_MOMENT = timedelta(seconds=GAP_SECONDS)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def producer(broker: Broker) -> RecordingProducer:
    return RecordingProducer(broker)


@pytest.fixture
async def shard(world: World, producer: RecordingProducer) -> Any:
    shard = started(world, producer)
    yield shard
    await shard.close()


def committed_positions(broker: Broker) -> dict[str, int]:
    table = Table("positions", "", 0)
    for written in broker.records(TOPICS.changelog("positions")):
        assert written.key is not None
        table.load(written.key, written.value)
    row = table.get(POSITIONS)
    return {} if row is None else msgpack.decode(row)


def is_paused(shard: Shard) -> bool:
    return shard.is_paused


# ----------------------------------------------------------------------------- rule 2: contiguity


async def test_a_chunk_that_was_delivered_before_is_dropped(
    shard: Shard, broker: Broker, world: World
) -> None:
    shard.apply(impressions(0, 5))
    shard.apply(impressions(0, 5))
    shard.apply(impressions(2, 5))
    assert world.sought == []
    await shard.commit()
    assert counted(broker) == 5
    assert committed_positions(broker)[IMPRESSIONS] == 5


async def test_a_gap_is_not_applied_but_sought_back(
    shard: Shard, broker: Broker, world: World
) -> None:
    shard.apply(impressions(0, 5))
    shard.apply(impressions(7, 9))
    assert world.sought == [(IMPRESSIONS, 0, 5)]
    shard.apply(impressions(5, 9))
    await shard.commit()
    assert counted(broker) == 9


async def test_a_chunk_that_overlaps_what_was_applied_is_sought_back_too(
    shard: Shard, world: World
) -> None:
    shard.apply(impressions(0, 5))
    shard.apply(impressions(3, 8))
    assert world.sought == [(IMPRESSIONS, 0, 5)]
    assert shard.expected[IMPRESSIONS] == 5


async def test_chunks_that_were_on_their_way_when_a_gap_was_seen_are_one_gap(
    shard: Shard, world: World
) -> None:
    for start in range(10, 100, 10):
        shard.apply(impressions(start, start + 10))
    assert len(world.sought) == 1


async def test_a_gap_that_seeking_does_not_close_stops_the_worker(
    shard: Shard, world: World
) -> None:
    for _ in range(MOST_GAPS):
        shard.apply(impressions(7, 9))
        world.clock.advance(A_MOMENT)
    assert len(world.sought) == MOST_GAPS
    with pytest.raises(GapError, match="expected position 0, got 7"):
        shard.apply(impressions(7, 9))


async def test_gaps_that_were_closed_do_not_add_up(shard: Shard, world: World) -> None:
    for start in range(0, 10 * MOST_GAPS, 2):
        world.clock.advance(A_MOMENT)
        shard.apply(impressions(start + 1, start + 2))
        shard.apply(impressions(start, start + 2))
    assert shard.expected[IMPRESSIONS] == 10 * MOST_GAPS


async def test_the_position_is_the_end_of_the_batch_and_not_the_last_record(
    shard: Shard, broker: Broker
) -> None:
    values = impressions(0, 2).batches[0].read()
    marker_behind = Chunk(IMPRESSIONS, 0, 0, 3, [Batch(0, 2, values), Batch(2, 3, [])])
    shard.apply(marker_behind)
    shard.apply(impressions(3, 4))
    await shard.commit()
    assert committed_positions(broker)[IMPRESSIONS] == 4
    assert counted(broker) == 3


async def test_positions_that_only_passed_markers_are_committed_as_well(
    shard: Shard, broker: Broker, world: World
) -> None:
    await shard.commit()
    broker.transactions.clear()
    shard.apply(Chunk(TOPICS.entities, 0, 0, 2, [Batch(0, 2, [])]))
    await shard.commit_if_due()
    assert not broker.transactions
    world.clock.advance(timedelta(seconds=MOST_IDLE_SECONDS))
    await shard.commit_if_due()
    assert committed_positions(broker)[TOPICS.entities] == 2


# ----------------------------------------------------------------------------- handing over


async def test_a_suspended_shard_applies_and_commits_nothing(shard: Shard, broker: Broker) -> None:
    shard.apply(impressions(0, 3))
    shard.suspend()
    shard.apply(impressions(3, 6))
    await shard.commit_if_due()
    assert not broker.transactions
    assert shard.expected[IMPRESSIONS] == 3


async def test_a_shard_that_is_resumed_goes_on_where_it_was(shard: Shard, broker: Broker) -> None:
    shard.apply(impressions(0, 3))
    shard.suspend()
    await shard.commit()
    shard.resume()
    shard.apply(impressions(3, 6))
    await shard.commit()
    assert counted(broker) == 6


async def test_an_abandoned_shard_commits_nothing_more(shard: Shard, broker: Broker) -> None:
    shard.apply(impressions(0, 3))
    shard.abandon()
    await shard.commit()
    shard.apply(impressions(3, 6))
    assert not broker.transactions


# ----------------------------------------------------------------------------- rule 5: the commit


async def test_everything_is_encoded_before_the_transaction_begins(
    shard: Shard, producer: RecordingProducer
) -> None:
    shard.apply(impressions(0, 3))
    await shard.commit()
    assert producer.steps[0] == "batch"
    assert producer.steps.count("transaction") == 1
    assert producer.steps[-1] == "transaction"


async def test_state_outputs_and_positions_are_of_one_transaction(
    shard: Shard, broker: Broker
) -> None:
    shard.apply(chunk([b"broken", impressions(0, 1).batches[0].read()[0].value]))
    await shard.commit()
    [written] = broker.transactions
    topics = {one.topic for one in written}
    assert {TOPICS.deltas, TOPICS.rejects, TOPICS.changelog("positions")} <= topics


async def test_what_arrives_during_a_commit_is_of_the_next_one(
    shard: Shard, broker: Broker, producer: RecordingProducer
) -> None:
    shard.apply(impressions(0, 3))
    producer.gate.clear()
    commit = asyncio.create_task(shard.commit())
    await producer.has_begun.wait()
    shard.apply(impressions(3, 5))
    producer.gate.set()
    await commit
    assert (counted(broker), committed_positions(broker)[IMPRESSIONS]) == (3, 3)
    await shard.commit()
    assert (counted(broker), committed_positions(broker)[IMPRESSIONS]) == (5, 5)


async def test_whoever_waits_for_a_commit_may_be_cancelled_but_not_the_commit(
    shard: Shard, broker: Broker, producer: RecordingProducer
) -> None:
    shard.apply(impressions(0, 3))
    producer.gate.clear()
    waiting = asyncio.create_task(shard.commit())
    await producer.has_begun.wait()
    waiting.cancel()
    producer.gate.set()
    # It waits for the first one, which nobody else does any more.
    await shard.commit()
    assert counted(broker) == 3
    assert shard.was_clean


async def test_a_commit_that_is_cancelled_has_failed(
    shard: Shard, producer: RecordingProducer, world: World
) -> None:
    shard.apply(impressions(0, 3))
    producer.gate.clear()
    waiting = asyncio.create_task(shard.commit())
    await producer.has_begun.wait()
    assert shard._committing is not None
    shard._committing.cancel()
    await waiting
    assert not shard.was_clean
    assert "CancelledError" in world.stopped[0]


@pytest.mark.parametrize("failure", [OSError("no route"), ValueError("a fault of ours")])
async def test_a_commit_that_fails_stops_the_worker(
    shard: Shard, producer: RecordingProducer, world: World, failure: Exception
) -> None:
    shard.apply(impressions(0, 3))
    producer.failure = failure
    await shard.commit()
    assert str(failure) in world.stopped[0]
    assert not world.fenced
    assert shard.is_suspended


async def test_after_a_failed_commit_there_is_no_other(
    shard: Shard, broker: Broker, producer: RecordingProducer
) -> None:
    shard.apply(impressions(0, 3))
    producer.failure = OSError("no route")
    await shard.commit()
    producer.failure = None
    # Its rows and deltas are gone from memory: positions alone would lose them.
    await shard.commit()
    assert not broker.transactions


async def test_a_fault_while_encoding_is_a_failed_commit_as_well(
    shard: Shard, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_outbox: object) -> None:
        msg = "a fault of ours"
        raise ValueError(msg)

    shard.apply(impressions(0, 3))
    monkeypatch.setattr(shard.entities, "flush", fail)
    await shard.commit()
    assert "a fault of ours" in world.stopped[0]
    assert not shard.was_clean


async def test_a_fenced_shard_is_closed_and_the_worker_goes_on(
    shard: Shard, broker: Broker, world: World
) -> None:
    shard.apply(impressions(0, 3))
    RecordingProducer(broker)
    await shard.commit()
    assert world.fenced == [shard]
    assert not world.stopped
    assert not broker.transactions


async def test_a_fence_is_seen_behind_the_error_that_aiokafka_makes_of_it() -> None:
    from aiokafka.errors import InvalidProducerIdMapping, KafkaError

    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = InvalidProducerIdMapping()
    assert is_fenced(error)
    assert not is_fenced(KafkaError("another"))


async def test_only_committed_numbers_are_published(
    shard: Shard, broker: Broker, producer: RecordingProducer, world: World
) -> None:
    shard.apply(impressions(0, 3))
    await shard.commit()
    own = [one.value for one in broker.records(TOPICS.deltas)]
    producer.gate.clear()
    shard.apply(chunk(own, topic=TOPICS.deltas))
    world.clock.advance(timedelta(seconds=1))
    producer.has_begun.clear()
    commit = asyncio.create_task(shard.commit())
    await producer.has_begun.wait()
    assert not world.published
    assert len(world.alerted) == 1
    producer.gate.set()
    await commit
    assert len(world.alerted) == 2
    facts = {view.scope: view.slots["lifetime"].facts for view in world.published}
    assert set(map(str, facts.values())) == {"{'impressions': 3}"}


async def test_a_commit_loop_that_breaks_stops_the_worker(
    shard: Shard, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        msg = "a fault of ours"
        raise ValueError(msg)

    monkeypatch.setattr(shard, "commit_if_due", fail)
    shard._hurry.set()
    assert shard._committer is not None
    await asyncio.wait([shard._committer])
    assert "a fault of ours" in world.stopped[0]


# ----------------------------------------------------------------------------- rule 7: backpressure


async def test_a_shard_that_cannot_commit_for_long_pauses_and_a_commit_lets_it_go_on(
    shard: Shard, world: World
) -> None:
    shard.apply(impressions(0, 1))
    world.clock.advance(timedelta(seconds=MOST_UNCOMMITTED_SECONDS))
    shard.apply(impressions(1, 2))
    assert not is_paused(shard)
    world.clock.advance(timedelta(milliseconds=1))
    shard.apply(impressions(2, 3))
    assert is_paused(shard)
    await shard.commit()
    assert not is_paused(shard)


async def test_a_shard_with_much_uncommitted_work_pauses_and_commits_early(
    broker: Broker, producer: RecordingProducer, world: World
) -> None:
    never = load(
        {
            "LEADPULSE_CONFIG": "",
            "LEADPULSE_COMMIT_INTERVAL_MS": "60000",
            "LEADPULSE_COMMIT_BACKLOG_MS": "60000",
        }
    )
    shard = started(world, producer, never)
    broken = b'{"note":"' + b"x" * 200_000 + b'"}'
    number = 0
    # Rejects keep at most 64 KiB of the record, in base64.
    while shard.uncommitted_bytes() <= MOST_UNCOMMITTED_BYTES:
        assert not is_paused(shard)
        shard.apply(chunk([broken] * 10, number))
        number += 10
    assert is_paused(shard)
    # No turn of the commit's own interval passes: it is in a hurry.
    await producer.has_begun.wait()
    await shard.commit()
    assert not is_paused(shard)
    assert len(broker.records(TOPICS.rejects)) == number
    await shard.close()
