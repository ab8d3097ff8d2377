"""Counts impressions, and clicks without an id, by the batch: the path that most records take.

A record is counted here only if it is provably one that `kpis.reading.read` accepts without a remark:
it decodes into a shape (exactly these fields, each of its type) that the reader has accepted before, and
its quotation marks add up, so that no key occurs twice. All others are left to the reader. So is what is
recognised by its id: no shape has that field.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from kpis.events import NO_CAMPAIGN, UNATTRIBUTED
from kpis.reading import Refused, Rules, normal_campaign, normal_channel

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
# The contract counts years as written: near the ends of its range only the reader can tell.
_FIRST: Final = (datetime(2000, 1, 2, tzinfo=UTC) - _EPOCH) // _MINUTE
_LAST: Final = (datetime(2100, 12, 30, tzinfo=UTC) - _EPOCH) // _MINUTE
_MINUTE_MS: Final = 60_000
_OCCURRED_AT: Final = attrgetter("occurred_at")
_SLICE: Final = 400
"""How many records are counted together: few enough to stay in a core's cache."""

LATE_MS: Final = 2 * 3_600_000
"""How long after it happened an event is late. Source: contract, section 7, "Operations"."""

_SHAPES: Final = 16
_KEYS: Final = 100_000
_ROUNDED_UP: Final = b":59.999999"

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_EventId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]

_COMMON: Final[dict[str, Any]] = {
    "event_id": _EventId,
    "source": _Id,
    "occurred_at": _Instant,
    "schema_version": Literal["1.0"],
    "channel": str,
    "campaign_id": str,
    "impression_id": _Id,
    "visitor_id": _Id,
    "is_bot": bool,
}
_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "impressions": {**_COMMON, "type": Literal["impression.served"], "viewable": bool},
    "clicks": {**_COMMON, "type": Literal["click.recorded"]},
}

# What says where and as what an event counts; the other fields are only checked.
_TELLING: Final = ("channel", "campaign_id", "is_bot", "viewable")


class Counted(NamedTuple):
    """`amount` events of one minute and campaign; each adds 1 to every fact in `facts`."""

    minute: int
    channel: str
    campaign_id: str
    facts: tuple[str, ...]
    amount: int


_Place = tuple[str, str, tuple[str, ...]]
"""Channel, campaign and the facts that an event there adds 1 to."""


class Shape:
    """Records with exactly the fields `names`."""

    def __init__(self, topic: str, names: frozenset[str]) -> None:
        fields = [(name, kind) for name, kind in _FIELDS[topic].items() if name in names]
        struct = msgspec.defstruct("Shape", fields, forbid_unknown_fields=True, gc=False)
        self.names = names
        self.decode: Callable[[Any], Any] = msgspec.json.Decoder(struct).decode
        self.quotes = sum(2 if kind is bool else 4 for _, kind in fields)
        telling = [name for name in _TELLING if name in names]
        self.telling = telling
        # attrgetter gives a tuple from two names on; the padding keeps it one.
        padding = ["__class__"] * max(0, 2 - len(telling))
        self.key: Callable[[Any], tuple[Any, ...]] = attrgetter(*telling, *padding)
        self.known: dict[tuple[Any, ...], _Place | None] = {}


class _Run(NamedTuple):
    """The counts of one minute, with its bounds: events mostly come in the order of time."""

    low: datetime
    high: datetime
    low_ms: int
    cells: dict[tuple[Any, ...], int]


