"""The sums of one basis and scope: the stored cells, and the windows that are made of them."""

from collections.abc import Collection, Mapping
from typing import Final

from kpis.facts import Facts, add
from kpis.packing import pack, unpack
from kpis.retention import LIFETIME_BUCKET, Grain
from kpis.spans import DAYS, GRAIN_OF, HOURS, STORED, Cell, Spans, Window
from kpis.visitors import AVAILABLE, Sketch

__all__ = ["VISITORS", "Cell", "Cells"]

VISITORS: Final = "visitors"
"""The fact that is no sum: about how many different visitors there were."""

_GRAINS: Final = len(Grain)


class Cells:
    """Facts and visitors of one basis and scope.

    Stored cells are bytes at rest, to be small. Windows that are sums of several cells are summed
    when they are first asked for, and kept up to date from then on until they are forgotten.
    Visitors are apart from the facts, from the day on: they are large and change seldom.
    """

    __slots__ = ("_facts", "_sketches", "_spans", "_sums")

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._facts: dict[int, Facts | bytes] = {}
        self._sums: dict[Grain, dict[Window, _Sum]] = {}
        self._sketches: _Sketches | None = None

    def __bool__(self) -> bool:
        """Tell whether there is any cell."""
        return bool(self._facts or self._sketches)

    # ------------------------------------------------------------------------- reading

    def has(self, window: Window) -> bool:
        """Tell whether a window has a fact or a visitor."""
        if window.kind in STORED:
            code = _code(GRAIN_OF[window.kind], window.start_minute)
            return bool(self._facts.get(code) or (self._sketches and self._sketches.estimate(code)))
        total = self._sum(window)
        return bool(total.facts or (total.sketch and total.sketch.estimate()))

    def facts(self, window: Window) -> Facts:
        """Return the facts of a window with the fact `visitors`; a copy, empty if there are none."""
        if window.kind in STORED:
            code = _code(GRAIN_OF[window.kind], window.start_minute)
            facts = self._copy(code)
            visitors = self._sketches.estimate(code) if self._sketches else 0
        else:
            total = self._sum(window)
            facts = total.facts.copy()
            visitors = total.sketch.estimate() if total.sketch else 0
        if visitors:
            facts[VISITORS] = visitors
        return facts

    def facts_between(self, start_minute: int, end_minute: int) -> Facts:
        """Return the facts of the days that begin in [start, end), without visitors; a copy.

        Both are first minutes of days; days still to come are no harm.
        """
        return self._sum(Window(DAYS, start_minute, max(start_minute, end_minute))).facts.copy()

    def days(self) -> list[int]:
        """Return the first minutes of the days that have facts, in no order."""
        return [
            code // _GRAINS
            for code, found in self._facts.items()
            if code % _GRAINS == Grain.DAY and found
        ]

    def get(self, grain: Grain, bucket: int) -> Facts:
        """Return the facts of a cell without visitors; a copy, empty if there are none."""
        return self._copy(_code(grain, bucket))

    # ------------------------------------------------------------------------- changing

    def add(
        self,
        grain: Grain,
        bucket: int,
        facts: Mapping[str, int],
        newest: int,
        visitors: bytes | None = None,
    ) -> list[Cell]:
        """Add facts and visitors to a bucket and to the coarser ones that contain it.

        What has left retention at minute `newest` is passed over. The cells that changed are
        returned; visitors who were known already change nothing.
        """
        changed: list[Cell] = []
        for cell, dropped_at in self._spans.stored(grain, bucket):
            if newest >= dropped_at:
                continue
            has_visitors = (
                visitors is not None
                and cell.grain >= Grain.DAY
                and self._add_visitors(cell, visitors)
            )
            if facts:
                self._add_facts(cell, facts)
            if facts or has_visitors:
                changed.append(cell)
        return changed

    def drop(self, cell: Cell) -> None:
        """Forget a cell that has left retention."""
        self._facts.pop(_code(*cell), None)
        if self._sketches:
            self._sketches.drop(_code(*cell))
        self._unsum(cell)

    def forget(self, keep: Collection[Window]) -> None:
        """Forget the sums of derived windows but those of `keep`; put visitors to rest.

        To be called now and then, say each minute: it lets go of sums that nobody asks for any more.
        """
        for grain, sums in list(self._sums.items()):
            kept = {window: total for window, total in sums.items() if window in keep}
            if kept:
                self._sums[grain] = kept
            else:
                del self._sums[grain]
        if self._sketches:
            self._sketches.rest()

    # ------------------------------------------------------------------------- rows

    def pack(self, cell: Cell) -> bytes | None:
        """Put the facts of a cell to rest and return their encoding, None if there are none."""
        code = _code(*cell)
        found = self._facts.get(code)
        if not found:
            self._facts.pop(code, None)
            return None
        packed = found if isinstance(found, bytes) else pack(found)
        self._facts[code] = packed
        return packed

    def unpack(self, cell: Cell, packed: bytes) -> None:
        """Set the facts of a cell to what `pack` returned."""
        self._facts[_code(*cell)] = packed
        self._unsum(cell)

    def take_changed_visitors(self) -> list[Cell]:
        """Return the cells whose visitors changed or were dropped since the last call."""
        if not self._sketches:
            return []
        codes = self._sketches.take_changed()
        return [Cell(Grain(code % _GRAINS), code // _GRAINS) for code in codes]

    def pack_visitors(self, cell: Cell) -> bytes | None:
        """Return the visitors of a cell, encoded; None if there are none."""
        return self._sketches.pack(_code(*cell)) if self._sketches else None

    def unpack_visitors(self, cell: Cell, packed: bytes) -> None:
        """Set the visitors of a cell to what `pack_visitors` returned."""
        self._opened_sketches().unpack(_code(*cell), packed)
        self._unsum(cell)

    # ------------------------------------------------------------------------- sums

    def _copy(self, code: int) -> Facts:
        found = self._facts.get(code)
        if not found:
            return {}
        return unpack(found) if isinstance(found, bytes) else found.copy()

    def _sum(self, window: Window) -> "_Sum":
        if window.kind == HOURS:
            # Asked for once an hour: kept up to date, each would be in the way of every fact to come.
            return self._summed(window)
        grain = GRAIN_OF[window.kind]
        total = self._sums.get(grain, {}).get(window)
        if total is None:
            total = self._summed(window)
            # Most scopes are quiet: remembering that there is nothing would cost more than looking.
            if total.facts or total.sketch:
                self._sums.setdefault(grain, {})[window] = total
        return total

    def _summed(self, window: Window) -> "_Sum":
        total = _Sum(window.start_minute or 0, window.end_minute or 0)
        facts = self._facts
        grain, starts = self._spans.cells(window)
        for start in starts:
            code = start * _GRAINS + grain
            found = facts.get(code)
            if found:
                add(total.facts, unpack(found) if isinstance(found, bytes) else found)
            if self._sketches and (sketch := self._sketches.get(code)):
                total.visit(sketch)
        return total

    def _add_facts(self, cell: Cell, facts: Mapping[str, int]) -> None:
        grain, bucket = cell
        code = bucket * _GRAINS + grain
        found = self._facts.get(code)
        if found is None:
            found = self._facts[code] = {}
        elif isinstance(found, bytes):
            found = self._facts[code] = unpack(found)
        add(found, facts)
        sums = self._sums.get(grain)
        if sums:
            for total in sums.values():
                if total.start <= bucket < total.end:
                    add(total.facts, facts)

    def _add_visitors(self, cell: Cell, visitors: bytes) -> bool:
        if not (AVAILABLE and self._opened_sketches().add(_code(*cell), visitors)):
            return False
        for total in self._sums.get(cell.grain, {}).values():
            if total.start <= cell.bucket < total.end:
                total.visit(visitors)
        return True

    def _opened_sketches(self) -> "_Sketches":
        if self._sketches is None:
            self._sketches = _Sketches()
        return self._sketches

    def _unsum(self, cell: Cell) -> None:
        sums = self._sums.get(cell.grain)
        if sums:
            for window, total in list(sums.items()):
                if total.start <= cell.bucket < total.end:
                    del sums[window]


class _Sum:
    """Facts and visitors of the buckets of one grain that begin in [start, end)."""

    __slots__ = ("end", "facts", "sketch", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.facts: Facts = {}
        self.sketch: Sketch | None = None

    def visit(self, visitors: Sketch | bytes) -> None:
        """Add visitors."""
        if self.sketch is None:
            self.sketch = Sketch()
        self.sketch.merge(visitors)


class _Sketches:
    """The visitors of cells, by code: bytes at rest, sketches while they are added to or asked for."""

    __slots__ = ("_awake", "_changed", "_found")

    def __init__(self) -> None:
        self._found: dict[int, Sketch | bytes] = {}
        self._awake: set[int] = set()
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._found) + len(self._changed)

    def get(self, code: int) -> Sketch | None:
        """Return the visitors of a cell, awake; None if there are none or they cannot be told."""
        found = self._found.get(code)
        if found is None or not AVAILABLE:
            return None
        self._awake.add(code)
        if isinstance(found, bytes):
            found = self._found[code] = Sketch(found)
        return found

    def estimate(self, code: int) -> int:
        """Return about how many visitors a cell has."""
        sketch = self.get(code)
        return sketch.estimate() if sketch else 0

    def add(self, code: int, visitors: bytes) -> bool:
        """Add visitors to a cell; tell whether there was a new one."""
        sketch = self.get(code)
        if sketch is None:
            sketch = self._found[code] = Sketch()
            self._awake.add(code)
        has_new = sketch.merge(visitors)
        if has_new:
            self._changed.add(code)
        return has_new

    def drop(self, code: int) -> None:
        """Forget the visitors of a cell."""
        if self._found.pop(code, None) is not None:
            self._changed.add(code)

    def rest(self) -> None:
        """Put to rest what was not asked for since the last call."""
        for code, found in self._found.items():
            if code not in self._awake and isinstance(found, Sketch):
                self._found[code] = found.to_bytes()
        self._awake.clear()

    def take_changed(self) -> set[int]:
        """Return what changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def pack(self, code: int) -> bytes | None:
        """Return the visitors of a cell, encoded."""
        found = self._found.get(code)
        return found.to_bytes() if isinstance(found, Sketch) else found

    def unpack(self, code: int, packed: bytes) -> None:
        """Set the visitors of a cell."""
        self._found[code] = packed


def _code(grain: Grain, bucket: int | None) -> int:
    return (LIFETIME_BUCKET if bucket is None else bucket) * _GRAINS + grain
