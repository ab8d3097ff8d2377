"""JSON Schema (2020-12) of everything that goes in and comes out, made from the code that reads and writes it.

The schema of an event is what its reader asks of a record: the reader is run on fields that note what they
are asked for. So the two cannot differ.
"""

import inspect
from collections.abc import Collection, Mapping
from datetime import date
from fractions import Fraction
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec

from kpis.alert_records import TYPES, AlertValue
from kpis.catalog import Catalog
from kpis.events import TARGET_REMOVED, TARGET_SET, TOPICS, Envelope
from kpis.facts import AMOUNTS, BASES
from kpis.fields import LONGEST_EVENT_ID, LONGEST_ID, Fields, Rules
from kpis.readers import READERS
from kpis.windows import FINAL, KINDS, PROVISIONAL, REVISED

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
BASE: Final = "urn:leadpulse:schema:v1:"

_LARGEST: Final = 10**12
_INSTANT: Final[Schema] = {
    "type": "string",
    "format": "date-time",
    # A validator need not look at formats.
    "pattern": (
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)"
        r"(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])$"
    ),
    "description": "RFC 3339 with an offset, in the years 2000 to 2100; cut to milliseconds.",
}
_DATE: Final[Schema] = {
    "type": "string",
    "format": "date",
    "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
}
_DECIMAL: Final[Schema] = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,13}(\.[0-9]{1,6})?$"},
        {"type": "number", "minimum": 0, "maximum": _LARGEST},
    ],
    "description": "A decimal text or number, at most 6 decimals and 10^12, without exponent.",
}
_SIGNED: Final[Schema] = {
    "anyOf": [
        {"type": "string", "pattern": r"^-?[0-9]{1,13}(\.[0-9]{1,6})?$"},
        {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST},
    ],
    "description": "As other amounts; below 0 only with `credit`.",
}
_RATE: Final[Schema] = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,7}(\.[0-9]{1,12})?$"},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 10**6},
    ]
}
_CHANNEL: Final[Schema] = {
    "type": "string",
    "pattern": r"^\s*[A-Za-z0-9_-]{1,64}\s*$",
    "not": {"enum": ["_all", "__other__"]},
    "description": "Trimmed and lower-cased when read.",
}
_CURRENCY: Final[Schema] = {"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217."}


def _identifier(longest: int = LONGEST_ID) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": longest, "pattern": r"\S"}


# ----------------------------------------------------------------------------- input


