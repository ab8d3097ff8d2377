"""Recomputes every number from the input topics and compares it with what was published; only reads."""

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from rich.console import Console

from kpis.calendar import MINUTE_MS, Calendar
from kpis.catalog import Catalog
from kpis.facts import BASES, Scope, Subject
from kpis.fold import Fold
from kpis.fold_entities import Reject
from kpis.leads import Funnel
from streams.clock import Clock, SystemClock
from streams.comparison import (
    Comparison,
    Expected,
    Hashes,
    RejectPlace,
    WantedRejects,
    compare_hashes,
    compare_records,
    compare_rejects,
    parsed,
    wrong_in_all,
)
from streams.ledger_comparison import Ledger, compare_ledger
from streams.problems import Problem
from streams.publishers import SLOTS
from streams.publishers.redis_hashes import SCOPES_KEY, hash_name, scope_of_member
from streams.settings import Settings
from streams.shown import complete_until_ms
from streams.top import redis_client
from streams.topic_reader import consumer_of, problem_of, progress_bar, read_until, seek_to_start
from streams.topics import CREATE, Topics, describe, topics_of

MOST_SHOWN: Final = 50
SETTLE_SECONDS: Final = 20.0
BILLS_SETTLE_SECONDS: Final = 120.0
"""With bills for a time to come the numbers move each minute: some of them may have to pass."""

_PAUSE_SECONDS: Final = 0.5
_SCOPES_PER_PIPELINE: Final = 100


def run(settings: Settings, console: Console | None = None) -> int:
    """Compare, print `exact: N events, M values` or the differences, and return the exit status.

    Raises:
        Problem: if Kafka or Redis does not answer, or a topic is missing.
    """
    return asyncio.run(verify(settings, console or Console()))


async def verify(settings: Settings, console: Console, settle_seconds: float | None = None) -> int:
    """Do what `run` does, in a running loop; outputs get `settle_seconds` to come to agree."""
    verifier = Verifier(settings, console, SystemClock(), settle_seconds)
    try:
        return await verifier.run()
    except (KafkaError, OSError) as error:
        raise await problem_of(settings, error) from error


