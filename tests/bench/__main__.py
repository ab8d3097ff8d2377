"""`python -m tests.bench`: measure, print the tables, write the JSON; exit status 1 on a wrong total."""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from streams.problems import Problem
from tests.bench.data_sets import DataSet
from tests.bench.filling import fill
from tests.bench.latency import Measured, measure
from tests.bench.measuring import BenchError, Run
from tests.bench.report import RECORD_BATCH_SIZE, as_json, latency_table, table
from tests.bench.throughput import ENGINES, Place, events_for
from tests.parts.install import MissingPartError
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer
from tests.parts.server import ServerError

EVENTS = 6_000_000
QUICK_EVENTS = 3_000_000
LATENCY_SECONDS = 60.0
QUICK_LATENCY_SECONDS = 20.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: `events` for the fast engines, the others get fewer."""

    engines: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    rounds: int
    events: int
    latency_seconds: float


@click.command()
@click.option("--events", type=click.IntRange(10_000), help=f"For the fast engines [{EVENTS:,}].")
@click.option("--rounds", type=click.IntRange(1), help="Each runs every engine once [3].")
@click.option("--engines", help=f"Separated by commas [{','.join(ENGINES)}].")
@click.option("--batch-sizes", help="Events in a record batch, separated by commas [4000,100].")
@click.option("--skip-latency", is_flag=True, help="Measure throughput only.")
@click.option(
    "--quick", is_flag=True, help="One round, batches of 4,000, fewer events: two minutes."
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write figures."
)
def main(
    events: int | None,
    rounds: int | None,
    engines: str | None,
    batch_sizes: str | None,
    skip_latency: bool,
    quick: bool,
    file: Path | None,
) -> None:
    """Measure LeadPulse, plain Faust and the ceiling on one job, on a real broker."""
    latency_seconds = QUICK_LATENCY_SECONDS if quick else LATENCY_SECONDS
    plan = Plan(
        engines=_engines(engines),
        batch_sizes=_sizes(batch_sizes or (str(RECORD_BATCH_SIZE) if quick else "4000,100")),
        rounds=rounds or (1 if quick else 3),
        events=events or (QUICK_EVENTS if quick else EVENTS),
        latency_seconds=0.0 if skip_latency else latency_seconds,
    )
    # The client warns of retries while new topics get their leaders.
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    # A table in a file is not cut at 80 columns.
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    try:
        _bench(plan, console, file)
    except (BenchError, MissingPartError, Problem, ServerError) as error:
        sys.exit(f"bench: {error}")


def _engines(text: str | None) -> tuple[str, ...]:
    named = tuple(text.split(",")) if text else tuple(ENGINES)
    unknown = [name for name in named if name not in ENGINES]
    if unknown:
        msg = f"expected some of {', '.join(ENGINES)}, got {unknown[0]!r:.40}"
        raise click.BadParameter(msg, param_hint="--engines")
    return named


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(size) if size.isdecimal() else 0 for size in text.split(","))
    if min(sizes) < 1:
        msg = f"expected positive numbers, got {text!r:.40}"
        raise click.BadParameter(msg, param_hint="--batch-sizes")
    return sizes


def _bench(plan: Plan, console: Console, file: Path | None) -> None:
    load = os.getloadavg()[0]
    with _place() as place:
        console.print(
            f"bench: engine on core {place.engine_core}, everything else on another; "
            f"load of the machine before: {load:.1f}"
        )
        runs = _throughput(plan, place, console)
        latency = _latency(plan, place, console)
    for batch_size, of_size in runs.items():
        console.print(table(batch_size, of_size))
    if latency:
        console.print(latency_table(latency.latencies))
        console.print(
            f"at {latency.events_per_second:,.0f} events/s the worker took "
            f"{latency.cpu_share:.0%} of its core"
        )
    if file:
        latencies = latency.latencies if latency else {}
        file.write_text(json.dumps(as_json(runs, latencies), indent=2) + "\n")


@contextmanager
def _place() -> Iterator[Place]:
    """Start broker and Redis on one core, where this process goes too; another is the engine's."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        msg = "cores: expected two, one for the broker and one for the engine, got one"
        raise BenchError(msg)
    others_core, engine_core = cores[:2]
    os.sched_setaffinity(0, {others_core})
    with (
        tempfile.TemporaryDirectory(prefix="leadpulse-bench-") as directory,
        KafkaBroker(cpus={others_core}, heap_mb=1024) as broker,
        RedisServer() as redis,
    ):
        yield Place(broker.bootstrap, redis.url, engine_core, Path(directory))


def _throughput(plan: Plan, place: Place, console: Console) -> dict[int, dict[str, list[Run]]]:
    data_sets = _fill(plan, place, console)
    runs: dict[int, dict[str, list[Run]]] = {
        batch_size: {engine: [] for engine in plan.engines} for batch_size in plan.batch_sizes
    }
    for number in range(1, plan.rounds + 1):
        for (batch_size, engine), data_set in data_sets.items():
            name = f"bench-{engine}-{batch_size}-{number}"
            run = ENGINES[engine](place, data_set, name)
            runs[batch_size][engine].append(run)
            console.print(
                f"round {number} of {plan.rounds}, batches of {batch_size:,}: {engine} "
                f"{run.events_per_second:,.0f} events/s, "
                f"{run.cpu_seconds_per_million:.2f} CPU s per million, totals right"
            )
    return runs


def _fill(plan: Plan, place: Place, console: Console) -> dict[tuple[int, str], DataSet]:
    """Return the data set of each batch size and engine, all of them in Kafka."""
    end_ms = time.time_ns() // 1_000_000
    wanted = {
        (batch_size, engine): DataSet(batch_size, events_for(engine, plan.events), end_ms)
        for batch_size in plan.batch_sizes
        for engine in plan.engines
    }
    for data_set in dict.fromkeys(wanted.values()):
        began = time.monotonic()
        fill(place.deployment(data_set, "bench-fill").settings, data_set)
        console.print(
            f"filled {data_set.events:,} events in batches of {data_set.batch_size:,}, "
            f"{time.monotonic() - began:.0f} s"
        )
    return wanted


def _latency(plan: Plan, place: Place, console: Console) -> Measured | None:
    if not plan.latency_seconds:
        return None
    console.print(f"latency: probes for {plan.latency_seconds:.0f} s at 1,000 events/s")
    return measure(place, plan.latency_seconds)


if __name__ == "__main__":
    main()
