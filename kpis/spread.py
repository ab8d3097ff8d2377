"""Spreads an amount evenly over whole minutes, exactly: the parts sum to the amount."""

from typing import NamedTuple

from kpis.calendar import MINUTE_MS


class Spread(NamedTuple):
    """`amount` units over the minutes [start, end); the first minutes carry the remainder.

    Source: contract, section 3, "Cost and report rows".
    """

    start_minute: int
    end_minute: int
    amount: int

    def between(self, first: int, stop: int) -> int:
        """Return the part of the amount in minutes [first, stop), which lie inside the spread."""
        share, remainder = divmod(self.amount, self.end_minute - self.start_minute)
        longer = min(stop - self.start_minute, remainder) - min(
            first - self.start_minute, remainder
        )
        return share * (stop - first) + longer


def spread(start_ms: int, as_of_ms: int, amount: int) -> Spread:
    """Spread `amount` from the minute that contains `start_ms` up to `as_of_ms`, at least one minute."""
    start = start_ms // MINUTE_MS
    end = -(-as_of_ms // MINUTE_MS)
    return Spread(start, max(end, start + 1), amount)
