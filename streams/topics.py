"""Every Kafka topic: its name, what it is for, how it must be set up; shown, checked and created."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code

from kpis.events import TOPICS
from streams.problems import Problem, kafka_unreachable
from streams.settings import Kafka, Settings

TABLES = ("journeys", "cells", "windows", "positions")
ADMIN_TIMEOUT_MS = 15_000
# With so many copies one broker may be away while two still have each record.
SAFE_COPIES = 3
NO_LIMIT = "-1"
DAY_MS = 86_400_000
CREATE = "run `leadpulse topics --create`"

# Source: design, section 3. A transaction writes large batches to all topics of our own.
OWN = {"max.message.bytes": str(8 << 20)}
STREAM = {
    **OWN,
    "cleanup.policy": "delete",
    # The owner deletes what it has committed; nothing else may.
    "retention.ms": NO_LIMIT,
    "retention.bytes": NO_LIMIT,
    "segment.bytes": str(64 << 20),
}
CHANGELOG = {
    **OWN,
    "cleanup.policy": "compact",
    # The active segment is never compacted, and recovery reads it all; segment.ms stays as it is,
    # since every roll is an fsync that stalls the broker.
    "segment.bytes": str(64 << 20),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(3_600_000),
    "delete.retention.ms": str(DAY_MS),
}
INPUT = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
REJECTS = {**OWN, "cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)}
LEDGER = {**OWN, "cleanup.policy": "delete", "retention.ms": str(400 * DAY_MS)}

# What of the above is checked on topics that exist: the numbers are wrong without it.
CHECKED = ("cleanup.policy", "message.timestamp.type")
CHECKED_STREAM = (*CHECKED, "retention.ms", "retention.bytes")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it has to be; `checked` names the configs that must be so."""

    name: str
    purpose: str
    configs: Mapping[str, str]
    checked: Sequence[str] = CHECKED

    @property
    def cleanup(self) -> str:
        """What the broker does with old records: delete or compact."""
        return self.configs["cleanup.policy"]


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as it is; `partitions` is None if it does not exist, `configs` empty if unknown."""

    spec: TopicSpec
    partitions: int | None = None
    configs: Mapping[str, str] = field(default_factory=dict)


class Topics:
    """The topics of one deployment."""

    def __init__(self, prefix: str, app_id: str) -> None:
        self.app_id = app_id
        self.inputs: Mapping[str, str] = {short: f"{prefix}{short}.v1" for short in TOPICS}
        self.kpis = f"{prefix}kpis.v1"
        self.windows = f"{prefix}kpi-windows.v1"
        self.alerts = f"{prefix}alerts.v1"
        self.rejects = f"{prefix}rejects.v1"
        self.entities = f"{app_id}-entities"
        self.deltas = f"{app_id}-deltas"
        self.changelogs: Mapping[str, str] = {table: self.changelog(table) for table in TABLES}

    def changelog(self, table: str) -> str:
        """Return the topic behind `table`, by the name that Faust gives it."""
        return f"{self.app_id}-{table}-changelog"

    @property
    def sources(self) -> tuple[str, ...]:
        """What a shard reads: the inputs and the two topics between its stages."""
        return (*self.inputs.values(), self.entities, self.deltas)

    def specs(self) -> tuple[TopicSpec, ...]:
        """Return how each topic has to be, inputs first."""
        return (
            *(TopicSpec(name, f"input: {short}", INPUT) for short, name in self.inputs.items()),
            TopicSpec(self.kpis, "output: KPIs, latest per key", CHANGELOG),
            TopicSpec(self.windows, "output: final and revised KPIs", LEDGER),
            TopicSpec(self.alerts, "output: alerts, latest per key", CHANGELOG),
            TopicSpec(self.rejects, "output: refused input", REJECTS),
            TopicSpec(self.entities, "own: events by entity", STREAM, CHECKED_STREAM),
            TopicSpec(self.deltas, "own: changes by scope", STREAM, CHECKED_STREAM),
            *(
                TopicSpec(name, f"own: table {table}", CHANGELOG)
                for table, name in self.changelogs.items()
            ),
        )


def topics_of(settings: Settings) -> Topics:
    """Return the topics that `settings` name."""
    return Topics(settings.topics.prefix, settings.app_id)


@asynccontextmanager
async def admin_client(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """Return a started admin client that is closed at the end.

    Raises:
        Problem: if no broker answers, or the connection is lost.
    """
    admin = AIOKafkaAdminClient(**kafka.client_options(), request_timeout_ms=ADMIN_TIMEOUT_MS)
    try:
        with _silence("aiokafka"):
            await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise await kafka_unreachable(kafka.servers) from error
    finally:
        await admin.close()


@contextmanager
def _silence(name: str) -> Iterator[None]:
    """Keep a library's logger quiet: what it would say about a broker is said in one line of ours."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def describe(settings: Settings) -> list[TopicState]:
    """Return every topic as it is, in the order of the specs.

    Of the embedded broker only partitions are known; its configs stay empty.

    Raises:
        Problem: if no broker answers.
    """
    specs = topics_of(settings).specs()
    async with admin_client(settings.kafka) as admin:
        partitions = await _partitions(admin, [spec.name for spec in specs])
        configs = {} if settings.kafka.embedded else await _configs(admin, list(partitions))
    return [
        TopicState(spec, partitions.get(spec.name), configs.get(spec.name, {})) for spec in specs
    ]


