"""Windows: which kinds there are, where they lie, and of which stored cells each is the sum.

Source: contract, section 1, "Windows", and section 6.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from kpis.calendar import DAY_MINUTES, HOUR_MINUTES
from kpis.retention import LIFETIME_BUCKET, Buckets, Grain

TUMBLING: Final = ("1m", "5m", "1h", "1d", "1w", "1mo")
ROLLING: Final = ("last_1h", "last_6h", "last_24h", "last_7d", "last_28d")
LIFETIME: Final = "lifetime"
KINDS: Final = (*TUMBLING, LIFETIME, *ROLLING)
DAYS: Final = "days"
"""The kind of any run of whole days: never published, only summed."""
HOURS: Final = "hours"
"""The kind of any run of whole local hours: never published, only summed."""

GRAIN_OF: Final[Mapping[str, Grain]] = MappingProxyType(
    {
        "1m": Grain.MINUTE,
        "5m": Grain.MINUTE,
        "1h": Grain.HOUR,
        "1d": Grain.DAY,
        "1w": Grain.DAY,
        "1mo": Grain.DAY,
        DAYS: Grain.DAY,
        HOURS: Grain.HOUR,
        LIFETIME: Grain.LIFETIME,
        "last_1h": Grain.MINUTE,
        "last_6h": Grain.HOUR,
        "last_24h": Grain.HOUR,
        "last_7d": Grain.HOUR,
        "last_28d": Grain.DAY,
    }
)
"""The stored grain that each kind of window is the sum of."""

STORED: Final = frozenset({"1m", "1h", "1d", LIFETIME})
"""The kinds that are one stored cell."""

_ROLLING_MINUTES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "last_1h": HOUR_MINUTES,
        "last_6h": 6 * HOUR_MINUTES,
        "last_24h": DAY_MINUTES,
        "last_7d": 7 * DAY_MINUTES,
        "last_28d": 28 * DAY_MINUTES,
    }
)
LATENESS_MINUTES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "1m": 10,
        "5m": 10,
        "1h": 2 * HOUR_MINUTES,
        "1d": 2 * DAY_MINUTES,
        "1w": 2 * DAY_MINUTES,
        "1mo": 2 * DAY_MINUTES,
    }
)
"""How long after its end a window still waits for what is late.

