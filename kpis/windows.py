"""The numbers of one scope and window, and their records on leadgen.kpis.v1 and in the ledger."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from kpis import histogram
from kpis.calendar import instant_text, minute_text
from kpis.catalog import (
    NO_SURROUNDINGS,
    Catalog,
    Interval,
    Surroundings,
    Undefined,
    Value,
    derived,
    unit_of,
)
from kpis.facts import AMOUNTS, COHORT, PERIOD, Facts, Scope
from kpis.money import MICROS
from kpis.spans import KINDS, LIFETIME, ROLLING, TUMBLING, Window

__all__ = ["KINDS", "LIFETIME", "ROLLING", "TUMBLING", "Window", "instant_text", "minute_text"]

VERSION: Final = 1
ALL: Final = "_all"
PROVISIONAL: Final = "provisional"
FINAL: Final = "final"
REVISED: Final = "revised"

UPDATED: Final = "leadgen.kpis.updated.v1"
"""The CloudEvents type on leadgen.kpis.v1."""
LEDGER_TYPES: Final = {
    FINAL: "leadgen.kpis.window_final.v1",
    REVISED: "leadgen.kpis.window_revised.v1",
}
"""The CloudEvents types in the ledger, by state."""

NOT_STORED: Final = {
    PERIOD: frozenset({"leads", "revenue_net", "visitors", "mature"}),
    COHORT: frozenset({"visitors", "mature"}),
}
"""Facts that records show and cells do not hold, by basis."""

_IMPLAUSIBLE: Final = ',"implausible":true'
_PARTIAL: Final = ',"partial":true'
_APPROXIMATE: Final = ',"approximate":true'
_BUCKETS: Final = f"{histogram.FACT}."
_UNSAFE = re.compile(rb"[^A-Za-z0-9_.:+-]")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")


class WindowValues(msgspec.Struct, frozen=True):
    """All numbers of one basis, scope and window at one commit; they agree with each other.

    Attributes:
        basis: `period` or `cohort`.
        scope: What they are about.
        window: When.
        facts: The stored ones and `visitors`, in counts, micros and milliseconds.
        kpis: The values of `Catalog.evaluate` from these facts and surroundings.
        complete_until_ms: None while nothing is known to be complete.
        computed_at_ms: The machine's time.
        surroundings: What the KPIs were computed with beside the facts.
        state: provisional, final or revised.
        revision: The last one issued; 0 before the first.
        cause: Why it was revised, by the contract's name; None if it was not.
        previous: The former value of each KPI that the revision changed, by name.

    Source: contract, sections 6 and 7.
    """

    basis: str
    scope: Scope
    window: Window
    facts: Facts
    kpis: dict[str, Value]
    complete_until_ms: int | None
    computed_at_ms: int
    surroundings: Surroundings = NO_SURROUNDINGS
    state: str = PROVISIONAL
    revision: int = 0
    cause: str | None = None
    previous: Mapping[str, Value] | None = None


def changed(new: Mapping[str, Value], old: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values of `old` that are others in `new`: what a revision shows as `previous`."""
    return {name: value for name, value in old.items() if new.get(name) != value}


class Key(NamedTuple):
    """What a record's key says; the start is None for lifetime and rolling windows."""

    basis: str
    kind: str
    start_minute: int | None
    scope: Scope