async def check(settings: Settings) -> list[Problem]:
    """Return what is wrong with the topics; empty if a worker may start.

    Raises:
        Problem: if no broker answers.
    """
    return faults(await describe(settings))


async def create(
    settings: Settings, partitions: int | None = None, replication: int | None = None
) -> list[str]:
    """Create the topics that are missing, and return their names; others stay as they are.

    New topics get as many partitions as those that exist; `partitions` and `replication` (None: as
    the settings say) count where none does.

    Raises:
        Problem: if no broker answers, it refuses a topic, or `partitions` is not what exists.
    """
    states = await describe(settings)
    missing = [state.spec for state in states if state.partitions is None]
    count = _partitions_to_create(settings, states, partitions)
    copies = replication or settings.topics.replication
    new = [
        NewTopic(spec.name, count, copies, topic_configs=new_configs(spec, copies))
        for spec in missing
    ]
    if new and settings.kafka.embedded:
        raise _without_admin(settings.kafka)
    async with admin_client(settings.kafka) as admin:
        if new:
            _refuse_errors(await admin.create_topics(new, timeout_ms=ADMIN_TIMEOUT_MS))
            await _wait_for(admin, [spec.name for spec in missing])
    return [spec.name for spec in missing]


def new_configs(spec: TopicSpec, copies: int) -> dict[str, str]:
    """Return the configs that a new topic with this many copies gets."""
    # What only one of three brokers has would be lost with it, and so would be what was counted.
    return {**spec.configs, **({"min.insync.replicas": "2"} if copies >= SAFE_COPIES else {})}


def faults(states: Sequence[TopicState]) -> list[Problem]:
    """Return what is wrong with each of `states`, and with their partition counts together."""
    missing = [state for state in states if state.partitions is None]
    found = [Problem(f"topic {s.spec.name}", "a topic", "none", CREATE) for s in missing]
    counts = {state.spec.name: state.partitions for state in states if state.partitions}
    usual = max(counts.values(), key=list(counts.values()).count, default=0)
    for name, count in counts.items():
        if count != usual:
            got, expected = f"{count} partitions", f"{usual} partitions like the others"
            todo = "give all topics the same number: delete it and run `leadpulse topics --create`"
            found.append(Problem(f"topic {name}", expected, got, todo))
    for state in states:
        found += _config_faults(state)
    return found


def is_advice(problem: Problem) -> bool:
    """Tell whether a worker may start all the same: producers' clocks tell then when events arrived."""
    return problem.expected.startswith("message.timestamp.type=")


def fault_of(state: TopicState, problems: Sequence[Problem]) -> Problem | None:
    """Return the first of `problems` that is about the topic of `state`."""
    where = f"topic {state.spec.name}"
    return next((problem for problem in problems if problem.where == where), None)


def _config_faults(state: TopicState) -> list[Problem]:
    found = []
    for name in state.spec.checked:
        expected, got = state.spec.configs.get(name), state.configs.get(name)
        if expected is not None and got is not None and got != expected:
            alter = f"kafka-configs.sh --alter --entity-type topics --entity-name {state.spec.name}"
            todo = f"{alter} --add-config {name}={expected}"
            where = f"topic {state.spec.name}"
            found.append(Problem(where, f"{name}={expected}", got, todo))
    return found


def _partitions_to_create(
    settings: Settings, states: Sequence[TopicState], asked: int | None
) -> int:
    there = {state.partitions for state in states if state.partitions}
    if not there:
        return asked or settings.topics.partitions
    if len(there) > 1 or (asked and asked not in there):
        got = " and ".join(str(count) for count in sorted(there))
        expected = f"{asked} partitions in topics that exist" if asked else "one partition count"
        todo = "another count needs another app_id and prefix, and a replay"
        where = f"topics of {settings.app_id}"
        raise Problem(where, expected, got, todo)
    return there.pop()


async def _wait_for(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """Return when the broker that answers knows the new topics; brokers learn of them later."""
    async with asyncio.timeout(ADMIN_TIMEOUT_MS / 1000):
        while len(await _partitions(admin, names)) < len(names):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


async def _partitions(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, int]:
    described = await admin.describe_topics(list(names))
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in described
        if not topic["error_code"] and topic["partitions"]
    }


async def _configs(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> dict[str, Mapping[str, str]]:
    if not names:
        return {}
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, Mapping[str, str]] = {}
    for response in await admin.describe_configs(wanted):
        for error_code, message, _type, name, entries in response.resources:
            if error_code == UnknownTopicOrPartitionError.errno:
                continue  # deleted between the two questions
            if error_code:
                raise _refusal(name, error_code, message)
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs


def _refuse_errors(response: Any) -> None:
    for name, error_code, message in response.topic_errors:
        # Somebody else was quicker.
        if error_code and for_code(error_code).__name__ != "TopicAlreadyExistsError":
            raise _refusal(name, error_code, message)


def _refusal(topic: str, error_code: int, message: str | None) -> Problem:
    got = message or for_code(error_code).description
    return Problem(f"topic {topic}", "a broker that allows it", got, "ask who runs Kafka")


def _without_admin(kafka: Kafka) -> Problem:
    where, expected = f"Kafka at {kafka.servers}", "a broker that takes admin requests"
    todo = "it makes topics when it starts or on first use"
    return Problem(where, expected, "the embedded one", todo)
