"""Compares what was published with what the input comes to, number by number, in both directions."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from kpis.catalog import Catalog, Undefined, Value, derived
from kpis.facts import AMOUNTS, Facts, Scope
from kpis.fold import FoldResult, is_cost_expected, window_facts
from kpis.retention import Buckets, Grain
from kpis.windows import (
    LIFETIME,
    ROLLING,
    Key,
    Window,
    amount_text,
    decimal_text,
    key_of,
    micros_of,
    parse_key,
)
from streams.publishers import SLOTS
from streams.publishers.redis_hashes import hash_name

BASIS: Final = "period"
NOTHING: Final = "nothing"
PREVIOUS: Final = "@previous"
_KINDS: Final = {"1m": Grain.MINUTE, "1h": Grain.HOUR, "1d": Grain.DAY}
_ROLLING: Final = {"last_1h": (Grain.MINUTE, 60), "last_24h": (Grain.HOUR, 24 * 60)}
"""Of which grain a rolling window is, and how many minutes it reaches back. Source: contract, section 1."""

RejectPlace = tuple[str, int, int, str]
"""Full topic, partition, offset and reason."""


class Difference(NamedTuple):
    """One thing that is not as it has to be."""

    where: str
    expected: str
    got: str

    def __str__(self) -> str:
        """Return the one line that is shown."""
        return f"{self.where}: expected {self.expected}, got {self.got}"


class Numbers(NamedTuple):
    """Facts, the derived ones among them, and KPIs of a scope and window."""

    facts: Facts
    kpis: Mapping[str, Value]


class Shown(NamedTuple):
    """What an output says: over which minutes (None for lifetime), and the numbers."""

    start_minute: int | None
    end_minute: int | None
    numbers: Numbers


class Expected:
    """What the outputs have to show, from the fold of the inputs."""

    def __init__(
        self,
        result: FoldResult,
        catalog: Catalog,
        expects_cost: Callable[[str], bool],
        buckets: Buckets,
    ) -> None:
        self.catalog = catalog
        self.buckets = buckets
        self.zone = buckets.calendar.zone
        self._result = result
        self._expects_cost = expects_cost
        self._known: dict[tuple[Scope, Window], Numbers | None] = {}

    @property
    def scopes(self) -> Collection[Scope]:
        """Every scope that has facts."""
        return self._result.cells.keys()

    def stored(self) -> Iterator[tuple[Scope, Window]]:
        """Yield every tumbling and lifetime window that has facts and is still kept."""
        for scope, cells in self._result.cells.items():
            for kind, grain in _KINDS.items():
                for bucket in cells.get(grain, ()):
                    yield scope, Window(kind, bucket, self.buckets.end(grain, bucket))
            if Grain.LIFETIME in cells:
                yield scope, Window(LIFETIME, None, None)

    def numbers(self, scope: Scope, window: Window) -> Numbers | None:
        """Return the numbers of a scope in a window; None if it has no facts there."""
        place = (scope, window)
        if place not in self._known:
            self._known[place] = self._compute(scope, window)
        return self._known[place]

    def _compute(self, scope: Scope, window: Window) -> Numbers | None:
        facts = window_facts(self._result, scope, window)
        if not facts:
            return None
        expected = is_cost_expected(self._result, scope, window, self._expects_cost)
        return Numbers(derived(facts), self.catalog.evaluate(facts, cost_expected=expected))

    def window(self, slot: str, minute: int) -> Window:
        """Return the window of a Redis slot when `minute` is running."""
        if slot == LIFETIME:
            return Window(LIFETIME, None, None)
        if slot in _ROLLING:
            grain, length = _ROLLING[slot]
            start = self.buckets.start(grain, minute - length)
            return Window(slot, start, self.buckets.end(grain, self.buckets.start(grain, minute)))
        kind = slot.removesuffix(PREVIOUS)
        grain = _KINDS[kind]
        start = self.buckets.start(grain, minute)
        if slot.endswith(PREVIOUS):
            start = self.buckets.start(grain, start - 1)
        return Window(kind, start, self.buckets.end(grain, start))


class Comparison:
    """Differences found so far, and how many numbers were looked at."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.values = 0

    def add(self, where: str, expected: str, got: str) -> None:
        """Note a difference."""
        self.differences.append(Difference(where, expected, got))

    def numbers(self, where: str, expected: Numbers | None, got: Numbers | None) -> None:
        """Compare two sets of numbers, either of which may not be there."""
        if expected is None or got is None:
            self.values += len((expected or got or Numbers({}, {})).facts)
            if expected is not got:
                self.add(where, _summary(expected), _summary(got))
            return
        for name in {**expected.facts, **got.facts}:
            self.values += 1
            wanted, found = expected.facts.get(name), got.facts.get(name)
            if wanted != found:
                self.add(f"{where} {name}", _fact_text(name, wanted), _fact_text(name, found))
        for name in {**expected.kpis, **got.kpis}:
            self.values += 1
            wanted_kpi, found_kpi = expected.kpis.get(name), got.kpis.get(name)
            if wanted_kpi != found_kpi:
                self.add(f"{where} {name}", _kpi_text(wanted_kpi), _kpi_text(found_kpi))