class Verifier:
    """One comparison of one deployment."""

    def __init__(
        self, settings: Settings, console: Console, clock: Clock, settle_seconds: float | None
    ) -> None:
        self._settings = settings
        self._settle_seconds = settle_seconds
        self._topics: Topics = topics_of(settings)
        self._console = console
        self._clock = clock
        self._known: dict[int, Expected] = {}
        self._catalog = Catalog(settings.funnel.stages, settings.cohort.horizon_days)
        self._fold = Fold(
            settings.rules(),
            Funnel(settings.funnel.stages, settings.funnel.skipped == "imply"),
            Calendar(settings.time_zone),
            settings.retention_rule(),
            settings.park_ms,
            settings.keep_ms,
            settings.horizon_ms,
        )

    async def run(self) -> int:
        """Return 0 if every number agrees, else print what does not, or that there is none; return 1."""
        if self._settings.redis.is_on:
            # Counting may take minutes: whether there is something to compare with is asked before.
            async with redis_client(self._settings) as redis:
                await redis.ping()
        places = await self._places()
        async with consumer_of(self._settings) as inputs, consumer_of(self._settings) as outputs:
            shorts = {full: short for short, full in self._topics.inputs.items()}
            sources = [tp for tp in places if tp.topic in shorts]
            starts = await seek_to_start(inputs, sources)
            if (gone := self._beginning_gone(starts)) is not None:
                self._say(gone)
                return 1
            ends: dict[TopicPartition, int] = await inputs.end_offsets(sources)
            await self._read_inputs(inputs, ends, shorts)
            if not self._fold.records:
                self._say("nothing to compare: the input topics are empty")
                return 1
            self._outputs = _Outputs(outputs, self._topics)
            await self._outputs.start([tp for tp in places if tp.topic not in shorts])
            found = await self._settle()
            grown = await inputs.end_offsets(sources) != ends
        return self._report(found, grown=grown)

    # ------------------------------------------------------------------------- inputs

    async def _places(self) -> list[TopicPartition]:
        """Return the partitions of the inputs and of the three topics that are compared."""
        topics = self._topics
        names = {*topics.inputs.values(), topics.kpis, topics.windows, topics.rejects}
        places = []
        for state in await describe(self._settings):
            if state.spec.name in names:
                if state.partitions is None:
                    where = f"topic {state.spec.name}"
                    raise Problem(where, "a topic", "none", CREATE)
                places += [TopicPartition(state.spec.name, p) for p in range(state.partitions)]
        return places

    def _beginning_gone(self, starts: Mapping[TopicPartition, int]) -> str | None:
        if self._settings.kafka.start == "end":
            return (
                "kafka.start: expected beginning, got end; what was not counted cannot be compared"
            )
        gone = sum(starts.values())
        if not gone:
            return None
        first = next(tp for tp, start in starts.items() if start)
        return (
            f"{first.topic}/{first.partition}: expected all records from 0, got them from "
            f"{starts[first]}; the broker has deleted {gone:,} input records, so nothing can be compared"
        )

    async def _read_inputs(
        self, consumer: Any, ends: Mapping[TopicPartition, int], shorts: Mapping[str, str]
    ) -> None:
        with progress_bar(self._settings.kafka.servers) as bar:
            task = bar.add_task("events", total=sum(ends.values()))

            def take(tp: TopicPartition, record: Any) -> None:
                if record.offset < ends[tp]:
                    short = shorts[tp.topic]
                    place = (short, tp.partition, record.offset)
                    self._fold.add(*place, record.value, record.timestamp, record.headers)

            async for positions in read_until(consumer, ends, take, self._clock):
                bar.update(task, completed=sum(positions.values()))

    # ------------------------------------------------------------------------- comparing

    async def _settle(self) -> Comparison:
        """Compare until everything agrees; a worker may be about to publish its last numbers."""
        deadline = self._clock.monotonic_seconds() + self._seconds_to_settle()
        while True:
            found = await self._compare()
            left_seconds = deadline - self._clock.monotonic_seconds()
            if not found.differences or left_seconds <= 0:
                return found
            await asyncio.sleep(min(_PAUSE_SECONDS, left_seconds))

    def _seconds_to_settle(self) -> float:
        if self._settle_seconds is not None:
            return self._settle_seconds
        return BILLS_SETTLE_SECONDS if self._fold.has_running_bills else SETTLE_SECONDS

    async def _compare(self) -> Comparison:
        """Compare once; each record with bills for a time to come booked as far as it may have them."""
        await self._outputs.read(self._clock)
        minute = self._clock.now_ms() // MINUTE_MS
        hashes = await self._hashes()
        until = (self._outputs.complete_until_ms or 0) // MINUTE_MS
        found = self._compare_with(self._expected(until), minute, hashes)
        if found.differences and self._fold.has_running_bills:
            # Who books goes ahead of who says how far everything has got, and each shard publishes by
            # itself: at the turn of a minute some records have the next one, some not yet.
            others = [
                self._compare_with(self._expected(each), minute, hashes)
                for each in (until + 1, until - 1)
            ]
            found = wrong_in_all([found, *others])
        return found

    def _expected(self, booked_minute: int) -> Expected:
        expected = self._known.get(booked_minute)
        if expected is None:
            expects_cost = self._settings.channels.expects_cost
            result = self._fold.result(None, booked_minute)
            expected = Expected(result, self._catalog, expects_cost, self._settings.horizon_ms)
            # What is booked goes on: of the minutes before, the last three may be asked for again.
            recent = list(self._known.items())[-3:]
            self._known = {**dict(recent), booked_minute: expected}
        return expected

    async def _hashes(self) -> Hashes | None:
        if not self._settings.redis.is_on:
            return None
        async with redis_client(self._settings) as redis:
            return await read_hashes(redis, self._outputs.scopes())

    def _compare_with(self, expected: Expected, minute: int, hashes: Hashes | None) -> Comparison:
        found = Comparison()
        self._compare_rejects(found)
        records = self._outputs.records(found)
        compare_records(expected, records, minute, found)
        ledger, until_ms = self._outputs.ledger(), self._outputs.complete_until_ms
        compare_ledger(expected, ledger, records, until_ms, found)
        if hashes is not None:
            compare_hashes(expected, hashes, minute, found)
        return found

    def _compare_rejects(self, found: Comparison) -> None:
        # A mark that a record shows has gone through every shard before: its orphans are told.
        mismatches = [self._full(events) for events in self._fold.mismatches()]
        one_of = [places for places in mismatches if len(places) > 1]
        required = {place for places in mismatches if len(places) == 1 for place in places}
        refused = self._full(self._fold.refused)
        if (until_ms := self._outputs.complete_until_ms) is not None:
            required |= self._full(self._fold.orphans(until_ms))
        has_lost = self._outputs.has_lost_rejects
        wanted = WantedRejects(
            # The first rejects may have left the topic, which keeps them for some time only.
            required=() if has_lost else refused | required,
            one_of=() if has_lost else one_of,
            allowed=refused
            | self._full(self._fold.possible_mismatches())
            | self._full(self._fold.orphans(self._clock.now_ms())),
        )
        compare_rejects(self._topics.rejects, wanted, self._outputs.rejects, found)

    def _full(self, rejects: Collection[Reject]) -> set[RejectPlace]:
        names = self._topics.inputs
        return {(names[one.topic], one.partition, one.offset, one.reason) for one in rejects}

    # ------------------------------------------------------------------------- telling

    def _report(self, found: Comparison, *, grown: bool) -> int:
        events = self._fold.records
        if not found.differences:
            redis = (
                "" if self._settings.redis.is_on else " (leadgen.kpis.v1 only: redis.url is empty)"
            )
            self._say(f"exact: {events:,} events, {found.values:,} values{redis}")
            return 0
        for difference in found.differences[:MOST_SHOWN]:
            self._say(str(difference))
        if (more := len(found.differences) - MOST_SHOWN) > 0:
            self._say(f"and {more:,} more")
        count = len(found.differences)
        what = "difference" if count == 1 else "differences"
        self._say(f"not exact: {count:,} {what} in {events:,} events, {found.values:,} values")
        if grown:
            self._say("events arrived meanwhile: stop what sends them, and verify again")
        return 1

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Outputs:
    """The last record of each key of leadgen.kpis.v1, the ledger and all rejects; reads on where it stopped."""

    def __init__(self, consumer: Any, topics: Topics) -> None:
        self._consumer = consumer
        self._topics = topics
        self._places: list[TopicPartition] = []
        self._latest: dict[tuple[int, bytes], bytes] = {}
        self._ledger: list[tuple[bytes, bytes]] = []
        self._has_lost_ledger = False
        self.rejects: Counter[RejectPlace] = Counter()
        self.has_lost_rejects = False
        self.complete_until_ms: int | None = None

    async def start(self, places: list[TopicPartition]) -> None:
        """Go to the beginning of the topics."""
        self._places = places
        starts = await seek_to_start(self._consumer, places)
        self.has_lost_rejects = any(
            start for tp, start in starts.items() if tp.topic == self._topics.rejects
        )
        self._has_lost_ledger = any(
            start for tp, start in starts.items() if tp.topic == self._topics.windows
        )

    async def read(self, clock: Clock) -> None:
        """Read up to what the topics hold now."""
        ends = await self._consumer.end_offsets(self._places)
        async for _ in read_until(self._consumer, ends, self._take, clock):
            pass

    def records(self, found: Comparison) -> dict[bytes, bytes]:
        """Return the last value of each key; a key that lives in two partitions is a difference."""
        records: dict[bytes, bytes] = {}
        for (_, key), value in self._latest.items():
            if key in records:
                found.add(key.decode("utf-8", "replace"), "one partition", "two")
            records[key] = value
        return records

    def scopes(self) -> set[Scope]:
        """Return the scopes that have records."""
        keys = (parsed(key) for _, key in self._latest)
        return {key.scope for key in keys if key is not None}

    def ledger(self) -> Ledger:
        """Return the ledger; each key lives in one partition, whose order is kept."""
        return Ledger(self._ledger, is_whole=not self._has_lost_ledger)

    def _take(self, tp: TopicPartition, record: Any) -> None:
        if tp.topic == self._topics.rejects:
            self._take_reject(record)
            return
        if tp.topic == self._topics.windows:
            self._ledger.append((record.key or b"", record.value or b""))
            return
        place = (tp.partition, record.key or b"")
        if record.value is None:
            self._latest.pop(place, None)
            return
        self._latest[place] = record.value
        until_ms = complete_until_ms(record.value)
        if until_ms is not None:
            self.complete_until_ms = max(until_ms, self.complete_until_ms or until_ms)

    def _take_reject(self, record: Any) -> None:
        try:
            told = json.loads(record.value)
            place = (told["topic"], told["partition"], told["offset"], told["reason"])
        except (ValueError, TypeError, KeyError):
            place = ("no reject", record.offset, 0, "malformed")
        self.rejects[place] += 1


async def read_hashes(redis: Redis, scopes: Collection[Scope]) -> Hashes:
    """Return every hash of `scopes` and of those that Redis names; empty where there is none."""
    members = await redis.zrange(SCOPES_KEY, 0, -1)
    known = list({*scopes, *(scope_of_member(str(member)) for member in members)})
    hashes: dict[tuple[Subject, str], dict[str, str]] = {}
    for first in range(0, len(known), _SCOPES_PER_PIPELINE):
        places = [
            (Subject(basis, scope), slot)
            for scope in known[first : first + _SCOPES_PER_PIPELINE]
            for basis in BASES
            for slot in SLOTS
        ]
        async with redis.pipeline(transaction=False) as pipeline:
            for subject, slot in places:
                pipeline.hgetall(hash_name(slot, subject.scope, subject.basis))
            hashes.update(zip(places, await pipeline.execute(), strict=True))
    return hashes
