"""What the outputs say: the numbers of a record of leadgen.kpis.v1 or the ledger, and of a Redis hash."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kpis.catalog import Interval, Undefined, Value
from kpis.facts import AMOUNTS, Facts
from kpis.windows import micros_of, shown_facts


class Shown(NamedTuple):
    """A KPI with what is said about its value."""

    value: Value
    is_partial: bool = False
    interval: Interval | None = None


class Numbers(NamedTuple):
    """Facts, the derived ones and `mature` among them, and KPIs of a subject and window."""

    facts: Facts
    kpis: Mapping[str, Shown]


class View(NamedTuple):
    """What an output says: over which minutes (None for lifetime), as of when, and the numbers.

    `record_id` is empty and `cause` None where an output does not say.
    """

    start_minute: int | None
    end_minute: int | None
    complete_until_ms: int | None
    computed_at_ms: int
    state: str
    revision: int
    numbers: Numbers
    cause: str | None = None
    record_id: str = ""
    has_previous: bool = False


BROKEN = (ValueError, KeyError, TypeError, AttributeError)
"""What the functions below raise on what is no such output."""


def view_of_record(value: bytes) -> View:
    """Return what a value of leadgen.kpis.v1 or of the ledger says.

    Raises:
        BROKEN: if it is no such value.
    """
    told: dict[str, Any] = json.loads(value, parse_float=str)
    window = told["window"]
    until = told["complete_until"]
    return View(
        start_minute=_minute(window["start"]),
        end_minute=_minute(window["end"]),
        complete_until_ms=None if until is None else _instant_ms(until),
        computed_at_ms=_instant_ms(told["computed_at"]),
        state=told["state"],
        revision=int(told["revision"]),
        numbers=Numbers(
            shown_facts(value), {name: _shown(kpi) for name, kpi in told["kpis"].items()}
        ),
        cause=told["cause"],
        record_id=told["id"],
        has_previous="previous" in told,
    )


def _shown(kpi: Mapping[str, Any]) -> Shown:
    if kpi["value"] is None:
        return Shown(Undefined(kpi["undefined_reason"]))
    ends = kpi.get("interval")
    interval = None if ends is None else (micros_of(str(ends[0])), micros_of(str(ends[1])))
    return Shown(micros_of(str(kpi["value"])), bool(kpi.get("partial")), interval)


def complete_until_ms(value: bytes) -> int | None:
    """Return up to when everything was counted when a record was written, None if it does not say."""
    try:
        return _instant_ms(json.loads(value)["complete_until"])
    except BROKEN:
        return None


def view_of_hash(fields: Mapping[str, str]) -> View:
    """Return what a Redis hash says: neither histograms nor intervals.

    Raises:
        BROKEN: if it is no such hash.
    """
    facts: Facts = {}
    undefined: dict[str, str] = json.loads(fields["_undefined"])
    partial: list[str] = json.loads(fields.get("_partial", "[]"))
    kpis = {name: Shown(Undefined(reason)) for name, reason in undefined.items()}
    for name, text in fields.items():
        if name.startswith("_"):
            continue
        if name in AMOUNTS:
            facts[name] = micros_of(text)
        elif "." in text:
            # KPIs always have a point, facts that are no amounts never do.
            kpis[name] = Shown(micros_of(text), name in partial)
        else:
            facts[name] = int(text)
    until = fields.get("_complete_until")
    return View(
        start_minute=_minute(fields.get("_start")),
        end_minute=_minute(fields.get("_end")),
        complete_until_ms=None if until is None else _instant_ms(until),
        computed_at_ms=_instant_ms(fields["_computed_at"]),
        state=fields["_state"],
        revision=int(fields["_revision"]),
        numbers=Numbers(facts, kpis),
    )


def _minute(text: str | None) -> int | None:
    return None if text is None else int(datetime.fromisoformat(text).timestamp()) // 60


def _instant_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
