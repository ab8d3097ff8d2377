"""Storms: events go in while workers are killed and paused; afterwards every number must be exact.

Events of every kind, some as late as 60 days; the last of them come when the ledger has closed windows,
so that it has to revise them, with one more kill. With `--replay` a second deployment then reads the same
topics from their beginning and has to come to the same numbers.

`python -m tests.faults.storm --seed 7 --events 60000 --faults 8 --workers 2`, or `make storm ARGS=…`.
"""

import argparse
import asyncio
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from streams import topics
from streams.settings import Settings, load
from streams.simulate import LEAD_IN_SECONDS, Mix, mix_of, schedule
from streams.simulate import Plan as TrafficPlan
from tests.faults.reading_back import (
    NotConsumedError,
    Numbers,
    Positions,
    alert_faults,
    alerts_told,
    ends_of_outputs,
    last_numbers,
    ledger_faults,
    reject_faults,
    replay_faults,
    revisions,
    wait_until_consumed,
)
from tests.faults.workers import Workers
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer

FIRST_FAULT_SECONDS: Final = 6.0
GAP_SECONDS: Final = (3.0, 9.0)
PAUSE_SECONDS: Final = (3.0, 14.0)
"""Longer than the session (10 s) in part."""

BROKER_DOWN_SECONDS: Final = 2.0
READ_SECONDS: Final = 180.0
VERIFY_SECONDS: Final = 480.0
PATIENCE_SECONDS: Final = 0.02

LATE_DAYS: Final = 60
LATE_SHARE: Final = 0.02
CLICKS_TIMES: Final = 5
LEADS_TIMES: Final = 3
"""So much more becomes of an impression than usual, for more journeys that touch each other."""

FEE_SECONDS: Final = 20.0
"""Before a replay so far ahead bills reach, that none is still to be booked when it is over."""

MINUTE_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 20.0
REPLAY_SECONDS: Final = 120.0
LEDGER_SECONDS: Final = 120.0
"""Revisions of a window are at least a minute apart."""

RULES: Final = """
[pacing_behind]
windows = ["1d", "1w", "1mo"]
evaluations = 1
cooldown_minutes = 0
update_minutes = 1
elapsed = 0.0
ratio = 1000.0
resolve_ratio = 1000.0
"""
"""Whatever has a target is behind it, so that there are alerts within the minutes of a storm."""

SECOND_WAVE_SHARE: Final = 0.15
SECOND_WAVE_KILL_SECONDS: Final = 2.0
TURN_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Plan:
    """What a storm is made of; `rate` is events a second, by default so that they outlast the faults."""

    seed: int = 1
    events: int = 60_000
    faults: int = 8
    workers: int = 2
    partitions: int = 4
    broker_faults: int = 0
    rate: float | None = None
    replay: bool = False

    @property
    def events_per_second(self) -> float:
        """How fast events are sent."""
        seconds = FIRST_FAULT_SECONDS + (self.faults + self.broker_faults) * sum(GAP_SECONDS) / 2
        return self.rate or self.events / seconds


@dataclass(slots=True)
class Outcome:
    """What came of a storm; `differences` is empty if every number is exact."""

    differences: list[str] = field(default_factory=list)
    verdict: str = ""
    exits: dict[int, int] = field(default_factory=dict)
    tracebacks: int = 0
    logs: list[str] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


