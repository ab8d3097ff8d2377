"""The tables of one shard: rows by key as encoded bytes, and which of them changed since the last commit."""

from collections.abc import Iterator
from typing import Final

from streams.outbox import RECORD_BYTES, Outbox
from streams.topics import TABLES, Topics

_WHOLE: Final = b"\x00"
_PART: Final = b"\x01"
_NUMBER_BYTES: Final = 4


class Table:
    """Rows of one partition of one table.

    A table that keeps no rows only writes them: their owner holds them in a form of its own.

    A row larger than a record may be is written as several: its changelog keys are a mark, for parts a
    number, and the row's key. Under the whole row's key stands the number of parts or, most of the time,
    the row itself.
    """

    def __init__(
        self, name: str, changelog: str, partition: int, *, keeps_rows: bool = True
    ) -> None:
        self.name = name
        self.changelog = changelog
        self._partition = partition
        self._keeps_rows = keeps_rows
        self._rows: dict[bytes, bytes] = {}
        self._dirty: dict[bytes, bytes | None] = {}
        self._parts: dict[bytes, int] = {}
        self._loose: dict[bytes, bytes] = {}
        self.dirty_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: bytes) -> bytes | None:
        """Return a row that is kept."""
        return self._rows.get(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Return all rows that are kept."""
        return iter(self._rows.items())

    def put(self, key: bytes, row: bytes) -> None:
        """Set a row; it is written at the next commit."""
        if self._keeps_rows:
            self._rows[key] = row
        self._dirty[key] = row
        self.dirty_bytes += len(key) + len(row)

    def delete(self, key: bytes) -> None:
        """Delete a row, with a tombstone at the next commit."""
        self._rows.pop(key, None)
        self._dirty[key] = None
        self.dirty_bytes += len(key)

    def flush(self, outbox: Outbox) -> None:
        """Move what changed into `outbox`."""
        for key, row in self._dirty.items():
            self._write(key, row, outbox)
        self._dirty = {}
        self.dirty_bytes = 0

    def _write(self, key: bytes, row: bytes | None, outbox: Outbox) -> None:
        had = self._parts.pop(key, 0)
        parts = _cut(row) if row is not None and len(row) > RECORD_BYTES else []
        for number in range(max(had, len(parts))):
            part = parts[number] if number < len(parts) else None
            outbox.put(self.changelog, self._partition, _part_key(key, number), part)
        if parts:
            self._parts[key] = len(parts)
            row = _PART + len(parts).to_bytes(_NUMBER_BYTES)
        elif row is not None:
            row = _WHOLE + row
        outbox.put(self.changelog, self._partition, _WHOLE + key, row)

    # ------------------------------------------------------------------------- reading back

    def load(self, key: bytes, value: bytes | None) -> None:
        """Take a record of the changelog; call `loaded` after the last one."""
        if key[:1] == _PART:
            _set(self._loose, key, value)
        elif value is None:
            self._rows.pop(key[1:], None)
            self._parts.pop(key[1:], None)
        elif value[:1] == _WHOLE:
            self._rows[key[1:]] = value[1:]
            self._parts.pop(key[1:], None)
        else:
            self._parts[key[1:]] = int.from_bytes(value[1:])

    def loaded(self) -> None:
        """Join the rows that were written in parts; call it once, after the last record."""
        for key, count in self._parts.items():
            self._rows[key] = b"".join(self._loose[_part_key(key, i)] for i in range(count))
        self._loose = {}

    def take_rows(self) -> dict[bytes, bytes]:
        """Return all rows to an owner who holds them from now on."""
        rows, self._rows = self._rows, {}
        return rows


_KEEP_ROWS: Final = ("journeys", "positions")


def tables_of(topics: Topics, partition: int) -> dict[str, Table]:
    """Return the empty tables of one shard, by name."""
    return {
        name: Table(name, topics.changelog(name), partition, keeps_rows=name in _KEEP_ROWS)
        for name in TABLES
    }


def _cut(row: bytes) -> list[bytes]:
    return [row[i : i + RECORD_BYTES] for i in range(0, len(row), RECORD_BYTES)]


def _part_key(key: bytes, number: int) -> bytes:
    return _PART + number.to_bytes(_NUMBER_BYTES) + key


def _set(rows: dict[bytes, bytes], key: bytes, value: bytes | None) -> None:
    if value is None:
        rows.pop(key, None)
    else:
        rows[key] = value
