"""The one place that reads the machine's time."""

import time
from datetime import timedelta
from typing import Protocol


class Clock(Protocol):
    """What the streams ask for the time."""

    def now_ms(self) -> int:
        """Return the milliseconds since 1970 UTC; may jump when the machine's clock is set."""
        ...

    def monotonic_seconds(self) -> float:
        """Return seconds that only ever grow, for deadlines and durations."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Return the milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_seconds(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 0

    def now_ms(self) -> int:
        """Return the milliseconds since 1970 UTC that it was moved to."""
        return self._now_ms

    def monotonic_seconds(self) -> float:
        """Return the seconds that it has advanced."""
        return self._monotonic_ms / 1000

    def advance(self, step: timedelta) -> None:
        """Let `step` pass on both clocks.

        Raises:
            ValueError: if `step` is negative; time does not go back.
        """
        milliseconds = step // timedelta(milliseconds=1)
        if milliseconds < 0:
            msg = f"advance: expected a step that is not negative, got {step}"
            raise ValueError(msg)
        self._now_ms += milliseconds
        self._monotonic_ms += milliseconds
