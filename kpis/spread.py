"""Spreads an amount evenly over whole minutes, exactly: the parts sum to the amount."""

from bisect import bisect_right
from typing import NamedTuple

from kpis.calendar import MINUTE_MS


class Spread(NamedTuple):
    """`amount` units over the minutes [start, end); the first minutes carry the remainder.

    Of a negative amount too: a credit takes back, minute by minute, what a bill of its size booked.

    Source: contract, section 3, "Cost and report rows".
    """

    start_minute: int
    end_minute: int
    amount: int

    def between(self, first: int, stop: int) -> int:
        """Return the part of the amount in minutes [first, stop), which lie inside the spread."""
        share, remainder = divmod(abs(self.amount), self.end_minute - self.start_minute)
        longer = min(stop - self.start_minute, remainder) - min(
            first - self.start_minute, remainder
        )
        part = share * (stop - first) + longer
        return part if self.amount >= 0 else -part


class DailySpread(NamedTuple):
    """An amount per part of a business day, each spread evenly over the minutes of its part.

    The parts begin at `starts`, ascending, and follow each other up to `end_minute`. An amount of None
    is not known, because the day has no rate.

    Source: contract, section 2, "Amounts".
    """

    starts: tuple[int, ...]
    end_minute: int
    amounts: tuple[int | None, ...]

    def between(self, first: int, stop: int) -> tuple[int, int]:
        """Return the known amount in minutes [first, stop), and how many of them have an unknown one."""
        total = unknown = 0
        index = bisect_right(self.starts, first) - 1
        while first < stop:
            part_end = self._end(index)
            upto = min(stop, part_end)
            amount = self.amounts[index]
            if amount is None:
                unknown += upto - first
            else:
                total += Spread(self.starts[index], part_end, amount).between(first, upto)
            first, index = upto, index + 1
        return total, unknown

    def _end(self, index: int) -> int:
        following = index + 1
        return self.starts[following] if following < len(self.starts) else self.end_minute


def spread(start_ms: int, as_of_ms: int, amount: int) -> Spread:
    """Spread `amount` from the minute that contains `start_ms` up to `as_of_ms`, at least one minute."""
    start = start_ms // MINUTE_MS
    end = -(-as_of_ms // MINUTE_MS)
    return Spread(start, max(end, start + 1), amount)
