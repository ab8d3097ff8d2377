"""Strict JSON: bytes to one object, numbers kept as they were written, nothing guessed.

Source: contract, section 8 (`malformed`).
"""

import json
import re
from collections.abc import Iterator
from typing import Final, NoReturn

import msgspec

DEEPEST: Final = 32
"""Levels of nesting that are read; the record itself is the first."""

_OBJECT: Final = "one JSON object"
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class MalformedError(ValueError):
    """Bytes that are not one strict JSON object; the text quotes nothing of them."""


class Number(str):
    """A JSON number, as it was written."""

    __slots__ = ()


class Integer(Number):
    """A JSON number without fraction and exponent, as it was written."""

    __slots__ = ()


def json_object(value: bytes) -> dict[str, object]:
    """Return the members of the JSON object that `value` is.

    Numbers stay text (`Integer`, `Number`), so 12.50 keeps its decimals and a million digits cost
    nothing.

    Raises:
        MalformedError: for anything else than one object in UTF-8 with unique keys, at most 32 levels
            and valid characters.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        _refuse("UTF-8", f"an invalid byte at {error.start}")
    members = _plain_object(value, text)
    return _any_object(text) if members is None else members


_FLAT: Final = msgspec.json.Decoder(dict[str, str | bool | None])


def _plain_object(value: bytes, text: str) -> dict[str, object] | None:
    """Return the members of a flat object of plain texts, or None where the full reader must look.

    Ten times faster, and equal: in printable ASCII without escapes every quote delimits a key or a
    text, so a key that came twice shows as quotes that no member accounts for.
    """
    if not text.isascii() or not text.isprintable() or "\\" in text:
        return None
    try:
        members: dict[str, object] = _FLAT.decode(value)  # type: ignore[assignment] # values: object
    except msgspec.DecodeError:
        return None
    texts = [*map(type, members.values())].count(str)
    return members if text.count('"') == 2 * (len(members) + texts) else None


def _any_object(text: str) -> dict[str, object]:
    try:
        members = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        _refuse(_OBJECT, f"no JSON at character {error.pos}")
    except RecursionError:
        _refuse_depth()
    if type(members) is not dict:
        _refuse(_OBJECT, "another JSON value")
    # Only so many brackets can make it too deep; most records have two.
    if text.count("{") + text.count("[") > DEEPEST and _is_deeper(members, DEEPEST):
        _refuse_depth()
    if _SURROGATE.search(text) and not all(map(_is_valid, _texts(members))):
        _refuse("valid characters", "half of a surrogate pair")
    return members


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse("each key once", "a key twice")
    return members


def _refuse_constant(_: str) -> NoReturn:
    _refuse("JSON numbers", "NaN or Infinity")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=Integer,
    parse_float=Number,
    parse_constant=_refuse_constant,
)


def _refuse(expected: str, got: str) -> NoReturn:
    msg = f"value: expected {expected}, got {got}"
    raise MalformedError(msg) from None


def _refuse_depth() -> NoReturn:
    _refuse(f"at most {DEEPEST} levels", "deeper nesting")


def _inner(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        return iter(value.values())
    return iter(value if isinstance(value, list) else ())


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether objects and arrays lie in each other on more than `levels` levels."""
    # Level by level, not by recursion: what json can nest, Python need not be able to call.
    layer = [value]
    for _ in range(levels):
        layer = [inner for outer in layer for inner in _inner(outer)]
    return any(isinstance(value, dict | list) for value in layer)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, str):
        yield value
    for inner in _inner(value):
        yield from _texts(inner)


def _is_valid(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without(value: object, names: frozenset[str]) -> object:
    """Return a parsed value without the members that are called one of `names`, at any depth.

    Whole names are compared, trimmed and in lower case.
    """
    if isinstance(value, dict):
        return {
            name: without(member, names)
            for name, member in value.items()
            if name.strip().lower() not in names
        }
    if isinstance(value, list):
        return [without(item, names) for item in value]
    return value


def text_of(value: object) -> str:
    """Return a parsed value as compact JSON, its numbers as they were written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        members = (f"{json.dumps(name)}:{text_of(member)}" for name, member in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
