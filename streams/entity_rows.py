"""What the kinds of entities of a shard share: rows that are taken up once a chunk, and what they send."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from msgspec import msgpack

from kpis.ledger import Cause, Causes
from streams.messages import Deltas, shard_of
from streams.stages import Context

Entity = TypeVar("Entity")
Shown = TypeVar("Shown")

LATE: Final = Causes(Cause.LATE_EVENT, Cause.LATE_EVENT)
LEAD_CORRECTED: Final = Causes(Cause.LEAD_CORRECTED, Cause.LEAD_CORRECTED)
_LEAST: Final = Causes(Cause.OUTCOME, Cause.OUTCOME)

_encode = msgpack.Encoder().encode


class Work:
    """The rows of one shard's entities, and what is to be sent at the next commit.

    `newest_minute` is the newest event time that was seen, by which grains are kept.
    """

    def __init__(self, context: Context) -> None:
        self.deployment = context.deployment
        self.tally = context.tally
        self.table = context.tables["journeys"]
        self.partitions = context.deployment.partitions
        self.deltas = Deltas(self.partitions)
        self.told: dict[int, list[object]] = {}
        self.newest_minute = 0

    def tell(self, key: bytes, item: object) -> None:
        """Send an item to the shard of the entity with this key."""
        self.told.setdefault(shard_of(key, self.partitions), []).append(item)

    def tell_all(self, item: object) -> None:
        """Send an item to the entities of every shard."""
        for shard in range(self.partitions):
            self.told.setdefault(shard, []).append(item)


@dataclass(slots=True)
class TakenUp(Generic[Entity, Shown]):
    """An entity that is being changed, what others knew of it before, and why it changes."""

    entity: Entity
    before: Shown
    causes: Causes = _LEAST

    def because(self, causes: Causes) -> None:
        """Add a reason for its change: of several, the greatest counts on each basis."""
        period, cohort = self.causes
        self.causes = Causes(max(period, causes.period), max(cohort, causes.cohort))


class Rows(Generic[Entity, Shown]):
    """The rows of one kind of entity.

    A row is taken up once per chunk, however many events are about it, and put down at the chunk's
    end: then what others know of it is told anew. What decides what others know besides the row (a
    rate, a pointer) changes only after all rows that it concerns were taken up.
    """

    def __init__(
        self,
        work: Work,
        decode: Callable[[bytes], Entity],
        encode: Callable[[Entity], bytes] = _encode,
    ) -> None:
        self._work = work
        self._decode = decode
        self._encode = encode
        self._taken_up: dict[bytes, TakenUp[Entity, Shown]] = {}

    def take_up(self, key: bytes, causes: Causes = _LEAST) -> TakenUp[Entity, Shown]:
        """Return an entity to be changed, and take note of why."""
        taken = self._taken_up.get(key)
        if taken is None:
            entity = self.load(key)
            taken = self._taken_up[key] = TakenUp(entity, self._show(key, entity))
        taken.because(causes)
        return taken

    def is_known(self, key: bytes) -> bool:
        """Tell whether there is such an entity in this shard."""
        return key in self._taken_up or self._work.table.get(key) is not None

    def load(self, key: bytes) -> Entity:
        """Return an entity as its row has it, a new one if there is none."""
        row = self._work.table.get(key)
        return self._new() if row is None else self._decode(row)

    def put_down(self) -> None:
        """Write what was taken up, and tell what changed."""
        taken_up, self._taken_up = self._taken_up, {}
        for key, taken in taken_up.items():
            self._settle(key, taken)
            self._write(key, taken.entity)

    def _write(self, key: bytes, entity: Entity) -> None:
        table = self._work.table
        if not self._is_empty(entity):
            table.put(key, self._encode(entity))
        elif table.get(key) is not None:
            table.delete(key)

    def _new(self) -> Entity:
        """Return an entity nothing is known of."""
        raise NotImplementedError

    def _is_empty(self, entity: Entity) -> bool:
        """Tell whether an entity needs no row."""
        raise NotImplementedError

    def _show(self, key: bytes, entity: Entity) -> Shown:
        """Return what others know of an entity."""
        raise NotImplementedError

    def _settle(self, key: bytes, taken: TakenUp[Entity, Shown]) -> None:
        """Tell others what changed."""
        raise NotImplementedError
