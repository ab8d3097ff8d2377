"""The entities stages of several shards, whose topic is handed back to them as a broker would."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry

from kpis.calendar import MINUTE_MS
from kpis.events import FxRateSet
from kpis.facts import Facts, add, widen
from kpis.reading import read
from kpis.retention import Grain
from streams.app import deployment_of
from streams.clock import ManualClock
from streams.entities import Entities
from streams.messages import (
    MAY_WAIT,
    Delta,
    Envelope,
    Forwarded,
    Reported,
    TargetTold,
    decode_envelope,
    decode_merge_item,
    encode,
    entity_key,
    shard_of,
)
from streams.metrics import Metrics
from streams.outbox import Outbox, packed
from streams.settings import Settings, load
from streams.stages import Context
from streams.tables import Table, tables_of
from streams.tally import Tally
from streams.topics import topics_of
from streams.transport import Batch, Chunk
from tests.streams.one_shard import NOW_MS, Record

Pace = Callable[[int], int]
"""How many of so many waiting records a shard reads before its next commit."""

SETTINGS: Final = load({"LEADPULSE_CONFIG": ""})
TOPICS: Final = topics_of(SETTINGS)

Cell = tuple[str, str, str, int, int]


@dataclass
class Shard:
    """One stage, what it committed, and how far it had read then."""

    number: int
    stage: Entities
    tables: dict[str, Table]
    tally: Tally
    changelogs: dict[str, dict[bytes, bytes]] = field(default_factory=lambda: defaultdict(dict))
    committed: int = 0
    position: int = 0


class EntityShards:
    """All shards of a deployment, as far as entities are concerned."""

    def __init__(self, partitions: int = 3, settings: Settings = SETTINGS) -> None:
        self.partitions = partitions
        self.clock = ManualClock(NOW_MS)
        metrics = Metrics(CollectorRegistry(), "test")
        self.deployment = deployment_of(settings, partitions, metrics, self.clock)
        self.entities: list[list[bytes]] = [[] for _ in range(partitions)]
        self.merged: list[Envelope] = []
        self.told: list[list[Any]] = []
        self.rejects: list[dict[str, Any]] = []
        self.shards = [self._opened(number) for number in range(partitions)]
        self._offset = 0

    def _opened(self, number: int) -> Shard:
        tables, tally = tables_of(TOPICS, number), Tally()
        stage = Entities(Context(self.deployment, number, tables, tally))
        return Shard(number, stage, tables, tally)

    # ------------------------------------------------------------------------- what intake does

    def tell(self, topic: str, *events: dict[str, object], timestamp_ms: int = NOW_MS) -> None:
        """Forward events of a topic to their shards."""
        for event in events:
            self.forward(topic, json.dumps(event).encode(), timestamp_ms, self._offset)
            self._offset += 1

    def forward(self, topic: str, value: bytes, timestamp_ms: int, offset: int) -> None:
        """Forward the event in a record's value to its shard."""
        event: Any = read(topic, value, timestamp_ms, self.deployment.rules).event
        raw = value if isinstance(event, MAY_WAIT) else b""
        item = Forwarded(event, timestamp_ms, topic, 0, offset, raw)
        for target in self._targets(event):
            self._write("intake", 0, target, (), [item])

    def _targets(self, event: Any) -> Sequence[int]:
        if isinstance(event, FxRateSet):
            return range(self.partitions)
        return [shard_of(entity_key(event), self.partitions)]

    def mark(self, mark_ms: int) -> None:
        """Say that everything that arrived before `mark_ms` was forwarded."""
        for sender in range(self.partitions):
            for target in range(self.partitions):
                self._write("intake", sender, target, (mark_ms,), [])

    def _write(
        self, stage: str, sender: int, target: int, marks: tuple[int, ...], items: list[object]
    ) -> None:
        group = next(packed(items), [])
        newest = NOW_MS // MINUTE_MS
        envelope = Envelope(sender, stage, marks, newest, None, group)
        self.entities[target].append(encode(envelope))

    # ------------------------------------------------------------------------- what shards do

    def settle(self, pace: Pace = lambda waiting: waiting) -> None:
        """Let all shards read and commit until nothing comes any more."""
        while self.has_more:
            for shard in self.shards:
                self.work(shard.number, pace)

    @property
    def has_more(self) -> bool:
        """Whether something waits to be read."""
        return any(shard.position < len(self.entities[shard.number]) for shard in self.shards)

    def work(self, number: int, pace: Pace = lambda waiting: waiting) -> None:
        """Let one shard read something and commit."""
        self.read(number, pace)
        self.commit(number)

    def read(self, number: int, pace: Pace = lambda waiting: waiting) -> None:
        """Let one shard read something."""
        shard, log = self.shards[number], self.entities[number]
        start = shard.position
        end = start + pace(len(log) - start)
        records = [Record(at, log[at]) for at in range(start, end)]
        batch = Batch(start, end, records)
        shard.stage.apply(Chunk(TOPICS.entities, number, start, end, [batch]))
        shard.position = end

    def commit(self, number: int) -> None:
        """Let one shard write what came of what it read."""
        self.clock.advance(timedelta(seconds=1))
        shard, outbox = self.shards[number], Outbox()
        shard.stage.flush(outbox)
        for table in shard.tables.values():
            table.flush(outbox)
        shard.committed = shard.position
        for (topic, partition), records in outbox._records.items():
            for record in records:
                self._take(shard, topic, partition, record.key, record.value)

    def _take(
        self, shard: Shard, topic: str, partition: int, key: bytes | None, value: bytes | None
    ) -> None:
        if topic == TOPICS.entities:
            assert value is not None
            self.entities[partition].append(value)
        elif topic == TOPICS.deltas:
            assert value is not None
            envelope = decode_envelope(value)
            self.merged.append(envelope)
            self.told.append([(partition, decode_merge_item(raw)) for raw in envelope.items])
        elif topic == TOPICS.rejects:
            assert value is not None
            self.rejects.append(json.loads(value))
        else:
            rows = shard.changelogs[topic]
            assert key is not None
            rows.pop(key, None)
            if value is not None:
                rows[key] = value

    def crash(self, number: int) -> None:
        """Lose one shard with what it did not commit, and open it again from what it did."""
        before = self.shards[number]
        shard = self.shards[number] = self._opened(number)
        for table in shard.tables.values():
            for key, value in before.changelogs[table.changelog].items():
                table.load(key, value)
            table.loaded()
        shard.changelogs = before.changelogs
        shard.committed = shard.position = before.committed
        for _ in shard.stage.restore():
            pass

    # ------------------------------------------------------------------------- what came of it

    def to_merge(self) -> list[Any]:
        """Return everything that merge was told, in order, with the shard it was told to."""
        return [told for items in self.told for told in items]

    def cells(self) -> dict[Cell, Facts]:
        """Return the sums of all deltas of campaigns."""
        sums: dict[Cell, Facts] = {}
        for _, item in self.to_merge():
            if isinstance(item, Delta) and item.campaign_id is not None:
                cell = (item.basis, str(item.channel), item.campaign_id, item.grain, item.bucket)
                add(sums.setdefault(cell, {}), widen(item.facts))
        return {cell: facts for cell, facts in sums.items() if facts}

    def totals(self, basis: str, channel: str | None = None) -> Facts:
        """Return the sums of a basis over all time."""
        total: Facts = {}
        for cell, facts in self.cells().items():
            if cell[0] == basis and channel in (None, cell[1]):
                add(total, facts)
        return total

    def daily(self) -> dict[Cell, Facts]:
        """Return the sums by day, however fine the cells were; what has no time, over lifetime."""
        sums: dict[Cell, Facts] = {}
        for (basis, channel, campaign_id, grain, bucket), facts in self.cells().items():
            day = (Grain.DAY, self.deployment.buckets.start(Grain.DAY, bucket))
            coarse = (grain, bucket) if grain == Grain.LIFETIME else day
            add(sums.setdefault((basis, channel, campaign_id, *coarse), {}), facts)
        return {cell: facts for cell, facts in sums.items() if facts}

    def reported(self) -> dict[tuple[int, str, int], int]:
        """Return how many rows tell of a channel up to a minute, by the shard that was told."""
        counts: dict[tuple[int, str, int], int] = defaultdict(int)
        for shard, item in self.to_merge():
            if isinstance(item, Reported):
                counts[shard, item.channel, item.minute] += item.count
        return {key: count for key, count in counts.items() if count}

    def targets(self) -> dict[tuple[int, tuple[str, ...]], TargetTold]:
        """Return the latest that was told of each target, by the shard that was told."""
        told = ((shard, item) for shard, item in self.to_merge() if isinstance(item, TargetTold))
        return {(shard, item.key): item for shard, item in told}

    def is_empty(self) -> bool:
        """Tell whether no shard has a row that waits for anything."""
        waiting = any(self.rows(prefix) for prefix in (b"a", b"c", b"d", b"i"))
        return not waiting and not sum(shard.tally.parked for shard in self.shards)

    def rows(self, prefix: bytes) -> list[bytes]:
        """Return the keys of all rows that begin with `prefix`."""
        tables = (shard.tables["journeys"] for shard in self.shards)
        return sorted(key for table in tables for key, _ in table.items() if key[:1] == prefix)