class _Asked(Fields):
    """Fields that answer every question with something sound, and note what was asked."""

    def __init__(self, rules: Rules) -> None:
        super().__init__({}, rules)
        self.properties: dict[str, Schema] = {}
        self.required: list[str] = []

    def _note(self, name: str, schema: Schema, *, is_required: bool) -> None:
        # What one asks for at least, another may ask for again as it likes.
        if name in self.required:
            return
        if is_required:
            self.properties[name] = schema
            self.required.append(name)
        else:
            self.properties.setdefault(name, {"anyOf": [schema, {"enum": [None, ""]}]})

    def text(self, name: str, expected: str = "text") -> str | None:
        """Note a text."""
        self._note(name, {"type": "string", "description": expected}, is_required=False)
        return None

    def required_text(self, name: str, expected: str = "text") -> str:
        """Note a text that must be there."""
        if name == "kpi":
            known = [*self.rules.target_kpis, "stage_entered"]
            told = f"With the default funnel one of {', '.join(sorted(known))}."
            schema = {"type": "string", "minLength": 1, "description": told}
            self._note(name, schema, is_required=True)
            return known[0]
        self._note(
            name, {"type": "string", "minLength": 1, "description": expected}, is_required=True
        )
        return "text"

    def identifier(self, name: str) -> str | None:
        """Note an id."""
        self._note(name, _identifier(), is_required=False)
        return None

    def required_identifier(self, name: str, longest: int = LONGEST_ID) -> str:
        """Note an id that must be there."""
        self._note(name, _identifier(longest), is_required=True)
        return name

    def channel(self) -> str | None:
        """Note the channel."""
        self._note("channel", _CHANNEL, is_required=False)
        return None

    def required_channel(self) -> str:
        """Note the channel that must be there."""
        self._note("channel", _CHANNEL, is_required=True)
        return "seo"

    def campaign(self) -> str | None:
        """Note the campaign."""
        schema = _identifier() | {"not": {"enum": ["_all", "__other__"]}}
        self._note("campaign_id", schema, is_required=False)
        return None

    def flag(self, name: str) -> bool:
        """Note a truth."""
        self._note(name, {"type": "boolean"}, is_required=False)
        return False

    def required_count(self, name: str) -> int:
        """Note a count."""
        schema = {"type": "integer", "minimum": 0, "maximum": _LARGEST}
        self._note(name, schema, is_required=True)
        return 1

    def instant(self, name: str) -> int | None:
        """Note an instant."""
        self._note(name, _INSTANT, is_required=False)
        return None

    def required_instant(self, name: str) -> int:
        """Note an instant that must be there."""
        self._note(name, _INSTANT, is_required=True)
        return 0

    def required_bound(self, name: str, zone: ZoneInfo) -> int:  # noqa: ARG002 - as it is called
        """Note a bound of a period; the end lies after the start."""
        self._note(name, {"anyOf": [_INSTANT, _DATE]}, is_required=True)
        return len(self.required)

    def zone(self, name: str) -> ZoneInfo:
        """Note a time zone."""
        schema = {"type": "string", "description": "A zone of the IANA database."}
        self._note(name, schema, is_required=False)
        return self.rules.time_zone

    def required_date(self, name: str) -> date:
        """Note a date."""
        self._note(name, _DATE, is_required=True)
        return date(2026, 1, 1)

    def amount(self, name: str, *, signed: bool = False) -> int | None:  # noqa: ARG002
        """Note an amount."""
        self._note(name, _DECIMAL, is_required=False)
        return None

    def required_amount(self, name: str, *, signed: bool = False) -> int:  # noqa: ARG002
        """Note an amount that must be there; where there may be credits it may be below 0."""
        # Readers ask for it with `signed` only if the record says that it is a credit.
        is_cost = "cost_source" in self.properties
        self._note(name, _SIGNED if is_cost else _DECIMAL, is_required=True)
        return 1

    def required_target(self, name: str) -> int:
        """Note the value of a target."""
        self._note(name, _DECIMAL, is_required=True)
        return 1

    def required_rate(self, name: str) -> Fraction:
        """Note a rate."""
        self._note(name, _RATE, is_required=True)
        return Fraction(1)

    def required_currency(self, name: str = "currency") -> str:
        """Note a currency."""
        self._note(name, _CURRENCY, is_required=True)
        return name

    def check_reporting_currency(self) -> None:
        """Note a currency that some targets need."""
        told = {"description": "The reporting currency; needed, and read, for amounts only."}
        self.properties.setdefault("currency", told)

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """Note a choice."""
        self._note(name, {"enum": list(choices)}, is_required=False)
        return None

    def required_choice(self, name: str, choices: Collection[str]) -> str:
        """Note a choice that must be made."""
        self._note(name, {"enum": list(choices)}, is_required=True)
        return next(iter(choices))

    def stage(self, name: str) -> str | None:
        """Note a stage."""
        self._note(name, _STAGE, is_required=False)
        return None

    def required_stage(self, name: str) -> str:
        """Note a stage that must be there."""
        self._note(name, _STAGE | {"minLength": 1}, is_required=True)
        return "lead"


_STAGE: Final[Schema] = {
    "type": "string",
    "description": "A stage of the deployment's funnel, or an alias of one.",
}


def event_schema(type_name: str) -> Schema:
    """Return the schema of the records of a type, in the flat form.

    Raises:
        KeyError: for a type that no topic carries.
    """
    topic = next(topic for topic, names in TOPICS.items() if type_name in names)
    rules = Rules()
    asked = _Asked(rules)
    asked.required_identifier("event_id", LONGEST_EVENT_ID)
    asked.required_identifier("source")
    asked.required_instant("occurred_at")
    asked.instant("recorded_at")
    asked.flag("test")
    is_first = TOPICS[topic][0] == type_name
    reader, known = READERS[type_name]
    reader(asked, Envelope("e", "s", 0, None, b""))
    unread: dict[str, Schema] = {name: {} for name in sorted(known - asked.properties.keys())}
    version: Schema = {"type": "string", "pattern": r"^1\.(0|[1-9][0-9]{0,8})$"}
    unread["schema_version"] = {"anyOf": [version, {"enum": [None, ""]}], "default": "1.0"}
    unread["type"] = (
        {"enum": [type_name, None, ""], "default": type_name} if is_first else {"const": type_name}
    )
    return {
        "$schema": DIALECT,
        "$id": f"{BASE}{type_name}",
        "title": type_name,
        "description": f"A record of leadgen.{topic}.v1. Unknown fields are ignored and counted.",
        "type": "object",
        "properties": asked.properties | unread,
        "required": [*asked.required, *(() if is_first else ("type",))],
        **_conditions(type_name, rules),
    }


def _conditions(type_name: str, rules: Rules) -> Schema:
    """Return what a target needs besides, by what it is about; nothing for other types."""
    if type_name not in (TARGET_SET, TARGET_REMOVED):
        return {}
    amounts = sorted(name for name, unit in rules.target_kpis.items() if unit == "amount")
    staged = {"required": ["stage"], "properties": {"stage": _STAGE | {"minLength": 1}}}
    money = {"required": ["currency"], "properties": {"currency": _CURRENCY}}
    of_stages = {"if": _is_about(["stage_entered"]), "then": staged}
    of_money = {"if": _is_about(amounts), "then": money}
    return {"allOf": [of_stages, of_money] if type_name == TARGET_SET else [of_stages]}


