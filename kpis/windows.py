"""The numbers of one scope and window, and their record on leadgen.kpis.v1."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple

import msgspec

from kpis.catalog import Undefined, Value, derived, unit_of
from kpis.facts import AMOUNTS, Facts, Scope
from kpis.money import MICROS

VERSION = 1
TUMBLING = ("1m", "1h", "1d")
LIFETIME = "lifetime"
ROLLING = ("last_1h", "last_24h")
KINDS = (*TUMBLING, LIFETIME, *ROLLING)
ALL = "_all"
DERIVED = frozenset({"leads", "revenue_net"})

_UNSAFE = re.compile(rb"[^A-Za-z0-9_.:+-]")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")


class Window(NamedTuple):
    """The interval [start, end) in whole minutes since 1970 UTC; both None for lifetime."""

    kind: str
    start_minute: int | None
    end_minute: int | None


class WindowValues(msgspec.Struct, frozen=True):
    """All numbers of one basis, scope and window at one commit; they agree with each other.

    `facts` are the stored ones, in micros and milliseconds; `complete_until_ms` is None while
    nothing is known to be complete.
    """

    basis: str
    scope: Scope
    window: Window
    facts: Facts
    kpis: dict[str, Value]
    complete_until_ms: int | None
    computed_at_ms: int
    state: str = "provisional"
    revision: int = 0


class Key(NamedTuple):
    """What a record's key says; the start is None for lifetime and rolling windows."""

    basis: str
    kind: str
    start_minute: int | None
    scope: Scope


class Record(NamedTuple):
    """A record of leadgen.kpis.v1."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


# ----------------------------------------------------------------------------- texts


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


@lru_cache(maxsize=8192)
def minute_text(minute: int, zone: tzinfo) -> str:
    """Return a minute since 1970 UTC as local time with its offset."""
    return datetime.fromtimestamp(minute * 60, zone).isoformat()


@lru_cache(maxsize=64)
def instant_text(instant_ms: int) -> str:
    """Return milliseconds since 1970 as UTC; whole seconds without a fraction."""
    seconds, ms = divmod(instant_ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")
    return f"{text}.{ms:03d}Z" if ms else f"{text}Z"


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


def key(values: WindowValues, zone: tzinfo) -> bytes:
    """Return the key of the record of `values`; see `key_of`."""
    return key_of(values.basis, values.window, values.scope, zone)


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


_ENCODER = msgspec.json.Encoder()


def value(values: WindowValues, zone: tzinfo, currency: str) -> bytes:
    """Return the value of the record of `values`.

    Source: contract section 7.
    """
    return record(values, zone, currency).value


def headers(
    values: WindowValues, record_id: str, source: str = "/leadpulse"
) -> list[tuple[str, bytes]]:
    """Return the headers of a record: CloudEvents in binary mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"leadgen.kpis.updated.v1"),
        ("ce_source", source.encode()),
        ("ce_id", record_id.encode()),
        ("ce_time", instant_text(values.computed_at_ms).encode()),
        ("content-type", b"application/json"),
    ]


def record(values: WindowValues, zone: tzinfo, currency: str, source: str = "/leadpulse") -> Record:
    """Return key, value and headers of the record of `values` together, which is cheapest.

    Args:
        values: The numbers.
        zone: The reporting time zone.
        currency: The reporting currency, ISO 4217.
        source: The CloudEvents source, a URI reference.
    """
    key = key_of(values.basis, values.window, values.scope, zone)
    facts = _facts_json(values.facts)
    record_id = _record_id(key, values.revision, facts)
    until_ms = values.complete_until_ms
    body = _Value(
        VERSION,
        record_id,
        values.basis,
        _Scope(*values.scope),
        _window(values.window, zone),
        values.state,
        values.revision,
        None,
        None if until_ms is None else instant_text(until_ms),
        instant_text(values.computed_at_ms),
        currency,
        msgspec.Raw(facts),
        msgspec.Raw(_kpis_json(values.kpis)),
    )
    return Record(key, _ENCODER.encode(body), headers(values, record_id, source))


def facts_of(value: bytes) -> Facts:
    """Return the stored facts of a record's value, exactly, in micros and milliseconds.

    Raises:
        msgspec.MsgspecError: if it is no such value.
    """
    facts = _FACTS.decode(value).facts
    return {
        name: micros_of(fact) if isinstance(fact, str) else fact
        for name, fact in facts.items()
        if name not in DERIVED
    }


class _FactsOnly(msgspec.Struct):
    facts: dict[str, int | str]


_FACTS = msgspec.json.Decoder(_FactsOnly)


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


def _facts_json(facts: Mapping[str, int]) -> bytes:
    # Sorted: equal facts give equal bytes, and so an equal id, in whatever order they came.
    known = derived(facts)
    texts = [
        f'{_NAMES[name]}"{amount_text(known[name])}"'
        if name in AMOUNTS
        else f"{_NAMES[name]}{known[name]}"
        for name in sorted(known)
        if known[name]
    ]
    return f"{{{','.join(texts)}}}".encode()


def _kpis_json(kpis: Mapping[str, Value]) -> bytes:
    texts = [
        _undefined_json(name, kpi)
        if isinstance(kpi, Undefined)
        else f'{_NAMES[name]}{{"value":{decimal_text(kpi)}}}'
        if kpi <= MICROS
        else _large_json(name, kpi)
        for name, kpi in kpis.items()
    ]
    return f"{{{','.join(texts)}}}".encode()


@lru_cache(maxsize=1024)
def _undefined_json(name: str, undefined: Undefined) -> str:
    return f'{_NAMES[name]}{{"value":null,"undefined_reason":"{undefined.reason}"}}'


def _large_json(name: str, micros: int) -> str:
    implausible = ',"implausible":true' if unit_of(name) == "share" else ""
    return f'{_NAMES[name]}{{"value":{decimal_text(micros)}{implausible}}}'


class _Names(dict[str, str]):
    """Names as they begin a JSON member, escaped once: those of stages come from the settings."""

    def __missing__(self, name: str) -> str:
        self[name] = text = f"{_ENCODER.encode(name).decode()}:"
        return text


_NAMES = _Names()
