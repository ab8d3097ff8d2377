"""One merge stage with its real tables, what it wrote, and what restarts leave of it."""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry

from kpis.alert_rules import Rule
from kpis.calendar import MINUTE_MS
from kpis.catalog import Catalog
from kpis.contributions import Contribution, Place
from kpis.facts import PERIOD, Facts, Scope, Subject
from kpis.ledger import Cause, Causes
from kpis.retention import Grain
from kpis.spans import Window
from kpis.targets import Target
from kpis.windows import WindowValues, key_of
from streams.app import deployment_of
from streams.clock import ManualClock
from streams.merge import Merge
from streams.messages import Deltas, Envelope, Reported, TargetTold, decode_envelope, encode
from streams.metrics import Metrics
from streams.outbox import Outbox, packed
from streams.publishers import AlertView, Hour
from streams.settings import Settings, load
from streams.stages import Context
from streams.tables import Table, tables_of
from streams.tally import Tally
from streams.topics import topics_of
from streams.transport import Batch, Chunk
from tests.streams.one_shard import NOW_MS, Record

if TYPE_CHECKING:
    from streams.publishers.webhook import Notice

SETTINGS: Final = load({"LEADPULSE_CONFIG": ""})
TOPICS: Final = topics_of(SETTINGS)
NOON: Final = NOW_MS // MINUTE_MS
"""5 March 2026, 12:00 UTC, a Thursday."""

DAY: Final = 1_440
GOOGLE: Final = Scope("google_ads", None)
BRAND: Final = Scope("google_ads", "brand")
OTHER: Final = Scope("google_ads", "other")
META: Final = Scope("meta_ads", "m")
_PUBLISH: Final = timedelta(milliseconds=250)
_PUBLICATIONS: Final = 8


