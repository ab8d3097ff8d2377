"""How much memory a remembered lead and a stored cell take, all told: `python -m tests.bench.memory`.

Each kind is filled in a process of its own; what its resident memory grew by is divided by the number.
"""

import gc
import multiprocessing
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from kpis.calendar import Calendar
from kpis.cells import Cells
from kpis.events import Envelope, LeadCreated, LeadStageChanged
from kpis.lead_rows import encode_lead
from kpis.leads import Lead, create_lead, tell_lead
from kpis.orders import Waiting
from kpis.retention import Buckets, Grain, Retention
from kpis.spans import Cell, Spans
from streams.messages import lead_key
from streams.outbox import Outbox
from streams.tables import Table

NOON_MS: Final = 1_772_712_000_000
HOUR_MS: Final = 3_600_000
PARK_MS: Final = 7 * 24 * HOUR_MS
STAGES: Final = ("mql", "sql", "customer")
MOVES: Final = (0, 1, 2, 3)
"""Stage changes of a lead, each number as often as the others."""

FLUSH_EVERY: Final = 10_000
MINUTES: Final = 180
HOURS: Final = 864
PAGE_BYTES: Final = 4_096


@click.command()
@click.option("--leads", default=1_000_000, show_default=True)
@click.option("--cells", default=1_000_000, show_default=True)
def main(leads: int, cells: int) -> None:
    """Measure the memory of leads and cells."""
    for what, fill, number in (
        ("lead, every id a UUID", _fill_uuid_leads, leads),
        ("lead, ids of 10 characters", _fill_short_leads, leads),
        ("cell of a campaign", _fill_cells, cells),
    ):
        grown, count = _measured(fill, number)
        click.echo(f"{what}: {grown / count:.0f} bytes each, {count:,} of them in {grown >> 20} MB")


def _measured(fill: Callable[[int], tuple[Any, int]], number: int) -> tuple[int, int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (fill, number))


def _grown(fill: Callable[[int], tuple[Any, int]], number: int) -> tuple[int, int]:
    fill(1_000)
    gc.collect()
    before = _resident_bytes()
    kept, count = fill(number)
    gc.collect()
    grown = _resident_bytes() - before
    del kept
    return grown, count


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


# ----------------------------------------------------------------------------- leads


def _fill_uuid_leads(number: int) -> tuple[Table, int]:
    chance = random.Random(1)

    def next_id() -> str:
        return str(uuid.UUID(int=chance.getrandbits(128), version=4))

    return _filled(number, next_id), number


def _fill_short_leads(number: int) -> tuple[Table, int]:
    numbers = iter(range(10**9, 2 * 10**9))
    return _filled(number, lambda: str(next(numbers))), number


def _filled(number: int, next_id: Callable[[], str]) -> Table:
    """Return a table of leads as the entities stage keeps them."""
    table = Table("journeys", "app-journeys-changelog", 0)
    for i in range(number):
        lead_id = next_id()
        table.put(lead_key(lead_id), encode_lead(_lead(i, lead_id, next_id)))
        if i % FLUSH_EVERY == 0:
            table.flush(Outbox())
    table.flush(Outbox())
    return table


def _lead(number: int, lead_id: str, next_id: Callable[[], str]) -> Lead:
    lead = Lead()
    at_ms = NOON_MS + number * 1_000 + number % 997
    created = LeadCreated(
        envelope=_envelope(next_id(), at_ms),
        lead_id=lead_id,
        channel="google_ads",
        campaign_id=f"campaign-{number % 200}",
        click_id=next_id(),
        visitor_id=next_id(),
        initial_stage="lead",
    )
    create_lead(lead, created, at_ms + 800, PARK_MS)
    for stage in STAGES[: MOVES[number % len(MOVES)]]:
        at_ms += 26 * HOUR_MS + number % 7_919
        moved = LeadStageChanged(_envelope(next_id(), at_ms), lead_id, stage, None, None)
        tell_lead(lead, Waiting(moved, at_ms + 500, "stage-changes", 0, number, b""), PARK_MS)
    return lead


def _envelope(event_id: str, at_ms: int) -> Envelope:
    return Envelope(event_id, "/crm/hubspot", at_ms, None, event_id.encode()[:8])


# ----------------------------------------------------------------------------- cells


def _fill_cells(number: int) -> tuple[list[Cells], int]:
    """Return campaigns with three hours of minutes and the hours, days and lifetime that are kept."""
    spans = Spans(Buckets(Calendar(ZoneInfo("Europe/Paris")), Retention()))
    newest = NOON_MS // 60_000
    kept: list[Cells] = []
    count = 0
    while count < number:
        cells = Cells(spans)
        changed: set[Cell] = set()
        for minute, facts in _facts(newest):
            changed.update(cells.add(Grain.MINUTE, minute, facts, newest))
        for cell in changed:
            cells.pack(cell)
        kept.append(cells)
        count += len(changed)
    return kept, count


def _facts(newest: int) -> Iterator[tuple[int, dict[str, int]]]:
    minutes = [newest - i for i in range(MINUTES)] + [newest - 60 * i for i in range(3, HOURS)]
    for i, minute in enumerate(minutes):
        yield (
            minute,
            {
                "impressions": 900 + i,
                "viewable_impressions": 500 + i,
                "clicks": 30 + i % 50,
                "invalid_clicks": 1,
                "cost": 60_000_000 + i * 1_373,
                "cost_media": 60_000_000 + i * 1_373,
                "cost_records": 1,
                "leads_gross": 3,
                "stage_entered.lead": 3,
                "stage_entered.mql": 1,
            },
        )


if __name__ == "__main__":
    main()
