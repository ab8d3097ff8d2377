"""Explains one published number: what it is made of, how sure it is, and what was left out of it."""

import asyncio
import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from rich.console import Console

from kpis.calendar import MINUTE_MS, Calendar
from kpis.catalog import Catalog
from kpis.events import TargetRemoved, TargetSet
from kpis.facts import OVERALL, Scope, Subject
from kpis.fields import Refused, Rules, normal_campaign, normal_channel
from kpis.instants import InstantError, instant_ms
from kpis.leads import Funnel
from kpis.left_out import NOUNS, Item, LeftOuts, left_out, topics_of, topics_to_read
from kpis.orders import correction_order
from kpis.reading import Ignored, read
from kpis.retention import Buckets
from kpis.spans import Spans, Window
from kpis.targets import Target, Targets
from kpis.windows import key_of, micros_of, parse_key
from streams import topics as home
from streams.clock import Clock, SystemClock
from streams.explained import Counted, Evidence, Revision, Setting, plain_text, render
from streams.messages import shard_of_scope
from streams.problems import Problem
from streams.question import Question, kpi_of, nearest, scope_of, scope_text, window_of, window_text
from streams.settings import Settings
from streams.shown import BROKEN, View, view_of_record
from streams.topic_reader import (
    Take,
    consumer_of,
    problem_of,
    progress_bar,
    read_until,
    seek_to_start,
)

_TARGETS: Final = "targets"


class Asked(NamedTuple):
    """A question as it was typed."""

    scope: str
    window: str
    kpi: str
    basis: str


def run(settings: Settings, asked: Asked, console: Console, *, quick: bool) -> None:
    """Explain a number on `console`; quickly, without counting what was left out.

    Raises:
        Problem: if there is no such number, or Kafka does not answer.
    """
    asyncio.run(explain(settings, asked, console, SystemClock(), quick=quick))


