"""The sums of one basis and scope: the stored cells, and the windows that are made of them."""

from collections.abc import Collection, Iterator, Mapping

from kpis.facts import Facts
from kpis.retention import Grain
from kpis.spans import Cell, Spans, Window


class Cells:
    """Facts and visitors of one basis and scope."""

    def __init__(self, spans: Spans) -> None: ...

    def __bool__(self) -> bool:
        """Tell whether there is any cell."""
        raise NotImplementedError

    def has(self, window: Window) -> bool:
        """Tell whether a window has a fact or a visitor."""
        raise NotImplementedError

    def facts(self, window: Window) -> Facts:
        """Return the facts of a window with the fact `visitors`; a copy, empty if there are none."""
        raise NotImplementedError

    def facts_between(self, start_minute: int, end_minute: int) -> Facts:
        """Return the facts of the days that begin in [start, end), without visitors."""
        raise NotImplementedError

    def day_facts(self, start_minute: int, end_minute: int) -> Iterator[tuple[int, Facts]]:
        """Yield (start, facts) of the days with facts that begin in [start, end)."""
        raise NotImplementedError

    def add(
        self,
        grain: Grain,
        bucket: int,
        facts: Mapping[str, int],
        newest: int,
        visitors: bytes | None = None,
    ) -> list[Cell]:
        """Add facts and visitors to a bucket and the coarser ones; return the cells that changed."""
        raise NotImplementedError

    def forget(self, keep: Collection[Window]) -> None:
        """Forget the sums of derived windows but those of `keep`; put what is quiet to rest."""

    def pack(self, cell: Cell) -> bytes | None:
        """Put the facts of a cell to rest and return their encoding, None if there are none."""
        raise NotImplementedError

    def unpack(self, cell: Cell, packed: bytes) -> None:
        """Set the facts of a cell to what `pack` returned."""

    def take_visitors(self) -> Iterator[tuple[Cell, bytes]]:
        """Yield each cell whose visitors changed since the last call, with their encoding."""
        raise NotImplementedError

    def unpack_visitors(self, cell: Cell, packed: bytes) -> None:
        """Set the visitors of a cell to what `take_visitors` yielded."""

    def drop(self, cell: Cell) -> bool:
        """Forget a cell, as it left retention; tell whether it had visitors (a row of their own)."""
        raise NotImplementedError