class VolumeCounter:
    """The counts of one topic (impressions or clicks) since they were last taken."""

    def __init__(self, topic: str, rules: Rules) -> None:
        self._topic = topic
        self._rules = rules
        self._allowed = dict(_FIELDS[topic])
        if topic == "impressions" and rules.dedup_impressions:
            del self._allowed["impression_id"]
        self._shapes: list[Shape] = []
        self._late = 0
        self._pending: dict[Shape, dict[int, _Run]] = {}

    def count(self, values: Sequence[bytes | None], timestamp_ms: int) -> list[int]:
        """Count what can be counted, and return the indices of what the reader must see, in order.

        Args:
            values: The values of one record batch.
            timestamp_ms: The smallest record timestamp of the batch; what happened after it is left
                to the reader, who knows how far ahead of the broker an event may be.
        """
        left: list[int] = []
        for start in range(0, len(values), _SLICE):
            part = values[start : start + _SLICE]
            left += [start + index for index in self._count_slice(part, timestamp_ms)]
        return left

    def _count_slice(self, values: Sequence[bytes | None], timestamp_ms: int) -> list[int]:
        shape = self._shapes[0] if self._shapes else None
        if shape is not None and self._all_alike(values, shape):
            events = _decoded(values, shape)
            if events is not None:
                return self._count_events(events, values, shape, timestamp_ms)
        return self._count_mixed(values, timestamp_ms)

    def learn(self, value: bytes) -> bool:
        """Remember the shape of a record that the reader accepted without a remark; tell if it is new."""
        if not _is_plain(value):
            return False
        fields = msgspec.json.decode(value, type=dict[str, Any])
        names = frozenset(fields)
        fits = names <= self._allowed.keys() and all(
            isinstance(field, bool if self._allowed[name] is bool else str)
            for name, field in fields.items()
        )
        is_new = fits and all(shape.names != names for shape in self._shapes)
        if is_new:
            self._shapes = [Shape(self._topic, names), *self._shapes[: _SHAPES - 1]]
        return is_new

    def take_late(self) -> int:
        """Return how many of the events counted since the last time were late, to the minute."""
        late, self._late = self._late, 0
        return late

    def take(self) -> list[Counted]:
        """Return what was counted since the last time."""
        taken = [
            Counted(minute, *place, amount)
            for shape, runs in self._pending.items()
            for minute, run in runs.items()
            for key, amount in run.cells.items()
            if amount and (place := shape.known[key]) is not None
        ]
        self._pending = {}
        for shape in self._shapes:
            if len(shape.known) > _KEYS:
                shape.known = {}
        return taken

    def _all_alike(self, values: Sequence[bytes | None], shape: Shape) -> bool:
        try:
            text = b"".join(values)  # type: ignore[arg-type] # None raises TypeError
        except TypeError:
            return False
        return (
            text.count(b'"') == shape.quotes * len(values)
            and _is_plain(text)
            and max(map(len, values)) <= self._rules.max_bytes  # type: ignore[arg-type]
        )

    def _count_mixed(self, values: Sequence[bytes | None], timestamp_ms: int) -> list[int]:
        """Count records of several shapes, those with equally many quotation marks together."""
        left: list[int] = []
        groups: dict[int, list[int]] = {}
        for index, value in enumerate(values):
            if value is None or len(value) > self._rules.max_bytes or not _is_plain(value):
                left.append(index)
            else:
                groups.setdefault(value.count(b'"'), []).append(index)
        for quotes, indices in groups.items():
            group = [values[index] for index in indices]
            left += [indices[i] for i in self._count_group(group, quotes, timestamp_ms)]
        return sorted(left)

    def _count_group(
        self, values: Sequence[bytes | None], quotes: int, timestamp_ms: int
    ) -> list[int]:
        for index, shape in enumerate(self._shapes):
            if shape.quotes != quotes:
                continue
            events = _decoded(values, shape)
            if events is not None:
                # Producers' records come in runs: try this shape first from now on.
                self._shapes.insert(0, self._shapes.pop(index))
                return self._count_events(events, values, shape, timestamp_ms)
        if len(values) == 1:
            return [0]
        # Shapes that differ may have equally many marks: each record by itself then.
        each = (self._count_group([value], quotes, timestamp_ms) for value in values)
        return [index for index, left in enumerate(each) if left]

    def _count_events(
        self, events: list[Any], values: Sequence[bytes | None], shape: Shape, timestamp_ms: int
    ) -> list[int]:
        if self._count_together(events, values, shape, timestamp_ms):
            return []
        return self._count_apart(events, values, shape, timestamp_ms)

    def _count_together(
        self, events: list[Any], values: Sequence[bytes | None], shape: Shape, timestamp_ms: int
    ) -> bool:
        """Count events that are all of one minute and of known places, without a step per event."""
        times = [*map(_OCCURRED_AT, events)]
        first = min(times)
        run = self._run(first, values[times.index(first)], shape, timestamp_ms)
        # Of times at the very beginning of a minute each would have to be looked at.
        if run is None or first == run.low or max(times) >= run.high:
            return False
        counted = Counter(map(shape.key, events))
        if any(self._place(shape, key) is None for key in counted):
            return False
        if timestamp_ms - run.low_ms > LATE_MS:
            self._late += len(events)
        cells = run.cells
        for key, amount in counted.items():
            cells[key] = cells.get(key, 0) + amount
        return True

    def _count_apart(
        self, events: list[Any], values: Sequence[bytes | None], shape: Shape, timestamp_ms: int
    ) -> list[int]:
        left: list[int] = []
        run = _Run(_EPOCH, _EPOCH, 0, {})
        for index, event in enumerate(events):
            if not run.low < event.occurred_at < run.high:
                found = self._run(event.occurred_at, values[index], shape, timestamp_ms)
                if found is None:
                    left.append(index)
                    continue
                run = found
            key = shape.key(event)
            if self._place(shape, key) is None:
                left.append(index)
            else:
                run.cells[key] = run.cells.get(key, 0) + 1
                self._late += timestamp_ms - run.low_ms > LATE_MS
        return left

    def _run(
        self, occurred_at: datetime, value: bytes | None, shape: Shape, timestamp_ms: int
    ) -> _Run | None:
        minute = (occurred_at - _EPOCH) // _MINUTE
        run = self._pending.setdefault(shape, {}).get(minute) or self._new_run(minute, shape)
        if run is None or minute * _MINUTE_MS > timestamp_ms:
            return None
        # The decoder rounds a fraction of more than six digits; the contract cuts it.
        is_rounded_up = occurred_at == run.low and _ROUNDED_UP in (value or b"")
        return None if is_rounded_up else run

    def _new_run(self, minute: int, shape: Shape) -> _Run | None:
        if not _FIRST <= minute < _LAST:
            return None
        low = _EPOCH + minute * _MINUTE
        run = self._pending[shape][minute] = _Run(low, low + _MINUTE, minute * _MINUTE_MS, {})
        return run

    def _place(self, shape: Shape, key: tuple[Any, ...]) -> _Place | None:
        if key not in shape.known:
            shape.known[key] = self._resolve(dict(zip(shape.telling, key, strict=False)))
        return shape.known[key]

    def _resolve(self, told: dict[str, Any]) -> _Place | None:
        try:
            channel, campaign = told.get("channel"), told.get("campaign_id")
            facts = volume_facts(
                self._topic,
                is_bot=told.get("is_bot", False),
                viewable=told.get("viewable", False),
            )
            return (
                normal_channel(channel, self._rules) if channel else UNATTRIBUTED,
                normal_campaign(campaign, self._rules) if campaign else NO_CAMPAIGN,
                facts,
            )
        except Refused:
            return None


def volume_facts(topic: str, *, is_bot: bool, viewable: bool) -> tuple[str, ...]:
    """Return the facts that one impression or click adds 1 to.

    Source: contract, section 8, "is_bot: counts only as invalid", and section 4.
    """
    if is_bot:
        return (f"invalid_{topic}",)
    return (topic, "viewable_impressions") if viewable else (topic,)


def _decoded(values: Sequence[bytes | None], shape: Shape) -> list[Any] | None:
    """Return the values as events, None unless all have the shape."""
    try:
        return [*map(shape.decode, values)]
    except (msgspec.MsgspecError, TypeError):
        return None


def _is_plain(text: bytes) -> bool:
    """Tell whether no text in `text` has an escape, a control character, or begins with a space."""
    return (
        b"\\" not in text
        and b"\x7f" not in text
        and text.isascii()
        # Most texts have no space at all, which is ten times quicker to see.
        and (b" " not in text or b'" ' not in text)
    )
