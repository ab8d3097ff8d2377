"""What a shard has to write at its next commit, and its encoding into the batches of one transaction."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from msgspec import Raw, msgpack

RECORD_BYTES: Final = 256 << 10
"""How large we make a record: a batch takes its first record however large, a broker does not."""

ITEMS_BYTES: Final = 64 << 10
"""How many bytes of items share a record, so that taking one does not hold the loop for long."""

_ENCODER: Final = msgpack.Encoder()

Headers = Sequence[tuple[str, bytes]]


class BatchBuilder(Protocol):
    """The part of aiokafka's batch builder that is used."""

    def append(
        self, *, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Headers
    ) -> object | None:
        """Add a record; None if it does not fit."""
        ...

    def close(self) -> None:
        """Take no more records."""
        ...


class BatchMaker(Protocol):
    """The part of aiokafka's producer that is used."""

    def create_batch(self) -> BatchBuilder:
        """Return an empty batch."""
        ...


class _Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Headers


class Encoded(NamedTuple):
    """A full batch for one partition."""

    topic: str
    partition: int
    batch: Any
    records: int


class Outbox:
    """Records by topic and partition, in the order in which they were put in."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], list[_Record]] = {}
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._records)

    def put(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
    ) -> None:
        """Add one record; a value of None is a tombstone."""
        self._records.setdefault((topic, partition), []).append(_Record(key, value, headers))
        self.size_bytes += len(key or b"") + len(value or b"")

    def encode(self, maker: BatchMaker) -> list[Encoded]:
        """Return all records in batches; needs no broker, so it is done before the transaction begins."""
        return [
            Encoded(topic, partition, *filled)
            for (topic, partition), records in self._records.items()
            for filled in _fill(maker, records)
        ]


def _fill(maker: BatchMaker, records: Iterable[_Record]) -> Iterator[tuple[Any, int]]:
    batch, size = maker.create_batch(), 0
    for record in records:
        if not _append(batch, record):
            batch.close()
            yield batch, size
            batch, size = maker.create_batch(), 0
            _append(batch, record)
        size += 1
    batch.close()
    yield batch, size


def _append(batch: BatchBuilder, record: _Record) -> bool:
    headers = list(record.headers)
    fits = batch.append(timestamp=None, key=record.key, value=record.value, headers=headers)
    return fits is not None


def packed(items: Iterable[object], limit: int = ITEMS_BYTES) -> Iterator[list[Raw]]:
    """Yield the encoded items in groups of at most `limit` bytes, or of one item that is larger."""
    group: list[Raw] = []
    size = 0
    for item in items:
        encoded = _ENCODER.encode(item)
        if group and size + len(encoded) > limit:
            yield group
            group, size = [], 0
        group.append(Raw(encoded))
        size += len(encoded)
    if group:
        yield group
