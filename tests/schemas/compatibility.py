"""Whether a schema may follow another one of the same version.

Of what goes in nothing that was accepted may be refused. Of what comes out nothing that a reader relied
on may vanish. Either way the records of one schema have to be valid by the other one: the old input by
the new schema, the new output by the old one. What cannot be compared counts as a fault.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from jsonschema import Draft202012Validator

Schema = Mapping[str, Any]

_NOTES: Final = frozenset(
    ("$schema", "$id", "$defs", "title", "description", "default", "examples", "format")
)
"""Keywords that refuse nothing; a format is a note by JSON Schema 2020-12."""

_FLOORS: Final = ("minLength", "minimum", "exclusiveMinimum", "minItems")
_CEILINGS: Final = ("maxLength", "maximum", "exclusiveMaximum", "maxItems")
_COMPARED: Final = frozenset(
    ("type", "enum", "const", "anyOf", "required", "properties", "additionalProperties", "items")
)


def input_faults(old: Schema, new: Schema) -> list[str]:
    """Return what producers of the old schema would stumble over in the new one."""
    before, after = resolved(old), resolved(new)
    return [*_narrowed(before, after, "$"), *_lost(before, after)]


def output_faults(old: Schema, new: Schema) -> list[str]:
    """Return what readers of the old schema would stumble over in the new one."""
    before, after = resolved(old), resolved(new)
    return [*_narrowed(after, before, "$"), *_lost(before, after)]


def resolved(schema: Any, definitions: Schema | None = None) -> Any:
    """Return a schema with what its references point at in their place."""
    if isinstance(schema, list):
        return [resolved(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    known = schema.get("$defs", {}) if definitions is None else definitions
    parts = {name: resolved(part, known) for name, part in schema.items() if name != "$ref"}
    if isinstance(schema.get("$ref"), str):
        pointed = known[schema["$ref"].removeprefix("#/$defs/")]
        parts = resolved(pointed, known) | parts
    return parts


# ----------------------------------------------------------------------------- what is refused


def _narrowed(inner: Any, outer: Any, where: str) -> Iterator[str]:
    """Yield why something that is valid by `inner` might not be so by `outer`."""
    if outer is True or outer == {} or inner is False:
        return
    if not isinstance(inner, dict) or not isinstance(outer, dict):
        yield from () if inner == outer else (f"{where}: cannot be compared",)
        return
    values = inner.get("enum", [inner["const"]] if "const" in inner else None)
    if values is not None:
        check = Draft202012Validator(outer)
        yield from (
            f"{where}: {value!r} is refused" for value in values if not check.is_valid(value)
        )
        return
    if "anyOf" in inner or "anyOf" in outer:
        yield from _alternatives(inner, outer, where)
        return
    yield from _values(inner, outer, where)
    yield from _limits(inner, outer, where)
    yield from _members(inner, outer, where)
    yield from _rest(inner, outer, where)


def _alternatives(inner: Schema, outer: Schema, where: str) -> Iterator[str]:
    """Yield the alternatives of `inner` that none of `outer` covers."""
    for one in _split(inner):
        faults = [list(_narrowed(one, other, where)) for other in _split(outer)]
        if all(faults):
            yield min(faults, key=len)[0]


def _split(schema: Schema) -> list[dict[str, Any]]:
    beside = {name: part for name, part in schema.items() if name not in {"anyOf", *_NOTES}}
    return [{**beside, **one} for one in schema.get("anyOf", [{}])]


def _values(inner: Schema, outer: Schema, where: str) -> Iterator[str]:
    if "enum" in outer or "const" in outer:
        yield f"{where}: only some values are left"
    for kind in _types(inner):
        allowed = _types(outer)
        if kind not in allowed and not (kind == "integer" and "number" in allowed):
            yield f"{where}: {kind} is refused"


_ALL_TYPES: Final = ("null", "boolean", "string", "number", "integer", "array", "object")


def _types(schema: Schema) -> Sequence[str]:
    told = schema.get("type", _ALL_TYPES)
    return [told] if isinstance(told, str) else list(told)


def _limits(inner: Schema, outer: Schema, where: str) -> Iterator[str]:
    for name in (*_FLOORS, *_CEILINGS):
        if name not in outer:
            continue
        sign = 1 if name in _FLOORS else -1
        if name not in inner or sign * inner[name] < sign * outer[name]:
            yield f"{where}: {name} is narrower"


def _members(inner: Schema, outer: Schema, where: str) -> Iterator[str]:
    for name in outer.get("required", ()):
        if name not in inner.get("required", ()):
            yield f"{where}.{name}: need not be there on one side"
    ours, theirs = inner.get("properties", {}), outer.get("properties", {})
    for name in sorted(ours.keys() & theirs.keys()):
        yield from _narrowed(ours[name], theirs[name], f"{where}.{name}")
    for name, part in (("additionalProperties", ".*"), ("items", "[]")):
        if name in outer:
            yield from _narrowed(inner.get(name, True), outer[name], where + part)


def _rest(inner: Schema, outer: Schema, where: str) -> Iterator[str]:
    known = {*_NOTES, *_COMPARED, *_FLOORS, *_CEILINGS}
    for name in sorted(outer.keys() - known):
        if inner.get(name) != outer[name]:
            yield f"{where}: another {name}"


# ----------------------------------------------------------------------------- what vanishes


def _lost(old: Any, new: Any) -> Iterator[str]:
    """Yield the fields that there are no more: read no more, or written no more."""
    left = set(_fields(new, "$"))
    yield from (f"{field}: is gone" for field in _fields(old, "$") if field not in left)


def _fields(schema: Any, where: str) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    for name, part in schema.get("properties", {}).items():
        yield f"{where}.{name}"
        yield from _fields(part, f"{where}.{name}")
    for name, mark in (("additionalProperties", ".*"), ("items", "[]")):
        yield from _fields(schema.get(name), where + mark)
    for one in schema.get("anyOf", ()):
        yield from _fields(one, where)
