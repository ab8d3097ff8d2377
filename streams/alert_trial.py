"""Tries a rule on past windows: reads the inputs, and looks at every minute as the worker does; only reads."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.text import Text

from kpis.alert_records import alert_value
from kpis.alert_rules import PACING_BEHIND, Rule
from kpis.alerts import FIRED, QUIET, RESOLVED, Alert, Standing, step
from kpis.calendar import HOUR_MINUTES, MINUTE_MS, Calendar, minute_text
from kpis.detector import Detector
from kpis.facts import Scope
from kpis.fold import Fold, FoldResult
from kpis.history import History
from kpis.leads import Funnel
from kpis.retention import Buckets, Retention
from kpis.spans import Spans
from kpis.surroundings import Outlook
from streams import topics as home
from streams.clock import Clock, SystemClock
from streams.problems import Problem
from streams.question import nearest, scope_of, scope_text, time_of
from streams.settings import Settings
from streams.topic_reader import consumer_of, problem_of, progress_bar, read_until, seek_to_start
from streams.wording import Wording, language_of

_DAY_MINUTES: Final = 24 * HOUR_MINUTES
_MARGIN_MINUTES: Final = _DAY_MINUTES
"""Minutes are kept from so long before the time asked: clocks differ, and windows reach back."""
_USUAL_MINUTES: Final = 36 * _DAY_MINUTES
"""Hours are kept from so long before: what is usual is that of the last four weeks."""
_FROM, _TO, _RULE, _SCOPE, _INPUTS = "--from", "--to", "RULE", "--scope", "input topics"
_STEPS_PER_TURN: Final = 2_000


class Asked(NamedTuple):
    """What `leadpulse alerts test` is asked, as it was typed; None for what was not."""

    rule: str
    since: str
    until: str | None = None
    scope: str | None = None


class Trial(NamedTuple):
    """A rule that is tried on the minutes of [start, end), on all its scopes or on one."""

    rule: Rule
    start_minute: int
    end_minute: int
    scope: Scope | None


class Incident(NamedTuple):
    """A time that the rule would have fired: what was told first, what it said, when it was over.

    `resolved_ms` is None if it was firing at the end of the time that was tried.
    """

    alert: Alert
    messages: Mapping[str, str]
    resolved_ms: int | None = None


class Past(NamedTuple):
    """What the inputs come to, as of any minute of the trial."""

    history: History
    outlook: Outlook
    spans: Spans
    deleted: int


def run(settings: Settings, asked: Asked, console: Console, environ: Mapping[str, str]) -> None:
    """Try a rule and print when it would have fired, in the language of `environ`.

    Raises:
        Problem: if there is no such rule, time or scope, or Kafka does not answer.
    """
    asyncio.run(try_rule(settings, asked, console, SystemClock(), language_of(environ)))


async def try_rule(
    settings: Settings, asked: Asked, console: Console, clock: Clock, language: str
) -> None:
    """Do what `run` does, in a running loop."""
    trial = trial_of(settings, asked, clock.now_ms() // MINUTE_MS)
    try:
        past = await _Reading(settings, trial, clock).read()
    except (KafkaError, OSError) as error:
        raise await problem_of(settings, error) from error
    scopes = _scopes(trial, past)
    minutes = (trial.end_minute - trial.start_minute) * len(scopes)
    incidents: list[Incident] = []
    with progress_bar(settings.kafka.servers) as bar:
        task = bar.add_task("minutes", total=minutes)
        for found in walk(trial, past, scopes, settings.currency):
            incidents += found
            bar.update(task, advance=_STEPS_PER_TURN)
    wording = Wording(language, settings.time_zone)
    for line in lines_of(trial, past, len(scopes), incidents, wording):
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)


# ----------------------------------------------------------------------------- what is asked


def trial_of(settings: Settings, asked: Asked, now_minute: int) -> Trial:
    """Return what is to be tried.

    Raises:
        Problem: if there is no such rule, or the time is none that has been.
    """
    rule = _rule_named(asked.rule, settings.alert_rules())
    calendar = Calendar(settings.time_zone)
    start = time_of(asked.since, _FROM, calendar)
    if start > now_minute:
        raise Problem(_FROM, "a time that has been", f"{asked.since!r:.80}")
    end = now_minute + 1
    if asked.until is not None:
        end = min(end, time_of(asked.until, _TO, calendar, is_end=True))
    if end <= start:
        raise Problem(_TO, "a time after --from", f"{asked.until!r:.80}")
    scope = None if asked.scope is None else scope_of(asked.scope, settings.rules())
    if scope is not None and not rule.concerns(scope):
        got = scope_text(scope)
        raise Problem(_SCOPE, f"one that {rule.name} looks at ({_looks_at(rule)})", got)
    return Trial(rule, start, end, scope)


def _rule_named(name: str, rules: Sequence[Rule]) -> Rule:
    for rule in rules:
        if rule.name == name:
            # Whoever tries a rule that is switched off wonders whether to switch it on.
            return msgspec.structs.replace(rule, enabled=True)
    names = [rule.name for rule in rules]
    todo = nearest(name, names) or "`leadpulse alerts rules` lists them"
    raise Problem(_RULE, f"one of {', '.join(names)}", f"{name!r:.80}", todo)


def _looks_at(rule: Rule) -> str:
    only = [*rule.channels, *rule.campaigns]
    return ", ".join(rule.levels) + (f"; only {', '.join(only)}" if only else "")


def _scopes(trial: Trial, past: Past) -> list[Scope]:
    """Return what the rule looks at, of what there are numbers or targets about.

    Raises:
        Problem: if there is nothing to look at.
    """
    counted = {subject.scope for subject in past.history.subjects()}
    known = sorted(
        counted.union(scope for scope, targets in past.outlook.targets.items() if targets),
        key=lambda scope: (scope.channel or "", scope.campaign_id or ""),
    )
    if trial.scope is not None:
        if trial.scope not in known:
            asked = scope_text(trial.scope)
            todo = nearest(asked, map(scope_text, known))
            raise Problem(_SCOPE, "one that there are numbers or targets of", asked, todo)
        return [trial.scope]
    return [scope for scope in known if trial.rule.concerns(scope)]


# ----------------------------------------------------------------------------- reading


def retention_of(settings: Settings, trial: Trial, now_minute: int) -> Retention:
    """Return what to keep: minutes for all of a trial, hours for what was usual before."""
    minutes = now_minute - trial.start_minute + _MARGIN_MINUTES
    kept = settings.retention_rule()
    hours = max(minutes + _USUAL_MINUTES, kept.hours)
    return Retention(minutes, hours, max(hours + _DAY_MINUTES, kept.days))


def fold_of(settings: Settings, retention: Retention) -> Fold:
    """Return an empty recomputation of a deployment."""
    return Fold(
        settings.rules(),
        Funnel(settings.funnel.stages, settings.funnel.skipped == "imply"),
        Calendar(settings.time_zone),
        retention,
        settings.park_ms,
        settings.keep_ms,
        settings.horizon_ms,
    )


def past_of(result: FoldResult, buckets: Buckets, settings: Settings, deleted: int = 0) -> Past:
    """Return a recomputation as of any minute."""
    outlook = result.outlook(settings.channels.expects_cost, settings.horizon_ms)
    history = History(dict(result.cells), buckets, result.newest_minute or 0)
    return Past(history, replace(outlook, sums=history), Spans(buckets), deleted)


class _Reading:
    """Reads the inputs and folds them, with minutes for all of the time that is asked."""

    def __init__(self, settings: Settings, trial: Trial, clock: Clock) -> None:
        self._settings = settings
        self._trial = trial
        self._clock = clock
        retention = retention_of(settings, trial, clock.now_ms() // MINUTE_MS)
        self._buckets = Buckets(Calendar(settings.time_zone), retention)
        self._fold = fold_of(settings, retention)

    async def read(self) -> Past:
        """Return what the inputs come to.

        Raises:
            Problem: if they are empty or have nothing in the time that is asked.
        """
        async with consumer_of(self._settings) as consumer:
            deleted = await self._read(consumer)
        result = self._fold.result(booked_minute=self._trial.end_minute)
        if result.newest_minute is None:
            raise Problem(_INPUTS, "events", "none", "is anything sent to them?")
        past = past_of(result, self._buckets, self._settings, deleted)
        self._refuse_emptiness(past)
        return past

    async def _read(self, consumer: Any) -> int:
        """Fold every record, and return how many the broker has deleted before."""
        shorts = {full: short for short, full in home.topics_of(self._settings).inputs.items()}
        places = await self._places(shorts)
        starts = await seek_to_start(consumer, places)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(places)

        def take(tp: TopicPartition, record: Any) -> None:
            if record.offset < ends[tp]:
                place = (tp.partition, record.offset)
                self._fold.add(
                    shorts[tp.topic], *place, record.value, record.timestamp, record.headers
                )

        with progress_bar(self._settings.kafka.servers) as bar:
            deleted = sum(starts.values())
            task = bar.add_task("events", total=sum(ends.values()) - deleted)
            async for positions in read_until(consumer, ends, take, self._clock):
                bar.update(task, completed=sum(positions.values()) - deleted)
        return deleted

    async def _places(self, shorts: Mapping[str, str]) -> list[TopicPartition]:
        places = []
        for state in await home.describe(self._settings):
            if state.spec.name in shorts:
                if state.partitions is None:
                    where = f"topic {state.spec.name}"
                    raise Problem(where, "a topic", "none", home.CREATE)
                places += [TopicPartition(state.spec.name, p) for p in range(state.partitions)]
        return places

    def _refuse_emptiness(self, past: Past) -> None:
        trial, zone, history = self._trial, self._settings.time_zone, past.history
        if trial.rule.kind == PACING_BEHIND and any(past.outlook.targets.values()):
            # That nothing happened is what there may be to find.
            return
        subjects = history.subjects()
        if any(
            len(history.busy_minutes(one, trial.start_minute, trial.end_minute)) for one in subjects
        ):
            return
        ends = [history.ends(subject) for subject in subjects]
        if not ends:
            raise Problem(_INPUTS, "events that count", "none")
        first, last = min(first for first, _ in ends), max(last for _, last in ends)
        told = [minute_text(m, zone) for m in (trial.start_minute, trial.end_minute, first, last)]
        expected = f"something that happened from {told[0]} to {told[1]}"
        got = f"nothing; the inputs tell of {told[2]} to {told[3]}"
        raise Problem(_INPUTS, expected, got)


# ----------------------------------------------------------------------------- trying


def walk(
    trial: Trial, past: Past, scopes: Iterable[Scope], currency: str
) -> Iterator[list[Incident]]:
    """Yield what would have been told, after every 2,000 minutes; scope by scope, in order of time."""
    found: list[Incident] = []
    for scope in scopes:
        walker = _Walker(trial, past, scope, currency)
        for count, minute in enumerate(range(trial.start_minute, trial.end_minute), 1):
            walker.step(minute)
            if count % _STEPS_PER_TURN == 0:
                yield found
                found = []
        found += walker.incidents
        yield found
        found = []


class _Walker:
    """One scope, minute by minute."""

    def __init__(self, trial: Trial, past: Past, scope: Scope, currency: str) -> None:
        self._trial = trial
        self._past = past
        self._scope = scope
        self._currency = currency
        self._detector = Detector((trial.rule,), past.outlook, past.spans)
        self._standing: Standing = QUIET
        self.incidents: list[Incident] = []

    def step(self, minute: int) -> None:
        """Look at what is counted when `minute` has just ended."""
        self._past.history.minute = minute
        standings = {self._trial.rule.name: self._standing}
        for finding in self._detector.evaluate(self._scope, minute, standings):
            now_ms = (minute + 1) * MINUTE_MS
            self._standing, alert = step(self._standing, finding, now_ms)
            if alert is not None:
                self._take(alert, minute)

    def _take(self, alert: Alert, minute: int) -> None:
        if alert.state == FIRED:
            self.incidents.append(Incident(alert, self._messages(alert, minute)))
        elif alert.state == RESOLVED and self.incidents:
            self.incidents[-1] = self.incidents[-1]._replace(resolved_ms=alert.at_ms)

    def _messages(self, alert: Alert, minute: int) -> Mapping[str, str]:
        campaigns = [
            subject.scope
            for subject in self._past.history.subjects()
            if subject.scope.campaign_id is not None
        ]
        told = self._detector.campaigns_told(campaigns, minute)
        explanation = self._detector.explain(alert.finding, told)
        zone = self._past.outlook.calendar.zone
        value = alert_value(alert, explanation, zone, self._currency)
        return {"en": value.message_en, "fr": value.message_fr}


# ----------------------------------------------------------------------------- telling


def lines_of(
    trial: Trial, past: Past, scopes: int, incidents: Sequence[Incident], wording: Wording
) -> Iterator[Text]:
    """Yield what was tried, and each incident in two lines."""
    zone = str(past.outlook.calendar.zone)
    times = [wording.time(m * MINUTE_MS) for m in (trial.start_minute, trial.end_minute)]
    tried = wording.say("tried", trial.rule.name, *times, zone)
    yield Text(f"{tried}, {wording.count('scope', scopes)}")
    yield Text(wording.count("fired", len(incidents)), style="bold")
    for incident in sorted(incidents, key=lambda one: one.alert.at_ms):
        yield Text()
        yield _headline(incident, wording)
        yield Text(f"  {incident.messages[wording.language]}")
    yield Text()
    yield Text(wording.say("hindsight"), style="dim")
    if past.deleted:
        yield Text(wording.say("deleted", wording.number(past.deleted)), style="yellow")


def _headline(incident: Incident, wording: Wording) -> Text:
    alert = incident.alert
    line = Text(wording.time(alert.at_ms), style="bold")
    finding = alert.finding
    line.append(f"  {wording.scope(finding.scope)}  {finding.window.kind}  ")
    if incident.resolved_ms is None:
        line.append(wording.say("still"), style="red")
    else:
        lasted = wording.lasted(incident.resolved_ms - alert.at_ms)
        line.append(wording.say("until", wording.time(incident.resolved_ms), lasted))
    return line