class Record(NamedTuple):
    """A record of leadgen.kpis.v1 or of the ledger."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


# ----------------------------------------------------------------------------- texts


@lru_cache(maxsize=1 << 15)
def decimal_text(micros: int) -> str:
    """Return millionths as the shortest plain decimal with a point: 21.428571, 5.5, 2.0.

    A point is always there: readers that guess a column's type from one value guess right.
    """
    whole, parts = divmod(micros, MICROS)
    if not parts:
        return f"{whole}.0"
    return f"{whole}.{parts:06d}".rstrip("0") if whole >= 0 else amount_text(micros).rstrip("0")


def amount_text(micros: int) -> str:
    """Return an amount in micros as decimals, always six: 600.000000."""
    if micros < 0:
        return f"-{amount_text(-micros)}"
    whole, parts = divmod(micros, MICROS)
    return f"{whole}.{parts:06d}"


def micros_of(text: str) -> int:
    """Return the micros of a plain decimal, as `decimal_text` and `amount_text` write them."""
    whole, _, parts = text.partition(".")
    micros = int(whole.lstrip("-")) * MICROS + int(parts.ljust(6, "0") or 0)
    return -micros if text.startswith("-") else micros


@lru_cache(maxsize=4096)
def escaped(part: str) -> str:
    """Return `part` with every byte of its UTF-8 but `[A-Za-z0-9_.:+-]` percent-encoded."""
    return _UNSAFE.sub(lambda byte: b"%%%02X" % byte.group()[0], part.encode()).decode()


def unescaped(part: str) -> str:
    """Return what `escaped` was given."""
    return _ESCAPED.sub(lambda code: bytes.fromhex(code[1].decode()), part.encode()).decode()


def scope_parts(scope: Scope) -> tuple[str, str]:
    """Return the channel and campaign of `scope` as they stand in keys: encoded, `_all`."""
    channel, campaign_id = scope
    return (
        ALL if channel is None else escaped(channel),
        ALL if campaign_id is None else escaped(campaign_id),
    )


def scope_of(channel: str, campaign_id: str) -> Scope:
    """Return the scope whose `scope_parts` these are."""
    return Scope(
        None if channel == ALL else unescaped(channel),
        None if campaign_id == ALL else unescaped(campaign_id),
    )


# ----------------------------------------------------------------------------- keys


def key_of(basis: str, window: Window, scope: Scope, zone: tzinfo) -> bytes:
    """Return the key of a record, `basis|kind|start|channel|campaign`.

    Only tumbling windows carry their start; the others have one record that moves.

    Source: contract section 7.
    """
    channel, campaign_id = scope_parts(scope)
    start = "-"
    if window.kind in TUMBLING and window.start_minute is not None:
        start = minute_text(window.start_minute, zone)
    return f"{basis}|{window.kind}|{start}|{channel}|{campaign_id}".encode()


def parse_key(key: bytes) -> Key:
    """Return what a key made by `key_of` says.

    Raises:
        ValueError: if it is no such key.
    """
    try:
        basis, kind, start, channel, campaign_id = key.decode().split("|")
        minute = None if start == "-" else int(datetime.fromisoformat(start).timestamp()) // 60
        return Key(basis, kind, minute, scope_of(channel, campaign_id))
    except ValueError as error:
        msg = f"key: expected basis|kind|start|channel|campaign, got {key!r:.200}"
        raise ValueError(msg) from error


# ----------------------------------------------------------------------------- values


class _Scope(msgspec.Struct):
    channel: str | None
    campaign_id: str | None


class _Window(msgspec.Struct):
    kind: str
    start: str | None
    end: str | None
    time_zone: str


class _Value(msgspec.Struct):
    """The JSON of contract section 7, in its order."""

    version: int
    id: str
    basis: str
    scope: _Scope
    window: _Window
    state: str
    revision: int
    cause: str | None
    complete_until: str | None
    computed_at: str
    currency: str
    facts: msgspec.Raw
    kpis: msgspec.Raw
    previous: msgspec.Raw | msgspec.UnsetType


_ENCODER = msgspec.json.Encoder()


def record(
    values: WindowValues,
    catalog: Catalog,
    zone: tzinfo,
    currency: str,
    source: str = "/leadpulse",
) -> Record:
    """Return the record of `values` on leadgen.kpis.v1: key, value and headers.

    Args:
        values: The numbers.
        catalog: What they were evaluated with; it knows intervals and what is partial.
        zone: The reporting time zone.
        currency: The reporting currency, ISO 4217.
        source: The CloudEvents source, a URI reference.

    Source: contract, section 7.
    """
    key = key_of(values.basis, values.window, values.scope, zone)
    facts = _facts_json(values)
    record_id = _record_id(key, values.revision, facts)
    until_ms = values.complete_until_ms
    computed_at = instant_text(values.computed_at_ms)
    mature = values.surroundings.mature_leads
    previous = values.previous
    body = _Value(
        VERSION,
        record_id,
        values.basis,
        _Scope(*values.scope),
        _window(values.window, zone),
        values.state,
        values.revision,
        values.cause,
        None if until_ms is None else instant_text(until_ms),
        computed_at,
        currency,
        msgspec.Raw(_with_mature(facts, mature) if mature else facts),
        msgspec.Raw(_kpis_json(values, catalog)),
        msgspec.Raw(_previous_json(previous)) if previous else msgspec.UNSET,
    )
    # Facts may come back to what they were, and what goes by time changes without them: each time it is another event.
    event_id = f"{record_id}-{values.computed_at_ms}"
    return Record(key, _ENCODER.encode(body), _headers(UPDATED, source, event_id, computed_at))


def for_ledger(record: Record, state: str) -> Record:
    """Return the record of leadgen.kpi-windows.v1 that says the same as one of leadgen.kpis.v1.

    It is another event, whose id is the record's: there no id comes twice.

    Raises:
        KeyError: unless `state` is final or revised: provisional values do not go to the ledger.
    """
    told = dict(record.headers)
    told["ce_type"] = LEDGER_TYPES[state].encode()
    told["ce_id"] = told["ce_id"].partition(b"-")[0]
    return record._replace(headers=list(told.items()))


def _headers(told: str, source: str, event_id: str, time: str) -> list[tuple[str, bytes]]:
    """Return CloudEvents headers in binary mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", told.encode()),
        ("ce_source", source.encode()),
        ("ce_id", event_id.encode()),
        ("ce_time", time.encode()),
        ("content-type", b"application/json"),
    ]


# ----------------------------------------------------------------------------- reading back


