"""Stage 3: adds deltas to the cells of the scopes of this shard, and computes what is published.

Deltas are applied only when they are published: state, positions and KPI records are then of one
transaction, and there is never a changed cell whose record is still to be written.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from kpis.catalog import Catalog
from kpis.cells import Cell, Cells
from kpis.facts import OVERALL, Facts, Scope, widen
from kpis.retention import LIFETIME_BUCKET, Grain
from kpis.windows import Window, WindowValues, key_of, record
from streams.messages import PERIOD, Delta, decode_delta, decode_envelope
from streams.outbox import Outbox
from streams.publishers import ScopeView
from streams.settings import Settings
from streams.stages import Context, Marks
from streams.transport import Chunk

CELLS_PER_FLUSH: Final = 1_500
SCOPES_PER_FLUSH: Final = 150
MOST_REMEMBERED: Final = 100_000
"""Campaigns beyond the limit that are remembered, only to count each of them once."""
_STAGES_THAT_SEND: Final = 2
_HOUR: Final = 60
_DAY: Final = 24 * _HOUR

_KINDS: Final = {
    Grain.MINUTE: "1m",
    Grain.HOUR: "1h",
    Grain.DAY: "1d",
    Grain.LIFETIME: "lifetime",
}
_ROLLING: Final = {"last_1h": (Grain.MINUTE, _HOUR), "last_24h": (Grain.HOUR, _DAY)}

_encode = msgspec.msgpack.Encoder().encode
_RowKey = tuple[str, str | None, str | None, int, int]
_decode_row_key = msgspec.msgpack.Decoder(_RowKey).decode
_decode_rolling_key = msgspec.msgpack.Decoder(tuple[str, str | None, str | None, str]).decode


class Merge:
    """The scopes of one shard."""

    name = "merge"

    def __init__(self, context: Context, settings: Settings, catalog: Catalog) -> None:
        self._shard = context.partition
        self._deployment = context.deployment
        self._tally = context.tally
        self._buckets = context.deployment.buckets
        self._clock = context.deployment.clock
        self._topic = context.deployment.topics.kpis
        self._deltas = context.deployment.topics.deltas
        self._rows = context.tables["cells"]
        self._rolling_rows = context.tables["windows"]
        self._memo = context.tables["positions"]
        self._catalog = catalog
        self._expects_cost = settings.channels.expects_cost
        self._zone = settings.time_zone
        self._currency = settings.currency
        self._publish_ms = settings.commit.publish_ms
        self._most_campaigns = settings.limits.scopes // context.deployment.partitions
        self.positions: dict[str, int] = {}
        self.version: Callable[[int], str] = str
        self._scopes: dict[Scope, Cells] = {}
        self._campaigns = 0
        self._paying: dict[str, Cells] = {}
        self._overflow: set[Scope] = set()
        self._expiry: dict[Grain, list[int]] = {grain: [] for grain in _KINDS}
        self._in_bucket: dict[Cell, set[Scope]] = {}
        self._ahead: dict[int, set[Scope]] = {}
        self._marks = Marks()
        self._newest_minute = 0
        self._pending: deque[tuple[bytes, int]] = deque()
        self.pending_bytes = 0
        self._dirty: dict[Scope, set[Cell]] = {}
        self._refresh: deque[Scope] = deque()
        self._views: dict[Scope, dict[str, WindowValues]] = {}
        self._rolling: set[tuple[Scope, str]] = set()
        self._ready: list[ScopeView] = []
        self._arrived: list[int] = []
        self._due_at = 0.0
        self._ticked_minute = 0

    def restore(self) -> None:
        """Take up what the tables say after they were read."""
        if (row := self._memo.get(self.name.encode())) is not None:
            marks, self._newest_minute = msgspec.msgpack.decode(
                row, type=tuple[dict[str, int], int]
            )
            self._marks = Marks(marks)
        for key, packed in self._rows.take_rows().items():
            _, channel, campaign_id, grain, bucket = _decode_row_key(key)
            scope, cell = Scope(channel, campaign_id), Cell(Grain(grain), bucket)
            self._open_scope(scope).unpack(cell, packed)
            self._index(scope, cell)
        for key in self._rolling_rows.take_rows():
            _, channel, campaign_id, kind = _decode_rolling_key(key)
            self._rolling.add((Scope(channel, campaign_id), kind))
        self._refresh.extend(self._scopes)

    # ------------------------------------------------------------------------- reading

    def apply(self, chunk: Chunk) -> None:
        """Keep a chunk of the deltas topic until it is published."""
        for item in chunk.records:
            if item.value is not None:
                self._pending.append((item.value, item.offset + 1))
                self.pending_bytes += len(item.value)
        if self._pending:
            # Behind the last record there may be markers.
            self._pending[-1] = (self._pending[-1][0], chunk.end)
        else:
            self.positions[self._deltas] = chunk.end

    def _apply(self, value: bytes, end: int) -> None:
        self.pending_bytes -= len(value)
        envelope = decode_envelope(value)
        self._newest_minute = max(self._newest_minute, envelope.newest_minute)
        for raw in envelope.items:
            self._add(decode_delta(raw))
        self._marks.take(f"{envelope.stage}/{envelope.sender}", envelope.mark_ms)
        if envelope.arrived_ms is not None:
            self._arrived.append(envelope.arrived_ms)
        self.positions[self._deltas] = end

    def _add(self, delta: Delta) -> None:
        scope = Scope(delta.channel, delta.campaign_id)
        cells = self._scopes.get(scope)
        if cells is None:
            if scope.campaign_id is not None and self._campaigns >= self._most_campaigns:
                if scope not in self._overflow and len(self._overflow) < MOST_REMEMBERED:
                    self._overflow.add(scope)
                    self._tally.overflowed()
                return
            cells = self._open_scope(scope)
        dirty = self._dirty.setdefault(scope, set())
        grain = Grain(delta.grain)
        facts = widen(delta.facts)
        for cell in cells.add(grain, delta.bucket, facts, self._buckets, self._newest_minute):
            if cell not in dirty:
                dirty.add(cell)
                self._index(scope, cell)
                if scope.channel is not None and scope.campaign_id is None:
                    self._show_overall(cell)

    def _show_overall(self, cell: Cell) -> None:
        """Publish the whole's cell too: a channel's first fact may make its cost a missing one."""
        overall = self._scopes.get(OVERALL)
        if overall is not None and overall.has(*cell):
            self._dirty.setdefault(OVERALL, set()).add(cell)

    def _open_scope(self, scope: Scope) -> Cells:
        cells = self._scopes.get(scope)
        if cells is None:
            cells = self._scopes[scope] = Cells()
            self._campaigns += scope.campaign_id is not None
            channel = scope.channel
            if channel is not None and scope.campaign_id is None and self._expects_cost(channel):
                self._paying[channel] = cells
        return cells

    def _index(self, scope: Scope, cell: Cell) -> None:
        if cell.grain is Grain.LIFETIME:
            return
        if cell.bucket > self._minute():
            self._ahead.setdefault(cell.bucket, set()).add(scope)
        scopes = self._in_bucket.get(cell)
        if scopes is None:
            scopes = self._in_bucket[cell] = set()
            heapq.heappush(self._expiry[cell.grain], cell.bucket)
        scopes.add(scope)

    def _expire(self) -> None:
        """Forget the cells that have left retention; their rows and records get tombstones."""
        dropped = 0
        for grain, starts in self._expiry.items():
            while starts and dropped < CELLS_PER_FLUSH:
                if self._buckets.is_kept(grain, starts[0], self._newest_minute):
                    break
                cell = Cell(grain, heapq.heappop(starts))
                for scope in self._in_bucket.pop(cell):
                    self._scopes[scope].drop(cell)
                    self._dirty.setdefault(scope, set()).add(cell)
                    dropped += 1

    # ------------------------------------------------------------------------- publishing

    def is_due(self) -> bool:
        """Tell whether it is time to publish, and there is something."""
        if self._clock.monotonic_seconds() < self._due_at:
            return False
        return bool(self._pending or self._refresh) or self._minute() != self._ticked_minute

    def flush(self, outbox: Outbox) -> None:
        """If it is due: apply what was read, and write rows and KPI records of what changed."""
        if not self.is_due():
            return
        self._due_at = self._clock.monotonic_seconds() + self._publish_ms / 1000
        has_applied = bool(self._pending)
        while self._pending and self._changed() < CELLS_PER_FLUSH:
            self._apply(*self._pending.popleft())
        self._expire()
        if has_applied:
            self._memo.put(self.name.encode(), _encode((self._marks, self._newest_minute)))
        if self._pending or self._refresh:
            self._due_at = 0.0
        self._tick()
        for scope in self._scopes_to_publish():
            self._publish(scope, self._dirty.pop(scope, set()), outbox)

    @property
    def complete_until_ms(self) -> int | None:
        """Everything that arrived before this instant is counted; None until all shards told."""
        return self._marks.least(_STAGES_THAT_SEND * self._deployment.partitions)

    @property
    def has_more(self) -> bool:
        """Tell whether the last `flush` left something behind, not to hold the loop for long."""
        return self._due_at == 0.0 and bool(self._pending or self._refresh)

    def take_views(self) -> list[ScopeView]:
        """Return the views that the records of the last `flush` show; to be published after its commit."""
        views, self._ready = self._ready, []
        return views

    def take_arrivals(self) -> list[int]:
        """Return when the first of each applied group of events arrived."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def _changed(self) -> int:
        return sum(map(len, self._dirty.values()))

    def _minute(self) -> int:
        return self._clock.now_ms() // 60_000

    def _tick(self) -> None:
        """Once a minute, queue all scopes with a window that moves, as windows move without events."""
        minute = self._minute()
        if minute != self._ticked_minute:
            self._ticked_minute = minute
            queued = set(self._refresh)
            moving = (scope for scope, view in self._views.items() if view.keys() - {"lifetime"})
            begun = dict.fromkeys([*moving, *self._begun(minute)])
            self._refresh.extend(scope for scope in begun if scope not in queued)

    def _begun(self, minute: int) -> Iterator[Scope]:
        """Yield the scopes with facts of a bucket that lay ahead and has begun now."""
        for bucket in [bucket for bucket in self._ahead if bucket <= minute]:
            yield from self._ahead.pop(bucket)

    def _scopes_to_publish(self) -> list[Scope]:
        scopes = dict.fromkeys(self._dirty)
        while self._refresh and len(scopes) < SCOPES_PER_FLUSH:
            scopes[self._refresh.popleft()] = None
        return list(scopes)

    def _publish(self, scope: Scope, changed: set[Cell], outbox: Outbox) -> None:
        cells = self._scopes[scope]
        view = self._view(scope, cells, changed)
        for cell in changed:
            window = self._window(cell)
            slot = next((v for v in view.values() if v.window == window), None)
            facts = cells.get(*cell)
            shown = slot or (self._values(scope, window, facts) if facts else None)
            self._put_record(scope, window, shown, outbox)
            self._put_row(scope, cell, cells.pack(cell))
        self._put_rolling(scope, view, outbox)
        self._views[scope] = view
        position = self.positions.get(self._deltas, 0)
        self._ready.append(ScopeView(self._shard, self.version(position), scope, view))

    def _put_record(
        self, scope: Scope, window: Window, values: WindowValues | None, outbox: Outbox
    ) -> None:
        if values is None:
            key = key_of(PERIOD, window, scope, self._zone)
            outbox.put(self._topic, self._shard, key, None)
        else:
            written = record(values, self._zone, self._currency)
            outbox.put(self._topic, self._shard, written.key, written.value, written.headers)

    def _put_row(self, scope: Scope, cell: Cell, packed: bytes | None) -> None:
        key = _encode((PERIOD, *scope, cell.grain, cell.bucket))
        if packed is None:
            self._rows.delete(key)
        else:
            self._rows.put(key, packed)

    def _put_rolling(self, scope: Scope, view: dict[str, WindowValues], outbox: Outbox) -> None:
        before = self._views.get(scope, {})
        for kind in _ROLLING:
            values, published = view.get(kind), before.get(kind)
            if values is published and values is not None:
                continue
            is_known = (scope, kind) in self._rolling
            if values is None and not is_known:
                continue
            window = Window(kind, None, None) if values is None else values.window
            self._put_record(scope, window, values, outbox)
            row_key = _encode((PERIOD, *scope, kind))
            if values is None:
                self._rolling.discard((scope, kind))
                self._rolling_rows.delete(row_key)
            elif not is_known:
                self._rolling.add((scope, kind))
                self._rolling_rows.put(row_key, b"")

    # ------------------------------------------------------------------------- views

    def _view(self, scope: Scope, cells: Cells, changed: set[Cell]) -> dict[str, WindowValues]:
        """Return the values of the current windows that have facts; what did not change is taken over."""
        before = self._views.get(scope, {})
        view: dict[str, WindowValues] = {}
        for slot, cell in self._slots():
            window = self._window(cell)
            known = before.get(slot)
            if known is not None and known.window == window and cell not in changed:
                view[slot] = known
            elif facts := cells.get(*cell):
                view[slot] = self._values(scope, window, facts)
        for kind, (grain, length) in _ROLLING.items():
            window, starts = self._rolling_window(kind, grain, length)
            known = before.get(kind)
            if known is not None and known.window == window and not changed:
                view[kind] = known
            elif facts := cells.sum(grain, starts):
                view[kind] = self._values(scope, window, facts)
        return view

    def _slots(self) -> Iterable[tuple[str, Cell]]:
        minute = self._minute()
        for grain in (Grain.MINUTE, Grain.HOUR, Grain.DAY):
            current = self._buckets.start(grain, minute)
            yield _KINDS[grain], Cell(grain, current)
            previous = self._buckets.start(grain, current - 1)
            yield f"{_KINDS[grain]}@previous", Cell(grain, previous)
        yield "lifetime", Cell(Grain.LIFETIME, LIFETIME_BUCKET)

    def _window(self, cell: Cell) -> Window:
        if cell.grain is Grain.LIFETIME:
            return Window("lifetime", None, None)
        return Window(_KINDS[cell.grain], cell.bucket, self._buckets.end(*cell))

    def _rolling_window(self, kind: str, grain: Grain, length: int) -> tuple[Window, list[int]]:
        """Return the window: the bucket now running and those before it, the start rounded down."""
        minute = self._minute()
        start = self._buckets.start(grain, minute - length)
        starts = [start]
        while (following := self._buckets.end(grain, starts[-1])) <= minute:
            starts.append(following)
        return Window(kind, start, following), starts

    def _values(self, scope: Scope, window: Window, facts: Facts) -> WindowValues:
        expected = self._is_cost_expected(scope, window)
        return WindowValues(
            PERIOD,
            scope,
            window,
            facts,
            self._catalog.evaluate(facts, cost_expected=expected),
            self.complete_until_ms,
            self._clock.now_ms(),
        )

    def _is_cost_expected(self, scope: Scope, window: Window) -> bool:
        if scope.channel is not None:
            return self._expects_cost(scope.channel)
        if window.kind in _ROLLING:
            grain, length = _ROLLING[window.kind]
            _, starts = self._rolling_window(window.kind, grain, length)
        else:
            grain = next(grain for grain, kind in _KINDS.items() if kind == window.kind)
            starts = [LIFETIME_BUCKET if window.start_minute is None else window.start_minute]
        return any(cells.has(grain, s) for cells in self._paying.values() for s in starts)
