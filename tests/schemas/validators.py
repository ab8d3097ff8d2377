"""Records against the schemas, open as they are published or closed to what they do not name."""

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from kpis.schemas import all_schemas


def faults_of(name: str, record: object, *, is_closed: bool = False) -> list[str]:
    """Return what is wrong with a record by the schema of that name.

    Args:
        name: A type of event, or one of `OUTPUTS`.
        record: What JSON gives.
        is_closed: Whether what the schema does not name is wrong too.
    """
    check: Any = validator(name, is_closed=is_closed)
    return [f"{error.json_path}: {error.message:.200}" for error in check.iter_errors(record)]


@cache
def validator(name: str, *, is_closed: bool = False) -> Draft202012Validator:
    """Return the validator of a schema; formats are looked at too."""
    schema = all_schemas()[name]
    return Draft202012Validator(
        closed(schema) if is_closed else schema,
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


def closed(schema: Any) -> Any:
    """Return a schema that forbids the properties it does not name."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: closed(part) for name, part in schema.items()}
    is_object = parts.get("type") == "object" and "properties" in parts
    return {"additionalProperties": False} | parts if is_object else parts