Source: contract, section 6.
"""

_FIVE: Final = 5
_MEMO_LIMIT: Final = 20_000
_FOR_EVER: Final = 1 << 62
_GRAINS: Final = tuple(Grain)
_Key = TypeVar("_Key")
_Found = TypeVar("_Found")
_TOUCHED: Final = tuple(
    tuple(kind for kind in TUMBLING if GRAIN_OF[kind] is grain) for grain in _GRAINS
)


class Window(NamedTuple):
    """The interval [start, end) in whole minutes since 1970 UTC; both None for lifetime."""

    kind: str
    start_minute: int | None
    end_minute: int | None


LIFETIME_WINDOW: Final = Window(LIFETIME, None, None)


class Cell(NamedTuple):
    """A bucket of one grain."""

    grain: Grain
    bucket: int


class Stored(NamedTuple):
    """A cell that a delta belongs to, and the newest minute from which on it is no longer kept."""

    cell: Cell
    dropped_at: int


class Slot(NamedTuple):
    """A current window by the name that publishers show it under: `1d`, `1d@previous`, `last_1h`."""

    name: str
    window: Window


class Spans:
    """The windows of one zone and retention."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self._touched: dict[tuple[Grain, int], tuple[Window, ...]] = {}
        self._stored: dict[tuple[Grain, int], tuple[Stored, ...]] = {}
        self._starts: dict[Window, tuple[int, ...]] = {}
        self._slots: tuple[int, tuple[Slot, ...]] = (-1, ())

    # ------------------------------------------------------------------------- windows

    def tumbling(self, kind: str, minute: int) -> Window:
        """Return the tumbling window of a kind that contains `minute`.

        Raises:
            ValueError: if the kind is none of `TUMBLING`.
        """
        calendar = self.buckets.calendar
        match kind:
            case "1m":
                return Window(kind, minute, minute + 1)
            case "5m":
                # Since 1970 every zone is whole quarters of an hour off UTC.
                start = minute - minute % _FIVE
                return Window(kind, start, start + _FIVE)
            case "1h":
                start = calendar.hour_start(minute)
                return Window(kind, start, calendar.hour_end(start))
            case "1d":
                start = calendar.day_start(minute)
                return Window(kind, start, calendar.day_end(start))
            case "1w":
                start = calendar.week_start(minute)
                return Window(kind, start, calendar.week_end(start))
            case "1mo":
                start = calendar.month_start(minute)
                return Window(kind, start, calendar.month_end(start))
        msg = f"window: expected one of {', '.join(TUMBLING)}, got {kind!r:.40}"
        raise ValueError(msg)

    def previous(self, window: Window) -> Window:
        """Return the tumbling window that ends where `window` begins."""
        return self.tumbling(window.kind, _start(window) - 1)

    def rolling(self, kind: str, minute: int) -> Window:
        """Return the rolling window at `minute`: the bucket now running and those before it.

        Its start is rounded down to a bucket, so `last_1h` covers 61 minutes.
        """
        grain = GRAIN_OF[kind]
        start = self.buckets.start(grain, minute - _ROLLING_MINUTES[kind])
        return Window(kind, start, self.buckets.end(grain, self.buckets.start(grain, minute)))

    def slots(self, minute: int) -> tuple[Slot, ...]:
        """Return the current windows at `minute` with the names that publishers show them under.

        Each tumbling kind, the one before it as `<kind>@previous`, lifetime and the rolling kinds.
        """
        known, slots = self._slots
        if known != minute:
            slots = tuple(self._find_slots(minute))
            self._slots = minute, slots
        return slots

    def quarter_start(self, minute: int) -> int:
        """Return the first minute of the local quarter of a year that contains `minute`."""
        return self.buckets.calendar.quarter_start(minute)

    # ------------------------------------------------------------------------- cells

    def cells(self, window: Window) -> tuple[Grain, tuple[int, ...]]:
        """Return the grain and the buckets that `window` is the sum of."""
        grain = GRAIN_OF[window.kind]
        if window.kind in STORED:
            return grain, (LIFETIME_BUCKET if window.start_minute is None else window.start_minute,)
        starts = self._starts.get(window)
        if starts is None:
            starts = self._find_starts(grain, window)
            _remember(self._starts, window, starts)
        return grain, starts

    def touched(self, grain: Grain, bucket: int) -> tuple[Window, ...]:
        """Return the tumbling or lifetime windows that are sums of this grain and contain the bucket.

        The finest first; the first is the cell itself.
        """
        key = grain, bucket
        windows = self._touched.get(key)
        if windows is None:
            windows = (
                (LIFETIME_WINDOW,)
                if grain is Grain.LIFETIME
                else tuple(self.tumbling(kind, bucket) for kind in _TOUCHED[grain])
            )
            _remember(self._touched, key, windows)
        return windows

    def stored(self, grain: Grain, bucket: int) -> tuple[Stored, ...]:
        """Return the cell of this grain and the coarser ones that contain it, and how long each is kept."""
        key = grain, bucket
        stored = self._stored.get(key)
        if stored is None:
            stored = tuple(self._find_stored(wider, bucket) for wider in _GRAINS[grain:])
            _remember(self._stored, key, stored)
        return stored

    def is_kept(self, window: Window, newest_minute: int) -> bool:
        """Tell whether all cells of `window` are still kept when `newest_minute` has been seen."""
        if window.start_minute is None:
            return True
        grain = GRAIN_OF[window.kind]
        return self.buckets.is_kept(grain, window.start_minute, newest_minute)

    @staticmethod
    def final_minute(window: Window) -> int | None:
        """Return the minute that complete_until must reach for `window` to be final; None: never."""
        lateness = LATENESS_MINUTES.get(window.kind)
        return (
            None if lateness is None or window.end_minute is None else window.end_minute + lateness
        )

    # ------------------------------------------------------------------------- finding

    def _find_slots(self, minute: int) -> list[Slot]:
        slots = []
        for kind in TUMBLING:
            window = self.tumbling(kind, minute)
            slots += [Slot(kind, window), Slot(f"{kind}@previous", self.previous(window))]
        slots.append(Slot(LIFETIME, LIFETIME_WINDOW))
        slots += [Slot(kind, self.rolling(kind, minute)) for kind in ROLLING]
        return slots

    def _find_starts(self, grain: Grain, window: Window) -> tuple[int, ...]:
        start, end = _start(window), window.end_minute or 0
        if grain is Grain.MINUTE:
            return tuple(range(start, end))
        starts = []
        while start < end:
            starts.append(start)
            start = self.buckets.end(grain, start)
        return tuple(starts)

    def _find_stored(self, grain: Grain, minute: int) -> Stored:
        start = self.buckets.start(grain, minute)
        kept = self.buckets.retention.kept_minutes(grain)
        return Stored(
            Cell(grain, start),
            _FOR_EVER if kept is None else self.buckets.end(grain, start) + kept,
        )


def _start(window: Window) -> int:
    if window.start_minute is None:
        msg = f"window: expected one with a start, got {window.kind!r:.40}"
        raise ValueError(msg)
    return window.start_minute


def _remember(memo: dict[_Key, _Found], key: _Key, found: _Found) -> None:
    if len(memo) >= _MEMO_LIMIT:
        memo.clear()
    memo[key] = found
