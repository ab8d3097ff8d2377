"""The schemas against those that were released first, and the comparison against known changes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpis.schemas import OUTPUTS, all_schemas
from tests.schemas.compatibility import input_faults, output_faults

V1 = Path(__file__).parent / "v1"
RELEASED: dict[str, Any] = {
    file.name.removesuffix(".schema.json"): json.loads(file.read_text(encoding="utf-8"))
    for file in V1.iterdir()
}
Change = Callable[[dict[str, Any]], Any]


def changed(name: str, *changes: Change) -> dict[str, Any]:
    schema: dict[str, Any] = copy.deepcopy(RELEASED[name])
    for change in changes:
        change(schema)
    return schema


def field(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return the part of a schema that a path of properties leads to."""
    part = schema
    for name in path:
        part = part["properties"][name]
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return part


def test_no_schema_is_gone() -> None:
    assert RELEASED.keys() <= all_schemas().keys()


@pytest.mark.parametrize("name", RELEASED)
def test_released_schemas_are_kept_to(name: str) -> None:
    faults = output_faults if name in OUTPUTS else input_faults
    found = faults(RELEASED[name], all_schemas()[name])
    assert found == [], "an incompatible change needs a new version of the topic"


@pytest.mark.parametrize("name", RELEASED)
def test_every_schema_is_compatible_with_itself(name: str) -> None:
    assert input_faults(RELEASED[name], RELEASED[name]) == []
    assert output_faults(RELEASED[name], RELEASED[name]) == []


