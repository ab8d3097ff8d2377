"""Up to when the cost of each channel is known.

Source: contract, section 3, `cost_complete_until`.
"""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush


class CostReports:
    """The minutes up to which the live cost rows of each channel were reported, with their number.

    A number may be below 0 for a while: what takes a row away may be read before what added it.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}
        self._latest: dict[str, list[int]] = {}

    def add(self, channel: str, minute: int, count: int) -> int:
        """Add `count` rows of a channel reported up to `minute`; return their number, 0 to forget it."""
        counts = self._counts.setdefault(channel, {})
        before = counts.get(minute, 0)
        total = before + count
        if total:
            counts[minute] = total
        else:
            counts.pop(minute, None)
        if before <= 0 < total:
            self._push(channel, minute)
        if not counts:
            del self._counts[channel]
            self._latest.pop(channel, None)
        return total

    def complete_until_minute(self, channel: str) -> int | None:
        """Return the minute before which the channel's cost is known; None without a live row."""
        counts, latest = self._counts.get(channel), self._latest.get(channel)
        if counts is None or latest is None:
            return None
        while latest and counts.get(-latest[0], 0) <= 0:
            heappop(latest)
        return -latest[0] if latest else None

    def all_complete_until_minute(self, channels: Iterable[str]) -> int | None:
        """Return the minute before which the cost of all these channels is known.

        None if one of them has no live row, or if there are none.
        """
        minutes = [self.complete_until_minute(channel) for channel in channels]
        known = [minute for minute in minutes if minute is not None]
        return min(known) if known and len(known) == len(minutes) else None

    def items(self) -> Iterator[tuple[str, int, int]]:
        """Return (channel, minute, number) of all rows to store, in order; `add` takes them in again."""
        for channel in sorted(self._counts):
            counts = self._counts[channel]
            yield from ((channel, minute, counts[minute]) for minute in sorted(counts))

    def _push(self, channel: str, minute: int) -> None:
        latest = self._latest.setdefault(channel, [])
        heappush(latest, -minute)
        counts = self._counts[channel]
        if len(latest) > 2 * len(counts) + 16:
            # Minutes that came and went while nobody asked.
            latest[:] = [-minute for minute, count in counts.items() if count > 0]
            heapify(latest)