# ----------------------------------------------------------------------------- leadgen.kpis.v1


def compare_records(
    expected: Expected, records: Mapping[bytes, bytes], minute: int, found: Comparison
) -> None:
    """Compare with the last record of each key of leadgen.kpis.v1; `minute` is the one now running."""
    shown = {key: _shown(key, value, found) for key, value in records.items()}
    for scope, window in expected.stored():
        key = key_of(BASIS, window, scope, expected.zone)
        record = shown.pop(key, None)
        where = key.decode()
        if record is not None:
            _compare_span(where, window, record, expected, found)
        elif key not in records:
            found.numbers(where, expected.numbers(scope, window), None)
    rolling = _take_rolling(shown)
    for key, record in shown.items():
        if record is not None:
            found.add(key.decode("utf-8", "replace"), "no record", _summary(record.numbers))
    _compare_rolling(expected, rolling, minute, found)


_Rolling = dict[tuple[str, Scope], Shown]


def _take_rolling(shown: dict[bytes, Shown | None]) -> _Rolling:
    rolling: _Rolling = {}
    for key, record in list(shown.items()):
        parsed = _parsed(key)
        if record is not None and parsed is not None and parsed.kind in ROLLING:
            rolling[parsed.kind, parsed.scope] = record
            del shown[key]
    return rolling


def _compare_rolling(expected: Expected, rolling: _Rolling, minute: int, found: Comparison) -> None:
    """Compare each rolling window over its own span, and look for those that are missing."""
    for (kind, scope), record in rolling.items():
        window = Window(kind, record.start_minute, record.end_minute)
        where = key_of(BASIS, window, scope, expected.zone).decode()
        found.numbers(where, expected.numbers(scope, window), record.numbers)
    for kind in ROLLING:
        # Shards move their windows one after the other: facts that lie in all of them must show.
        spans = [(r.start_minute, r.end_minute) for (of, _), r in rolling.items() if of == kind]
        now = expected.window(kind, minute)
        starts, ends = zip((now.start_minute, now.end_minute), *spans, strict=True)
        common = Window(kind, max(s or 0 for s in starts), min(e or 0 for e in ends))
        for scope in expected.scopes:
            if (kind, scope) not in rolling and (numbers := expected.numbers(scope, common)):
                where = key_of(BASIS, common, scope, expected.zone).decode()
                found.numbers(where, numbers, None)


def _compare_span(
    where: str, window: Window, record: Shown, expected: Expected, found: Comparison
) -> None:
    if (record.start_minute, record.end_minute) != (window.start_minute, window.end_minute):
        got = f"{record.start_minute} to {record.end_minute}"
        wanted = f"minutes {window.start_minute} to {window.end_minute}"
        found.add(f"{where} window", wanted, got)
    scope = parse_key(where.encode()).scope
    found.numbers(where, expected.numbers(scope, window), record.numbers)


def _shown(key: bytes, value: bytes, found: Comparison) -> Shown | None:
    try:
        return shown_by_record(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found.add(key.decode("utf-8", "replace"), "a record of KPIs", f"{error!r:.80}")
        return None


def shown_by_record(value: bytes) -> Shown:
    """Return what a value of leadgen.kpis.v1 says.

    Raises:
        ValueError, KeyError, TypeError or AttributeError: if it is no such value.
    """
    told: dict[str, Any] = json.loads(value, parse_float=str)
    facts = {
        name: micros_of(fact) if isinstance(fact, str) else int(fact)
        for name, fact in told["facts"].items()
    }
    kpis: dict[str, Value] = {
        name: Undefined(kpi["undefined_reason"])
        if kpi["value"] is None
        else micros_of(str(kpi["value"]))
        for name, kpi in told["kpis"].items()
    }
    window = told["window"]
    return Shown(_minute(window["start"]), _minute(window["end"]), Numbers(facts, kpis))


def complete_until_ms(value: bytes) -> int | None:
    """Return up to when everything was counted when a record was written, None if it does not say."""
    try:
        text = json.loads(value)["complete_until"]
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, KeyError, TypeError):
        return None


