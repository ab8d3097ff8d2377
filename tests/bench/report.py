"""The figures of all rounds: medians, ratios, the table and the JSON."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from rich.table import Table

from tests.bench.latency import Latency
from tests.bench.measuring import Run

RECORD_BATCH_SIZE = 4_000

Runs = Mapping[int, Mapping[str, Sequence[Run]]]
"""The runs of all rounds, by batch size and engine."""


class Figures(NamedTuple):
    """The medians of one engine's runs, with the lowest and the highest speed."""

    events: int
    events_per_second: float
    cpu_seconds_per_million: float
    peak_mb: float
    lowest: float
    highest: float


def figures(runs: Sequence[Run]) -> Figures:
    """Return the medians of at least one run."""
    speeds = [run.events_per_second for run in runs]
    return Figures(
        events=round(median(run.events for run in runs)),
        events_per_second=median(speeds),
        cpu_seconds_per_million=median(run.cpu_seconds_per_million for run in runs),
        peak_mb=median(run.peak_mb for run in runs),
        lowest=min(speeds),
        highest=max(speeds),
    )


def ratio(engine: str, to: str, runs: Mapping[str, Sequence[Run]]) -> float | None:
    """Return how many times as fast as `to` an engine is; None if one of them did not run."""
    if engine not in runs or to not in runs:
        return None
    return figures(runs[engine]).events_per_second / figures(runs[to]).events_per_second


def cpu_ratio(engine: str, to: str, runs: Mapping[str, Sequence[Run]]) -> float | None:
    """Return how many times as many events as `to` an engine does with a second of processor time.

    Unlike `ratio` it does not count the time that others had the core; None as there.
    """
    if engine not in runs or to not in runs:
        return None
    mine = figures(runs[engine]).cpu_seconds_per_million
    return figures(runs[to]).cpu_seconds_per_million / mine


def table(batch_size: int, runs: Mapping[str, Sequence[Run]]) -> Table:
    """Return the table for one batch size."""
    rounds = max(len(of_engine) for of_engine in runs.values())
    medians = "one round" if rounds == 1 else f"medians of {rounds} rounds"
    title = f"record batches of {batch_size:,} events, {medians}, all totals right"
    shown = Table(title=title, title_justify="left")
    shown.add_column("engine")
    numbers = ("events", "events/s", "CPU s per M", "peak MB", "x faust", "x ceiling")
    for name in (*numbers, "x faust by CPU", "x ceiling by CPU"):
        shown.add_column(name, justify="right")
    shown.add_column("lowest-highest")
    for engine, of_engine in runs.items():
        of = figures(of_engine)
        shown.add_row(
            engine,
            f"{of.events:,}",
            f"{of.events_per_second:,.0f}",
            f"{of.cpu_seconds_per_million:.2f}",
            f"{of.peak_mb:.0f}",
            _text(ratio(engine, "faust", runs), 1),
            _text(ratio(engine, "ceiling", runs), 3),
            _text(cpu_ratio(engine, "faust", runs), 1),
            _text(cpu_ratio(engine, "ceiling", runs), 3),
            f"{of.lowest:,.0f}-{of.highest:,.0f}",
        )
    return shown


def latency_table(latencies: Mapping[str, Latency]) -> Table:
    """Return the table of the probes, in milliseconds."""
    title = "from arrival in Kafka to the changed number in Redis, ms"
    shown = Table(title=title, title_justify="left")
    shown.add_column("probe")
    for name in ("probes", "p50", "p90", "p99", "highest"):
        shown.add_column(name, justify="right")
    for kind, of in latencies.items():
        shown.add_row(kind, *(f"{number:.0f}" for number in of))
    return shown


def as_json(runs: Runs, latencies: Mapping[str, Latency]) -> dict[str, object]:
    """Return what `--json` writes: `engines` are those of the batch size of record.

    Every other batch size is beside it under `batches_of_<n>`; what did not run is not there.
    """
    of_record = RECORD_BATCH_SIZE if RECORD_BATCH_SIZE in runs else next(iter(runs), None)
    written: dict[str, object] = {}
    for batch_size, of_size in runs.items():
        key = "engines" if batch_size == of_record else f"batches_of_{batch_size}"
        written[key] = {engine: _engine(engine, of_size) for engine in of_size}
    if latencies:
        by_kind = {kind: of._asdict() for kind, of in latencies.items()}
        written["latency_ms"] = by_kind["impressions"]
        written["latency_leads_ms"] = by_kind["leads"]
    return written


def _engine(engine: str, runs: Mapping[str, Sequence[Run]]) -> dict[str, float | None]:
    compared = {f"ratio_to_{to}": ratio(engine, to, runs) for to in ("faust", "ceiling")}
    compared |= {f"cpu_ratio_to_{to}": cpu_ratio(engine, to, runs) for to in ("faust", "ceiling")}
    rounded = figures(runs[engine])._asdict() | compared
    return {name: None if number is None else round(number, 3) for name, number in rounded.items()}


def _text(number: float | None, digits: int) -> str:
    return "-" if number is None else f"{number:,.{digits}f}"