def _is_about(names: list[str]) -> Schema:
    return {"required": ["kpi"], "properties": {"kpi": {"enum": names}}}


# ----------------------------------------------------------------------------- output


Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class KpiValue(msgspec.Struct, kw_only=True):
    """A KPI: its value, or why there is none."""

    value: float | None
    undefined_reason: str | msgspec.UnsetType = msgspec.UNSET
    implausible: bool | msgspec.UnsetType = msgspec.UNSET
    partial: bool | msgspec.UnsetType = msgspec.UNSET
    approximate: bool | msgspec.UnsetType = msgspec.UNSET
    interval: tuple[float, float] | msgspec.UnsetType = msgspec.UNSET


class ScopeTold(msgspec.Struct):
    """What the numbers are about; null: all."""

    channel: str | None
    campaign_id: str | None


class WindowTold(msgspec.Struct):
    """The interval [start, end) in the reporting zone; both null over lifetime."""

    kind: str
    start: Time | None
    end: Time | None
    time_zone: str


class KpiRecord(msgspec.Struct, kw_only=True):
    """All numbers of one basis, scope and window; they agree with each other."""

    version: int
    id: str
    basis: str
    scope: ScopeTold
    window: WindowTold
    state: str
    revision: int
    cause: str | None
    complete_until: Time | None
    computed_at: Time
    currency: str
    facts: dict[str, int | str | dict[str, int]]
    kpis: dict[str, KpiValue]
    previous: dict[str, float | None] | msgspec.UnsetType = msgspec.UNSET


class RejectRecord(msgspec.Struct, kw_only=True):
    """A record that can never be counted, and why. `original` is base64."""

    reason: str
    field: str | None
    message: str
    topic: str
    partition: int
    offset: int
    truncated: bool
    event_id: str | msgspec.UnsetType = msgspec.UNSET
    occurred_at: str | msgspec.UnsetType = msgspec.UNSET
    original: str | msgspec.UnsetType | None = msgspec.UNSET
    length: int | msgspec.UnsetType = msgspec.UNSET
    sha256: str | msgspec.UnsetType = msgspec.UNSET


OUTPUTS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "kpi-record": KpiRecord,
    "reject": RejectRecord,
    "alert": AlertValue,
}
"""What is written, by the name of its schema."""


def output_schema(name: str, catalog: Catalog | None = None) -> Schema:
    """Return the schema of what is written under a name of `OUTPUTS`.

    Args:
        name: One of them.
        catalog: The KPIs to name; those of the default funnel if left out.

    Raises:
        KeyError: for another name.
    """
    _, definitions = msgspec.json.schema_components([OUTPUTS[name]], ref_template="#/$defs/{name}")
    own = definitions.pop(OUTPUTS[name].__name__)
    schema = {"$schema": DIALECT, "$id": f"{BASE}{name}", **own}
    if definitions:
        schema["$defs"] = definitions
    for part in (schema, *schema.get("$defs", {}).values()):
        # Of the docstring what it is, not what its attributes are.
        part["description"] = inspect.cleandoc(part["description"]).partition("\n\n")[0]
    if name == "kpi-record":
        _name_kpis(schema, catalog or Catalog(Rules().funnel))
    if name == "alert":
        _name_states(schema)
    return schema


def _name_states(schema: Schema) -> None:
    schema["properties"]["state"] = {"enum": list(TYPES)}
    for moment in ("at", "since"):
        schema["properties"][moment]["format"] = "date-time"


def _name_kpis(schema: Schema, catalog: Catalog) -> None:
    properties = schema["properties"]
    properties["basis"] = {"enum": list(BASES)}
    properties["state"] = {"enum": [PROVISIONAL, FINAL, REVISED]}
    # No enum: what reads the windows it knows is not hurt by another one.
    kind = schema["$defs"]["WindowTold"]["properties"]["kind"]
    kind["description"] = f"One of {', '.join(KINDS)}; others may come."
    properties["facts"]["description"] = (
        "Additive facts; those that are 0 are left out. Amounts are decimal texts: "
        + ", ".join(sorted(AMOUNTS))
        + "."
    )
    named = {
        kpi.name: {"$ref": "#/$defs/KpiValue", "description": f"{kpi.french}; {kpi.unit}."}
        for kpi in catalog.kpis
        if not kpi.per_target
    }
    properties["kpis"]["properties"] = named


def all_schemas() -> dict[str, Schema]:
    """Return every schema by name: those of events by their types, those of `OUTPUTS` by theirs."""
    events = {name: event_schema(name) for names in TOPICS.values() for name in names}
    return events | {name: output_schema(name) for name in OUTPUTS}
