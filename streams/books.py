"""The sums of one shard: the cells of its subjects, the windows they are in, and their rows."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from kpis.cells import Cells
from kpis.facts import Facts, Scope, Subject, widen
from kpis.retention import Grain
from kpis.spans import TUMBLING, Cell, Spans, Window
from streams.messages import Delta
from streams.stages import ROWS_PER_TURN
from streams.tables import Table
from streams.tally import Tally

MOST_REMEMBERED: Final = 100_000
"""Campaigns beyond the limit that are remembered, only to count each of them once."""

_STORED: Final = {"1m": Grain.MINUTE, "1h": Grain.HOUR, "1d": Grain.DAY}
"""Tumbling windows that are one stored cell."""

_FACTS: Final = 0
_VISITORS: Final = 1

_encode = msgspec.msgpack.Encoder().encode
_RowKey = tuple[str, str | None, str | None, int, int, int]
_decode_key = msgspec.msgpack.Decoder(_RowKey).decode


class Books:
    """The cells of every subject, and in which tumbling windows each has facts.

    Args:
        rows: The table that the cells are written to.
        spans: Which windows there are.
        tally: Where campaigns beyond the limit are counted.
        most_campaigns: How many campaign scopes are kept.
    """

    def __init__(self, rows: Table, spans: Spans, tally: Tally, most_campaigns: int) -> None:
        self._rows = rows
        self._spans = spans
        self._tally = tally
        self._most_campaigns = most_campaigns
        self._campaigns: set[Scope] = set()
        self._overflow: set[Scope] = set()
        self._cells: dict[Subject, Cells] = {}
        self._channels: dict[str, set[str]] = {}
        self._expiry: dict[str, list[int]] = {kind: [] for kind in TUMBLING}
        self._subjects_in: dict[Window, set[Subject]] = {}
        self._changed: dict[Subject, set[Cell]] = {}
        self._visited: set[Subject] = set()
        self._windows: dict[tuple[Grain, int], tuple[Window, ...]] = {}
        self._newest_minute = 0

    def restore(self) -> Iterator[None]:
        """Take up what the table says, some rows at a time; the newest minute is to be set before."""
        for number, (key, packed) in enumerate(self._rows.take_rows().items(), 1):
            basis, channel, campaign_id, grain, bucket, part = _decode_key(key)
            subject = Subject(basis, Scope(channel, campaign_id))
            cells, cell = self._open(subject), Cell(Grain(grain), bucket)
            if part == _FACTS:
                cells.unpack(cell, packed)
            else:
                cells.unpack_visitors(cell, packed)
            for window in self._spans.touched(*cell):
                # Of a week or month that is no longer kept there may be days.
                if self._spans.is_kept(window, self.newest_minute):
                    self._index(subject, window)
            if number % ROWS_PER_TURN == 0:
                yield

    @property
    def newest_minute(self) -> int:
        """The newest event time that was seen; retention counts back from it."""
        return self._newest_minute

    @newest_minute.setter
    def newest_minute(self, minute: int) -> None:
        if minute != self._newest_minute:
            self._newest_minute = minute
            self._windows.clear()

    # ------------------------------------------------------------------------- reading

    def subjects(self) -> list[Subject]:
        """Return all subjects that have cells."""
        return list(self._cells)

    def channels(self, basis: str) -> list[str]:
        """Return the channels that have cells."""
        return list(self._channels.get(basis, ()))

    def subjects_in(self, window: Window) -> frozenset[Subject] | set[Subject]:
        """Return who has facts in a tumbling window that is kept."""
        return self._subjects_in.get(window, frozenset())

    def windows(self) -> list[Window]:
        """Return the tumbling windows that are kept and in which anybody has facts."""
        return list(self._subjects_in)

    def facts(self, subject: Subject, window: Window) -> Facts:
        """Return the facts of a window, empty if there are none; not to be changed."""
        cells = self._cells.get(subject)
        return {} if cells is None else cells.facts(window)

    def has(self, subject: Subject, window: Window) -> bool:
        """Tell whether a subject has any fact in a window."""
        cells = self._cells.get(subject)
        return cells is not None and cells.has(window)

    def day_facts(self, subject: Subject, start: int) -> Facts:
        """Return the facts of the day that begins at minute `start`."""
        cells = self._cells.get(subject)
        return {} if cells is None else cells.get(Grain.DAY, start)

    def days(self, subject: Subject) -> list[int]:
        """Return the days that have facts and are kept, by their first minutes."""
        cells = self._cells.get(subject)
        return [] if cells is None else cells.days()

    # ------------------------------------------------------------------------- adding

    def windows_of(self, grain: Grain, bucket: int) -> tuple[Window, ...]:
        """Return the tumbling windows and lifetime that facts of a bucket count in, if still kept."""
        windows = self._windows.get((grain, bucket))
        if windows is None:
            windows = self._windows[grain, bucket] = tuple(
                window
                for stored in self._spans.stored(grain, bucket)
                for window in self._spans.touched(*stored.cell)
                if self._spans.is_kept(window, self._newest_minute)
            )
        return windows

    def is_open(self, subject: Subject) -> bool:
        """Tell whether there is room for a subject, and make it if there is."""
        if subject in self._cells:
            return True
        scope = subject.scope
        is_new = scope.campaign_id is not None and scope not in self._campaigns
        if is_new and len(self._campaigns) >= self._most_campaigns:
            if scope not in self._overflow and len(self._overflow) < MOST_REMEMBERED:
                self._overflow.add(scope)
                self._tally.overflowed()
            return False
        self._open(subject)
        return True

    def add(self, subject: Subject, delta: Delta, windows: Iterable[Window]) -> bool:
        """Add a delta to the cells of an open subject; `windows` are those it counts in.

        Tell whether anything is new: visitors may be known already.
        """
        cells = self._cells[subject]
        changed = self._changed.setdefault(subject, set())
        grain, facts = Grain(delta.grain), widen(delta.facts)
        new = cells.add(grain, delta.bucket, facts, self._newest_minute, delta.visitors)
        changed.update(new)
        if delta.visitors is not None:
            self._visited.add(subject)
        for window in windows:
            self._index(subject, window)
        return bool(new)

    def know(self, subject: Subject, window: Window) -> None:
        """Keep account of a window that a subject had facts in, even if it has none any more."""
        self._open(subject)
        self._index(subject, window)

    def _open(self, subject: Subject) -> Cells:
        cells = self._cells.get(subject)
        if cells is None:
            cells = self._cells[subject] = Cells(self._spans)
            channel, campaign_id = subject.scope
            if campaign_id is not None:
                self._campaigns.add(subject.scope)
            elif channel is not None:
                self._channels.setdefault(subject.basis, set()).add(channel)
        return cells

    def _index(self, subject: Subject, window: Window) -> None:
        if window.start_minute is None:
            return
        subjects = self._subjects_in.get(window)
        if subjects is None:
            subjects = self._subjects_in[window] = set()
            heapq.heappush(self._expiry[window.kind], window.start_minute)
        subjects.add(subject)

    # ------------------------------------------------------------------------- ageing

    def expired(self) -> Iterator[tuple[Window, set[Subject]]]:
        """Forget the windows that have left retention, one by one, and yield who had facts in them."""
        for kind, starts in self._expiry.items():
            while starts:
                window = self._spans.tumbling(kind, starts[0])
                if self._spans.is_kept(window, self.newest_minute):
                    break
                heapq.heappop(starts)
                subjects = self._subjects_in.pop(window)
                if kind in _STORED:
                    self._drop(Cell(_STORED[kind], window.start_minute or 0), subjects)
                yield window, subjects

    def _drop(self, cell: Cell, subjects: set[Subject]) -> None:
        for subject in subjects:
            self._cells[subject].drop(cell)
            self._changed.setdefault(subject, set()).add(cell)
            if cell.grain is Grain.DAY:
                self._visited.add(subject)

    def forget(self, subject: Subject, keep: set[Window]) -> None:
        """Let go of the sums of windows but these; to be called now and then."""
        self._cells[subject].forget(keep)

    # ------------------------------------------------------------------------- writing

    def changed_cells(self) -> int:
        """Return how many cells are to be written."""
        return sum(map(len, self._changed.values()))

    def flush(self) -> None:
        """Write the rows of all cells that changed."""
        for subject, changed in self._changed.items():
            cells = self._cells[subject]
            for cell in changed:
                self._put(subject, cell, _FACTS, cells.pack(cell))
        for subject in self._visited:
            cells = self._cells[subject]
            for cell in cells.take_changed_visitors():
                self._put(subject, cell, _VISITORS, cells.pack_visitors(cell))
        self._changed = {}
        self._visited = set()

    def _put(self, subject: Subject, cell: Cell, part: int, packed: bytes | None) -> None:
        key = _encode((subject.basis, *subject.scope, cell.grain, cell.bucket, part))
        if packed is None:
            self._rows.delete(key)
        else:
            self._rows.put(key, packed)