async def explain(
    settings: Settings, asked: Asked, console: Console, clock: Clock, *, quick: bool
) -> None:
    """Do what `run` does, in a running loop."""
    catalog = Catalog(settings.funnel.stages, settings.cohort.horizon_days)
    spans = Spans(Buckets(Calendar(settings.time_zone), settings.retention_rule()))
    scope = scope_of(asked.scope, settings.rules())
    kpi = kpi_of(asked.kpi, asked.basis, scope, catalog)
    window = window_of(asked.window, spans, clock.now_ms() // MINUTE_MS)
    question = Question(Subject(asked.basis, scope), window, kpi)
    setting = Setting(catalog, spans, settings.currency, settings.channels.expects_cost)
    try:
        async with consumer_of(settings) as consumer:
            found = await _Search(settings, question, setting, consumer, clock).run(quick=quick)
    except (KafkaError, OSError) as error:
        raise await problem_of(settings, error) from error
    console.print(render(question, found, setting))


class Records:
    """The records of a question's scope and window, and of the channels in it, in two topics."""

    def __init__(self, question: Question, setting: Setting) -> None:
        zone = setting.calendar.zone
        basis, scope = question.subject
        self._key = key_of(basis, question.window, scope, zone)
        whole = key_of(basis, question.window, OVERALL, zone)
        self._before, self._after = whole.removesuffix(b"_all|_all"), b"|_all"
        self._is_overall = scope == OVERALL
        self.current: dict[bytes, bytes] = {}
        self.revisions: dict[bytes, list[bytes]] = defaultdict(list)

    def take_current(self, _: TopicPartition, record: Any) -> None:
        """Take a record of leadgen.kpis.v1."""
        key = record.key or b""
        if not self._is_asked_for(key):
            return
        if record.value is None:
            self.current.pop(key, None)
        else:
            self.current[key] = record.value

    def take_revision(self, _: TopicPartition, record: Any) -> None:
        """Take a record of the ledger."""
        key = record.key or b""
        if record.value is not None and self._is_asked_for(key):
            self.revisions[key].append(record.value)

    def _is_asked_for(self, key: bytes) -> bool:
        if key == self._key:
            return True
        return self._is_overall and key.startswith(self._before) and key.endswith(self._after)

    @property
    def last(self) -> bytes | None:
        """The value of the window's record, of the ledger if there is no current one; None without any."""
        return self._last(self._key)

    @property
    def is_from_ledger(self) -> bool:
        """Whether only the ledger has it."""
        return self._key not in self.current

    def history(self) -> list[bytes]:
        """Return the values of the window's revisions, in order."""
        return self.revisions.get(self._key, [])

    def channels(self) -> dict[str, bytes]:
        """Return the values of the channels in the whole, by channel; of another scope its own."""
        found: dict[str, bytes] = {}
        for key in {**self.revisions, **self.current}:
            channel = parse_key(key).scope.channel
            if channel is not None and (value := self._last(key)) is not None:
                found[channel] = value
        return found

    def _last(self, key: bytes) -> bytes | None:
        if key in self.current:
            return self.current[key]
        revisions = self.revisions.get(key)
        return revisions[-1] if revisions else None


class _Search:
    """Looks up one number in the topics of a deployment."""

    def __init__(
        self, settings: Settings, question: Question, setting: Setting, consumer: Any, clock: Clock
    ) -> None:
        self._settings = settings
        self._question = question
        self._setting = setting
        self._consumer = consumer
        self._clock = clock
        self._topics = home.topics_of(settings)
        self._rules = settings.rules()

    async def run(self, *, quick: bool) -> Evidence:
        """Return everything about the number.

        Raises:
            Problem: if there is none.
        """
        self._partitions = await self._partition_counts()
        records = Records(self._question, self._setting)
        await self._read([self._place(self._topics.kpis)], records.take_current)
        await self._read([self._place(self._topics.windows)], records.take_revision)
        if (last := records.last) is None:
            raise await self._no_record()
        view = _view(last, self._topics.kpis)
        channels = {c: _view(v, self._topics.kpis) for c, v in records.channels().items()}
        kpi = self._setting.catalog.kpi(self._question.kpi)
        return Evidence(
            view=view,
            is_from_ledger=records.is_from_ledger,
            revisions=[self._revision(value) for value in records.history()],
            channels=channels,
            target=await self._target() if kpi.per_target else None,
            counted=None if quick else await self._count(view),
        )

    async def _partition_counts(self) -> Mapping[str, int]:
        needed = {*self._topics.inputs.values(), self._topics.kpis}
        needed |= {self._topics.windows, self._topics.rejects}
        counts = {}
        for state in await home.describe(self._settings):
            if state.spec.name in needed:
                if state.partitions is None:
                    where = f"topic {state.spec.name}"
                    raise Problem(where, "a topic", "none", home.CREATE)
                counts[state.spec.name] = state.partitions
        return counts

    def _place(self, topic: str) -> TopicPartition:
        shard = shard_of_scope(self._question.subject.scope, self._partitions[topic])
        return TopicPartition(topic, shard)

    def _places(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [TopicPartition(name, p) for name in topics for p in range(self._partitions[name])]

    async def _read(self, places: list[TopicPartition], take: Take) -> None:
        await seek_to_start(self._consumer, places)
        ends = await self._consumer.end_offsets(places)
        async for _ in read_until(self._consumer, ends, take, self._clock):
            pass

    # ------------------------------------------------------------------------- one record

    def _revision(self, value: bytes) -> Revision:
        view, kpi = _view(value, self._topics.windows), self._question.kpi
        shown = view.numbers.kpis.get(kpi)
        before: Mapping[str, Any] = json.loads(value, parse_float=str).get("previous") or {}
        previous = None
        if kpi in before:
            told = before[kpi]
            previous = "undefined" if told is None else self._text_of(str(told))
        return Revision(
            view.revision,
            view.state,
            view.cause,
            None if shown is None else shown.value,
            previous,
            view.computed_at_ms,
        )

    def _text_of(self, decimal: str) -> str:
        return plain_text(micros_of(decimal), self._setting.catalog.kpi(self._question.kpi).unit)

    async def _no_record(self) -> Problem:
        """Return why there is no number: of two typing mistakes the likelier one, or no fact."""
        scopes: set[Scope] = set()

        def take(_: TopicPartition, record: Any) -> None:
            if record.key is not None and record.value is not None:
                try:
                    scopes.add(parse_key(record.key).scope)
                except ValueError:
                    return

        await self._read(self._places([self._topics.kpis]), take)
        question = self._question
        asked = scope_text(question.subject.scope)
        when = window_text(question.window, self._setting.calendar)
        expected = f"numbers of {asked} in {when} ({question.subject.basis})"
        if not scopes:
            todo = "is a worker running?"
        elif question.subject.scope not in scopes:
            known = sorted(map(scope_text, scopes))
            todo = nearest(asked, known) or f"there are {len(known)}: `leadpulse top` lists them"
        else:
            todo = "no fact lies in that window, or it is kept no longer"
        return Problem(self._topics.kpis, expected, "none", todo)

    # ------------------------------------------------------------------------- targets

    async def _target(self) -> Target | None:
        """Return the target that the KPI is about, as it is set now."""
        latest: dict[tuple[object, ...], TargetSet | TargetRemoved] = {}

        def take(_: TopicPartition, record: Any) -> None:
            try:
                event = read(
                    _TARGETS, record.value, record.timestamp, self._rules, record.headers
                ).event
            except (Refused, Ignored):
                return
            if isinstance(event, TargetSet | TargetRemoved):
                scope = Scope(event.channel, event.campaign_id)
                key = (event.kpi, event.period, event.start_minute)
                known = latest.get(key)
                is_ours = scope == self._question.subject.scope
                if is_ours and (known is None or correction_order(event) > correction_order(known)):
                    latest[key] = event

        await self._read(self._places([self._topics.inputs[_TARGETS]]), take)
        targets = Targets()
        for key, event in latest.items():
            if isinstance(event, TargetSet):
                targets.put(tuple(map(str, key)), Target.of(event))
        about = self._question.kpi.partition(".")[2]
        shown = targets.shown_in(self._question.window)
        return next((target for target in shown if target.kpi == about), None)

    # ------------------------------------------------------------------------- left out

    async def _count(self, view: View) -> Counted:
        settings, question = self._settings, self._question
        asked = topics_of(self._facts())
        shorts = sorted(topics_to_read(asked))
        names = {self._topics.inputs[short]: short for short in shorts}
        counter = LeftOuts(
            self._rules,
            Funnel(settings.funnel.stages, settings.funnel.skipped == "imply"),
            settings.park_ms,
            settings.keep_ms,
            settings.horizon_ms,
        )
        rejects = Rejects({self._topics.inputs[short]: short for short in asked}, self._rules)

        def take(tp: TopicPartition, record: Any) -> None:
            if tp.topic == self._topics.rejects:
                rejects.take(record)
            else:
                short = names[tp.topic]
                place = (short, tp.partition, record.offset)
                counter.add(*place, record.value, record.timestamp, record.headers)

        deleted = await self._read_all(self._places([*names, self._topics.rejects]), take)
        window = Window(question.window.kind, view.start_minute, view.end_minute)
        now_ms = view.complete_until_ms or self._clock.now_ms()
        nouns = {NOUNS[short] for short in asked}
        items = [i for i in counter.items(question.subject.basis, now_ms) if i.what in nouns]
        reports = counter.cost_reports()
        until = {c: reports.complete_until_minute(c) for c in {c for c, _, _ in reports.items()}}
        return Counted(
            left_out([*items, *rejects.items], question.subject.scope, window),
            rejects.timeless,
            deleted,
            {channel: minute for channel, minute in until.items() if minute is not None},
        )

    def _facts(self) -> Iterable[str]:
        """Return the facts that go into the KPI, of a target those of what it is about."""
        catalog = self._setting.catalog
        kpi = catalog.kpi(self._question.kpi)
        if kpi.per_target:
            name = self._question.kpi.partition(".")[2]
            if name not in catalog.names(self._question.subject.basis, is_overall=True):
                return (name,)
            kpi = catalog.kpi(name)
        formula = kpi.formula(self._question.subject.basis)
        return () if formula is None else formula.facts

    async def _read_all(self, places: list[TopicPartition], take: Take) -> int:
        """Hand over every record, and return how many input records the broker has deleted before."""
        starts = await seek_to_start(self._consumer, places)
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets(places)
        with progress_bar(self._settings.kafka.servers) as bar:
            task = bar.add_task("records", total=sum(ends.values()) - sum(starts.values()))
            async for positions in read_until(self._consumer, ends, take, self._clock):
                bar.update(task, completed=sum(positions.values()) - sum(starts.values()))
        return sum(start for tp, start in starts.items() if tp.topic != self._topics.rejects)


class Rejects:
    """Rejects as things that were left out; of the topics given by full and short name."""

    def __init__(self, shorts: Mapping[str, str], rules: Rules) -> None:
        self._shorts = shorts
        self._rules = rules
        self.items: list[Item] = []
        self.timeless = 0

    def take(self, record: Any) -> None:
        """Take a record of leadgen.rejects.v1."""
        try:
            told = json.loads(record.value)
            short = self._shorts.get(told["topic"])
            why = f"rejected: {told['reason']}"
        except BROKEN:
            return
        if short is None:
            return
        try:
            at_ms = instant_ms(told["occurred_at"])
        except (InstantError, KeyError, TypeError):
            self.timeless += 1
            return
        self.items.append(Item(NOUNS[short], why, at_ms, at_ms, *self._scope_of(told)))

    def _scope_of(self, told: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """Return the channel and campaign that the refused record names, as far as it can be read."""
        try:
            original = json.loads(base64.b64decode(told["original"]))
            channel = normal_channel(original["channel"], self._rules)
            campaign_id = original.get("campaign_id") or "-"
            return channel, normal_campaign(campaign_id, self._rules)
        except (*BROKEN, binascii.Error, Refused):
            return None, None


def _view(value: bytes, topic: str) -> View:
    try:
        return view_of_record(value)
    except BROKEN as error:
        raise Problem(topic, "records of KPIs", f"{error!r:.80}") from error
