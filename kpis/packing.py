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
_PLAIN: Final = 1 << 62
"""Whole numbers below this are written as such; msgpack ends at 64 bits, sums do not."""

_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(dict[int | str, int | str]).decode


class _Codes(dict[str, int | str]):
    def __missing__(self, name: str) -> int | str:
        family, point, rest = name.partition(".")
        if point and family in _FAMILIES:
            code = f"{_FAMILIES.index(family)}{rest}"
        else:
            code = f"{_VERBATIM}{name}"
        self[name] = code
        return code


class _Decoded(dict[int | str, str]):
    def __missing__(self, code: int | str) -> str:
        if isinstance(code, int):
            msg = f"facts: expected the code of a known name, got {code}"
            raise ValueError(msg)
        if code.startswith(_VERBATIM):
            name = code[1:]
        elif code[:1].isdecimal():
            name = f"{_FAMILIES[int(code[0])]}.{code[1:]}"
        else:
            # Rows of the first version have names as they are.
            name = code
        self[code] = name
        return name


_CODES: Final = _Codes({name: code for code, name in enumerate(_NAMES)})
_DECODED: Final = _Decoded(enumerate(_NAMES))


def pack(facts: Mapping[str, int]) -> bytes:
    """Return facts as bytes."""
    codes = _CODES
    return _encode(
        {
            codes[name]: amount if -_PLAIN < amount < _PLAIN else str(amount)
            for name, amount in facts.items()
        }
    )


def unpack(packed: bytes) -> Facts:
    """Return the facts that `pack` was given."""
    names = _DECODED
    return {names[code]: int(amount) for code, amount in _decode(packed).items()}
