"""Stops a worker that hangs: Faust's consumer has a thread of its own and heartbeats on meanwhile."""

import sys
import threading
import traceback
from collections.abc import Callable, Hashable
from typing import Final

LOOP_TICKS: Final = 10
PROGRESS_TICKS: Final = 60
TICK_SECONDS: Final = 1.0


class Stall:
    """Counts how many ticks something that has to change has not changed.

    It counts ticks and not time: a process that was paused has missed its ticks too, and is not stalled.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: Hashable = object()
        self._ticks = 0

    def tick(self, value: Hashable, *, is_expected: bool = True) -> bool:
        """Note the value at this tick; return whether it should have changed long ago."""
        if value != self._last or not is_expected:
            self._last = value
            self._ticks = 0
            return False
        self._ticks += 1
        return self._ticks >= self._limit


class Watchdog:
    """A thread that looks at the event loop and the shards once a second."""

    def __init__(
        self,
        progress: Callable[[], dict[str, tuple[Hashable, bool]]],
        stop_worker: Callable[[str], None],
    ) -> None:
        self._progress = progress
        self._stop_worker = stop_worker
        self._beats = 0
        self._loop_thread = threading.get_ident()
        self._loop = Stall(LOOP_TICKS)
        self._stalls: dict[str, Stall] = {}
        self._ended = threading.Event()

    def beat(self) -> None:
        """Say that the event loop turns; called by the loop's own thread."""
        self._beats += 1
        self._loop_thread = threading.get_ident()

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """End watching."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            if (fault := self.look()) is not None:
                self._stop_worker(fault)

    def look(self) -> str | None:
        """Take one look and return what stands still, None if all is well."""
        if self._loop.tick(self._beats):
            why = f"event loop: expected a turn within {LOOP_TICKS} s, got none"
            return f"{why}; it is at\n{self._where_the_loop_is()}"
        progress = self._progress()
        self._stalls = {name: self._stalls.get(name, Stall(PROGRESS_TICKS)) for name in progress}
        for name, (value, is_expected) in progress.items():
            if self._stalls[name].tick(value, is_expected=is_expected):
                return f"{name}: expected progress within {PROGRESS_TICKS} s, got none"
        return None

    def _where_the_loop_is(self) -> str:
        frames = sys._current_frames()  # noqa: SLF001 - documented, for just this
        return "".join(traceback.format_stack(frames.get(self._loop_thread)))
