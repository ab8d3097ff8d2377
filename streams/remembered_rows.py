"""Rows of what is recognised by its id for some days, and is forgotten then."""

from collections.abc import Callable
from typing import Generic

from streams.deadlines import Deadlines
from streams.entity_rows import Entity, Rows, Shown, Work


class RememberedRows(Rows[Entity, Shown], Generic[Entity, Shown]):
    """Rows that go when nothing can change them any more."""

    def __init__(self, work: Work, decode: Callable[[bytes], Entity]) -> None:
        super().__init__(work, decode)
        self._keep_ms = work.deployment.keep_ms
        self.deadlines = Deadlines(work.table)

    def forget(self, complete_until_ms: int) -> None:
        """Forget what nothing can change any more."""
        if not self.deadlines.is_due(complete_until_ms):
            return
        # What this chunk said of them so far counts.
        self.put_down()
        for key in self.deadlines.pass_before(complete_until_ms):
            if self._work.table.get(key) is None:
                continue
            if self._forget_ms(self.load(key)) < complete_until_ms:
                self._work.table.delete(key)

    def _forget_ms(self, entity: Entity) -> int:
        """Return from which `complete_until` on an entity may be forgotten."""
        raise NotImplementedError
