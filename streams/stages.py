"""What the three stages of a shard have in common, and how they mark how far they have got."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, Self

from kpis.alert_records import AlertValue
from kpis.leads import Funnel
from kpis.reading import Rules
from kpis.retention import Buckets
from streams.clock import Clock
from streams.messages import Envelope, encode
from streams.metrics import Metrics
from streams.outbox import Outbox, packed
from streams.publishers import AlertView, ScopeView
from streams.publishers.webhook import Notice
from streams.tables import Table
from streams.tally import Tally
from streams.topics import Topics
from streams.transport import Chunk, Watermark

SKEW_MS: Final = 5_000
"""What marks leave for skewed clocks and for what is on its way between entities."""

MARK_EVERY_MS: Final = 1_000

ROWS_PER_TURN: Final = 2_000
"""How many rows a stage takes up before it yields."""

HOPS: Final = 4
"""How often what came of an event may pass from entity to entity: pointer, journey, question, answer."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What every stage of every shard knows of the deployment."""

    topics: Topics
    partitions: int
    rules: Rules
    funnel: Funnel
    buckets: Buckets
    clock: Clock
    metrics: Metrics
    park_ms: int
    keep_ms: int
    horizon_ms: int


class Stage(Protocol):
    """One of the three steps of a shard: state changes in `apply` and `flush` only, without waiting."""

    name: str
    positions: dict[str, int]
    pending_bytes: int

    def restore(self) -> Iterator[None]:
        """Take up what the tables say after they were read; yields when others should have a turn."""
        ...

    def apply(self, chunk: Chunk) -> None:
        """Take the records of a chunk."""
        ...

    def is_due(self) -> bool:
        """Tell whether there is something to write."""
        ...

    def flush(self, outbox: Outbox) -> None:
        """Put everything that is to be written into `outbox` and the tables."""
        ...


class IntakeStage(Stage, Protocol):
    """The stage that reads the inputs."""

    def caught_up(self, topic: str, watermark: Watermark) -> None:
        """Take note of the end of a topic, as a fetch said."""
        ...


class AlertNews(NamedTuple):
    """What is to be shown of alerts after a commit: each once, and which fired or resolved in it.

    `dropped` are notices of this commit or an earlier one that are no longer to be sent.
    """

    views: list[AlertView]
    notices: list[Notice]
    dropped: list[Notice]
    told: list[AlertValue]

    @classmethod
    def none(cls) -> Self:
        """Return that there is nothing to show."""
        return cls([], [], [], [])


class PublishingStage(Stage, Protocol):
    """The stage whose results are shown after a commit."""

    version: Callable[[int], str]

    @property
    def complete_until_ms(self) -> int | None:
        """Everything that arrived before this instant is counted; None until all shards told."""
        ...

    @property
    def has_more(self) -> bool:
        """Tell whether the last `flush` left something behind, not to hold the loop for long."""
        ...

    def take_views(self) -> list[ScopeView]:
        """Return what the last `flush` changed, to be shown after its commit."""
        ...

    def take_alerts(self) -> AlertNews:
        """Return what the last `flush` told of alerts, to be shown after its commit."""
        ...

    def delivered(self, notice_id: str) -> None:
        """Take note that a notice has reached the webhook, or that it was given up."""
        ...

    def take_arrivals(self) -> list[int]:
        """Return when the first of each applied group of events arrived."""
        ...


class Stages(NamedTuple):
    """The three stages of a shard."""

    intake: IntakeStage
    entities: Stage
    merge: PublishingStage


class Marks(dict[str, int]):
    """The latest mark of each sender; none falls."""

    def take(self, sender: str, mark_ms: int | None) -> bool:
        """Remember a mark and tell whether it is news."""
        if mark_ms is None or mark_ms <= self.get(sender, -1):
            return False
        self[sender] = mark_ms
        return True

    def least(self, senders: int) -> int | None:
        """Return the smallest mark once all `senders` have sent one."""
        return min(self.values()) if len(self) >= senders else None


class Sender:
    """Writes items to other shards in envelopes, and a shard's mark behind them."""

    def __init__(self, shard: int, stage: str, topic: str, partitions: int) -> None:
        self._shard = shard
        self._stage = stage
        self._topic = topic
        self._partitions = partitions
        self._sent: tuple[int, ...] = ()

    def send(
        self, outbox: Outbox, items: Mapping[int, Sequence[object]], progress: "Progress"
    ) -> None:
        """Put the items of each target shard into `outbox`; new marks go to every shard."""
        is_news = bool(progress.marks) and progress.marks != self._sent
        if is_news:
            self._sent = progress.marks
        for target in range(self._partitions) if is_news else items:
            groups = list(packed(items.get(target, ()))) or [[]]
            for number, group in enumerate(groups, 1):
                marks = progress.marks if is_news and number == len(groups) else ()
                envelope = Envelope(
                    self._shard,
                    self._stage,
                    marks,
                    progress.newest_minute,
                    progress.arrived_ms if group else None,
                    group,
                )
                outbox.put(self._topic, target, None, encode(envelope))


class Progress(NamedTuple):
    """How far a stage has got: see `Envelope`."""

    marks: tuple[int, ...]
    newest_minute: int
    arrived_ms: int | None


@dataclass(slots=True)
class Context:
    """One shard's part in the deployment: its number and its tables."""

    deployment: Deployment
    partition: int
    tables: dict[str, Table]
    tally: Tally
