"""What is made from the code: in the documents, schemas, Kubernetes' topics, Grafana's dashboards.

`make docs` writes it, tests see that it is right.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kpis.catalog import Catalog
from kpis.kpi_table import markdown_table
from kpis.schemas import all_schemas
from streams.asyncapi import document as asyncapi_document
from streams.schema_files import ASYNCAPI, file_name, written
from streams.settings import Settings
from tests.documents import CONTRACT, examples_in
from tests.schemas.outputs import EXAMPLES

ROOT = Path(__file__).parent.parent
WITH_KPIS = ("README.md", "docs/kpis.md")
"""The documents that show the catalogue, between two marks."""

SCHEMAS = ROOT / "streams" / "schemas"
WRITERS = (["-m", "tests.deploy.kubernetes_files"], ["deploy/grafana/dashboards.py"])
"""What else writes files that are committed."""

_BETWEEN_MARKS = re.compile(r"(?<=<!-- kpis -->\n).*?(?=<!-- end of kpis -->\n)", re.DOTALL)


def with_kpis(document: str) -> str:
    """Return the text of a document with the catalogue of the default funnel between its marks.

    Raises:
        ValueError: unless it has the two marks once.
    """
    settings = Settings()
    catalog = Catalog(settings.funnel.stages, settings.cohort.horizon_days)
    text, times = _BETWEEN_MARKS.subn(lambda _: f"\n{markdown_table(catalog.kpis)}\n", document)
    if times != 1:
        msg = f"document: expected the marks of the table of KPIs once, got {times} times"
        raise ValueError(msg)
    return text


def schema_texts() -> dict[str, str]:
    """Return the files of streams/schemas by name."""
    examples: dict[str, Any] = {name: records[0] for name, records in EXAMPLES.items()}
    for _, line in examples_in(CONTRACT):
        event = json.loads(line)
        examples.setdefault(event["type"], event)
    documents = all_schemas() | {ASYNCAPI: asyncapi_document(version("leadpulse"), examples)}
    return {file_name(name): written(document) for name, document in documents.items()}


def main() -> None:
    """Write the tables into the documents, and all files."""
    for name in WITH_KPIS:
        path = ROOT / name
        path.write_text(with_kpis(path.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMAS.mkdir(exist_ok=True)
    for old in SCHEMAS.glob("*.json"):
        old.unlink()
    for name, text in schema_texts().items():
        (SCHEMAS / name).write_text(text, encoding="utf-8")
    for command in WRITERS:
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
