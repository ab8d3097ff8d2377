"""Sends simulated traffic to Kafka at the pace of a clock."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from streams.clock import Clock
from streams.sending import sender
from streams.settings import Settings
from streams.traffic import Mix, Record, traffic

__all__ = ["Mix", "Plan", "Record", "Scheduled", "mix_of", "schedule", "simulate", "traffic"]

LEAD_IN_SECONDS = 30.0
NO_END = float("inf")
# Shorter waits than this are not worth a turn of the loop.
PATIENCE_SECONDS = 0.004
CYCLE_SECONDS = 8.0
COST_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a simulation runs.

    `rate` is events a second of the machine's time. For the first half minute event time runs
    `speed` times faster than the machine's, from far enough back to catch up with it; so sales are
    seen soon and nothing lies in the future. `seconds` and `events` end it; None is without end.
    `cycle_seconds` is event time from lead to sale; None: what passes in eight seconds of the run.
    """

    seed: int = 1
    rate: float = 500.0
    seconds: float | None = None
    events: int | None = None
    speed: float = 60.0
    cycle_seconds: float | None = None
    mix: Mix = field(default_factory=Mix)


class Scheduled(NamedTuple):
    """A record and the seconds after the start at which it is sent."""

    due_seconds: float
    record: Record


class _Phase(NamedTuple):
    """A part of a run with one speed; times of the run in seconds, of events in ms."""

    begins: float
    ends: float
    start_ms: int
    speed: float


def schedule(plan: Plan, now_ms: int) -> Iterator[Scheduled]:
    """Return what is sent and when, for a run that starts at `now_ms`; pure."""
    return islice(_scheduled(plan, now_ms), plan.events)


def mix_of(settings: Settings) -> Mix:
    """Return the usual mix in the currency, time zone and funnel of `settings`."""
    return Mix(
        currency=settings.currency,
        time_zone=settings.time_zone,
        funnel=settings.funnel.stages,
    )


async def simulate(
    settings: Settings, plan: Plan, clock: Clock, report: Callable[[Counter[str]], None]
) -> Counter[str]:
    """Send what `plan` says and return how many records went to each topic, by short name.

    `report` gets the same counts now and then; records that are broken count as "broken" too.

    Raises:
        Problem: if Kafka does not answer, a topic is missing, or a record is refused.
    """
    sent: Counter[str] = Counter()
    started = clock.monotonic_seconds()
    async with sender(settings) as out:
        for due, record in schedule(plan, clock.now_ms()):
            wait = due - (clock.monotonic_seconds() - started)
            if wait > PATIENCE_SECONDS:
                report(sent)
                await asyncio.sleep(wait)
            await out.send(record.topic, record.key or None, record.value)
            sent[record.topic] += 1
            if record.broken:
                sent["broken"] += 1
    report(sent)
    return sent


def _scheduled(plan: Plan, now_ms: int) -> Iterator[Scheduled]:
    for phase in _phases(plan, now_ms):
        for record in traffic(plan.seed, phase.start_ms, _mix(plan, phase.speed)):
            due = phase.begins + (record.at_ms - phase.start_ms) / 1000 / phase.speed
            if due >= phase.ends:
                break
            yield Scheduled(due, record)


def _phases(plan: Plan, now_ms: int) -> list[_Phase]:
    ends = NO_END if plan.seconds is None else plan.seconds
    if plan.speed <= 1:
        return [_Phase(0.0, ends, now_ms, plan.speed)]
    lead_in = min(LEAD_IN_SECONDS, ends, NO_END if plan.events is None else plan.events / plan.rate)
    caught_up_ms = now_ms + round(lead_in * 1000)
    first = _Phase(0.0, lead_in, caught_up_ms - round(lead_in * plan.speed * 1000), plan.speed)
    return [first, _Phase(lead_in, ends, caught_up_ms, 1.0)]


def _mix(plan: Plan, speed: float) -> Mix:
    cycle = CYCLE_SECONDS * speed if plan.cycle_seconds is None else plan.cycle_seconds
    return replace(
        plan.mix,
        per_second=plan.rate / speed,
        cycle_ms=round(cycle * 1000),
        cost_every_ms=max(1, round(COST_SECONDS * speed * 1000)),
    )
