"""The alerts of now and the rules in force as a person reads them; only reads."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.text import Text

from kpis.alert_rules import DEFAULTS, Rule, keys_of
from kpis.facts import Scope
from kpis.instants import DAY_MS, instant_ms
from streams import topics as home
from streams.clock import Clock, SystemClock
from streams.problems import Problem
from streams.question import scope_text
from streams.settings import Settings
from streams.topic_reader import consumer_of, problem_of, read_until, seek_to_start
from streams.wording import ENGLISH, FRENCH, Wording, language_of

LATELY_MS: Final = DAY_MS
"""So long a resolved alert is still listed."""

RESOLVED: Final = "resolved"
_BROKEN: Final = (ValueError, KeyError, TypeError, AttributeError)


class Told(NamedTuple):
    """What a record of leadgen.alerts.v1 says; times in milliseconds since 1970."""

    rule: str
    scope: Scope
    state: str
    window: str
    at_ms: int
    since_ms: int
    messages: Mapping[str, str]
    record: Mapping[str, Any]

    @property
    def is_firing(self) -> bool:
        """Whether it has not been resolved."""
        return self.state != RESOLVED


def run(settings: Settings, console: Console, environ: Mapping[str, str]) -> None:
    """List the alerts on `console`, in the language of `environ`.

    Raises:
        Problem: if Kafka does not answer, or the topic is missing.
    """
    clock = SystemClock()
    told = asyncio.run(alerts_now(settings, clock))
    wording = Wording(language_of(environ), settings.time_zone)
    for line in lines_of(told, settings.alert_rules(), wording, clock.now_ms()):
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)


def run_json(settings: Settings) -> str:
    """Return the records as a JSON array, in the order in which they are listed.

    Raises:
        Problem: as `run`.
    """
    told = asyncio.run(alerts_now(settings, SystemClock()))
    return json.dumps([alert.record for alert in told], ensure_ascii=False, indent=2)


async def alerts_now(settings: Settings, clock: Clock) -> list[Told]:
    """Return the alerts that fire or were resolved of late, firing and newest first.

    Raises:
        Problem: if Kafka does not answer, or the topic is missing.
    """
    try:
        latest = await _latest(settings, clock)
    except (KafkaError, OSError) as error:
        raise await problem_of(settings, error) from error
    return ordered(filter(None, map(told_of, latest)), clock.now_ms())


async def _latest(settings: Settings, clock: Clock) -> Iterable[bytes]:
    """Return the last value of each key."""
    topic = home.topics_of(settings).alerts
    states = {state.spec.name: state for state in await home.describe(settings)}
    count = states[topic].partitions
    if count is None:
        where = f"topic {topic}"
        raise Problem(where, "a topic", "none", home.CREATE)
    latest: dict[bytes, bytes] = {}

    def take(_: TopicPartition, record: Any) -> None:
        key = record.key or b""
        if record.value is None:
            latest.pop(key, None)
        else:
            latest[key] = record.value

    places = [TopicPartition(topic, partition) for partition in range(count)]
    async with consumer_of(settings) as consumer:
        await seek_to_start(consumer, places)
        ends = await consumer.end_offsets(places)
        async for _ in read_until(consumer, ends, take, clock):
            pass
    return latest.values()


def told_of(value: bytes) -> Told | None:
    """Return what a value says; None if it is no alert."""
    try:
        record = json.loads(value)
        scope = record["scope"]
        return Told(
            rule=str(record["rule"]),
            scope=Scope(scope["channel"], scope["campaign_id"]),
            state=str(record["state"]),
            window=str(record["window"]["kind"]),
            at_ms=instant_ms(record["at"]),
            since_ms=instant_ms(record["since"]),
            messages={name: str(record[f"message_{name}"]) for name in (ENGLISH, FRENCH)},
            record=record,
        )
    except _BROKEN:
        return None


def ordered(alerts: Iterable[Told], now_ms: int) -> list[Told]:
    """Return those that fire, newest first, then those that were resolved of late, latest first."""
    shown = [one for one in alerts if one.is_firing or one.at_ms > now_ms - LATELY_MS]
    return sorted(shown, key=_rank)


def _rank(alert: Told) -> tuple[bool, int, str, str]:
    newest_ms = alert.since_ms if alert.is_firing else alert.at_ms
    return not alert.is_firing, -newest_ms, alert.rule, scope_text(alert.scope)


# ----------------------------------------------------------------------------- lines


def lines_of(
    alerts: Sequence[Told], rules: Iterable[Rule], wording: Wording, now_ms: int
) -> Iterator[Text]:
    """Yield a line that sums up, two for each alert, and who watches if nothing fires."""
    firing = sum(alert.is_firing for alert in alerts)
    resolved = wording.count("resolved", len(alerts) - firing)
    yield Text(f"{wording.count('firing', firing)}, {resolved}", style="bold")
    if not firing:
        yield Text(_watching(rules, wording))
    for alert in alerts:
        yield Text()
        yield _headline(alert, wording, now_ms)
        yield Text(f"  {alert.messages[wording.language]}")


def _watching(rules: Iterable[Rule], wording: Wording) -> str:
    names = [rule.name for rule in rules if rule.enabled]
    word = "watching" if len(names) > 1 else "one_watching" if names else "no_watching"
    return wording.say(word, len(names), ", ".join(names))


def _headline(alert: Told, wording: Wording, now_ms: int) -> Text:
    line = Text()
    word = wording.say("firing" if alert.is_firing else "resolved")
    line.append(word, style="bold red" if alert.is_firing else "green")
    line.append(f"  {alert.rule}", style="bold")
    line.append(f"  {wording.scope(alert.scope)}  {alert.window}  ")
    if alert.is_firing:
        lasted = wording.lasted(now_ms - alert.since_ms)
        line.append(wording.say("since", wording.time(alert.since_ms), lasted))
    else:
        lasted = wording.lasted(alert.at_ms - alert.since_ms)
        line.append(wording.say("ended", wording.time(alert.at_ms), lasted))
    return line


def rule_lines(rules: Iterable[Rule]) -> Iterator[Text]:
    """Yield each rule with its thresholds as TOML writes them; marked where they differ from the default."""
    for rule in rules:
        default = DEFAULTS[rule.kind]
        title = Text(rule.name, style="bold" if rule.enabled else "dim")
        title.append("" if rule.name == rule.kind else f"  kind {rule.kind}", style="not bold")
        title.append("" if rule.enabled else "  switched off")
        yield title
        for key in sorted(keys_of(rule.kind) - {"kind", "enabled"}):
            value = getattr(rule, key)
            line = Text(f"  {key} = {_toml(value)}")
            if value != getattr(default, key):
                line.append(f"  (default {_toml(getattr(default, key))})", style="yellow")
            yield line


def _toml(value: object) -> str:
    # Lists, texts, numbers and truths are written in JSON as in TOML.
    return json.dumps(value, ensure_ascii=False)
