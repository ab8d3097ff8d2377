"""The schemas and the AsyncAPI document as they are shipped: listed, printed and copied out."""

import difflib
import json
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from streams.asyncapi import readdressed
from streams.problems import Problem
from streams.topics import Topics

ENDING: Final = ".schema.json"
ASYNCAPI: Final = "asyncapi"


def folder() -> Traversable:
    """Return where they are."""
    return files("streams") / "schemas"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all schemas, in alphabetical order, and of the document."""
    found = (file.name for file in folder().iterdir())
    schemas = sorted(name.removesuffix(ENDING) for name in found if name.endswith(ENDING))
    return (*schemas, ASYNCAPI)


def file_name(name: str) -> str:
    """Return what the file of a schema, or of the document, is called."""
    return f"{name}.json" if name == ASYNCAPI else f"{name}{ENDING}"


def text(name: str, topics: Topics) -> str:
    """Return a schema; the document with the names that these topics have.

    Raises:
        Problem: if there is none of that name.
    """
    if name not in names():
        found = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.5)
        todo = f"did you mean {found[0]}?" if found else "`leadpulse schemas` lists them"
        where, expected = "schema", "a type of event, kpi-record, reject, alert or asyncapi"
        raise Problem(where, expected, f"{name:.80}", todo)
    shipped = (folder() / file_name(name)).read_text(encoding="utf-8")
    return written(readdressed(json.loads(shipped), topics)) if name == ASYNCAPI else shipped


def copy(to: Path, topics: Topics) -> int:
    """Write all files into a folder, which is made if need be, and return how many.

    Raises:
        Problem: if that is not possible.
    """
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name in names():
            (to / file_name(name)).write_text(text(name, topics), encoding="utf-8")
    except OSError as error:
        where, got = "--to", f"{to}: {error.strerror}"
        raise Problem(where, "a folder that can be written", got) from None
    return len(names())


def written(document: object) -> str:
    """Return JSON as it stands in the files."""
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
