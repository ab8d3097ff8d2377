"""What in the documents is made from the code; `make docs` writes it, a test sees that it is right."""

import re
from pathlib import Path

from kpis.catalog import Catalog
from kpis.kpi_table import markdown_table
from streams.settings import Settings

ROOT = Path(__file__).parent.parent
WITH_KPIS = ("README.md", "docs/kpis.md")
"""The documents that show the catalogue, between two marks."""

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


def main() -> None:
    """Write the tables into the documents."""
    for name in WITH_KPIS:
        path = ROOT / name
        path.write_text(with_kpis(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