class Storm:
    """One storm on a broker and a Redis of its own."""

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._directory = directory
        self._say = say
        self._random = Random(plan.seed)
        self._began = time.monotonic()
        self._broken: dict[str, str] = {}
        self._first_wave_sent = asyncio.Event()
        self._may_go_on = asyncio.Event()

    async def run(self) -> Outcome:
        """Let it rage, wait until all is calm, and compare."""
        with ExitStack() as stack:
            broker = stack.enter_context(KafkaBroker())
            redis = stack.enter_context(RedisServer())
            environment = {
                "LEADPULSE_KAFKA": broker.bootstrap,
                "LEADPULSE_REDIS": redis.url,
                "LEADPULSE_CONFIG": "",
                "LEADPULSE_TIME_ZONE": "Europe/Paris",
                "LEADPULSE_ALERTS_RULES": str(self._rules()),
            }
            settings = load(environment)
            await topics.create(settings, self._plan.partitions)
            workers = Workers(self._plan.workers, environment, self._directory)
            stack.callback(workers.close)
            workers.start()
            outcome = await self._rage(settings, environment, broker, workers)
            if self._plan.replay and outcome.is_exact:
                outcome.differences += await self._replay(settings, environment, workers, outcome)
            return outcome

    def _rules(self) -> Path:
        rules = self._directory / "alerts.toml"
        rules.write_text(RULES)
        return rules

    async def _rage(
        self, settings: Settings, environment: dict[str, str], broker: KafkaBroker, workers: Workers
    ) -> Outcome:
        self._began = time.monotonic()
        sending = asyncio.create_task(self._send(settings))
        try:
            await self._break_things(broker, workers)
            self._note("last fault done")
            waiting = asyncio.create_task(self._first_wave_sent.wait())
            await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            await self._start_second_wave(settings, workers)
            await sending
            self._note(f"{self._plan.events:,} events sent")
        finally:
            sending.cancel()
            workers.resume()
        outcome = Outcome()
        try:
            await wait_until_consumed(settings, READ_SECONDS)
        except NotConsumedError as error:
            outcome.differences.append(str(error))
        self._note("all consumed")
        if not await self._has_ledger(settings, 2):
            outcome.differences.append("ledger: expected a window that was revised, got none")
        if self._plan.replay:
            await self._wait_for_bills()
        outcome.differences += await reject_faults(settings, self._broken)
        outcome.differences += self._verify(environment, outcome)
        outcome.differences += await self._read_ledger(settings)
        outcome.differences += await self._read_alerts(settings)
        outcome.exits = dict(workers.exits)
        outcome.logs = [worker.log.read_text(errors="replace") for worker in workers.all]
        outcome.tracebacks = sum(worker.tracebacks() for worker in workers.all)
        return outcome

    async def _start_second_wave(self, settings: Settings, workers: Workers) -> None:
        """Let the rest come once windows are closed, and kill a worker meanwhile."""
        if await self._has_ledger(settings, 1):
            self._note("windows are closed, the rest is sent")
        self._may_go_on.set()
        if self._plan.faults:
            await asyncio.sleep(SECOND_WAVE_KILL_SECONDS)
            worker = self._random.choice(workers.all)
            # It may still be frozen, and is in no state to be frozen again.
            workers.resume()
            self._note(f"worker {worker.number}: killed")
            worker.kill()

    async def _has_ledger(self, settings: Settings, revision: int) -> bool:
        """Return whether a window of that revision is in the ledger, soon."""
        deadline = time.monotonic() + LEDGER_SECONDS
        while not any(one.revision >= revision for one in await revisions(settings)):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(TURN_SECONDS)
        return True

    async def _break_things(self, broker: KafkaBroker, workers: Workers) -> None:
        plan, random = self._plan, self._random
        kinds = ["worker"] * plan.faults + ["broker"] * plan.broker_faults
        random.shuffle(kinds)
        await asyncio.sleep(FIRST_FAULT_SECONDS)
        for kind in kinds:
            worker = random.choice(workers.all)
            if kind == "broker":
                self._note("broker: killed and started again")
                broker.kill()
                await asyncio.sleep(BROKER_DOWN_SECONDS)
                broker.start()
            elif random.random() < 0.5:
                self._note(f"worker {worker.number}: killed")
                worker.kill()
            else:
                seconds = random.uniform(*PAUSE_SECONDS)
                self._note(f"worker {worker.number}: paused for {seconds:.1f} s")
                worker.pause(seconds)
            await asyncio.sleep(random.uniform(*GAP_SECONDS))

    async def _send(self, settings: Settings) -> None:
        names = topics.topics_of(settings).inputs
        plan = TrafficPlan(
            seed=self._plan.seed,
            rate=self._plan.events_per_second,
            events=self._plan.events,
            mix=_mix(self._plan, settings),
        )
        producer = AIOKafkaProducer(
            **settings.kafka.client_options(),
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=180_000,
            linger_ms=5,
        )
        await producer.start()
        try:
            started = time.monotonic()
            deliveries: list[tuple[str, Any]] = []
            first_wave = int(self._plan.events * (1 - SECOND_WAVE_SHARE))
            for number, (due, record) in enumerate(schedule(plan, time.time_ns() // 1_000_000)):
                if number == first_wave:
                    await producer.flush()
                    started += await self._pause()
                wait = due - (time.monotonic() - started)
                if wait > PATIENCE_SECONDS:
                    await asyncio.sleep(wait)
                name = names[record.topic]
                delivery = await producer.send(name, record.value, key=record.key or None)
                if record.broken:
                    deliveries.append((record.broken, delivery))
            await producer.flush()
            for reason, delivery in deliveries:
                place = await delivery
                self._broken[f"{place.topic}/{place.partition}/{place.offset}"] = reason
        finally:
            await producer.stop()

    async def _pause(self) -> float:
        """Return after how many seconds the second wave may go on."""
        began = time.monotonic()
        self._first_wave_sent.set()
        await self._may_go_on.wait()
        return time.monotonic() - began

    def _verify(self, environment: dict[str, str], outcome: Outcome) -> list[str]:
        program = Path(sys.executable).with_name("leadpulse")
        done = subprocess.run(
            [program, "verify"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=VERIFY_SECONDS,
            check=False,
        )
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        outcome.verdict = lines[-1] if lines else ""
        if done.returncode == 0:
            return []
        return lines or [f"verify: expected exit status 0, got {done.returncode}"]

    async def _read_ledger(self, settings: Settings, starts: Positions | None = None) -> list[str]:
        found = await revisions(settings, starts)
        windows = len({revision.key for revision in found})
        self._note(f"{len(found):,} revisions of {windows:,} windows in the ledger")
        if not found:
            return ["ledger: expected windows, got none"]
        return ledger_faults(found)

    async def _read_alerts(self, settings: Settings, starts: Positions | None = None) -> list[str]:
        deadline = time.monotonic() + LEDGER_SECONDS
        # They are looked for once a minute, and not before all has been counted.
        while not (found := await alerts_told(settings, starts)) and starts is None:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(TURN_SECONDS)
        self._note(f"{len(found):,} records of {len({told.key for told in found}):,} alerts")
        if not found and starts is None:
            return ["alerts: expected some to have fired, got none"]
        return alert_faults(found)

    async def _wait_for_bills(self) -> None:
        """Return when every minute of every bill has been counted."""
        end_seconds = LEAD_IN_SECONDS + FEE_SECONDS + MINUTE_SECONDS + SETTLE_SECONDS
        await asyncio.sleep(max(0.0, self._began + end_seconds - time.monotonic()))
        self._note("all bills have come due")

    async def _replay(
        self,
        settings: Settings,
        environment: dict[str, str],
        workers: Workers,
        outcome: Outcome,
    ) -> list[str]:
        """Read everything again under another name, and return how the numbers differ.

        The second deployment writes to the same topics as the first, which has ended: what counts is
        what it writes after the end of that.
        """
        statuses = workers.stop()
        self._note(f"workers stopped: {statuses}")
        first, starts = await last_numbers(settings), await ends_of_outputs(settings)
        again = {
            **environment,
            "LEADPULSE_APP_ID": f"{settings.app_id}-replay",
            "LEADPULSE_REDIS": environment["LEADPULSE_REDIS"].removesuffix("/0") + "/1",
        }
        replayed = load(again)
        await topics.create(replayed, self._plan.partitions)
        directory = self._directory / "replay"
        directory.mkdir(exist_ok=True)
        second = Workers(self._plan.workers, again, directory)
        second.start()
        try:
            await wait_until_consumed(replayed, READ_SECONDS)
            self._note("all consumed again")
            return await self._compare_replay(replayed, first, starts)
        except NotConsumedError as error:
            return [f"replay: {error}"]
        finally:
            second.close()
            outcome.tracebacks += sum(worker.tracebacks() for worker in second.all)

    async def _compare_replay(
        self,
        replayed: Settings,
        first: dict[str, Numbers],
        starts: Positions,
    ) -> list[str]:
        deadline = time.monotonic() + REPLAY_SECONDS
        while True:
            found = replay_faults(first, await last_numbers(replayed, starts))
            # Bills are booked and windows closed once the second deployment knows how far it has read.
            is_done = not found and await revisions(replayed, starts)
            if is_done or time.monotonic() > deadline:
                break
            await asyncio.sleep(TURN_SECONDS)
        self._note(f"{len(first):,} keys compared with the replay")
        found += await reject_faults(replayed, self._broken, starts)
        found += await self._read_alerts(replayed, starts)
        return found + await self._read_ledger(replayed, starts)

    def _note(self, what: str) -> None:
        self._say(f"{time.monotonic() - self._began:6.1f} s  {what}")


def _mix(plan: Plan, settings: Settings) -> Mix:
    """Return traffic of every kind, late by up to 60 days, with many journeys."""
    usual = mix_of(settings)
    campaigns = [
        replace(
            campaign,
            click_ratio=min(1.0, CLICKS_TIMES * campaign.click_ratio),
            lead_ratio=min(1.0, LEADS_TIMES * campaign.lead_ratio),
        )
        for campaign in usual.campaigns
    ]
    return replace(
        usual,
        campaigns=campaigns,
        late_days=LATE_DAYS,
        late_share=LATE_SHARE,
        fee_ahead_ms=round(FEE_SECONDS * 1000) if plan.replay else None,
    )


def run(plan: Plan, directory: Path, say: Callable[[str], None] = print) -> Outcome:
    """Run one storm; worker logs go to `directory`."""
    return asyncio.run(Storm(plan, directory, say).run())


def main() -> int:
    """Run the storm that the command line asks for, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--events", type=int, default=Plan.events)
    parser.add_argument("--faults", type=int, default=Plan.faults)
    parser.add_argument("--workers", type=int, default=Plan.workers)
    parser.add_argument("--partitions", type=int, default=Plan.partitions)
    parser.add_argument("--broker-faults", type=int, default=Plan.broker_faults)
    parser.add_argument("--rate", type=float, default=None, help="events a second")
    parser.add_argument("--replay", action="store_true", help="count all again, and compare")
    parser.add_argument("--logs", type=Path, help="keep the worker logs here")
    arguments = vars(parser.parse_args())
    kept: Path | None = arguments.pop("logs")
    # It says of each retry that it is one.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    directory = kept or Path(tempfile.mkdtemp(prefix="leadpulse-storm-"))
    directory.mkdir(parents=True, exist_ok=True)
    outcome = run(Plan(**arguments), directory, lambda line: print(line, flush=True))
    exits = ", ".join(f"{times} x {status}" for status, times in outcome.exits.items())
    print(f"workers ended by themselves: {exits or 'never'}; tracebacks: {outcome.tracebacks}")
    for difference in outcome.differences:
        print(difference)
    if not outcome.is_exact:
        print(f"worker logs: {directory}")
        return 1
    if kept is None:
        shutil.rmtree(directory)
    print(outcome.verdict)
    return 0


if __name__ == "__main__":
    sys.exit(main())
