"""How far what came of the input has got, hop by hop between the entities of all shards."""

from collections.abc import Sequence
from typing import Final

from streams.messages import Envelope
from streams.stages import HOPS, Marks

_FROM_INTAKE: Final = "intake"


class Levels:
    """The marks an entities stage was sent, by the number of hops they speak of.

    Everything that arrived before level n, and all that came of it by n hops between entities, was
    applied here: level 0 is the least mark of all intake stages, each further one the least of what
    all entities stages said of the level below it. No level falls.
    """

    def __init__(self, levels: Sequence[dict[str, int]] = ()) -> None:
        self._marks = [Marks(marks) for marks in levels] or [Marks() for _ in range(HOPS + 1)]

    def take(self, envelope: Envelope) -> bool:
        """Remember the marks of an envelope and tell whether one of them is news."""
        first = 0 if envelope.stage == _FROM_INTAKE else 1
        sender = str(envelope.sender)
        news = [
            marks.take(sender, mark_ms)
            for marks, mark_ms in zip(self._marks[first:], envelope.marks, strict=False)
        ]
        return any(news)

    def least(self, hops: int, senders: int) -> int | None:
        """Return the level of so many hops in ms; None until all `senders` have told."""
        return self._marks[hops].least(senders)

    def to_entities(self, senders: int) -> tuple[int, ...]:
        """Return what to tell the entities: all levels but the last, as far as they are known."""
        return self._known(range(HOPS), senders)

    def to_merge(self, senders: int) -> tuple[int, ...]:
        """Return what to tell merge: the last level, if it is known."""
        return self._known(range(HOPS, HOPS + 1), senders)

    def dump(self) -> list[dict[str, int]]:
        """Return what the constructor takes."""
        return [dict(marks) for marks in self._marks]

    def _known(self, hops: range, senders: int) -> tuple[int, ...]:
        known: list[int] = []
        for level in hops:
            mark_ms = self.least(level, senders)
            if mark_ms is None:
                break
            known.append(mark_ms)
        return tuple(known)
