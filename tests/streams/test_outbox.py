"""What a commit writes, and in what sizes. Source of the rules: design, section 4, by number."""

from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from streams.messages import Envelope, decode_envelope
from streams.outbox import ITEMS_BYTES, RECORD_BYTES, Outbox, packed
from streams.stages import Progress, Sender
from tests.streams.one_shard import RecordingBuilder

BATCH_BYTES = 1_000


class Maker:
    """Makes batches as a producer does."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.create_batch = make


def small_builder() -> Any:
    return BatchBuilder(BATCH_BYTES, 0, is_transactional=1)


def read_back(batch: Any) -> list[tuple[bytes | None, bytes | None]]:
    records = MemoryRecords(bytes(batch._build()))
    found = []
    while records.has_next():
        found += [(record.key, record.value) for record in records.next_batch()]
    return found


def test_nothing_to_write_is_no_batch() -> None:
    outbox = Outbox()
    assert not outbox
    assert outbox.encode(Maker(small_builder)) == []


def test_records_keep_their_place_and_order() -> None:
    outbox = Outbox()
    for number in range(3):
        for partition in (1, 0):
            outbox.put("a", partition, b"k%d" % number, b"v")
    encoded = {(e.topic, e.partition): e for e in outbox.encode(Maker(small_builder))}
    assert encoded.keys() == {("a", 0), ("a", 1)}
    assert read_back(encoded["a", 0].batch) == [(b"k0", b"v"), (b"k1", b"v"), (b"k2", b"v")]
    assert encoded["a", 0].records == 3


@given(sizes=st.lists(st.integers(0, 3 * BATCH_BYTES), max_size=30))
def test_every_record_is_in_exactly_one_batch_whatever_its_size(sizes: list[int]) -> None:
    outbox = Outbox()
    for number, size in enumerate(sizes):
        outbox.put("a", 0, b"%d" % number, b"x" * size)
    encoded = outbox.encode(Maker(small_builder))
    found = [record for one in encoded for record in read_back(one.batch)]
    assert found == [(b"%d" % number, b"x" * size) for number, size in enumerate(sizes)]
    assert sum(one.records for one in encoded) == len(sizes)


def test_a_record_larger_than_a_batch_has_one_of_its_own() -> None:
    outbox = Outbox()
    for size in (10, 5 * BATCH_BYTES, 10):
        outbox.put("a", 0, None, b"x" * size)
    batches = outbox.encode(Maker(small_builder))
    assert [one.records for one in batches] == [1, 1, 1]


def test_a_tombstone_is_a_record_without_a_value() -> None:
    outbox = Outbox()
    outbox.put("a", 0, b"k", None)
    [encoded] = outbox.encode(Maker(small_builder))
    assert read_back(encoded.batch) == [(b"k", None)]


def test_the_recording_builder_of_the_tests_takes_what_the_real_one_takes() -> None:
    for size in (0, 500, 2_000_000):
        recording, real = RecordingBuilder(), BatchBuilder(1 << 20, 0, is_transactional=1)
        for _ in range(3):
            record: dict[str, Any] = {
                "timestamp": None,
                "key": b"k",
                "value": b"x" * size,
                "headers": [],
            }
            assert (recording.append(**record) is None) == (real.append(**record) is None)


# ----------------------------------------------------------------------------- rule 6: sizes


@given(
    sizes=st.lists(st.integers(0, 3_000), max_size=60),
    limit=st.integers(1, 4_000),
)
def test_a_group_is_no_larger_than_the_limit_but_for_one_large_item(
    sizes: list[int], limit: int
) -> None:
    items = [b"x" * size for size in sizes]
    groups = list(packed(items, limit))
    for group in groups:
        assert len(group) == 1 or sum(map(len, map(bytes, group))) <= limit
    decoded = [msgpack.decode(item) for group in groups for item in group]
    assert decoded == items


@pytest.mark.parametrize("item_bytes", [100, 5_000, 300_000])
def test_a_record_of_deltas_or_entities_is_at_most_a_quarter_of_a_megabyte_and_one_item(
    item_bytes: int,
) -> None:
    items = [b"%8d" % number + b"x" * item_bytes for number in range(2_000_000 // item_bytes)]
    outbox = Outbox()
    Sender(0, "intake", "t", 1).send(outbox, {0: items}, Progress((1,), 2, 3))
    envelopes: list[Envelope] = []
    for encoded in outbox.encode(Maker(RecordingBuilder)):
        for _key, value in encoded.batch.records:
            assert len(value) <= RECORD_BYTES + item_bytes
            envelopes.append(decode_envelope(value))
    assert ITEMS_BYTES <= RECORD_BYTES
    assert [msgpack.decode(raw) for e in envelopes for raw in e.items] == items
    # A mark is true only when all before it has been read: it stands in the last.
    assert [e.marks for e in envelopes] == [()] * (len(envelopes) - 1) + [(1,)]
