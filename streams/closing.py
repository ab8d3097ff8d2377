"""Which windows of a shard are in the ledger, what has changed in them since, and what is due.

A window is put into the ledger once everything up to its end and some time more has arrived; from
then on every change of its facts makes a revision. Source: contract, section 6.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from kpis.calendar import MINUTE_MS
from kpis.facts import Facts, Scope, Subject
from kpis.ledger import (
    Cause,
    Entry,
    changed,
    decode_entry,
    due_ms,
    encode_entry,
    is_due,
    issued,
    opened,
)
from kpis.spans import TUMBLING, Spans, Window
from kpis.windows import FINAL, PROVISIONAL, REVISED
from streams.tables import Table

_encode = msgspec.msgpack.Encoder().encode
_RowKey = tuple[str, str, str | None, str | None, str, int]
_decode_key = msgspec.msgpack.Decoder(_RowKey).decode
ENTRY: Final = "entry"


AROUND: Final = "~"
"""What names of numbers begin with that are kept for `previous`, but are no facts: they make no revision."""


class Status(NamedTuple):
    """What a record says of its window; `before` are the facts of the last revision if this is a new one.

    `is_news`: the record belongs into the ledger.
    """

    state: str = PROVISIONAL
    revision: int = 0
    cause: Cause | None = None
    before: Facts | None = None
    is_news: bool = False


class Closing:
    """The ledger entries of the windows of one shard.

    Args:
        rows: The table that they are written to; rows of others in it are not touched.
        spans: When windows are final.
        subjects_in: Returns who has facts in a window.
    """

    def __init__(
        self, rows: Table, spans: Spans, subjects_in: Callable[[Window], Iterable[Subject]]
    ) -> None:
        self._rows = rows
        self._spans = spans
        self._subjects_in = subjects_in
        self._entries: dict[Subject, dict[Window, bytes]] = {}
        self._to_close: list[tuple[int, Window]] = []
        self._seen: set[Window] = set()
        self._closing: Iterator[tuple[Subject, Window]] | None = None
        self._to_issue: list[tuple[int, int, Subject, Window]] = []
        self._number = 0

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[Subject, Window]]:
        """Take up the entries among the rows of the table, and return what they are about."""
        found = []
        for key, row in rows:
            _, basis, channel, campaign_id, kind, start = _decode_key(key)
            window = self._spans.tumbling(kind, start)
            subject = Subject(basis, Scope(channel, campaign_id))
            self._entries.setdefault(subject, {})[window] = row
            self._wait(subject, window, decode_entry(row))
            found.append((subject, window))
        return found

    def watch(self, window: Window) -> bool:
        """Close a window when its time comes; tell whether it was not known before."""
        final_minute = self._spans.final_minute(window)
        if final_minute is None or window in self._seen:
            return False
        self._seen.add(window)
        heapq.heappush(self._to_close, (final_minute, window))
        return True

    def forget(self, window: Window, subjects: Iterable[Subject]) -> None:
        """Drop the entries of a window that has left retention."""
        self._seen.discard(window)
        for subject in subjects:
            entries = self._entries.get(subject)
            if entries is not None and entries.pop(window, None) is not None:
                self._rows.delete(_row_key(subject, window))
                if not entries:
                    del self._entries[subject]

    # ------------------------------------------------------------------------- changes

    def note(
        self, subject: Subject, window: Window, cause: Cause, facts: Callable[[], Facts]
    ) -> None:
        """Note that facts of a window are about to change; `facts` returns them as they still are."""
        entries = self._entries.get(subject)
        if entries is None or (row := entries.get(window)) is None:
            return
        entry = decode_entry(row)
        if cause <= entry.cause:
            return
        after = changed(entry, cause, {} if entry.cause else facts())
        self._put(subject, window, after)
        if due_ms(after) != due_ms(entry):
            self._wait(subject, window, after)

    def due(self, complete_until_ms: int | None, now_ms: int) -> Iterator[tuple[Subject, Window]]:
        """Yield what has to be looked at again: windows that became final, and changes that have waited.

        The caller may stop at any time and ask again later.
        """
        while self._to_issue and self._to_issue[0][0] <= now_ms:
            _, _, subject, window = heapq.heappop(self._to_issue)
            row = self._entries.get(subject, {}).get(window)
            # It may have been issued meanwhile, when a graver cause was due earlier.
            if row is not None and is_due(decode_entry(row), now_ms):
                yield subject, window
        until = -1 if complete_until_ms is None else complete_until_ms // MINUTE_MS
        while True:
            if self._closing is None:
                if not self._to_close or self._to_close[0][0] > until:
                    return
                window = heapq.heappop(self._to_close)[1]
                self._closing = ((s, window) for s in tuple(self._subjects_in(window)))
            for subject, window in self._closing:
                if window not in self._entries.get(subject, {}):
                    yield subject, window
            self._closing = None

    def is_due(self, complete_until_ms: int | None, now_ms: int) -> bool:
        """Tell whether `due` would yield anything."""
        if self._closing is not None or (self._to_issue and self._to_issue[0][0] <= now_ms):
            return True
        return (
            complete_until_ms is not None
            and bool(self._to_close)
            and self._to_close[0][0] <= complete_until_ms // MINUTE_MS
        )

    # ------------------------------------------------------------------------- records

    def peek(self, subject: Subject, window: Window) -> Status:
        """Return what a record of a window that did not change says."""
        row = self._entries.get(subject, {}).get(window)
        if row is None:
            return Status()
        entry = decode_entry(row)
        if entry.cause:
            return Status(PROVISIONAL, entry.revision)
        return Status(FINAL if entry.revision == 1 else REVISED, entry.revision)

    def settle(
        self,
        subject: Subject,
        window: Window,
        facts: Facts,
        complete_until_ms: int | None,
        now_ms: int,
    ) -> Status:
        """Return what a record with these facts says of its window, and make it the ledger's if it is time."""
        if window.kind not in TUMBLING:
            return Status()
        row = self._entries.get(subject, {}).get(window)
        if row is None:
            final_minute = self._spans.final_minute(window)
            until = -1 if complete_until_ms is None else complete_until_ms // MINUTE_MS
            if not facts or final_minute is None or until < final_minute:
                return Status()
            self._put(subject, window, opened(now_ms))
            return Status(FINAL, 1, is_news=True)
        entry = decode_entry(row)
        if not is_due(entry, now_ms):
            return self.peek(subject, window)
        after = issued(entry._replace(facts=_own(entry.facts or {})), now_ms, _own(facts))
        self._put(subject, window, after)
        if after.revision == entry.revision:
            # What changed has changed back.
            return self.peek(subject, window)
        return Status(REVISED, after.revision, Cause(entry.cause), entry.facts, is_news=True)

    def _wait(self, subject: Subject, window: Window, entry: Entry) -> None:
        due = due_ms(entry)
        if due is not None:
            self._number += 1
            heapq.heappush(self._to_issue, (due, self._number, subject, window))

    def _put(self, subject: Subject, window: Window, entry: Entry) -> None:
        row = encode_entry(entry)
        self._entries.setdefault(subject, {})[window] = row
        self._rows.put(_row_key(subject, window), row)


def _own(facts: Facts) -> Facts:
    return {name: fact for name, fact in facts.items() if not name.startswith(AROUND)}


def _row_key(subject: Subject, window: Window) -> bytes:
    return _encode((ENTRY, subject.basis, *subject.scope, window.kind, window.start_minute))
