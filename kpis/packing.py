"""Facts as a few bytes, for rows and for sums at rest: names are short codes, written with each row.

A row says all by itself. Codes are never given anew: names and families are only ever appended.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import msgpack

from kpis.facts import Facts

_NAMES: Final = (
    "impressions",
    "viewable_impressions",
    "invalid_impressions",
    "clicks",
    "invalid_clicks",
    "cost",
    "cost_media",
    "cost_records",
    "leads_gross",
    "leads_voided",
    "leads_disqualified",
    "sales",
    "sales_cancelled",
    "sales_unattributed",
    "new_customers",
    "revenue_gross",
    "refunds",
    "converted",
    "cycle_ms",
    "cycle_count",
    "visitors",
    "fx_missing",
    "leads",
    "revenue_net",
    "converted_gross",
    "converted_within",
)
"""Names that become their index."""

_FAMILIES: Final = (
    "stage_entered",
    "stage_implied",
    "stage_regressed",
    "stage_current",
    "reached",
    "closed_from",
    "cycle_histogram",
)
"""What stands before the first point of names that become the index here and what follows the point."""

_VERBATIM: Final = "9"
_LIMIT: Final = 1 << 63
"""Whole numbers below this are written as such; msgpack ends at 64 bits, sums do not."""

# Plain dictionaries, filled as names come up: nothing else is as fast.
_CODES: Final[dict[str, int | str]] = {name: code for code, name in enumerate(_NAMES)}
_DECODED: Final[dict[int | str, str]] = dict(enumerate(_NAMES))

_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(dict[int | str, int | str]).decode


def pack(facts: Mapping[str, int]) -> bytes:
    """Return facts as bytes."""
    codes = _CODES
    try:
        return _encode({codes[name]: amount for name, amount in facts.items()})
    except KeyError:
        codes.update((name, _code(name)) for name in facts if name not in codes)
        return pack(facts)
    except OverflowError:
        return _encode(
            {
                codes[name]: amount if -_LIMIT <= amount < _LIMIT else str(amount)
                for name, amount in facts.items()
            }
        )


def unpack(packed: bytes) -> Facts:
    """Return the facts that `pack` was given."""
    names, carried = _DECODED, _decode(packed)
    try:
        return {names[code]: int(amount) for code, amount in carried.items()}
    except KeyError:
        names.update((code, _name(code)) for code in carried if code not in names)
        return unpack(packed)


def _code(name: str) -> str:
    family, point, rest = name.partition(".")
    if point and family in _FAMILIES:
        return f"{_FAMILIES.index(family)}{rest}"
    return f"{_VERBATIM}{name}"


def _name(code: int | str) -> str:
    text = str(code)
    if isinstance(code, int) or not text[:1].isdecimal():
        msg = f"facts: expected the code of a name, got {code!r:.40}"
        raise ValueError(msg)
    return text[1:] if text[0] == _VERBATIM else f"{_FAMILIES[int(text[0])]}.{text[1:]}"