FORBIDDEN_IN: list[tuple[str, Change, str]] = [
    ("lead.created", lambda s: s["required"].append("channel"), "$.channel: need not be there"),
    ("lead.created", lambda s: s["properties"].pop("click_id"), "$.click_id: is gone"),
    ("lead.created", lambda s: field(s, "lead_id").update(maxLength=64), "maxLength is narrower"),
    ("lead.created", lambda s: field(s, "lead_id").update(minLength=2), "minLength is narrower"),
    ("lead.created", lambda s: field(s, "lead_id").update(pattern="^L"), "another pattern"),
    ("lead.created", lambda s: field(s, "lead_id").update(type="integer"), "string is refused"),
    ("lead.created", lambda s: field(s, "channel")["anyOf"].pop(), "$.channel: None is refused"),
    ("lead.created", lambda s: s.update(additionalProperties=False), "$.*: cannot be compared"),
    ("lead.created", lambda s: s.update(minProperties=7), "another minProperties"),
    ("lead.created", lambda s: s.update(type="array"), "object is refused"),
    ("lead.invalidated", lambda s: field(s, "reason")["enum"].remove("bot"), "'bot' is refused"),
    ("lead.stage_changed", lambda s: field(s, "to_stage").update(enum=["mql"]), "only some values"),
    ("sale.created", lambda s: field(s, "amount")["anyOf"].pop(0), "$.amount: "),
    ("sale.created", lambda s: field(s, "amount")["anyOf"][1].update(maximum=1e6), "maximum"),
    ("fxrate.set", lambda s: field(s, "rate")["anyOf"][1].update(exclusiveMinimum=1), "exclusive"),
    ("target.set", lambda s: s["allOf"][1]["then"]["required"].append("profile"), "another allOf"),
]
ALLOWED_IN: list[tuple[str, Change]] = [
    ("lead.created", lambda s: field(s, "channel").pop("anyOf")),
    ("lead.created", lambda s: s["properties"].update(utm={"type": "string"})),
    ("lead.created", lambda s: s["required"].remove("lead_id")),
    ("lead.created", lambda s: field(s, "lead_id").update(maxLength=512)),
    ("lead.created", lambda s: field(s, "lead_id").pop("pattern")),
    ("lead.created", lambda s: field(s, "lead_id").update(type=["string", "integer"])),
    ("lead.created", lambda s: field(s, "lead_id").update(description="Of the CRM.")),
    ("lead.invalidated", lambda s: field(s, "reason")["enum"].append("fraud")),
    ("sale.created", lambda s: field(s, "amount")["anyOf"].append({"type": "boolean"})),
    ("target.set", lambda s: s.pop("allOf")),
]
FORBIDDEN_OUT: list[tuple[str, Change, str]] = [
    ("kpi-record", lambda s: s["required"].remove("facts"), "$.facts: need not be there"),
    ("kpi-record", lambda s: s["properties"].pop("previous"), "$.previous: is gone"),
    ("kpi-record", lambda s: field(s, "kpis")["properties"].pop("cpl"), "$.kpis.cpl: is gone"),
    ("kpi-record", lambda s: field(s, "scope")["properties"].pop("channel"), "$.scope.channel"),
    ("kpi-record", lambda s: field(s, "window")["required"].remove("start"), "$.window.start"),
    ("kpi-record", lambda s: field(s, "state")["enum"].append("lost"), "'lost' is refused"),
    ("kpi-record", lambda s: field(s, "state").pop("enum"), "$.state: only some values"),
    ("kpi-record", lambda s: field(s, "revision").update(type="number"), "number is refused"),
    ("kpi-record", lambda s: field(s, "revision").update(type=["integer", "null"]), "null is"),
    ("kpi-record", lambda s: field(s, "kpis", "cpl", "value").pop("anyOf"), "$.kpis.cpl.value"),
    ("kpi-record", lambda s: field(s, "kpis", "cpl", "interval").pop("maxItems"), "maxItems"),
    ("kpi-record", lambda s: field(s, "facts").update(additionalProperties=True), "$.facts.*"),
    ("alert", lambda s: field(s, "evidence")["properties"].pop("trials"), "evidence.trials: is"),
    ("alert", lambda s: field(s, "explanation")["anyOf"].pop(0), "$.explanation.cpc: is gone"),
    (
        "alert",
        lambda s: s["$defs"]["CampaignPart"]["required"].remove("cost"),
        "$.explanation.campaigns[].cost: need not be there",
    ),
    ("reject", lambda s: field(s, "field")["anyOf"].append({"type": "integer"}), "integer is"),
]
ALLOWED_OUT: list[tuple[str, Change]] = [
    ("kpi-record", lambda s: s["properties"].update(note={"type": "string"})),
    ("kpi-record", lambda s: field(s, "scope")["properties"].update(country={"type": "string"})),
    (
        "kpi-record",
        lambda s: field(s, "kpis")["properties"].update(cpo={"$ref": "#/$defs/KpiValue"}),
    ),
    ("kpi-record", lambda s: s["required"].append("previous")),
    ("kpi-record", lambda s: field(s, "state")["enum"].remove("revised")),
    ("kpi-record", lambda s: field(s, "kpis", "cpl")["properties"].update(unit={"type": "string"})),
    ("reject", lambda s: field(s, "field")["anyOf"].pop()),
]


@pytest.mark.parametrize(("name", "change", "told"), FORBIDDEN_IN)
def test_what_refuses_records_that_were_accepted_is_found(
    name: str, change: Change, told: str
) -> None:
    assert told in "\n".join(input_faults(RELEASED[name], changed(name, change)))


@pytest.mark.parametrize(("name", "change"), ALLOWED_IN)
def test_what_accepts_more_is_allowed(name: str, change: Change) -> None:
    assert input_faults(RELEASED[name], changed(name, change)) == []


@pytest.mark.parametrize(("name", "change", "told"), FORBIDDEN_OUT)
def test_what_readers_relied_on_is_found_when_it_vanishes(
    name: str, change: Change, told: str
) -> None:
    assert told in "\n".join(output_faults(RELEASED[name], changed(name, change)))


@pytest.mark.parametrize(("name", "change"), ALLOWED_OUT)
def test_what_says_more_is_allowed(name: str, change: Change) -> None:
    assert output_faults(RELEASED[name], changed(name, change)) == []