class _Told(msgspec.Struct):
    basis: str
    facts: dict[str, int | str | dict[str, int]]


_TOLD = msgspec.json.Decoder(_Told)


def shown_facts(value: bytes) -> Facts:
    """Return all facts that a record's value shows, exactly, in counts, micros and milliseconds.

    The derived ones, `visitors` and `mature` are among them; a histogram comes as one fact a bucket.

    Raises:
        msgspec.MsgspecError: if it is no such value.
    """
    return _flat(_TOLD.decode(value).facts)


def facts_of(value: bytes) -> Facts:
    """Return the stored facts of a record's value, exactly: without those of `NOT_STORED`.

    Raises:
        msgspec.MsgspecError: if it is no such value.
    """
    told = _TOLD.decode(value)
    left_out = NOT_STORED.get(told.basis, frozenset())
    return {name: fact for name, fact in _flat(told.facts).items() if name not in left_out}


def _flat(told: Mapping[str, int | str | dict[str, int]]) -> Facts:
    facts: Facts = {}
    for name, fact in told.items():
        if isinstance(fact, dict):
            facts.update((f"{name}.{part}", count) for part, count in fact.items())
        else:
            facts[name] = micros_of(fact) if isinstance(fact, str) else fact
    return facts


# ----------------------------------------------------------------------------- parts


def _record_id(key: bytes, revision: int, facts: bytes) -> str:
    return hashlib.blake2b(b"%b|%d|%b" % (key, revision, facts), digest_size=8).hexdigest()


def _window(window: Window, zone: tzinfo) -> _Window:
    start, end = window.start_minute, window.end_minute
    return _Window(
        window.kind,
        None if start is None else minute_text(start, zone),
        None if end is None else minute_text(end, zone),
        str(zone),
    )


def _facts_json(values: WindowValues) -> bytes:
    # Sorted: equal facts give equal bytes, and so an equal id, in whatever order they came.
    known = derived(values.facts, values.basis)
    texts = [
        f'{_NAMES[name]}"{amount_text(known[name])}"'
        if name in AMOUNTS
        else f"{_NAMES[name]}{known[name]}"
        for name in sorted(known)
        if known[name] and not name.startswith(_BUCKETS)
    ]
    if len(texts) < len(known):
        counts = sorted(histogram.counts_of(known).items())
        buckets = ",".join(f'"{bucket}":{count}' for bucket, count in counts if count)
        if buckets:
            texts.append(f"{_NAMES[histogram.FACT]}{{{buckets}}}")
    return f"{{{','.join(texts)}}}".encode()


def _with_mature(facts: bytes, mature: int) -> bytes:
    """Add what is no part of a record's id, as it goes by when it was read."""
    return b'%b%b"mature":%d}' % (facts[:-1], b"" if facts == b"{}" else b",", mature)


def _kpis_json(values: WindowValues, catalog: Catalog) -> bytes:
    of = (values.basis, values.facts, values.surroundings)
    partial = catalog.partial(*of)
    intervals = catalog.intervals(*of, values.kpis)
    approximate = catalog.is_approximate
    texts = [
        _UNDEFINED[name, value]
        if isinstance(value, Undefined)
        else _defined_json(
            name,
            value,
            intervals.get(name),
            (_PARTIAL if name in partial else "") + (_APPROXIMATE if approximate(name) else ""),
        )
        for name, value in values.kpis.items()
    ]
    return f"{{{','.join(texts)}}}".encode()


# From one record of a window to the next few of its values change.
@lru_cache(maxsize=1 << 15)
def _defined_json(name: str, value: int, interval: Interval | None, remarks: str) -> str:
    is_implausible = value > MICROS and unit_of(name) == "share"
    text = f'{_NAMES[name]}{{"value":{decimal_text(value)}'
    text += (_IMPLAUSIBLE if is_implausible else "") + remarks
    if interval is not None:
        low, high = interval
        text += f',"interval":[{decimal_text(low)},{decimal_text(high)}]'
    return text + "}"


def _previous_json(previous: Mapping[str, Value]) -> bytes:
    texts = (
        f"{_NAMES[name]}{'null' if isinstance(value, Undefined) else decimal_text(value)}"
        for name, value in previous.items()
    )
    return f"{{{','.join(texts)}}}".encode()


class _Names(dict[str, str]):
    """Names as they begin a JSON member, escaped once: those of stages come from the settings."""

    def __missing__(self, name: str) -> str:
        self[name] = text = f"{_ENCODER.encode(name).decode()}:"
        return text


class _UndefinedTexts(dict[tuple[str, Undefined], str]):
    """The JSON of undefined KPIs by name and reason: few, and most of a quiet window's."""

    def __missing__(self, key: tuple[str, Undefined]) -> str:
        name, undefined = key
        text = f'{_NAMES[name]}{{"value":null,"undefined_reason":"{undefined.reason}"}}'
        self[key] = text
        return text


_UNDEFINED = _UndefinedTexts()
_NAMES = _Names()
