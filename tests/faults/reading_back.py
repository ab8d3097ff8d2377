"""What the worker left on Kafka, read back with a plain client: positions, rejects, KPIs, the ledger."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.app import partitions_of
from streams.settings import Settings
from streams.shards import POSITIONS
from streams.tables import Table
from streams.topics import Topics, topics_of
from streams.transport import Batch

TURN_SECONDS: Final = 0.5

HOPS: Final = 5
"""So often what is forwarded goes through the entities topic at most: a lead asks its click, the click
answers, the lead tells the one it was merged into."""

TIME_OF_READING: Final = ("conversion_within", "cohort_maturity", "pacing.")
"""KPIs that are about the moment they are asked for. Source: contract, section 6, the last sentence."""

Positions = dict[tuple[str, int], int]
Numbers = tuple[dict[str, Any], dict[str, dict[str, Any]]]


class NotConsumedError(Exception):
    """The workers did not read everything in time."""


class AlertTold(NamedTuple):
    """A record of leadgen.alerts.v1: what it says of which alert, and its id."""

    key: str
    state: str
    id: str


class Revision(NamedTuple):
    """A record of the ledger: which revision of which window it is, and its id."""

    key: str
    revision: int
    id: str


async def read_each(
    settings: Settings, topic: str, take: Callable[[Any], None], starts: Positions | None = None
) -> None:
    """Hand over every committed record of a topic, of each partition in order, perhaps from `starts` on."""
    async with _consumer(settings) as consumer:
        partitions = await _assign(consumer, settings, topic)
        ends = await consumer.end_offsets(partitions)
        for tp in partitions if starts else ():
            consumer.seek(tp, (starts or {})[tp.topic, tp.partition])
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for polled in (await consumer.getmany(timeout_ms=200)).values():
                for one in polled:
                    # Another test may have made this process fetch whole batches.
                    for record in one.read() if isinstance(one, Batch) else (one,):
                        take(record)


async def read_all(settings: Settings, topic: str, starts: Positions | None = None) -> list[Any]:
    """Return every committed record of a topic, of each partition in order."""
    records: list[Any] = []
    await read_each(settings, topic, records.append, starts)
    return records


async def ends_of_outputs(settings: Settings) -> Positions:
    """Return where the topics end that a deployment writes for others."""
    topics = topics_of(settings)
    return await _ends(settings, [topics.kpis, topics.windows, topics.alerts, topics.rejects])


async def positions(settings: Settings) -> Positions:
    """Return up to where every shard has committed, by topic and partition."""
    topics = topics_of(settings)
    rows: dict[int, Table] = {}
    for record in await read_all(settings, topics.changelog("positions")):
        table = rows.setdefault(record.partition, Table("positions", "", record.partition))
        table.load(record.key, record.value)
    return {
        (topic, partition): position
        for partition, table in rows.items()
        for topic, position in _decoded(table.get(POSITIONS)).items()
    }


async def wait_until_consumed(settings: Settings, seconds: float) -> None:
    """Return when everything that is on the inputs has been committed as far as the KPI records.

    What is forwarded goes through the entities topic, perhaps several times, and then through the deltas.

    Raises:
        NotConsumedError: unless that is so within `seconds`.
    """
    topics: Topics = topics_of(settings)
    deadline = time.monotonic() + seconds
    forwarded = [[topics.entities]] * HOPS
    for names in ([*topics.inputs.values()], *forwarded, [topics.deltas]):
        ends = await _ends(settings, names)
        while behind := _behind(await positions(settings), ends):
            if time.monotonic() > deadline:
                places = ", ".join(f"{t}/{p} {n} records" for (t, p), n in behind.items())
                msg = f"expected all to be read within {seconds:.0f} s, still to be read: {places}"
                raise NotConsumedError(msg)
            await asyncio.sleep(TURN_SECONDS)


async def reject_faults(
    settings: Settings, broken: Mapping[str, str], starts: Positions | None = None
) -> list[str]:
    """Return how the rejects differ from one for each of `broken` (key of the reject: reason)."""
    topic = topics_of(settings).rejects
    found = [(r.key.decode(), _reason(r.value)) for r in await read_all(settings, topic, starts)]
    times = Counter(key for key, _ in found)
    reasons = dict(found)
    return [
        *_faults("rejects: expected once, got none", broken, lambda key: key not in reasons),
        *_faults("rejects: expected none, got one", reasons, lambda key: key not in broken),
        *_faults("rejects: expected once, got it twice", times, lambda key: times[key] > 1),
        *_faults(
            "rejects: another reason",
            broken,
            lambda key: reasons.get(key, broken[key]) != broken[key],
        ),
    ]


# ----------------------------------------------------------------------------- the ledger


async def revisions(settings: Settings, starts: Positions | None = None) -> list[Revision]:
    """Return what is in the ledger, of each partition in order."""
    found: list[Revision] = []

    def take(record: Any) -> None:
        # Nothing may be taken out of the ledger: that would be revision 0 of its key.
        value = msgspec.json.decode(record.value or b'{"revision":0,"id":""}')
        found.append(Revision(record.key.decode(), value["revision"], value["id"]))

    await read_each(settings, topics_of(settings).windows, take, starts)
    return found


def ledger_faults(found: Iterable[Revision]) -> list[str]:
    """Return where revisions of a window do not count from 1 upwards, each once, and ids repeat.

    Source: contract, sections 6 and 10 (P9).
    """
    faults: list[str] = []
    latest: Counter[str] = Counter()
    ids: set[str] = set()
    for key, revision, own_id in found:
        expected = latest[key] + 1
        if revision != expected:
            faults.append(f"ledger: {key}: expected revision {expected}, got {revision}")
        if own_id in ids:
            faults.append(f"ledger: {key}: expected an id of its own, got {own_id} again")
        latest[key] = max(revision, latest[key])
        ids.add(own_id)
    return faults


# ----------------------------------------------------------------------------- alerts


async def alerts_told(settings: Settings, starts: Positions | None = None) -> list[AlertTold]:
    """Return what was told of alerts, of each partition in order."""
    found: list[AlertTold] = []

    def take(record: Any) -> None:
        value = msgspec.json.decode(record.value)
        found.append(AlertTold(record.key.decode(), value["state"], value["id"]))

    await read_each(settings, topics_of(settings).alerts, take, starts)
    return found


def alert_faults(found: Iterable[AlertTold]) -> list[str]:
    """Return where an alert does not fire, perhaps change, and resolve in turn, and ids repeat."""
    faults: list[str] = []
    firing: set[str] = set()
    ids: set[str] = set()
    for key, state, own_id in found:
        if (state == "fired") == (key in firing):
            faults.append(f"alerts: {key}: expected {_next(key in firing)}, got {state}")
        if own_id in ids:
            faults.append(f"alerts: {key}: expected an id of its own, got {own_id} again")
        (firing.discard if state == "resolved" else firing.add)(key)
        ids.add(own_id)
    return faults


def _next(is_firing: bool) -> str:
    return "updated or resolved" if is_firing else "fired"


# ----------------------------------------------------------------------------- replay


async def last_numbers(settings: Settings, starts: Positions | None = None) -> dict[str, Numbers]:
    """Return facts and KPIs of the last record of each key, as far as they rest on the events alone."""
    latest: dict[bytes, bytes | None] = {}

    def take(record: Any) -> None:
        latest[record.key] = record.value

    await read_each(settings, topics_of(settings).kpis, take, starts)
    return {
        key.decode(): _numbers(value)
        for key, value in latest.items()
        # A rolling window is about the moment it was written.
        if value is not None and not key.split(b"|")[1].startswith(b"last_")
    }


def replay_faults(
    first: Mapping[str, Numbers], second: Mapping[str, Numbers], most: int = 50
) -> list[str]:
    """Return how the last records of a replay differ from those of the first reading.

    Source: contract, section 6, and P4 of section 10.
    """
    faults: list[str] = []
    for key in sorted(first.keys() | second.keys()):
        if key not in first or key not in second:
            where = "the replay" if key in second else "the first reading"
            faults.append(f"replay: {key}: expected a record of both, got one of {where} only")
            continue
        pairs = zip(("fact", "KPI"), first[key], second[key], strict=True)
        faults += (
            f"replay: {key}: {kind} {name}: expected {one.get(name)}, got {other.get(name)}"
            for kind, one, other in pairs
            for name in sorted(one.keys() | other.keys())
            if one.get(name) != other.get(name)
        )
    more = len(faults) - most
    return faults if more <= 0 else [*faults[:most], f"replay: and {more:,} more"]


def _numbers(value: bytes) -> Numbers:
    record = msgspec.json.decode(value)
    facts = {name: fact for name, fact in record["facts"].items() if name != "mature"}
    kpis = {
        name: {part: kpi[part] for part in kpi if part != "partial"}
        for name, kpi in record["kpis"].items()
        if not name.startswith(TIME_OF_READING)
    }
    return facts, kpis


# ----------------------------------------------------------------------------- reading


def _faults(
    what: str, keys: Mapping[str, object], is_fault: Callable[[str], bool]
) -> Iterator[str]:
    for key in keys:
        if is_fault(key):
            yield f"{what}: {key}"


def _reason(value: bytes) -> str:
    return str(msgspec.json.decode(value)["reason"])


def _decoded(row: bytes | None) -> dict[str, int]:
    return {} if row is None else msgspec.msgpack.decode(row, type=dict[str, int])


def _behind(found: Positions, ends: Positions) -> Positions:
    return {
        place: end - found.get(place, 0) for place, end in ends.items() if found.get(place, 0) < end
    }


async def _ends(settings: Settings, names: list[str]) -> Positions:
    count = await partitions_of(settings)
    partitions = [TopicPartition(name, p) for name in names for p in range(count)]
    # Of the log itself, not of what is committed: a transaction may be under way.
    async with AIOKafkaConsumer(**settings.kafka.client_options()) as consumer:
        ends = await consumer.end_offsets(partitions)
    return {(tp.topic, tp.partition): end for tp, end in ends.items()}


def _consumer(settings: Settings) -> Any:
    return AIOKafkaConsumer(
        **settings.kafka.consumer_options(),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )


async def _assign(consumer: Any, settings: Settings, topic: str) -> list[TopicPartition]:
    partitions = [TopicPartition(topic, p) for p in range(await partitions_of(settings))]
    consumer.assign(partitions)
    return partitions
