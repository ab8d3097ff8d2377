"""Until when rows wait for something, remembered beside them."""

import heapq
from collections.abc import Iterator
from typing import Final

from streams.tables import Table

DEADLINE: Final = b"d"
_BYTES: Final = 8


class Deadlines:
    """The instants at which rows are to be looked at again, the earliest first; a row may have several."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._heap: list[tuple[int, bytes]] = []

    def restore(self, stored_key: bytes) -> None:
        """Take up a stored deadline."""
        heapq.heappush(self._heap, deadline_of(stored_key))

    def add(self, deadline_ms: int, key: bytes) -> None:
        """Remember to look at a row after an instant."""
        heapq.heappush(self._heap, (deadline_ms, key))
        self._table.put(_stored_key(deadline_ms, key), b"")

    def waiting(self) -> set[bytes]:
        """Return the rows with a deadline."""
        return {key for _, key in self._heap}

    def is_due(self, instant_ms: int) -> bool:
        """Tell whether a deadline is before an instant."""
        return bool(self._heap) and self._heap[0][0] < instant_ms

    def pass_before(self, instant_ms: int) -> Iterator[bytes]:
        """Take out the rows whose deadline is before an instant."""
        while self.is_due(instant_ms):
            deadline_ms, key = heapq.heappop(self._heap)
            self._table.delete(_stored_key(deadline_ms, key))
            yield key


def deadline_of(stored_key: bytes) -> tuple[int, bytes]:
    """Return the instant and the row's key that a stored key is made of."""
    return int.from_bytes(stored_key[1 : 1 + _BYTES]), stored_key[1 + _BYTES :]


def _stored_key(deadline_ms: int, key: bytes) -> bytes:
    return DEADLINE + deadline_ms.to_bytes(_BYTES) + key
