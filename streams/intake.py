"""Stage 1: checks every record, counts volume events, and forwards the others to their entity."""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Final

from kpis.calendar import MINUTE_MS
from kpis.cloud_events import is_cloud_event
from kpis.contributions import Place
from kpis.events import (
    OTHER_CHANNEL,
    ClickRecorded,
    Event,
    FxRateSet,
    ImpressionServed,
    VisitStarted,
    newest_ms,
)
from kpis.facts import PERIOD
from kpis.reading import Ignored, Refused, read, reject_value
from kpis.retention import LIFETIME_BUCKET, Grain
from kpis.visitors import AVAILABLE
from kpis.volume import LATE_MS, VolumeCounter, volume_facts
from streams.messages import MAY_WAIT, Deltas, Forwarded, entity_key, shard_of
from streams.outbox import Outbox
from streams.stages import MARK_EVERY_MS, SKEW_MS, Context, Progress, Sender
from streams.transport import Chunk, Record, Watermark

ACCEPTED: Final = "accepted"
IGNORED: Final = "ignored"
_VOLUME: Final = ("impressions", "clicks")
_HEADERS: Final = attrgetter("headers")


class Intake:
    """What one shard has read of the inputs since its last commit; it keeps little longer."""

    name = "intake"

    def __init__(self, context: Context) -> None:
        self._shard = context.partition
        self._deployment = context.deployment
        self._tally = context.tally
        self._memo = context.tables["positions"]
        self._rules = context.deployment.rules
        topics = context.deployment.topics
        self._short = {full: short for short, full in topics.inputs.items()}
        self.positions: dict[str, int] = {}
        self._counters = {short: VolumeCounter(short, self._rules) for short in _VOLUME}
        partitions = context.deployment.partitions
        self._deltas = Deltas(partitions)
        self._forwards: dict[int, list[object]] = {}
        self._rejects: list[tuple[bytes, bytes]] = []
        self.pending_bytes = 0
        self._to_entities = Sender(self._shard, self.name, topics.entities, partitions)
        self._to_merge = Sender(self._shard, self.name, topics.deltas, partitions)
        self._marks: dict[str, int] = {}
        self._mark_due_ms = 0
        self._newest_minute = 0
        self._first_ms: int | None = None
        self._has_read = False

    def restore(self) -> Iterator[None]:
        """Take up the newest event time, which other shards may not have been told yet."""
        if (row := self._memo.get(self.name.encode())) is not None:
            self._newest_minute = int(row)
        yield

    # ------------------------------------------------------------------------- reading

    def apply(self, chunk: Chunk) -> None:
        """Count or forward every record of a chunk of an input topic."""
        short = self._short[chunk.topic]
        timestamp_ms = 0
        for batch in chunk.batches:
            records = batch.read()
            if not records:
                continue
            timestamp_ms = records[-1].timestamp
            if short in self._counters:
                bound_ms = min(records[0].timestamp, timestamp_ms)
                self._count_records(short, chunk, records, bound_ms)
            else:
                for record in records:
                    self._read(short, chunk, record)
        self.positions[chunk.topic] = chunk.end
        if timestamp_ms:
            self._has_read = True
            if self._first_ms is None:
                self._first_ms = timestamp_ms
            self._raise_mark(chunk.topic, timestamp_ms - SKEW_MS)

    def _count_records(
        self, short: str, chunk: Chunk, records: list[Record], bound_ms: int
    ) -> None:
        """Count what the counter knows how to, and read the others until one of them teaches it more."""
        if any(map(_HEADERS, records)):
            # What a header says of a record cannot be told from its value.
            clouds = [record for record in records if is_cloud_event(record.headers)]
            for record in clouds:
                self._read(short, chunk, record)
            if clouds:
                records = [record for record in records if not is_cloud_event(record.headers)]
        counter = self._counters[short]
        while records:
            left = counter.count([record.value for record in records], bound_ms)
            self._tally.outcome(short, ACCEPTED, len(records) - len(left))
            records = [records[i] for i in left]
            taught = (i for i, record in enumerate(records, 1) if self._read(short, chunk, record))
            records = records[next(taught, len(records)) :]

    def _read(self, short: str, chunk: Chunk, record: Record) -> bool:
        """Take one record and tell whether volume events like it can be counted from now on."""
        try:
            reading = read(short, record.value, record.timestamp, self._rules, record.headers)
        except Refused as refused:
            self._reject(short, refused, chunk, record)
            return False
        except Ignored as ignored:
            self._tally.outcome(short, IGNORED)
            self._tally.remarked(ignored.why)
            return False
        if reading.unknown_fields:
            self._tally.remarked("unknown_field", reading.unknown_fields)
        if reading.is_test:
            self._tally.outcome(short, "test")
            return False
        self._see(short, reading.event, record.timestamp)
        if not self._count(short, reading.event):
            self._forward(short, reading.event, chunk, record)
            return False
        self._tally.outcome(short, ACCEPTED)
        is_plain = not (reading.unknown_fields or is_cloud_event(record.headers))
        counter = self._counters.get(short)
        return counter is not None and is_plain and counter.learn(record.value or b"")

    def _reject(self, short: str, refused: Refused, chunk: Chunk, record: Record) -> None:
        place = (chunk.topic, chunk.partition, record.offset)
        value = reject_value(refused, *place, record.value, self._rules)
        self._rejects.append(("{}/{}/{}".format(*place).encode(), value))
        self.pending_bytes += len(value)
        self._tally.rejected(short, refused.reason)

    def _see(self, short: str, event: Event, timestamp_ms: int) -> None:
        newest_minute = newest_ms(event, timestamp_ms) // MINUTE_MS
        self._newest_minute = max(self._newest_minute, newest_minute)
        if timestamp_ms - event.envelope.occurred_ms > LATE_MS:
            self._tally.outcome(short, "late")
        self._remark_channel(getattr(event, "channel", None))

    def _remark_channel(self, channel: str | None, amount: int = 1) -> None:
        if channel == OTHER_CHANNEL and not self._rules.allow_unknown_channels:
            self._tally.remarked("other_channel", amount)

    def _count(self, short: str, event: Event) -> bool:
        match event:
            case ImpressionServed(impression_id=None):
                names = volume_facts(short, is_bot=event.is_bot, viewable=event.viewable)
            case VisitStarted():
                self._count_visit(event)
                return True
            case ClickRecorded(click_id=None):
                names = volume_facts(short, is_bot=event.is_bot, viewable=False)
            case _:
                return False
        minute = event.envelope.occurred_ms // MINUTE_MS
        place = Place(PERIOD, event.channel, event.campaign_id, Grain.MINUTE, minute)
        self._deltas.add_one(place, names, 1)
        return True

    def _count_visit(self, event: VisitStarted) -> None:
        if event.is_bot or not AVAILABLE:
            self._tally.remarked("bot_visit" if event.is_bot else "visit_without_sketches")
            return
        buckets = self._deployment.buckets
        day = buckets.start(Grain.DAY, event.envelope.occurred_ms // MINUTE_MS)
        is_kept = buckets.is_kept(Grain.DAY, day, self._newest_minute)
        grain, bucket = (Grain.DAY, day) if is_kept else (Grain.LIFETIME, LIFETIME_BUCKET)
        place = Place(PERIOD, event.channel, event.campaign_id, grain, bucket)
        self._deltas.add_visitor(place, event.visitor_id)

    def _forward(self, short: str, event: Any, chunk: Chunk, record: Record) -> None:
        partitions = self._deployment.partitions
        raw = record.value if isinstance(event, MAY_WAIT) and record.value is not None else b""
        forwarded = Forwarded(event, record.timestamp, short, chunk.partition, record.offset, raw)
        # Money is converted wherever there is some: a rate belongs to every shard.
        is_for_all = isinstance(event, FxRateSet)
        targets = range(partitions) if is_for_all else (shard_of(entity_key(event), partitions),)
        for target in targets:
            self._forwards.setdefault(target, []).append(forwarded)
            self.pending_bytes += len(record.value or b"")

    # ------------------------------------------------------------------------- marks

    def caught_up(self, topic: str, watermark: Watermark) -> None:
        """Raise the mark of a topic that has been read to its end, as a fetch said."""
        if watermark.fetched_ms is not None and self.positions.get(topic, 0) >= watermark.end:
            self._raise_mark(topic, watermark.fetched_ms - SKEW_MS)

    def _raise_mark(self, topic: str, mark_ms: int) -> None:
        self._marks[topic] = max(mark_ms, self._marks.get(topic, mark_ms))

    def _mark_ms(self) -> int | None:
        return min(self._marks.values()) if len(self._marks) == len(self._short) else None

    # ------------------------------------------------------------------------- writing

    def is_due(self) -> bool:
        """Tell whether records were read, or a mark is due."""
        now_ms = self._deployment.clock.now_ms()
        return self._has_read or (self._mark_ms() is not None and now_ms >= self._mark_due_ms)

    def flush(self, outbox: Outbox) -> None:
        """Write deltas, forwarded events, rejects and, about once a second, the mark."""
        self._take_counted()
        now_ms = self._deployment.clock.now_ms()
        marks: tuple[int, ...] = ()
        if now_ms >= self._mark_due_ms:
            mark_ms = self._mark_ms()
            marks = () if mark_ms is None else (mark_ms,)
            self._mark_due_ms = now_ms + MARK_EVERY_MS
        deltas = self._deltas.take()
        progress = Progress(marks, self._newest_minute, self._first_ms)
        self._to_merge.send(outbox, deltas, progress)
        self._to_entities.send(outbox, self._forwards, progress)
        for key, value in self._rejects:
            outbox.put(self._deployment.topics.rejects, self._shard, key, value)
        self._forwards = {}
        if self._has_read:
            self._memo.put(self.name.encode(), str(self._newest_minute).encode())
        self._rejects = []
        self.pending_bytes = 0
        self._first_ms = None
        self._has_read = False

    def _take_counted(self) -> None:
        for short, counter in self._counters.items():
            self._tally.outcome(short, "late", counter.take_late())
            for counted in counter.take():
                place = Place(
                    PERIOD, counted.channel, counted.campaign_id, Grain.MINUTE, counted.minute
                )
                self._deltas.add_one(place, counted.facts, counted.amount)
                self._remark_channel(counted.channel, counted.amount)
                self._newest_minute = max(self._newest_minute, counted.minute)
