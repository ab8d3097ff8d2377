"""Stage 3: adds deltas to the cells of the subjects of this shard, and writes what is published.

Deltas are applied only when they are published: state, positions and KPI records are then of one
transaction. Where one of them changes more windows than can be published at a time, the rest is noted
in that transaction as owed, and follows.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from kpis.alert_rules import Rule
from kpis.calendar import MINUTE_MS
from kpis.catalog import Catalog
from kpis.facts import COHORT, OVERALL, PERIOD, Scope, Subject
from kpis.ledger import Cause
from kpis.retention import Grain
from kpis.spans import LIFETIME_WINDOW, ROLLING, Spans, Window
from kpis.windows import Record, WindowValues, for_ledger, key_of, record
from streams.alerting import ROWS, Alerting
from streams.books import Books
from streams.closing import ENTRY, Closing, Status
from streams.figures import Figures
from streams.hours import Hours
from streams.messages import (
    CampaignsTold,
    Delta,
    Reported,
    TargetTold,
    decode_envelope,
    decode_merge_item,
)
from streams.outbox import Outbox
from streams.owed import OWED, Owed
from streams.publishers import ScopeView
from streams.settings import Settings
from streams.stages import ROWS_PER_TURN, AlertNews, Context, Marks
from streams.transport import Chunk

CELLS_PER_FLUSH: Final = 1_500
SUBJECTS_PER_FLUSH: Final = 150
_STAGES_THAT_SEND: Final = 2
_SHARE: Final = 4
"""Publishing takes at most one part in so many of a core: the more there is to say, the seldomer."""

_ROLLING_ROW: Final = "rolling"

_encode = msgspec.msgpack.Encoder().encode
_decode_rolling = msgspec.msgpack.Decoder(tuple[str, str, str | None, str | None, str]).decode


class Merge:
    """The subjects of one shard."""

    name = "merge"

    def __init__(
        self,
        context: Context,
        settings: Settings,
        catalog: Catalog,
        rules: Iterable[Rule] = (),
    ) -> None:
        self._shard = context.partition
        self._deployment = context.deployment
        self._tally = context.tally
        self._clock = context.deployment.clock
        topics = context.deployment.topics
        self._kpis, self._ledger, self._deltas = topics.kpis, topics.windows, topics.deltas
        self._rows = context.tables["windows"]
        self._memo = context.tables["positions"]
        self._catalog = catalog
        self._zone = settings.time_zone
        self._currency = settings.currency
        self._publish_ms = settings.commit.publish_ms
        self._spans = Spans(context.deployment.buckets)
        most_campaigns = settings.limits.scopes // context.deployment.partitions
        self._books = Books(context.tables["cells"], self._spans, self._tally, most_campaigns)
        self._closing = Closing(self._rows, self._spans, self._books.subjects_in)
        self._figures = Figures(
            self._books, self._rows, self._spans, catalog, settings, context.deployment.horizon_ms
        )
        self._owed = Owed(self._rows, self._spans)
        self._hours = Hours(self._books, self._figures, self._spans)
        self._alerting = Alerting(
            context, settings, rules, self._figures.outlook, self._spans, self._watched
        )
        self.positions: dict[str, int] = {}
        self.version: Callable[[int], str] = str
        self._marks = Marks()
        self._until_ms: int | None = None
        self._pending: deque[tuple[bytes, int]] = deque()
        self.pending_bytes = 0
        self._dirty: dict[Subject, set[Window]] = {}
        self._to_mature: list[int] = []
        self._ahead: dict[int, set[Subject]] = {}
        self._refresh: deque[Subject] = deque()
        self._views: dict[Subject, dict[str, WindowValues]] = {}
        self._rolling: set[tuple[Subject, str]] = set()
        self._ready: list[ScopeView] = []
        self._arrived: list[int] = []
        self._due_at = 0.0
        self._ticked_minute = 0

    def restore(self) -> Iterator[None]:
        """Take up what the tables say after they were read, some rows at a time."""
        if (row := self._memo.get(self.name.encode())) is not None:
            marks, self._books.newest_minute = msgspec.msgpack.decode(
                row, type=tuple[dict[str, int], int]
            )
            self._marks = Marks(marks)
        self._until_ms = self.complete_until_ms
        yield from self._books.restore()
        entries, owed = [], []
        for number, (key, row) in enumerate(self._rows.take_rows().items(), 1):
            kind = _kind_of(key)
            if kind == ENTRY:
                entries.append((key, row))
            elif kind == OWED:
                owed.append((key, row))
            elif kind in ROWS:
                self._alerting.restore(key, row)
            elif kind == _ROLLING_ROW:
                _, basis, channel, campaign_id, name = _decode_rolling(key)
                self._rolling.add((Subject(basis, Scope(channel, campaign_id)), name))
            else:
                self._figures.restore(key, row)
            if number % ROWS_PER_TURN == 0:
                yield
        self._owed.restore(owed)
        for start in range(0, len(entries), ROWS_PER_TURN):
            for subject, window in self._closing.restore(entries[start : start + ROWS_PER_TURN]):
                self._books.know(subject, window)
            yield
        for window in self._books.windows():
            self._await(window, self._books.subjects_in(window))
        self._refresh.extend(self._books.subjects())
        self._alerting.begin(self._version())

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
        self._books.newest_minute = max(self._books.newest_minute, envelope.newest_minute)
        for raw in envelope.items:
            match decode_merge_item(raw):
                case Delta() as delta:
                    self._add(delta)
                case Reported() as reported:
                    self._figures.reported(reported)
                case TargetTold() as told:
                    self._take_target(told)
                case CampaignsTold() as campaigns_told:
                    self._alerting.campaigns_told(campaigns_told)
        if envelope.marks:
            self._marks.take(f"{envelope.stage}/{envelope.sender}", envelope.marks[0])
        if envelope.arrived_ms is not None:
            self._arrived.append(envelope.arrived_ms)
        self.positions[self._deltas] = end

    def _add(self, delta: Delta) -> None:
        subject = Subject(delta.basis, Scope(delta.channel, delta.campaign_id))
        if not self._books.is_open(subject):
            return
        windows = self._books.windows_of(Grain(delta.grain), delta.bucket)
        cause = Cause(delta.cause)
        for window in windows:
            self._note(subject, window, cause)
        if not self._books.add(subject, delta, windows):
            return
        for window in windows:
            self._await(window, (subject,))
        self._look_again(subject, windows)
        later = self._figures.later_months(subject, windows)
        self._look_again(subject, (month for month in later if self._books.has(subject, month)))
        if subject.scope.channel is not None and subject.scope.campaign_id is None:
            self._show_overall(subject.basis, windows)

    def _note(self, subject: Subject, window: Window, cause: Cause) -> None:
        until_ms = self._until_ms
        self._closing.note(
            subject, window, cause, lambda: self._figures.remembered(subject, window, until_ms)
        )

    def _look_again(self, subject: Subject, windows: Iterable[Window]) -> None:
        """Publish windows of a subject again, and with any of them its rolling ones."""
        if windows := set(windows):
            self._dirty.setdefault(subject, set()).update(windows)

    def _show_overall(self, basis: str, windows: Iterable[Window]) -> None:
        """Publish the whole's windows too: a channel's first fact may make its cost a missing one."""
        overall = Subject(basis, OVERALL)
        shown = [window for window in windows if self._books.has(overall, window)]
        self._look_again(overall, shown)

    def _await(self, window: Window, subjects: Iterable[Subject]) -> None:
        """Look at a window again when it begins, when it is final and when its leads are mature."""
        if window.start_minute is None or window.end_minute is None:
            return
        is_new = self._closing.watch(window)
        if window.start_minute > self._minute():
            self._ahead.setdefault(window.start_minute, set()).update(subjects)
        if is_new and window.kind == "1d" and window.end_minute > self._mature_minute():
            heapq.heappush(self._to_mature, window.end_minute)

    def _take_reported(self) -> None:
        """Publish what became partial or whole as cost was reported further, or no longer so far."""
        for channel, windows in self._figures.take_reported(self._until_ms):
            for window in windows:
                is_lifetime = window is LIFETIME_WINDOW
                books = self._books
                for subject in books.subjects() if is_lifetime else books.subjects_in(window):
                    if subject.scope.channel in (channel, None):
                        self._look_again(subject, (window,))

    def _take_target(self, told: TargetTold) -> None:
        subject = Subject(PERIOD, Scope(told.channel, told.campaign_id))
        for window in self._figures.target_told(told):
            if self._books.has(subject, window):
                self._look_again(subject, (window,))

    # ------------------------------------------------------------------------- publishing

    def is_due(self) -> bool:
        """Tell whether it is time to publish, and there is something."""
        if self._clock.monotonic_seconds() < self._due_at:
            return False
        if self._is_behind() or self._dirty or self._alerting.is_due():
            return True
        return self._minute() != self._ticked_minute or self._closing.is_due(
            self._until_ms, self._clock.now_ms()
        )

    def flush(self, outbox: Outbox) -> None:
        """If it is due: apply what was read, and write rows and KPI records of what changed."""
        if not self.is_due():
            return
        begun = self._clock.monotonic_seconds()
        has_applied = bool(self._pending)
        while self._pending and self._books.changed_cells() < CELLS_PER_FLUSH:
            self._apply(*self._pending.popleft())
        for window, subjects in self._books.expired():
            self._closing.forget(window, subjects)
            for subject in subjects:
                self._look_again(subject, (window,))
        self._mature()
        was_unknown, self._until_ms = self._until_ms is None, self.complete_until_ms
        if was_unknown and self._until_ms is not None:
            self._show_complete()
        self._take_reported()
        self._take_due()
        self._tick()
        if has_applied:
            memo = (self._marks, self._books.newest_minute)
            self._memo.put(self.name.encode(), _encode(memo))
        for subject, windows in self._to_publish().items():
            self._publish(subject, windows, outbox)
        self._alerting.version = self._version()
        self._alerting.flush(outbox, self._books.newest_minute)
        self._books.flush()
        now = self._clock.monotonic_seconds()
        pause = max(self._publish_ms / 1000, (now - begun) * _SHARE)
        self._due_at = 0.0 if self._is_behind() else begun + pause

    @property
    def complete_until_ms(self) -> int | None:
        """Everything that arrived before this instant is counted; None until all shards told."""
        return self._marks.least(_STAGES_THAT_SEND * self._deployment.partitions)

    @property
    def has_more(self) -> bool:
        """Tell whether the last `flush` left something behind, not to hold the loop for long."""
        return self._due_at == 0.0 and self._is_behind()

    def take_views(self) -> list[ScopeView]:
        """Return the views that the records of the last `flush` show; to be published after its commit."""
        views, self._ready = self._ready, []
        return views

    def take_alerts(self) -> AlertNews:
        """Return what the last `flush` told of alerts; to be shown after its commit."""
        return self._alerting.take()

    def delivered(self, notice_id: str) -> None:
        """Take note that a notice has reached the webhook, or that it was given up."""
        self._alerting.delivered(notice_id)

    def take_arrivals(self) -> list[int]:
        """Return when the first of each applied group of events arrived."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def _is_behind(self) -> bool:
        return bool(self._pending or self._refresh or self._owed)

    def _minute(self) -> int:
        return self._clock.now_ms() // MINUTE_MS

    def _mature_minute(self) -> int:
        """Return the minute up to which days have matured."""
        until_ms = self._until_ms
        return -1 if until_ms is None else (until_ms - self._deployment.horizon_ms) // MINUTE_MS

    def _mature(self) -> None:
        """Look again at what cohorts of days have come to that reach the horizon now."""
        until_ms = self.complete_until_ms
        if until_ms is None:
            return
        boundary = (until_ms - self._deployment.horizon_ms) // MINUTE_MS
        while self._to_mature and self._to_mature[0] <= boundary:
            day = self._spans.tumbling("1d", heapq.heappop(self._to_mature) - 1)
            windows = self._books.windows_of(Grain.DAY, day.start_minute or 0)
            for subject in self._books.subjects_in(day):
                if subject.basis == COHORT:
                    for window in windows:
                        self._note(subject, window, Cause.OUTCOME)
                    self._look_again(subject, windows)

    def _take_due(self) -> None:
        """Take up windows that became final and revisions that have waited, up to a flush's worth."""
        due = self._closing.due(self._until_ms, self._clock.now_ms())
        for subject, window in islice(due, CELLS_PER_FLUSH):
            self._look_again(subject, (window,))

    def _tick(self) -> None:
        """Once a minute, queue what has a window that moves, as windows move without events."""
        minute = self._minute()
        if minute == self._ticked_minute:
            return
        self._ticked_minute = minute
        current = {window for _, window in self._spans.slots(minute)}
        for subject in self._views:
            self._books.forget(subject, current)
        queued = set(self._refresh)
        moved = dict.fromkeys([*self._moved(minute), *self._begun(minute)])
        self._refresh.extend(subject for subject in moved if subject not in queued)
        self._pace(minute)
        self._tell_complete()
        self._alerting.tick(self._until_ms)

    def _show_complete(self) -> None:
        """Publish what is shown once more, now that it is known up to when it is complete."""
        for subject, view in self._views.items():
            shown = (values.window for values in view.values())
            self._look_again(subject, (window for window in shown if window.kind not in ROLLING))

    def _tell_complete(self) -> None:
        """Publish the whole's lifetime: where nothing happens its `complete_until` moves all the same."""
        whole = Subject(PERIOD, OVERALL)
        if self._books.has(whole, LIFETIME_WINDOW):
            self._look_again(whole, (LIFETIME_WINDOW,))

    def _pace(self, minute: int) -> None:
        """Publish the running windows with targets: time moves their pacing."""
        for subject in self._figures.paced():
            for _, window in self._spans.slots(minute):
                if window.kind in ("1d", "1w", "1mo") and self._books.has(subject, window):
                    self._look_again(subject, (window,))

    def _watched(self) -> Iterator[Scope]:
        """Yield what alerts look at: scopes with facts of late, and those with targets."""
        week = self._spans.tumbling("1w", self._minute())
        lately = self._books.subjects_in(week) | self._books.subjects_in(self._spans.previous(week))
        for subject in (*lately, *self._figures.paced()):
            if subject.basis == PERIOD:
                yield subject.scope

    def _version(self) -> str:
        return self.version(self.positions.get(self._deltas, 0))

    def _moved(self, minute: int) -> Iterator[Subject]:
        current = dict(self._spans.slots(minute))
        for subject, view in self._views.items():
            if any(values.window != current[name] for name, values in view.items()):
                yield subject

    def _begun(self, minute: int) -> Iterator[Subject]:
        """Yield the subjects with facts of a minute that lay ahead and has begun now."""
        for start in [start for start in self._ahead if start <= minute]:
            yield from self._ahead.pop(start)

    def _to_publish(self) -> dict[Subject, set[Window]]:
        now, self._dirty = self._owed.share(self._dirty), {}
        while self._refresh and len(now) < SUBJECTS_PER_FLUSH:
            now.setdefault(self._refresh.popleft(), set())
        return now

    def _publish(self, subject: Subject, dirty: set[Window], outbox: Outbox) -> None:
        settled = {window: self._settle(subject, window, outbox) for window in dirty}
        view = self._view(subject, settled)
        self._put_rolling(subject, view, outbox)
        self._views[subject] = view
        hours = self._hours.of(subject, settled, self._minute())
        self._ready.append(ScopeView(self._shard, self._version(), subject, view, hours))

    def _settle(self, subject: Subject, window: Window, outbox: Outbox) -> WindowValues | None:
        """Write the record of a tumbling window or lifetime, also to the ledger if it is time."""
        if not self._spans.is_kept(window, self._books.newest_minute):
            self._put_record(subject, window, None, outbox)
            return None
        until_ms, now_ms = self._until_ms, self._clock.now_ms()
        numbers = self._figures.numbers(subject, window, until_ms)
        facts = numbers.facts
        status = self._closing.settle(subject, window, numbers.remembered(), until_ms, now_ms)
        if not facts and not status.is_news:
            self._put_record(subject, window, None, outbox)
            return None
        values = self._figures.values(subject, window, numbers, status, until_ms, now_ms)
        written = self._put_record(subject, window, values if facts else None, outbox)
        if status.is_news:
            news = written or record(values, self._catalog, self._zone, self._currency)
            outbox.put(self._ledger, self._shard, *for_ledger(news, status.state))
            if status.cause is not None:
                self._tally.revised(status.cause.label)
        return values if facts else None

    def _put_record(
        self, subject: Subject, window: Window, values: WindowValues | None, outbox: Outbox
    ) -> Record | None:
        if values is None:
            key = key_of(subject.basis, window, subject.scope, self._zone)
            outbox.put(self._kpis, self._shard, key, None)
            return None
        written = record(values, self._catalog, self._zone, self._currency)
        outbox.put(self._kpis, self._shard, *written)
        return written

    def _put_rolling(self, subject: Subject, view: dict[str, WindowValues], outbox: Outbox) -> None:
        before = self._views.get(subject, {})
        for kind in ROLLING:
            values, published = view.get(kind), before.get(kind)
            if values is published and values is not None:
                continue
            is_known = (subject, kind) in self._rolling
            if values is None and not is_known:
                continue
            window = Window(kind, None, None) if values is None else values.window
            self._put_record(subject, window, values, outbox)
            row_key = _encode((_ROLLING_ROW, subject.basis, *subject.scope, kind))
            if values is None:
                self._rolling.discard((subject, kind))
                self._rows.delete(row_key)
            elif not is_known:
                self._rolling.add((subject, kind))
                self._rows.put(row_key, b"")

    # ------------------------------------------------------------------------- views

    def _view(
        self, subject: Subject, settled: dict[Window, WindowValues | None]
    ) -> dict[str, WindowValues]:
        """Return the values of the current windows that have facts; what did not change is taken over."""
        before = {values.window: values for values in self._views.get(subject, {}).values()}
        view: dict[str, WindowValues] = {}
        for name, window in self._spans.slots(self._minute()):
            if window in settled:
                values = settled[window]
            elif window in before and not (settled and window.kind in ROLLING):
                values = before[window]
            else:
                values = self._look(subject, window, before.get(window))
            if values is not None:
                view[name] = values
        return view

    def _look(
        self, subject: Subject, window: Window, known: WindowValues | None
    ) -> WindowValues | None:
        """Return the values of a window of which nothing has to be written but a rolling one."""
        is_kept = self._spans.is_kept(window, self._books.newest_minute)
        if not (is_kept and self._books.has(subject, window)):
            return None
        until_ms, now_ms = self._until_ms, self._clock.now_ms()
        numbers = self._figures.numbers(subject, window, until_ms)
        if known is not None and (known.facts, known.surroundings) == numbers:
            return known
        status = self._closing.peek(subject, window) if window.kind not in ROLLING else Status()
        return self._figures.values(subject, window, numbers, status, until_ms, now_ms)


def _kind_of(key: bytes) -> str:
    kind: str = msgspec.msgpack.decode(key, type=list)[0]
    return kind
