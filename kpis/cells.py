"""The sums of one scope in all stored grains."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from msgspec import msgpack

from kpis.facts import Facts, add, narrow, widen
from kpis.retention import Buckets, Grain

_GRAINS: Final = len(Grain)

_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(dict[str, int | str]).decode


class Cell(NamedTuple):
    """A bucket of one grain."""

    grain: Grain
    bucket: int


class Cells:
    """Facts by grain and bucket of one scope; at rest they are encoded, to be small."""

    __slots__ = ("_facts",)

    def __init__(self) -> None:
        self._facts: dict[int, Facts | bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._facts)

    def get(self, grain: Grain, bucket: int) -> Facts:
        """Return the facts of a cell, empty if there are none; not to be changed."""
        found = self._facts.get(bucket * _GRAINS + grain)
        if found is None:
            return {}
        return widen(_decode(found)) if isinstance(found, bytes) else found

    def has(self, grain: Grain, bucket: int) -> bool:
        """Tell whether a cell has a fact."""
        return bool(self._facts.get(bucket * _GRAINS + grain))

    def add(
        self, grain: Grain, bucket: int, facts: Mapping[str, int], buckets: Buckets, newest: int
    ) -> Iterator[Cell]:
        """Add facts to a bucket and to the coarser ones that contain it; yield the cells that changed.

        What has left retention at minute `newest` is passed over.
        """
        for wider in list(Grain)[grain:]:
            start = buckets.start(wider, bucket)
            if wider is Grain.LIFETIME or buckets.is_kept(wider, start, newest):
                self._add(start * _GRAINS + wider, facts)
                yield Cell(wider, start)

    def sum(self, grain: Grain, starts: Iterable[int]) -> Facts:
        """Return the sum over buckets of one grain."""
        total: Facts = {}
        facts = self._facts
        for start in starts:
            if start * _GRAINS + grain in facts:
                add(total, self.get(grain, start))
        return total

    def pack(self, cell: Cell) -> bytes | None:
        """Put a cell to rest and return its encoding, None if it has no facts."""
        code = cell.bucket * _GRAINS + cell.grain
        found = self._facts.get(code)
        if not found:
            self._facts.pop(code, None)
            return None
        packed = found if isinstance(found, bytes) else _encode(narrow(found))
        self._facts[code] = packed
        return packed

    def unpack(self, cell: Cell, packed: bytes) -> None:
        """Set a cell to what `pack` returned."""
        self._facts[cell.bucket * _GRAINS + cell.grain] = packed

    def drop(self, cell: Cell) -> None:
        """Forget a cell."""
        self._facts.pop(cell.bucket * _GRAINS + cell.grain, None)

    def _add(self, code: int, facts: Mapping[str, int]) -> None:
        found = self._facts.get(code, {})
        total = widen(_decode(found)) if isinstance(found, bytes) else found
        add(total, facts)
        self._facts[code] = total