def _parsed(key: bytes) -> Key | None:
    try:
        return parse_key(key)
    except ValueError:
        return None


def _minute(text: str | None) -> int | None:
    return None if text is None else int(datetime.fromisoformat(text).timestamp()) // 60


# ----------------------------------------------------------------------------- Redis


Hashes = Mapping[tuple[Scope, str], Mapping[str, str]]
"""The fields of every hash by scope and slot; empty where there is none."""


def compare_hashes(expected: Expected, hashes: Hashes, minute: int, found: Comparison) -> None:
    """Compare with the Redis hashes; `minute` is the one now running.

    A hash of a window that is over is passed over: it is about to move, or nobody publishes.
    """
    shown = {place: _shown_by_hash(place, fields, found) for place, fields in hashes.items()}
    is_live = any(
        record is not None and record.end_minute == expected.window(slot, minute).end_minute
        for (_, slot), record in shown.items()
        if slot == "last_1h"
    )
    for place in {*shown, *((scope, slot) for scope in expected.scopes for slot in SLOTS)}:
        scope, slot = place
        record = shown.get(place)
        window = expected.window(slot, minute)
        if record is not None and slot in ROLLING:
            window = Window(slot, record.start_minute, record.end_minute)
        is_current = record is not None and record.start_minute == window.start_minute
        # Only who publishes now can be asked for hashes of windows that began just now.
        if is_current or slot == LIFETIME or is_live:
            numbers = record.numbers if record is not None and is_current else None
            found.numbers(hash_name(slot, scope), expected.numbers(scope, window), numbers)


def _shown_by_hash(
    place: tuple[Scope, str], fields: Mapping[str, str], found: Comparison
) -> Shown | None:
    if not fields:
        return None
    try:
        return shown_by_hash(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found.add(hash_name(place[1], place[0]), "a hash of KPIs", f"{error!r:.80}")
        return None


def shown_by_hash(fields: Mapping[str, str]) -> Shown:
    """Return what a Redis hash says.

    Raises:
        ValueError, KeyError, TypeError or AttributeError: if it is no such hash.
    """
    facts: Facts = {}
    undefined: dict[str, str] = json.loads(fields["_undefined"])
    kpis: dict[str, Value] = {name: Undefined(reason) for name, reason in undefined.items()}
    for name, text in fields.items():
        if name.startswith("_"):
            continue
        if name in AMOUNTS:
            facts[name] = micros_of(text)
        elif "." in text:
            # KPIs always have a point, facts that are no amounts never do.
            kpis[name] = micros_of(text)
        else:
            facts[name] = int(text)
    return Shown(_minute(fields.get("_start")), _minute(fields.get("_end")), Numbers(facts, kpis))


# ----------------------------------------------------------------------------- rejects


def compare_rejects(
    where: str,
    required: Collection[RejectPlace],
    allowed: Collection[RejectPlace],
    got: Counter[RejectPlace],
    found: Comparison,
) -> None:
    """Compare what was refused, each exactly once.

    Args:
        where: The name of the topic of rejects.
        required: What must be there.
        allowed: What may be there: orphans are decided some time after they are known.
        got: What is there, and how often.
        found: Takes the differences.
    """
    for place in sorted({*required} - got.keys()):
        found.add(f"{where} {_place_text(place)}", place[3], NOTHING)
    for place, times in sorted(got.items()):
        if place not in allowed:
            found.add(f"{where} {_place_text(place)}", NOTHING, place[3])
        elif times > 1:
            found.add(f"{where} {_place_text(place)}", f"{place[3]} once", f"{times} times")


def _place_text(place: RejectPlace) -> str:
    topic, partition, offset, _ = place
    return f"{topic}/{partition}/{offset}"


# ----------------------------------------------------------------------------- texts


def _summary(numbers: Numbers | None) -> str:
    if numbers is None:
        return NOTHING
    facts = (f"{name} {_fact_text(name, fact)}" for name, fact in numbers.facts.items())
    text = ", ".join(facts) or "no facts"
    return text if len(text) <= 80 else f"{text[:79]}…"


def _fact_text(name: str, fact: int | None) -> str:
    if fact is None:
        return NOTHING
    return amount_text(fact) if name in AMOUNTS else str(fact)


def _kpi_text(kpi: Value | None) -> str:
    if kpi is None:
        return NOTHING
    return f"null ({kpi.reason})" if isinstance(kpi, Undefined) else decimal_text(kpi)
