"""What one flush left to be published: kept in the table too, so that a new owner goes on with it.

A bill for a month, a day's cost report, or events after a long silence change a hundred thousand
windows at once. To publish them all in one go would hold the loop for longer than a worker may hang.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

import msgspec

from kpis.facts import Scope, Subject
from kpis.spans import LIFETIME, LIFETIME_WINDOW, Spans, Window
from streams.tables import Table

OWED: Final = "owed"
MOST_AT_A_TIME: Final = 3_000
PORTION: Final = 1_500
"""How many windows make a row."""

Windows = dict[Subject, set[Window]]

_Place = tuple[Subject, Window]
_RowKey = tuple[str, int]
_Row = list[tuple[str, str | None, str | None, str, list[int]]]
_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(_RowKey).decode
_decode_row = msgspec.msgpack.Decoder(_Row).decode


class Owed:
    """Windows of subjects that are still to be published, a portion to a row.

    Args:
        rows: The table that they are written to; rows of others in it are not touched.
        spans: Which windows there are.
    """

    def __init__(self, rows: Table, spans: Spans) -> None:
        self._rows = rows
        self._spans = spans
        self._portions: deque[tuple[int, list[_Place]]] = deque()
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._portions)

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Take up the portions among the rows of the table."""
        numbered = sorted((_decode_key(key)[1], row) for key, row in rows)
        self._portions.extend((number, list(self._places(row))) for number, row in numbered)
        self._next = numbered[-1][0] + 1 if numbered else 0

    def share(self, changed: Windows) -> Windows:
        """Return what is to be published now of what changed and what is owed; the rest is owed.

        Of what is too much at a time the longest windows come first, and of equal ones the newest.
        What was owed before comes with what leaves room for it.
        """
        count = sum(map(len, changed.values()))
        if count <= MOST_AT_A_TIME and not self:
            return changed
        places = [(subject, window) for subject in changed for window in changed[subject]]
        if count <= MOST_AT_A_TIME:
            return _by_subject(places + self._take())
        places.sort(key=_urgency)
        self._put(places[MOST_AT_A_TIME:])
        return _by_subject(places[:MOST_AT_A_TIME])

    def _put(self, places: list[_Place]) -> None:
        for start in range(0, len(places), PORTION):
            portion = places[start : start + PORTION]
            self._rows.put(_row_key(self._next), _row_of(portion))
            self._portions.append((self._next, portion))
            self._next += 1

    def _take(self) -> list[_Place]:
        number, portion = self._portions.popleft()
        self._rows.delete(_row_key(number))
        return portion

    def _places(self, row: bytes) -> Iterator[_Place]:
        for basis, channel, campaign_id, kind, starts in _decode_row(row):
            subject = Subject(basis, Scope(channel, campaign_id))
            if kind == LIFETIME:
                yield subject, LIFETIME_WINDOW
            yield from ((subject, self._spans.tumbling(kind, start)) for start in starts)


def _row_key(number: int) -> bytes:
    return _encode((OWED, number))


def _row_of(portion: Iterable[_Place]) -> bytes:
    starts: dict[tuple[Subject, str], list[int]] = {}
    for subject, window in portion:
        found = starts.setdefault((subject, window.kind), [])
        if window.start_minute is not None:
            found.append(window.start_minute)
    return _encode([(s.basis, *s.scope, kind, found) for (s, kind), found in starts.items()])


def _by_subject(places: Iterable[_Place]) -> Windows:
    found: Windows = {}
    for subject, window in places:
        found.setdefault(subject, set()).add(window)
    return found


def _urgency(place: _Place) -> tuple[float, int]:
    window = place[1]
    if window.start_minute is None or window.end_minute is None:
        return -inf, 0
    return window.start_minute - window.end_minute, -window.start_minute
