"""Who watches the live page: one reading of the board serves all of them, each change encoded once."""

import asyncio
import gzip
import logging
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import msgspec

from streams.board import Board, BoardReader, Change, changes
from streams.clock import Clock

READ_SECONDS: Final = 1.0
PING_SECONDS: Final = 15.0
RETRY_MS: Final = 2_000
MOST_VIEWERS: Final = 500
MOST_WAITING: Final = 8
"""Events that may wait for a slow viewer; then it is cut off, and gets a new board when it is back."""

# A gzip stream without an end; what follows are deflate blocks that refer to nothing before them.
GZIP_HEAD: Final = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF))
_RAW_DEFLATE: Final = -15
_LEVEL: Final = 1

_LOG = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class Event:
    """A piece of the stream, plain and as deflate blocks that any viewer's stream can go on with."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    @cached_property
    def deflated(self) -> bytes:
        """The same, compressed; once for all who ask."""
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
        return compressor.compress(self.text) + compressor.flush(zlib.Z_FULL_FLUSH)


class Document:
    """A board as JSON, plain and packed; each is made once for all who ask."""

    def __init__(self, board: Board) -> None:
        self._board = board

    @cached_property
    def body(self) -> bytes:
        """The JSON."""
        return _encode(self._board)

    @cached_property
    def packed(self) -> bytes:
        """The same, as a gzip file."""
        return gzip.compress(self.body, _LEVEL, mtime=0)


def event(number: int, name: str, content: Board | Change) -> Event:
    """Return a server-sent event; JSON has no line breaks."""
    return Event(b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), _encode(content)))


GREETING: Final = Event(b"retry: %d\n\n" % RETRY_MS)
# Not a comment: a page does not hear those. Without data it would not hear an event either.
PING: Final = Event(b"event: ping\ndata: {}\n\n")


@dataclass(eq=False, slots=True)
class Viewer:
    """Somebody who watches.

    Args:
        is_gone: Tells whether the connection has ended.
        cut: Ends the connection at once.
    """

    is_gone: Callable[[], bool]
    cut: Callable[[], None]
    has_board: bool = False
    is_over: bool = False
    _waiting: deque[Event] = field(default_factory=deque)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, event: Event) -> None:
        """Add an event; end the connection of one who is too slow."""
        if self.is_over:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.end()
            self.cut()
            return
        self._waiting.append(event)
        self._filled.set()

    def end(self) -> None:
        """Let `next` return None from now on."""
        self.is_over = True
        self._waiting.clear()
        self._filled.set()

    async def next(self) -> Event | None:
        """Return the next event, a ping if there is none for a while, None at the end."""
        if not self._waiting and not self.is_over:
            self._filled.clear()
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._filled.wait()
            except TimeoutError:
                return PING
        return None if self.is_over else self._waiting.popleft()


class Audience:
    """Reads the board once a second while anybody watches, and tells all what changed.

    Args:
        reader: Reads the board.
        clock: Paces the reading.
        most: How many may watch at a time.
    """

    def __init__(self, reader: BoardReader, clock: Clock, most: int = MOST_VIEWERS) -> None:
        self._reader = reader
        self._clock = clock
        self._most = most
        self._viewers: set[Viewer] = set()
        self._number = 0
        self._board: Board | None = None
        self._document: Document | None = None
        self._read_at = 0.0
        self._entrance: Event | None = None
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def is_reading(self) -> bool:
        """Whether the board is read again and again."""
        return self._task is not None

    async def document(self) -> Document:
        """Return the board, at most a second old."""
        async with self._reading:
            age = self._clock.monotonic_seconds() - self._read_at
            if self._document is None or age >= READ_SECONDS:
                await self._look()
            assert self._document is not None  # noqa: S101 - it was just made
            return self._document

    def join(self, viewer: Viewer) -> bool:
        """Let somebody watch; False if there is no room."""
        if len(self._viewers) >= self._most or self._is_stopping:
            return False
        self._viewers.add(viewer)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="live page")
        elif self._board is not None:
            self._show_all(viewer, self._board)
        return True

    def leave(self, viewer: Viewer) -> None:
        """Forget somebody."""
        self._viewers.discard(viewer)

    async def stop(self) -> None:
        """Send everybody away and end reading."""
        self._is_stopping = True
        self._end_viewers()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._reader.close()

    def _end_viewers(self) -> None:
        for viewer in self._viewers:
            viewer.end()
        self._viewers.clear()

    async def _run(self) -> None:
        try:
            await self._read_while_watched()
        except Exception as error:  # noqa: BLE001 - counting goes on whatever the page does
            # They come back by themselves.
            _LOG.error("live page: expected to read the board, got %r", error)
            self._end_viewers()
        finally:
            # In the turn that found nobody: who joins later starts the next reading.
            self._task = None

    async def _read_while_watched(self) -> None:
        while self._viewers:
            began = self._clock.monotonic_seconds()
            async with self._reading:
                await self._look()
            rest = READ_SECONDS - (self._clock.monotonic_seconds() - began)
            await asyncio.sleep(max(rest, READ_SECONDS / 10))
            self._drop_gone()

    def _drop_gone(self) -> None:
        for viewer in [viewer for viewer in self._viewers if viewer.is_gone()]:
            viewer.end()
            self._viewers.discard(viewer)

    async def _look(self) -> None:
        before, after = self._board, await self._reader.read()
        self._board, self._read_at = after, self._clock.monotonic_seconds()
        self._document = Document(after)
        self._entrance = None
        self._number += 1
        known = [viewer for viewer in self._viewers if viewer.has_board]
        for viewer in self._viewers.difference(known):
            self._show_all(viewer, after)
        change = changes(before, after) if known and before is not None else None
        if change is not None:
            told = event(self._number, "change", change)
            for viewer in known:
                viewer.put(told)

    def _show_all(self, viewer: Viewer, board: Board) -> None:
        if self._entrance is None:
            self._entrance = event(self._number, "board", board)
        viewer.has_board = True
        viewer.put(self._entrance)