class MergeShard:
    """A shard as far as merging is concerned; its clock stands still until it is told."""

    def __init__(
        self,
        settings: Settings = SETTINGS,
        now_ms: int = NOW_MS,
        rules: Iterable[Rule] = (),
        *,
        shard: int = 0,
        partitions: int = 1,
    ) -> None:
        self.settings = settings
        self.rules = tuple(rules)
        self.shard = shard
        self.clock = ManualClock(now_ms)
        metrics = Metrics(CollectorRegistry(), "test")
        self.deployment = deployment_of(settings, partitions, metrics, self.clock)
        self.changelogs: dict[str, dict[bytes, bytes]] = defaultdict(dict)
        self.written: list[tuple[bytes, bytes | None]] = []
        self.ledger: list[dict[str, Any]] = []
        self.views: dict[Subject, dict[str, WindowValues]] = {}
        self._hours: dict[Subject, Mapping[int, Hour]] = {}
        self.alerts: list[tuple[bytes, bytes | None]] = []
        self.shown: dict[Hashable, AlertView] = {}
        self.notices: list[Notice] = []
        self.sent: list[Envelope] = []
        self.until_ms: int | None = 0
        self.newest = now_ms // MINUTE_MS
        self._offset = 0
        self._open()

    def _open(self) -> None:
        self.tables: dict[str, Table] = tables_of(self.deployment.topics, self.shard)
        for table in self.tables.values():
            for key, row in self.changelogs[table.changelog].items():
                table.load(key, row)
            table.loaded()
        self.tally = Tally()
        context = Context(self.deployment, self.shard, self.tables, self.tally)
        catalog = Catalog(self.settings.funnel.stages, self.settings.cohort.horizon_days)
        self.merge = Merge(context, self.settings, catalog, self.rules)
        self.merge.version = lambda position: f"{position}.0.x"
        self.merge.positions[TOPICS.deltas] = self._offset
        for _ in self.merge.restore():
            pass

    def restart(self) -> None:
        """Go on as a new owner does, from what was committed."""
        self.views = {}
        self._hours = {}
        self.shown, self.notices = {}, []
        self._open()

    # ------------------------------------------------------------------------- telling

    def count(
        self,
        facts: Facts,
        minute: int = NOON,
        scope: Scope = BRAND,
        *,
        basis: str = PERIOD,
        cause: Cause = Cause.LATE_EVENT,
        grain: Grain = Grain.MINUTE,
    ) -> None:
        """Tell facts of a campaign, and with it of its channel and the whole, and publish."""
        assert scope.channel is not None
        assert scope.campaign_id is not None
        start = self.deployment.buckets.start(grain, minute)
        place = Place(basis, scope.channel, scope.campaign_id, grain, start)
        self.tell_all({place: facts}, cause)

    def tell_all(self, contribution: Contribution, cause: Cause = Cause.LATE_EVENT) -> None:
        """Tell a contribution to all three scopes of each of its places, and publish."""
        deltas = Deltas(1)
        deltas.add(contribution, Causes(cause, cause))
        self.tell(*deltas.take().get(0, []))

    def visit(self, *visitor_ids: str, minute: int = NOON, scope: Scope = BRAND) -> None:
        """Tell visitors of a campaign's day, and publish."""
        deltas = Deltas(1)
        day = self.deployment.buckets.start(Grain.DAY, minute)
        place = Place(PERIOD, str(scope.channel), str(scope.campaign_id), Grain.DAY, day)
        for visitor_id in visitor_ids:
            deltas.add_visitor(place, visitor_id)
        self.tell(*deltas.take()[0])

    def report(self, channel: str, minute: int, count: int = 1) -> None:
        """Tell of cost rows of a channel that tell of everything up to a minute, and publish."""
        self.tell(Reported(channel, minute, count))

    def aim(self, scope: Scope, target: Target | None, key: tuple[str, ...] = ("t",)) -> None:
        """Set or remove a target, and publish."""
        self.tell(TargetTold(*scope, key, target))

    def complete(self, until_ms: int) -> None:
        """Tell that everything that arrived before `until_ms` is counted, and publish."""
        self.until_ms = until_ms
        self.tell()

    def tell(self, *items: object) -> None:
        """Tell items in one envelope of the intake, with the marks of both stages, and publish."""
        self.apply(*items)
        self.publish()

    def apply(self, *items: object) -> None:
        """Apply items as `tell` does, and publish nothing yet."""
        marks = () if self.until_ms is None else (self.until_ms,)
        groups = list(packed(items)) or [[]]
        values = [
            *(Envelope(0, "intake", (), self.newest, NOW_MS, group) for group in groups),
            *(
                Envelope(sender, stage, marks, 0, None, [])
                for sender in range(self.deployment.partitions)
                for stage in ("intake", "entities")
            ),
        ]
        records = [Record(self._offset + i, encode(value)) for i, value in enumerate(values)]
        start, self._offset = self._offset, self._offset + len(records)
        batch = Batch(start, self._offset, records)
        self.merge.apply(Chunk(TOPICS.deltas, 0, start, self._offset, [batch]))

    # ------------------------------------------------------------------------- publishing

    def publish(self) -> None:
        """Publish and commit until nothing is left; it always takes two seconds."""
        for _ in range(_PUBLICATIONS):
            self.clock.advance(_PUBLISH)
            if self.merge.is_due():
                self.commit()
        assert not self.merge.is_due()

    def commit(self) -> None:
        """Publish once and commit."""
        outbox = Outbox()
        self.merge.flush(outbox)
        for table in self.tables.values():
            table.flush(outbox)
        for (topic, _), records in outbox._records.items():
            for record in records:
                self._take(topic, record.key or b"", record.value)
        for view in self.merge.take_views():
            self.views[view.subject] = view.slots
            self._hours[view.subject] = view.hours

        news = self.merge.take_alerts()
        self.shown |= {view.identity: view for view in news.views}
        self.notices += news.notices
        for notice in news.dropped:
            self.notices.remove(notice)

    def _take(self, topic: str, key: bytes, value: bytes | None) -> None:
        if topic == TOPICS.kpis:
            self.written.append((key, value))
        elif topic == TOPICS.alerts:
            self.alerts.append((key, value))
        elif topic == TOPICS.deltas:
            assert value is not None
            self.sent.append(decode_envelope(value))
        elif topic == TOPICS.windows:
            assert value is not None
            self.ledger.append(json.loads(value) | {"key": key.decode()})
        elif value is None:
            self.changelogs[topic].pop(key, None)
        else:
            self.changelogs[topic][key] = value

    def advance(self, **step: float) -> None:
        """Let time pass, as `timedelta` takes it, and publish what it moves."""
        self.clock.advance(timedelta(**step))
        self.publish()

    # ------------------------------------------------------------------------- looking

    def window(self, kind: str, minute: int = NOON) -> Window:
        """Return the tumbling window of a kind that contains a minute."""
        return self.merge._spans.tumbling(kind, minute)

    def key(self, kind: str, scope: Scope = BRAND, minute: int = NOON, basis: str = PERIOD) -> str:
        """Return the key of a record; `kind` may be lifetime or a rolling one."""
        is_moving = kind == "lifetime" or kind.startswith("last_")
        window = Window(kind, None, None) if is_moving else self.window(kind, minute)
        return key_of(basis, window, scope, self.settings.time_zone).decode()

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the last record of every key of leadgen.kpis.v1, those with a tombstone left out."""
        last = dict(self.written)
        return {key.decode(): json.loads(value) for key, value in last.items() if value is not None}

    def record(
        self, kind: str, scope: Scope = BRAND, minute: int = NOON, basis: str = PERIOD
    ) -> dict[str, Any] | None:
        """Return the last record of a window, None if it has none."""
        return self.records().get(self.key(kind, scope, minute, basis))

    def issued(
        self, kind: str, scope: Scope = BRAND, minute: int = NOON, basis: str = PERIOD
    ) -> list[dict[str, Any]]:
        """Return the records of a window in the ledger."""
        key = self.key(kind, scope, minute, basis)
        return [record for record in self.ledger if record["key"] == key]

    def slots(self, scope: Scope = BRAND, basis: str = PERIOD) -> dict[str, WindowValues]:
        """Return the view of a scope that was published last."""
        return self.views.get(Subject(basis, scope), {})

    def hours(self, scope: Scope, basis: str = PERIOD) -> Mapping[int, Hour]:
        """Return the last hours of a scope that were published last."""
        return self._hours.get(Subject(basis, scope), {})
