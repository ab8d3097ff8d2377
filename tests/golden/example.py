"""The worked example as tests need it: its events in several orders, and what they come to."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent
DAY_MS: Final = 86_400_000
ZONE: Final = "Europe/Paris"
MONTH_START: Final = "2026-03-01T00:00:00+01:00"

STAGES: Final = ("visitor", "lead", "mql", "sql", "customer")
AMOUNTS: Final = ("cost", "revenue_gross", "revenue_net", "refunds")

NOT_WRITTEN: Final[Mapping[str, tuple[str, ...]]] = {
    "period": (
        *("leads", "revenue_net", "cost_media", "cost_records"),
        *("stage_current", "stage_implied", "cycle_histogram"),
    ),
    "cohort": (
        *("cost_media", "cost_records", "stage_entered.customer", "reached"),
        *("closed_from.lead", "closed_from.sql", "cycle_ms", "cycle_count", "cycle_histogram"),
    ),
}
"""Facts that the example does not write down: derived, or of no effect in it."""


class Line(NamedTuple):
    """One event and the short name of its topic."""

    topic: str
    value: bytes


class Expected(NamedTuple):
    """What a channel (`_all` is the whole) comes to on a basis.

    `facts` by their published names, amounts in EUR; `kpis` as they are published; `mature` leads.
    """

    basis: str
    channel: str
    facts: Mapping[str, int]
    kpis: Mapping[str, Mapping[str, Any]]
    mature: int


def _lines() -> list[Line]:
    written = (FOLDER / "events.jsonl").read_text().splitlines()
    return [
        Line(line["topic"], json.dumps(line["value"]).encode()) for line in map(json.loads, written)
    ]


def _expected() -> tuple[Mapping[str, Any], list[Expected]]:
    whole = json.loads((FOLDER / "expected.json").read_text())
    return whole, [
        Expected(basis, channel, _published(told["facts"]), told["kpis"], _mature(told["facts"]))
        for basis in NOT_WRITTEN
        for channel, told in whole[basis].items()
    ]


def _published(written: Mapping[str, int]) -> dict[str, int]:
    facts: dict[str, int] = {}
    for name, fact in written.items():
        if name in STAGES:
            facts[f"stage_entered.{name}"] = fact
        elif name == "closed_from_mql":
            facts["closed_from.mql"] = fact
        elif name == "cycle_days":
            facts["cycle_ms"] = fact * DAY_MS
        elif name != "mature":
            facts[name] = fact
    return facts


def _mature(written: Mapping[str, int]) -> int:
    return written.get("mature", 0)


LINES: Final = _lines()
_WHOLE, EXPECTED = _expected()
AS_OF: Final[str] = _WHOLE["as_of"]
"""The instant at which the example is read."""


def shuffled(lines: list[Line], seed: int) -> list[Line]:
    """Return the lines in another order."""
    mixed = list(lines)
    random.Random(seed).shuffle(mixed)
    return mixed


ORDERS: Final[Mapping[str, list[Line]]] = {
    "as it is": LINES,
    "shuffled": shuffled(LINES, 1),
    "shuffled and doubled": shuffled(LINES * 2, 2),
}


def shown(basis: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return those facts that the example writes down."""
    hidden = NOT_WRITTEN[basis]
    return {
        name: fact
        for name, fact in facts.items()
        if name not in hidden and name.partition(".")[0] not in hidden
    }


def rounded(value: float) -> int:
    """Return a KPI's value in millionths, as the example writes it with 6 decimals."""
    return round(value * 1_000_000)
