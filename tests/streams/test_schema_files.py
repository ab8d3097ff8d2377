"""The schemas as they are shipped, and the AsyncAPI document."""

import gzip
import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft7Validator

from kpis.events import TOPICS
from kpis.schemas import OUTPUTS, all_schemas
from streams.cli import main
from streams.schema_files import names
from streams.settings import Settings
from streams.topics import topics_of
from tests.deploy.files import uv
from tests.documents import ROOT
from tests.generated import SCHEMAS, schema_texts
from tests.schemas.validators import faults_of

PREFIX = {"LEADPULSE_TOPICS_PREFIX": "acme."}
WRITTEN = (
    ("kpis", "kpi-record"),
    ("kpi-windows", "kpi-record"),
    ("alerts", "alert"),
    ("rejects", "reject"),
)

OFFICIAL = ROOT / "tests" / "schemas" / "asyncapi-3.0.0.json.gz"
"""Source: schemas/3.0.0-without-$id.json of @asyncapi/specs 6.8.1 (Apache-2.0)."""


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"LEADPULSE_CONFIG": "", **environ})


def asyncapi(**environ: str) -> Any:
    result = run("schemas", "asyncapi", **environ)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def references(part: Any) -> Iterator[str]:
    """Yield every reference of a document."""
    if isinstance(part, dict):
        for name, inner in part.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def at(document: Any, reference: str) -> Any:
    """Return what a reference within a document points at."""
    part = document
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part


# ----------------------------------------------------------------------------- files


def test_committed_schemas_are_what_the_code_makes() -> None:
    found = {file.name: file.read_text(encoding="utf-8") for file in SCHEMAS.iterdir()}
    assert found == schema_texts(), "make docs writes them anew"


@pytest.mark.timeout(300)
def test_the_wheel_has_every_schema_and_the_page(tmp_path: Path) -> None:
    command = [uv(), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    folders = (SCHEMAS, ROOT / "streams" / "page")
    files = [file for folder in folders for file in folder.iterdir() if file.is_file()]
    assert len(files) > len(all_schemas()) + 5
    assert {str(file.relative_to(ROOT)) for file in files} <= held


# ----------------------------------------------------------------------------- command


def test_schemas_are_listed_printed_and_copied(tmp_path: Path) -> None:
    listed = run("schemas").stdout.splitlines()
    assert set(listed) == {*all_schemas(), "asyncapi"}
    assert list(names()) == listed
    assert json.loads(run("schemas", "lead.created").stdout) == all_schemas()["lead.created"]

    to = tmp_path / "new" / "schemas"
    assert run("schemas", "--to", str(to)).stdout == f"wrote {len(listed)} files to {to}\n"
    assert {file.name: file.read_text() for file in to.iterdir()} == schema_texts()


@pytest.mark.parametrize(
    ("name", "todo"),
    [
        ("lead.creatd", "did you mean lead.created?"),
        ("KPI_record", "did you mean kpi-record?"),
        ("xyzzy", "`leadpulse schemas` lists them"),
    ],
)
def test_a_schema_that_does_not_exist_is_told_with_the_nearest_name(name: str, todo: str) -> None:
    result = run("schemas", name)
    expected = "a type of event, kpi-record, reject, alert or asyncapi"
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"schema: expected {expected}, got {name}; {todo}\n"


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    result = run("schemas", "--to", str(file / "schemas"))
    assert result.exit_code == 1
    assert result.stderr.startswith("--to: expected a folder that can be written, got ")


# ----------------------------------------------------------------------------- AsyncAPI


@pytest.mark.parametrize("environ", [{}, PREFIX])
def test_document_is_valid_by_the_schema_of_asyncapi(environ: dict[str, str]) -> None:
    official = Draft7Validator(json.loads(gzip.decompress(OFFICIAL.read_bytes())))
    document = asyncapi(**environ)
    assert [error.message for error in official.iter_errors(document)] == []
    assert not official.is_valid(document | {"channels": {"leads": {"adress": "leads"}}})


def test_references_of_the_document_lead_somewhere() -> None:
    document = asyncapi()
    found = set(references(document))
    assert len(found) > len(all_schemas())
    for reference in found:
        assert isinstance(at(document, reference), dict)


def test_document_has_the_topics_of_the_deployment_with_their_messages() -> None:
    topics = topics_of(Settings())
    document = asyncapi()
    written = {topics.kpis, topics.windows, topics.alerts, topics.rejects}
    channels = document["channels"]
    assert {channel["address"] for channel in channels.values()} == {
        *topics.inputs.values(),
        *written,
    }
    for short, kinds in TOPICS.items():
        assert set(channels[short]["messages"]) == set(kinds)
    actions = {
        document["channels"][operation["channel"]["$ref"].rpartition("/")[2]]["address"]: operation[
            "action"
        ]
        for operation in document["operations"].values()
    }
    assert actions == dict.fromkeys(topics.inputs.values(), "receive") | dict.fromkeys(
        written, "send"
    )

    renamed = asyncapi(**PREFIX)["channels"]
    assert renamed["leads"]["address"] == "acme.leads.v1"
    assert renamed["alerts"]["bindings"]["kafka"]["topic"] == "acme.alerts.v1"


@pytest.mark.parametrize("name", all_schemas())
def test_every_message_has_an_example_that_its_schema_accepts(name: str) -> None:
    (example,) = asyncapi()["components"]["messages"][name]["examples"]
    assert not faults_of(name, example["payload"], is_closed=name in OUTPUTS)
    if name not in OUTPUTS:
        assert example["payload"]["type"] == name


def test_a_message_of_every_topic_accepts_what_is_written_there() -> None:
    document = asyncapi()

    def payloads(short: str) -> list[Any]:
        messages = document["operations"][f"send-{short}"]["messages"]
        of_channel = [at(document, message["$ref"]) for message in messages]
        return [at(document, message["$ref"])["payload"] for message in of_channel]

    # Only windows leave retention; an alert keeps its last word.
    for short, name in WRITTEN:
        record, *others = payloads(short)
        assert record == {"$ref": f"#/components/schemas/{name}"}
        # Only windows leave retention; an alert keeps its last word.
        assert others == ([{"type": "null"}] if short == "kpis" else [])
